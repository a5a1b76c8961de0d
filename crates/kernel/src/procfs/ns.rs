//! `/proc/PID/ns`: the namespaces of a process (man 7 namespaces), each a link like `net:[4026531833]` whose number, an
//! inode, identifies the namespace while it exists.
//!
//! Privilege: PTRACE_MODE_READ_FSCREDS. Kernel: a kind it was built without has no link. `pid_for_children` has no
//! target between unshare(2) and the first child: ENOENT, which reads as absent here.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;

use super::text::malformed;
use crate::error::Result;
use crate::fs;

/// The links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `cgroup`.
    Cgroup,
    /// `ipc`.
    Ipc,
    /// `mnt`.
    Mnt,
    /// `net`.
    Net,
    /// `pid`: where it has its pid.
    Pid,
    /// `pid_for_children`: where its children get theirs.
    PidForChildren,
    /// `time`.
    Time,
    /// `time_for_children`.
    TimeForChildren,
    /// `user`.
    User,
    /// `uts`.
    Uts,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 10] = [
        Kind::Cgroup,
        Kind::Ipc,
        Kind::Mnt,
        Kind::Net,
        Kind::Pid,
        Kind::PidForChildren,
        Kind::Time,
        Kind::TimeForChildren,
        Kind::User,
        Kind::Uts,
    ];

    /// The link's name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Cgroup => "cgroup",
            Kind::Ipc => "ipc",
            Kind::Mnt => "mnt",
            Kind::Net => "net",
            Kind::Pid => "pid",
            Kind::PidForChildren => "pid_for_children",
            Kind::Time => "time",
            Kind::TimeForChildren => "time_for_children",
            Kind::User => "user",
            Kind::Uts => "uts",
        }
    }

    /// What stands before the number in the link's target.
    fn prefix(self) -> &'static str {
        match self {
            Kind::PidForChildren => "pid",
            Kind::TimeForChildren => "time",
            other => other.name(),
        }
    }
}

/// The inode of each namespace a process is in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Links(BTreeMap<Kind, u64>);

impl Links {
    /// The inode of the namespace of this kind.
    pub fn get(&self, kind: Kind) -> Option<u64> {
        self.0.get(&kind).copied()
    }

    /// All that there are.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, u64)> {
        self.0.iter().map(|(kind, inode)| (*kind, *inode))
    }
}

/// Reads a link's target.
///
/// # Errors
/// EPROTO with the target.
pub fn parse(kind: Kind, target: &[u8]) -> Result<u64> {
    target
        .strip_prefix(kind.prefix().as_bytes())
        .and_then(|rest| rest.strip_prefix(b":["))
        .and_then(|rest| rest.strip_suffix(b"]"))
        .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
        .ok_or_else(|| malformed("ns", kind.name(), target))
}

fn read_links(dir: impl Fn(&str) -> std::path::PathBuf) -> Result<Links> {
    let mut links = BTreeMap::new();
    for kind in Kind::ALL {
        match fs::read_link(dir(&format!("ns/{}", kind.name()))) {
            Ok(target) => {
                links.insert(kind, parse(kind, target.as_os_str().as_bytes())?);
            }
            Err(e) if e.is(libc::ENOENT) => {}
            Err(e) => return Err(e),
        }
    }
    // All kinds missing means that the process is missing.
    if links.is_empty() {
        fs::stat(dir("ns"))?;
    }
    Ok(Links(links))
}

/// The namespaces of a process: of its leader.
pub fn read(pid: i32) -> Result<Links> {
    read_links(|name| super::path(pid, name))
}

/// The namespaces of one thread, which may differ.
pub fn read_thread(pid: i32, tid: i32) -> Result<Links> {
    read_links(|name| super::thread_path(pid, tid, name))
}
