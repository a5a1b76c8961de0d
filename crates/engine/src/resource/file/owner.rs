//! Who is told by a signal that an open file is ready (man 2 fcntl, F_SETOWN, F_SETSIG, O_ASYNC).
//!
//! **In the kernel**: an open file may have an owner (a thread, a process or a group), a signal to send instead of SIGIO, and
//! the status flag O_ASYNC, without which nothing is sent. The user ids of who set the owner are kept with it: the owner is
//! signalled only if that user could.
//!
//! **In the image**: `file/owner`, after all tables: the open file by a process and a descriptor of it, its owner as it sees
//! itself, signal, status flags.
//!
//! **Taken how**: F_GETOWN_EX, F_GETSIG and F_GETOWNER_UIDS on a duplicate.
//!
//! **Put back how**: by steps in a process that has the file and the same user ids, when all processes are made and have their
//! credentials. What was there before sends nothing.
//!
//! **Not saved**: refused are owners outside the tree, user ids that nobody has who has the file, directories with an owner, for
//! that is how F_NOTIFY begins, which nothing shows; and files of the outside that signal the tree.

use bardo_image::Record;
use bardo_kernel::fcntl::{self, Owner};
use bardo_kernel::stub::{Arg, Batches, STEP};
use bardo_kernel::{Sysno, procfs};
use serde::{Deserialize, Serialize};
use std::os::fd::AsFd;

use super::scene::{Scene, Seen};
use super::survey::Collected;
use super::table::FD_MAX;
use super::{FilesImage, Kind, image};
use crate::error::{Doing, Result};
use crate::support::Support;

/// The kind. It claims no open file: what has an owner is of another kind.
#[derive(Debug, Clone, Copy)]
pub struct Owners;

/// The record's name.
pub const NAME: &str = "file/owner";

/// The status flags that F_SETFL sets.
const STATUS: i32 = libc::O_APPEND | libc::O_NONBLOCK | libc::O_DIRECT | libc::O_NOATIME | libc::O_ASYNC;

/// The record of an open file's owner.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Owned {
    /// A process that has the file, as it sees itself.
    pub pid: i32,
    /// Its descriptor.
    pub fd: i32,
    /// Who is told (F_GETOWN_EX); none: nobody.
    pub owner: Option<Told>,
    /// By which signal (F_GETSIG); 0: by SIGIO.
    pub signal: i32,
    /// Status flags, if O_ASYNC is among them.
    pub flags: Option<i32>,
}

/// An owner, as it sees itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// F_OWNER_TID.
    Thread(i32),
    /// F_OWNER_PID.
    Process(i32),
    /// F_OWNER_PGRP.
    Group(i32),
}

impl Kind for Owners {
    fn support(&self) -> Support {
        Support {
            kind: NAME,
            kept: "F_SETOWN, F_SETOWN_EX, F_SETSIG and O_ASYNC",
            not_kept: "owners outside the tree, directories with an owner (F_NOTIFY): refused",
            privilege: "",
            workload: "file/owner",
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
        let owned: Owned = image::read(record)?;
        let known = image.leads_to(owned.pid, owned.fd).is_some() && (0..=FD_MAX).contains(&owned.fd);
        if !known
            || !(0..=64).contains(&owned.signal)
            || owned.flags.is_some_and(|flags| flags & !STATUS != 0)
        {
            return Err(image::wrong(record, format!("{owned:?}")));
        }
        image.owners.push(owned);
        Ok(())
    }
}

/// Whether it has anything of the sort.
pub(super) fn has(file: &Seen) -> bool {
    file.owner != Owner::None || file.signal != 0 || file.is_asynchronous
}

/// Whether its signals can be kept. Refuses what can't.
///
/// # Errors
/// Where looking failed.
pub(super) fn can_be_kept(file: &Seen, scene: &Scene<'_>, out: &mut Collected) -> Result<bool> {
    if !has(file) {
        return Ok(true);
    }
    let why = match look(file, scene)? {
        Ok(_) => return Ok(true),
        Err(why) => why,
    };
    refuse(file, scene, why, out);
    Ok(false)
}

/// Refuses an open file for its signals.
pub(super) fn refuse(file: &Seen, scene: &Scene<'_>, why: &str, out: &mut Collected) {
    let what = format!("{}, which sends signal {} to {:?}", file.show(), file.signal, file.owner);
    let remedy = "take its owner away before the checkpoint (fcntl(2), F_SETOWN with 0)";
    out.refuse(scene, file, NAME, what, why, remedy);
}

fn look(file: &Seen, scene: &Scene<'_>) -> Result<std::result::Result<Owned, &'static str>> {
    if file.stat.kind() == libc::S_IFDIR {
        return Ok(Err("nothing shows whether it is told of changes in a directory (F_NOTIFY)"));
    }
    let of = |pid: i32| scene.subjects.iter().find(|subject| subject.pid() == pid);
    let owner = match file.owner {
        Owner::None => None,
        Owner::Process(pid) => of(pid).map(|subject| Told::Process(subject.own_pid)),
        Owner::Group(group) => match of(group) {
            Some(leader) => Some(Told::Group(leader.own_pid)),
            // The group that the restarter is in would take its place.
            None if scene.subjects[0].stat.pgrp == group => None,
            None => scene
                .subjects
                .iter()
                .find(|subject| subject.stat.pgrp == group)
                .map(|member| Told::Group(member.status.ns_pgid.last().copied().unwrap_or(group))),
        },
        Owner::Thread(tid) => match scene.subjects.iter().find(|subject| subject.tids.contains(&tid)) {
            None => None,
            Some(subject) => {
                let status = procfs::status::read_thread(subject.pid(), tid);
                let status = status.doing("reading a thread's status", Some(&subject.who))?;
                Some(Told::Thread(status.ns_pid.last().copied().unwrap_or(tid)))
            }
        },
    };
    if owner.is_none() && file.owner != Owner::None {
        return Ok(Err("who gets its signals isn't part of the tree"));
    }
    let mut setter = Some(&file.holders[0]);
    if owner.is_some() {
        let fd = scene.duplicate(file)?;
        let uids = fcntl::owner_uids(fd.as_fd()).doing("asking who set its owner", Some(scene.who(file)))?;
        setter = file.holders.iter().find(|holder| {
            let uid = &scene.subjects[holder.subject].status.uid;
            (uid.real, uid.effective) == uids
        });
    }
    let Some(setter) = setter else {
        return Ok(Err("its owner was set with user ids that no process has any more that has it"));
    };
    Ok(Ok(Owned {
        pid: scene.subjects[setter.subject].own_pid,
        fd: setter.fd,
        owner,
        signal: file.signal,
        flags: file.is_asynchronous.then_some((file.flags & STATUS) | libc::O_ASYNC),
    }))
}

/// Adds the records of all files that send signals.
pub(super) fn collect(scene: &Scene<'_>, out: &mut Collected) -> Result<()> {
    for file in scene.files.iter().filter(|file| has(file)) {
        if out.is_external(file.id) {
            continue;
        }
        // What can't be kept was refused with the file.
        if let Ok(owned) = look(file, scene)? {
            out.record(NAME, file.id, &owned)?;
        }
    }
    Ok(())
}

/// The steps by which a process sets the owners of its files: batches of at most `room` bytes.
pub(super) fn steps<'a>(owned: impl Iterator<Item = &'a Owned>, room: usize) -> Batches {
    let mut batches = Batches::new(room);
    for Owned { fd, owner, signal, flags, .. } in owned {
        let batch = batches.with_room_for(3 * STEP + 128);
        let value = |number: i32| Arg::Value(number as u64);
        if let Some(owner) = owner {
            let owner = match owner {
                Told::Thread(tid) => Owner::Thread(*tid),
                Told::Process(pid) => Owner::Process(*pid),
                Told::Group(group) => Owner::Group(*group),
            };
            let owner = batch.data(&fcntl::owner_bytes(owner));
            batch.call_for(Sysno::fcntl, [value(*fd), value(fcntl::F_SETOWN_EX), owner], 0);
        }
        batch.call_for(Sysno::fcntl, [value(*fd), value(fcntl::F_SETSIG), value(*signal)], 0);
        if let Some(flags) = flags {
            batch.call_for(Sysno::fcntl, [value(*fd), value(libc::F_SETFL), value(*flags)], 0);
        }
    }
    batches
}
