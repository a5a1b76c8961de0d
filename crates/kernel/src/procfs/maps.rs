//! `/proc/PID/maps`: the areas of an address space, one a line, in order (man 5 proc_pid_maps).
//!
//! In a path the kernel writes newline as `\012` and nothing else escaped, not even the backslash: a file whose name
//! holds the four characters `\012` reads like one with a newline. Likewise a name that ends in ` (deleted)` reads like
//! an unlinked file's. Where it matters, compare device and inode with [`crate::fs::stat`], or read the link
//! `/proc/PID/map_files/START-END`.
//!
//! Privilege: PTRACE_MODE_READ_FSCREDS. Kernel: any. A process without memory (a zombie, a kernel thread) has no lines.
//! A line may be longer than a page: a path has up to 4,095 bytes, each perhaps escaped.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::text::{self, malformed};
use crate::error::Result;

const FILE: &str = "maps";

/// What an area may be used for, and whether writes are shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Perms {
    /// PROT_READ.
    pub read: bool,
    /// PROT_WRITE.
    pub write: bool,
    /// PROT_EXEC.
    pub exec: bool,
    /// MAP_SHARED; else MAP_PRIVATE.
    pub shared: bool,
}

impl Perms {
    /// The PROT_ bits of mmap(2).
    pub fn prot(self) -> i32 {
        let bit = |on: bool, bit: i32| if on { bit } else { 0 };
        bit(self.read, libc::PROT_READ) | bit(self.write, libc::PROT_WRITE) | bit(self.exec, libc::PROT_EXEC)
    }
}

/// An area that has a name in brackets instead of a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Special {
    /// `[heap]`: what brk(2) moves.
    Heap,
    /// `[stack]`: the first thread's stack.
    Stack,
    /// `[vdso]`: the kernel's code in user space (man 7 vdso).
    Vdso,
    /// `[vvar]`: its data.
    Vvar,
    /// `[vvar_vclock]`: its clock pages, an area of their own since 6.13.
    VvarVclock,
    /// `[vsyscall]`: a fixed page of the kernel, not part of the address space.
    Vsyscall,
    /// `[anon:NAME]`: named by PR_SET_VMA_ANON_NAME.
    Anon(OsString),
    /// `[anon_shmem:NAME]`: the same for shared anonymous memory; it also has a device and an inode.
    AnonShmem(OsString),
    /// Any other name in brackets, without them: `uprobes`, `sigpage`, ….
    Other(OsString),
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Area {
    /// Its first address.
    pub start: u64,
    /// The address after its last.
    pub end: u64,
    /// Its permissions.
    pub perms: Perms,
    /// Where in the file it begins, in bytes.
    pub offset: u64,
    /// Major number of the file's device.
    pub major: u32,
    /// Minor number of the file's device.
    pub minor: u32,
    /// The file's inode; 0 where there is no file.
    pub inode: u64,
    /// The file's path in the reader's root, escapes undone and without ` (deleted)`; empty where there is no file. Not
    /// every file has a path in a file system: `/memfd:x`, `/SYSV00000000`, `anon_inode:[io_uring]`, `socket:[7]`.
    pub path: OsString,
    /// Whether the path ended in ` (deleted)`.
    pub deleted: bool,
    /// What it is where it has no file.
    pub special: Option<Special>,
}

impl Area {
    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Whether it has no length; the kernel has no such areas.
    pub fn is_empty(&self) -> bool {
        self.end == self.start
    }

    /// The device as stat(2) gives it, comparable to [`crate::fs::Stat::dev`]. Some file systems (btrfs, overlayfs) tell
    /// stat(2) of another device than `maps` shows.
    pub fn dev(&self) -> u64 {
        text::device(self.major, self.minor)
    }

    /// Whether a file lies behind it (shared anonymous memory counts: it is an unlinked file of the kernel's own tmpfs).
    pub fn has_file(&self) -> bool {
        (self.major, self.minor, self.inode) != (0, 0, 0)
    }

    /// Whether this address lies in it.
    pub fn contains(&self, addr: u64) -> bool {
        (self.start..self.end).contains(&addr)
    }
}

fn special(name: &[u8]) -> Option<Special> {
    let inner = name.strip_prefix(b"[")?.strip_suffix(b"]")?;
    let os = |b: &[u8]| OsString::from_vec(b.to_vec());
    Some(match inner {
        b"heap" => Special::Heap,
        b"stack" => Special::Stack,
        b"vdso" => Special::Vdso,
        b"vvar" => Special::Vvar,
        b"vvar_vclock" => Special::VvarVclock,
        b"vsyscall" => Special::Vsyscall,
        _ => match (inner.strip_prefix(b"anon:"), inner.strip_prefix(b"anon_shmem:")) {
            (Some(name), _) => Special::Anon(os(name)),
            (_, Some(name)) => Special::AnonShmem(os(name)),
            _ => Special::Other(os(inner)),
        },
    })
}

fn perms(text: &[u8]) -> Option<Perms> {
    let on = |byte: u8, letter: u8| match byte {
        b'-' => Some(false),
        _ if byte == letter => Some(true),
        _ => None,
    };
    let [r, w, x, s] = *text.first_chunk::<4>().filter(|_| text.len() == 4)?;
    let shared = match s {
        b's' => true,
        b'p' => false,
        _ => return None,
    };
    Some(Perms { read: on(r, b'r')?, write: on(w, b'w')?, exec: on(x, b'x')?, shared })
}

/// `7f00-7f10` as two addresses, if the text has that form.
pub(super) fn range(text: &[u8]) -> Option<(u64, u64)> {
    let (start, end) = text::split_once(text, b'-')?;
    let hex = |t| text::radix(FILE, "a range", t, 16).ok();
    let (start, end) = (hex(start)?, hex(end)?);
    (start <= end).then_some((start, end))
}

/// Reads one line.
pub(super) fn parse_line(line: &[u8]) -> Result<Area> {
    let bad = |what: &str| malformed(FILE, what, line);
    // Five fields with one blank after each; then blanks up to a column; then the path, which may begin with a blank
    // only if it isn't absolute, and none of those the kernel makes up does.
    let mut parts = line.splitn(6, |b| *b == b' ');
    let mut next = |what: &str| parts.next().ok_or_else(|| bad(what));
    let (start, end) = range(next("the range")?).ok_or_else(|| bad("the range"))?;
    let perms = perms(next("the permissions")?).ok_or_else(|| bad("the permissions"))?;
    let offset = text::radix(FILE, "the offset", next("the offset")?, 16)?;
    let (major, minor) = text::device_pair(FILE, next("the device")?, 16)?;
    let inode = text::number(FILE, "the inode", next("the inode")?)?;
    let name = parts.next().unwrap_or(b"").trim_ascii_start();
    let no_file = (major, minor, inode) == (0, 0, 0);
    // A file can't pose as one of these: its path begins with a slash, or it isn't on device 0:0.
    let special = special(name).filter(|s| no_file || matches!(s, Special::AnonShmem(_)));
    let (path, deleted) = match name.strip_suffix(b" (deleted)") {
        _ if special.is_some() => (&b""[..], false),
        Some(path) => (path, true),
        None => (name, false),
    };
    let path = OsString::from_vec(text::unescape_octal(path, b"\n"));
    Ok(Area { start, end, perms, offset, major, minor, inode, path, deleted, special })
}

/// Reads the text.
///
/// # Errors
/// EPROTO with the line.
pub fn parse(text: &[u8]) -> Result<Vec<Area>> {
    text::lines(text).map(parse_line).collect()
}

/// The areas of a process.
pub fn read(pid: i32) -> Result<Vec<Area>> {
    text::read(&super::path(pid, FILE), parse)
}
