//! The clocks that count since a boot: CLOCK_MONOTONIC and CLOCK_BOOTTIME (clock_gettime(2), time_namespaces(7)).
//!
//! **In the kernel**: one of each for the machine, and a time namespace is nothing but two numbers that are added to them
//! for whoever is in it; CLOCK_MONOTONIC_RAW and _COARSE go with the first, the alarm clocks with the second. Both never
//! go back while a machine is up, and programs rely on it. CLOCK_BOOTTIME counts the time that the machine was suspended, the
//! other doesn't. On another machine, or after another boot, they have nothing to do with what they were.
//!
//! **In the image**: `task/clocks`: what the tree's clocks showed when all had been looked at, the clock on the wall, and
//! whether the tree was in another time namespace than bardo.
//!
//! **Taken how**: our own clocks, and `/proc/PID/timens_offsets` of ours and of the tree, which tell the difference.
//!
//! **Put back how**: where the clocks of the restart aren't behind, the tree goes on by them: they may have jumped forward, as
//! they do for a process that was stopped meanwhile. Where one of them is behind, and where the tree had a time namespace
//! of its own, it gets a new one: CLOCK_MONOTONIC goes on from where it was, CLOCK_BOOTTIME counts the time away by the clock
//! on the wall, as if the machine had been suspended. They run from when the tree's first process is made. So a
//! time that was absolute is right by its clock, and all else waits for what remained ([`super::sleep`],
//! [`super::posix_timer`], [`super::timer`], timerfds).
//!
//! **Not saved**: by how much CLOCK_MONOTONIC_RAW was apart from CLOCK_MONOTONIC. There is one number for both: the one
//! that lets neither go back, so that one of them may jump forward. Processes in several time namespaces are refused.

use bardo_image::Record;
use bardo_kernel::procfs::ns::{self, Kind};
use bardo_kernel::procfs::timens_offsets::{self, Offsets};
use bardo_kernel::time;
use serde::{Deserialize, Serialize};

use crate::error::{Doing, Error, Refusal, Result};
use crate::restart;
use crate::subject::Subject;

/// The record's name.
pub const NAME: &str = "task/clocks";

const NSEC: u64 = 1_000_000_000;
/// What the kernel lets a clock of a time namespace show at most: half of KTIME_SEC_MAX, 146 years; less a day.
const MAX_NS: u64 = (i64::MAX as u64 / NSEC / 2 - 86400) * NSEC;
/// A coarse clock is behind the other by a tick at most, and a tick is 10 ms at most.
const TICK_NS: u64 = 10_000_000;

/// Alarm clocks: CLOCK_BOOTTIME_ALARM.
const BOOTTIME_ALARM: i32 = 9;

/// What the clocks showed, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clocks {
    /// CLOCK_MONOTONIC, as the tree saw it.
    pub monotonic_ns: u64,
    /// CLOCK_MONOTONIC_RAW, as the tree saw it.
    pub monotonic_raw_ns: u64,
    /// CLOCK_BOOTTIME, as the tree saw it.
    pub boottime_ns: u64,
    /// CLOCK_REALTIME.
    pub realtime_ns: u64,
    /// Whether the tree was in a time namespace of its own, and not in bardo's.
    pub own_namespace: bool,
}

/// How far a tree's clocks are ahead of ours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ahead {
    monotonic_ns: i64,
    boottime_ns: i64,
}

fn me() -> i32 {
    std::process::id() as i32
}

impl Ahead {
    fn between(theirs: Option<Offsets>, ours: Option<Offsets>) -> Ahead {
        let (theirs, ours) = (theirs.unwrap_or_default(), ours.unwrap_or_default());
        Ahead {
            monotonic_ns: theirs.monotonic_ns.saturating_sub(ours.monotonic_ns),
            boottime_ns: theirs.boottime_ns.saturating_sub(ours.boottime_ns),
        }
    }

    /// How far those of a process are.
    ///
    /// # Errors
    /// It is gone.
    pub fn of_process(pid: i32) -> bardo_kernel::Result<Ahead> {
        Ok(Ahead::between(timens_offsets::read(pid)?, timens_offsets::read(me())?))
    }

    /// How far this clock is.
    pub fn of(self, clock: i32) -> i64 {
        match clock {
            libc::CLOCK_MONOTONIC | libc::CLOCK_MONOTONIC_RAW | libc::CLOCK_MONOTONIC_COARSE => {
                self.monotonic_ns
            }
            libc::CLOCK_BOOTTIME | BOOTTIME_ALARM => self.boottime_ns,
            _ => 0,
        }
    }

    /// A time of our clock as one of theirs.
    pub fn theirs(self, clock: i32, ours_ns: u64) -> u64 {
        ours_ns.saturating_add_signed(self.of(clock))
    }

    /// A time of their clock as one of ours.
    pub fn ours(self, clock: i32, theirs_ns: u64) -> u64 {
        theirs_ns.saturating_add_signed(self.of(clock).saturating_neg())
    }

    /// What their clock shows now.
    ///
    /// # Errors
    /// EINVAL: there is no such clock.
    pub fn now_ns(self, clock: i32) -> bardo_kernel::Result<u64> {
        Ok(self.theirs(clock, time::clock_ns(clock)?))
    }
}

/// The time namespace that the processes of a tree are in.
#[derive(Debug, Default)]
pub struct TimeNamespace(Option<u64>);

impl TimeNamespace {
    /// Looks at another process of the tree, which has these namespaces; what isn't in the same one as those before it is
    /// refused.
    pub fn join(&mut self, subject: &Subject, theirs: &ns::Links, refusals: &mut Vec<Refusal>) {
        let Some(time) = theirs.get(Kind::Time) else { return };
        let mut refuse = |what: &str| {
            refusals.push(subject.refusal(
                "namespace/time",
                None,
                what,
                "a tree comes back with one time namespace at most, and its clocks would be others",
                "checkpoint the tree of a process whose descendants are all in one: that which unshare(1) or the \
                 container's runtime has started in it",
            ));
        };
        // `/proc` tells nothing of the clocks of a process whose children will have others.
        if theirs.get(Kind::TimeForChildren).is_some_and(|children| children != time) {
            refuse("its children will be in another time namespace than itself");
        } else if *self.0.get_or_insert(time) != time {
            refuse("it is in another time namespace than the tree's root");
        }
    }
}

impl Clocks {
    /// What the clocks of a tree show whose root's directory in `/proc` is this.
    ///
    /// # Errors
    /// It is gone.
    pub fn take(door: i32, ahead: Ahead) -> bardo_kernel::Result<Clocks> {
        let namespace = |pid| Ok(ns::read(pid)?.get(Kind::Time));
        Ok(Clocks {
            realtime_ns: time::realtime_ns(),
            own_namespace: namespace(door)? != namespace(me())?,
            ..Clocks::now(ahead)?
        })
    }

    /// What clocks that far ahead of ours show now.
    fn now(ahead: Ahead) -> bardo_kernel::Result<Clocks> {
        Ok(Clocks {
            monotonic_ns: ahead.now_ns(libc::CLOCK_MONOTONIC)?,
            monotonic_raw_ns: ahead.now_ns(libc::CLOCK_MONOTONIC_RAW)?,
            boottime_ns: ahead.now_ns(libc::CLOCK_BOOTTIME)?,
            realtime_ns: time::realtime_ns(),
            own_namespace: false,
        })
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`Error::Image`]: no machine has such clocks.
    pub fn read(record: &Record) -> Result<Clocks> {
        let clocks: Clocks = record.read().map_err(Error::Image)?;
        let all = [clocks.monotonic_ns, clocks.monotonic_raw_ns, clocks.boottime_ns];
        if all.iter().any(|ns| *ns > MAX_NS) {
            return Err(Error::Image(record.unexpected("a clock that has counted more than 146 years")));
        }
        Ok(clocks)
    }

    /// Whether one of these would go back if it showed that, and which.
    fn behind(&self, now: &Clocks) -> Option<(&'static str, u64)> {
        [
            ("CLOCK_MONOTONIC", self.monotonic_ns, now.monotonic_ns),
            ("CLOCK_MONOTONIC_RAW", self.monotonic_raw_ns, now.monotonic_raw_ns),
            ("CLOCK_BOOTTIME", self.boottime_ns, now.boottime_ns),
        ]
        .into_iter()
        .find_map(|(name, saved, now)| Some((name, saved.checked_sub(now).filter(|by| *by > 0)?)))
    }

    /// How far ahead of ours the clocks of a tree are to be that goes on from these, showing this now.
    fn ahead(&self, now: &Clocks) -> Ahead {
        let distance = |saved: u64, now: u64| i64::try_from(i128::from(saved) - i128::from(now)).unwrap_or(0);
        let away_ns = now.realtime_ns.saturating_sub(self.realtime_ns);
        let monotonic_ns = distance(self.monotonic_ns + TICK_NS, now.monotonic_ns);
        let raw_ns = distance(self.monotonic_raw_ns + TICK_NS, now.monotonic_raw_ns);
        let boottime = self.boottime_ns.saturating_add(away_ns).min(MAX_NS) + TICK_NS;
        Ahead { monotonic_ns: monotonic_ns.max(raw_ns), boottime_ns: distance(boottime, now.boottime_ns) }
    }

    /// The offsets of a time namespace in which a tree goes on from these, and how far ahead of ours they are.
    ///
    /// # Errors
    /// Our clocks or offsets can't be read.
    pub fn offsets(&self) -> bardo_kernel::Result<(Offsets, Ahead)> {
        let ours = timens_offsets::read(me())?.unwrap_or_default();
        let ahead = self.ahead(&Clocks::now(Ahead::default())?);
        let offsets = Offsets {
            monotonic_ns: ours.monotonic_ns.saturating_add(ahead.monotonic_ns),
            boottime_ns: ours.boottime_ns.saturating_add(ahead.boottime_ns),
        };
        Ok((offsets, ahead))
    }
}

/// The clocks from which a tree is to go on in a time namespace of its own, and why; none: it goes on by the host's.
///
/// # Errors
/// [`Error::Unfit`]: it is to go on from clocks of which the image doesn't tell.
pub fn to_continue(saved: Option<Clocks>, wanted: restart::Clocks) -> Result<Option<(Clocks, String)>> {
    let Some(saved) = saved else {
        if wanted == restart::Clocks::Continue {
            return Err(restart::unfit(
                NAME,
                "the image doesn't tell what its tree's clocks showed".into(),
                "an older bardo made it, which didn't save them",
                "--clocks host",
            ));
        }
        return Ok(None);
    };
    let now = Clocks::now(Ahead::default()).doing("reading the clocks", None)?;
    Ok(match (wanted, saved.behind(&now)) {
        (restart::Clocks::Host, _) => None,
        (_, Some((clock, by_ns))) => {
            Some((saved, format!("{clock} would go back by {} seconds", by_ns.div_ceil(NSEC))))
        }
        (restart::Clocks::Continue, None) => {
            Some((saved, "its clocks are to go on from where they were".into()))
        }
        (restart::Clocks::Auto, None) => {
            saved.own_namespace.then(|| (saved, "the tree was in a time namespace of its own".into()))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600 * NSEC;

    fn clocks(monotonic: u64, raw: u64, boottime: u64, realtime: u64) -> Clocks {
        Clocks {
            monotonic_ns: monotonic,
            monotonic_raw_ns: raw,
            boottime_ns: boottime,
            realtime_ns: realtime,
            own_namespace: false,
        }
    }

    /// What a tree's clocks show that goes on from these on a host with those.
    fn shown(saved: &Clocks, host: &Clocks) -> [u64; 3] {
        let ahead = saved.ahead(host);
        [
            ahead.theirs(libc::CLOCK_MONOTONIC, host.monotonic_ns),
            ahead.theirs(libc::CLOCK_MONOTONIC_RAW, host.monotonic_raw_ns),
            ahead.theirs(libc::CLOCK_BOOTTIME, host.boottime_ns),
        ]
    }

    #[test]
    fn no_clock_goes_back_and_the_one_of_the_boot_counts_the_time_away() {
        let saved = clocks(100 * HOUR, 100 * HOUR, 130 * HOUR, 1000 * HOUR);
        let hosts = [
            clocks(NSEC, NSEC, NSEC, 1005 * HOUR),
            clocks(500 * HOUR, 499 * HOUR, 500 * HOUR, 1005 * HOUR),
            clocks(50 * HOUR, 51 * HOUR, 200 * HOUR, 1005 * HOUR),
        ];
        for host in hosts {
            let [monotonic, raw, boottime] = shown(&saved, &host);
            assert!(monotonic >= saved.monotonic_ns && raw >= saved.monotonic_raw_ns, "{monotonic} {raw}");
            assert!(monotonic.min(raw) <= 100 * HOUR + TICK_NS);
            assert_eq!(boottime, 135 * HOUR + TICK_NS);
        }
        // A clock on the wall that is behind, or far ahead.
        assert_eq!(shown(&saved, &clocks(0, 0, 0, 7))[2], 130 * HOUR + TICK_NS);
        assert_eq!(shown(&saved, &clocks(0, 0, 0, u64::MAX))[2], MAX_NS + TICK_NS);
    }

    #[test]
    fn a_namespace_is_made_where_a_clock_is_behind_or_one_was_there() {
        let now = Clocks::now(Ahead::default()).unwrap();
        let made = |saved, wanted| to_continue(saved, wanted).unwrap().map(|(clocks, _)| clocks);
        let later =
            |by| clocks(now.monotonic_ns + by, now.monotonic_raw_ns, now.boottime_ns, now.realtime_ns);
        assert_eq!(made(Some(now), restart::Clocks::Auto), None);
        assert_eq!(made(Some(later(HOUR)), restart::Clocks::Auto), Some(later(HOUR)));
        assert_eq!(made(Some(later(HOUR)), restart::Clocks::Host), None);
        assert_eq!(made(Some(now), restart::Clocks::Continue), Some(now));
        let own = Clocks { own_namespace: true, ..now };
        assert_eq!(made(Some(own), restart::Clocks::Auto), Some(own));
        assert_eq!(made(Some(own), restart::Clocks::Host), None);
        assert_eq!(made(None, restart::Clocks::Auto), None);
        assert!(to_continue(None, restart::Clocks::Continue).is_err());
    }

    #[test]
    fn times_are_told_in_both_clocks() {
        let ahead = Ahead { monotonic_ns: -5, boottime_ns: 7 };
        for (clock, theirs) in
            [(libc::CLOCK_MONOTONIC, 95), (libc::CLOCK_BOOTTIME, 107), (libc::CLOCK_REALTIME, 100)]
        {
            assert_eq!(ahead.theirs(clock, 100), theirs);
            assert_eq!(ahead.ours(clock, theirs), 100);
        }
        assert_eq!(Ahead::of_process(me()).unwrap(), Ahead::default());
    }
}
