//! Timers that are read (man 2 timerfd_create).
//!
//! **In the kernel**: a clock, when it expires next, an interval, and how often it has expired since the last read. It was set
//! relative to when that was done, or to a time of the clock (TFD_TIMER_ABSTIME); the kernel keeps the time of the clock, and
//! shows what remains. One that repeats stands still once it has expired, and the expirations that it misses are counted
//! when it is read.
//!
//! **In the image**: `file/timerfd`: clock, flags of timerfd_settime(2), what remains, interval, expirations, status flags; for
//! one that was set to a time of its clock that time.
//!
//! **Taken how**: fdinfo, after timerfd_gettime(2) on a duplicate, which has the kernel count what is due by now; a read by
//! the program returns the same as without. A timer whose time has come and whose interrupt hasn't shows what one that isn't
//! set shows: nothing remains, nothing has expired. So where such a one was seen, we have timers of our own expire on every
//! processor, which come after all that are due there, and look again.
//!
//! **Put back how**: made without being set; set when all else is done, right before the tree goes. What was set relative
//! waits for what remained: time that passed between checkpoint and restart doesn't count. What was set to a time of its
//! clock (TFD_TIMER_ABSTIME) expires when that clock says so, at once if the time has passed, as any other wait for it; by our
//! clock, where the tree is in a time namespace. Where a clock was let go back (`--clocks host`), what remained remains.
//! Expirations that weren't read come by TFD_IOC_SET_TICKS.
//!
//! **Not saved**: that the clock was set and the program hasn't been told yet (TFD_TIMER_CANCEL_ON_SET) is refused where it
//! can be seen, for a timer that doesn't repeat; else it is an expiration. By each restart a timer may come to be late by as
//! much as it took to look at it, some microseconds. One that is due, on a processor that bardo may not run on, may be taken for
//! one that isn't set.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bardo_image::Record;
use bardo_kernel::procfs::fdinfo::{self, FdInfo};
use bardo_kernel::ptrace::Pinned;
use bardo_kernel::time::{self, Patience};
use bardo_kernel::timerfd::{self, Times};
use bardo_kernel::{Failed, poll};
use serde::{Deserialize, Serialize};

use super::nameless::{self, STATUS};
use super::pool::{Making, Pool};
use super::scene::{Scene, Seen};
use super::survey::Collected;
use super::{FilesImage, Hindrance, Kind, Rules, Saved, image};
use crate::error::{Doing, Error, Result};
use crate::resource::task::clock::Ahead;
use crate::support::Support;

/// The kind.
#[derive(Debug, Clone, Copy)]
pub struct Timerfd;

/// The record's name.
pub const NAME: &str = "file/timerfd";

const SETTIME: i32 = timerfd::ABSOLUTE | timerfd::CANCEL_ON_SET;

/// The clocks that a timerfd may have.
const CLOCKS: [i32; 3] = [libc::CLOCK_REALTIME, libc::CLOCK_MONOTONIC, libc::CLOCK_BOOTTIME];

/// CLOCK_REALTIME_ALARM and CLOCK_BOOTTIME_ALARM, which wake the machine, and the clocks that they show.
const ALARMS: [(i32, i32); 2] = [(8, libc::CLOCK_REALTIME), (9, libc::CLOCK_BOOTTIME)];

/// How long a timer that is due may take to expire.
const EXPIRY_NS: u64 = 1_000_000_000;

/// The record of a timerfd.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OpenTimerfd {
    /// Its clock, as clock_gettime(2) numbers them (fdinfo, `clockid`).
    pub clock: i32,
    /// How it was set (fdinfo, `settime flags`).
    pub settime_flags: i32,
    /// How many expirations a read would return (fdinfo, `ticks`).
    pub ticks: u64,
    /// What remains until the next one, in nanoseconds (fdinfo, `it_value`); none: it isn't set.
    pub remaining_ns: Option<u64>,
    /// From each expiration to the next (fdinfo, `it_interval`).
    pub interval_ns: u64,
    /// When it expires, on its clock as the program saw it, if it was set to a time of that. Older images have it for
    /// CLOCK_REALTIME alone.
    #[serde(default)]
    pub expires_ns: Option<u64>,
    /// Access mode and status flags (fdinfo, `flags`).
    pub flags: i32,
}

impl Kind for Timerfd {
    fn support(&self) -> Support {
        Support {
            kind: NAME,
            kept: "clock, what remains, interval, expirations that weren't read, flags; absolute times of its clock",
            not_kept: "a TFD_TIMER_CANCEL_ON_SET that is due: refused",
            privilege: "CAP_WAKE_ALARM for clocks that wake the machine",
            workload: "file/timerfd",
        }
    }

    fn records(&self) -> &'static [&'static str] {
        &[NAME]
    }

    fn claims(&self, file: &Seen, _: &Scene<'_>) -> bool {
        nameless::is(file, "anon_inode:[timerfd]")
    }

    fn collect(&self, file: &Seen, scene: &Scene<'_>, out: &mut Collected) -> Result<()> {
        if !nameless::is_ours(file, scene, "timerfd", libc::O_RDWR, out)? {
            return Ok(());
        }
        let fd = scene.duplicate(file)?;
        let holder = file.holders[0];
        let pid = scene.subjects[holder.subject].door;
        let look = || look(fd.as_fd(), pid, holder.fd, file.flags);
        let was_running =
            file.told.iter().any(|(key, value)| key == "it_value" && nanoseconds(value) > Some(0));
        let settle = || scene.have_timers_expired();
        let timer = judge(was_running, look, settle).doing("looking at a timerfd", Some(scene.who(file)))?;
        if !CLOCKS.contains(&timer.shown_clock()) || timer.settime_flags & !SETTIME != 0 {
            let what = format!("timerfd of clock {}, set with {:#x}", timer.clock, timer.settime_flags);
            let why = "this version doesn't know what that means";
            out.refuse(scene, file, NAME, what, why, "use a newer bardo");
            return Ok(());
        }
        if timer.settime_flags & timerfd::CANCEL_ON_SET != 0
            && timer.ticks > 0
            && timer.remaining_ns.is_some()
            && timer.interval_ns == 0
        {
            let why = "the clock was set, and the program hasn't been told yet (TFD_TIMER_CANCEL_ON_SET)";
            out.refuse(scene, file, NAME, "timerfd", why, "try again once it has read its timer");
            return Ok(());
        }
        out.record(NAME, file.id, &timer)
    }

    fn take(&self, record: &Record, image: &mut FilesImage) -> Result<()> {
        let file: OpenTimerfd = image::read(record)?;
        let flags = [file.flags & !(STATUS | libc::O_RDWR), file.settime_flags & !SETTIME];
        if flags != [0, 0] || !CLOCKS.contains(&file.shown_clock()) {
            let why = format!(
                "a timerfd of clock {}, with the flags {:#o} and {:#o}",
                file.clock, file.flags, file.settime_flags
            );
            return Err(image::wrong(record, why));
        }
        image.add(record, Box::new(file))
    }
}

/// What the kernel says of a timer. It shows what remains: an absolute time is as late as it took to read that, so the
/// quickest of some looks is taken.
fn look(timer: BorrowedFd<'_>, pid: i32, fd: i32, flags: i32) -> bardo_kernel::Result<OpenTimerfd> {
    const QUICK_NS: u64 = 20_000;
    let mut best: Option<(u64, OpenTimerfd)> = None;
    for _ in 0..5 {
        timerfd::remaining(timer)?;
        let begun_ns = time::monotonic_ns();
        let mut seen = OpenTimerfd::read(&fdinfo::read(pid, fd)?, flags)?;
        if !seen.is_absolute() {
            return Ok(seen);
        }
        let now_ns = time::clock_ns(seen.shown_clock())?;
        let took_ns = time::monotonic_ns().saturating_sub(begun_ns);
        let now_ns = Ahead::of_process(pid)?.theirs(seen.shown_clock(), now_ns);
        seen.expires_ns = seen.remaining_ns.map(|ns| now_ns.saturating_add(ns));
        if best.as_ref().is_none_or(|(best, _)| took_ns < *best) {
            best = Some((took_ns, seen));
        }
        if took_ns < QUICK_NS {
            break;
        }
    }
    best.map(|(_, timer)| timer).ok_or_else(|| Failed::unexpected("a timerfd that wasn't looked at"))
}

/// What a timer is that showed, when all descriptors were looked at, whether time remained (`was_running`). `settle` returns when
/// all timers have expired that were due at that moment.
fn judge(
    was_running: bool,
    look: impl Fn() -> bardo_kernel::Result<OpenTimerfd>,
    settle: impl FnOnce() -> bardo_kernel::Result<()>,
) -> bardo_kernel::Result<OpenTimerfd> {
    let timer = look()?;
    if !timer.shows_nothing() {
        return Ok(timer);
    }
    if !was_running {
        settle()?;
        return look();
    }
    // Due at once, whatever its clock shows then.
    Ok(OpenTimerfd { remaining_ns: Some(1), expires_ns: None, ..timer })
}

/// The processors of a mask as sched_getaffinity(2) gives it.
pub fn processors(mask: &[u8]) -> BTreeSet<usize> {
    (0..mask.len() * 8).filter(|bit| mask[bit / 8] & 1 << (bit % 8) != 0).collect()
}

/// Returns when all timers that are due by now have expired, on those of these processors that we may run on: a processor's timers
/// expire in the order of their times, so each of ours is the last.
pub fn have_expired(processors: &BTreeSet<usize>) -> bardo_kernel::Result<()> {
    for processor in processors {
        let Some(_pinned) = Pinned::to(*processor) else { continue };
        for clock in CLOCKS {
            let timer = timerfd::make(clock, 0)?;
            timerfd::set(timer.as_fd(), 0, Times { value_ns: 1, interval_ns: 0 })?;
            let mut patience = Patience::of(EXPIRY_NS);
            while poll::now(timer.as_fd(), libc::POLLIN)? == 0 {
                if !patience.wait() {
                    return Err(Failed::unexpected(format!(
                        "a timer on processor {processor} that doesn't expire"
                    )));
                }
            }
        }
    }
    Ok(())
}

/// A time as fdinfo writes it: `(9, 999985368)`, seconds and nanoseconds.
fn nanoseconds(text: &str) -> Option<u64> {
    let (seconds, nanoseconds) = text.strip_prefix('(')?.strip_suffix(')')?.split_once(", ")?;
    let seconds: u64 = seconds.parse().ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds.parse().ok()?)
}

impl OpenTimerfd {
    fn read(info: &FdInfo, flags: i32) -> bardo_kernel::Result<OpenTimerfd> {
        let unknown = |key: &str| Failed::unexpected(format!("fdinfo, {key}: {:?}", info.get(key)));
        let number = |key: &str, radix| {
            let number = info.get(key).and_then(|text| u64::from_str_radix(text, radix).ok());
            number.ok_or_else(|| unknown(key))
        };
        let time = |key: &str| info.get(key).and_then(nanoseconds).ok_or_else(|| unknown(key));
        let (value_ns, interval_ns) = (time("it_value")?, time("it_interval")?);
        let ticks = number("ticks", 10)?;
        // One that repeats may have expired since it was told to go on: the next time is somewhere within the interval.
        let expired = value_ns == 0 && interval_ns > 0 && ticks > 0;
        let remaining_ns = if expired { Some(interval_ns) } else { Some(value_ns).filter(|ns| *ns > 0) };
        Ok(OpenTimerfd {
            clock: number("clockid", 10)? as i32,
            settime_flags: number("settime flags", 8)? as i32,
            ticks,
            remaining_ns,
            interval_ns,
            expires_ns: None,
            flags,
        })
    }

    /// Whether it shows what one shows that isn't set: it may be due all the same.
    fn shows_nothing(&self) -> bool {
        self.remaining_ns.is_none() && self.ticks == 0
    }

    fn shown_clock(&self) -> i32 {
        ALARMS.iter().find(|(alarm, _)| *alarm == self.clock).map_or(self.clock, |(_, shown)| *shown)
    }

    /// Whether it was set to a time of its clock.
    fn is_absolute(&self) -> bool {
        self.settime_flags & timerfd::ABSOLUTE != 0
    }

    /// What it is set to, where its clock, as the tree sees it, shows this now: relative, or a time of that clock.
    fn value_ns(&self, remaining_ns: u64, now_ns: u64) -> u64 {
        if !self.is_absolute() {
            return remaining_ns;
        }
        match self.expires_ns {
            // The clock on the wall may be set; of the others the one that has gone back has nothing to say.
            Some(expires_ns)
                if self.shown_clock() == libc::CLOCK_REALTIME
                    || now_ns >= expires_ns.saturating_sub(remaining_ns) =>
            {
                expires_ns
            }
            _ => now_ns.saturating_add(remaining_ns),
        }
    }

    /// Sets it, from now on; expirations that weren't read are there again.
    fn set(&self, fd: BorrowedFd<'_>, value_ns: u64) -> bardo_kernel::Result<()> {
        timerfd::set(fd, self.settime_flags, Times { value_ns, interval_ns: self.interval_ns })?;
        if self.ticks > 0 { timerfd::set_ticks(fd, self.ticks) } else { Ok(()) }
    }

    /// Made, and not set.
    fn make(&self) -> bardo_kernel::Result<OwnedFd> {
        let fd = timerfd::make(self.clock, 0)?;
        self.set(fd.as_fd(), 0)?;
        nameless::set_status(&fd, self.flags)?;
        Ok(fd)
    }
}

impl Saved for OpenTimerfd {
    fn what(&self) -> String {
        "timerfd".into()
    }

    fn check(&self, _: &Rules<'_>) -> Vec<Hindrance> {
        let Err(failed) = self.make() else { return Vec::new() };
        vec![Hindrance {
            code: "file/denied",
            what: format!("timerfd of clock {}", self.clock),
            why: format!("such a one can't be made here: {failed}"),
            remedy: "a clock that wakes the machine needs CAP_WAKE_ALARM, expirations that weren't read need a kernel with \
                     CONFIG_CHECKPOINT_RESTORE"
                .into(),
        }]
    }

    fn open(&self, _: u64, _: &mut Making<'_>) -> Result<OwnedFd> {
        self.make().doing("making a timerfd", None)
    }

    fn rouse(&self, fd: BorrowedFd<'_>) -> bardo_kernel::Result<bool> {
        timerfd::set_ticks(fd, 1)?;
        Ok(true)
    }

    fn calm(&self, fd: BorrowedFd<'_>) -> bardo_kernel::Result<()> {
        self.set(fd, 0)
    }

    fn start(&self, id: u64, pool: &Pool, ahead: Ahead) -> Result<()> {
        let Some(remaining_ns) = self.remaining_ns else { return Ok(()) };
        let fd = pool.borrow(id).ok_or_else(|| Error::Bug(format!("timerfd {id} isn't open")))?;
        let clock = self.shown_clock();
        let now_ns = ahead.now_ns(clock).doing("reading the clock", None)?;
        let value_ns = match self.value_ns(remaining_ns, now_ns) {
            expires_ns if self.is_absolute() => ahead.ours(clock, expires_ns),
            remaining_ns => remaining_ns,
        };
        // 0 would stop it.
        self.set(fd, value_ns.clamp(1, i64::MAX as u64)).doing("setting a timerfd", None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> OpenTimerfd {
        let text = format!("pos:\t0\nflags:\t02\nmnt_id:\t15\nino:\t1038\n{text}");
        OpenTimerfd::read(&fdinfo::parse(text.as_bytes()).unwrap(), libc::O_RDWR).unwrap()
    }

    #[test]
    fn what_fdinfo_says_is_understood() {
        let text = "clockid: 1\nticks: 0\nsettime flags: 01\nit_value: (9, 999985368)\nit_interval: (1, 5)\n";
        let timer = read(text);
        assert_eq!((timer.clock, timer.settime_flags, timer.ticks), (1, 1, 0));
        assert_eq!((timer.remaining_ns, timer.interval_ns), (Some(9_999_985_368), 1_000_000_005));
        assert_eq!(timer.expires_ns, None);
        assert!(timer.is_absolute() && !read(&text.replace("flags: 01", "flags: 00")).is_absolute());
        // Expired while it was looked at: the next one isn't early, whenever it is.
        let timer = read(&text.replace("(9, 999985368)", "(0, 0)").replace("ticks: 0", "ticks: 3"));
        assert_eq!((timer.ticks, timer.remaining_ns), (3, Some(1_000_000_005)));
        let timer = read(&text.replace("(9, 999985368)", "(0, 0)"));
        assert_eq!(timer.remaining_ns, None, "not set");
    }

    #[test]
    fn what_the_kernel_never_says_is_an_error() {
        for text in ["(1, )", "(1,2)", "1, 2", "(18446744073709551615, 1)", "(-1, 0)"] {
            assert_eq!(nanoseconds(text), None, "{text}");
        }
    }

    #[test]
    fn a_time_of_a_clock_is_due_by_that_clock_unless_it_went_back() {
        let text = "clockid: 1\nticks: 0\nsettime flags: 01\nit_value: (0, 50)\nit_interval: (0, 0)\n";
        let absolute = OpenTimerfd { expires_ns: Some(1050), ..read(text) };
        for (now_ns, value_ns) in [(1000, 1050), (1020, 1050), (9000, 1050), (999, 1049), (3, 53)] {
            assert_eq!(absolute.value_ns(50, now_ns), value_ns, "at {now_ns}");
        }
        assert_eq!(OpenTimerfd { clock: 0, ..absolute.clone() }.value_ns(50, 3), 1050, "on the wall");
        assert_eq!(
            OpenTimerfd { expires_ns: None, ..absolute.clone() }.value_ns(50, 3),
            53,
            "an older image"
        );
        assert_eq!(OpenTimerfd { settime_flags: 0, ..absolute }.value_ns(50, 3), 50, "relative");
    }

    #[test]
    fn one_that_is_due_isnt_taken_for_one_that_isnt_set() {
        let me = std::process::id() as i32;
        let mask = bardo_kernel::ptrace::cpu_mask(0).unwrap();
        let processors = processors(&mask);
        let (first, last) = (*processors.first().unwrap(), *processors.last().unwrap());
        let mut seen_due = 0;
        for turn in 0..400u64 {
            let timer = {
                let _there = Pinned::to(first);
                let timer = timerfd::make(libc::CLOCK_MONOTONIC, 0).unwrap();
                let value_ns = 150_000 + turn % 40 * 5_000;
                timerfd::set(timer.as_fd(), 0, Times { value_ns, interval_ns: 0 }).unwrap();
                timer
            };
            let _here = Pinned::to(last);
            let look = || look(timer.as_fd(), me, std::os::fd::AsRawFd::as_raw_fd(&timer), libc::O_RDWR);
            let shown = loop {
                let shown = look().unwrap();
                if shown.remaining_ns.is_none() {
                    break shown;
                }
            };
            if !shown.shows_nothing() {
                continue;
            }
            // Seen once before, as a survey sees it: with nothing to tell it by, or with time that remained.
            seen_due += 1;
            let was_running = turn % 2 == 0;
            let judged = judge(was_running, look, || have_expired(&processors)).unwrap();
            assert!(!judged.shows_nothing(), "a timer was forgotten: {judged:?}");
        }
        eprintln!("{seen_due} of 400 were seen while they were due");
        let unset = timerfd::make(libc::CLOCK_MONOTONIC, 0).unwrap();
        let look = || look(unset.as_fd(), me, std::os::fd::AsRawFd::as_raw_fd(&unset), libc::O_RDWR);
        assert!(judge(false, look, || have_expired(&processors)).unwrap().shows_nothing());
    }

    #[test]
    fn one_that_is_due_in_the_past_expires_at_once_and_what_remains_is_counted_from_now() {
        let text = "clockid: 1\nticks: 2\nsettime flags: 01\nit_value: (5000, 0)\nit_interval: (5000, 0)\n";
        let timer = read(text);
        let fd = timer.make().unwrap();
        assert_eq!(timerfd::remaining(fd.as_fd()).unwrap().value_ns, 0, "it runs too early");
        let pool = Pool::of(7, fd);
        timer.start(7, &pool, Ahead::default()).unwrap();
        let remains = timerfd::remaining(pool.borrow(7).unwrap()).unwrap().value_ns;
        assert!(remains > 4_000_000_000_000 && remains <= 5_000_000_000_000, "{remains}");
        let timer = OpenTimerfd { clock: 0, expires_ns: Some(1), ticks: 0, interval_ns: 0, ..timer };
        let pool = Pool::of(7, timer.make().unwrap());
        timer.start(7, &pool, Ahead::default()).unwrap();
        let fd = pool.borrow(7).unwrap();
        assert_eq!(bardo_kernel::poll::now(fd, libc::POLLIN).unwrap(), libc::POLLIN);
    }
}
