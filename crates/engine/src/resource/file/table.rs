//! A descriptor table: which number leads to which open file.
//!
//! **In the kernel**: an array of open files and a bit for each that says whether exec closes it; shared by threads, and by
//! processes that clone(2) made with CLONE_FILES.
//!
//! **In the image**: `file/table`: the pid as the process sees itself, and its entries, ascending. One with very many entries is
//! split into several records of the same pid.
//!
//! **Taken how**: `/proc/PID/fd` and the O_CLOEXEC bit that fdinfo shows, which is the descriptor's.
//!
//! **Put back how**: every process inherits all open files of the tree at high numbers. Steps in it: dup3(2) each into its
//! place, close_range(2) for the numbers between and for all above.
//!
//! **Not saved**: how large the kernel's array has grown (`FDSize` of status).

use bardo_kernel::Sysno;
use bardo_kernel::stub::{Arg, Batch, STEP};
use serde::{Deserialize, Serialize};

use super::Pool;
use super::scene::Scene;
use super::survey::{Collected, by_process};
use crate::error::Result;
use crate::support::Support;

/// The record's name.
pub const NAME: &str = "file/table";

/// The line in the documentation.
pub const SUPPORT: Support = Support {
    kind: NAME,
    kept: "descriptor numbers, close-on-exec, and which descriptors share an open file, across the tree",
    not_kept: "a thread's own table (unshare(2)): refused for now",
    privilege: "",
    workload: "file/tables",
};

/// Entries in one record. An image's record has at most 2^20 items, and an entry is seven.
const ENTRIES_MAX: usize = 1 << 16;
/// No kernel has a higher number: fs.nr_open is at most about 2^30, and a table of that size takes 8 GiB.
pub const FD_MAX: i32 = 1 << 26;

/// The record of a table, or a part of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Table {
    /// The process, as it sees itself.
    pub pid: i32,
    /// Its descriptors, ascending.
    pub entries: Vec<TableEntry>,
}

/// A descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableEntry {
    /// Its number.
    pub fd: i32,
    /// The id of the open file's record.
    pub file: u64,
    /// Whether exec closes it.
    #[serde(default)]
    pub cloexec: bool,
}

/// Adds the tables of all processes.
pub(super) fn collect(scene: &Scene<'_>, out: &mut Collected) -> Result<()> {
    let mut id = 0;
    for (subject, entries) in by_process(&scene.entries) {
        for part in entries.chunks(ENTRIES_MAX) {
            id += 1;
            let entries = part
                .iter()
                .map(|entry| TableEntry { fd: entry.holder.fd, file: entry.file, cloexec: entry.cloexec })
                .collect();
            out.record(NAME, id, &Table { pid: scene.subjects[subject].own_pid, entries })?;
        }
    }
    Ok(())
}

/// The steps that make a process's table out of all that it inherited: batches of at most `room` bytes each.
///
/// They run in the first process that has the table, while the others who do wait, below the limit of files that [`super::FilesImage::open_all`] has set for us and
/// our children. Nothing but the table is open afterwards.
pub(super) fn steps(entries: &[TableEntry], pool: &Pool, room: usize) -> Vec<Batch> {
    let per_batch = (room.saturating_sub(Batch::new().room()) / STEP).max(1);
    let mut batches = Vec::new();
    let mut batch = Batch::new();
    let mut put = |nr, args: [u64; 3], result: u64| {
        if batch.len() == per_batch {
            batches.push(std::mem::take(&mut batch));
        }
        batch.call_for(nr, args.map(Arg::Value), result);
    };
    // The numbers that nobody has are closed last: what lies there may be what an entry is made from.
    let mut gaps = Vec::new();
    let mut next = 0;
    for entry in entries {
        let Some(source) = pool.fd(entry.file, entry.fd) else { continue };
        let flags = if entry.cloexec { libc::O_CLOEXEC as u64 } else { 0 };
        put(Sysno::dup3, [source as u64, entry.fd as u64, flags], entry.fd as u64);
        if entry.fd > next {
            gaps.push((next, entry.fd - 1));
        }
        next = entry.fd + 1;
    }
    for (first, last) in gaps {
        put(Sysno::close_range, [first as u64, last as u64, 0], 0);
    }
    put(Sysno::close_range, [next as u64, u64::from(u32::MAX), 0], 0);
    batches.push(batch);
    batches
}
