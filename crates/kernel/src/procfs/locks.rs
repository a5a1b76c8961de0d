//! `/proc/locks`: the file locks of the whole system, and who waits for them (man 5 proc_locks); a line of it also stands
//! in the fdinfo of a file that is locked.
//!
//! Locks of four kinds: POSIX ones belong to a process (fcntl(2) F_SETLK), open file description locks (F_OFD_SETLK) and
//! flock(2) ones to an open file, leases (F_SETLEASE) to an open file too.
//!
//! Privilege: none. The kernel shows 0 or −1 for the pid of an open file's lock, and leaves out locks held outside
//! the reader's pid namespace. Kernel: any.

use super::text::{self, malformed};
use crate::error::Result;

const FILE: &str = "locks";

/// Which call made a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// `POSIX`: F_SETLK; `ACCESS` is the same with old semantics.
    Posix,
    /// `OFDLCK`: F_OFD_SETLK.
    OpenFile,
    /// `FLOCK`: flock(2).
    Flock,
    /// `LEASE`: F_SETLEASE.
    Lease,
    /// `DELEG` (an NFS server's), `UNKNOWN` and others.
    Other(String),
}

/// What a lock allows its holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// `READ`.
    Read,
    /// `WRITE`.
    Write,
    /// `RW`: an emulated mandatory share lock.
    ReadWrite,
    /// `UNLCK`: a lease that is being given up; `NONE`: of a share lock.
    None,
}

/// One lock, or one that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// The line's number. A waiting lock has that of the lock it waits for.
    pub id: u64,
    /// Whether it only waits (`->`).
    pub waiting: bool,
    /// Which call made it.
    pub kind: Kind,
    /// The kernel's second word: `ADVISORY`, `MANDATORY`, `ACTIVE`, `BREAKING`, `BREAKER`, ….
    pub mode: String,
    /// What it allows.
    pub access: Access,
    /// The process that took it, as the reader's pid namespace counts; meaningless for locks of open files.
    pub pid: i32,
    /// Major number of the file system's device.
    pub major: u32,
    /// Minor number of the file system's device.
    pub minor: u32,
    /// The locked inode.
    pub inode: u64,
    /// The first byte.
    pub start: u64,
    /// The last byte; `None` is the end of the file, however far it grows.
    pub end: Option<u64>,
}

impl Lock {
    /// The device, comparable to [`crate::fs::Stat::dev`] (with the exceptions [`super::maps::Area::dev`] names).
    pub fn dev(&self) -> u64 {
        text::device(self.major, self.minor)
    }
}

/// Reads `1: POSIX  ADVISORY  WRITE 4127 fe:00:1234 0 EOF`; `<none>` stands for a lock without a file, which has none.
pub(super) fn parse_line(file: &str, line: &[u8]) -> Result<Lock> {
    let bad = |what: &str| malformed(file, what, line);
    let (id, rest) = text::split_once(line, b':').ok_or_else(|| bad("a lock"))?;
    let id = text::number(file, "a lock's number", id)?;
    let mut words = text::fields(rest).peekable();
    let waiting = words.next_if(|w| *w == b"->").is_some();
    let mut next = |what: &str| words.next().ok_or_else(|| bad(what));
    let kind = match next("a lock's kind")? {
        b"POSIX" | b"ACCESS" => Kind::Posix,
        b"OFDLCK" => Kind::OpenFile,
        b"FLOCK" => Kind::Flock,
        b"LEASE" => Kind::Lease,
        other => Kind::Other(text::words(other)),
    };
    let mode = text::words(next("a lock's mode")?);
    let access = match next("a lock's access")? {
        b"READ" => Access::Read,
        b"WRITE" => Access::Write,
        b"RW" => Access::ReadWrite,
        b"UNLCK" | b"NONE" => Access::None,
        _ => return Err(bad("a lock's access")),
    };
    let pid = text::number(file, "a lock's pid", next("a lock's pid")?)?;
    let place = next("a lock's inode")?;
    let (major, minor, inode) = if place == b"<none>:0" || place == b"<none>" {
        (0, 0, 0)
    } else {
        let colon = place.iter().rposition(|b| *b == b':').ok_or_else(|| bad("a lock's inode"))?;
        let (major, minor) = text::device_pair(file, &place[..colon], 16)?;
        (major, minor, text::number(file, "a lock's inode", &place[colon + 1..])?)
    };
    let start = text::number(file, "a lock's start", next("a lock's start")?)?;
    let end = match next("a lock's end")? {
        b"EOF" => None,
        end => Some(text::number(file, "a lock's end", end)?),
    };
    Ok(Lock { id, waiting, kind, mode, access, pid, major, minor, inode, start, end })
}

/// Reads the text of `/proc/locks`.
///
/// # Errors
/// EPROTO with the line.
pub fn parse(text: &[u8]) -> Result<Vec<Lock>> {
    text::lines(text).map(|line| parse_line(FILE, line)).collect()
}

/// All locks that this `/proc` shows.
pub fn read() -> Result<Vec<Lock>> {
    text::read(std::path::Path::new("/proc/locks"), parse)
}
