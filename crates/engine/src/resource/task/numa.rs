//! On which memory nodes a thread's new pages go (set_mempolicy(2)).
//!
//! **In the kernel**: each thread has a policy, for what no policy of an area says otherwise; a new thread has its maker's.
//!
//! **In the image**: with the thread's record: the mode with its flags, and the nodes.
//!
//! **Taken how**: get_mempolicy(2) inside. **Put back how**: set_mempolicy inside, where it differs from what the thread was born
//! with. Nodes that this machine doesn't have are left out by the kernel; where none is left, the thread has the default.
//!
//! **Not saved**: where an interleaving policy stands in its round.

use bardo_image::Blob;
use bardo_kernel::Sysno;
use bardo_kernel::stub::{Arg, Batch, StepId};
use serde::{Deserialize, Serialize};

use super::signal::words;

/// Bytes of a set of nodes: MAX_NUMNODES is at most 1024.
const NODES: usize = 128;
/// What the kernel is told: it takes one off.
const MAXNODE: u64 = NODES as u64 * 8 + 1;
/// Modes that name no nodes: MPOL_DEFAULT, MPOL_LOCAL.
const WITHOUT_NODES: [u32; 2] = [0, 4];
/// MPOL_MODE_FLAGS: static and relative nodes, balancing.
const MODE_FLAGS: u32 = 0xe000;

/// A thread's policy; as a rule the default, 0 with no nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPolicy {
    /// MPOL_…, with its flags.
    pub mode: u32,
    /// The nodes, a bit each, without the zeros at the end.
    pub nodes: Blob,
}

/// The questions for [`MemoryPolicy::take`].
#[derive(Debug)]
pub struct MemoryPolicyAsked {
    step: StepId,
    mode: Arg,
    nodes: Arg,
}

impl MemoryPolicy {
    /// Asks for it.
    pub fn ask(batch: &mut Batch) -> MemoryPolicyAsked {
        let (mode, nodes) = (batch.room_for(8), batch.room_for(NODES));
        let zero = Arg::Value(0);
        let step = batch.attempt(Sysno::get_mempolicy, [mode, nodes, Arg::Value(MAXNODE), zero, zero]);
        MemoryPolicyAsked { step, mode, nodes }
    }

    /// The answer; the default from a kernel that has no nodes.
    pub fn take(asked: &MemoryPolicyAsked, batch: &Batch) -> MemoryPolicy {
        if batch.result(asked.step).is_err() {
            return MemoryPolicy::default();
        }
        let nodes = batch.output(asked.nodes, NODES);
        let used = nodes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        MemoryPolicy {
            mode: words(batch.output(asked.mode, 8))[0] as u32,
            nodes: Blob(nodes[..used].to_vec()),
        }
    }

    /// Puts it back into a thread that has `now`.
    pub fn put(&self, now: &MemoryPolicy, batch: &mut Batch) {
        if self == now {
            return;
        }
        let mode = Arg::Value(u64::from(self.mode));
        if WITHOUT_NODES.contains(&(self.mode & !MODE_FLAGS)) {
            batch.attempt(Sysno::set_mempolicy, [mode, Arg::Value(0), Arg::Value(0)]);
            return;
        }
        let mut nodes = self.nodes.to_vec();
        nodes.resize(NODES, 0);
        let nodes = batch.data(&nodes);
        batch.attempt(Sysno::set_mempolicy, [Arg::Value(0), Arg::Value(0), Arg::Value(0)]);
        // EINVAL: none of them is on this machine.
        batch.attempt(Sysno::set_mempolicy, [mode, nodes, Arg::Value(MAXNODE)]);
    }
}
