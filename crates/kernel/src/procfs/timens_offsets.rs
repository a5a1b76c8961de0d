//! `/proc/PID/timens_offsets`: how far the clocks of a time namespace are ahead of the machine's (man 7 time_namespaces),
//! whoever looks. The namespace is that which the process's children will be in.
//!
//! Both offsets hold for more than the clock that names them: `monotonic` for CLOCK_MONOTONIC_RAW and _COARSE too,
//! `boottime` for CLOCK_BOOTTIME_ALARM and `/proc/uptime`.
//!
//! Privilege: none to read; to write, CAP_SYS_TIME over the user namespace that has the time namespace. Kernel: Linux 5.6
//! and CONFIG_TIME_NS; else there is no such file.

use super::text::{self, malformed, missing};
use crate::error::Result;
use crate::fs;

const FILE: &str = "timens_offsets";
const NSEC: i64 = 1_000_000_000;

/// How far a namespace's clocks are ahead of the machine's, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offsets {
    /// Of CLOCK_MONOTONIC.
    pub monotonic_ns: i64,
    /// Of CLOCK_BOOTTIME.
    pub boottime_ns: i64,
}

impl Offsets {
    /// How they are written.
    fn text(self) -> String {
        let line = |name: &str, ns: i64| format!("{name} {} {}\n", ns.div_euclid(NSEC), ns.rem_euclid(NSEC));
        line("monotonic", self.monotonic_ns) + &line("boottime", self.boottime_ns)
    }
}

/// Reads the text.
///
/// # Errors
/// EPROTO with the line.
pub fn parse(text: &[u8]) -> Result<Offsets> {
    let offset = |clock: &str| {
        let mut lines = text::lines(text).map(|line| text::fields(line).collect::<Vec<_>>());
        let line = lines.find(|line| line.first() == Some(&clock.as_bytes()));
        let [_, seconds, nanoseconds] = line.ok_or_else(|| missing(FILE, &format!("{clock} line")))?[..]
        else {
            return Err(malformed(FILE, clock, text));
        };
        let (seconds, nanoseconds): (i64, i64) =
            (text::number(FILE, clock, seconds)?, text::number(FILE, clock, nanoseconds)?);
        seconds
            .checked_mul(NSEC)
            .and_then(|ns| ns.checked_add(nanoseconds))
            .ok_or_else(|| malformed(FILE, clock, text))
    };
    Ok(Offsets { monotonic_ns: offset("monotonic")?, boottime_ns: offset("boottime")? })
}

/// Those of the namespace that a process's children will be in; none: this kernel has no time namespaces.
pub fn read(pid: i32) -> Result<Option<Offsets>> {
    // A thread that has ended is in no namespace, and its file is empty: the others of the process tell.
    let of =
        |tid| text::read(&super::path(tid, FILE), |text| (!text.is_empty()).then(|| parse(text)).transpose());
    match of(pid) {
        Ok(Some(offsets)) => Ok(Some(offsets)),
        Ok(None) => {
            let others = super::threads(pid)?.into_iter().filter(|tid| *tid != pid);
            let living = others.filter_map(|tid| of(tid).ok().flatten()).next();
            living.ok_or_else(|| missing(FILE, "monotonic line")).map(Some)
        }
        // The file is missing, and not the process.
        Err(e) if e.is(libc::ENOENT) => fs::stat(super::path(pid, "stat")).map(|_| None),
        Err(e) => Err(e),
    }
}

/// Sets those of a new namespace that nobody is in yet.
///
/// # Errors
/// EPERM: no CAP_SYS_TIME. EACCES: somebody is in it. ERANGE: a clock would be before its beginning, or beyond 146 years.
pub fn write(pid: i32, offsets: Offsets) -> Result<()> {
    fs::write_text(super::path(pid, FILE), &offsets.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        for ns in [0, 1, -1, NSEC, -NSEC - 1, 100_000 * NSEC + 5, i64::MAX - NSEC, i64::MIN + NSEC] {
            let offsets = Offsets { monotonic_ns: ns, boottime_ns: -ns / 3 };
            assert_eq!(parse(offsets.text().as_bytes()).unwrap(), offsets);
        }
        let text = b"monotonic      100000         5\nboottime           -1 999999999\n";
        let offsets = Offsets { monotonic_ns: 100_000 * NSEC + 5, boottime_ns: -1 };
        assert_eq!(parse(text).unwrap(), offsets);
        assert_eq!(offsets.text(), "monotonic 100000 5\nboottime -1 999999999\n");
    }

    #[test]
    fn what_the_kernel_never_says_is_an_error() {
        for text in
            ["", "monotonic 1 2\n", "monotonic 1\nboottime 0 0\n", "monotonic 0 0\nboottime 9223372037 0\n"]
        {
            assert!(parse(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn ours_can_be_read() {
        let me = std::process::id() as i32;
        // There is such a file where there are such namespaces.
        let has = crate::procfs::ns::read(me).unwrap().get(crate::procfs::ns::Kind::Time).is_some();
        assert_eq!(read(me).unwrap().is_some(), has);
        assert!(read(i32::MAX).is_err());
    }
}
