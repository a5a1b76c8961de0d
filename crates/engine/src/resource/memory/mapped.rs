//! File mappings, private and shared.
//!
//! **In the kernel**: an area of `mmap(2)` with a descriptor holds the open file for as long as it lives, whatever becomes
//! of the name. A private one shows the file until a page is written, which then is a page of the process's own. What a
//! shared mapping may become (`mw` in smaps) was fixed by the descriptor's mode when it was made.
//!
//! **In the image**: path, device, inode, size and time of last change of each file, once per space; per area which file,
//! where in it, and for a shared one whether it was made to write. Of a private mapping the pages that differ from the
//! file; of a shared one none: they are the file's.
//!
//! **Taken how**: `/proc/PID/smaps`; each path is looked up and must still name the very inode that is mapped (device and
//! inode, or `/proc/PID/map_files` where a file system tells stat(2) of another device than `maps`).
//!
//! **Put back how**: each file is opened once before there is any process, and each process maps it from the inherited
//! descriptor at its place, then gets its own pages.
//!
//! **Not saved**: what files hold, unless they have no name any more ([`super::inode`]). SysV memory and devices are
//! refused; `/dev/zero` mapped privately is anonymous memory with a name, and kept.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bardo_kernel::procfs::maps;
use bardo_kernel::{Failed, fcntl, fs};
use serde::{Deserialize, Serialize};

use super::area::FilePath;
use super::inode::{InodeRecord, OpenInode};
use super::object::Key;
use crate::error::{Doing, Error, Refusal, Result};
use crate::restart::Files;
use crate::subject::Subject;

/// A file as the checkpoint met it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIdentity {
    /// Its path, from the root of whoever made the checkpoint.
    pub path: FilePath,
    /// The device it was on, as stat(2) has it.
    pub dev: u64,
    /// Its inode.
    pub ino: u64,
    /// Its size in bytes.
    pub size: u64,
    /// When its content was last changed: nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Whether it is `/dev/zero`, a device, and not a regular file.
    #[serde(default, skip_serializing_if = "super::area::is_default")]
    pub zero_device: bool,
}

/// A reason why a mapping can't be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Obstacle {
    pub code: &'static str,
    pub what: String,
    pub why: &'static str,
    pub remedy: &'static str,
}

/// Files that were looked up, so that a thousand processes with the same libraries cost one look each.
#[derive(Debug, Default)]
pub(super) struct Known(HashMap<(u64, u64, PathBuf, bool), std::result::Result<Identified, Obstacle>>);

fn device_of(stat: &fs::Stat) -> (u32, u32) {
    (libc::major(stat.rdev), libc::minor(stat.rdev))
}

impl FileIdentity {
    fn of(path: &Path, stat: &fs::Stat) -> FileIdentity {
        FileIdentity {
            path: FilePath(path.to_owned()),
            dev: stat.dev,
            ino: stat.ino,
            size: stat.size,
            mtime_ns: stat.mtime_ns.clamp(i64::MIN.into(), i64::MAX.into()) as i64,
            zero_device: stat.kind() == libc::S_IFCHR,
        }
    }

    /// What is different about the file now, if anything that matters is.
    fn change(&self, now: &fs::Stat) -> Option<String> {
        if self.zero_device {
            let same = now.kind() == libc::S_IFCHR && device_of(now) == (1, 5);
            return (!same).then(|| "is not /dev/zero any more".into());
        }
        if now.kind() != libc::S_IFREG {
            return Some("is not a regular file any more".into());
        }
        if now.size != self.size {
            return Some(format!("had {} bytes, and has {}", self.size, now.size));
        }
        (now.mtime_ns != i128::from(self.mtime_ns)).then(|| "was changed since".into())
    }
}

/// What lies behind an area.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Identified {
    /// A file that its path leads to.
    Named(FileIdentity),
    /// A file that no path leads to any more.
    Nameless {
        /// Its device and inode.
        key: Key,
        /// The path that it had.
        path: PathBuf,
    },
}

impl Known {
    /// The file of an area: identified, or why it can't be mapped again.
    pub fn identify(
        &mut self,
        subject: &Subject,
        area: &maps::Area,
    ) -> std::result::Result<Identified, Obstacle> {
        let key = (area.dev(), area.inode, PathBuf::from(&area.path), area.deleted || area.perms.shared);
        if let Some(known) = self.0.get(&key) {
            return known.clone();
        }
        let found = identify(subject, area);
        self.0.insert(key, found.clone());
        found
    }
}

fn identify(subject: &Subject, area: &maps::Area) -> std::result::Result<Identified, Obstacle> {
    let map_file =
        bardo_kernel::procfs::path(subject.pid(), &format!("map_files/{:x}-{:x}", area.start, area.end));
    // Needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN; without it `maps` must do.
    let mapped = fs::stat(&map_file).ok();
    let is_it = |now: &fs::Stat| match &mapped {
        Some(mapped) => (mapped.dev, mapped.ino) == (now.dev, now.ino),
        None if area.dev() == now.dev => area.inode == now.ino,
        // btrfs and overlayfs tell stat(2) of devices that no block device has (major 0), and `maps` of others.
        None => libc::major(now.dev) == 0 && area.inode == now.ino,
    };
    let mut path = PathBuf::from(&area.path);
    let mut now = fs::stat(&path);
    if !matches!(&now, Ok(now) if is_it(now))
        && let Ok(link) = fs::read_link(&map_file)
    {
        // The link has no escapes, and a name that really ends in " (deleted)".
        if matches!(fs::stat(&link), Ok(stat) if is_it(&stat)) {
            now = fs::stat(&link);
            path = link;
        }
    }
    let is_regular = |stat: &fs::Stat| stat.kind() == libc::S_IFREG;
    let shown = path.display();
    match now {
        Ok(now) if is_it(&now) => {
            let zero = now.kind() == libc::S_IFCHR && device_of(&now) == (1, 5) && !area.perms.shared;
            if is_regular(&now) || zero {
                return Ok(Identified::Named(FileIdentity::of(&path, &now)));
            }
            Err(device(format!("a mapping of the device {shown}")))
        }
        _ if mapped.as_ref().is_some_and(|mapped| !is_regular(mapped)) => {
            Err(device(format!("a mapping of the device {shown}, which was deleted")))
        }
        // What is mapped privately needs nothing but the content; a file that was mounted over is shared with who
        // reaches it on other ways.
        _ if area.deleted || !area.perms.shared => {
            let key = mapped.map_or((area.dev(), area.inode), |mapped| (mapped.dev, mapped.ino));
            Ok(Identified::Nameless { key, path })
        }
        _ => Err(Obstacle {
            code: "memory/unreachable-file",
            what: format!("a shared mapping of {shown}, which can't be reached by that path from here"),
            why: "a restart couldn't open it either, and a copy wouldn't be shared with who has it too",
            remedy: "run bardo where the path names this file: in the program's own root and mount namespace",
        }),
    }
}

fn device(what: String) -> Obstacle {
    Obstacle {
        code: "memory/device",
        what,
        why: "what a device has behind a mapping is known to its driver alone",
        remedy: "checkpoint while the program doesn't use the device",
    }
}

/// The program file of a process: what `/proc/PID/exe` names.
pub(super) fn program(subject: &Subject) -> Result<Identified> {
    let link = bardo_kernel::procfs::path(subject.pid(), "exe");
    let path = fs::read_link(&link).doing("reading which program it runs", Some(&subject.who))?;
    let mapped = fs::stat(&link).doing("reading which program it runs", Some(&subject.who))?;
    Ok(match fs::stat(&path) {
        Ok(now) if (now.dev, now.ino) == (mapped.dev, mapped.ino) => {
            Identified::Named(FileIdentity::of(&path, &now))
        }
        _ => Identified::Nameless { key: (mapped.dev, mapped.ino), path: without_mark(path) },
    })
}

/// A link's text without the mark that the kernel sets behind the path of a file that lost it.
fn without_mark(link: PathBuf) -> PathBuf {
    match link.as_os_str().as_bytes().strip_suffix(b" (deleted)") {
        Some(path) => PathBuf::from(OsStr::from_bytes(path)),
        None => link,
    }
}

/// The refusal for a file that isn't what it was, if it isn't.
pub(super) fn check(file: &FileIdentity, policy: Files) -> Option<Refusal> {
    let shown = file.path.0.display();
    let refusal = |code, what: String, why: &str, remedy: &str| {
        Some(Refusal { who: None, fd: None, what, code, why: why.into(), remedy: remedy.into() })
    };
    match fs::stat(&file.path) {
        Err(failed) => refusal(
            "memory/missing-file",
            format!("{shown}, which the tree has mapped: {}", failed.errno),
            "the tree's memory is partly this file",
            "put the file back as it was",
        ),
        Ok(now) => {
            let change = file.change(&now)?;
            let type_changed = now.kind() != if file.zero_device { libc::S_IFCHR } else { libc::S_IFREG };
            if policy == Files::IgnoreChanges && !type_changed {
                return None;
            }
            refusal(
                "memory/changed-file",
                format!("{shown}, which the tree has mapped, {change}"),
                "pages of the old file and of the new one would be mixed",
                "put the file back as it was, or   --files ignore-changes   to go on with it as it is",
            )
        }
    }
}

/// The files of an image, open at numbers that every process of the tree inherits.
#[derive(Debug, Default)]
pub struct MappedFiles {
    fds: Vec<OwnedFd>,
    by_use: HashMap<(PathBuf, bool), usize>,
    inodes: BTreeMap<u64, OpenInode>,
}

impl MappedFiles {
    /// Opens a file, once for each use (to read; to read and write), at a number of at least `base`.
    pub(super) fn open(
        &mut self,
        file: &FileIdentity,
        writable: bool,
        base: i32,
        policy: Files,
    ) -> Result<()> {
        let key = (file.path.0.clone(), writable);
        if self.by_use.contains_key(&key) {
            return Ok(());
        }
        let doing = || format!("opening {}, which the tree has mapped", file.path.0.display());
        let mode = if writable { libc::O_RDWR } else { libc::O_RDONLY };
        // An image may name anything: never wait for the other end of a pipe, never get a controlling terminal.
        let fd = fs::open(&file.path.0, mode | libc::O_NONBLOCK | libc::O_NOCTTY, 0).doing(doing(), None)?;
        // Looked at again, since it may have changed since the check.
        let now = fs::fstat(fd.as_fd()).doing(doing(), None)?;
        let is_kind = now.kind() == if file.zero_device { libc::S_IFCHR } else { libc::S_IFREG };
        if let Some(change) = file.change(&now)
            && (policy == Files::MustMatch || !is_kind || file.zero_device)
        {
            let call = format!("fstat({}): it {change}", file.path.0.display());
            return Err(Failed::unexpected(call)).doing(doing(), None);
        }
        let fd = fcntl::duplicate(fd.as_fd(), base).doing(doing(), None)?;
        self.by_use.insert(key, self.fds.len());
        self.fds.push(fd);
        Ok(())
    }

    /// The number of a file's descriptor, the same in every process.
    pub(super) fn number(&self, file: &FileIdentity, writable: bool) -> Result<u64> {
        let at = self.by_use.get(&(file.path.0.clone(), writable));
        at.map(|at| self.fds[*at].as_raw_fd() as u64)
            .ok_or_else(|| Error::Bug(format!("{} was never opened", file.path.0.display())))
    }

    /// Makes an inode that has no name, at numbers of at least `base`.
    pub(super) fn make(&mut self, id: u64, record: &InodeRecord, base: i32) -> Result<()> {
        self.inodes.insert(id, OpenInode::make(record, base)?);
        Ok(())
    }

    fn nameless(&self, id: u64) -> Result<&OpenInode> {
        self.inodes.get(&id).ok_or_else(|| Error::Bug(format!("the inode {id} was never made")))
    }

    /// Has an inode without a name open to write too.
    pub(super) fn open_to_write(&mut self, id: u64, base: i32) -> Result<()> {
        let inode = self.inodes.get_mut(&id);
        inode.ok_or_else(|| Error::Bug(format!("the inode {id} was never made")))?.open_to_write(base)
    }

    /// The number of the descriptor of an inode without a name, the same in every process.
    pub(super) fn number_of(&self, id: u64, writable: bool) -> Result<u64> {
        let inode = self.nameless(id)?;
        let fd = if writable { inode.write.as_ref() } else { Some(&inode.read) };
        fd.map(|fd| fd.as_raw_fd() as u64)
            .ok_or_else(|| Error::Bug(format!("the inode {id} isn't open to write")))
    }

    /// A descriptor to fill an inode without a name through.
    pub(super) fn to_fill(&self, id: u64) -> Result<OwnedFd> {
        self.nameless(id)?.to_write()
    }

    /// An inode without a name, open to read. Under `/proc/self/fd` it can be opened in every other way.
    ///
    /// It has its size; its content comes with the pages.
    ///
    /// # Errors
    /// [`Error::Bug`] for an id that no record told of.
    pub fn inode(&self, id: u64) -> Result<BorrowedFd<'_>> {
        Ok(self.nameless(id)?.read.as_fd())
    }

    /// The open file by which an inode was made, if it was made by O_TMPFILE as the tree's was.
    ///
    /// # Errors
    /// [`Error::Bug`] for an id that no record told of.
    pub fn made_by(&self, id: u64) -> Result<Option<OwnedFd>> {
        let made = self.nameless(id)?.made_by.as_ref();
        made.map(|fd| fcntl::duplicate(fd.as_fd(), 0)).transpose().doing("duplicating a descriptor", None)
    }

    /// Once all pages are put, and everything is mapped: modes, times and seals of inodes without a name.
    ///
    /// # Errors
    /// Those of the calls.
    pub fn settle(&self) -> Result<()> {
        self.inodes.values().try_for_each(OpenInode::settle)
    }
}
