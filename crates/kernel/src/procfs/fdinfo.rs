//! `/proc/PID/fdinfo/FD`: what an open file is doing (man 5 proc_pid_fdinfo): four lines of every kind, then lines of its
//! own kind (an eventfd's counter, an epoll's targets, a timerfd's timer, locks, …).
//!
//! The lines of its own kind come as text, by key and in order; the file's kind knows what they mean.
//!
//! Privilege: PTRACE_MODE_READ_FSCREDS. Kernel: any; `ino` since 5.14.

use super::locks::Lock;
use super::text::{self, malformed, missing};
use crate::error::Result;

const FILE: &str = "fdinfo";

/// What every open file has, and the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FdInfo {
    /// `pos`: the offset.
    pub pos: i64,
    /// `flags`: as of open(2), the status flags and O_CLOEXEC, which belongs to the descriptor.
    pub flags: u32,
    /// `mnt_id`: the mount, as in `mountinfo`.
    pub mnt_id: i32,
    /// `ino`: the inode; absent before 5.14.
    pub ino: Option<u64>,
    /// `lock:` lines: the locks that this open file, or this process, holds on the inode.
    pub locks: Vec<Lock>,
    /// All other lines, key and value as written, in order. A line without a colon has the key "".
    pub other: Vec<(String, String)>,
}

impl FdInfo {
    /// The value of the first line with this key: `eventfd-count`, `sigmask`, `Pid`, ….
    pub fn get(&self, key: &str) -> Option<&str> {
        self.other.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// The values of all lines with this key, in order: `tfd`, `inotify wd`, ….
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.other.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }
}

/// Reads the text.
///
/// # Errors
/// EPROTO with the line's key.
pub fn parse(text: &[u8]) -> Result<FdInfo> {
    let (mut pos, mut flags, mut mnt_id, mut ino) = (None, None, None, None);
    let (mut locks, mut other) = (Vec::new(), Vec::new());
    for line in text::lines(text) {
        // An inotify mark's line is `inotify wd:1 ino:2 …`: its key is all before the first colon.
        let (key, value) = text::key_value(line).unwrap_or((b"", line));
        match key {
            b"pos" if pos.is_none() => pos = Some(text::number(FILE, "pos", value)?),
            b"flags" if flags.is_none() => {
                let bits = text::radix(FILE, "flags", value, 8)?;
                flags = Some(u32::try_from(bits).map_err(|_| malformed(FILE, "flags", value))?);
            }
            b"mnt_id" if mnt_id.is_none() => mnt_id = Some(text::number(FILE, "mnt_id", value)?),
            b"ino" if ino.is_none() => ino = Some(text::number(FILE, "ino", value)?),
            b"lock" => locks.push(super::locks::parse_line(FILE, value)?),
            _ => other.push((text::words(key), text::words(value))),
        }
    }
    Ok(FdInfo {
        pos: pos.ok_or_else(|| missing(FILE, "pos line"))?,
        flags: flags.ok_or_else(|| missing(FILE, "flags line"))?,
        mnt_id: mnt_id.ok_or_else(|| missing(FILE, "mnt_id line"))?,
        ino,
        locks,
        other,
    })
}

/// What a process's descriptor is doing.
pub fn read(pid: i32, fd: i32) -> Result<FdInfo> {
    text::read(&super::path(pid, &format!("fdinfo/{fd}")), parse)
}

/// The same, by a thread that may have a table of its own (clone(2) without CLONE_FILES).
pub fn read_thread(pid: i32, tid: i32, fd: i32) -> Result<FdInfo> {
    text::read(&super::thread_path(pid, tid, &format!("fdinfo/{fd}")), parse)
}
