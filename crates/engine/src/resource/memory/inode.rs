//! Inodes whose content the image holds, because no name leads to it: memfds, and files that were deleted or replaced.
//!
//! **In the kernel**: an inode lives as long as a name, an open file or a mapping of it does. A memfd (memfd_create(2)) never
//! had a name; a file that was unlinked, or replaced by another through rename(2) as an upgrade does to libraries, lives on for
//! who has it open or mapped. `maps` calls all of them ` (deleted)`.
//!
//! **In the image**: `memory/inode`: which of the two, name, size, mode, owner, time of last change, seals; its content as
//! pages of a space of the same id. Areas refer to it, and so do open files: what was one inode is one again.
//!
//! **Taken how**: an inode is recognised by device and number ([`super::object`]). It is read through an open file of the
//! tree, `/proc/PID/exe`, or `/proc/PID/map_files` (root, CAP_CHECKPOINT_RESTORE), without its holes. Where none of these is
//! open to us, what is mapped of it is read through the mappings.
//!
//! **Put back how**: made once, before there is any process: memfd_create(2), or for a file that processes share O_TMPFILE in
//! the directory where it was, or the next above it that is there; where that can't be, and for what is only mapped privately (old libraries), a memfd. The pages
//! go into it from outside, then mode, time and seals are set.
//!
//! **Not saved**: inode number, and the name in `maps` of a deleted file. Without `map_files`: what no mapping shows, be it
//! because nobody maps it or because every mapper has written to that page; the size, but for pages; the seals of a memfd that
//! nobody has open any more. A file that is shared and has another name still (a hard link), or that a process outside of
//! the tree has too, is refused.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use bardo_kernel::mmap::{self, memfd};
use bardo_kernel::{fcntl, fs};
use serde::{Deserialize, Serialize};

use super::area::{FilePath, is_default};
use crate::error::{Doing, Result};

/// What it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InodeKind {
    /// A memfd.
    Memfd,
    /// A regular file that lost its name.
    #[default]
    Deleted,
}

/// The record `memory/inode`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InodeRecord {
    /// What it was.
    pub kind: InodeKind,
    /// The memfd's name, or the path that the file had.
    pub name: FilePath,
    /// Its size in bytes.
    pub size: u64,
    /// Permission bits, where they are known.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mode: Option<u32>,
    /// Owner and group, where they are known.
    #[serde(default, skip_serializing_if = "is_default")]
    pub owner: Option<(u32, u32)>,
    /// When its content was last changed, nanoseconds since 1970, where that is known.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mtime_ns: Option<i64>,
    /// F_SEAL_ bits.
    #[serde(default, skip_serializing_if = "is_default")]
    pub seals: u32,
    /// Whether anybody can write to it, or see what others write: it is mapped shared, or open.
    #[serde(default, skip_serializing_if = "is_default")]
    pub shared: bool,
    /// The flags with which O_TMPFILE made it, where that open file is still open: such an inode can be given a name.
    #[serde(default, skip_serializing_if = "is_default")]
    pub made_by: i32,
}

/// O_TMPFILE without the O_DIRECTORY that the C library adds to it.
pub const TMPFILE: i32 = libc::O_TMPFILE & !libc::O_DIRECTORY;
/// The flags that an open file has from the moment when it was made.
pub(super) const MADE_BY: i32 = libc::O_TMPFILE | libc::O_ACCMODE | libc::O_SYNC | libc::O_DSYNC;

impl InodeRecord {
    /// The first rule that it breaks, as no inode of a real process does.
    pub(super) fn fault(&self) -> Option<String> {
        let name = self.name.0.as_os_str().as_encoded_bytes();
        let fits = match self.kind {
            InodeKind::Memfd => name.len() <= NAME_MAX,
            InodeKind::Deleted => self.name.0.is_absolute() && name.len() < libc::PATH_MAX as usize,
        };
        if !fits || name.contains(&0) {
            return Some(format!("the name {:?}", self.name.0));
        }
        if i64::try_from(self.size).is_err() {
            return Some(format!("{} bytes", self.size));
        }
        if self.mode.is_some_and(|mode| mode & !0o7777 != 0) {
            return Some(format!("the mode {:#o}", self.mode.unwrap_or(0)));
        }
        if self.seals & !SEALS != 0 || (self.seals != 0 && self.kind != InodeKind::Memfd) {
            return Some(format!("the seals {:#x}", self.seals));
        }
        let may_write = matches!(self.made_by & libc::O_ACCMODE, libc::O_WRONLY | libc::O_RDWR);
        let is_made = self.kind == InodeKind::Deleted && self.made_by & libc::O_TMPFILE == libc::O_TMPFILE;
        if self.made_by != 0 && (self.made_by & !MADE_BY != 0 || !is_made || !may_write) {
            return Some(format!("made with the flags {:#o}", self.made_by));
        }
        None
    }

    fn show(&self) -> String {
        match self.kind {
            InodeKind::Memfd => format!("the memfd {:?}", self.name.0),
            InodeKind::Deleted => format!("{}, which was deleted", self.name.0.display()),
        }
    }
}

/// The longest name that memfd_create(2) takes.
const NAME_MAX: usize = 249;
/// All seals up to Linux 6.3: SEAL, SHRINK, GROW, WRITE, FUTURE_WRITE, EXEC.
const SEALS: u32 = 0x3f;

/// Why O_TMPFILE isn't possible in one directory, while it may be in another.
const CAN_NOT: &[i32] = &[
    libc::ENOENT,
    libc::ENOTDIR,
    libc::ELOOP,
    libc::EACCES,
    libc::EPERM,
    libc::EROFS,
    libc::EOPNOTSUPP,
    libc::EISDIR,
    libc::EINVAL,
];

/// An inode that was made anew.
#[derive(Debug)]
pub(super) struct OpenInode {
    record: InodeRecord,
    /// To read: by its number, under `/proc/self/fd`, it is opened in any other way.
    pub read: OwnedFd,
    /// To write too, where a mapping needs that. The file of a program that runs must not be open to write anywhere
    /// (ETXTBSY), so there is none for no reason.
    pub write: Option<OwnedFd>,
    /// What O_TMPFILE gave, where the tree has that too.
    pub made_by: Option<OwnedFd>,
}

impl OpenInode {
    /// Makes it, empty; its descriptors lie at `base` or above.
    pub fn make(record: &InodeRecord, base: i32) -> Result<OpenInode> {
        let doing = || format!("making {} anew", record.show());
        let file = create(record).doing(doing(), None)?;
        mmap::truncate(file.as_fd(), record.size).doing(doing(), None)?;
        let read = reopen(&file, libc::O_RDONLY).doing(doing(), None)?;
        let read = fcntl::duplicate(read.as_fd(), base).doing(doing(), None)?;
        let mut made_by = None;
        if record.made_by != 0 {
            made_by = Some(fcntl::duplicate(file.as_fd(), base).doing(doing(), None)?);
        }
        Ok(OpenInode { record: record.clone(), read, write: None, made_by })
    }

    /// Opens it to write too, at `base` or above.
    pub fn open_to_write(&mut self, base: i32) -> Result<()> {
        if self.write.is_none() {
            let doing = || format!("opening {}", self.record.show());
            let file = self.to_write()?;
            self.write = Some(fcntl::duplicate(file.as_fd(), base).doing(doing(), None)?);
        }
        Ok(())
    }

    /// A descriptor to fill it through.
    pub fn to_write(&self) -> Result<OwnedFd> {
        reopen(&self.read, libc::O_RDWR).doing(format!("opening {}", self.record.show()), None)
    }

    /// Once it is filled and mapped: what filling would have changed, or what would have kept us from it.
    pub fn settle(&self) -> Result<()> {
        let doing = || format!("making {} as it was", self.record.show());
        let fd = self.read.as_fd();
        // The mode may forbid this afterwards.
        let to_seal = match self.record.kind {
            InodeKind::Memfd => Some(self.to_write()?),
            InodeKind::Deleted => None,
        };
        if let Some((uid, gid)) = self.record.owner {
            let now = fs::fstat(fd).doing(doing(), None)?;
            if (now.uid, now.gid) != (uid, gid) {
                // Another's file is ours now, unless we may give it away.
                let _ = fs::set_owner(fd, uid, gid);
            }
        }
        if let Some(mode) = self.record.mode {
            fs::set_mode(fd, mode).doing(doing(), None)?;
        }
        if let Some(mtime_ns) = self.record.mtime_ns {
            fs::set_mtime(fd, mtime_ns).doing(doing(), None)?;
        }
        if let Some(file) = to_seal {
            fcntl::add_seals(file.as_fd(), self.record.seals as i32).doing(doing(), None)?;
        }
        Ok(())
    }
}

fn reopen(file: &OwnedFd, mode: i32) -> bardo_kernel::Result<OwnedFd> {
    fs::open(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())), mode, 0)
}

fn create(record: &InodeRecord) -> bardo_kernel::Result<OwnedFd> {
    let path = &record.name.0;
    if record.kind == InodeKind::Deleted && record.shared {
        // Nobody could give it a name, unless it was made so.
        let flags =
            if record.made_by == 0 { libc::O_TMPFILE | libc::O_RDWR | libc::O_EXCL } else { record.made_by };
        let mut failed = None;
        for directory in path.ancestors().skip(1) {
            match fs::open(directory, flags, 0o600) {
                Ok(file) => return Ok(file),
                // The directory is gone, or isn't ours to write to, or its file system can't.
                Err(e) if CAN_NOT.iter().any(|errno| e.is(*errno)) => failed = failed.or(Some(e)),
                Err(e) => return Err(e),
            }
        }
        // Memory holds it as well, but can't give it a name.
        if let Some(failed) = failed.filter(|_| record.made_by != 0) {
            return Err(failed);
        }
    }
    let name = match record.kind {
        InodeKind::Memfd => path.as_os_str(),
        InodeKind::Deleted => path.file_name().unwrap_or_default(),
    };
    let flags = memfd::CLOEXEC | memfd::ALLOW_SEALING;
    match mmap::memfd_create(name, flags | memfd::EXEC) {
        // vm.memfd_noexec forbids executable ones; it may not have been one.
        Err(e) if e.is(libc::EACCES) => mmap::memfd_create(name, flags | memfd::NOEXEC_SEAL),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn record(kind: InodeKind, name: &str) -> InodeRecord {
        InodeRecord {
            kind,
            name: FilePath(PathBuf::from(name)),
            size: 5000,
            mode: Some(0o640),
            owner: None,
            mtime_ns: Some(1_234_567_890_123_456_789),
            seals: 0,
            shared: true,
            made_by: 0,
        }
    }

    #[test]
    fn an_inode_comes_back_with_what_it_had() {
        let memfd = InodeRecord { seals: 0b110, ..record(InodeKind::Memfd, "a/name") };
        let deleted = record(InodeKind::Deleted, "/tmp/no longer here");
        let nowhere = record(InodeKind::Deleted, "/no/such/directory/file");
        for record in [memfd, deleted, nowhere] {
            assert_eq!(record.fault(), None);
            let mut inode = OpenInode::make(&record, 100).unwrap();
            assert!(inode.read.as_raw_fd() >= 100);
            inode.open_to_write(100).unwrap();
            fs::pwrite(inode.to_write().unwrap().as_fd(), b"hello", 4000).unwrap();
            inode.settle().unwrap();
            let stat = fs::fstat(inode.read.as_fd()).unwrap();
            assert_eq!((stat.nlink, stat.size, stat.mode & 0o7777), (0, 5000, 0o640));
            assert_eq!(stat.mtime_ns, 1_234_567_890_123_456_789);
            if record.kind == InodeKind::Memfd {
                assert_eq!(fcntl::seals(inode.read.as_fd()).unwrap(), 0b110);
            }
        }
    }

    #[test]
    fn only_what_can_be_made_is_sound() {
        assert!(record(InodeKind::Deleted, "relative").fault().is_some());
        assert!(record(InodeKind::Memfd, &"x".repeat(250)).fault().is_some());
        assert!(InodeRecord { size: u64::MAX, ..record(InodeKind::Memfd, "x") }.fault().is_some());
        assert!(InodeRecord { seals: 64, ..record(InodeKind::Memfd, "x") }.fault().is_some());
        assert!(InodeRecord { seals: 1, ..record(InodeKind::Deleted, "/x") }.fault().is_some());
        assert!(InodeRecord { mode: Some(0o100644), ..record(InodeKind::Memfd, "x") }.fault().is_some());
    }
}
