//! Registrations for expedited memory barriers (membarrier(2)).
//!
//! **In the kernel**: an address space has to register before its threads may ask for an expedited barrier; who hasn't gets
//! EPERM. Languages' runtimes register once, when they start.
//!
//! **In the image**: with the process's record: the MEMBARRIER_CMD_REGISTER_… that were given, a bit each.
//!
//! **Taken how**: by asking, inside, for each barrier, which is refused to who isn't registered, and is nothing to threads that
//! stand still; MEMBARRIER_CMD_GET_REGISTRATIONS (Linux 6.3) for the one that is refused to nobody. It doesn't do for the
//! others: it tells of a plain registration that wasn't given, where there is one for more than memory. **Put back how**: by registering again, inside.
//!
//! **Not saved**: before Linux 6.3, a registration for MEMBARRIER_CMD_GLOBAL_EXPEDITED, of which nothing tells.

use bardo_kernel::Sysno;
use bardo_kernel::stub::{Arg, Batch, StepId};
use serde::{Deserialize, Serialize};

const GET_REGISTRATIONS: u64 = 1 << 9;
/// MEMBARRIER_CMD_REGISTER_{GLOBAL_EXPEDITED, PRIVATE_EXPEDITED, PRIVATE_EXPEDITED_SYNC_CORE, PRIVATE_EXPEDITED_RSEQ}.
const REGISTER: [u64; 4] = [1 << 2, 1 << 4, 1 << 6, 1 << 8];

/// The registrations of an address space.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Barriers(pub u64);

/// The questions for [`Barriers::take`].
#[derive(Debug)]
pub struct BarriersAsked {
    all: StepId,
    /// Barriers, each with the registration that it needs.
    each: [(u64, StepId); 3],
}

impl Barriers {
    /// Asks for them.
    pub fn ask(batch: &mut Batch) -> BarriersAsked {
        let mut ask = |command| {
            let zero = Arg::Value(0);
            batch.attempt(Sysno::membarrier, [Arg::Value(command), zero, zero])
        };
        let all = ask(GET_REGISTRATIONS);
        // The command of a barrier is the bit below that of its registration.
        let each = [REGISTER[1], REGISTER[2], REGISTER[3]].map(|register| (register, ask(register >> 1)));
        BarriersAsked { all, each }
    }

    /// The answer.
    pub fn take(asked: &BarriersAsked, batch: &Batch) -> Barriers {
        let global = batch.result(asked.all).map_or(0, |all| all & REGISTER[0]);
        let registered = asked.each.iter().filter(|(_, step)| batch.result(*step).is_ok());
        Barriers(global | registered.map(|(register, _)| register).sum::<u64>())
    }

    /// Registers again, in an address space that has no registration.
    pub fn put(&self, batch: &mut Batch) {
        for register in REGISTER.into_iter().filter(|register| self.0 & register != 0) {
            let zero = Arg::Value(0);
            batch.call(Sysno::membarrier, [Arg::Value(register), zero, zero]);
        }
    }
}
