//! The two ways into a pagemap are compared on live mappings whose pages are known.

use std::os::fd::{AsFd, AsRawFd};

use super::*;
use crate::mmap::{memfd_create, truncate};

/// A private mapping of our own, unmapped when dropped.
struct Mapping {
    at: u64,
    pages: u64,
}

impl Mapping {
    fn make(pages: u64, file: Option<BorrowedFd<'_>>) -> Mapping {
        let anonymous = if file.is_some() { 0 } else { libc::MAP_ANONYMOUS };
        let fd = file.map_or(-1, |f| f.as_raw_fd());
        let len = (pages * PAGE_BYTES) as usize;
        // SAFETY: a new mapping where the kernel likes.
        let at = unsafe {
            let prot = libc::PROT_READ | libc::PROT_WRITE;
            let at = libc::mmap(std::ptr::null_mut(), len, prot, libc::MAP_PRIVATE | anonymous, fd, 0);
            assert_ne!(at, libc::MAP_FAILED);
            // Huge pages would fill what the test leaves untouched.
            assert_eq!(libc::madvise(at, len, libc::MADV_NOHUGEPAGE), 0);
            at
        };
        Mapping { at: at as u64, pages }
    }

    fn page(&self, n: u64) -> *mut u8 {
        assert!(n < self.pages);
        (self.at + n * PAGE_BYTES) as *mut u8
    }

    fn read(&self, n: u64) {
        // SAFETY: a byte of the mapping, which is readable.
        unsafe { std::ptr::read_volatile(self.page(n)) };
    }

    fn write(&self, n: u64) {
        // SAFETY: a byte of the mapping, which is writable and which nothing else refers to.
        unsafe { std::ptr::write_volatile(self.page(n), 1) };
    }

    fn end(&self) -> u64 {
        self.at + self.pages * PAGE_BYTES
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: ours, and nothing refers into it any more.
        unsafe { libc::munmap(self.at as *mut libc::c_void, (self.pages * PAGE_BYTES) as usize) };
    }
}

fn own() -> OwnedFd {
    open(std::process::id() as i32).unwrap()
}

/// The categories of every page of a mapping, by one of the ways.
fn by_page(mapping: &Mapping, runs: &[PageRun]) -> Vec<Categories> {
    let mut pages = vec![Categories::NONE; mapping.pages as usize];
    for run in runs {
        for n in 0..run.pages {
            pages[((run.start - mapping.at) / PAGE_BYTES + n) as usize] = run.categories;
        }
    }
    pages
}

/// Both ways, which must agree; a kernel without the ioctl has but one.
fn both(mapping: &Mapping) -> Vec<Categories> {
    let pagemap = own();
    let entries = runs_by_entries(pagemap.as_fd(), mapping.at, mapping.end()).unwrap();
    match runs_by_scan(pagemap.as_fd(), mapping.at, mapping.end()) {
        Ok(scanned) => assert_eq!(entries, scanned),
        Err(e) => assert!(e.is(libc::ENOTTY), "{e}"),
    }
    assert_eq!(runs(pagemap.as_fd(), mapping.at, mapping.end()).unwrap(), entries);
    by_page(mapping, &entries)
}

const TOUCHED: Categories = Categories::PRESENT.with(Categories::WRITTEN);

/// Whether this process is shown frames' numbers. Where it isn't, the zero page can't be told by entries, and the two
/// ways differ in that bit by their documentation.
fn sees_frames() -> bool {
    zero_frame().unwrap().is_some()
}

#[test]
fn anonymous_pages_touched_untouched_and_zero() {
    let mapping = Mapping::make(8, None);
    mapping.write(0);
    mapping.write(1);
    mapping.write(5);
    if sees_frames() {
        mapping.read(3);
    }
    let pages = both(&mapping);
    for (n, page) in pages.iter().enumerate() {
        let expected = match n {
            0 | 1 | 5 => TOUCHED,
            3 if sees_frames() => TOUCHED.with(Categories::PFNZERO),
            _ => Categories::NONE,
        };
        assert_eq!(*page, expected, "page {n}");
    }
}

#[test]
fn a_private_file_mapping_shows_which_pages_are_its_own() {
    let file = memfd_create("pages", 1).unwrap();
    truncate(file.as_fd(), 4 * PAGE_BYTES).unwrap();
    // All pages of the file exist before they are mapped.
    fs::pwrite(file.as_fd(), &vec![7; 4 * PAGE_BYTES as usize], 0).unwrap();
    let mapping = Mapping::make(4, Some(file.as_fd()));
    // Faulting one page of a file in may map its neighbours too, but only pages of the file.
    mapping.read(0);
    mapping.write(2);
    let pages = both(&mapping);
    assert_eq!(pages[0], TOUCHED.with(Categories::FILE));
    assert_eq!(pages[2], TOUCHED, "a private copy is no page of the file");
    for n in [1, 3] {
        assert!(pages[n] == Categories::NONE || pages[n] == TOUCHED.with(Categories::FILE), "{:?}", pages[n]);
    }
}

#[test]
fn guard_pages_are_marked() {
    let mapping = Mapping::make(4, None);
    for n in 0..4 {
        mapping.write(n);
    }
    // MADV_GUARD_INSTALL; EINVAL before 6.13.
    // SAFETY: the page is ours, and nothing touches it from here on.
    if unsafe { libc::madvise(mapping.page(1).cast(), PAGE_BYTES as usize, 102) } != 0 {
        return;
    }
    let pagemap = own();
    let entries = by_page(&mapping, &runs_by_entries(pagemap.as_fd(), mapping.at, mapping.end()).unwrap());
    let scanned = by_page(&mapping, &runs_by_scan(pagemap.as_fd(), mapping.at, mapping.end()).unwrap());
    for (n, (entry, scan)) in entries.iter().zip(&scanned).enumerate() {
        if n != 1 {
            assert_eq!((*entry, *scan), (TOUCHED, TOUCHED));
        } else {
            assert!(entry.has(Categories::SWAPPED) && scan.has(Categories::SWAPPED), "{entry:?} {scan:?}");
            assert!(!entry.has(Categories::PRESENT) && !scan.has(Categories::PRESENT));
        }
    }
    // Since 6.15 both ways name it.
    if entries[1].has(Categories::GUARD) {
        assert_eq!(entries, scanned);
    }
}

#[test]
fn more_runs_than_fit_in_one_call_are_all_found() {
    let count = 3 * REGIONS_MAX as u64;
    let mapping = Mapping::make(2 * count, None);
    for n in 0..count {
        mapping.write(2 * n);
    }
    let pagemap = own();
    let runs = runs(pagemap.as_fd(), mapping.at, mapping.end()).unwrap();
    let expected: Vec<PageRun> = (0..count)
        .map(|n| PageRun { start: mapping.at + 2 * n * PAGE_BYTES, pages: 1, categories: TOUCHED })
        .collect();
    let entries = runs_by_entries(pagemap.as_fd(), mapping.at, mapping.end()).unwrap();
    for found in [runs, entries] {
        assert_eq!(found.len(), expected.len());
        let wrong = found.iter().zip(&expected).position(|(a, b)| a != b);
        assert_eq!(wrong, None, "{:?} for {:?}", found[wrong.unwrap()], expected[wrong.unwrap()]);
    }
}

#[test]
fn neighbours_make_one_run() {
    let mapping = Mapping::make(100, None);
    for n in 10..90 {
        mapping.write(n);
    }
    let pagemap = own();
    let run = PageRun { start: mapping.at + 10 * PAGE_BYTES, pages: 80, categories: TOUCHED };
    assert_eq!(runs(pagemap.as_fd(), mapping.at, mapping.end()).unwrap(), [run]);
    assert_eq!(runs_by_entries(pagemap.as_fd(), mapping.at, mapping.end()).unwrap(), [run]);
}

#[test]
fn ranges_that_are_none_are_refused() {
    let pagemap = own();
    for (start, end) in [(1, PAGE_BYTES), (0, 1), (2 * PAGE_BYTES, PAGE_BYTES)] {
        assert!(runs(pagemap.as_fd(), start, end).unwrap_err().is(libc::EINVAL));
        assert!(runs_by_entries(pagemap.as_fd(), start, end).unwrap_err().is(libc::EINVAL));
    }
    assert_eq!(runs(pagemap.as_fd(), 0, 0).unwrap(), []);
}

#[test]
fn the_bits_of_an_entry() {
    let is = |entry: u64| categories(entry, Some(0x1234));
    assert_eq!(is(0), Categories::NONE);
    assert_eq!(is(1 << 63 | 0x99), TOUCHED);
    assert_eq!(is(1 << 63 | 1 << 57 | 0x99), Categories::PRESENT);
    assert_eq!(is(1 << 63 | 0x1234), TOUCHED.with(Categories::PFNZERO));
    assert_eq!(is(1 << 63 | 1 << 61 | 0x99), TOUCHED.with(Categories::FILE));
    assert_eq!(is(1 << 62 | 0x1234), Categories::SWAPPED.with(Categories::WRITTEN));
    assert_eq!(is(1 << 62 | 1 << 58), Categories::SWAPPED.with(Categories::WRITTEN).with(Categories::GUARD));
    // The soft-dirty and exclusive bits alone make no page.
    assert_eq!(is(1 << 55 | 1 << 56), Categories::NONE);
}
