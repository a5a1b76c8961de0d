//! Resource limits (getrlimit(2)).
//!
//! **In the kernel**: sixteen per process, a soft and a hard value. **In the image**: all of them.
//!
//! **Taken how**: `/proc/PID/limits`. **Put back how**: prlimit(2) inside, last of all that needs room.
//!
//! **Not saved**: a hard limit above what the restarter has can't be given without CAP_SYS_RESOURCE: it is lowered to
//! what there is, and said.

use bardo_kernel::Sysno;
use bardo_kernel::procfs::limits;
use bardo_kernel::stub::{Arg, Batch};
use serde::{Deserialize, Serialize};

/// All limits: {soft, hard}, in the order of the RLIMIT_… numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits(pub Vec<[u64; 2]>);

impl Limits {
    /// Reads a process's limits.
    pub fn take(pid: i32) -> bardo_kernel::Result<Limits> {
        Ok(Limits(limits::read(pid)?.0.iter().map(|limit| [limit.soft, limit.hard]).collect()))
    }

    /// Sets those that differ from `now`, which the process inherited.
    pub fn put(&self, now: &Limits, batch: &mut Batch) {
        for (resource, (want, have)) in self.0.iter().zip(&now.0).enumerate() {
            if want == have {
                continue;
            }
            let hard = want[1].min(have[1]);
            let bytes: Vec<u8> = [want[0].min(hard), hard].iter().flat_map(|w| w.to_ne_bytes()).collect();
            let lowered = batch.data(&bytes);
            if want[1] > have[1] {
                // With CAP_SYS_RESOURCE the whole is possible; without it, what there is.
                batch.call(
                    Sysno::prlimit64,
                    [Arg::Value(0), Arg::Value(resource as u64), lowered, Arg::Value(0)],
                );
                let whole: Vec<u8> = want.iter().flat_map(|w| w.to_ne_bytes()).collect();
                let whole = batch.data(&whole);
                batch.attempt(
                    Sysno::prlimit64,
                    [Arg::Value(0), Arg::Value(resource as u64), whole, Arg::Value(0)],
                );
            } else {
                batch.call(
                    Sysno::prlimit64,
                    [Arg::Value(0), Arg::Value(resource as u64), lowered, Arg::Value(0)],
                );
            }
        }
    }
}
