//! Processes that share what threads share: their memory, their signal handlers, their descriptors, their working directory and
//! umask.
//!
//! **In the kernel**: clone(2) with CLONE_VM, CLONE_SIGHAND, CLONE_FILES or CLONE_FS lets a child have what its parent has instead
//! of a copy. execve(2) gives a process memory, handlers and descriptors of its own, unshare(2) a copy of the others; nothing
//! else makes or joins them. Handlers are only shared with the memory that they lie in. A parent in vfork(2) shares its memory
//! as well, but can't be stopped, so that nobody sees it here.
//!
//! **In the image**: of each process that shares with one before it, that one's pid. Memory is in the image once, as that
//! of the first who has it.
//!
//! **Taken how**: kcmp(2), which gives them an order, so that those who share stand side by side once sorted.
//!
//! **Put back how**: the parent makes the child with the same flags. What is shared is put together once: memory by the first
//! who has it, and who is also the last to leave the shelf.
//!
//! **Not saved**: what two share who are joined by a process that has left it or ended, or what is shared with a process outside
//! the tree: refused.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashSet};

use bardo_kernel::kcmp::{self, Order, What};
use bardo_kernel::procfs::{self, children};

use super::{Birth, Hindrance, Tree};
use crate::error::{Doing, Error, Refusal, Result};
use crate::freeze::Frozen;
use crate::resource::file::unite;
use crate::resource::task::process::Process;

/// What processes can share.
struct Table {
    what: What,
    flag: u64,
    code: &'static str,
    name: &'static str,
    with: fn(&Process) -> Option<i32>,
    set: fn(&mut Process, i32),
}

/// Where memory is among [`TABLES`].
const MEMORY: usize = 0;
const TABLES: [Table; 4] = [
    Table {
        what: What::Vm,
        flag: libc::CLONE_VM as u64,
        code: "task/shared-memory",
        name: "memory",
        with: |process| process.memory_with,
        set: |process, with| process.memory_with = Some(with),
    },
    Table {
        what: What::Sighand,
        flag: libc::CLONE_SIGHAND as u64,
        code: "task/shared-handlers",
        name: "signal handlers",
        with: |process| process.handlers_with,
        set: |process, with| process.handlers_with = Some(with),
    },
    Table {
        what: What::Files,
        flag: libc::CLONE_FILES as u64,
        code: "task/shared-files",
        name: "descriptors",
        with: |process| process.files_with,
        set: |process, with| process.files_with = Some(with),
    },
    Table {
        what: What::Fs,
        flag: libc::CLONE_FS as u64,
        code: "task/shared-fs",
        name: "working directory and umask",
        with: |process| process.directory_with,
        set: |process, with| process.directory_with = Some(with),
    },
];

/// Who shares what in a frozen tree.
#[derive(Debug)]
pub struct Sharing {
    /// Of each table the processes that have the same one, by their indices, in the kernel's order.
    classes: [Vec<Vec<usize>>; TABLES.len()],
}

impl Sharing {
    /// Finds out who shares, and refuses those who do so with a process outside the tree.
    ///
    /// # Errors
    /// Where the kernel doesn't compare them.
    pub fn look(frozen: &Frozen, refusals: &mut Vec<Refusal>) -> Result<Sharing> {
        let mut classes: [Vec<Vec<usize>>; TABLES.len()] = Default::default();
        let subject = |index: usize| &frozen.processes[index].subject;
        let alive: Vec<usize> = (0..frozen.processes.len()).filter(|index| !subject(*index).zombie).collect();
        for (table, classes) in TABLES.iter().zip(&mut classes) {
            *classes = unite(alive.clone(), &|a, b| {
                let order = kcmp::compare(subject(a).door, subject(b).door, table.what)
                    .doing(format!("comparing {}", table.name), Some(&subject(a).who))?;
                order
                    .ordering()
                    .ok_or_else(|| Error::Bug(format!("kcmp gives no order among {}", table.name)))
            })?;
        }
        let sharing = Sharing { classes };
        for outsider in outsiders(frozen) {
            sharing.refuse_outsider(frozen, outsider, refusals);
        }
        Ok(sharing)
    }

    /// Refuses what somebody outside the tree shares with it. Whom we may not look at is passed over.
    fn refuse_outsider(&self, frozen: &Frozen, outsider: i32, refusals: &mut Vec<Refusal>) {
        let subject = |class: &[usize]| &frozen.processes[class[0]].subject;
        for (table, classes) in TABLES.iter().zip(&self.classes) {
            let order = |class: &Vec<usize>| {
                let order = kcmp::compare(subject(class).door, outsider, table.what).ok();
                order.and_then(Order::ordering).unwrap_or(Ordering::Greater)
            };
            let Ok(found) = classes.binary_search_by(order) else { continue };
            let name = procfs::comm(outsider).map(|name| name.to_string_lossy().into_owned());
            refusals.push(subject(&classes[found]).refusal(
                table.code,
                None,
                format!(
                    "it shares its {} with pid {outsider} ({}), which isn't of the tree",
                    table.name,
                    name.unwrap_or_default()
                ),
                "after a restart the two would no longer share",
                "checkpoint their common ancestor, or try again once the process has called exec",
            ));
        }
    }

    /// The groups of processes that have the same memory, by their indices; the first of each has it in the image.
    pub fn of_memory(&self) -> impl Iterator<Item = &[usize]> {
        self.classes[MEMORY].iter().map(Vec::as_slice)
    }

    /// Notes it in the records.
    pub fn note(&self, processes: &mut [Process]) {
        for (table, classes) in TABLES.iter().zip(&self.classes) {
            for class in classes {
                let first = processes[class[0]].pid;
                for index in &class[1..] {
                    (table.set)(&mut processes[*index], first);
                }
            }
        }
    }
}

/// Those outside the tree who could have a part in what it shares: the root's parent, and the children of that one and of init,
/// who looks after orphans.
fn outsiders(frozen: &Frozen) -> BTreeSet<i32> {
    let inside = frozen.processes.iter().map(|process| process.subject.pid());
    let inside: HashSet<i32> = inside.chain([std::process::id() as i32, 0]).collect();
    let above = frozen.processes.first().map_or(0, |root| root.subject.stat.ppid);
    let children = [above, 1].into_iter().flat_map(|pid| children::read(pid).unwrap_or_default());
    children.chain([above]).filter(|pid| !inside.contains(pid)).collect()
}

/// With which flags children are made.
pub(super) fn plan(tree: &Tree<'_>, births: &mut [Birth], hindrances: &mut Vec<Hindrance>) {
    for table in &TABLES {
        // A table by the pid of the first who has it.
        let of = |index: usize| {
            let process = &tree.processes[index];
            (table.with)(process).unwrap_or(process.pid)
        };
        for birth in births.iter_mut() {
            let own = of(birth.process);
            let process = &tree.processes[birth.process];
            if own == process.pid {
                continue;
            }
            let from_parent = birth.adopted.is_none() && birth.parent.is_some_and(|parent| of(parent) == own);
            if from_parent && process.ended.is_none() {
                birth.shares |= table.flag;
                continue;
            }
            hindrances.push(Hindrance {
                process: birth.process,
                code: table.code,
                what: format!("it shares its {} with {own}, and its parent doesn't", table.name),
                why: "that is inherited from a parent alone: whoever was between them has its own by now, or has ended",
            });
        }
    }
    const HANDLERS: u64 = libc::CLONE_SIGHAND as u64;
    for birth in births.iter().filter(|birth| birth.shares & (HANDLERS | libc::CLONE_VM as u64) == HANDLERS) {
        hindrances.push(Hindrance {
            process: birth.process,
            code: "task/shared-handlers",
            what: "it shares its signal handlers, and not the memory that they are in".into(),
            why: "the kernel lets nobody do that (clone(2), CLONE_SIGHAND)",
        });
    }
}
