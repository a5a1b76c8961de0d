//! `/proc`, typed: what the kernel shows of a process (man 5 proc), one file here per file there.
//!
//! Each module has `parse(text)`, which knows the format and nothing else, and `read(pid)`, which fetches the text first.
//! A line that a parser doesn't know is kept or skipped, since newer kernels add lines; a line it does know and can't
//! understand is a [`Failed`](crate::Failed) with EPROTO that names the file, the line and the text.
//!
//! A process chooses some of these bytes itself: its `comm`, the paths it maps, the names of its cgroups. They are kept
//! as [`OsString`](std::ffi::OsString), and no choice of them can forge a field.
//!
//! None of these texts is a snapshot unless the process is stopped: the kernel makes them piece by piece.
//!
//! Privilege: most files are readable for everybody. Those that tell of addresses or memory (`maps`, `smaps`, `auxv`,
//! `environ`, `syscall`, `fdinfo`, `timers`, `personality`, `ns`) need what ptrace(2) calls PTRACE_MODE_READ_FSCREDS, some
//! of them PTRACE_MODE_ATTACH_FSCREDS; without it, EACCES or EPERM. A process that is gone gives ENOENT on open, and
//! ESRCH on a read of a file opened before.

pub mod auxv;
pub mod cgroup;
pub mod children;
pub mod descriptors;
pub mod fdinfo;
pub mod limits;
pub mod locks;
pub mod maps;
pub mod mountinfo;
pub mod ns;
pub mod sched;
pub mod single;
pub mod smaps;
pub mod stat;
pub mod status;
pub mod syscall;
pub mod sysvipc;
mod text;
pub mod timens_offsets;
pub mod timers;

pub use single::{boot_id, cmdline, comm, environ};

use std::path::PathBuf;

use crate::error::Result;
use crate::fs;

/// The path of a process's file: `/proc/4127/maps`.
pub fn path(pid: i32, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{name}"))
}

/// The path of a thread's file: `/proc/4127/task/4130/stat`.
pub fn thread_path(pid: i32, tid: i32, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/task/{tid}/{name}"))
}

/// The processes that this `/proc` shows, in order of their pids. Some may be gone when this returns, others new.
pub fn processes() -> Result<Vec<i32>> {
    fs::list_numbers("/proc")
}

/// The threads of a process, in order of their tids; the leader may be among them as a zombie.
pub fn threads(pid: i32) -> Result<Vec<i32>> {
    fs::list_numbers(path(pid, "task"))
}

/// The open descriptors of a process, in order. Needs PTRACE_MODE_READ_FSCREDS.
pub fn descriptors(pid: i32) -> Result<Vec<i32>> {
    fs::list_numbers(path(pid, "fd"))
}

/// What a look at a process has found; none where it is gone, or closed to us. Whatever else keeps a look from being taken is
/// no answer: what wasn't seen may be there.
pub fn if_visible<T>(look: Result<T>) -> Result<Option<T>> {
    match look {
        Ok(seen) => Ok(Some(seen)),
        Err(e) if [libc::ENOENT, libc::ESRCH, libc::EACCES, libc::EPERM].contains(&e.errno.0) => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
pub(crate) mod tests;
