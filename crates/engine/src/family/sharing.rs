//! Processes that share what threads share: their descriptors, their working directory and umask.
//!
//! **In the kernel**: clone(2) with CLONE_FILES or CLONE_FS lets a child have its parent's table instead of a copy;
//! unshare(2) and execve(2) give a process (or a thread) a copy of its own. Nothing else makes or joins such a table.
//!
//! **In the image**: of each process that shares with one before it, that one's pid.
//!
//! **Taken how**: kcmp(2), which gives tables an order, so that those who share one stand side by side once sorted.
//!
//! **Put back how**: the parent makes the child with the same flags. What is in the table is put there once.
//!
//! **Not saved**: tables of two that are joined by a process that has left them or ended: refused.

use bardo_kernel::kcmp::{self, What};

use super::{Birth, Hindrance, Tree};
use crate::error::{Doing, Error, Result};
use crate::freeze::Frozen;
use crate::resource::file::unite;
use crate::resource::task::process::Process;

/// A table that processes can share.
struct Table {
    what: What,
    flag: u64,
    code: &'static str,
    name: &'static str,
    with: fn(&Process) -> Option<i32>,
    set: fn(&mut Process, i32),
}

const TABLES: [Table; 2] = [
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

/// Finds out who shares, and notes it in the records.
///
/// # Errors
/// Where the kernel doesn't compare them.
pub fn find(frozen: &Frozen, processes: &mut [Process]) -> Result<()> {
    for table in &TABLES {
        let alive = (0..processes.len()).filter(|index| !frozen.processes[*index].subject.zombie).collect();
        let classes = unite(alive, &|a, b| {
            let (one, other) = (&frozen.processes[a].subject, &frozen.processes[b].subject);
            let order = kcmp::compare(one.door, other.door, table.what)
                .doing(format!("comparing {}", table.name), Some(&one.who))?;
            order.ordering().ok_or_else(|| Error::Bug(format!("kcmp gives no order among {}", table.name)))
        })?;
        for class in classes {
            let first = processes[class[0]].pid;
            for index in &class[1..] {
                (table.set)(&mut processes[*index], first);
            }
        }
    }
    Ok(())
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
}
