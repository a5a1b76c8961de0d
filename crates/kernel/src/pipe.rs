//! Pipes: made, measured, and copied without being emptied (man 7 pipe; man 2 pipe, tee, splice; F_GETPIPE_SZ of fcntl).
//!
//! tee(2) duplicates what is in a pipe into another without taking it out, which is how the content of a target's pipe
//! can be read with nothing in it changed.
//!
//! Privilege: none; growing a pipe beyond `/proc/sys/fs/pipe-max-size` needs CAP_SYS_RESOURCE. Kernel: any.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use syscalls::Sysno;

use crate::error::{Failed, Result};
use crate::gate::syscall;

/// A pipe's two ends.
#[derive(Debug)]
pub struct Pipe {
    /// Where it is read.
    pub read: OwnedFd,
    /// Where it is written.
    pub write: OwnedFd,
}

/// Makes a pipe (pipe2(2)). Flags: O_NONBLOCK, O_DIRECT; O_CLOEXEC is added.
pub fn make(flags: i32) -> Result<Pipe> {
    let mut fds: [RawFd; 2] = [-1; 2];
    let args = [fds.as_mut_ptr() as usize, (flags | libc::O_CLOEXEC) as usize, 0, 0, 0, 0];
    // SAFETY: the array has room for the two numbers and lives over the call; both descriptors are new and ours.
    unsafe {
        syscall(Sysno::pipe2, args).map_err(|e| e.of(format!("pipe2({flags:#o})")))?;
        let [read, write] = fds;
        Ok(Pipe { read: OwnedFd::from_raw_fd(read), write: OwnedFd::from_raw_fd(write) })
    }
}

/// Copies up to `len` bytes from one pipe to another and leaves them where they are (tee(2)): how many. Flags:
/// SPLICE_F_NONBLOCK.
///
/// It begins at the first byte each time: a pipe with more than the other has room for can't be copied whole.
///
/// # Errors
/// EAGAIN: nothing there, or no room, and SPLICE_F_NONBLOCK; EINVAL: not two different pipes.
pub fn tee(from: BorrowedFd<'_>, to: BorrowedFd<'_>, len: usize, flags: u32) -> Result<usize> {
    let args = [from.as_raw_fd() as usize, to.as_raw_fd() as usize, len, flags as usize, 0, 0];
    // SAFETY: the call takes no pointers.
    unsafe { syscall(Sysno::tee, args) }
        .map_err(|e| e.of(format!("tee(fd {}, fd {}, {len})", from.as_raw_fd(), to.as_raw_fd())))
}

/// Moves up to `len` bytes between two files, one of which is a pipe (splice(2)): how many, 0 at the end. An offset
/// belongs to a file that isn't a pipe; it is moved on, and the file's own offset isn't touched.
pub fn splice(
    from: BorrowedFd<'_>,
    from_offset: Option<&mut i64>,
    to: BorrowedFd<'_>,
    to_offset: Option<&mut i64>,
    len: usize,
    flags: u32,
) -> Result<usize> {
    let pointer = |offset: Option<&mut i64>| offset.map_or(0, |offset| &raw mut *offset as usize);
    let args = [
        from.as_raw_fd() as usize,
        pointer(from_offset),
        to.as_raw_fd() as usize,
        pointer(to_offset),
        len,
        flags as usize,
    ];
    // SAFETY: each offset is null or a mutable borrow that lives over the call.
    unsafe { syscall(Sysno::splice, args) }
        .map_err(|e| e.of(format!("splice(fd {}, fd {}, {len})", from.as_raw_fd(), to.as_raw_fd())))
}

fn fcntl(pipe: BorrowedFd<'_>, command: i32, name: &str, argument: usize) -> Result<usize> {
    // SAFETY: the commands of this module take a number or nothing.
    unsafe { syscall(Sysno::fcntl, [pipe.as_raw_fd() as usize, command as usize, argument, 0, 0, 0]) }
        .map_err(|e| e.of(format!("fcntl(fd {}, {name}, {argument})", pipe.as_raw_fd())))
}

/// How many bytes a pipe holds at most (F_GETPIPE_SZ).
///
/// # Errors
/// EBADF: it isn't a pipe.
pub fn capacity(pipe: BorrowedFd<'_>) -> Result<usize> {
    fcntl(pipe, libc::F_GETPIPE_SZ, "F_GETPIPE_SZ", 0)
}

/// Sets how many bytes a pipe holds at most (F_SETPIPE_SZ): what it holds then, at least that.
///
/// # Errors
/// EPERM: above the limit; EBUSY: less than what is in it.
pub fn set_capacity(pipe: BorrowedFd<'_>, bytes: usize) -> Result<usize> {
    fcntl(pipe, libc::F_SETPIPE_SZ, "F_SETPIPE_SZ", bytes)
}

/// How many bytes can be read at once (FIONREAD): of a pipe, a socket or a terminal.
pub fn readable(fd: BorrowedFd<'_>) -> Result<usize> {
    let mut count: libc::c_int = 0;
    let call = || format!("ioctl(fd {}, FIONREAD)", fd.as_raw_fd());
    let args = [fd.as_raw_fd() as usize, libc::FIONREAD as usize, &raw mut count as usize, 0, 0, 0];
    // SAFETY: FIONREAD writes one int, which is ours and lives over the call.
    unsafe { syscall(Sysno::ioctl, args) }.map_err(|e| e.of(call()))?;
    usize::try_from(count).map_err(|_| Failed::unexpected(format!("{}: {count}", call())))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::fs;

    #[test]
    fn tee_copies_and_takes_nothing() {
        let (from, to) = (make(0).unwrap(), make(libc::O_NONBLOCK).unwrap());
        fs::write(from.write.as_fd(), b"content").unwrap();
        assert_eq!(tee(from.read.as_fd(), to.write.as_fd(), 100, 0).unwrap(), 7);
        assert_eq!(readable(from.read.as_fd()).unwrap(), 7);
        let mut out = [0; 16];
        assert_eq!(fs::read(to.read.as_fd(), &mut out).unwrap(), 7);
        assert_eq!(&out[..7], b"content");
        assert!(fs::read(to.read.as_fd(), &mut out).unwrap_err().is(libc::EAGAIN));
        assert_eq!(fs::read(from.read.as_fd(), &mut out).unwrap(), 7);
        assert!(
            tee(from.read.as_fd(), to.write.as_fd(), 1, libc::SPLICE_F_NONBLOCK)
                .unwrap_err()
                .is(libc::EAGAIN)
        );
    }

    #[test]
    fn capacity_is_set_in_pages() {
        let pipe = make(0).unwrap();
        assert_eq!(set_capacity(pipe.write.as_fd(), 5000).unwrap(), 8192);
        assert_eq!(capacity(pipe.read.as_fd()).unwrap(), 8192);
        fs::write(pipe.write.as_fd(), &[0; 8192]).unwrap();
        assert!(set_capacity(pipe.write.as_fd(), 4096).unwrap_err().is(libc::EBUSY));
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(capacity(file.as_fd()).unwrap_err().is(libc::EBADF));
    }

    #[test]
    fn splice_moves_between_a_file_and_a_pipe() {
        let pipe = make(0).unwrap();
        let file = crate::mmap::memfd_create("splice", 1).unwrap();
        fs::pwrite(file.as_fd(), b"0123456789", 0).unwrap();
        let mut offset = 4;
        let n = splice(file.as_fd(), Some(&mut offset), pipe.write.as_fd(), None, 3, 0).unwrap();
        assert_eq!((n, offset, readable(pipe.read.as_fd()).unwrap()), (3, 7, 3));
        let mut offset = 20;
        assert_eq!(splice(pipe.read.as_fd(), None, file.as_fd(), Some(&mut offset), 100, 0).unwrap(), 3);
        let mut out = [0; 3];
        fs::pread(file.as_fd(), &mut out, 20).unwrap();
        assert_eq!(&out, b"456");
    }
}
