//! File locks (man 2 fcntl, flock).
//!
//! **In the kernel**: advisory, on an inode, in three kinds. POSIX locks (F_SETLK) of a range of bytes belong to a process, and
//! go with the first descriptor of that inode that it closes. Open file description locks (F_OFD_SETLK) of a range, and
//! flock(2) locks of the whole file, belong to an open file, and go with its last descriptor. POSIX and OFD locks meet each
//! other; flock(2) locks meet only their like. A lease (F_SETLEASE) isn't a lock: it tells its holder of others.
//!
//! **In the image**: `file/locks`: for each process the locks that it takes again: its POSIX locks; an open file's locks with the
//! process that took them, if that is told and still has it, else with the first that has it.
//!
//! **Taken how**: the `lock:` lines of `/proc/PID/fdinfo/N`, which are those of this open file, and this process's through it.
//!
//! **Put back how**: steps in each process, once its descriptors are in place: F_SETLK, F_OFD_SETLK, flock(2), none of which
//! waits. A lock that somebody else has by then is found beforehand in `/proc/locks`, as far as it shows; else the step
//! fails, and with it the restart. A thread that waited for a lock makes its call again.
//!
//! **Not saved**: the order of those who wait. Leases are refused, for their holder would have to be asked while it is stopped,
//! and locks on what belongs to the outside.

use std::collections::BTreeMap;

use bardo_image::Record;
use bardo_kernel::procfs::locks::{self, Access, Kind as LockKind, Lock};
use bardo_kernel::stub::{Arg, Batch};
use bardo_kernel::{Sysno, fcntl, procfs};
use serde::{Deserialize, Serialize};

use super::scene::{Holder, Scene, Seen};
use super::survey::Collected;
use super::table::FD_MAX;
use super::{FilesImage, Hindrance, Kind, image};
use crate::error::Result;
use crate::support::Support;

/// The kind. It claims no open file: what is locked is of another kind.
#[derive(Debug, Clone, Copy)]
pub struct Locks;

/// The record's name.
pub const NAME: &str = "file/locks";

/// Locks in one record. An image's record has at most 2^20 items, and a lock is 17.
const LOCKS_MAX: usize = 1 << 15;

/// The record of a process's locks, or of a part of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LocksRecord {
    /// The process, as it sees itself.
    pub pid: i32,
    /// What it locks.
    pub locks: Vec<Held>,
}

/// Which of the three kinds a lock is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sort {
    /// F_SETLK.
    Posix,
    /// F_OFD_SETLK.
    OpenFile,
    /// flock(2).
    Flock,
}

/// A lock.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Held {
    /// The descriptor through which it is taken again.
    pub fd: i32,
    /// Its kind.
    pub sort: Sort,
    /// Whether it excludes readers too.
    pub write: bool,
    /// The first byte.
    #[serde(default)]
    pub start: u64,
    /// The last byte; none: the end of the file, however far it grows.
    #[serde(default)]
    pub end: Option<u64>,
    /// The file system's device (fdinfo, `lock`).
    pub dev: u64,
    /// The inode.
    pub ino: u64,
}

impl Kind for Locks {
    fn support(&self) -> Support {
        Support {
            kind: NAME,
            kept: "POSIX (fcntl), open file description and flock locks; who waits for one waits again",
            not_kept: "leases, and locks on what belongs to the outside: refused. A lock that somebody else has taken by \
                       then keeps the restart from starting",
            privilege: "",
            workload: "file/locks",
        }
    }

    fn records(&self) -> &'static [&'static str] {
        &[NAME]
    }

    fn claims(&self, _: &Seen, _: &Scene<'_>) -> bool {
        false
    }

    fn collect(&self, _: &Seen, _: &Scene<'_>, _: &mut Collected) -> Result<()> {
        Ok(())
    }

    fn take(&self, record: &Record, image: &mut FilesImage) -> Result<()> {
        let part: LocksRecord = image::read(record)?;
        for lock in &part.locks {
            if !(0..=FD_MAX).contains(&lock.fd) || !lock.is_sound() || part.pid <= 0 {
                return Err(image::wrong(record, format!("{lock:?} of process {}", part.pid)));
            }
        }
        image.locks.entry(part.pid).or_default().extend(part.locks);
        Ok(())
    }
}

impl Held {
    fn of(fd: i32, lock: &Lock) -> Option<Held> {
        let sort = match lock.kind {
            LockKind::Posix => Sort::Posix,
            LockKind::OpenFile => Sort::OpenFile,
            LockKind::Flock => Sort::Flock,
            LockKind::Lease | LockKind::Other(_) => return None,
        };
        let write = match lock.access {
            Access::Read => false,
            Access::Write => true,
            Access::ReadWrite | Access::None => return None,
        };
        let held =
            Held { fd, sort, write, start: lock.start, end: lock.end, dev: lock.dev(), ino: lock.inode };
        held.is_sound().then_some(held)
    }

    /// Whether the kernel can have such a lock: offsets are positive 64-bit numbers.
    fn is_sound(&self) -> bool {
        const LAST: u64 = i64::MAX as u64;
        self.start <= LAST && self.end.is_none_or(|end| end >= self.start && end < LAST)
    }

    /// Whether the two can't be held by two at once.
    fn excludes(&self, other: &Held) -> bool {
        let same_world = (self.sort == Sort::Flock) == (other.sort == Sort::Flock);
        let before = |a: &Held, b: &Held| a.end.is_some_and(|end| end < b.start);
        (self.dev, self.ino) == (other.dev, other.ino)
            && same_world
            && (self.write || other.write)
            && !before(self, other)
            && !before(other, self)
    }

    /// The step that takes it.
    fn step(&self, batch: &mut Batch) {
        let fd = Arg::Value(self.fd as u64);
        let command = match self.sort {
            Sort::Posix => libc::F_SETLK,
            Sort::OpenFile => libc::F_OFD_SETLK,
            Sort::Flock => {
                let how = if self.write { libc::LOCK_EX } else { libc::LOCK_SH };
                batch.call_for(Sysno::flock, [fd, Arg::Value((how | libc::LOCK_NB) as u64)], 0);
                return;
            }
        };
        let len = self.end.map_or(0, |end| end - self.start + 1);
        let lock = batch.data(&fcntl::lock_bytes(self.write, self.start, len));
        batch.call_for(Sysno::fcntl, [fd, Arg::Value(command as u64), lock], 0);
    }

    fn show(&self) -> String {
        let kind = match self.sort {
            Sort::Posix => "POSIX lock",
            Sort::OpenFile => "open file description lock",
            Sort::Flock => "flock",
        };
        let access = if self.write { "write" } else { "read" };
        let end = self.end.map_or("the end".to_owned(), |end| end.to_string());
        format!("{kind} ({access}), bytes {} to {end}", self.start)
    }
}

/// The locks held through an open file that can't be taken again.
pub(super) fn refused(file: &Seen) -> impl Iterator<Item = &(Holder, Lock)> {
    file.locks.iter().filter(|(holder, lock)| Held::of(holder.fd, lock).is_none())
}

/// What a lock is, for a message.
pub(super) fn show(lock: &Lock) -> String {
    let end = lock.end.map_or("the end".to_owned(), |end| end.to_string());
    let kind = match &lock.kind {
        LockKind::Posix => "POSIX (fcntl) lock",
        LockKind::OpenFile => "open file description lock",
        LockKind::Flock => "flock lock",
        LockKind::Lease => "file lease",
        LockKind::Other(other) => other,
    };
    format!("a {kind}, {:?}, bytes {} to {end}", lock.access, lock.start)
}

/// Adds the locks of all processes.
pub(super) fn collect(scene: &Scene<'_>, out: &mut Collected) -> Result<()> {
    let mut by_process: BTreeMap<usize, Vec<Held>> = BTreeMap::new();
    for file in scene.files.iter().filter(|file| !file.locks.is_empty()) {
        // Every descriptor of an open file shows all its locks; a process's own are shown at its descriptors alone.
        let mut seen: Vec<(Option<usize>, Held)> = Vec::new();
        for (holder, lock) in &file.locks {
            let Some(held) = Held::of(holder.fd, lock) else { continue };
            let owner = (held.sort == Sort::Posix).then_some(holder.subject);
            let same = |(other, one): &(Option<usize>, Held)| {
                *other == owner && Held { fd: held.fd, ..one.clone() } == held
            };
            if seen.iter().any(same) {
                continue;
            }
            // A file without a name is made anew: nobody else can have a lock there.
            let held = if file.stat.nlink == 0 { Held { dev: 0, ino: 0, ..held } } else { held };
            seen.push((owner, held.clone()));
            // For an open file description lock the kernel shows no pid.
            let taker = file.holders.iter().find(|h| scene.subjects[h.subject].pid() == lock.pid);
            let holder = match (held.sort, taker) {
                (Sort::Flock, Some(taker)) => taker,
                (Sort::Posix, _) => holder,
                _ => &file.holders[0],
            };
            by_process.entry(holder.subject).or_default().push(Held { fd: holder.fd, ..held });
        }
    }
    let mut id = 0;
    for (subject, mut locks) in by_process {
        locks.sort();
        for part in locks.chunks(LOCKS_MAX) {
            id += 1;
            let pid = scene.subjects[subject].own_pid;
            out.record(NAME, id, &LocksRecord { pid, locks: part.to_vec() })?;
        }
    }
    Ok(())
}

/// The steps that take a process's locks, in batches of at most `room`.
pub(super) fn steps(held: &[Held], room: usize) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for lock in held {
        let mut piece = Batch::new();
        lock.step(&mut piece);
        match batches.last_mut() {
            // Alignment of the data may cost 64 bytes more.
            Some(last) if last.room() + piece.room() + 64 <= room => last.append(&piece),
            _ => batches.push(piece),
        }
    }
    batches
}

/// Locks of the image that somebody here has, as far as `/proc/locks` shows.
pub(super) fn check<'a>(all: impl Iterator<Item = (i32, &'a Held)>) -> Vec<(i32, Hindrance)> {
    let mut all = all.peekable();
    if all.peek().is_none() {
        return Vec::new();
    }
    // Not readable: then the steps find out.
    let here: Vec<(i32, Held)> = locks::read()
        .unwrap_or_default()
        .iter()
        .filter(|lock| !lock.waiting)
        .filter_map(|lock| Held::of(-1, lock).map(|held| (lock.pid, held)))
        .collect();
    let taken = |(_, lock): (i32, &Held)| {
        let (pid, theirs) = here.iter().find(|(_, theirs)| theirs.excludes(lock))?;
        let name = procfs::comm(*pid).map_or(String::new(), |name| format!(" ({})", name.to_string_lossy()));
        let who = if *pid > 0 { format!("pid {pid}{name}") } else { "another process".into() };
        Some((
            lock.fd,
            Hindrance {
                code: "file/lock-taken",
                what: lock.show(),
                why: format!("{who} has a lock there that excludes it: {}", theirs.show()),
                remedy: "end who has it, or have it release the lock".into(),
            },
        ))
    };
    all.filter_map(taken).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(sort: Sort, write: bool, start: u64, end: Option<u64>) -> Held {
        Held { fd: 3, sort, write, start, end, dev: 1, ino: 2 }
    }

    #[test]
    fn locks_exclude_each_other_where_the_kernel_says_so() {
        let write = held(Sort::Posix, true, 10, Some(19));
        assert!(write.excludes(&held(Sort::OpenFile, false, 19, None)));
        assert!(!write.excludes(&held(Sort::OpenFile, false, 20, None)));
        assert!(!write.excludes(&held(Sort::OpenFile, true, 0, Some(9))));
        assert!(!write.excludes(&held(Sort::Flock, true, 0, None)));
        assert!(!write.excludes(&Held { ino: 3, ..write.clone() }));
        let read = held(Sort::Posix, false, 0, None);
        assert!(!read.excludes(&held(Sort::OpenFile, false, 0, None)));
    }

    #[test]
    fn only_ranges_that_the_kernel_can_have_are_sound() {
        assert!(held(Sort::Posix, true, 0, Some(0)).is_sound());
        assert!(held(Sort::Posix, true, i64::MAX as u64, None).is_sound());
        assert!(!held(Sort::Posix, true, 5, Some(4)).is_sound());
        assert!(!held(Sort::Posix, true, 0, Some(u64::MAX)).is_sound());
    }

    #[test]
    fn batches_have_room() {
        let many: Vec<Held> = (0..1000).map(|n| held(Sort::Posix, true, n * 2, Some(n * 2))).collect();
        let batches = steps(&many, 4096);
        assert!(batches.len() > 10 && batches.iter().all(|batch| batch.room() <= 4096));
        assert_eq!(batches.iter().map(Batch::len).sum::<usize>(), 1000);
    }
}
