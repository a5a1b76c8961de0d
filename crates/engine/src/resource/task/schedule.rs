//! How a thread is scheduled: nice value, policy, processors, deadline, I/O priority, timer slack (sched(7)).
//!
//! **In the kernel**: each thread its own. **In the image**: with the thread's record.
//!
//! **Taken how**: `/proc/PID/task/TID/stat`, sched_getattr(2), sched_getaffinity(2), ioprio_get(2), prctl(2). The kernel doesn't tell
//! which processors a thread asked for, only those that are left of them in its cpuset; where that is all there are, it
//! is taken not to have asked.
//!
//! **Put back how**: inside the thread. A thread that could run everywhere may again. Of others, processors that this machine
//! doesn't have are left out; where none is left, they may run everywhere. Whether the kernel admits the deadlines of a tree
//! is tried beforehand, by threads of ours.
//!
//! **Not saved**: how much of its runtime a thread had left in its period. The timer slack that PR_SET_TIMERSLACK with 0
//! goes back to.

use bardo_image::Blob;
use bardo_kernel::procfs::stat::Stat;
use bardo_kernel::scheduler::{self, Attributes};
use bardo_kernel::stub::{Arg, Batch};
use bardo_kernel::{Errno, Sysno, ptrace};
use serde::{Deserialize, Serialize};

use super::thread::Thread;
use crate::error::{Refusal, Who};

/// SCHED_DEADLINE.
const DEADLINE: u32 = 6;
/// SCHED_NORMAL, SCHED_BATCH, SCHED_IDLE.
const FAIR: [u32; 3] = [0, 3, 5];
/// SCHED_RESET_ON_FORK, which sched_getscheduler(2) adds to the policy, and SCHED_FLAG_RESET_ON_FORK.
const RESET_ON_FORK: u32 = 0x4000_0000;
const FLAG_RESET_ON_FORK: u64 = 1;
/// SCHED_FLAG_UTIL_CLAMP_MIN and …_MAX.
const FLAG_CLAMPS: u64 = 0x60;
/// Bytes of a set of processors that has all of them.
const PROCESSORS: usize = 128;
/// How many deadlines are tried at most: each takes a thread.
const TRIED_MAX: usize = 1000;

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
    /// Whether those are all that it could have.
    #[serde(default)]
    pub everywhere: bool,
    /// ioprio_get(2).
    #[serde(default)]
    pub io_priority: u32,
    /// PR_GET_TIMERSLACK, in nanoseconds.
    pub timer_slack_ns: u64,
    /// For SCHED_DEADLINE: SCHED_FLAG_… but for the one that is in the policy, runtime, deadline, period.
    #[serde(default)]
    pub deadline: Option<[u64; 4]>,
    /// The slice of a fair thread, in nanoseconds; 0: unknown, or the system's.
    #[serde(default)]
    pub slice_ns: u64,
    /// The least and the most utilisation that it counts as, of 1024; {0, 0} where the kernel has no clamps.
    #[serde(default)]
    pub clamps: [u32; 2],
}

impl Schedule {
    /// Reads it; the timer slack was asked inside.
    pub fn take(stat: &Stat, tid: i32, timer_slack_ns: u64) -> bardo_kernel::Result<Schedule> {
        let attributes = scheduler::attributes(tid)?;
        let Attributes { flags, runtime_ns, deadline_ns, period_ns, .. } = attributes;
        let deadline = [flags & !(FLAG_RESET_ON_FORK | FLAG_CLAMPS), runtime_ns, deadline_ns, period_ns];
        Ok(Schedule {
            nice: stat.nice,
            policy: ptrace::scheduler(tid)?,
            priority: stat.rt_priority,
            processors: Blob(ptrace::cpu_mask(tid)?),
            everywhere: false,
            io_priority: ptrace::io_priority(tid)?,
            timer_slack_ns,
            deadline: (attributes.policy == DEADLINE).then_some(deadline),
            slice_ns: if FAIR.contains(&attributes.policy) { runtime_ns } else { 0 },
            clamps: [attributes.clamp_min, attributes.clamp_max],
        })
    }

    /// Finds out whether it has all processors there are: `all` of the machine, or all that `ours` could be.
    pub fn compare_processors(&mut self, all: &[u8], ours: &[u8]) {
        let has = |wanted: &[u8]| {
            wanted
                .iter()
                .enumerate()
                .all(|(at, bits)| self.processors.get(at).is_some_and(|own| own & bits == *bits))
        };
        self.everywhere = has(all) || self.processors.0 == ours;
    }

    fn attributes(&self, now: &Schedule) -> Attributes {
        let policy = self.policy & !RESET_ON_FORK;
        let reset = if self.policy & RESET_ON_FORK != 0 { FLAG_RESET_ON_FORK } else { 0 };
        let [flags, runtime_ns, deadline_ns, period_ns] = self.deadline.unwrap_or_default();
        // A kernel without clamps refuses them.
        let clamp = if self.clamps != now.clamps && self.clamps[1] != 0 && now.clamps[1] != 0 {
            FLAG_CLAMPS
        } else {
            0
        };
        Attributes {
            policy,
            flags: flags | reset | clamp,
            nice: self.nice as i32,
            priority: self.priority,
            runtime_ns: if policy == DEADLINE { runtime_ns } else { self.slice_ns },
            deadline_ns,
            period_ns,
            clamp_min: if clamp == 0 { 0 } else { self.clamps[0] },
            clamp_max: if clamp == 0 { 0 } else { self.clamps[1] },
            ..Attributes::default()
        }
    }

    /// Puts it back into a thread that has `now`.
    pub fn put(&self, now: &Schedule, batch: &mut Batch) {
        let zero = Arg::Value(0);
        if self.everywhere {
            let all = batch.data(&[0xff; PROCESSORS]);
            batch.call(Sysno::sched_setaffinity, [zero, Arg::Value(PROCESSORS as u64), all]);
        } else if self.processors != now.processors {
            let at = batch.data(&self.processors);
            // EINVAL: none of them is on this machine.
            batch.attempt(Sysno::sched_setaffinity, [zero, Arg::Value(self.processors.len() as u64), at]);
        }
        if self.nice != now.nice {
            batch.call(Sysno::setpriority, [zero, zero, Arg::Value(self.nice as u64)]);
        }
        let differs = self.policy != now.policy
            || self.priority != now.priority
            || self.deadline != now.deadline
            || self.slice_ns != now.slice_ns && self.slice_ns != 0
            || self.attributes(now).flags & FLAG_CLAMPS != 0;
        if differs {
            let at = batch.data(&self.attributes(now).to_bytes());
            batch.call(Sysno::sched_setattr, [zero, at, zero]);
        }
        if self.io_priority != now.io_priority {
            const IOPRIO_WHO_PROCESS: u64 = 1;
            let priority = Arg::Value(u64::from(self.io_priority));
            batch.call(Sysno::ioprio_set, [Arg::Value(IOPRIO_WHO_PROCESS), zero, priority]);
        }
        if self.timer_slack_ns != now.timer_slack_ns {
            batch.call(
                Sysno::prctl,
                [Arg::Value(libc::PR_SET_TIMERSLACK as u64), Arg::Value(self.timer_slack_ns)],
            );
        }
    }
}

/// The threads whose deadlines the kernel doesn't admit here.
pub fn check(threads: &[Thread]) -> Vec<Refusal> {
    let by_deadline = threads.iter().filter(|thread| thread.schedule.deadline.is_some()).take(TRIED_MAX);
    let by_deadline: Vec<&Thread> = by_deadline.collect();
    let wanted: Vec<(Attributes, Vec<u8>)> = by_deadline
        .iter()
        .map(|thread| {
            let everywhere = thread.schedule.everywhere;
            let processors =
                if everywhere { vec![0xff; PROCESSORS] } else { thread.schedule.processors.to_vec() };
            (thread.schedule.attributes(&Schedule::default()), processors)
        })
        .collect();
    let results = scheduler::admit(&wanted);
    let refused =
        by_deadline.iter().zip(results).filter_map(|(thread, result)| Some((thread, result.err()?)));
    refused
        .map(|(thread, failed)| {
            let [_, runtime, _, period] = thread.schedule.deadline.unwrap_or_default();
            let (why, remedy) = match failed.errno {
                Errno(libc::EPERM) => (
                    "it needs CAP_SYS_NICE, and all processors that the scheduler keeps together",
                    "run bardo as root, or with `setcap cap_sys_nice+ep`, and not on some processors alone (taskset(1))",
                ),
                Errno(libc::EBUSY) => (
                    "that is more than this machine has left for deadlines",
                    "end other threads that are scheduled by deadline, or see sched_rt_runtime_us in sched(7)",
                ),
                _ => ("the kernel doesn't take it", "restart it on a kernel like the first one"),
            };
            Refusal {
                who: Some(Who { pid: thread.pid, name: String::from_utf8_lossy(&thread.name).into_owned() }),
                fd: None,
                what: format!("thread {} runs for {runtime} ns in every {period} ns: {failed}", thread.tid),
                code: "task/schedule",
                why: why.into(),
                remedy: remedy.into(),
            }
        })
        .collect()
}
