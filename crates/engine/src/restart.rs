//! The flow of a restart.

use std::path::PathBuf;

use crate::error::Result;
use crate::watch::Watch;

/// What to do about files that changed since the checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Files {
    /// Report them and start nothing.
    #[default]
    MustMatch,
    /// Go on with the files as they are now.
    IgnoreChanges,
}

/// In which pid namespace the tree comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PidSpace {
    /// The caller's where the kernel lets us choose pids there, else a new one.
    #[default]
    Auto,
    /// The caller's, or fail.
    Callers,
    /// A new one (with a user namespace where the caller lacks CAP_SYS_ADMIN).
    New,
}

/// Where the image comes from.
#[derive(Debug)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// A stream that is already open.
    Stream(std::os::fd::OwnedFd),
}

/// What to restart, and how.
#[derive(Debug)]
pub struct Request {
    /// The image.
    pub source: Source,
    /// Leave every process stopped as by SIGSTOP.
    pub stopped: bool,
    /// What the outside connects to: `stdout=FILE`, `pipe:[4711]=fd:5`, in the names `show` prints.
    pub external: Vec<String>,
    /// Changed files.
    pub files: Files,
    /// Namespace.
    pub pid_space: PidSpace,
    /// The tree lives on without us: its root is not tied to the caller's exit.
    pub detach: bool,
}

/// A tree that runs again.
#[derive(Debug)]
pub struct Restarted {
    /// The root's pid as the caller sees it. The root is a child of the calling process, or (new pid namespace) of an
    /// init that is.
    pub root: i32,
    /// The pid to wait for: the root itself or the namespace's init, which exits as the root does.
    pub wait_for: i32,
    /// How many processes.
    pub processes: u64,
    /// How many threads.
    pub threads: u64,
    /// Bytes of memory put back.
    pub page_bytes: u64,
    /// From the call to the tree's first instruction, in microseconds.
    pub total_us: u64,
}

/// Restarts a tree.
///
/// # Errors
/// See [`crate::Error`]. Whatever it is, nothing runs and nothing was left half-made.
pub fn restart(_request: Request, _watch: &dyn Watch) -> Result<Restarted> {
    Err(crate::Error::Bug("not built yet".into()))
}
