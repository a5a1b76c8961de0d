//! Descriptors and open files: flags, numbers, signals, leases, seals, offset (man 2 fcntl, dup, close_range, lseek).
//!
//! The *descriptor* (a number in a table) has one flag, close-on-exec; the *open file*, which several descriptors may
//! share, has the status flags, the offset, and whom it signals.
//!
//! Privilege: none, but F_SETOWN_EX to another's process and F_SETLEASE. Kernel: any; close_range(2) 5.9, and its
//! CLOSE_RANGE_CLOEXEC 5.11.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use syscalls::Sysno;

use crate::error::{Errno, Failed, Result};
use crate::gate::syscall;

/// Commands that take a number or nothing.
fn fcntl(fd: BorrowedFd<'_>, command: i32, name: &str, argument: usize) -> Result<usize> {
    // SAFETY: none of the commands passed here takes a pointer.
    unsafe { syscall(Sysno::fcntl, [fd.as_raw_fd() as usize, command as usize, argument, 0, 0, 0]) }
        .map_err(|e| e.of(format!("fcntl(fd {}, {name}, {argument:#x})", fd.as_raw_fd())))
}

/// The status flags and access mode of an open file (F_GETFL).
pub fn status_flags(fd: BorrowedFd<'_>) -> Result<i32> {
    Ok(fcntl(fd, libc::F_GETFL, "F_GETFL", 0)? as i32)
}

/// Sets the status flags (F_SETFL): O_APPEND, O_ASYNC, O_DIRECT, O_NOATIME and O_NONBLOCK; others are ignored.
///
/// # Errors
/// EPERM: O_NOATIME on another's file, or O_APPEND taken from an append-only one; EINVAL: O_DIRECT where the file system
/// has no such thing.
pub fn set_status_flags(fd: BorrowedFd<'_>, flags: i32) -> Result<()> {
    fcntl(fd, libc::F_SETFL, "F_SETFL", flags as usize).map(drop)
}

/// Whether the descriptor is closed on exec (F_GETFD).
pub fn is_cloexec(fd: BorrowedFd<'_>) -> Result<bool> {
    Ok(fcntl(fd, libc::F_GETFD, "F_GETFD", 0)? as i32 & libc::FD_CLOEXEC != 0)
}

/// Sets whether the descriptor is closed on exec (F_SETFD).
pub fn set_cloexec(fd: BorrowedFd<'_>, on: bool) -> Result<()> {
    fcntl(fd, libc::F_SETFD, "F_SETFD", if on { libc::FD_CLOEXEC as usize } else { 0 }).map(drop)
}

/// A second descriptor of an open file, closed on exec, with the lowest free number from `min` on (F_DUPFD_CLOEXEC).
///
/// # Errors
/// EINVAL: `min` isn't below RLIMIT_NOFILE; EMFILE: no number is free.
pub fn duplicate(fd: BorrowedFd<'_>, min: i32) -> Result<OwnedFd> {
    let new = fcntl(fd, libc::F_DUPFD_CLOEXEC, "F_DUPFD_CLOEXEC", min as usize)?;
    // SAFETY: the descriptor is new and ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(new as RawFd) })
}

/// Makes one of our descriptors a second one of another's open file (dup3(2)); what it was is closed.
pub fn replace(onto: BorrowedFd<'_>, fd: BorrowedFd<'_>, cloexec: bool) -> Result<()> {
    dup3(fd, onto.as_raw_fd(), cloexec).map(drop)
}

fn dup3(fd: BorrowedFd<'_>, number: RawFd, cloexec: bool) -> Result<usize> {
    let flags = if cloexec { libc::O_CLOEXEC } else { 0 };
    // SAFETY: the call takes no pointers. Whoever holds `number` keeps holding a valid descriptor.
    unsafe { syscall(Sysno::dup3, [fd.as_raw_fd() as usize, number as usize, flags as usize, 0, 0, 0]) }
        .map_err(|e| e.of(format!("dup3(fd {}, {number})", fd.as_raw_fd())))
}

/// A second descriptor of an open file with this very number, which must be free.
///
/// Whether it is free is asked first: where several threads open files at once, another may take it in between, and lose
/// its file.
///
/// # Errors
/// EEXIST: the number is taken; EBADF: it isn't below RLIMIT_NOFILE.
pub fn duplicate_at(fd: BorrowedFd<'_>, number: i32, cloexec: bool) -> Result<OwnedFd> {
    // SAFETY: F_GETFD takes no pointer and changes nothing.
    let taken = unsafe { syscall(Sysno::fcntl, [number as usize, libc::F_GETFD as usize, 0, 0, 0, 0]) };
    match taken {
        Err(e) if e.is(libc::EBADF) => {}
        Err(e) => return Err(e.of(format!("fcntl(fd {number}, F_GETFD)"))),
        Ok(_) => {
            let call = format!("dup3(fd {}, {number}): the number is taken", fd.as_raw_fd());
            return Err(Failed { call, errno: Errno(libc::EEXIST) });
        }
    }
    let new = dup3(fd, number, cloexec)?;
    // SAFETY: the number was free, so nobody else owns the descriptor that it names now.
    Ok(unsafe { OwnedFd::from_raw_fd(new as RawFd) })
}

/// A table of descriptors that is the calling thread's alone: see [`in_own_table`].
#[derive(Debug)]
pub struct OwnTable {
    // It is of no use to any other thread.
    thread: std::marker::PhantomData<*const ()>,
}

impl OwnTable {
    /// Has a number lead to an open file, whatever it led to.
    pub fn put(&self, fd: BorrowedFd<'_>, number: RawFd) -> Result<()> {
        if fd.as_raw_fd() == number {
            return Ok(());
        }
        dup3(fd, number, true).map(drop)
    }
}

/// Does some work in a thread of ours that has a copy of our table, in which every number is free to be used: all other
/// threads keep theirs. What the work opens and doesn't give away is closed at its end.
///
/// The work must use by number only what it knows to lie where it put nothing.
///
/// # Errors
/// Those of the work; EAGAIN where no thread can be made.
pub fn in_own_table<T: Send>(work: impl FnOnce(&OwnTable) -> Result<T> + Send) -> Result<T> {
    let with_table = || {
        // SAFETY: the call takes no pointers; it gives this thread, which holds no descriptor yet, a table of its own.
        unsafe { syscall(Sysno::unshare, [libc::CLONE_FILES as usize, 0, 0, 0, 0, 0]) }
            .map_err(|e| e.of("unshare(CLONE_FILES)"))?;
        work(&OwnTable { thread: std::marker::PhantomData })
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, with_table).map_err(|e| {
            let errno = Errno(e.raw_os_error().unwrap_or(libc::EAGAIN));
            Failed { call: "making a thread".into(), errno }
        })?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Who gets the signals of an open file (struct f_owner_ex).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Nobody.
    None,
    /// A thread (F_OWNER_TID).
    Thread(i32),
    /// A process (F_OWNER_PID).
    Process(i32),
    /// A process group (F_OWNER_PGRP).
    Group(i32),
}

/// struct f_owner_ex of `<fcntl.h>`.
#[repr(C)]
struct OwnerEx {
    kind: libc::c_int,
    pid: libc::pid_t,
}

/// F_SETSIG of `<fcntl.h>`.
pub const F_SETSIG: i32 = 10;
const F_GETSIG: i32 = 11;
/// F_SETOWN_EX of `<fcntl.h>`.
pub const F_SETOWN_EX: i32 = 15;
const F_GETOWN_EX: i32 = 16;
const F_GETOWNER_UIDS: i32 = 17;

fn fcntl_owner(fd: BorrowedFd<'_>, command: i32, name: &str, owner: &mut OwnerEx) -> Result<()> {
    let args = [fd.as_raw_fd() as usize, command as usize, &raw mut *owner as usize, 0, 0, 0];
    // SAFETY: both commands take a struct f_owner_ex, of which every bit pattern is valid; it is borrowed for the call.
    unsafe { syscall(Sysno::fcntl, args) }
        .map(drop)
        .map_err(|e| e.of(format!("fcntl(fd {}, {name})", fd.as_raw_fd())))
}

/// Who gets the signals of an open file (F_GETOWN_EX), as our pid namespace counts; an owner outside it, or dead, reads
/// as nobody.
pub fn owner(fd: BorrowedFd<'_>) -> Result<Owner> {
    let mut owner = OwnerEx { kind: 0, pid: 0 };
    fcntl_owner(fd, F_GETOWN_EX, "F_GETOWN_EX", &mut owner)?;
    match owner {
        OwnerEx { pid: 0, .. } => Ok(Owner::None),
        OwnerEx { kind: 0, pid } => Ok(Owner::Thread(pid)),
        OwnerEx { kind: 1, pid } => Ok(Owner::Process(pid)),
        OwnerEx { kind: 2, pid } => Ok(Owner::Group(pid)),
        OwnerEx { kind, pid } => Err(Failed::unexpected(format!("F_GETOWN_EX: type {kind}, pid {pid}"))),
    }
}

/// Sets who gets the signals of an open file (F_SETOWN_EX). The kernel remembers our user ids with it, and checks them
/// when it signals.
///
/// # Errors
/// ESRCH: no such process.
pub fn set_owner(fd: BorrowedFd<'_>, owner: Owner) -> Result<()> {
    let (kind, pid) = number(owner);
    fcntl_owner(fd, F_SETOWN_EX, "F_SETOWN_EX", &mut OwnerEx { kind, pid })
}

fn number(owner: Owner) -> (i32, i32) {
    match owner {
        Owner::None => (1, 0),
        Owner::Thread(pid) => (0, pid),
        Owner::Process(pid) => (1, pid),
        Owner::Group(pid) => (2, pid),
    }
}

/// `struct f_owner_ex`, for F_SETOWN_EX in a target.
pub fn owner_bytes(owner: Owner) -> [u8; 8] {
    let (kind, pid) = number(owner);
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&kind.to_ne_bytes());
    bytes[4..].copy_from_slice(&pid.to_ne_bytes());
    bytes
}

/// The real and effective user ids with which the owner was set (F_GETOWNER_UIDS).
///
/// # Errors
/// EINVAL: a kernel without CONFIG_CHECKPOINT_RESTORE.
pub fn owner_uids(fd: BorrowedFd<'_>) -> Result<(u32, u32)> {
    let mut uids = [0u32; 2];
    let args = [fd.as_raw_fd() as usize, F_GETOWNER_UIDS as usize, &raw mut uids as usize, 0, 0, 0];
    // SAFETY: the command writes two uid_t, which are ours.
    unsafe { syscall(Sysno::fcntl, args) }
        .map_err(|e| e.of(format!("fcntl(fd {}, F_GETOWNER_UIDS)", fd.as_raw_fd())))?;
    Ok((uids[0], uids[1]))
}

/// Which signal an open file sends (F_GETSIG); 0 is SIGIO without a siginfo.
pub fn signal(fd: BorrowedFd<'_>) -> Result<i32> {
    Ok(fcntl(fd, F_GETSIG, "F_GETSIG", 0)? as i32)
}

/// Sets which signal an open file sends (F_SETSIG).
pub fn set_signal(fd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    fcntl(fd, F_SETSIG, "F_SETSIG", signal as usize).map(drop)
}

/// The lease on an open file (F_GETLEASE): F_RDLCK, F_WRLCK, or F_UNLCK for none.
pub fn lease(fd: BorrowedFd<'_>) -> Result<i32> {
    Ok(fcntl(fd, libc::F_GETLEASE, "F_GETLEASE", 0)? as i32)
}

/// Takes or gives up a lease on an open file (F_SETLEASE).
///
/// # Errors
/// EAGAIN: others have it open; EACCES: it isn't ours, and no CAP_LEASE.
pub fn set_lease(fd: BorrowedFd<'_>, lease: i32) -> Result<()> {
    fcntl(fd, libc::F_SETLEASE, "F_SETLEASE", lease as usize).map(drop)
}

/// `struct flock` of `<fcntl.h>`, for F_SETLK and its like in a target: a lock from `start`, of `len` bytes or (0) to the end.
pub fn lock_bytes(write: bool, start: u64, len: u64) -> [u8; 32] {
    let kind = if write { libc::F_WRLCK } else { libc::F_RDLCK } as i16;
    let mut bytes = [0; 32];
    // l_type, l_whence (SEEK_SET), l_start, l_len, l_pid.
    bytes[0..2].copy_from_slice(&kind.to_ne_bytes());
    bytes[2..4].copy_from_slice(&(libc::SEEK_SET as i16).to_ne_bytes());
    bytes[8..16].copy_from_slice(&start.to_ne_bytes());
    bytes[16..24].copy_from_slice(&len.to_ne_bytes());
    bytes
}

const _: () = assert!(size_of::<libc::flock>() == 32 && std::mem::offset_of!(libc::flock, l_start) == 8);

/// The seals of a memfd (F_GET_SEALS): F_SEAL_….
///
/// # Errors
/// EINVAL: a file that can't have seals.
pub fn seals(fd: BorrowedFd<'_>) -> Result<i32> {
    Ok(fcntl(fd, libc::F_GET_SEALS, "F_GET_SEALS", 0)? as i32)
}

/// Adds seals to a memfd (F_ADD_SEALS); they stay.
///
/// # Errors
/// EPERM: it has F_SEAL_SEAL; EBUSY: F_SEAL_WRITE while it is mapped shared and writable.
pub fn add_seals(fd: BorrowedFd<'_>, seals: i32) -> Result<()> {
    fcntl(fd, libc::F_ADD_SEALS, "F_ADD_SEALS", seals as usize).map(drop)
}

/// Marks all descriptors of ours from `first` to `last` close-on-exec (close_range(2) with CLOSE_RANGE_CLOEXEC).
pub fn set_cloexec_range(first: u32, last: u32) -> Result<()> {
    const CLOSE_RANGE_CLOEXEC: usize = 4;
    // SAFETY: the call takes no pointers and closes nothing here.
    unsafe { syscall(Sysno::close_range, [first as usize, last as usize, CLOSE_RANGE_CLOEXEC, 0, 0, 0]) }
        .map(drop)
        .map_err(|e| e.of(format!("close_range({first}, {last}, CLOSE_RANGE_CLOEXEC)")))
}

/// Closes all descriptors of ours from `first` to `last`, open or not (close_range(2)).
///
/// # Safety
/// Nothing in this process may own or use a descriptor of the range afterwards. In a child made by clone(2), with a table
/// of its own, that holds if it goes on to use none of them.
pub unsafe fn close_range(first: u32, last: u32) -> Result<()> {
    // SAFETY: the caller's contract.
    unsafe { syscall(Sysno::close_range, [first as usize, last as usize, 0, 0, 0, 0]) }
        .map(drop)
        .map_err(|e| e.of(format!("close_range({first}, {last})")))
}

/// Where lseek(2) starts to count, or what it looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whence {
    /// SEEK_SET.
    Start,
    /// SEEK_CUR.
    Current,
    /// SEEK_END.
    End,
    /// SEEK_DATA: the next content.
    Data,
    /// SEEK_HOLE: the next hole, the end at the latest.
    Hole,
}

/// Moves an open file's offset (lseek(2)): where it is now.
///
/// # Errors
/// ESPIPE: pipes, sockets and terminals have none; ENXIO: no data after there.
pub fn seek(fd: BorrowedFd<'_>, offset: i64, whence: Whence) -> Result<u64> {
    let number = match whence {
        Whence::Start => libc::SEEK_SET,
        Whence::Current => libc::SEEK_CUR,
        Whence::End => libc::SEEK_END,
        Whence::Data => libc::SEEK_DATA,
        Whence::Hole => libc::SEEK_HOLE,
    };
    // SAFETY: the call takes no pointers.
    unsafe { syscall(Sysno::lseek, [fd.as_raw_fd() as usize, offset as usize, number as usize, 0, 0, 0]) }
        .map(|at| at as u64)
        .map_err(|e| e.of(format!("lseek(fd {}, {offset}, {whence:?})", fd.as_raw_fd())))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::fs;
    use crate::mmap::{memfd_create, truncate};

    fn file() -> OwnedFd {
        memfd_create("file", 1 | 2).unwrap()
    }

    #[test]
    fn status_flags_belong_to_the_open_file_and_cloexec_to_the_descriptor() {
        let (read, _write) = {
            let pipe = crate::pipe::make(0).unwrap();
            (pipe.read, pipe.write)
        };
        let second = duplicate(read.as_fd(), 100).unwrap();
        assert!(second.as_raw_fd() >= 100);
        set_status_flags(second.as_fd(), libc::O_NONBLOCK).unwrap();
        assert_eq!(status_flags(read.as_fd()).unwrap() & libc::O_NONBLOCK, libc::O_NONBLOCK);
        set_cloexec(second.as_fd(), false).unwrap();
        assert!(is_cloexec(read.as_fd()).unwrap() && !is_cloexec(second.as_fd()).unwrap());
    }

    #[test]
    fn a_number_can_be_chosen_if_it_is_free() {
        let file = file();
        let at = duplicate_at(file.as_fd(), 777, false).unwrap();
        assert_eq!(at.as_raw_fd(), 777);
        assert!(!is_cloexec(at.as_fd()).unwrap());
        let failed = duplicate_at(file.as_fd(), 777, false).unwrap_err();
        assert!(failed.is(libc::EEXIST), "{failed}");
        assert!(duplicate_at(file.as_fd(), i32::MAX, false).unwrap_err().is(libc::EBADF));

        let other = memfd_create("other", 1).unwrap();
        replace(at.as_fd(), other.as_fd(), true).unwrap();
        assert_eq!(fs::fstat(at.as_fd()).unwrap().ino, fs::fstat(other.as_fd()).unwrap().ino);
    }

    #[test]
    fn a_table_of_its_own_leaves_ours_alone() {
        let (one, other) = (file(), memfd_create("other", 1).unwrap());
        let ino = |fd: BorrowedFd<'_>| fs::fstat(fd).unwrap().ino;
        let (before, number) = (ino(one.as_fd()), one.as_raw_fd());
        let (now, theirs) = (one.as_fd(), other.as_fd());
        in_own_table(|table| {
            table.put(theirs, number)?;
            assert_eq!(ino(now), ino(theirs));
            Ok(())
        })
        .unwrap();
        assert_eq!(ino(one.as_fd()), before);
    }

    #[test]
    fn owner_and_signal_come_back() {
        let pipe = crate::pipe::make(0).unwrap();
        let fd = pipe.read.as_fd();
        let me = std::process::id() as i32;
        assert_eq!((owner(fd).unwrap(), signal(fd).unwrap()), (Owner::None, 0));
        for whom in [Owner::Thread(crate::mmap::gettid().unwrap() as i32), Owner::Process(me), Owner::None] {
            set_owner(fd, whom).unwrap();
            assert_eq!(owner(fd).unwrap(), whom);
        }
        set_signal(fd, libc::SIGUSR1).unwrap();
        assert_eq!(signal(fd).unwrap(), libc::SIGUSR1);
    }

    #[test]
    fn a_lease_is_seen() {
        let path = std::env::temp_dir().join(format!("lease-{}", std::process::id()));
        std::fs::write(&path, b"x").unwrap();
        let fd = fs::open_read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(lease(fd.as_fd()).unwrap(), libc::F_UNLCK);
        set_lease(fd.as_fd(), libc::F_RDLCK).unwrap();
        assert_eq!(lease(fd.as_fd()).unwrap(), libc::F_RDLCK);
    }

    #[test]
    fn seals_hold() {
        let file = file();
        truncate(file.as_fd(), 10).unwrap();
        add_seals(file.as_fd(), libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL).unwrap();
        assert_eq!(seals(file.as_fd()).unwrap(), libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL);
        assert!(truncate(file.as_fd(), 1).unwrap_err().is(libc::EPERM));
        assert!(add_seals(file.as_fd(), libc::F_SEAL_GROW).unwrap_err().is(libc::EPERM));
    }

    #[test]
    fn data_and_holes_are_found() {
        let file = file();
        truncate(file.as_fd(), 1 << 20).unwrap();
        fs::pwrite(file.as_fd(), b"x", 512 << 10).unwrap();
        assert_eq!(seek(file.as_fd(), 0, Whence::Data).unwrap(), 512 << 10);
        assert_eq!(seek(file.as_fd(), 512 << 10, Whence::Hole).unwrap(), (512 << 10) + 4096);
        assert!(seek(file.as_fd(), 600 << 10, Whence::Data).unwrap_err().is(libc::ENXIO));
        assert_eq!(seek(file.as_fd(), -1, Whence::End).unwrap(), (1 << 20) - 1);
        assert_eq!(seek(file.as_fd(), 0, Whence::Current).unwrap(), (1 << 20) - 1);
        assert_eq!(seek(file.as_fd(), 5, Whence::Start).unwrap(), 5);
    }

    #[test]
    fn a_range_is_marked() {
        let file = file();
        let low = duplicate_at(file.as_fd(), 800, false).unwrap();
        let high = duplicate_at(file.as_fd(), 801, false).unwrap();
        set_cloexec_range(801, 802).unwrap();
        assert!(!is_cloexec(low.as_fd()).unwrap() && is_cloexec(high.as_fd()).unwrap());
    }
}
