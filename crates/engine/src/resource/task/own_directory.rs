//! A thread's own working directory and umask (clone(2) without CLONE_FS, unshare(2)).
//!
//! **In the kernel**: the threads that libc makes share root, working directory and umask. One that calls unshare(2) with CLONE_FS
//! gets a copy of its own, and shares it with the threads that it makes from then on. File servers do that, to work in many
//! directories at once.
//!
//! **In the image**: a field of `task/thread`, for each thread that doesn't share with the first of its process: which thread is
//! the first that has the same, the directory, the umask.
//!
//! **Taken how**: kcmp(2) between threads; `/proc/PID/task/TID/cwd` and `status`.
//!
//! **Put back how**: the process's first thread makes the first of those who share, without CLONE_FS; that one makes the others. Then
//! chdir(2) and umask(2) in it.
//!
//! **Not saved**: such a directory that was removed; a root of the thread's own; what a thread of one process shares with another
//! process: refused.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use bardo_image::Blob;
use bardo_kernel::kcmp::{self, What};
use bardo_kernel::procfs::{self, status};
use bardo_kernel::stub::{Arg, Batch};
use bardo_kernel::{Sysno, fs};
use serde::{Deserialize, Serialize};

use crate::error::{Doing, Error, Refusal, Result};
use crate::freeze::Frozen;
use crate::resource::file::unite;
use crate::subject::Subject;

/// The code of its refusals.
const CODE: &str = "task/own-fs";

/// Where a thread works that doesn't share that with its process's first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnDirectory {
    /// The first thread that has the same, by its own tid.
    pub with: i32,
    /// The working directory.
    pub cwd: Blob,
    /// The file mode creation mask.
    pub umask: u32,
}

/// Finds them in a process: the threads by their own tids, and the first of those who share one, for each, by the tid that we see.
///
/// # Errors
/// Where the kernel doesn't compare them, or files of `/proc` can't be read.
pub fn look(
    subject: &Subject,
    refusals: &mut Vec<Refusal>,
) -> Result<(BTreeMap<i32, OwnDirectory>, Vec<i32>)> {
    let who = Some(&subject.who);
    let doing = "comparing working directories";
    let mut apart = Vec::new();
    for tid in subject.tids.iter().filter(|tid| **tid != subject.door) {
        if !kcmp::compare(subject.door, *tid, What::Fs).doing(doing, who)?.is_same() {
            apart.push(*tid);
        }
    }
    let classes = unite((0..apart.len()).collect(), &|a, b| {
        let order = kcmp::compare(apart[a], apart[b], What::Fs).doing(doing, who)?;
        order.ordering().ok_or_else(|| Error::Bug("kcmp gives no order among working directories".into()))
    })?;
    let (mut found, mut firsts) = (BTreeMap::new(), Vec::new());
    for class in classes {
        let pid = subject.pid();
        let own = |index: &usize| -> Result<i32> {
            let status = status::read_thread(pid, apart[*index]).doing("reading a thread's status", who)?;
            Ok(status.ns_pid.last().copied().unwrap_or(apart[*index]))
        };
        let (tid, with) = (apart[class[0]], own(&class[0])?);
        let file = |name| procfs::thread_path(pid, tid, name);
        let cwd = fs::read_link(file("cwd")).doing("reading a thread's working directory", who)?;
        let umask =
            status::read_thread(pid, tid).doing("reading a thread's status", who)?.umask.unwrap_or(0o022);
        let mut refuse = |what: String, why: &str, remedy: &str| {
            refusals.push(subject.refusal(CODE, None, what, why, remedy));
        };
        let root = fs::read_link(file("root")).doing("reading a thread's root directory", who)?;
        if root != Path::new("/") {
            refuse(
                format!("the root directory of thread {tid} is {}", root.display()),
                "every path it names would lead elsewhere",
                "checkpoint while no thread has called chroot",
            );
        }
        let inode = fs::stat(file("cwd")).doing("looking at a thread's working directory", who)?;
        if !fs::stat(&cwd).is_ok_and(|there| (there.dev, there.ino) == (inode.dev, inode.ino)) {
            refuse(
                format!("thread {tid} works in {}, which has no name any more", cwd.display()),
                "a restart goes there by its name",
                "have the thread work in another directory",
            );
        }
        let directory = OwnDirectory { with, cwd: Blob(cwd.into_os_string().into_vec()), umask };
        for index in &class {
            found.insert(own(index)?, directory.clone());
        }
        firsts.push(tid);
    }
    Ok((found, firsts))
}

/// Refuses what a thread of one process shares with another process: `owners` are the processes that have such threads, by their
/// indices, each with the first of those who share one.
///
/// # Errors
/// Where the kernel doesn't compare them.
pub fn refuse_shared(frozen: &Frozen, owners: &[(usize, i32)], refusals: &mut Vec<Refusal>) -> Result<()> {
    for (owner, tid) in owners {
        let subject = &frozen.processes[*owner].subject;
        let others = frozen.processes.iter().enumerate().filter(|(other, _)| other != owner);
        let doors = others.map(|(_, process)| &process.subject).filter(|other| !other.zombie);
        let threads = owners.iter().filter(|(other, _)| other != owner);
        let doors = doors.map(|other| (other.door, &other.who));
        let threads = threads.map(|(other, tid)| (*tid, &frozen.processes[*other].subject.who));
        for (other, theirs) in doors.chain(threads) {
            let order = kcmp::compare(*tid, other, What::Fs)
                .doing("comparing working directories", Some(&subject.who))?;
            if order.is_same() {
                refusals.push(subject.refusal(
                    CODE,
                    None,
                    format!("its thread {tid} shares a working directory with {theirs}, and its other threads don't"),
                    "only what the first threads of processes share is saved",
                    "checkpoint while there is no such child",
                ));
            }
        }
    }
    Ok(())
}

impl OwnDirectory {
    /// Goes there, inside the first thread that has it.
    pub fn put(&self, batch: &mut Batch) {
        let cwd = batch.text(&self.cwd);
        batch.call(Sysno::chdir, [cwd]);
        batch.attempt(Sysno::umask, [Arg::Value(u64::from(self.umask))]);
    }
}
