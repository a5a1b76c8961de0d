//! Where the files are that inotify watches: of those the kernel shows device and inode, and a handle, but no path.
//!
//! A handle leads there at once, for whoever has CAP_DAC_READ_SEARCH. Others look: at what the tree has open, at what its command
//! lines name, where it works and in the directories above; then through directories, beginning with those that were found to be
//! watched, and only so far ([`ENTRIES_MAX`]), for the tree stands still meanwhile.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bardo_kernel::fs::{self, Stat};
use bardo_kernel::procfs::mountinfo;
use bardo_kernel::{handle, inotify, procfs};

use super::inotify::{Inode, Line, lines};
use super::path::Reach;
use super::scene::Scene;
use crate::error::{Doing, Result};

/// How many names are looked at, at most.
const ENTRIES_MAX: usize = 1 << 18;

/// The paths of watched files, as far as they were found.
#[derive(Debug, Default)]
pub struct Watched(BTreeMap<Inode, (PathBuf, Stat)>);

impl Watched {
    /// Where a watched file is, and what it is.
    pub fn find(&self, inode: Inode) -> Option<&(PathBuf, Stat)> {
        self.0.get(&inode)
    }

    /// Looks for all that the tree watches.
    ///
    /// # Errors
    /// Where fdinfo can't be read.
    pub fn look(scene: &Scene<'_>) -> Result<Watched> {
        let mut wanted: BTreeMap<Inode, Line> = BTreeMap::new();
        for file in scene.files.iter().filter(|file| super::inotify::is(file)) {
            let lines = lines(&file.told).doing("looking at an inotify", Some(scene.who(file)))?;
            wanted.extend(lines.into_iter().map(|line| (line.inode, line)));
        }
        for file in scene.files.iter().filter(|file| file.reach != Reach::Same) {
            // It has no path, and is known by its open file.
            wanted.remove(&Inode { ino: file.stat.ino, dev: file.stat.dev });
        }
        let mut search = Search { wanted, found: BTreeMap::new(), looked_at: BTreeSet::new() };
        search.by_handles();
        let starts = search.by_names(scene);
        search.by_walking(starts);
        Ok(Watched(search.found))
    }
}

/// Whether a file is this inode. Some file systems (btrfs, overlayfs) tell stat(2) of other devices than watches have: there a
/// watch of our own is compared, handle and all.
fn is(path: &Path, stat: &Stat, line: &Line) -> bool {
    if stat.ino != line.inode.ino {
        return false;
    }
    if stat.dev == line.inode.dev {
        return true;
    }
    libc::major(stat.dev) == 0 && libc::major(line.inode.dev) == 0 && {
        let same = || {
            let ours = inotify::make(libc::IN_NONBLOCK)?;
            inotify::watch(ours.as_fd(), path, libc::IN_DONT_FOLLOW | libc::IN_MASK_CREATE)?;
            let info = procfs::fdinfo::read(std::process::id() as i32, ours.as_raw_fd())?;
            let ours = lines(&info.other)?;
            Ok::<_, bardo_kernel::Failed>(
                ours.first().is_some_and(|ours| ours.inode == line.inode && ours.handle == line.handle),
            )
        };
        same().unwrap_or(false)
    }
}

struct Search {
    wanted: BTreeMap<Inode, Line>,
    found: BTreeMap<Inode, (PathBuf, Stat)>,
    looked_at: BTreeSet<PathBuf>,
}

impl Search {
    /// What is wanted of this inode number.
    fn of_number(&self, ino: u64) -> impl Iterator<Item = &Line> {
        let all = Inode { ino, dev: 0 }..=Inode { ino, dev: u64::MAX };
        self.wanted.range(all).map(|(_, line)| line)
    }

    /// Takes a path if what it leads to is wanted: whether it is.
    fn take(&mut self, path: &Path) -> bool {
        let Ok(stat) = fs::lstat(path) else { return false };
        let at = self.of_number(stat.ino).find(|line| is(path, &stat, line)).map(|line| line.inode);
        let Some(inode) = at else { return false };
        self.wanted.remove(&inode);
        self.found.insert(inode, (path.to_owned(), stat));
        true
    }

    fn by_handles(&mut self) {
        if self.wanted.is_empty() {
            return;
        }
        let Ok(mounts) = mountinfo::read(std::process::id() as i32) else { return };
        let mut open: BTreeMap<u64, Vec<OwnedFd>> = BTreeMap::new();
        let lines: Vec<Line> = self.wanted.values().cloned().collect();
        for line in lines {
            let Some((kind, bytes)) = &line.handle else { continue };
            let roots = open.entry(line.inode.dev).or_insert_with(|| {
                let of_it = mounts.iter().filter(|mount| mount.dev() == line.inode.dev);
                // Only what is open to read will do.
                let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_DIRECTORY;
                of_it.filter_map(|mount| fs::open(Path::new(&mount.mountpoint), flags, 0).ok()).collect()
            });
            let opened: Vec<OwnedFd> = roots
                .iter()
                .filter_map(|root| handle::open(root.as_fd(), *kind, bytes, libc::O_PATH).ok())
                .collect();
            if opened.iter().any(|fd| fs::fstat(fd.as_fd()).is_ok_and(|stat| stat.nlink == 0)) {
                // There is nothing to look for.
                self.wanted.remove(&line.inode);
                continue;
            }
            let link = |fd: &OwnedFd| {
                let own = procfs::path(std::process::id() as i32, &format!("fd/{}", fd.as_raw_fd()));
                fs::read_link(own).ok()
            };
            let paths: Vec<PathBuf> = opened.iter().filter_map(link).collect();
            let _ = paths.iter().any(|path| self.take(path));
        }
    }

    /// What the tree has open, what it was started with, where it works: and the directories to begin a walk with.
    fn by_names(&mut self, scene: &Scene<'_>) -> Vec<PathBuf> {
        let mut starts: Vec<PathBuf> = Vec::new();
        if self.wanted.is_empty() {
            return starts;
        }
        for subject in scene.subjects.iter().filter(|subject| !subject.zombie) {
            let Ok(cwd) = fs::read_link(procfs::path(subject.door, "cwd")) else { continue };
            let words = procfs::cmdline(subject.door).unwrap_or_default();
            for word in words.iter().filter(|word| word.len() < libc::PATH_MAX as usize) {
                // `--watch=src` names one too.
                let value = word.as_bytes().split(|byte| *byte == b'=').next_back().unwrap_or_default();
                for name in [word.as_os_str(), OsStr::from_bytes(value)] {
                    let path = plain(&cwd.join(name));
                    self.take(&path);
                    if starts.len() < 1000 && fs::lstat(&path).is_ok_and(|stat| stat.kind() == libc::S_IFDIR)
                    {
                        starts.push(path);
                    }
                }
            }
            starts.push(cwd);
        }
        for file in scene.files.iter().filter(|file| file.link.is_absolute()) {
            self.take(&file.link);
            starts.extend(file.link.parent().map(Path::to_owned));
        }
        let above: Vec<PathBuf> =
            starts.iter().flat_map(|path| path.ancestors().skip(1)).map(Path::to_owned).collect();
        starts.extend(above);
        let mut seen = BTreeSet::new();
        starts.retain(|path| path.is_absolute() && seen.insert(path.clone()));
        for path in &starts {
            self.take(path);
        }
        // The deepest first: those above hold much that has nothing to do with the tree.
        starts.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
        let watched: Vec<PathBuf> = self.found.values().map(|(path, _)| path.clone()).collect();
        watched.into_iter().chain(starts).collect()
    }

    fn by_walking(&mut self, starts: Vec<PathBuf>) {
        let mut left = ENTRIES_MAX;
        for start in starts {
            let mut queue = VecDeque::from([start]);
            while let Some(directory) = queue.pop_front() {
                if self.wanted.is_empty() || left == 0 {
                    return;
                }
                if !self.looked_at.insert(directory.clone()) {
                    continue;
                }
                // What is on another file system can't hold what is wanted.
                let Ok(stat) = fs::lstat(&directory) else { continue };
                let may_hold = |line: &Line| {
                    line.inode.dev == stat.dev
                        || libc::major(line.inode.dev) == 0 && libc::major(stat.dev) == 0
                };
                if !self.wanted.values().any(may_hold) {
                    continue;
                }
                let (mut hits, mut below) = (BTreeSet::new(), Vec::new());
                let _ = fs::each_entry(&directory, |ino, is_directory, name| {
                    left = left.saturating_sub(1);
                    let path = || directory.join(OsStr::from_bytes(name));
                    if self.of_number(ino).next().is_some() {
                        hits.insert(path());
                    }
                    if is_directory && left > 0 {
                        below.push(path());
                    }
                });
                // What was found to be watched comes first: those who watch one directory of a tree watch them all.
                let (first, rest): (Vec<PathBuf>, Vec<PathBuf>) =
                    below.into_iter().partition(|path| hits.contains(path));
                for hit in &hits {
                    self.take(hit);
                }
                first.into_iter().rev().for_each(|path| queue.push_front(path));
                queue.extend(rest);
            }
        }
    }
}

/// A path without `.` and `..`, as far as they are where no symbolic link can be meant.
fn plain(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}
