//! What a thread may do with the processor: rdtsc, cpuid, how it speculates (prctl(2), arch_prctl(2)).
//!
//! **In the kernel**: each thread its own; a new thread has what its maker had. PR_SET_TSC and ARCH_SET_CPUID make an
//! instruction fault. PR_SET_SPECULATION_CTRL turns a kind of speculation off, for good where it is forced.
//!
//! **In the image**: with the thread's record.
//!
//! **Taken how**: asked inside. **Put back how**: inside, where it differs from what the thread was born with. Where this
//! processor or this kernel leaves no choice, there is nothing to put back.
//!
//! **Not saved**: a speculation that the restarter has forced off stays off.

use bardo_kernel::Sysno;
use bardo_kernel::stub::{Arg, Batch, StepId};
use serde::{Deserialize, Serialize};

use super::signal::words;

const ARCH_GET_CPUID: u64 = 0x1011;
const ARCH_SET_CPUID: u64 = 0x1012;
const PR_GET_TSC: u64 = 25;
const PR_SET_TSC: u64 = 26;
const PR_GET_SPECULATION_CTRL: u64 = 52;
const PR_SET_SPECULATION_CTRL: u64 = 53;
/// Kinds of speculation: PR_SPEC_STORE_BYPASS, PR_SPEC_INDIRECT_BRANCH, PR_SPEC_L1D_FLUSH.
const KINDS: usize = 3;
/// PR_SPEC_PRCTL: the thread has the choice.
const CHOICE: u32 = 1;
/// PR_SPEC_ENABLE.
const ENABLE: u32 = 2;
/// PR_SPEC_L1D_FLUSH, which protects where it is enabled: the others do where they are disabled.
const L1D_FLUSH: usize = 2;

/// What a thread may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processor {
    /// PR_GET_TSC: PR_TSC_ENABLE or PR_TSC_SIGSEGV; 0 where that can't be told.
    pub timestamp: u32,
    /// Whether cpuid faults (ARCH_GET_CPUID).
    pub cpuid_faults: bool,
    /// PR_GET_SPECULATION_CTRL of each kind; 0 where there is no choice.
    pub speculation: [u32; KINDS],
}

/// The questions for [`Processor::take`].
#[derive(Debug)]
pub struct ProcessorAsked {
    timestamp: Arg,
    cpuid: StepId,
    speculation: [StepId; KINDS],
}

impl Processor {
    /// Asks for it.
    pub fn ask(batch: &mut Batch) -> ProcessorAsked {
        let timestamp = batch.room_for(8);
        batch.attempt(Sysno::prctl, [Arg::Value(PR_GET_TSC), timestamp]);
        let cpuid = batch.attempt(Sysno::arch_prctl, [Arg::Value(ARCH_GET_CPUID), Arg::Value(0)]);
        let speculation = [0, 1, 2].map(|kind| {
            let zero = Arg::Value(0);
            batch.attempt(
                Sysno::prctl,
                [Arg::Value(PR_GET_SPECULATION_CTRL), Arg::Value(kind), zero, zero, zero],
            )
        });
        ProcessorAsked { timestamp, cpuid, speculation }
    }

    /// The answer.
    pub fn take(asked: &ProcessorAsked, batch: &Batch) -> Processor {
        let choice = |step| {
            let state = batch.result(step).unwrap_or(0) as u32;
            if state & CHOICE == 0 { 0 } else { state }
        };
        Processor {
            timestamp: words(batch.output(asked.timestamp, 8))[0] as u32,
            cpuid_faults: batch.result(asked.cpuid).is_ok_and(|enabled| enabled == 0),
            speculation: asked.speculation.map(choice),
        }
    }

    /// Puts it back into a thread that has `now`.
    pub fn put(&self, now: &Processor, batch: &mut Batch) {
        for (kind, (want, have)) in self.speculation.into_iter().zip(now.speculation).enumerate() {
            if want == have || want == 0 || have == 0 {
                continue;
            }
            let zero = Arg::Value(0);
            let (kind_value, control) = (Arg::Value(kind as u64), Arg::Value(u64::from(want & !CHOICE)));
            let args = [Arg::Value(PR_SET_SPECULATION_CTRL), kind_value, control, zero, zero];
            let protects = (want & ENABLE != 0) == (kind == L1D_FLUSH);
            if protects {
                batch.call(Sysno::prctl, args);
            } else {
                // EPERM: it has been forced off.
                batch.attempt(Sysno::prctl, args);
            }
        }
        if self.timestamp != now.timestamp && self.timestamp != 0 {
            batch.call(Sysno::prctl, [Arg::Value(PR_SET_TSC), Arg::Value(u64::from(self.timestamp))]);
        }
        if self.cpuid_faults != now.cpuid_faults {
            let enabled = Arg::Value(u64::from(!self.cpuid_faults));
            batch.call(Sysno::arch_prctl, [Arg::Value(ARCH_SET_CPUID), enabled]);
        }
    }
}
