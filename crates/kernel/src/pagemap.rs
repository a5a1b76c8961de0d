//! Which pages of an address space are there, and what they are: `/proc/PID/pagemap`
//! (Documentation/admin-guide/mm/pagemap.rst).
//!
//! Two ways in. The PAGEMAP_SCAN ioctl (6.7 and later) walks the page tables in the kernel and returns runs of pages with
//! the same categories; it can also write-protect what it reports, which makes it the reader of userfaultfd's
//! asynchronous dirty tracking. Reading the file gives one 64-bit entry a page and works on every kernel. [`runs`] takes
//! the first where there is one, and says the same through the second.
//!
//! *What `runs` leaves out*: pages that are neither present nor swapped. Of anonymous memory they are zero, of a file
//! they are the file's. A page in swap may be a marker without content: a guard page ([`Categories::GUARD`]), or a
//! write-protected page of a file that was dropped.
//!
//! *What the entries can't tell*: the zero page looks like any page shared copy-on-write, but for its frame's number, and
//! that is shown only with CAP_SYS_ADMIN. Without it [`runs_by_entries`] reports no [`Categories::PFNZERO`]; and never one
//! for the *huge* zero page. Both are safe to take for pages with content.
//!
//! Privilege: PTRACE_MODE_READ_FSCREDS at open, checked again at each use: after an execve(2) of the process, reads
//! return nothing. Errors: ENOTTY where the ioctl is missing; EPERM from a scan for writes where the range has no
//! asynchronous write protection.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use syscalls::Sysno;

use crate::error::{Errno, Failed, Result};
use crate::fs;
use crate::gate::syscall;

/// The page size of the architectures bardo knows.
pub const PAGE_BYTES: u64 = 4096;

/// `_IOWR('f', 16, struct pm_scan_arg)` of `<linux/fs.h>`.
const PAGEMAP_SCAN: usize = 3 << 30 | size_of::<ScanArg>() << 16 | (b'f' as usize) << 8 | 16;

/// How many regions the kernel may return at once.
const REGIONS_MAX: usize = 1024;

/// How many entries are read at once: 512 KiB of text for 256 MiB of memory.
const ENTRIES_MAX: u64 = 64 << 10;

/// What a page is; a set of PAGE_IS_ bits of `<linux/fs.h>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Categories(pub u64);

impl Categories {
    /// None.
    pub const NONE: Categories = Categories(0);
    /// In a range that asynchronous write protection covers (`UFFD_FEATURE_WP_ASYNC`).
    pub const WPALLOWED: Categories = Categories(1 << 0);
    /// Not write-protected by userfaultfd: written since it was, or never protected.
    pub const WRITTEN: Categories = Categories(1 << 1);
    /// The page of a file, shared memory included. Not a private copy of one.
    pub const FILE: Categories = Categories(1 << 2);
    /// In memory.
    pub const PRESENT: Categories = Categories(1 << 3);
    /// In swap, or a marker in its place.
    pub const SWAPPED: Categories = Categories(1 << 4);
    /// The page of zeros that all read-only faults of anonymous memory share.
    pub const PFNZERO: Categories = Categories(1 << 5);
    /// Part of a huge page.
    pub const HUGE: Categories = Categories(1 << 6);
    /// Soft-dirty; never set where the kernel was built without.
    pub const SOFT_DIRTY: Categories = Categories(1 << 7);
    /// A guard page: MADV_GUARD_INSTALL. The ioctl knows it since 6.15.
    pub const GUARD: Categories = Categories(1 << 8);

    /// What both ways in can tell.
    pub const COMMON: Categories = Categories(
        Self::WRITTEN.0 | Self::FILE.0 | Self::PRESENT.0 | Self::SWAPPED.0 | Self::PFNZERO.0 | Self::GUARD.0,
    );

    /// All of both.
    #[must_use]
    pub const fn with(self, other: Categories) -> Categories {
        Categories(self.0 | other.0)
    }

    /// Those of this that aren't in the other.
    #[must_use]
    pub const fn without(self, other: Categories) -> Categories {
        Categories(self.0 & !other.0)
    }

    /// Whether it has all of the other.
    pub const fn has(self, other: Categories) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether it has any of the other.
    pub const fn has_any(self, other: Categories) -> bool {
        self.0 & other.0 != 0
    }
}

/// Neighbouring pages of the same categories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRun {
    /// The first page's address.
    pub start: u64,
    /// How many pages.
    pub pages: u64,
    /// What each of them is.
    pub categories: Categories,
}

impl PageRun {
    /// The address after the last page.
    pub fn end(&self) -> u64 {
        self.start + self.pages * PAGE_BYTES
    }
}

/// What a scan looks for, does and returns (struct pm_scan_arg).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scan {
    /// PM_SCAN_WP_MATCHING: write-protects what it reports.
    pub protect: bool,
    /// PM_SCAN_CHECK_WPASYNC: fails with EPERM where the range isn't all under asynchronous write protection.
    pub check_wpasync: bool,
    /// Categories that are turned around before the matching.
    pub inverted: Categories,
    /// A page must have all of these.
    pub all: Categories,
    /// A page must have one of these, if there are any.
    pub any: Categories,
    /// Which categories are reported.
    pub returned: Categories,
}

impl Scan {
    /// The pages written since they were last protected, which are protected anew: one round of dirty tracking.
    pub const WRITTEN: Scan = Scan {
        protect: true,
        check_wpasync: true,
        inverted: Categories::NONE,
        all: Categories::WRITTEN,
        any: Categories::NONE,
        returned: Categories::WRITTEN,
    };
}

/// struct pm_scan_arg.
#[repr(C)]
#[derive(Debug, Default)]
struct ScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

const _: () = assert!(size_of::<ScanArg>() == 96);

/// struct page_region.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

/// Opens the pagemap of a process.
pub fn open(pid: i32) -> Result<OwnedFd> {
    fs::open_read(crate::procfs::path(pid, "pagemap"))
}

/// Adds a run, or makes the last one longer.
fn push(runs: &mut Vec<PageRun>, run: PageRun) {
    match runs.last_mut() {
        Some(last) if last.end() == run.start && last.categories == run.categories => last.pages += run.pages,
        _ => runs.push(run),
    }
}

fn check_range(start: u64, end: u64) -> Result<()> {
    if start.is_multiple_of(PAGE_BYTES) && end.is_multiple_of(PAGE_BYTES) && start <= end {
        return Ok(());
    }
    Err(Failed { call: format!("pagemap range {start:#x}-{end:#x}"), errno: Errno(libc::EINVAL) })
}

/// Scans a range with the ioctl. A range without any area, or partly without, is fine.
///
/// When it fails halfway with `protect` set, pages already passed stay protected and their runs are lost: the caller must
/// then take the whole range as written.
///
/// # Errors
/// ENOTTY before 6.7; EINVAL for a category that the kernel doesn't know; EPERM as the module says.
pub fn scan(pagemap: BorrowedFd<'_>, start: u64, end: u64, what: &Scan) -> Result<Vec<PageRun>> {
    check_range(start, end)?;
    let mut regions = vec![Region::default(); REGIONS_MAX];
    let mut runs = Vec::new();
    let mut from = start;
    while from < end {
        let mut arg = ScanArg {
            size: size_of::<ScanArg>() as u64,
            flags: u64::from(what.protect) | u64::from(what.check_wpasync) << 1,
            start: from,
            end,
            vec: regions.as_mut_ptr() as u64,
            vec_len: REGIONS_MAX as u64,
            category_inverted: what.inverted.0,
            category_mask: what.all.0,
            category_anyof_mask: what.any.0,
            return_mask: what.returned.0,
            ..ScanArg::default()
        };
        let call = || format!("ioctl(pagemap {}, PAGEMAP_SCAN, {from:#x}-{end:#x})", pagemap.as_raw_fd());
        let args = [pagemap.as_raw_fd() as usize, PAGEMAP_SCAN, &raw mut arg as usize, 0, 0, 0];
        // SAFETY: `arg` is a pm_scan_arg that says its own size, and `regions` has room for `vec_len` regions of which
        // every bit pattern is valid; both are ours and outlive the call.
        let filled = unsafe { syscall(Sysno::ioctl, args) }.map_err(|e| e.of(call()))?;
        let filled =
            regions.get(..filled).ok_or_else(|| Failed::unexpected(format!("{} = {filled}", call())))?;
        for region in filled {
            if check_range(region.start, region.end).is_err() || region.start < from || region.end > end {
                return Err(Failed::unexpected(format!("{}: {region:x?}", call())));
            }
            let pages = (region.end - region.start) / PAGE_BYTES;
            push(
                &mut runs,
                PageRun { start: region.start, pages, categories: Categories(region.categories) },
            );
        }
        if arg.walk_end <= from || arg.walk_end > end {
            return Err(Failed::unexpected(format!("{}: it stopped at {:#x}", call(), arg.walk_end)));
        }
        // The kernel stops early when the regions are full. It hands them out 512 at a time, and forgets to set
        // `walk_end` anew when it reaches the end after the first time (6.18 does): then it points before regions that
        // have been reported, and going on from there would report them twice.
        from = arg.walk_end.max(filled.last().map_or(0, |region| region.end));
    }
    Ok(runs)
}

/// The pages of a range that are present or swapped, by the ioctl.
pub fn runs_by_scan(pagemap: BorrowedFd<'_>, start: u64, end: u64) -> Result<Vec<PageRun>> {
    let populated = Categories::PRESENT.with(Categories::SWAPPED);
    let what = Scan { any: populated, returned: Categories::COMMON, ..Scan::default() };
    match scan(pagemap, start, end, &what) {
        // Before 6.15 the ioctl refuses the guard bit; it has guard pages since 6.13, which are plain SWAPPED then.
        Err(e) if e.is(libc::EINVAL) => {
            let returned = Categories::COMMON.without(Categories::GUARD);
            scan(pagemap, start, end, &Scan { returned, ..what })
        }
        other => other,
    }
}

/// What an entry of the file says. `zero_frame` is the number of the zero page's frame, if it is known.
fn categories(entry: u64, zero_frame: Option<u64>) -> Categories {
    let bit = |n: u32, is: Categories| if entry >> n & 1 == 1 { is } else { Categories::NONE };
    let present = bit(63, Categories::PRESENT);
    let swapped = bit(62, Categories::SWAPPED);
    if present == swapped {
        return Categories::NONE;
    }
    let frame = entry & ((1 << 55) - 1);
    let zero = present == Categories::PRESENT && zero_frame == Some(frame);
    present
        .with(swapped)
        .with(bit(61, Categories::FILE))
        .with(bit(58, Categories::GUARD))
        .with(if entry >> 57 & 1 == 1 { Categories::NONE } else { Categories::WRITTEN })
        .with(if zero { Categories::PFNZERO } else { Categories::NONE })
}

/// The frame of the zero page: what a page of our own has that was read and never written. `None` where frames' numbers
/// are hidden from us.
fn zero_frame() -> Result<Option<u64>> {
    let len = PAGE_BYTES as usize;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let args = [0, len, libc::PROT_READ as usize, flags as usize, usize::MAX, 0];
    // SAFETY: a new mapping where the kernel likes, which replaces none; it is read within its bounds, and unmapped
    // once, after its last use.
    unsafe {
        let at = syscall(Sysno::mmap, args).map_err(|e| e.of("mmap(1 page)"))?;
        std::ptr::read_volatile(at as *const u8);
        let entry = own_entry(at as u64);
        syscall(Sysno::munmap, [at, len, 0, 0, 0, 0]).map_err(|e| e.of("munmap(1 page)"))?;
        let entry = entry?;
        let frame = entry & ((1 << 55) - 1);
        Ok((entry >> 63 == 1 && frame != 0).then_some(frame))
    }
}

fn own_entry(at: u64) -> Result<u64> {
    let pagemap = fs::open_read("/proc/self/pagemap")?;
    let mut entry = [0; 8];
    let n = fs::pread(pagemap.as_fd(), &mut entry, at / PAGE_BYTES * 8)?;
    Ok(if n == 8 { u64::from_ne_bytes(entry) } else { 0 })
}

/// The pages of a range that are present or swapped, by reading the file: 8 bytes for each page of the range, there or
/// not.
pub fn runs_by_entries(pagemap: BorrowedFd<'_>, start: u64, end: u64) -> Result<Vec<PageRun>> {
    check_range(start, end)?;
    let zero_frame = zero_frame()?;
    let mut runs = Vec::new();
    let mut buffer = vec![0u8; ((end - start) / PAGE_BYTES).min(ENTRIES_MAX) as usize * 8];
    let mut at = start;
    while at < end {
        let wanted = ((end - at) / PAGE_BYTES).min(ENTRIES_MAX) as usize * 8;
        let n = fs::pread(pagemap, &mut buffer[..wanted], at / PAGE_BYTES * 8)?;
        if n == 0 {
            // Beyond the end of the address space, or it isn't the one we opened any more.
            break;
        }
        let (entries, _) = buffer[..n].as_chunks::<8>();
        if entries.is_empty() {
            return Err(Failed::unexpected(format!("pread(pagemap {}) = {n}", pagemap.as_raw_fd())));
        }
        for entry in entries {
            let categories = categories(u64::from_ne_bytes(*entry), zero_frame);
            if categories != Categories::NONE {
                push(&mut runs, PageRun { start: at, pages: 1, categories });
            }
            at += PAGE_BYTES;
        }
    }
    Ok(runs)
}

/// Tells of each page of a range that is in memory and that not this process alone has mapped: its address, and the number of
/// its frame, or 0 where that is hidden from us (without CAP_SYS_ADMIN). The kernel may move a page to another frame at any
/// time, and put another page there.
///
/// # Errors
/// Those of a read.
pub fn shared_frames(
    pagemap: BorrowedFd<'_>,
    start: u64,
    end: u64,
    mut tell: impl FnMut(u64, u64),
) -> Result<()> {
    const EXCLUSIVE: u32 = 56;
    const PRESENT: u32 = 63;
    check_range(start, end)?;
    let mut buffer = vec![0u8; ((end - start) / PAGE_BYTES).min(ENTRIES_MAX) as usize * 8];
    let mut at = start;
    while at < end {
        let wanted = ((end - at) / PAGE_BYTES).min(ENTRIES_MAX) as usize * 8;
        let n = fs::pread(pagemap, &mut buffer[..wanted], at / PAGE_BYTES * 8)?;
        let (entries, _) = buffer[..n].as_chunks::<8>();
        if entries.is_empty() {
            return Err(Failed::unexpected(format!("pread(pagemap {}) = {n}", pagemap.as_raw_fd())));
        }
        for entry in entries {
            let entry = u64::from_ne_bytes(*entry);
            if entry >> PRESENT & 1 == 1 && entry >> EXCLUSIVE & 1 == 0 {
                tell(at, entry & ((1 << 55) - 1));
            }
            at += PAGE_BYTES;
        }
    }
    Ok(())
}

/// The pages of a range that are present or swapped, with those of their [`Categories::COMMON`] categories, in order.
pub fn runs(pagemap: BorrowedFd<'_>, start: u64, end: u64) -> Result<Vec<PageRun>> {
    match runs_by_scan(pagemap, start, end) {
        Err(e) if e.is(libc::ENOTTY) => runs_by_entries(pagemap, start, end),
        other => other,
    }
}

#[cfg(test)]
mod tests;
