//! `/proc/PID/cgroup`: where a process stands in each hierarchy of control groups (man 7 cgroups).
//!
//! The paths are relative to the root of the reader's cgroup namespace, and may begin with `/..` for a process outside it.
//! The name of a cgroup holds no newline.
//!
//! Privilege: none. Kernel: CONFIG_CGROUPS.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::text::{self, malformed};
use crate::error::Result;

const FILE: &str = "cgroup";

/// One line: one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The hierarchy's number; 0 is cgroup v2.
    pub hierarchy: u32,
    /// The v1 controllers on it, or `name=…`; empty for v2.
    pub controllers: Vec<String>,
    /// The process's group, without ` (deleted)`.
    pub path: OsString,
    /// Whether the path ended in ` (deleted)`: the group was removed while the process was a zombie in it.
    pub deleted: bool,
}

impl Membership {
    /// Whether this is the cgroup v2 hierarchy.
    pub fn is_v2(&self) -> bool {
        self.hierarchy == 0
    }
}

fn parse_line(line: &[u8]) -> Result<Membership> {
    let bad = || malformed(FILE, "a line", line);
    let (hierarchy, rest) = text::split_once(line, b':').ok_or_else(bad)?;
    let (controllers, path) = text::split_once(rest, b':').ok_or_else(bad)?;
    if path.first() != Some(&b'/') {
        return Err(bad());
    }
    let (path, deleted) = path.strip_suffix(b" (deleted)").map_or((path, false), |path| (path, true));
    Ok(Membership {
        hierarchy: text::number(FILE, "a hierarchy", hierarchy)?,
        controllers: controllers.split(|b| *b == b',').filter(|c| !c.is_empty()).map(text::words).collect(),
        path: OsString::from_vec(path.to_vec()),
        deleted,
    })
}

/// Reads the text.
///
/// # Errors
/// EPROTO with the line.
pub fn parse(text: &[u8]) -> Result<Vec<Membership>> {
    text::lines(text).map(parse_line).collect()
}

/// The groups of a process: of its leader.
pub fn read(pid: i32) -> Result<Vec<Membership>> {
    text::read(&super::path(pid, FILE), parse)
}

/// The groups of one thread: v1 and threaded v2 groups hold threads.
pub fn read_thread(pid: i32, tid: i32) -> Result<Vec<Membership>> {
    text::read(&super::thread_path(pid, tid, FILE), parse)
}
