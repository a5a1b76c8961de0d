//! Asking whether a descriptor could be read or written, without waiting (man 2 poll).
//!
//! For a pipe the answer tells what no other interface does: whether anybody is left at its other end, in any process.
//!
//! Privilege: none. Kernel: any.

use std::os::fd::{AsRawFd, BorrowedFd};

use syscalls::Sysno;

use crate::error::Result;
use crate::gate::syscall;

/// The events that hold right now, of those asked for; POLLERR, POLLHUP and POLLNVAL are always told. EINTR is tried
/// again.
pub fn now(fd: BorrowedFd<'_>, events: i16) -> Result<i16> {
    loop {
        let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
        let mut none = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: one pollfd and one timespec, both ours and alive over the call; no signal mask.
        match unsafe { syscall(Sysno::ppoll, [&raw mut poll as usize, 1, &raw mut none as usize, 0, 0, 0]) } {
            Ok(_) => return Ok(poll.revents),
            Err(e) if e.is(libc::EINTR) => {}
            Err(e) => return Err(e.of(format!("poll(fd {}, {events:#x})", fd.as_raw_fd()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::{fs, pipe};

    #[test]
    fn a_pipe_tells_whether_its_other_end_is_open() {
        let ends = pipe::make(0).unwrap();
        assert_eq!(now(ends.read.as_fd(), libc::POLLIN).unwrap(), 0);
        fs::write(ends.write.as_fd(), b"x").unwrap();
        assert_eq!(now(ends.read.as_fd(), libc::POLLIN).unwrap(), libc::POLLIN);
        drop(ends.write);
        assert_eq!(now(ends.read.as_fd(), libc::POLLIN).unwrap(), libc::POLLIN | libc::POLLHUP);
        let ends = pipe::make(0).unwrap();
        drop(ends.read);
        assert_eq!(now(ends.write.as_fd(), 0).unwrap(), libc::POLLERR);
    }
}
