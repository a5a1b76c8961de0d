//! `/proc/PID/mountinfo`: the mounts of a process's mount namespace that its root reaches (man 5 proc_pid_mountinfo).
//!
//! Blanks, tabs, newlines and backslashes in a path or source come as octal escapes; so does `#` in options.
//!
//! Privilege: PTRACE_MODE_READ_FSCREDS. Kernel: any.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::text::{self, malformed};
use crate::error::Result;

const FILE: &str = "mountinfo";

/// The bytes that the kernel escapes.
const ESCAPED: &[u8] = b" \t\n\\#";

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Its id, unique while it is mounted; `mnt_id` in fdinfo.
    pub id: i32,
    /// The mount it is mounted on; its own id, or one not listed, for the root.
    pub parent: i32,
    /// Major number of the file system's device.
    pub major: u32,
    /// Minor number of the file system's device.
    pub minor: u32,
    /// What part of the file system it shows: `/`, or a bind mount's directory. Of a namespace file: `mnt:[4026531832]`.
    pub root: OsString,
    /// Where, as the process's root sees it.
    pub mountpoint: OsString,
    /// Options of the mount: `rw,nosuid`.
    pub options: String,
    /// Optional fields: `shared:2`, `master:1`, `propagate_from:3`, `unbindable`.
    pub tags: Vec<String>,
    /// The file system's type, with its subtype: `ext4`, `fuse.sshfs`.
    pub fstype: String,
    /// What is mounted, in the file system's own terms; `none` or anything where it has no such thing.
    pub source: OsString,
    /// Options of the file system.
    pub super_options: OsString,
}

impl Mount {
    /// The device, comparable to [`crate::fs::Stat::dev`].
    pub fn dev(&self) -> u64 {
        text::device(self.major, self.minor)
    }

    /// The number of a tag: `tag("shared")` is `Some(2)` for `shared:2`.
    pub fn tag(&self, name: &str) -> Option<i32> {
        self.tags.iter().find_map(|tag| tag.strip_prefix(name)?.strip_prefix(':')?.parse().ok())
    }
}

fn parse_line(line: &[u8]) -> Result<Mount> {
    let bad = |what: &str| malformed(FILE, what, line);
    let os = |t: &[u8]| OsString::from_vec(text::unescape_octal(t, ESCAPED));
    // Split at single blanks: the kernel writes an empty source as nothing between two of them.
    let mut words = line.split(|b| *b == b' ');
    let mut next = |what: &str| words.next().ok_or_else(|| bad(what));
    let id = text::number(FILE, "the id", next("the id")?)?;
    let parent = text::number(FILE, "the parent", next("the parent")?)?;
    let (major, minor) = text::device_pair(FILE, next("the device")?, 10)?;
    let root = os(next("the root")?);
    let mountpoint = os(next("the mount point")?);
    let options = text::words(next("the options")?);
    let mut tags = Vec::new();
    loop {
        match next("the separator")? {
            b"-" => break,
            tag => tags.push(text::words(tag)),
        }
    }
    let fstype = text::words(next("the type")?);
    let source = os(next("the source")?);
    let super_options = os(next("the file system's options")?);
    Ok(Mount { id, parent, major, minor, root, mountpoint, options, tags, fstype, source, super_options })
}

/// Reads the text.
///
/// # Errors
/// EPROTO with the line.
pub fn parse(text: &[u8]) -> Result<Vec<Mount>> {
    text::lines(text).map(parse_line).collect()
}

/// The mounts that a process sees.
pub fn read(pid: i32) -> Result<Vec<Mount>> {
    text::read(&super::path(pid, FILE), parse)
}
