//! System V semaphore sets, message queues, and segments that nobody of the tree has attached (man 7 sysvipc).
//!
//! **In the kernel**: objects of an IPC namespace, found by an id or a key, with owners and permissions as files have. They stay
//! when all who used them are gone. Nothing ties them to a process but a few pids: who made a segment and who attached or
//! detached it last; who sent to and received from a queue last; who operated on a semaphore last. Adjustments that the kernel
//! makes when a process ends (SEM_UNDO) are told to nobody.
//!
//! **In the image**: `shared/sysv`, for what the user vouches for: its sort, id and key.
//!
//! **Taken how**: `/proc/sysvipc` and GETPID of semctl(2) name the users; a thread that waits in semop(2), msgsnd(2) or msgrcv(2)
//! names its object in a register. What a process of the tree has used is refused, unless it is vouched for by
//! `--external sem:ID`, `msg:ID` or `shm:ID`: it stays where it is, as a file does.
//!
//! **Put back how**: not at all: it must be there, under its id and key, or the host can't run the image.
//!
//! **Not saved**: content, SEM_UNDO. Objects whose pids tell nothing of the tree (it has yet to use them, or another process
//! was the last to) aren't noticed: they stay where they are, and after a restart elsewhere they are missing. Attached segments
//! are refused by [`crate::resource::memory`].

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::os::fd::AsFd;

use bardo_image::{Record, Writer};
use bardo_kernel::procfs::sysvipc::{self, Object, Sort};
use bardo_kernel::{Sysno, process_vm, sysv};
use serde::{Deserialize, Serialize};

use crate::error::{Doing, Error, Refusal, Result};
use crate::freeze::{Frozen, Thread};
use crate::subject::Subject;
use crate::support::Support;

/// The record's name, and the code of refusals.
pub const NAME: &str = "shared/sysv";

/// The line of the family's table.
pub const SUPPORT: Support = Support {
    kind: NAME,
    kept: "System V semaphores, message queues and segments that aren't attached, where --external vouches for them: they stay \
           where they are, and must be there at a restart",
    not_kept: "their content, SEM_UNDO; what the tree has used and nobody vouches for: refused; what another process has used \
               since isn't noticed",
    privilege: "",
    workload: "shared/sysv",
};

/// The record of an object that stays where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SysvObject {
    /// `shm`, `msg` or `sem`.
    pub sort: String,
    /// Its id.
    pub id: i32,
    /// Its key; 0 for IPC_PRIVATE.
    pub key: i32,
}

impl SysvObject {
    fn of(sort: Sort, object: &Object) -> SysvObject {
        SysvObject { sort: sort.name().into(), id: object.id, key: object.key }
    }

    /// As `--external` names it.
    fn name(&self) -> String {
        format!("{}:{}", self.sort, self.id)
    }
}

/// What the tree uses, and the user vouches for.
#[derive(Debug, Default)]
pub struct SysvObjects(Vec<SysvObject>);

fn show(sort: Sort) -> &'static str {
    match sort {
        Sort::Segment => "System V memory that isn't attached",
        Sort::Queue => "System V message queue",
        Sort::Set => "System V semaphore set",
    }
}

/// Finds what the tree uses. `attached`: segments that memory tells of.
///
/// # Errors
/// What keeps us from looking.
pub fn survey(
    frozen: &Frozen,
    attached: &BTreeSet<u64>,
    externals: &[String],
    refusals: &mut Vec<Refusal>,
) -> Result<SysvObjects> {
    let doing = "looking for System V objects";
    let mut found = SysvObjects::default();
    let mut all = Vec::new();
    for sort in Sort::ALL {
        all.extend(sysvipc::read(sort).doing(doing, None)?.into_iter().map(|object| (sort, object)));
    }
    if all.is_empty() {
        return Ok(found);
    }
    let tree: BTreeMap<i32, &Subject> =
        frozen.processes.iter().map(|process| (process.subject.pid(), &process.subject)).collect();
    let waiting = waiting(frozen).doing(doing, None)?;
    for (sort, object) in all {
        if sort == Sort::Segment && attached.contains(&(object.id as u64)) {
            continue;
        }
        let waits = waiting.get(&(sort, object.id)).copied();
        let uses = match waits {
            None => {
                users(sort, &object).doing(doing, None)?.into_iter().find_map(|pid| tree.get(&pid).copied())
            }
            some => some,
        };
        let Some(subject) = uses else { continue };
        let record = SysvObject::of(sort, &object);
        let name = record.name();
        if externals.contains(&name) {
            found.0.push(record);
            continue;
        }
        let does = if waits.is_some() { "a thread waits for it" } else { "this process has used it" };
        refusals.push(subject.refusal(
            NAME,
            None,
            format!("the {} {} (key {:#x}): {does}", show(sort), object.id, object.key),
            "it lives in the kernel beside the tree, and its content isn't saved yet",
            format!(
                "--external {name}   if it will still be there at the restart, as the tree left it and without what SEM_UNDO \
                 would undo"
            ),
        ));
    }
    Ok(found)
}

/// Who has used an object, as far as the kernel tells.
fn users(sort: Sort, object: &Object) -> bardo_kernel::Result<Vec<i32>> {
    let mut pids = object.pids.clone();
    if sort == Sort::Set {
        for semaphore in 0..object.semaphores {
            match sysv::last_user(object.id, semaphore) {
                Ok(pid) => pids.push(pid),
                // Not ours to read, or gone.
                Err(e) if [libc::EACCES, libc::EINVAL, libc::EIDRM].iter().any(|errno| e.is(*errno)) => break,
                Err(e) => return Err(e),
            }
        }
    }
    pids.retain(|pid| *pid > 0);
    Ok(pids)
}

/// The objects that threads of the tree wait for.
fn waiting(frozen: &Frozen) -> bardo_kernel::Result<BTreeMap<(Sort, i32), &Subject>> {
    let mut objects = BTreeMap::new();
    for process in &frozen.processes {
        for thread in &process.threads {
            if let Some(waits) = waits_for(&process.subject, thread)? {
                objects.insert(waits, &process.subject);
            }
        }
    }
    Ok(objects)
}

fn waits_for(subject: &Subject, thread: &Thread) -> bardo_kernel::Result<Option<(Sort, i32)>> {
    let Some(held) = &thread.held else { return Ok(None) };
    let registers = &held.registers;
    let number = |nr: u64| match Sysno::new(nr as usize)? {
        Sysno::semop | Sysno::semtimedop => Some(Sort::Set),
        Sysno::msgsnd | Sysno::msgrcv => Some(Sort::Queue),
        _ => None,
    };
    let id = registers.arguments()[0] as i32;
    if let Some(sort) = registers.call().and_then(number) {
        return Ok(Some((sort, id)));
    }
    // One that was interrupted for no reason is about to make its call again.
    let (Some(sort), Some(mem)) = (number(registers.rax), &subject.mem) else { return Ok(None) };
    let mut code = [0; 2];
    let read = process_vm::read_mem(mem.as_fd(), registers.ip(), &mut code);
    Ok((read.is_ok_and(|n| n == 2) && code == SYSCALL).then_some((sort, id)))
}

/// The instruction.
const SYSCALL: [u8; 2] = [0x0f, 0x05];

impl SysvObjects {
    /// As `--external` names them.
    pub fn externals(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(SysvObject::name)
    }

    /// Writes their records.
    ///
    /// # Errors
    /// The image's.
    pub fn write<W: Write>(&self, image: &mut Writer<W>) -> std::io::Result<()> {
        for (at, object) in self.0.iter().enumerate() {
            image.record(NAME, at as u64, object)?;
        }
        Ok(())
    }
}

/// What an image tells of such objects.
#[derive(Debug, Default)]
pub struct SysvImage(Vec<SysvObject>);

impl SysvImage {
    /// Takes a record if it is of this kind.
    ///
    /// # Errors
    /// [`Error::Image`] where it isn't what a checkpoint writes.
    pub fn take(&mut self, record: &Record) -> Result<bool> {
        if record.kind != NAME {
            return Ok(false);
        }
        let object: SysvObject = record.read().map_err(Error::Image)?;
        if Sort::ALL.iter().all(|sort| sort.name() != object.sort) {
            return Err(Error::Image(record.unexpected(format!("an object of the sort {:?}", object.sort))));
        }
        self.0.push(object);
        Ok(true)
    }

    /// What isn't there any more.
    ///
    /// # Errors
    /// What keeps us from looking.
    pub fn check(&self) -> Result<Vec<Refusal>> {
        let mut refusals = Vec::new();
        for sort in Sort::ALL {
            let wanted = || self.0.iter().filter(|object| object.sort == sort.name());
            if wanted().next().is_none() {
                continue;
            }
            let there = sysvipc::read(sort).doing("looking for System V objects", None)?;
            for object in wanted() {
                let now = there.iter().find(|now| now.id == object.id);
                let what = match now {
                    Some(now) if now.key == object.key => continue,
                    Some(now) => format!("has the key {:#x} now", now.key),
                    None => "isn't here".into(),
                };
                refusals.push(Refusal {
                    who: None,
                    fd: None,
                    what: format!(
                        "the {} {} (key {:#x}), which belongs to the outside, {what}",
                        show(sort),
                        object.id,
                        object.key
                    ),
                    code: NAME,
                    why: "the tree uses it, and the image doesn't have its content".into(),
                    remedy: "restart where it is: on the same host, in the same IPC namespace, before the next boot".into(),
                });
            }
        }
        Ok(refusals)
    }
}
