//! POSIX timers: timer_create(2), timer_settime(2).
//!
//! **In the kernel**: any number per process, each with an id, a clock, whom it tells and how (a signal to the process or
//! to one thread, with a value; or nothing), the time to its next expiry and an interval. While its signal waits, a timer
//! with an interval stands still; when the signal is taken, it goes on where its next multiple is, and counts how many
//! have passed (timer_getoverrun(2)). A timer on CPU time belongs to a process or to one thread.
//!
//! **In the image**: with the process's record, in the order in which they were made.
//!
//! **Taken how**: `/proc/PID/timers` for all but the times, timer_gettime(2) and timer_getoverrun(2) inside. A timer on
//! "the CPU time of the calling thread" doesn't say whose: it is the one during whose calls it has moved.
//!
//! **Put back how**: inside, under the old ids: PR_TIMER_CREATE_RESTORE_IDS (Linux 6.15), or by making timers until the
//! kernel, which counts, gets there. They are armed at the very end. One whose signal is in a queue expires there and
//! then, at that signal's turn: so the kernel itself ties the signal to the timer. One that was told of overruns expires
//! as far in the past as gives that number, and has its signal taken, before it is armed.
//!
//! **Not saved**: that a time was an absolute date of CLOCK_REALTIME: what remained remains. Expiries that a signal which
//! waits stands for beyond the first. The thread that is to be told, where it has ended: the timer then tells nobody, as
//! before. Refused: a timer on the CPU time of a process outside the tree, and one on that of an unknown thread.

use std::collections::{BTreeMap, BTreeSet};

use bardo_kernel::procfs::timers::{Notify, Timer};
use bardo_kernel::stub::{Arg, Batch, Batches, StepId};
use bardo_kernel::{Failed, Sysno, time};
use serde::{Deserialize, Serialize};

use super::clock::Ahead;
use super::signal::words;

const ITIMERSPEC: usize = 32;
/// `struct sigevent`: 64 bytes.
const SIGEVENT: usize = 64;
const NSEC: u64 = 1_000_000_000;
const PR_TIMER_CREATE_RESTORE_IDS: u64 = 77;
/// Where the kernel can't be told an id, it counts: nobody's timers are worth more calls than this.
const COUNTED_IDS_MAX: i32 = 1 << 20;

/// The clock of a thread's own CPU time, as `/proc/PID/timers` writes it: thread 0 is the caller.
const OWN_THREAD: i32 = cpu_clock(0) | PER_THREAD;
const PER_THREAD: i32 = 4;
/// The lower two bits of a CPU clock; 3 is a clock that is a file (include/linux/posix-timers_types.h).
const CLOCK_KIND: i32 = 3;

const fn cpu_clock(pid: i32) -> i32 {
    !pid << 3 | 2
}

/// A timer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PosixTimer {
    /// Its id.
    pub id: i32,
    /// CLOCK_…, or a negative number for CPU time (clock_getcpuclockid(3)).
    pub clock: i32,
    /// The thread whose CPU time it counts, where the clock is that of "the calling thread".
    #[serde(default)]
    pub clock_thread: Option<i32>,
    /// SIGEV_SIGNAL 0, SIGEV_NONE 1, SIGEV_THREAD 2.
    pub notify: u32,
    /// The thread that is told; none: the process.
    #[serde(default)]
    pub tells: Option<i32>,
    /// The signal.
    pub signal: i32,
    /// `si_value`.
    pub value: u64,
    /// The time to its next expiry; 0: it isn't armed.
    pub remaining_ns: u64,
    /// The interval; 0: none.
    pub interval_ns: u64,
    /// What timer_getoverrun(2) told.
    #[serde(default)]
    pub overrun: u32,
}

/// The timers of a process, in the order in which they were made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PosixTimers(pub Vec<PosixTimer>);

/// The questions for [`PosixTimers::take`].
#[derive(Debug, Default)]
pub struct TimersAsked {
    batches: Vec<(Batch, Vec<(Arg, StepId)>)>,
    begun_ns: u64,
}

impl TimersAsked {
    /// The questions, in batches of this room at most.
    pub fn ask(timers: &[Timer], room: usize) -> TimersAsked {
        let mut asked = TimersAsked { batches: Vec::new(), begun_ns: time::monotonic_ns() };
        for timer in timers.iter().rev() {
            if asked.batches.last().is_none_or(|(batch, _)| batch.room() + 512 > room) {
                asked.batches.push((Batch::new(), Vec::new()));
            }
            let Some((batch, answers)) = asked.batches.last_mut() else { break };
            let id = Arg::Value(timer.id as u64);
            let times = batch.room_for(ITIMERSPEC);
            batch.call(Sysno::timer_gettime, [id, times]);
            answers.push((times, batch.attempt(Sysno::timer_getoverrun, [id])));
        }
        asked
    }

    /// What is to be run inside.
    pub fn batches(&mut self) -> impl Iterator<Item = &mut Batch> {
        self.batches.iter_mut().map(|(batch, _)| batch)
    }
}

/// Asks, around what else is asked in a thread, whether timers on the calling thread's CPU time are that thread's.
#[derive(Debug)]
pub struct OwnerAsked(Vec<(i32, Arg, Arg)>);

/// How many timers [`OwnerAsked`] takes.
pub const OWNED_MAX: usize = 200;

impl OwnerAsked {
    /// Asks before.
    pub fn before(timers: &[Timer], batch: &mut Batch) -> OwnerAsked {
        let own = timers.iter().filter(|timer| is_of_caller(timer.clock)).take(OWNED_MAX);
        let own: Vec<i32> = own.map(|timer| timer.id).collect();
        let mut ask = |id: &i32| {
            let room = batch.room_for(2 * ITIMERSPEC);
            batch.call(Sysno::timer_gettime, [Arg::Value(*id as u64), room]);
            (*id, room, room)
        };
        OwnerAsked(own.iter().map(&mut ask).collect())
    }

    /// Asks after.
    pub fn after(&mut self, batch: &mut Batch) {
        for (id, _, room) in &mut self.0 {
            *room = super::signal::offset(*room, ITIMERSPEC);
            batch.call(Sysno::timer_gettime, [Arg::Value(*id as u64), *room]);
        }
    }

    /// The timers that moved: while the thread ran, all others of its process stood still.
    pub fn moved<'a>(&'a self, batch: &'a Batch) -> impl Iterator<Item = i32> + 'a {
        let remaining = |room: Arg| {
            let w = words(batch.output(room, ITIMERSPEC));
            (w[2], w[3])
        };
        self.0
            .iter()
            .filter(move |(_, before, after)| remaining(*after) < remaining(*before))
            .map(|(id, ..)| *id)
    }
}

/// Whether this is the CPU time of whichever thread made the timer.
pub fn is_of_caller(clock: i32) -> bool {
    clock < 0 && clock & !CLOCK_KIND == OWN_THREAD & !CLOCK_KIND
}

/// The process or thread, by the pid that the timer's process knows, whose CPU time this clock is; none where it is no
/// such clock, or that of the timer's own process or thread.
pub fn owner_of(clock: i32) -> Option<i32> {
    if clock >= 0 {
        return None;
    }
    Some(!(clock >> 3)).filter(|pid| *pid != 0)
}

impl PosixTimers {
    /// The timers that `/proc` shows, with their answers. `own` gives a thread's tid as it sees itself, for those that
    /// live; `owners` the tids of the threads whose CPU time is counted; `queued` says of which timers a signal waits.
    pub fn take(
        timers: &[Timer],
        asked: &TimersAsked,
        own: impl Fn(i32) -> Option<i32>,
        owners: &BTreeMap<i32, i32>,
        queued: &BTreeSet<i32>,
    ) -> PosixTimers {
        let answers =
            asked.batches.iter().flat_map(|(batch, answers)| answers.iter().map(move |a| (batch, a)));
        // What expired since the first question may be in a queue by now.
        let looked_for_ns = time::monotonic_ns() - asked.begun_ns;
        let taken = timers.iter().rev().zip(answers).map(|(timer, (batch, (times, overrun)))| {
            let w = words(batch.output(*times, ITIMERSPEC));
            let span = |at: usize| w[at].saturating_mul(NSEC).saturating_add(w[at + 1]);
            let (interval_ns, mut remaining_ns) = (span(0), span(2));
            if interval_ns == 0 && remaining_ns <= looked_for_ns && queued.contains(&timer.id) {
                remaining_ns = 0;
            }
            let tells = timer.to_thread.then(|| own(timer.target));
            PosixTimer {
                id: timer.id,
                clock: timer.clock,
                clock_thread: owners.get(&timer.id).copied(),
                notify: match timer.notify {
                    Notify::None => libc::SIGEV_NONE as u32,
                    // It tells a thread that has ended.
                    _ if tells == Some(None) => libc::SIGEV_NONE as u32,
                    Notify::Signal => libc::SIGEV_SIGNAL as u32,
                    Notify::Thread => libc::SIGEV_THREAD as u32,
                },
                tells: tells.flatten(),
                signal: timer.signal,
                value: timer.value,
                remaining_ns,
                interval_ns,
                overrun: batch.result(*overrun).unwrap_or(0) as u32,
            }
        });
        PosixTimers(taken.collect())
    }

    /// The timer that a queued signal came from (`struct siginfo`: si_code, and si_timerid behind it).
    fn of_signal(&self, info: &[u8]) -> Option<&PosixTimer> {
        let id = timer_of(info)?;
        self.0.iter().find(|timer| timer.id == id)
    }

    /// Has the timer expire that a queued signal came from, so that the kernel queues the signal again. Whether there is
    /// one; where it has a thread to tell, this has to be run by any thread of its process. `ahead`: the process's clocks.
    pub fn expire_again(&self, info: &[u8], ahead: Ahead, batch: &mut Batch) -> bool {
        let Some(timer) = self.of_signal(info).filter(|timer| timer.notify != libc::SIGEV_NONE as u32) else {
            return false;
        };
        if timer.clock < 0 {
            // CPU time can't be made to pass: the signal is put there by itself.
            return false;
        }
        match timer.expired_ns(1, ahead) {
            Some(at_ns) => timer.set(libc::TIMER_ABSTIME, at_ns, batch),
            None => timer.set(0, 1, batch),
        }
        wait_for_expiry(batch);
        true
    }

    /// Steps that make the timers, each batch with the thread to run it in (none: any) and what it has to have done.
    /// `chosen`: the kernel can be told the ids.
    ///
    /// # Errors
    /// Where the ids are too high to be counted to.
    pub fn make(&self, chosen: bool, room: usize) -> Result<Vec<Made>, Failed> {
        let mut timers: Vec<&PosixTimer> = self.0.iter().collect();
        if !chosen {
            timers.sort_by_key(|timer| timer.id);
            if let Some(last) = timers.last().filter(|timer| timer.id > COUNTED_IDS_MAX) {
                return Err(Failed::unexpected(format!(
                    "timer id {} on a kernel that can't be told ids (PR_TIMER_CREATE_RESTORE_IDS, Linux 6.15)",
                    last.id
                )));
            }
        }
        let mut all: Vec<Made> = Vec::new();
        let mut next = 0;
        for timer in timers {
            // The kernel counts: those before it are made and go again.
            let passed = if chosen { timer.id..timer.id } else { next..timer.id };
            next = timer.id.saturating_add(1);
            for id in passed {
                Made::with_room(&mut all, timer.clock_thread, room).pass(id);
            }
            Made::with_room(&mut all, timer.clock_thread, room).make(timer);
        }
        Ok(all)
    }

    /// Asks for ids to be chosen, or not any more.
    pub fn choose_ids(on: bool, batch: &mut Batch) -> StepId {
        batch.attempt(
            Sysno::prctl,
            [
                Arg::Value(PR_TIMER_CREATE_RESTORE_IDS),
                Arg::Value(u64::from(on)),
                Arg::Value(0),
                Arg::Value(0),
                Arg::Value(0),
            ],
        )
    }

    /// Arms those that were told of overruns: to be run in the thread that such a timer tells (`tid`), or by the leader
    /// for the process, while no other signal waits. `ahead`: the process's clocks.
    pub fn put_overruns(
        &self,
        tid: i32,
        leader: bool,
        queued: &BTreeSet<i32>,
        ahead: Ahead,
        batches: &mut Batches,
    ) {
        let told = |timer: &&PosixTimer| timer.tells.map_or(leader, |tells| tells == tid);
        for timer in self.0.iter().filter(told).filter(|timer| timer.has_overrun(queued)) {
            let batch = batches.with_room_for(1024);
            // The more of them, the earlier: before the clock's zero there is nothing.
            let Some(at_ns) = timer.expired_ns(u64::from(timer.overrun) + 1, ahead) else {
                timer.set(0, timer.remaining_ns, batch);
                continue;
            };
            timer.set(libc::TIMER_ABSTIME, at_ns, batch);
            wait_for_expiry(batch);
            let set = batch.data(&(1u64 << ((timer.signal - 1) & 63)).to_ne_bytes());
            let now = batch.data(&[0; 16]);
            batch.attempt(Sysno::rt_sigtimedwait, [set, Arg::Value(0), now, Arg::Value(8)]);
        }
    }

    /// Arms the others, but for those that expired when their signal was `queued` again.
    pub fn arm(&self, queued: &BTreeSet<i32>, batches: &mut Batches) {
        let armed = self.0.iter().filter(|timer| timer.remaining_ns != 0 && !timer.has_overrun(queued));
        for timer in armed.filter(|timer| !timer.stands_still(queued)) {
            timer.set(0, timer.remaining_ns, batches.with_room_for(1024));
        }
    }
}

/// The id of the timer that a signal came from, if it came from one.
pub fn timer_of(info: &[u8]) -> Option<i32> {
    let word =
        |at: usize| info.get(at..at + 4).map(|b| i32::from_ne_bytes(b.try_into().expect("four bytes")));
    if word(8)? != libc::SI_TIMER { None } else { word(16) }
}

/// A timer whose time has come expires in an interrupt, a moment later; whoever sleeps after that has seen it.
fn wait_for_expiry(batch: &mut Batch) {
    let moment = batch.data(&[0u64.to_ne_bytes(), 20_000u64.to_ne_bytes()].concat());
    batch.attempt(Sysno::nanosleep, [moment, Arg::Value(0)]);
}

impl PosixTimer {
    /// Whether the number of overruns that it told is brought back.
    fn has_overrun(&self, queued: &BTreeSet<i32>) -> bool {
        let tells = self.notify != libc::SIGEV_NONE as u32;
        self.overrun > 0
            && self.interval_ns != 0
            && self.remaining_ns != 0
            && self.clock >= 0
            && tells
            && !queued.contains(&self.id)
    }

    /// Whether it waits for its signal to be taken. One that was set anew meanwhile has, as a rule, more time before it
    /// than its interval.
    fn stands_still(&self, queued: &BTreeSet<i32>) -> bool {
        self.clock >= 0 && self.remaining_ns <= self.interval_ns && queued.contains(&self.id)
    }

    /// When it would have expired so that its next expiry but `intervals` is in the time that remains: on its clock, that far
    /// ahead of ours.
    fn expired_ns(&self, intervals: u64, ahead: Ahead) -> Option<u64> {
        if self.interval_ns == 0 {
            return None;
        }
        let next_ns = ahead.now_ns(self.clock).ok()?.checked_add(self.remaining_ns)?;
        next_ns.checked_sub(self.interval_ns.checked_mul(intervals)?).filter(|at| *at != 0)
    }

    /// Arms it.
    fn set(&self, flags: i32, value_ns: u64, batch: &mut Batch) {
        let spec = [self.interval_ns / NSEC, self.interval_ns % NSEC, value_ns / NSEC, value_ns % NSEC];
        let spec: Vec<u8> = spec.iter().flat_map(|w| w.to_ne_bytes()).collect();
        let spec = batch.data(&spec);
        batch.call(
            Sysno::timer_settime,
            [Arg::Value(self.id as u64), Arg::Value(flags as u64), spec, Arg::Value(0)],
        );
    }

    /// `struct sigevent`: the value, the signal, how to tell, and whom.
    fn event(&self) -> [u8; SIGEVENT] {
        let mut event = [0; SIGEVENT];
        event[..8].copy_from_slice(&self.value.to_ne_bytes());
        event[8..12].copy_from_slice(&self.signal.to_ne_bytes());
        let to_thread = if self.tells.is_some() { libc::SIGEV_THREAD_ID as u32 } else { 0 };
        event[12..16].copy_from_slice(&(self.notify | to_thread).to_ne_bytes());
        event[16..20].copy_from_slice(&self.tells.unwrap_or(0).to_ne_bytes());
        event
    }
}

/// A batch that makes timers.
#[derive(Debug, Default)]
pub struct Made {
    /// The thread that has to run it; none: any.
    pub thread: Option<i32>,
    /// The steps.
    pub batch: Batch,
    ids: Vec<(Arg, i32)>,
}

impl Made {
    fn with_room(all: &mut Vec<Made>, thread: Option<i32>, room: usize) -> &mut Made {
        let fits = |made: &Made| made.thread == thread && made.batch.room() + 1024 <= room;
        if !all.last().is_some_and(fits) {
            all.push(Made { thread, ..Made::default() });
        }
        let last = all.len() - 1;
        &mut all[last]
    }

    fn make(&mut self, timer: &PosixTimer) {
        let event = self.batch.data(&timer.event());
        let id = self.batch.data(&timer.id.to_ne_bytes());
        self.batch.call(Sysno::timer_create, [Arg::Value(timer.clock as i64 as u64), event, id]);
        self.ids.push((id, timer.id));
    }

    fn pass(&mut self, id: i32) {
        let at = self.batch.data(&[0; 4]);
        self.batch.call(Sysno::timer_create, [Arg::Value(libc::CLOCK_MONOTONIC as u64), Arg::Value(0), at]);
        self.batch.call(Sysno::timer_delete, [Arg::Value(id as u64)]);
        self.ids.push((at, id));
    }

    /// Whether the timers have the ids they were to have.
    ///
    /// # Errors
    /// EPROTO, with the first that hasn't.
    pub fn check(&self) -> Result<(), Failed> {
        for (at, id) in &self.ids {
            let got = self.batch.output(*at, 4);
            if got != id.to_ne_bytes() {
                return Err(Failed::unexpected(format!("timer {id} got the id bytes {got:?}")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timer(id: i32) -> PosixTimer {
        PosixTimer {
            id,
            clock: 1,
            clock_thread: None,
            notify: 0,
            tells: None,
            signal: 14,
            value: 0,
            remaining_ns: 0,
            interval_ns: 0,
            overrun: 0,
        }
    }

    #[test]
    fn clocks_say_whose_time_they_count() {
        assert!(is_of_caller(-2) && is_of_caller(OWN_THREAD));
        assert!(!is_of_caller(-6) && !is_of_caller(0) && !is_of_caller(1));
        assert_eq!(owner_of(-6), None);
        assert_eq!(owner_of(-2), None);
        assert_eq!(owner_of(cpu_clock(4711)), Some(4711));
        assert_eq!(owner_of(cpu_clock(4711) | PER_THREAD), Some(4711));
        assert_eq!(owner_of(7), None);
    }

    #[test]
    fn a_kernel_that_counts_is_counted_with() {
        let timers = PosixTimers(vec![timer(7), timer(2)]);
        let lines = |chosen| -> Vec<String> {
            let made = timers.make(chosen, 1 << 16).unwrap();
            made.iter().flat_map(|m| m.batch.lines().collect::<Vec<_>>()).collect()
        };
        assert_eq!(lines(true).len(), 2);
        let counted = lines(false);
        // Six that go again and two that stay.
        assert_eq!(counted.len(), 6 * 2 + 2);
        assert_eq!(counted.iter().filter(|l| l.starts_with("timer_delete(")).count(), 6);
        let far = PosixTimers(vec![timer(i32::MAX)]);
        assert!(far.make(false, 1 << 16).is_err());
        assert!(far.make(true, 1 << 16).is_ok());
    }

    #[test]
    fn batches_have_room() {
        let timers = PosixTimers((0..5000).map(timer).collect());
        let made = timers.make(true, 1 << 16).unwrap();
        assert!(made.iter().all(|m| m.batch.room() <= 1 << 16) && made.len() > 5);
        assert_eq!(made.iter().map(|m| m.ids.len()).sum::<usize>(), 5000);
    }
}
