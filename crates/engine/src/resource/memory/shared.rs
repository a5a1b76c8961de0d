//! Shared anonymous memory: MAP_SHARED | MAP_ANONYMOUS between relatives.
//!
//! **In the kernel**: an unlinked file of a tmpfs that is the kernel's own, called `/dev/zero (deleted)` in `maps`. Its
//! pages belong to the file, whoever maps them; fork(2) hands mappings on, and nothing else can.
//!
//! **In the image**: `memory/shared`: one object per file: size, and the pages that aren't zero, once. Areas refer to it.
//!
//! **Taken how**: as any object is ([`super::object`]).
//!
//! **Put back how**: the first process of the restart makes every object anew at a temporary place, all others inherit
//! it by fork; each duplicates the parts it had (mremap(2) with an old size of 0), and unmaps the temporary place.
//!
//! **Not saved**: the inode's number. Refused: an object that a process outside the tree maps too (a leak), or that
//! can't be read whole.

use bardo_kernel::Sysno;
use bardo_kernel::stub::{Arg, Batch};
use serde::{Deserialize, Serialize};

use super::area::{Area, is_default};

/// An object in an image (`memory/shared`, its id is the record's).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRecord {
    /// Its size in bytes.
    pub size: u64,
    /// MAP_NORESERVE.
    #[serde(default, skip_serializing_if = "is_default")]
    pub noreserve: bool,
}

/// Adds the step that makes an object at its temporary place.
pub(super) fn make(record: &ObjectRecord, at: u64, batch: &mut Batch) {
    let reserve = if record.noreserve { libc::MAP_NORESERVE } else { 0 };
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE | reserve;
    let prot = (libc::PROT_READ | libc::PROT_WRITE) as u64;
    let args = [at, record.size, prot, flags as u64, u64::MAX, 0].map(Arg::Value);
    batch.call_for(Sysno::mmap, args, at);
}

/// Duplicates a part of an object: mremap(2) with an old size of 0 makes a second mapping and leaves the first.
pub(super) fn duplicate(area: &Area, from: u64, batch: &mut Batch) {
    let flags = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64;
    let args = [from, 0, area.len(), flags, area.start].map(Arg::Value);
    batch.call_for(Sysno::mremap, args, area.start);
}
