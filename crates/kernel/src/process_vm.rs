//! Another process's memory, read and written without stopping it: process_vm_readv(2), process_vm_writev(2), and the
//! file `/proc/PID/mem`.
//!
//! The first two are the faster and respect the target's page protections: EFAULT at a page that it couldn't read (or
//! write) itself. The file ignores them, so it reads PROT_NONE areas and writes read-only ones, private pages being
//! copied first. Neither reaches memfd_secret(2) memory or device memory. `FOLL_FORCE` through the file is off on
//! kernels set so (`proc_mem.force_override=`, 6.12 and later): then it is EIO.
//!
//! Privilege: PTRACE_MODE_ATTACH_REALCREDS at each call; for the file PTRACE_MODE_ATTACH_FSCREDS at open. Kernel:
//! CONFIG_CROSS_MEMORY_ATTACH. What is read while the target runs may be torn, and its addresses are its own to choose:
//! nothing here believes more than the count of bytes the kernel gives.

use std::os::fd::{BorrowedFd, OwnedFd};

use syscalls::Sysno;

use crate::error::{Failed, Result};
use crate::fs;
use crate::gate::syscall;

/// The most ranges of one call (IOV_MAX, UIO_MAXIOV in the kernel).
const RANGES_MAX: usize = 1024;

/// A range of a target's memory. An address of a target is a number here and never a pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Where it begins in the target.
    pub addr: u64,
    /// How many bytes.
    pub len: usize,
}

/// One batch of ranges, and of our bytes as many as they hold.
fn transfer(nr: Sysno, pid: i32, at: *mut u8, len: usize, remote: &[libc::iovec]) -> Result<usize> {
    let local = libc::iovec { iov_base: at.cast(), iov_len: len };
    let args = [pid as usize, &raw const local as usize, 1, remote.as_ptr() as usize, remote.len(), 0];
    // SAFETY: the iovecs live over the call. The local one is `len` bytes that the callers, the two functions below,
    // hold as a slice: borrowed mutably for the call that writes it, shared for the one that reads it. The remote ones
    // are addresses of another process; should it be our own, the kernel still checks them, and the caller has named
    // memory of ours on purpose to be overwritten, which only `writev` does.
    let n = unsafe { syscall(nr, args) }.map_err(|e| {
        let first = remote.first().map_or(0, |r| r.iov_base as usize);
        e.of(format!("{}({pid}, {first:#x}, {len} bytes in {} ranges)", nr.name(), remote.len()))
    })?;
    if n > len {
        return Err(Failed::unexpected(format!("{}({pid}) = {n} of {len}", nr.name())));
    }
    Ok(n)
}

/// Goes through the ranges in batches, until all is done or the kernel stops short. A failure after some bytes is not
/// reported: the next call, at that place, will meet it first.
fn go(nr: Sysno, pid: i32, ranges: &[Range], at: *mut u8, room: usize) -> Result<usize> {
    let mut done = 0;
    for batch in ranges.chunks(RANGES_MAX) {
        let mut left = room - done;
        let mut remote = Vec::with_capacity(batch.len());
        for range in batch {
            let len = range.len.min(left);
            left -= len;
            remote.push(libc::iovec { iov_base: range.addr as *mut libc::c_void, iov_len: len });
        }
        let len = room - done - left;
        // `wrapping_add`: `done` is at most `room`, so it stays in the slice or one past its end.
        match transfer(nr, pid, at.wrapping_add(done), len, &remote) {
            Ok(n) => {
                done += n;
                if n < len {
                    break;
                }
            }
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// Reads ranges of a process, one after the other, into a buffer: how many bytes. Fewer than asked where the buffer is
/// full, or at a page that can't be read.
///
/// # Errors
/// EFAULT: not even the first byte can be read; ESRCH; EPERM.
pub fn readv(pid: i32, ranges: &[Range], buffer: &mut [u8]) -> Result<usize> {
    go(Sysno::process_vm_readv, pid, ranges, buffer.as_mut_ptr(), buffer.len())
}

/// Writes bytes into ranges of a process, one after the other: how many. Fewer than given where the ranges are full, or
/// at a page that can't be written.
///
/// # Errors
/// As [`readv`].
pub fn writev(pid: i32, ranges: &[Range], bytes: &[u8]) -> Result<usize> {
    // The kernel only reads from the local side of process_vm_writev(2).
    go(Sysno::process_vm_writev, pid, ranges, bytes.as_ptr().cast_mut(), bytes.len())
}

/// Reads one range whole.
///
/// # Errors
/// EFAULT too where only a part of it can be read.
pub fn read_exact(pid: i32, addr: u64, buffer: &mut [u8]) -> Result<()> {
    let len = buffer.len();
    let n = readv(pid, &[Range { addr, len }], buffer)?;
    if n == len {
        return Ok(());
    }
    Err(Failed {
        call: format!("process_vm_readv({pid}, {addr:#x}, {len}) = {n}"),
        errno: crate::Errno(libc::EFAULT),
    })
}

/// Opens `/proc/PID/mem`, to write too if so asked. The descriptor stays with this address space: once the process execs
/// another program or ends, reads and writes return 0.
pub fn open_mem(pid: i32, write: bool) -> Result<OwnedFd> {
    let mode = if write { libc::O_RDWR } else { libc::O_RDONLY };
    fs::open(&crate::procfs::path(pid, "mem"), mode, 0)
}

/// Reads from a `mem` file at an address: how many bytes, fewer at a hole. 0 means that the address space is gone.
///
/// # Errors
/// EIO: nothing is mapped at the first byte.
pub fn read_mem(mem: BorrowedFd<'_>, addr: u64, buffer: &mut [u8]) -> Result<usize> {
    fs::pread(mem, buffer, addr)
}

/// Writes to a `mem` file at an address: as [`read_mem`].
pub fn write_mem(mem: BorrowedFd<'_>, addr: u64, bytes: &[u8]) -> Result<usize> {
    fs::pwrite(mem, bytes, addr)
}

/// Reads from a `mem` file until the buffer is full.
///
/// # Errors
/// As [`read_mem`]; ESRCH where the address space is gone.
pub fn read_mem_exact(mem: BorrowedFd<'_>, addr: u64, buffer: &mut [u8]) -> Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        match read_mem(mem, addr + done as u64, &mut buffer[done..])? {
            0 => return Err(gone(format!("pread(mem, {addr:#x}) = 0"))),
            n => done += n,
        }
    }
    Ok(())
}

/// Writes all bytes to a `mem` file.
///
/// # Errors
/// As [`read_mem_exact`].
pub fn write_mem_exact(mem: BorrowedFd<'_>, addr: u64, bytes: &[u8]) -> Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match write_mem(mem, addr + done as u64, &bytes[done..])? {
            0 => return Err(gone(format!("pwrite(mem, {addr:#x}) = 0"))),
            n => done += n,
        }
    }
    Ok(())
}

fn gone(call: String) -> Failed {
    Failed { call, errno: crate::Errno(libc::ESRCH) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::procfs::tests::Child;
    use crate::procfs::{auxv, maps};

    fn start() -> Child {
        Child::start_with(|command| {
            command.env("MARK", "a mark to be found");
        })
    }

    fn stack(child: &Child) -> maps::Area {
        let areas = maps::read(child.pid()).unwrap();
        areas.into_iter().find(|a| a.special == Some(maps::Special::Stack)).unwrap()
    }

    fn find(haystack: &[u8], needle: &[u8]) -> usize {
        haystack.windows(needle.len()).position(|w| w == needle).unwrap()
    }

    #[test]
    fn a_childs_environment_is_read_and_overwritten() {
        let child = start();
        let stack = stack(&child);
        let mut bytes = vec![0; stack.len() as usize];
        read_exact(child.pid(), stack.start, &mut bytes).unwrap();
        let at = stack.start + find(&bytes, b"MARK=a mark") as u64 + 5;

        let two = [Range { addr: at, len: 1 }, Range { addr: at + 2, len: 4 }];
        assert_eq!(writev(child.pid(), &two, b"A-xyz").unwrap(), 5);
        let mut out = [0; 12];
        // The buffer is shorter than the ranges.
        let ranges = [Range { addr: at, len: 10 }, Range { addr: at + 10, len: 100 }];
        assert_eq!(readv(child.pid(), &ranges, &mut out).unwrap(), 12);
        assert_eq!(&out, b"A -xyz to be");

        let mem = open_mem(child.pid(), true).unwrap();
        assert_eq!(write_mem(mem.as_fd(), at, b"B").unwrap(), 1);
        let mut one = [0; 3];
        assert_eq!(read_mem(mem.as_fd(), at, &mut one).unwrap(), 3);
        assert_eq!(&one, b"B -");
    }

    #[test]
    fn reading_stops_at_a_hole() {
        let child = start();
        let stack = stack(&child);
        // Nothing is ever mapped right above the stack but the vvar, which no such call can read.
        let mut bytes = vec![0; 2 * 4096];
        let ranges = [Range { addr: stack.end - 4096, len: bytes.len() }];
        assert_eq!(readv(child.pid(), &ranges, &mut bytes).unwrap(), 4096);
        assert!(read_exact(child.pid(), stack.end - 4096, &mut bytes).unwrap_err().is(libc::EFAULT));
        assert!(readv(child.pid(), &[Range { addr: 0, len: 1 }], &mut bytes).unwrap_err().is(libc::EFAULT));
        assert!(
            readv(child.pid(), &[Range { addr: u64::MAX, len: 8 }], &mut bytes).unwrap_err().is(libc::EFAULT)
        );
        let mem = open_mem(child.pid(), false).unwrap();
        assert!(read_mem(mem.as_fd(), 0, &mut bytes).unwrap_err().is(libc::EIO));
    }

    #[test]
    fn more_ranges_than_a_call_takes() {
        let child = start();
        let vdso = auxv::read(child.pid()).unwrap().get(libc::AT_SYSINFO_EHDR).unwrap();
        let ranges: Vec<Range> =
            (0..2 * RANGES_MAX as u64 + 7).map(|n| Range { addr: vdso + n, len: 1 }).collect();
        let (mut single, mut whole) = (vec![0; ranges.len()], vec![0; ranges.len()]);
        assert_eq!(readv(child.pid(), &ranges, &mut single).unwrap(), ranges.len());
        read_exact(child.pid(), vdso, &mut whole).unwrap();
        assert_eq!(single, whole);
        assert_eq!(&whole[..4], b"\x7fELF");
    }

    #[test]
    fn a_process_that_is_gone_says_so() {
        let mut child = start();
        let pid = child.pid();
        let mem = open_mem(pid, false).unwrap();
        let stack = stack(&child);
        child.0.kill().unwrap();
        child.0.wait().unwrap();
        let mut byte = [0];
        assert!(readv(pid, &[Range { addr: stack.start, len: 1 }], &mut byte).unwrap_err().is(libc::ESRCH));
        assert_eq!(read_mem(mem.as_fd(), stack.end - 8, &mut byte).unwrap(), 0);
    }
}
