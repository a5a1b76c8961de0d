//! Processes held by a descriptor (man 2 pidfd_open).
//!
//! **In the kernel**: a process or (PIDFD_THREAD) one thread, which it stands for even when that has ended and its pid is used
//! again. It can be read, as poll(2) has it, once the process has ended.
//!
//! **In the image**: `file/pidfd`: the pid as the tree sees it, none for one that is gone; access mode and status flags.
//!
//! **Taken how**: fdinfo: `Pid`, −1 where the process has been waited for.
//!
//! **Put back how**: by steps in the process that has it, once all processes exist and its other descriptors are in place:
//! pidfd_open(2) gives the lowest free number, dup3(2) moves it. One of a process that is gone is made by us: of a child that
//! ends at once.
//!
//! **Not saved**: how a process ended that is gone (PIDFD_GET_INFO). Refused: one of a process outside the tree, and one open
//! file of this kind that several processes share, for each makes its own.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use bardo_image::Record;
use bardo_kernel::stub::{Arg, Batches, STEP};
use bardo_kernel::{Sysno, pidfd, procfs};
use serde::{Deserialize, Serialize};

use super::nameless::{self, STATUS};
use super::pool::Making;
use super::scene::{Scene, Seen};
use super::survey::Collected;
use super::table::TableEntry;
use super::{FilesImage, Hindrance, Kind, Rules, Saved, image};
use crate::error::{Doing, Result};
use crate::support::Support;

/// The kind.
#[derive(Debug, Clone, Copy)]
pub struct Pidfd;

/// The record's name.
pub const NAME: &str = "file/pidfd";

/// PIDFD_THREAD, as it is shown among the status flags.
const THREAD: i32 = libc::O_EXCL;

/// The record of a pidfd.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OpenPidfd {
    /// The process, or thread, as it sees itself; none: it is gone (fdinfo, `Pid`).
    pub pid: Option<i32>,
    /// Access mode and status flags (fdinfo, `flags`).
    pub flags: i32,
}

/// Whether it is one.
pub(super) fn is(file: &Seen) -> bool {
    // It has inodes of its own since 6.9.
    nameless::is(file, "anon_inode:[pidfd]")
        || file.flags & libc::O_PATH == 0 && file.link.as_os_str().as_bytes().starts_with(b"pidfd:[")
}

/// Whether it is one that the process opens which has it.
pub(super) fn is_opened_by_its_process(file: &Seen) -> bool {
    let gone = file.told.iter().any(|(key, pid)| key == "Pid" && pid == "-1");
    is(file) && !gone
}

impl Kind for Pidfd {
    fn support(&self) -> Support {
        Support {
            kind: NAME,
            kept: "the process or thread of the tree, living, a zombie or gone; status flags",
            not_kept: "how a process ended that is gone; one of a process outside the tree, or shared by processes: refused",
            privilege: "",
            workload: "file/pidfd",
        }
    }

    fn records(&self) -> &'static [&'static str] {
        &[NAME]
    }

    fn claims(&self, file: &Seen, _: &Scene<'_>) -> bool {
        is(file)
    }

    fn collect(&self, file: &Seen, scene: &Scene<'_>, out: &mut Collected) -> Result<()> {
        if !nameless::is_ours(file, scene, "pidfd", libc::O_RDWR | THREAD, out)? {
            return Ok(());
        }
        let key = "Pid";
        let seen: i32 = nameless::must(nameless::told(file, scene, key)?, file, scene, key)?;
        if seen == -1 {
            return out.record(NAME, file.id, &OpenPidfd { pid: None, flags: file.flags });
        }
        let Some(pid) = own(seen, file.flags & THREAD != 0, scene)? else {
            let what = if seen > 0 {
                format!("pidfd of process {seen}")
            } else {
                "pidfd of a hidden process".into()
            };
            let why = "that process isn't part of the tree, and another one may have its pid at the restart";
            out.refuse(scene, file, NAME, what, why, "checkpoint a tree that has both, or close it before");
            return Ok(());
        };
        if file.holders.iter().any(|holder| holder.subject != file.holders[0].subject) {
            let why = "they share one open file; after a restart each would have its own";
            let remedy = "have the child close what it inherits, or checkpoint before it is made";
            out.refuse(scene, file, NAME, "pidfd that several processes have", why, remedy);
            return Ok(());
        }
        out.record(NAME, file.id, &OpenPidfd { pid: Some(pid), flags: file.flags })
    }

    fn take(&self, record: &Record, image: &mut FilesImage) -> Result<()> {
        let file: OpenPidfd = image::read(record)?;
        if file.flags & !(STATUS | THREAD | libc::O_RDWR) != 0 || file.pid.is_some_and(|pid| pid <= 0) {
            let why = format!("a pidfd of {:?} with the flags {:#o}", file.pid, file.flags);
            return Err(image::wrong(record, why));
        }
        if file.pid.is_none() {
            return image.add(record, Box::new(file));
        }
        if image.has(record.id) {
            return Err(image::wrong(record, "another open file has the same id".into()));
        }
        image.pidfds.insert(record.id, file);
        Ok(())
    }
}

/// A process of the tree, or one of its threads, as it sees itself.
fn own(seen: i32, thread: bool, scene: &Scene<'_>) -> Result<Option<i32>> {
    if let Some(subject) = scene.subjects.iter().find(|subject| subject.pid() == seen) {
        return Ok(Some(subject.own_pid));
    }
    let Some(subject) = scene.subjects.iter().find(|subject| thread && subject.tids.contains(&seen)) else {
        return Ok(None);
    };
    let status = procfs::status::read_thread(subject.pid(), seen);
    let status = status.doing("reading a thread's status", Some(&subject.who))?;
    Ok(Some(status.ns_pid.last().copied().unwrap_or(seen)))
}

impl Saved for OpenPidfd {
    fn what(&self) -> String {
        "pidfd".into()
    }

    fn check(&self, _: &Rules<'_>) -> Vec<Hindrance> {
        Vec::new()
    }

    fn open(&self, _: u64, _: &mut Making<'_>) -> Result<OwnedFd> {
        let make = || {
            let fd = pidfd::of_the_dead(self.flags & THREAD != 0)?;
            nameless::set_status(&fd, self.flags)?;
            Ok(fd)
        };
        make().doing("making a pidfd of a process that is gone", None)
    }
}

/// The steps that open a process's pidfds, once its other descriptors are in place: batches of at most `room` bytes.
pub(super) fn steps(entries: &[TableEntry], pidfds: &BTreeMap<u64, OpenPidfd>, room: usize) -> Batches {
    let mut batches = Batches::new(room);
    let mut numbers: BTreeMap<u64, Vec<TableEntry>> = BTreeMap::new();
    let mut taken: BTreeSet<i32> = BTreeSet::new();
    for entry in entries {
        if pidfds.contains_key(&entry.file) {
            numbers.entry(entry.file).or_default().push(*entry);
        } else {
            taken.insert(entry.fd);
        }
    }
    let mut lowest = 0;
    for (id, entries) in numbers {
        let OpenPidfd { pid, flags } = &pidfds[&id];
        while taken.contains(&lowest) {
            lowest += 1;
        }
        // One number more than it has may be needed, and each takes a step.
        let batch = batches.with_room_for((entries.len() + 3) * STEP);
        let value = |number: i32| Arg::Value(number as u64);
        let open = [value(pid.unwrap_or(0)), value(flags & (libc::O_NONBLOCK | THREAD))];
        batch.call_for(Sysno::pidfd_open, open, lowest as u64);
        // The one flag that is the descriptor's comes with it.
        let set = [value(lowest), value(libc::F_SETFL), value(flags & STATUS)];
        batch.call_for(Sysno::fcntl, set, 0);
        let mut stays = false;
        for entry in entries {
            let cloexec = if entry.cloexec { libc::O_CLOEXEC } else { 0 };
            if entry.fd != lowest {
                batch.call_for(
                    Sysno::dup3,
                    [value(lowest), value(entry.fd), value(cloexec)],
                    entry.fd as u64,
                );
            } else {
                stays = true;
                let flag = i32::from(entry.cloexec);
                batch.call_for(Sysno::fcntl, [value(lowest), value(libc::F_SETFD), value(flag)], 0);
            }
            taken.insert(entry.fd);
        }
        if !stays {
            batch.call_for(Sysno::close, [value(lowest)], 0);
        }
    }
    batches
}
