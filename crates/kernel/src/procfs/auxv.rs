//! `/proc/PID/auxv`: what the kernel told the program when it started it (man 3 getauxval), as pairs of words.
//!
//! Privilege: PTRACE_MODE_READ_FSCREDS. Kernel: any. PR_SET_MM_MAP changes it. A process without memory
//! has none: an empty text, or ESRCH from newer kernels; EACCES without privilege, since such a process's files that only
//! the owner may read are root's.

use super::text::malformed;
use crate::error::Result;

const FILE: &str = "auxv";

/// One entry: a type, AT_PHDR and so on, and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// AT_….
    pub kind: u64,
    /// The value; an address in the target for some kinds.
    pub value: u64,
}

/// The entries in the kernel's order, the closing AT_NULL left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Auxv(pub Vec<Entry>);

impl Auxv {
    /// The value of a type: `get(libc::AT_SYSINFO_EHDR)` is where the vdso lies.
    pub fn get(&self, kind: u64) -> Option<u64> {
        self.0.iter().find(|e| e.kind == kind).map(|e| e.value)
    }
}

/// Reads the words of a 64-bit process.
///
/// # Errors
/// EPROTO where it isn't made of whole pairs.
pub fn parse(bytes: &[u8]) -> Result<Auxv> {
    let (pairs, rest) = bytes.as_chunks::<16>();
    if !rest.is_empty() {
        return Err(malformed(FILE, "the last pair", rest));
    }
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |word, b| word << 8 | u64::from(*b));
    let entries = pairs.iter().map(|pair| Entry { kind: word(&pair[..8]), value: word(&pair[8..]) });
    Ok(Auxv(entries.take_while(|e| e.kind != libc::AT_NULL).collect()))
}

/// What a process was told.
pub fn read(pid: i32) -> Result<Auxv> {
    super::text::read(&super::path(pid, FILE), parse)
}
