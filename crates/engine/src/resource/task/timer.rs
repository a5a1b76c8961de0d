//! Interval timers: ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF (setitimer(2)).
//!
//! **In the kernel**: three per process. REAL runs on the monotonic clock, the others on the process's CPU time.
//!
//! **In the image**: the time that remains and the interval, as getitimer(2) tells.
//!
//! **Taken how**: getitimer inside, while the process stands still. **Put back how**: setitimer inside, at the very end.
//!
//! **Not saved**: below a microsecond.

use bardo_kernel::Sysno;
use bardo_kernel::stub::{Arg, Batch};
use serde::{Deserialize, Serialize};

use super::signal::{offset, words};

const ITIMERVAL: usize = 32;

/// The three interval timers: {interval s, interval µs, remaining s, remaining µs} each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntervalTimers(pub [[u64; 4]; 3]);

impl IntervalTimers {
    /// Asks for them.
    pub fn ask(batch: &mut Batch) -> Arg {
        let room = batch.room_for(3 * ITIMERVAL);
        for which in 0..3 {
            batch.call(Sysno::getitimer, [Arg::Value(which), offset(room, which as usize * ITIMERVAL)]);
        }
        room
    }

    /// The answer to a question that was asked this long ago. `rang`: SIGALRM waits, from the kernel.
    pub fn take(asked: Arg, batch: &Batch, asked_ns_ago: u64, rang: bool) -> IntervalTimers {
        let w = words(batch.output(asked, 3 * ITIMERVAL));
        let mut timers = [0, 4, 8].map(|i| [w[i], w[i + 1], w[i + 2], w[i + 3]]);
        // It has expired since: its signal is in the queue, and one more would be too many.
        let [_, _, s, us] = timers[0];
        if rang && s.saturating_mul(1_000_000).saturating_add(us) <= asked_ns_ago / 1000 + 1 {
            timers[0][2..].fill(0);
        }
        IntervalTimers(timers)
    }

    /// Sets those that run.
    pub fn put(&self, batch: &mut Batch) {
        for (which, timer) in (0..3).zip(self.0) {
            let [interval_s, interval_us, s, us] = timer;
            // Nothing remains, but there is an interval: it has expired, its signal is pending, and the kernel starts it
            // again when the signal is taken (it_real_fn). It gets there by expiring at once, while signals are blocked.
            let expired = s == 0 && us == 0;
            if expired && interval_s == 0 && interval_us == 0 {
                continue;
            }
            let timer = [interval_s, interval_us, s, if expired { 1 } else { us }];
            let bytes: Vec<u8> = timer.iter().flat_map(|w| w.to_ne_bytes()).collect();
            let at = batch.data(&bytes);
            batch.call(Sysno::setitimer, [Arg::Value(which), at, Arg::Value(0)]);
        }
    }
}
