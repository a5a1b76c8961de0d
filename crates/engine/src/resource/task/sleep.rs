//! Calls with a time that runs on: nanosleep, clock_nanosleep, poll, futex.
//!
//! **In the kernel**: interrupted by a stop, they leave what they need in the task's restart block and return
//! ERESTART_RESTARTBLOCK; the kernel then has the thread call `restart_syscall(2)`, which goes on until the same moment.
//! Nothing outside the kernel can read a restart block.
//!
//! **In the image**: which call it is, its arguments, and the time that remained at the freeze.
//!
//! **Taken how**: the arguments are in the registers, the requested time in the thread's memory. When the call began is
//! when the thread last ran: `se.exec_start` in `/proc/PID/task/TID/sched`, read before the freeze and believed only if
//! the thread is stopped in the very call it was seen in and hasn't run since but for our stop (`nr_switches`). That
//! clock is its processor's own, less what the host or interrupts stole from it: we go to that processor and compare. All
//! errors are on the late side. A call that was continued before (by a restart, or an earlier checkpoint) carries our
//! mark in the half of `orig_rax` that the kernel ignores: the call and its end, by the clock of its time namespace.
//!
//! **Put back how**: the thread makes the call with the time that remains, is stopped in it, and gets its own registers
//! back: the kernel's restart block is then just what it was.
//!
//! **Not saved**: where neither the mark nor `sched` tells (another tracer stopped the thread before), the call gets
//! its whole time again: late, never early. The same for ends more than 24 days away.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use bardo_kernel::arch::Registers;
use bardo_kernel::procfs::syscall::Syscall;
use bardo_kernel::procfs::{self, sched, single, stat, syscall};
use bardo_kernel::ptrace::Pinned;
use bardo_kernel::{Sysno, process_vm, time};
use serde::{Deserialize, Serialize};

use super::clock::Ahead;

/// What a thread was doing before it was stopped.
#[derive(Debug, Clone)]
struct Asleep {
    nr: u64,
    args: [u64; 6],
    nr_switches: u64,
    /// When it went to sleep: on its processor's clock, then on CLOCK_MONOTONIC.
    since_ns: u64,
    processor: i32,
    wchan: String,
}

/// The threads that were asleep in such calls before the freeze, by tid.
#[derive(Debug, Default)]
pub struct Sleepers {
    threads: HashMap<i32, Asleep>,
    /// How far the clocks of their processes are ahead of ours.
    ahead: HashMap<i32, Ahead>,
}

/// A call with a time that runs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sleep {
    /// Which call.
    pub call: Call,
    /// Its end on CLOCK_MONOTONIC as the thread saw it; none: it has no end, or an absolute one that is in its arguments.
    #[serde(default)]
    pub until_ns: Option<u64>,
    /// The time that remained at the freeze.
    #[serde(default)]
    pub remaining_ns: Option<u64>,
}

/// The calls that leave a restart block (Linux 6.18).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// nanosleep(2)
    Nanosleep,
    /// clock_nanosleep(2), relative
    ClockNanosleep,
    /// poll(2)
    Poll,
    /// futex(2), FUTEX_WAIT and FUTEX_WAIT_BITSET with a time
    Futex,
}

// The mark: three bits for the call (0: no mark), 29 for its end in units of 2^23 ns (8.4 ms), modulo 52 days; end 0: none.
const UNIT: u32 = 23;
const ENDS: u64 = 1 << 29;

impl Call {
    fn of(nr: u64) -> Option<Call> {
        match nr as i64 {
            libc::SYS_nanosleep => Some(Call::Nanosleep),
            libc::SYS_clock_nanosleep => Some(Call::ClockNanosleep),
            libc::SYS_poll => Some(Call::Poll),
            libc::SYS_futex => Some(Call::Futex),
            _ => None,
        }
    }

    fn code(self) -> u32 {
        match self {
            Call::Nanosleep => 1,
            Call::ClockNanosleep => 2,
            Call::Poll => 3,
            Call::Futex => 4,
        }
    }

    fn of_code(code: u32) -> Option<Call> {
        [Call::Nanosleep, Call::ClockNanosleep, Call::Poll, Call::Futex]
            .into_iter()
            .find(|c| c.code() == code)
    }

    /// The call's number.
    pub fn number(self) -> Sysno {
        match self {
            Call::Nanosleep => Sysno::nanosleep,
            Call::ClockNanosleep => Sysno::clock_nanosleep,
            Call::Poll => Sysno::poll,
            Call::Futex => Sysno::futex,
        }
    }

    /// A guess for a call that is being continued without our mark, from where the thread sleeps and its arguments.
    fn guess(wchan: &str, registers: &Registers) -> Option<Call> {
        match wchan {
            w if w.contains("futex") => Some(Call::Futex),
            w if w.contains("poll") || w.contains("sys_poll") => Some(Call::Poll),
            w if w.contains("nanosleep") && registers.arguments()[0] < 4096 => Some(Call::ClockNanosleep),
            w if w.contains("nanosleep") => Some(Call::Nanosleep),
            _ => None,
        }
    }

    /// How long the call was asked to take; none: for ever, or until an absolute time.
    fn requested_ns(self, pid: i32, arguments: [u64; 6]) -> Option<u64> {
        let [a, b, c, d, ..] = arguments;
        match self {
            Call::Nanosleep => timespec(pid, a),
            Call::ClockNanosleep if b & libc::TIMER_ABSTIME as u64 == 0 => timespec(pid, c),
            Call::ClockNanosleep => None,
            Call::Poll => u64::try_from(c as i32).ok().map(|ms| ms * 1_000_000),
            Call::Futex if b & 0x7f == libc::FUTEX_WAIT as u64 && d != 0 => timespec(pid, d),
            Call::Futex => None,
        }
    }
}

fn timespec(pid: i32, at: u64) -> Option<u64> {
    let mut bytes = [0; 16];
    process_vm::read_exact(pid, at, &mut bytes).ok()?;
    let word = |i: usize| u64::from_ne_bytes(bytes[i..i + 8].try_into().expect("eight bytes"));
    word(0).checked_mul(1_000_000_000)?.checked_add(word(8))
}

impl Asleep {
    /// Looks at a thread that may be asleep in such a call: in the same one before and after the look at its times.
    fn look(pid: i32, tid: i32) -> Option<Asleep> {
        let Syscall::Inside { nr, args, .. } = syscall::read_thread(pid, tid).ok()? else { return None };
        let is_continuing = nr as i64 == libc::SYS_restart_syscall;
        if Call::of(nr).is_none() && !is_continuing {
            return None;
        }
        let sched = sched::read_thread(pid, tid).ok()?;
        let processor = stat::read_thread(pid, tid).ok()?.processor;
        let wchan = if is_continuing { single::wchan(pid, tid).ok().flatten() } else { None };
        match syscall::read_thread(pid, tid).ok()? {
            Syscall::Inside { nr: nr_after, args: args_after, .. }
                if (nr_after, args_after) == (nr, args) => {}
            _ => return None,
        }
        Some(Asleep {
            nr,
            args,
            nr_switches: sched.nr_switches,
            since_ns: sched.exec_start_ns,
            processor,
            wchan: wchan.unwrap_or_default(),
        })
    }

    /// Whether a thread with these registers is still in that call and hasn't run since, but for our stop.
    fn still_holds(&self, pid: i32, tid: i32, registers: &Registers) -> bool {
        (registers.call(), registers.arguments()) == (Some(self.nr), self.args)
            && sched::read_thread(pid, tid).is_ok_and(|now| now.nr_switches <= self.nr_switches + 1)
    }
}

impl Sleepers {
    /// Looks at all threads of these processes.
    pub fn look(pids: &[i32]) -> Sleepers {
        let threads = pids.iter().flat_map(|pid| {
            procfs::threads(*pid).unwrap_or_default().into_iter().map(move |tid| (*pid, tid))
        });
        let (mut all, mut clocks) = (HashMap::new(), HashMap::new());
        for (pid, tid) in threads {
            let Some(asleep) = Asleep::look(pid, tid) else { continue };
            all.insert(tid, asleep);
            if let Entry::Vacant(unknown) = clocks.entry(pid)
                && let Ok(ahead) = Ahead::of_process(pid)
            {
                unknown.insert(ahead);
            }
        }
        let mut ahead = HashMap::new();
        for asleep in all.values_mut() {
            let ahead_ns = *ahead
                .entry(asleep.processor)
                .or_insert_with(|| monotonic_ahead_of_sched_clock(asleep.processor));
            asleep.since_ns = match ahead_ns {
                Some(ahead_ns) => (i128::from(asleep.since_ns) + ahead_ns).max(0) as u64,
                // Not known: the call may as well have begun only now.
                None => u64::MAX,
            };
        }
        let now_ns = time::monotonic_ns();
        for asleep in all.values_mut() {
            // CLOCK_MONOTONIC may run slower than that clock by 500 parts in a million (adjtimex(2)).
            let late_ns = now_ns.saturating_sub(asleep.since_ns) / 2000;
            asleep.since_ns = asleep.since_ns.saturating_add(late_ns);
        }
        Sleepers { threads: all, ahead: clocks }
    }

    /// How far the clocks of a process are ahead of ours.
    fn ahead(&self, pid: i32) -> bardo_kernel::Result<Ahead> {
        self.ahead.get(&pid).copied().map_or_else(|| Ahead::of_process(pid), Ok)
    }
}

/// How far CLOCK_MONOTONIC is ahead of the scheduler's clock of this processor, or a bit more: we go there and compare
/// what the clock said when we last came to run with what CLOCK_MONOTONIC says after that. The difference only grows,
/// by what is stolen from the processor, so for a moment that has passed it is never too small.
fn monotonic_ahead_of_sched_clock(processor: i32) -> Option<i128> {
    let _pinned = Pinned::to(usize::try_from(processor).ok()?)?;
    let (pid, tid) = (std::process::id() as i32, bardo_kernel::mmap::gettid().ok()? as i32);
    let once = || {
        time::give_way();
        let mine_ns = sched::read_thread(pid, tid).ok()?.exec_start_ns;
        Some(i128::from(time::monotonic_ns()) - i128::from(mine_ns))
    };
    // The smallest is the one in which we were interrupted least.
    (0..4).filter_map(|_| once()).min()
}

impl Sleep {
    /// The call that a thread was stopped in, with this restart block.
    ///
    /// # Errors
    /// Where it can't be looked at.
    pub fn of(
        pid: i32,
        tid: i32,
        registers: &Registers,
        sleepers: &Sleepers,
        frozen_ns: u64,
    ) -> bardo_kernel::Result<Option<Sleep>> {
        let asleep = sleepers.threads.get(&tid);
        let mark = registers.mark();
        let marked = Call::of_code(mark >> 29);
        let call = marked.or_else(|| match registers.is_continuing() {
            true => Call::guess(asleep.map_or("", |a| &a.wchan), registers),
            false => Call::of(registers.call()?),
        });
        let Some(call) = call else { return Ok(None) };
        let ahead = sleepers.ahead(pid)?;
        let theirs = |ours_ns| ahead.theirs(libc::CLOCK_MONOTONIC, ours_ns);
        let until_ns = if marked.is_some() {
            let end = u64::from(mark) % ENDS;
            (end != 0).then(|| unfold(end, theirs(frozen_ns)))
        } else {
            let since_ns = match asleep {
                Some(asleep) if !registers.is_continuing() && asleep.still_holds(pid, tid, registers) => {
                    asleep.since_ns.min(frozen_ns)
                }
                _ => frozen_ns,
            };
            call.requested_ns(pid, registers.arguments()).map(|ns| theirs(since_ns).saturating_add(ns))
        };
        let remaining_ns = until_ns.map(|until| until.saturating_sub(theirs(frozen_ns)));
        Ok(Some(Sleep { call, until_ns, remaining_ns }))
    }

    /// The mark for the call.
    pub fn mark(&self) -> u32 {
        Self::mark_of(self.call, self.until_ns)
    }

    /// The mark for a call that ends then.
    pub fn mark_of(call: Call, until_ns: Option<u64>) -> u32 {
        let end = match until_ns {
            // Rounded up: never early. 0 stands for none, so it becomes its neighbour.
            Some(ns) => ((ns.saturating_add((1 << UNIT) - 1) >> UNIT) % ENDS).max(1),
            None => 0,
        };
        call.code() << 29 | end as u32
    }
}

/// The moment, within 26 days of `now`, that an end modulo [`ENDS`] stands for.
fn unfold(end: u64, now_ns: u64) -> u64 {
    let now = now_ns >> UNIT;
    let ahead = end.wrapping_sub(now) % ENDS;
    let moment = if ahead < ENDS / 2 { now + ahead } else { now.saturating_sub(ENDS - ahead) };
    moment << UNIT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_gives_back_call_and_end() {
        for now_ns in [0, 5_000_000_000, 4_000_000 * 1_000_000_000] {
            for remaining_ns in [0, 1, 8_388_608, 3_000_000_000, 86_400_000_000_000] {
                let until = now_ns + remaining_ns;
                let mark = Sleep::mark_of(Call::Poll, Some(until));
                assert_eq!(Call::of_code(mark >> 29), Some(Call::Poll));
                let end = unfold(u64::from(mark) % ENDS, now_ns);
                assert!(end >= until && end - until <= 2 << UNIT, "{now_ns} {remaining_ns}: {end}");
            }
        }
        assert_eq!(Sleep::mark_of(Call::Futex, None) % ENDS as u32, 0);
    }

    #[test]
    fn an_end_that_has_passed_stays_past() {
        let now_ns = 10_000_000_000_000;
        let mark = Sleep::mark_of(Call::Nanosleep, Some(now_ns - 60_000_000_000));
        assert!(unfold(u64::from(mark) % ENDS, now_ns) < now_ns);
    }
}
