//! Terminals: telling them from other character devices (man 2 ioctl_tty, man 3 isatty).
//!
//! Privilege: none. Kernel: any.

use std::os::fd::{AsRawFd, BorrowedFd};

use syscalls::Sysno;

use crate::error::Result;
use crate::gate::syscall;

/// The size of the kernel's struct termios, on every architecture at most this.
const TERMIOS_BYTES_MAX: usize = 64;

/// Whether a descriptor is a terminal: TCGETS, which only looks and stops nobody, works on it. The master side of a
/// pseudo terminal counts as one.
pub fn is_terminal(fd: BorrowedFd<'_>) -> Result<bool> {
    let mut termios = [0u8; TERMIOS_BYTES_MAX];
    let args = [fd.as_raw_fd() as usize, libc::TCGETS as usize, termios.as_mut_ptr() as usize, 0, 0, 0];
    // SAFETY: TCGETS writes one struct termios of the kernel's, which the buffer has room for.
    match unsafe { syscall(Sysno::ioctl, args) } {
        Ok(_) => Ok(true),
        // EIO: a terminal that was hung up.
        Err(e) if e.is(libc::EIO) => Ok(true),
        Err(e) if e.is(libc::ENOTTY) || e.is(libc::EINVAL) => Ok(false),
        Err(e) => Err(e.of(format!("ioctl(fd {}, TCGETS)", fd.as_raw_fd()))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::fs;

    #[test]
    fn a_terminal_is_one_and_null_is_not() {
        let master = fs::open("/dev/ptmx".as_ref(), libc::O_RDWR | libc::O_NOCTTY, 0).unwrap();
        assert!(is_terminal(master.as_fd()).unwrap());
        assert!(!is_terminal(fs::open_read("/dev/null").unwrap().as_fd()).unwrap());
        assert!(!is_terminal(fs::open_read("/proc/self/stat").unwrap().as_fd()).unwrap());
        assert!(!is_terminal(crate::pipe::make(0).unwrap().read.as_fd()).unwrap());
    }
}
