//! Terminals: telling them from other character devices, and making new ones (man 2 ioctl_tty, man 7 pty, man 3 isatty).
//!
//! Privilege: none. Kernel: any; TIOCGPTPEER 4.13.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use syscalls::Sysno;

use crate::error::Result;
use crate::fs;
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

/// A pseudo terminal: what a terminal emulator holds, and what programs hold.
#[derive(Debug)]
pub struct Pair {
    /// Where what is typed goes in, and what is shown comes out.
    pub master: OwnedFd,
    /// The terminal.
    pub terminal: OwnedFd,
}

/// Makes a pseudo terminal. It becomes nobody's controlling terminal; both are close-on-exec.
pub fn make() -> Result<Pair> {
    let master = fs::open("/dev/ptmx".as_ref(), libc::O_RDWR | libc::O_NOCTTY, 0)?;
    let unlocked: libc::c_int = 0;
    let number = master.as_fd().as_raw_fd() as usize;
    let flags = (libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC) as usize;
    // SAFETY: TIOCSPTLCK reads one int, which lives over the call; TIOCGPTPEER takes flags, and the new descriptor is ours
    // alone.
    unsafe {
        let at = &raw const unlocked as usize;
        syscall(Sysno::ioctl, [number, libc::TIOCSPTLCK as usize, at, 0, 0, 0])
            .map_err(|e| e.of(format!("ioctl(fd {number}, TIOCSPTLCK)")))?;
        let fd = syscall(Sysno::ioctl, [number, libc::TIOCGPTPEER as usize, flags, 0, 0, 0])
            .map_err(|e| e.of(format!("ioctl(fd {number}, TIOCGPTPEER)")))?;
        Ok(Pair { master, terminal: OwnedFd::from_raw_fd(fd as RawFd) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_one_and_null_is_not() {
        let pair = make().unwrap();
        assert!(is_terminal(pair.master.as_fd()).unwrap());
        assert!(is_terminal(pair.terminal.as_fd()).unwrap());
        fs::write(pair.master.as_fd(), b"typed\n").unwrap();
        let mut line = [0; 16];
        assert_eq!(fs::read(pair.terminal.as_fd(), &mut line).unwrap(), 6);
        assert_eq!(&line[..6], b"typed\n");
        assert!(!is_terminal(fs::open_read("/dev/null").unwrap().as_fd()).unwrap());
        assert!(!is_terminal(fs::open_read("/proc/self/stat").unwrap().as_fd()).unwrap());
        assert!(!is_terminal(crate::pipe::make(0).unwrap().read.as_fd()).unwrap());
    }
}
