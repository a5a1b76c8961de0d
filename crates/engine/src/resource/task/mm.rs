//! The rules of an address space: what holds for all of its memory, that of later mappings too (prctl(2)).
//!
//! **In the kernel**: an address space may be kept from huge pages (PR_SET_THP_DISABLE), offered to the kernel's merging of equal
//! pages (PR_SET_MEMORY_MERGE), and kept from making memory executable that wasn't (PR_SET_MDWE), which can't be taken back.
//! A fork inherits all three; exec, some.
//!
//! **In the image**: with the process's record.
//!
//! **Taken how**: asked inside. **Put back how**: the first process takes off what it has from the restarter, before anything is
//! mapped; each process gets its own once its memory is whole. To merge is then a flag of every area, and is taken off those that
//! had it not.
//!
//! **Not saved**: which pages were merged. Where the restarter itself is kept from making memory executable, a tree that isn't
//! can't be restarted.

use bardo_kernel::stub::{Arg, Batch, StepId};
use bardo_kernel::{Sysno, ptrace};
use serde::{Deserialize, Serialize};

use super::signal::answer;
use crate::error::Refusal;

const PR_SET_MDWE: u64 = 65;
const PR_GET_MDWE: u64 = 66;
const PR_SET_MEMORY_MERGE: u64 = 67;
const PR_GET_MEMORY_MERGE: u64 = 68;

/// The rules of an address space.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// PR_GET_THP_DISABLE: bit 0, huge pages are off; bit 1 (6.18), but where a program advised them.
    pub huge_pages_off: u64,
    /// PR_GET_MEMORY_MERGE.
    pub merge: bool,
    /// PR_GET_MDWE: bit 0, no gain of PROT_EXEC; bit 1, children don't inherit that.
    pub executable: u64,
}

/// The questions for [`Rules::take`].
#[derive(Debug)]
pub struct RulesAsked {
    huge_pages_off: StepId,
    merge: StepId,
    executable: StepId,
}

fn control(option: u64, first: u64, second: u64) -> [Arg; 5] {
    [option, first, second, 0, 0].map(Arg::Value)
}

impl Rules {
    /// Asks for them.
    pub fn ask(batch: &mut Batch) -> RulesAsked {
        let mut ask = |option| batch.attempt(Sysno::prctl, control(option, 0, 0));
        RulesAsked {
            huge_pages_off: ask(libc::PR_GET_THP_DISABLE as u64),
            merge: ask(PR_GET_MEMORY_MERGE),
            executable: ask(PR_GET_MDWE),
        }
    }

    /// The answer.
    pub fn take(asked: &RulesAsked, batch: &Batch) -> Rules {
        Rules {
            huge_pages_off: answer(batch, asked.huge_pages_off, 0),
            merge: answer(batch, asked.merge, 0) != 0,
            executable: answer(batch, asked.executable, 0),
        }
    }

    /// Takes off what the first process has from the restarter.
    pub fn take_off(batch: &mut Batch) {
        batch.attempt(Sysno::prctl, control(libc::PR_SET_THP_DISABLE as u64, 0, 0));
        batch.attempt(Sysno::prctl, control(PR_SET_MEMORY_MERGE, 0, 0));
    }

    /// Puts them back, in an address space that has `now`, what can't be taken off, and whose memory is whole.
    pub fn put(&self, now: &Rules, batch: &mut Batch) {
        if self.huge_pages_off & 1 != 0 {
            let but_where_advised = self.huge_pages_off & 2;
            batch.call(Sysno::prctl, control(libc::PR_SET_THP_DISABLE as u64, 1, but_where_advised));
        }
        if self.merge {
            batch.call(Sysno::prctl, control(PR_SET_MEMORY_MERGE, 1, 0));
        }
        if self.executable != now.executable {
            batch.call(Sysno::prctl, control(PR_SET_MDWE, self.executable, 0));
        }
    }
}

/// What the restarter's own rules stand in the way of. `all`: those of the tree's processes.
pub fn check(mut all: impl Iterator<Item = Rules>) -> Option<Refusal> {
    if !ptrace::hands_on_executable_rule() || all.all(|rules| rules.executable & 1 != 0) {
        return None;
    }
    Some(Refusal {
        who: None,
        fd: None,
        what: "bardo is kept from making memory executable, and this tree isn't".into(),
        code: "task/mm",
        why: "every process that bardo makes inherits that (PR_SET_MDWE), and none gets rid of it".into(),
        remedy: "run bardo outside the service that is set up so (systemd: MemoryDenyWriteExecute=)".into(),
    })
}
