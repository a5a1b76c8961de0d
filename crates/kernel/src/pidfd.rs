//! Process file descriptors: a hold on a process that can't slip to another one when its pid is used again
//! (man 2 pidfd_open, pidfd_getfd, pidfd_send_signal).
//!
//! Privilege: opening, none; [`getfd`], PTRACE_MODE_ATTACH_REALCREDS; [`send_signal`], as kill(2). Kernel: 5.6 and later;
//! [`open_thread`] 6.9. Errors: ESRCH for a process that is gone, EPERM for a lack of privilege.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use syscalls::Sysno;

use crate::error::Result;
use crate::gate::syscall;
use crate::ptrace;
use crate::shelf::{CLONE_ARGS, CloneArgs};

/// PIDFD_THREAD of `<linux/pidfd.h>`: the pidfd is a thread's, not its process's.
const PIDFD_THREAD: usize = libc::O_EXCL as usize;

fn open_with(pid: i32, flags: usize, text: &str) -> Result<OwnedFd> {
    // SAFETY: the call takes no pointers, and the new descriptor is ours alone.
    unsafe {
        let fd = syscall(Sysno::pidfd_open, [pid as usize, flags, 0, 0, 0, 0])
            .map_err(|e| e.of(format!("pidfd_open({pid}{text})")))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// Takes hold of a process. Between learning a pid and this call it may have come to mean another process: compare the
/// start time (or the parent) afterwards. Close-on-exec.
///
/// # Errors
/// ESRCH: no such process; EINVAL: the pid of a thread that isn't a leader.
pub fn open(pid: i32) -> Result<OwnedFd> {
    open_with(pid, 0, "")
}

/// Takes hold of one thread (6.9 and later; EINVAL before).
pub fn open_thread(tid: i32) -> Result<OwnedFd> {
    open_with(tid, PIDFD_THREAD, ", PIDFD_THREAD")
}

/// Takes hold of a process that is gone: a child of ours that ended at once, and was waited for. Close-on-exec.
pub fn of_the_dead(thread: bool) -> Result<OwnedFd> {
    // No exit signal: nobody hears of its end but us, who wait for it.
    let clone = CloneArgs::default().to_bytes(0);
    // SAFETY: a plain fork. The child makes one system call on no memory, and ends.
    let pid = unsafe {
        let pid = syscall(Sysno::clone3, [clone.as_ptr() as usize, CLONE_ARGS, 0, 0, 0, 0])
            .map_err(|e| e.of("clone3(0)"))?;
        if pid == 0 {
            loop {
                libc::syscall(libc::SYS_exit_group, 0);
            }
        }
        pid as i32
    };
    let pidfd = if thread { open_thread(pid) } else { open(pid) };
    // It is ours alone, so a second try is as good as the first.
    ptrace::reap(pid, libc::__WALL).or_else(|_| ptrace::reap(pid, libc::__WALL))?;
    pidfd
}

/// Makes a descriptor of ours for an open file of the process. The two share the open file: offset and status flags are
/// one. Close-on-exec.
///
/// # Errors
/// EBADF: the process hasn't that descriptor; EPERM: we may not ptrace it; ESRCH: it is gone, zombies included.
pub fn getfd(pidfd: BorrowedFd<'_>, fd: i32) -> Result<OwnedFd> {
    // SAFETY: the call takes no pointers, and the new descriptor is ours alone.
    unsafe {
        let new = syscall(Sysno::pidfd_getfd, [pidfd.as_raw_fd() as usize, fd as usize, 0, 0, 0, 0])
            .map_err(|e| e.of(format!("pidfd_getfd(pidfd {}, {fd})", pidfd.as_raw_fd())))?;
        Ok(OwnedFd::from_raw_fd(new as RawFd))
    }
}

/// Sends a signal, as kill(2) would; 0 only asks whether the process is there (a zombie is) and may be signalled.
///
/// # Errors
/// ESRCH: it has been waited for; EPERM: it isn't ours to signal.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    // SAFETY: the siginfo is a null pointer, which the call allows; no memory of ours is touched.
    unsafe { syscall(Sysno::pidfd_send_signal, [pidfd.as_raw_fd() as usize, signal as usize, 0, 0, 0, 0]) }
        .map(|_| ())
        .map_err(|e| e.of(format!("pidfd_send_signal(pidfd {}, {signal})", pidfd.as_raw_fd())))
}

/// Waits until the process has ended, or the time is over: whether it has ended. A zombie has. For a negative time, waits
/// without end. EINTR is tried again, with the time anew.
pub fn wait_end(pidfd: BorrowedFd<'_>, timeout_ms: i32) -> Result<bool> {
    let timeout = libc::timespec {
        tv_sec: libc::time_t::from(timeout_ms / 1000),
        tv_nsec: libc::c_long::from(timeout_ms % 1000) * 1_000_000,
    };
    loop {
        let mut poll = libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // ppoll(2) writes what is left back into the time, so each round gets its own.
        let mut left = timeout;
        let left = if timeout_ms < 0 { 0 } else { &raw mut left as usize };
        // SAFETY: one pollfd and, unless null, one timespec, both ours and alive over the call; no signal mask.
        match unsafe { syscall(Sysno::ppoll, [&raw mut poll as usize, 1, left, 0, 0, 0]) } {
            Ok(ready) => return Ok(ready != 0),
            Err(e) if e.is(libc::EINTR) => {}
            Err(e) => return Err(e.of(format!("poll(pidfd {})", pidfd.as_raw_fd()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, SeekFrom, Write};
    use std::os::fd::AsFd;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_dead_are_gone() {
        let fd = of_the_dead(false).unwrap();
        assert!(wait_end(fd.as_fd(), 0).unwrap());
        assert!(send_signal(fd.as_fd(), 0).unwrap_err().is(libc::ESRCH));
        let info = crate::procfs::fdinfo::read(std::process::id() as i32, fd.as_raw_fd()).unwrap();
        assert_eq!(info.get("Pid"), Some("-1"));
    }

    #[test]
    fn a_file_taken_from_a_process_is_the_same_open_file() {
        let mut ours = std::fs::File::from(crate::mmap::memfd_create("taken", 1).unwrap());
        ours.write_all(b"0123456789").unwrap();
        let mut child =
            Command::new("sleep").arg("1000").stdin(Stdio::from(ours.try_clone().unwrap())).spawn().unwrap();
        let pidfd = open(child.id() as i32).unwrap();
        let mut taken = std::fs::File::from(getfd(pidfd.as_fd(), 0).unwrap());
        ours.seek(SeekFrom::Start(4)).unwrap();
        let mut rest = String::new();
        taken.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "456789", "the offset isn't shared");
        assert!(getfd(pidfd.as_fd(), 999).unwrap_err().is(libc::EBADF));

        send_signal(pidfd.as_fd(), 0).unwrap();
        assert!(!wait_end(pidfd.as_fd(), 0).unwrap());
        send_signal(pidfd.as_fd(), libc::SIGKILL).unwrap();
        assert!(wait_end(pidfd.as_fd(), -1).unwrap());
        child.wait().unwrap();
        assert!(send_signal(pidfd.as_fd(), 0).unwrap_err().is(libc::ESRCH));
        assert!(getfd(pidfd.as_fd(), 0).unwrap_err().is(libc::ESRCH));
    }

    #[test]
    fn a_failure_names_the_call() {
        // No pid_max reaches this far.
        let failed = open(i32::MAX).unwrap_err();
        assert_eq!(failed.to_string(), "pidfd_open(2147483647): ESRCH (No such process)");
    }
}
