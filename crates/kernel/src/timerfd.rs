//! Timers that are read (man 2 timerfd_create).
//!
//! A timer that repeats stands still in the kernel once it has expired, until somebody reads it or asks for its time: then
//! the expirations that were missed are counted, all at once. So [`remaining`] changes where they are counted, and nothing
//! that a reader could notice.
//!
//! Privilege: none; clocks that wake the machine (…_ALARM) need CAP_WAKE_ALARM. Kernel: any; [`set_ticks`] needs
//! CONFIG_CHECKPOINT_RESTORE.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use syscalls::Sysno;

use crate::error::Result;
use crate::gate::syscall;

/// TFD_TIMER_ABSTIME: the value is a time of the clock.
pub const ABSOLUTE: i32 = 1;
/// TFD_TIMER_CANCEL_ON_SET: reads fail once the clock was set.
pub const CANCEL_ON_SET: i32 = 2;

/// When a timer expires, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// The time that remains, or for [`ABSOLUTE`] the time of the clock; 0: never.
    pub value_ns: u64,
    /// How long after each expiration the next one is; 0: there is none.
    pub interval_ns: u64,
}

const SECOND: u64 = 1_000_000_000;

fn timespec(nanoseconds: u64) -> libc::timespec {
    libc::timespec { tv_sec: (nanoseconds / SECOND) as i64, tv_nsec: (nanoseconds % SECOND) as i64 }
}

fn nanoseconds(time: libc::timespec) -> u64 {
    (time.tv_sec.max(0) as u64).saturating_mul(SECOND).saturating_add(time.tv_nsec.max(0) as u64)
}

/// Makes a timer that isn't set. Flags: TFD_NONBLOCK; TFD_CLOEXEC is added.
///
/// # Errors
/// EINVAL: no such clock; EPERM: …_ALARM without CAP_WAKE_ALARM.
pub fn make(clock: i32, flags: i32) -> Result<OwnedFd> {
    let args = [clock as usize, (flags | libc::TFD_CLOEXEC) as usize, 0, 0, 0, 0];
    // SAFETY: the call takes no pointers, and the new descriptor is ours alone.
    unsafe {
        let fd = syscall(Sysno::timerfd_create, args)
            .map_err(|e| e.of(format!("timerfd_create({clock}, {flags:#o})")))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// What remains until a timer expires (timerfd_gettime(2)). See the module's text for what that does.
pub fn remaining(fd: BorrowedFd<'_>) -> Result<Times> {
    let zero = timespec(0);
    let mut times = libc::itimerspec { it_interval: zero, it_value: zero };
    let args = [fd.as_raw_fd() as usize, &raw mut times as usize, 0, 0, 0, 0];
    // SAFETY: the structure is ours and lives over the call.
    unsafe { syscall(Sysno::timerfd_gettime, args) }
        .map_err(|e| e.of(format!("timerfd_gettime(fd {})", fd.as_raw_fd())))?;
    Ok(Times { value_ns: nanoseconds(times.it_value), interval_ns: nanoseconds(times.it_interval) })
}

/// Sets a timer (timerfd_settime(2)); what has expired of it is forgotten. Flags: [`ABSOLUTE`], [`CANCEL_ON_SET`].
pub fn set(fd: BorrowedFd<'_>, flags: i32, times: Times) -> Result<()> {
    let spec =
        libc::itimerspec { it_interval: timespec(times.interval_ns), it_value: timespec(times.value_ns) };
    let args = [fd.as_raw_fd() as usize, flags as usize, &raw const spec as usize, 0, 0, 0];
    // SAFETY: the structure lives over the call and is only read; the old times aren't asked for.
    unsafe { syscall(Sysno::timerfd_settime, args) }
        .map(drop)
        .map_err(|e| e.of(format!("timerfd_settime(fd {}, {flags:#x}, {times:?})", fd.as_raw_fd())))
}

/// Sets how many expirations a read will return (TFD_IOC_SET_TICKS); not 0.
///
/// # Errors
/// ENOTTY: a kernel without CONFIG_CHECKPOINT_RESTORE.
pub fn set_ticks(fd: BorrowedFd<'_>, ticks: u64) -> Result<()> {
    /// `_IOW('T', 0, __u64)` of `<linux/timerfd.h>`.
    const TFD_IOC_SET_TICKS: usize = 0x4008_5400;
    let args = [fd.as_raw_fd() as usize, TFD_IOC_SET_TICKS, &raw const ticks as usize, 0, 0, 0];
    // SAFETY: the command reads one u64, which lives over the call.
    unsafe { syscall(Sysno::ioctl, args) }
        .map(drop)
        .map_err(|e| e.of(format!("ioctl(fd {}, TFD_IOC_SET_TICKS, {ticks})", fd.as_raw_fd())))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::fs;
    use crate::procfs::fdinfo;

    #[test]
    fn what_is_set_is_told() {
        let fd = make(libc::CLOCK_BOOTTIME, libc::TFD_NONBLOCK).unwrap();
        assert_eq!(remaining(fd.as_fd()).unwrap(), Times { value_ns: 0, interval_ns: 0 });
        let day = 86_400 * SECOND;
        set(fd.as_fd(), 0, Times { value_ns: day, interval_ns: SECOND + 1 }).unwrap();
        let now = remaining(fd.as_fd()).unwrap();
        assert!(now.value_ns <= day && now.value_ns > day / 2 && now.interval_ns == SECOND + 1, "{now:?}");
        set_ticks(fd.as_fd(), 7).unwrap();
        let info = fdinfo::read(std::process::id() as i32, fd.as_raw_fd()).unwrap();
        assert_eq!((info.get("clockid"), info.get("ticks")), (Some("7"), Some("7")));
        let mut ticks = [0; 8];
        fs::read(fd.as_fd(), &mut ticks).unwrap();
        assert_eq!(u64::from_ne_bytes(ticks), 7);
        assert!(fs::read(fd.as_fd(), &mut ticks).unwrap_err().is(libc::EAGAIN));
        assert!(make(77, 0).unwrap_err().is(libc::EINVAL));
    }
}
