//! Files of our own, through the gate: open, read, write, stat, readlink, list a directory (man 2 of each name).
//!
//! Privilege: the file's permissions, nothing else.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use syscalls::Sysno;

use crate::error::{Errno, Failed, Result};
use crate::gate::syscall;

/// A path as the kernel wants it.
///
/// # Errors
/// EINVAL where the path holds a NUL byte.
pub fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Failed { call: format!("path {path:?}"), errno: Errno(libc::EINVAL) })
}

fn openat(dir: RawFd, path: &Path, flags: i32, mode: u32) -> Result<OwnedFd> {
    let c = c_path(path)?;
    let args = [dir as usize, c.as_ptr() as usize, (flags | libc::O_CLOEXEC) as usize, mode as usize, 0, 0];
    // SAFETY: the path lives over the call; the new descriptor is ours alone.
    unsafe {
        let fd = syscall(Sysno::openat, args).map_err(|e| e.of(format!("open({path:?}, {flags:#o})")))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// Opens a path (openat(2), with O_CLOEXEC added).
pub fn open(path: &Path, flags: i32, mode: u32) -> Result<OwnedFd> {
    openat(libc::AT_FDCWD, path, flags, mode)
}

/// Opens what has this name in a directory, O_CLOEXEC added.
pub fn open_at(dir: BorrowedFd<'_>, name: &str, flags: i32) -> Result<OwnedFd> {
    openat(dir.as_raw_fd(), Path::new(name), flags, 0)
}

/// Opens a path to read.
pub fn open_read(path: impl AsRef<Path>) -> Result<OwnedFd> {
    open(path.as_ref(), libc::O_RDONLY, 0)
}

/// Reads into a buffer (read(2)); EINTR is tried again.
pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize> {
    loop {
        let args = [fd.as_raw_fd() as usize, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0, 0];
        // SAFETY: the buffer is ours to write for its whole length.
        match unsafe { syscall(Sysno::read, args) } {
            Err(e) if e.is(libc::EINTR) => continue,
            other => {
                return other.map_err(|e| e.of(format!("read(fd {}, {})", fd.as_raw_fd(), buffer.len())));
            }
        }
    }
}

/// Writes a buffer (write(2)), perhaps not all of it; EINTR is tried again.
pub fn write(fd: BorrowedFd<'_>, buffer: &[u8]) -> Result<usize> {
    loop {
        let args = [fd.as_raw_fd() as usize, buffer.as_ptr() as usize, buffer.len(), 0, 0, 0];
        // SAFETY: the buffer is ours to read for its whole length.
        match unsafe { syscall(Sysno::write, args) } {
            Err(e) if e.is(libc::EINTR) => continue,
            other => {
                return other.map_err(|e| e.of(format!("write(fd {}, {})", fd.as_raw_fd(), buffer.len())));
            }
        }
    }
}

/// Reads at an offset (pread(2)).
pub fn pread(fd: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> Result<usize> {
    let args = [fd.as_raw_fd() as usize, buffer.as_mut_ptr() as usize, buffer.len(), offset as usize, 0, 0];
    // SAFETY: the buffer is ours to write for its whole length.
    unsafe { syscall(Sysno::pread64, args) }
        .map_err(|e| e.of(format!("pread(fd {}, {}, {offset:#x})", fd.as_raw_fd(), buffer.len())))
}

/// Writes at an offset (pwrite(2)).
pub fn pwrite(fd: BorrowedFd<'_>, buffer: &[u8], offset: u64) -> Result<usize> {
    let args = [fd.as_raw_fd() as usize, buffer.as_ptr() as usize, buffer.len(), offset as usize, 0, 0];
    // SAFETY: the buffer is ours to read for its whole length.
    unsafe { syscall(Sysno::pwrite64, args) }
        .map_err(|e| e.of(format!("pwrite(fd {}, {}, {offset:#x})", fd.as_raw_fd(), buffer.len())))
}

/// All that a file holds, read until its end: `/proc` files have no size to go by.
pub fn read_all(path: impl AsRef<Path>) -> Result<Vec<u8>> {
    read_by(path.as_ref(), 16 << 10, 1 << 20)
}

/// Like [`read_all`], but never more than `piece` bytes a call.
pub fn read_all_in_pieces(path: impl AsRef<Path>, piece: usize) -> Result<Vec<u8>> {
    read_by(path.as_ref(), piece, piece)
}

fn read_by(path: &Path, piece: usize, piece_max: usize) -> Result<Vec<u8>> {
    let fd = open_read(path)?;
    let mut all = Vec::new();
    let mut chunk = vec![0u8; piece];
    loop {
        let n = read(fd.as_fd(), &mut chunk).map_err(|e| e.of(format!("read({path:?})")))?;
        if n == 0 {
            return Ok(all);
        }
        all.extend_from_slice(&chunk[..n]);
        if n == chunk.len() && chunk.len() < piece_max {
            chunk.resize(chunk.len() * 4, 0);
        }
    }
}

/// Like [`read_all`], as text; bytes that aren't UTF-8 become U+FFFD.
pub fn read_text(path: impl AsRef<Path>) -> Result<String> {
    Ok(String::from_utf8_lossy(&read_all(path)?).into_owned())
}

/// Writes a text into a file that is there, at once: `/proc` and `/sys` take a value by one write.
pub fn write_text(path: impl AsRef<Path>, text: &str) -> Result<()> {
    let path = path.as_ref();
    let fd = open(path, libc::O_WRONLY, 0)?;
    write(fd.as_fd(), text.as_bytes()).map(drop).map_err(|e| e.of(format!("write({path:?}, {text:?})")))
}

/// Where a symbolic link points (readlinkat(2)).
pub fn read_link(path: impl AsRef<Path>) -> Result<PathBuf> {
    readlinkat(libc::AT_FDCWD, path.as_ref())
}

/// Where the symbolic link of this name in a directory points.
pub fn read_link_at(dir: BorrowedFd<'_>, name: &str) -> Result<PathBuf> {
    readlinkat(dir.as_raw_fd(), Path::new(name))
}

fn readlinkat(dir: RawFd, path: &Path) -> Result<PathBuf> {
    let c = c_path(path)?;
    let mut buffer = [0u8; libc::PATH_MAX as usize + 64];
    let args = [dir as usize, c.as_ptr() as usize, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0];
    // SAFETY: path and buffer live over the call.
    let n = unsafe { syscall(Sysno::readlinkat, args) }.map_err(|e| e.of(format!("readlink({path:?})")))?;
    Ok(PathBuf::from(OsString::from_vec(buffer[..n].to_vec())))
}

/// What stat(2) tells of a file, as far as bardo looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// The device the inode lives on.
    pub dev: u64,
    /// The inode's number.
    pub ino: u64,
    /// Type and permission bits.
    pub mode: u32,
    /// How many names it has.
    pub nlink: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The device it is, where it is a device.
    pub rdev: u64,
    /// Size in bytes.
    pub size: u64,
    /// Time of the last change of content, nanoseconds since the epoch.
    pub mtime_ns: i128,
    /// Time of the last change of the inode, nanoseconds since the epoch.
    pub ctime_ns: i128,
}

impl Stat {
    /// The file's type: one of `S_IFREG`, `S_IFDIR`, ….
    pub fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }
}

fn newfstatat(dir: RawFd, path: &Path, flags: i32) -> Result<Stat> {
    let c = c_path(path)?;
    let mut st = std::mem::MaybeUninit::<libc::stat>::zeroed();
    let args = [dir as usize, c.as_ptr() as usize, st.as_mut_ptr() as usize, flags as usize, 0, 0];
    // SAFETY: path and result live over the call; a zeroed stat is a valid stat.
    let st = unsafe {
        syscall(Sysno::newfstatat, args).map_err(|e| e.of(format!("stat({path:?}, fd {dir})")))?;
        st.assume_init()
    };
    Ok(Stat {
        dev: st.st_dev,
        ino: st.st_ino,
        mode: st.st_mode,
        nlink: st.st_nlink as u64,
        uid: st.st_uid,
        gid: st.st_gid,
        rdev: st.st_rdev,
        size: st.st_size as u64,
        mtime_ns: i128::from(st.st_mtime) * 1_000_000_000 + i128::from(st.st_mtime_nsec),
        ctime_ns: i128::from(st.st_ctime) * 1_000_000_000 + i128::from(st.st_ctime_nsec),
    })
}

/// stat(2): follows symbolic links.
pub fn stat(path: impl AsRef<Path>) -> Result<Stat> {
    newfstatat(libc::AT_FDCWD, path.as_ref(), 0)
}

/// lstat(2): doesn't follow a symbolic link.
pub fn lstat(path: impl AsRef<Path>) -> Result<Stat> {
    newfstatat(libc::AT_FDCWD, path.as_ref(), libc::AT_SYMLINK_NOFOLLOW)
}

/// fstat(2).
pub fn fstat(fd: BorrowedFd<'_>) -> Result<Stat> {
    newfstatat(fd.as_raw_fd(), Path::new(""), libc::AT_EMPTY_PATH)
}

/// The names in a directory, without `.` and `..`, in the kernel's order (getdents64(2)).
pub fn list(path: impl AsRef<Path>) -> Result<Vec<OsString>> {
    let mut names = Vec::new();
    each_entry(path.as_ref(), |_, _, name| names.push(OsString::from_vec(name.to_vec())))?;
    Ok(names)
}

/// The names in a directory that lead to this inode, as the directory itself has it: where another file system is mounted
/// over one of them, or several make up one (overlayfs), stat(2) may tell of another.
pub fn names_of(path: impl AsRef<Path>, inode: u64) -> Result<Vec<OsString>> {
    let mut names = Vec::new();
    each_entry(path.as_ref(), |ino, _, name| {
        if ino == inode {
            names.push(OsString::from_vec(name.to_vec()));
        }
    })?;
    Ok(names)
}

/// Shows the inode's number of each name in a directory, as the directory itself has it, whether it is a directory (not every
/// file system says), and the name.
pub fn each_entry(path: &Path, mut see: impl FnMut(u64, bool, &[u8])) -> Result<()> {
    let fd = open(path, libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
    let mut buffer = vec![0u8; 32 << 10];
    loop {
        let args = [fd.as_raw_fd() as usize, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0, 0];
        // SAFETY: the buffer is ours to write for its whole length.
        let n =
            unsafe { syscall(Sysno::getdents64, args) }.map_err(|e| e.of(format!("getdents({path:?})")))?;
        if n == 0 {
            return Ok(());
        }
        // struct linux_dirent64: ino u64, off u64, reclen u16, type u8, name…
        let mut at = 0;
        while at + 19 <= n {
            let len = usize::from(u16::from_ne_bytes([buffer[at + 16], buffer[at + 17]]));
            if len < 19 || at + len > n {
                return Err(Failed::unexpected(format!("getdents({path:?}): a record of {len} bytes")));
            }
            let name = &buffer[at + 19..at + len];
            let name = &name[..name.iter().position(|b| *b == 0).unwrap_or(name.len())];
            if name != b"." && name != b".." {
                let mut ino = [0; 8];
                ino.copy_from_slice(&buffer[at..at + 8]);
                see(u64::from_ne_bytes(ino), buffer[at + 18] == libc::DT_DIR, name);
            }
            at += len;
        }
    }
}

/// The numbers among the names in a directory, in order: `/proc/PID/task`, `/proc/PID/fd`.
pub fn list_numbers(path: impl AsRef<Path>) -> Result<Vec<i32>> {
    let mut numbers: Vec<i32> =
        list(path)?.iter().filter_map(|name| name.to_str().and_then(|s| s.parse().ok())).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn two_paths(nr: Sysno, from: &Path, to: &Path, flags: usize) -> Result<()> {
    let (a, b) = (c_path(from)?, c_path(to)?);
    let at = libc::AT_FDCWD as usize;
    // SAFETY: both paths live over the call.
    unsafe { syscall(nr, [at, a.as_ptr() as usize, at, b.as_ptr() as usize, flags, 0]) }
        .map(drop)
        .map_err(|e| e.of(format!("{}({from:?}, {to:?})", nr.name())))
}

/// Gives a file another name, replacing what has it (renameat2(2) without flags).
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    two_paths(Sysno::renameat2, from, to, 0)
}

/// Gives a file another name, which nothing may have yet: EEXIST (renameat2(2) with RENAME_NOREPLACE; where the file
/// system doesn't know that, linkat(2), and the old name stays for the caller to take away).
pub fn rename_new(from: &Path, to: &Path) -> Result<()> {
    match two_paths(Sysno::renameat2, from, to, libc::RENAME_NOREPLACE as usize) {
        Err(e) if e.is(libc::EINVAL) => two_paths(Sysno::linkat, from, to, 0),
        other => other,
    }
}

/// Makes a directory (mkdirat(2)).
///
/// # Errors
/// EEXIST, ENOENT, EACCES, EROFS.
pub fn make_directory(path: &Path, mode: u32) -> Result<()> {
    let c = c_path(path)?;
    let args = [libc::AT_FDCWD as usize, c.as_ptr() as usize, mode as usize, 0, 0, 0];
    // SAFETY: the path lives over the call.
    unsafe { syscall(Sysno::mkdirat, args) }.map(drop).map_err(|e| e.of(format!("mkdir({path:?})")))
}

/// Takes the name of an empty directory away (unlinkat(2), AT_REMOVEDIR).
///
/// # Errors
/// ENOTEMPTY, ENOENT, EACCES.
pub fn remove_directory(path: &Path) -> Result<()> {
    let c = c_path(path)?;
    let args = [libc::AT_FDCWD as usize, c.as_ptr() as usize, libc::AT_REMOVEDIR as usize, 0, 0, 0];
    // SAFETY: the path lives over the call.
    unsafe { syscall(Sysno::unlinkat, args) }.map(drop).map_err(|e| e.of(format!("rmdir({path:?})")))
}

/// Takes a name away (unlinkat(2)).
pub fn unlink(path: &Path) -> Result<()> {
    let c = c_path(path)?;
    // SAFETY: the path lives over the call.
    unsafe { syscall(Sysno::unlinkat, [libc::AT_FDCWD as usize, c.as_ptr() as usize, 0, 0, 0, 0]) }
        .map(drop)
        .map_err(|e| e.of(format!("unlink({path:?})")))
}

/// Makes a file's content durable (fsync(2)).
pub fn sync(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: no memory is touched.
    unsafe { syscall(Sysno::fsync, [fd.as_raw_fd() as usize, 0, 0, 0, 0, 0]) }
        .map(drop)
        .map_err(|e| e.of(format!("fsync(fd {})", fd.as_raw_fd())))
}

/// Sets permission bits (fchmod(2)).
///
/// # Errors
/// EPERM: another's file.
pub fn set_mode(fd: BorrowedFd<'_>, mode: u32) -> Result<()> {
    // SAFETY: no memory is touched.
    unsafe { syscall(Sysno::fchmod, [fd.as_raw_fd() as usize, mode as usize, 0, 0, 0, 0]) }
        .map(drop)
        .map_err(|e| e.of(format!("fchmod(fd {}, {mode:#o})", fd.as_raw_fd())))
}

/// Sets owner and group (fchown(2)).
///
/// # Errors
/// EPERM: giving a file away needs CAP_CHOWN.
pub fn set_owner(fd: BorrowedFd<'_>, uid: u32, gid: u32) -> Result<()> {
    // SAFETY: no memory is touched.
    unsafe { syscall(Sysno::fchown, [fd.as_raw_fd() as usize, uid as usize, gid as usize, 0, 0, 0]) }
        .map(drop)
        .map_err(|e| e.of(format!("fchown(fd {}, {uid}, {gid})", fd.as_raw_fd())))
}

/// Sets the time of the last change of content, nanoseconds since the epoch (utimensat(2)).
///
/// # Errors
/// EPERM: another's file.
pub fn set_mtime(fd: BorrowedFd<'_>, mtime_ns: i64) -> Result<()> {
    const BILLION: i64 = 1_000_000_000;
    let times = [
        libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT },
        libc::timespec { tv_sec: mtime_ns.div_euclid(BILLION), tv_nsec: mtime_ns.rem_euclid(BILLION) },
    ];
    let args = [fd.as_raw_fd() as usize, 0, times.as_ptr() as usize, 0, 0, 0];
    // SAFETY: the two times live over the call; no path means the descriptor itself.
    unsafe { syscall(Sysno::utimensat, args) }
        .map(drop)
        .map_err(|e| e.of(format!("utimensat(fd {}, {mtime_ns} ns)", fd.as_raw_fd())))
}

/// A descriptor as a stream whose every read and write passes the gate.
#[derive(Debug)]
pub struct Stream(pub OwnedFd);

impl io::Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(read(self.0.as_fd(), buffer)?)
    }
}

impl io::Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        Ok(write(self.0.as_fd(), buffer)?)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
