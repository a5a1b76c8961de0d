//! Directories that were removed while somebody had them open, or worked in them.
//!
//! **In the kernel**: rmdir(2) takes only what is empty, and nothing can be put into a directory that has no name: it stays empty,
//! getcwd(2), getdents64(2) and every name in it say ENOENT. fchdir(2) and fstat(2) work.
//!
//! **In the image**: `file/gone`: one for each open file; `file/gone-cwd`: one for each process that works in such a directory.
//! Both say which directory (what was one is one again), its path and mode.
//!
//! **Taken how**: the links `/proc/PID/fd/N` and `/proc/PID/cwd`, which end in ` (deleted)`; stat(2).
//!
//! **Put back how**: mkdir(2) of the old name, or of another where that is taken, in its parent or the next directory above that is
//! there; opened, and rmdir(2) at once. A process goes there by fchdir(2), before its table is made.
//!
//! **Not saved**: inode number, times, extended attributes; the offset, where the file system knows none in such a directory. A bardo that is killed between the two calls leaves an empty
//! directory.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use bardo_image::{Blob, Record};
use bardo_kernel::fs::Stat;
use bardo_kernel::{Failed, fcntl, fs, procfs};
use serde::{Deserialize, Serialize};

use super::path::{self, REOPEN, Reach};
use super::pool::Making;
use super::scene::{Scene, Seen};
use super::survey::Collected;
use super::{FilesImage, Hindrance, Kind, Rules, Saved, image, unlinked};
use crate::error::{Doing, Error, Result};
use crate::support::Support;

/// The kind.
#[derive(Debug, Clone, Copy)]
pub struct Gone;

/// The record's name.
pub const NAME: &str = "file/gone";
/// The name of the record of a working directory.
pub const CWD: &str = "file/gone-cwd";

/// Without O_NOFOLLOW: there is no path to follow any more.
const FLAGS: i32 = (REOPEN | libc::O_PATH) & !libc::O_NOFOLLOW;

/// A directory without a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoneDirectory {
    /// The path that it had.
    pub path: Blob,
    /// Permissions (stat, `st_mode`).
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
}

/// The record of an open one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OpenGone {
    /// Which one: a number of the image's own.
    pub number: u64,
    /// What it was.
    #[serde(flatten)]
    pub directory: GoneDirectory,
    /// Access mode and status flags (fdinfo, `flags`).
    pub flags: i32,
    /// The offset (fdinfo, `pos`).
    pub offset: i64,
}

/// The record of a working directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GoneCwd {
    /// The process, as it sees itself.
    pub pid: i32,
    /// Which one: a number of the image's own.
    pub number: u64,
    /// What it was.
    #[serde(flatten)]
    pub directory: GoneDirectory,
}

impl GoneDirectory {
    fn of(link: &Path, stat: &Stat) -> GoneDirectory {
        let link = link.as_os_str().as_bytes();
        let path = link.strip_suffix(b" (deleted)").unwrap_or(link);
        GoneDirectory { path: Blob(path.to_vec()), mode: stat.mode & 0o7777, owner: (stat.uid, stat.gid) }
    }

    fn validate(&self) -> std::result::Result<(), String> {
        let path = self.path();
        let plain = path.components().all(|part| !matches!(part, std::path::Component::ParentDir));
        if !path.is_absolute()
            || !plain
            || self.path.contains(&0)
            || self.path.len() >= libc::PATH_MAX as usize
        {
            return Err(format!("{path:?} isn't a directory's path"));
        }
        if self.mode & !0o7777 != 0 {
            return Err(format!("the mode {:#o}", self.mode));
        }
        Ok(())
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(std::ffi::OsString::from_vec(self.path.0.clone()))
    }

    /// Makes it, and takes its name away.
    pub(super) fn make(&self) -> Result<OwnedFd> {
        let path = self.path();
        let doing = || format!("making {} anew, which was removed", path.display());
        let fd = make_and_remove(&path).doing(doing(), None)?;
        let now = fs::fstat(fd.as_fd()).doing(doing(), None)?;
        if (now.uid, now.gid) != self.owner {
            // Another's directory is ours now, unless we may give it away.
            let _ = fs::set_owner(fd.as_fd(), self.owner.0, self.owner.1);
        }
        fs::set_mode(fd.as_fd(), self.mode).doing(doing(), None)?;
        Ok(fd)
    }
}

fn make_and_remove(path: &Path) -> bardo_kernel::Result<OwnedFd> {
    let mut failed = None;
    for (depth, parent) in path.ancestors().skip(1).enumerate() {
        let other = (0..100).map(|n| parent.join(format!(".removed-{}-{n}", std::process::id())));
        let own = (depth == 0).then(|| path.to_owned());
        for name in own.into_iter().chain(other) {
            match fs::make_directory(&name, 0o700) {
                Ok(()) => {
                    let made = fs::open(&name, libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0);
                    fs::remove_directory(&name)?;
                    return made;
                }
                Err(e) if e.is(libc::EEXIST) => {}
                Err(e) => {
                    // It isn't there, or isn't ours to write to: the one above may be.
                    failed = failed.or(Some(e));
                    break;
                }
            }
        }
    }
    Err(failed.unwrap_or_else(|| Failed::unexpected(format!("mkdir({path:?}): every name is taken"))))
}

/// Whether it is such a directory.
fn is_gone(file: &Seen, scene: &Scene<'_>) -> bool {
    file.stat.kind() == libc::S_IFDIR && file.reach == Reach::Deleted && unlinked::is_of_bytes(file, scene)
}

/// The numbers of the image's own, by device and inode.
#[derive(Debug, Default)]
pub struct Numbers(BTreeMap<(u64, u64), u64>);

impl Numbers {
    fn of(&mut self, stat: &Stat) -> u64 {
        let next = self.0.len() as u64 + 1;
        *self.0.entry((stat.dev, stat.ino)).or_insert(next)
    }
}

/// Adds the working directories that were removed, and refuses those that their path doesn't lead to.
pub(super) fn collect_cwds(scene: &Scene<'_>, out: &mut Collected) -> Result<()> {
    for (index, subject) in scene.subjects.iter().enumerate() {
        if subject.zombie || subject.status.is_dead() {
            continue;
        }
        let doing = "looking at its working directory";
        let link = procfs::path(subject.pid(), "cwd");
        let path = fs::read_link(&link).doing(doing, Some(&subject.who))?;
        let stat = fs::stat(&link).doing(doing, Some(&subject.who))?;
        match path::reach(&path, &stat)? {
            Reach::Same => {}
            Reach::Deleted => {
                let number = out.gone.of(&stat);
                let directory = GoneDirectory::of(&path, &stat);
                let record = GoneCwd { pid: subject.own_pid, number, directory };
                out.record(CWD, index as u64 + 1, &record)?;
            }
            Reach::Replaced | Reach::Unreachable => out.refuse_process(
                scene,
                index,
                "task/cwd",
                format!("its working directory, {}", path.display()),
                "its path doesn't lead there: something is mounted over it, or it is in another namespace",
                "have it change its directory (chdir(2)), or unmount what lies over it",
            ),
        }
    }
    Ok(())
}

impl Kind for Gone {
    fn support(&self) -> Support {
        Support {
            kind: NAME,
            kept: "removed directories that are open or somebody's working directory: one for all who have it, mode, owner",
            not_kept: "inode number, times",
            privilege: "",
            workload: "file/gone",
        }
    }

    fn records(&self) -> &'static [&'static str] {
        &[NAME, CWD]
    }

    fn claims(&self, file: &Seen, scene: &Scene<'_>) -> bool {
        is_gone(file, scene)
    }

    fn collect(&self, file: &Seen, scene: &Scene<'_>, out: &mut Collected) -> Result<()> {
        if !scene.is_plain(file, out)? {
            return Ok(());
        }
        let number = out.gone.of(&file.stat);
        let directory = GoneDirectory::of(&file.link, &file.stat);
        let record = OpenGone { number, directory, flags: file.flags & FLAGS, offset: file.pos };
        out.record(NAME, file.id, &record)
    }

    fn take(&self, record: &Record, image: &mut FilesImage) -> Result<()> {
        let (number, directory) = match record.kind.as_str() {
            CWD => {
                let cwd: GoneCwd = image::read(record)?;
                image.cwds.insert(cwd.pid, cwd.number);
                (cwd.number, cwd.directory)
            }
            _ => {
                let file: OpenGone = image::read(record)?;
                if file.flags & !FLAGS != 0 || file.offset < 0 {
                    let why = format!("the flags {:#o}, the offset {}", file.flags, file.offset);
                    return Err(image::wrong(record, why));
                }
                image.add(record, Box::new(file.clone()))?;
                (file.number, file.directory)
            }
        };
        directory.validate().map_err(|why| image::wrong(record, why))?;
        let known = image.gone.entry(number).or_insert_with(|| directory.clone());
        if *known != directory {
            return Err(image::wrong(record, format!("another directory has the number {number}")));
        }
        Ok(())
    }
}

impl Saved for OpenGone {
    fn what(&self) -> String {
        format!("directory {}, which was removed", self.directory.path().display())
    }

    fn check(&self, _: &Rules<'_>) -> Vec<Hindrance> {
        Vec::new()
    }

    fn open(&self, _: u64, making: &mut Making<'_>) -> Result<OwnedFd> {
        let doing = || format!("opening {}", self.what());
        let path = format!("/proc/self/fd/{}", making.directory(self.number)?.as_raw_fd());
        let fd = fs::open(Path::new(&path), self.flags, 0).doing(doing(), None)?;
        if self.offset != 0 {
            match fcntl::seek(fd.as_fd(), self.offset, fcntl::Whence::Start) {
                // ext4 knows no such offset in a directory without a name; nothing can be read there at any.
                Err(e) if e.is(libc::EINVAL) => {}
                other => drop(other.doing(doing(), None)?),
            }
        }
        Ok(fd)
    }
}

/// Removed directories that were made again, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Directories(BTreeMap<u64, OwnedFd>);

impl Directories {
    pub fn get(&self, number: u64) -> Option<BorrowedFd<'_>> {
        self.0.get(&number).map(AsFd::as_fd)
    }

    /// One of them, made when it is first asked for; at `base` or above.
    pub fn make(
        &mut self,
        number: u64,
        saved: &BTreeMap<u64, GoneDirectory>,
        base: i32,
    ) -> Result<BorrowedFd<'_>> {
        if let Entry::Vacant(place) = self.0.entry(number) {
            let saved = saved.get(&number);
            let saved = saved.ok_or_else(|| Error::Bug(format!("the unknown directory {number}")))?;
            place.insert(image::lift(saved.make()?, base)?);
        }
        self.get(number).ok_or_else(|| Error::Bug(format!("the directory {number} wasn't made")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_directory_is_made_without_a_trace() {
        let base = std::env::temp_dir().join(format!("bardo-gone-{}", std::process::id()));
        std::fs::create_dir(&base).unwrap();
        for path in ["free", "not there/either/free", "taken"] {
            let path = base.join(path);
            std::fs::create_dir_all(base.join("taken")).unwrap();
            let saved = GoneDirectory {
                path: Blob(path.as_os_str().as_bytes().to_vec()),
                mode: 0o751,
                owner: (0, 0),
            };
            saved.validate().unwrap();
            let made = saved.make().unwrap();
            let stat = fs::fstat(made.as_fd()).unwrap();
            assert_eq!((stat.kind(), stat.nlink, stat.mode & 0o7777), (libc::S_IFDIR, 0, 0o751));
            assert_eq!(std::fs::read_dir(&base).unwrap().count(), 1, "only what was there");
        }
        std::fs::remove_dir_all(&base).unwrap();
    }
}
