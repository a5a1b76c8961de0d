//! A process of the tree while it is frozen: what the survey of every family starts from.

use std::os::fd::OwnedFd;

use bardo_kernel::procfs::stat::Stat;
use bardo_kernel::procfs::status::Status;

use crate::error::{Refusal, Who};

/// A frozen process.
#[derive(Debug)]
pub struct Subject {
    /// Its pid as we see it, and its name.
    pub who: Who,
    /// Its pid as it sees itself: the innermost of NSpid.
    pub own_pid: i32,
    /// It; where the leader has ended, a thread of it, for only that leads to its descriptors.
    pub pidfd: OwnedFd,
    /// Its `/proc/PID/mem`, open to read and write; none for a zombie.
    pub mem: Option<OwnedFd>,
    /// `/proc/PID/stat`.
    pub stat: Stat,
    /// `/proc/PID/status`.
    pub status: Status,
    /// The thread whose directory in `/proc` shows what all of them share: the leader, or another one where it has ended.
    pub door: i32,
    /// Its threads' tids as we see them, the leader first.
    pub tids: Vec<i32>,
    /// Whether it has ended and waits for its parent.
    pub zombie: bool,
}

impl Subject {
    /// The pid as we see it.
    pub fn pid(&self) -> i32 {
        self.who.pid
    }

    /// A refusal that concerns this process.
    pub fn refusal(
        &self,
        code: &'static str,
        fd: Option<i32>,
        what: impl Into<String>,
        why: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Refusal {
        Refusal {
            who: Some(self.who.clone()),
            fd,
            what: what.into(),
            code,
            why: why.into(),
            remedy: remedy.into(),
        }
    }
}
