//! How a thread is scheduled: nice value, policy, processors, I/O priority, timer slack (sched(7)).
//!
//! **In the kernel**: each thread its own. **In the image**: with the thread's record.
//!
//! **Taken how**: `/proc/PID/task/TID/stat`, sched_getaffinity(2), prctl(2). **Put back how**: inside the thread.
//! Processors that this machine doesn't have are left out; where none is left, the thread may run everywhere.
//!
//! **Not saved**: utilisation clamps. A thread scheduled by deadline is refused.

use bardo_image::Blob;
use bardo_kernel::procfs::stat::Stat;
use bardo_kernel::stub::{Arg, Batch};
use bardo_kernel::{Sysno, ptrace};
use serde::{Deserialize, Serialize};

/// How a thread is scheduled.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// −20 to 19 (stat, nice).
    pub nice: i64,
    /// SCHED_…, with SCHED_RESET_ON_FORK (sched_getscheduler(2)).
    pub policy: u32,
    /// For SCHED_FIFO and SCHED_RR (stat, rt_priority).
    pub priority: u32,
    /// The processors it may run on: a bit mask (sched_getaffinity(2)).
    pub processors: Blob,
    /// ioprio_get(2).
    #[serde(default)]
    pub io_priority: u32,
    /// PR_GET_TIMERSLACK, in nanoseconds.
    pub timer_slack_ns: u64,
}

impl Schedule {
    /// Reads it; the timer slack was asked inside.
    pub fn take(stat: &Stat, tid: i32, timer_slack_ns: u64) -> bardo_kernel::Result<Schedule> {
        Ok(Schedule {
            nice: stat.nice,
            policy: ptrace::scheduler(tid)?,
            priority: stat.rt_priority,
            processors: Blob(ptrace::cpu_mask(tid)?),
            io_priority: ptrace::io_priority(tid)?,
            timer_slack_ns,
        })
    }

    /// Puts it back into a thread that has `now`.
    pub fn put(&self, now: &Schedule, batch: &mut Batch) {
        if self.policy != now.policy || self.priority != now.priority {
            let at = batch.data(&self.priority.to_ne_bytes());
            batch.call(Sysno::sched_setscheduler, [Arg::Value(0), Arg::Value(u64::from(self.policy)), at]);
        }
        if self.nice != now.nice {
            batch.call(Sysno::setpriority, [Arg::Value(0), Arg::Value(0), Arg::Value(self.nice as u64)]);
        }
        if self.processors != now.processors {
            let at = batch.data(&self.processors);
            // EINVAL: none of them is on this machine.
            batch.attempt(
                Sysno::sched_setaffinity,
                [Arg::Value(0), Arg::Value(self.processors.len() as u64), at],
            );
        }
        if self.io_priority != now.io_priority {
            const IOPRIO_WHO_PROCESS: u64 = 1;
            let priority = Arg::Value(u64::from(self.io_priority));
            batch.call(Sysno::ioprio_set, [Arg::Value(IOPRIO_WHO_PROCESS), Arg::Value(0), priority]);
        }
        if self.timer_slack_ns != now.timer_slack_ns {
            batch.call(
                Sysno::prctl,
                [Arg::Value(libc::PR_SET_TIMERSLACK as u64), Arg::Value(self.timer_slack_ns)],
            );
        }
    }
}
