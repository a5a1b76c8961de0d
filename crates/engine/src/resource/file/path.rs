//! What all kinds that are reopened by their path share: where a path leads, which flags open it again, and whether the
//! file there is still the one that was seen.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use bardo_image::Blob;
use bardo_kernel::fs::{self, Stat};
use bardo_kernel::{Failed, fcntl};
use serde::{Deserialize, Serialize};

use super::{Hindrance, Rules};
use crate::error::{Doing, Result};
use crate::restart;

/// O_LARGEFILE as the kernel has it: set by every open(2) of a 64-bit process. The C library calls it 0 there.
pub const O_LARGEFILE: i32 = 0o100000;

/// The flags of an open file that opening it again by its path gives back: access mode and status flags. Not those that
/// only mean something at the moment of open(2) (O_CREAT, O_EXCL, O_NOCTTY, O_TRUNC), which an image must not hold.
pub const REOPEN: i32 = libc::O_ACCMODE
    | libc::O_APPEND
    | libc::O_NONBLOCK
    | libc::O_DSYNC
    | libc::O_SYNC
    | libc::O_DIRECT
    | libc::O_NOATIME
    | libc::O_DIRECTORY
    | libc::O_NOFOLLOW
    | O_LARGEFILE;

/// Where the path of an open file leads now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// To the file itself.
    Same,
    /// Nowhere or to another file: this name of it was removed.
    Deleted,
    /// To another file, though the name wasn't removed: something was mounted over it.
    Replaced,
    /// It has no path here: the mount is detached, or of another namespace.
    Unreachable,
}

/// Where `link`, the text of `/proc/PID/fd/N` (man 5 proc_pid_fd), leads. The kernel adds ` (deleted)` to the path of a file
/// whose name was removed; a name may also really end so.
pub fn reach(link: &Path, seen: &Stat) -> Result<Reach> {
    if !link.is_absolute() {
        return Ok(Reach::Unreachable);
    }
    match fs::lstat(link) {
        Ok(now) if (now.dev, now.ino) == (seen.dev, seen.ino) => Ok(Reach::Same),
        Ok(_) if seen.nlink == 0 => Ok(Reach::Deleted),
        Ok(_) => Ok(Reach::Replaced),
        Err(e) if e.is(libc::ENOENT) || e.is(libc::ENOTDIR) || e.is(libc::ENAMETOOLONG) => {
            let marked = link.as_os_str().as_bytes().ends_with(b" (deleted)");
            Ok(if marked || seen.nlink == 0 { Reach::Deleted } else { Reach::Unreachable })
        }
        Err(e) if e.is(libc::EACCES) => Ok(Reach::Unreachable),
        Err(e) => Err(e).doing(format!("looking where {} leads", link.display()), None),
    }
}

/// Another name of a regular file or a FIFO that lost the one it was opened by, in one of these directories.
pub fn other_name<'a>(directories: impl IntoIterator<Item = &'a Path>, seen: &Stat) -> Option<PathBuf> {
    let leads_there = |path: &PathBuf| {
        fs::lstat(path).is_ok_and(|now| (now.dev, now.ino, now.kind()) == (seen.dev, seen.ino, seen.kind()))
    };
    directories.into_iter().find_map(|directory| {
        let names = fs::names_of(directory, seen.ino).unwrap_or_default();
        names.into_iter().map(|name| directory.join(name)).find(leads_there)
    })
}

/// A file that is found again by its path, and how to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The path (the link in `/proc/PID/fd`), as bytes.
    pub path: Blob,
    /// Status flags and access mode (fdinfo, `flags`).
    pub flags: i32,
    /// The device it was on (stat, `st_dev`).
    pub dev: u64,
    /// Its inode there.
    pub ino: u64,
    /// Its type and permissions.
    pub mode: u32,
    /// Its size.
    pub size: u64,
    /// When its content last changed, in nanoseconds since the epoch.
    pub mtime_ns: i64,
}

impl Place {
    /// The place of an open file.
    pub fn of(link: &Path, flags: i32, stat: &Stat) -> Place {
        Place {
            path: Blob(link.as_os_str().as_bytes().to_vec()),
            flags,
            dev: stat.dev,
            ino: stat.ino,
            mode: stat.mode,
            size: stat.size,
            mtime_ns: clamp(stat.mtime_ns),
        }
    }

    /// Whether a record may say this: an absolute path, a type, no flag beyond those allowed.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn validate(&self, allowed: i32, kind: Option<u32>) -> std::result::Result<(), String> {
        if !self.path().is_absolute() || self.path.len() >= libc::PATH_MAX as usize || self.path.contains(&0)
        {
            return Err(format!("{:?} isn't an absolute path", self.path()));
        }
        if self.flags & !allowed != 0 {
            return Err(format!(
                "the flags {:#o}, of which {:#o} can't be",
                self.flags,
                self.flags & !allowed
            ));
        }
        if kind.is_some_and(|kind| self.mode & libc::S_IFMT != kind) {
            return Err(format!("the mode {:#o}, which is another type of file", self.mode));
        }
        Ok(())
    }

    /// The path.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(std::ffi::OsString::from_vec(self.path.0.clone()))
    }

    /// The path as a message shows it.
    pub fn show(&self) -> String {
        OsStr::from_bytes(&self.path).to_string_lossy().into_owned()
    }

    /// What is there now, which isn't opened: a file of the same type, or what is wrong with it.
    ///
    /// # Errors
    /// What keeps it from being opened.
    pub fn find(&self, kind: &str) -> std::result::Result<Stat, Hindrance> {
        let what = format!("{kind} {}", self.show());
        let missing = |why: String, remedy: &str| Hindrance {
            code: "file/missing",
            what: what.clone(),
            why,
            remedy: remedy.into(),
        };
        let now = fs::lstat(self.path()).map_err(|e| {
            missing(
                format!("the tree had it open, and it isn't there: {}", e.errno),
                "put it back where it was, with the content that it had at the checkpoint",
            )
        })?;
        if now.kind() != self.mode & libc::S_IFMT {
            let why = format!("there is {} in its place now", type_name(now.kind()));
            return Err(missing(why, "put back what was there at the checkpoint"));
        }
        Ok(now)
    }

    /// What `kind` of file is there now, and whether it is the one that was seen. `content`: whether a change of size or
    /// time counts.
    pub fn check(&self, kind: &str, content: bool, rules: &Rules<'_>) -> Vec<Hindrance> {
        let what = format!("{kind} {}", self.show());
        let one = |code, what: String, why: &str, remedy: &str| {
            vec![Hindrance { code, what, why: why.into(), remedy: remedy.into() }]
        };
        let now = match self.find(kind) {
            Ok(now) => now,
            Err(hindrance) => return vec![hindrance],
        };
        let changes = if content { self.changes(&now) } else { Vec::new() };
        if !changes.is_empty() && rules.files == restart::Files::MustMatch {
            let why =
                "the tree goes on from what it knew of the file, and would read or overwrite other content";
            let remedy =
                "put back the file as it was, or   --files ignore-changes   to go on with it as it is now";
            return one(
                "file/changed",
                format!("{what}, changed since: {}", changes.join(", ")),
                why,
                remedy,
            );
        }
        // O_NONBLOCK, so that a lease of somebody's, or a FIFO that took the file's place just now, can't make us wait.
        match fs::open(&self.path(), self.flags | libc::O_NOCTTY | libc::O_NONBLOCK, 0) {
            Ok(_) => Vec::new(),
            Err(e) => {
                let why = format!("it can't be opened as the tree had it open: {}", e.errno);
                one("file/denied", what, &why, "restart as a user who may open it, or change its permissions")
            }
        }
    }

    fn changes(&self, now: &Stat) -> Vec<String> {
        let mut changes = Vec::new();
        if now.size != self.size {
            changes.push(format!("size {} → {}", self.size, now.size));
        }
        if clamp(now.mtime_ns) != self.mtime_ns {
            changes.push("written to (its modification time differs)".into());
        }
        // A file that was copied to another host or file system has another number there, and is as good.
        if now.dev == self.dev && now.ino != self.ino {
            changes.push(format!("another file has its name (inode {} → {})", self.ino, now.ino));
        }
        changes
    }

    /// Opens it as it was open.
    ///
    /// # Errors
    /// Where it can't be opened, or was exchanged for something of another type after the check.
    pub fn open(&self) -> Result<OwnedFd> {
        let path = self.path();
        let doing = || format!("opening {}", self.show());
        let fd = fs::open(&path, self.flags | libc::O_NOCTTY | libc::O_NONBLOCK, 0).doing(doing(), None)?;
        let stat = fs::fstat(fd.as_fd()).doing(doing(), None)?;
        if stat.kind() != self.mode & libc::S_IFMT {
            let call = format!("open({path:?}): it is {} now", type_name(stat.kind()));
            return Err(Failed::unexpected(call)).doing(doing(), None);
        }
        if self.flags & (libc::O_NONBLOCK | libc::O_PATH) == 0 {
            fcntl::set_status_flags(fd.as_fd(), self.flags).doing(doing(), None)?;
        }
        Ok(fd)
    }

    /// Opens it, and moves to where it was.
    ///
    /// # Errors
    /// As [`Place::open`].
    pub fn open_at(&self, offset: i64) -> Result<OwnedFd> {
        let fd = self.open()?;
        if offset != 0 {
            fcntl::seek(fd.as_fd(), offset, fcntl::Whence::Start)
                .doing(format!("moving to {offset} in {}", self.show()), None)?;
        }
        Ok(fd)
    }
}

fn clamp(nanoseconds: i128) -> i64 {
    i64::try_from(nanoseconds).unwrap_or(if nanoseconds < 0 { i64::MIN } else { i64::MAX })
}

/// A type of file in words.
pub fn type_name(kind: u32) -> &'static str {
    match kind {
        libc::S_IFREG => "a regular file",
        libc::S_IFDIR => "a directory",
        libc::S_IFLNK => "a symbolic link",
        libc::S_IFCHR => "a character device",
        libc::S_IFBLK => "a block device",
        libc::S_IFIFO => "a FIFO",
        libc::S_IFSOCK => "a socket",
        _ => "something without a type",
    }
}
