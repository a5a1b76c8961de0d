//! Memory shared with a target: a memfd (memfd_create(2)), mapped on both sides, with futexes in it (futex(2)).
//!
//! The other side may be hostile, so none of it is ever seen as a slice: bytes are copied in and out, words are atomics.
//! The file's size is sealed, so that no one can take the pages away under our hands.
//!
//! Privilege: none.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use syscalls::Sysno;

use crate::error::{Errno, Failed, Result};
use crate::gate::syscall;
use crate::keeper::Keeper;

/// Flags of memfd_create(2).
pub mod memfd {
    /// Closed on exec.
    pub const CLOEXEC: u32 = 1;
    /// Seals can be set.
    pub const ALLOW_SEALING: u32 = 2;
    /// Never executable (Linux 6.3).
    pub const NOEXEC_SEAL: u32 = 8;
    /// Executable (Linux 6.3).
    pub const EXEC: u32 = 16;
}

/// Makes an anonymous file in memory. Flags that the kernel doesn't know yet (NOEXEC_SEAL, EXEC before Linux 6.3) are
/// left out.
pub fn memfd_create(name: impl AsRef<OsStr>, flags: u32) -> Result<OwnedFd> {
    let name = name.as_ref();
    let c = crate::fs::c_path(std::path::Path::new(name))?;
    let create = |flags: u32| {
        // SAFETY: the name lives over the call; the descriptor is new and ours.
        unsafe {
            syscall(Sysno::memfd_create, [c.as_ptr() as usize, flags as usize, 0, 0, 0, 0])
                .map(|fd| OwnedFd::from_raw_fd(fd as RawFd))
        }
    };
    match create(flags) {
        Err(e) if e.is(libc::EINVAL) => create(flags & !(memfd::NOEXEC_SEAL | memfd::EXEC)),
        other => other,
    }
    .map_err(|e| e.of(format!("memfd_create({name:?}, {flags:#x})")))
}

/// Sets a file's size (ftruncate(2)).
pub fn truncate(fd: BorrowedFd<'_>, len: u64) -> Result<()> {
    // SAFETY: no memory is touched.
    unsafe { syscall(Sysno::ftruncate, [fd.as_raw_fd() as usize, len as usize, 0, 0, 0, 0]) }
        .map(drop)
        .map_err(|e| e.of(format!("ftruncate(fd {}, {len})", fd.as_raw_fd())))
}

/// Forbids changing a memfd's size (F_ADD_SEALS with F_SEAL_SHRINK and F_SEAL_GROW).
pub fn seal_size(fd: BorrowedFd<'_>) -> Result<()> {
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;
    // SAFETY: no memory is touched.
    unsafe {
        syscall(Sysno::fcntl, [fd.as_raw_fd() as usize, libc::F_ADD_SEALS as usize, seals as usize, 0, 0, 0])
    }
    .map(drop)
    .map_err(|e| e.of(format!("fcntl(fd {}, F_ADD_SEALS, {seals:#x})", fd.as_raw_fd())))
}

/// Pages of a file, mapped shared, unmapped when dropped.
#[derive(Debug)]
pub struct SharedPages {
    at: usize,
    len: usize,
}

impl SharedPages {
    /// Maps `len` bytes of `fd` from `offset` to read and write, where the kernel likes.
    pub fn map(fd: BorrowedFd<'_>, offset: u64, len: usize) -> Result<SharedPages> {
        Self::map_with(fd, offset, len, None, libc::PROT_READ | libc::PROT_WRITE)
    }

    /// Maps at this very address, which must be free, with this protection.
    pub fn map_at(fd: BorrowedFd<'_>, offset: u64, len: usize, at: u64, prot: i32) -> Result<SharedPages> {
        Self::map_with(fd, offset, len, Some(at), prot)
    }

    fn map_with(
        fd: BorrowedFd<'_>,
        offset: u64,
        len: usize,
        at: Option<u64>,
        prot: i32,
    ) -> Result<SharedPages> {
        let fixed = if at.is_some() { libc::MAP_FIXED_NOREPLACE } else { 0 };
        let args = [
            at.unwrap_or(0) as usize,
            len,
            prot as usize,
            (libc::MAP_SHARED | fixed) as usize,
            fd.as_raw_fd() as usize,
            offset as usize,
        ];
        // SAFETY: a new mapping that replaces none: without a fixed address the kernel picks free room, with one
        // MAP_FIXED_NOREPLACE refuses room that is taken.
        let got = unsafe { syscall(Sysno::mmap, args) }
            .map_err(|e| e.of(format!("mmap({:#x}, {len}, fd {})", at.unwrap_or(0), fd.as_raw_fd())))?;
        let pages = SharedPages { at: got, len };
        match at {
            Some(at) if at as usize != got => Err(Failed::unexpected(format!("mmap({at:#x}) gave {got:#x}"))),
            _ => Ok(pages),
        }
    }

    /// Where it is in our own address space.
    pub fn address(&self) -> u64 {
        self.at as u64
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it is empty: never.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn check(&self, offset: usize, len: usize, align: usize) -> usize {
        assert!(
            offset.is_multiple_of(align) && offset.checked_add(len).is_some_and(|end| end <= self.len),
            "shared pages of {} bytes: {len} bytes at {offset}",
            self.len
        );
        self.at + offset
    }

    fn u32(&self, offset: usize) -> &AtomicU32 {
        let at = self.check(offset, 4, 4) as *const AtomicU32;
        // SAFETY: in bounds and aligned (checked); the mapping lives as long as `self`; an atomic may be changed by
        // anyone at any time.
        unsafe { &*at }
    }

    fn u64(&self, offset: usize) -> &AtomicU64 {
        let at = self.check(offset, 8, 8) as *const AtomicU64;
        // SAFETY: as for `u32`.
        unsafe { &*at }
    }

    /// Reads a word.
    pub fn load(&self, offset: usize) -> u32 {
        self.u32(offset).load(Ordering::SeqCst)
    }

    /// Writes a word.
    pub fn store(&self, offset: usize, value: u32) {
        self.u32(offset).store(value, Ordering::SeqCst);
    }

    /// Reads a double word.
    pub fn load64(&self, offset: usize) -> u64 {
        self.u64(offset).load(Ordering::SeqCst)
    }

    /// Writes a double word.
    pub fn store64(&self, offset: usize, value: u64) {
        self.u64(offset).store(value, Ordering::SeqCst);
    }

    /// Copies bytes in.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        let at = self.check(offset, bytes.len(), 1) as *mut u8;
        // SAFETY: in bounds (checked); `bytes` is our own memory, which never overlaps a mapping made here.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len()) }
    }

    /// Copies bytes out. What they are is up to whoever shares the pages.
    pub fn read(&self, offset: usize, bytes: &mut [u8]) {
        let at = self.check(offset, bytes.len(), 1) as *const u8;
        // SAFETY: in bounds (checked); the copy tolerates a concurrent writer, since any byte value is valid.
        unsafe { std::ptr::copy_nonoverlapping(at, bytes.as_mut_ptr(), bytes.len()) }
    }

    /// Sleeps until the word isn't `value` any more, somebody wakes us, or the time is over.
    pub fn wait(&self, offset: usize, value: u32, nanoseconds: u64) {
        let time = libc::timespec {
            tv_sec: (nanoseconds / 1_000_000_000) as i64,
            tv_nsec: (nanoseconds % 1_000_000_000) as i64,
        };
        let word = self.u32(offset) as *const AtomicU32 as usize;
        // SAFETY: the word is in the mapping, the time lives over the call. EAGAIN, EINTR and ETIMEDOUT all mean: look
        // again.
        let _ = unsafe {
            syscall(
                Sysno::futex,
                [word, libc::FUTEX_WAIT as usize, value as usize, &raw const time as usize, 0, 0],
            )
        };
    }

    /// Wakes who waits for the word. A wake that fails is made once more: somebody would sleep for ever.
    pub fn wake(&self, offset: usize, how_many: u32) {
        let word = self.u32(offset) as *const AtomicU32 as usize;
        for _ in 0..2 {
            // SAFETY: the word is in the mapping. Nobody waiting is no error.
            let woken = unsafe {
                syscall(Sysno::futex, [word, libc::FUTEX_WAKE as usize, how_many as usize, 0, 0, 0])
            };
            if woken.is_ok() {
                break;
            }
        }
    }
}

impl Drop for SharedPages {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, made by `map_with`; no reference into it outlives `self`.
        let _ = unsafe { syscall(Sysno::munmap, [self.at, self.len, 0, 0, 0, 0]) };
    }
}

/// `struct robust_list_head` (linux/futex.h) with its one entry.
#[repr(C)]
pub(crate) struct RobustHead {
    first: usize,
    offset: isize,
    pending: usize,
    /// The one entry: its link leads back to the head.
    entry: usize,
}

impl RobustHead {
    /// Lays a head out that leads to the futex at `word`.
    pub(crate) fn lay(head: &mut [usize; 4], word: usize) {
        let at = head.as_ptr() as usize;
        let entry = at + std::mem::offset_of!(RobustHead, entry);
        head[0] = entry;
        head[1] = word.wrapping_sub(entry);
        head[3] = at;
    }
}

/// The kernel's promise to tell others when the calling thread dies, however it dies: a robust futex
/// (set_robust_list(2)).
///
/// While it is held, the word has our tid in it; when we die, the kernel takes it out and wakes one waiter. Only the
/// thread that made a lifeline may drop it. One at a time: the list of this thread is replaced, and put back.
#[derive(Debug)]
pub struct Lifeline {
    pages: Rc<SharedPages>,
    offset: usize,
    holder: Holder,
}

#[derive(Debug)]
enum Holder {
    /// This thread; with the list that it had before.
    Us { head: Box<[usize; 4]>, old: (u64, u64) },
    /// A process of ours.
    Keeper { _keeper: Keeper },
}

const _: () = assert!(size_of::<RobustHead>() == size_of::<[usize; 4]>());
pub(crate) const FUTEX_WAITERS: u32 = 0x8000_0000;

impl Lifeline {
    /// Takes hold of the word at `offset`.
    pub fn hold(pages: Rc<SharedPages>, offset: usize) -> Result<Lifeline> {
        let word = pages.check(offset, 4, 4);
        let old = crate::ptrace::robust_list(0)?;
        let mut head = Box::new([0usize; 4]);
        RobustHead::lay(&mut head, word);
        set_robust_list(head.as_ptr() as usize, size_of::<[usize; 3]>())?;
        // From here on the list goes back to libc's, however this ends.
        let lifeline = Lifeline { pages, offset, holder: Holder::Us { head, old } };
        lifeline.pages.store(offset, gettid()? | FUTEX_WAITERS);
        Ok(lifeline)
    }

    /// The same, but those who see it break see it after every thread that we trace is free ([`crate::keeper`]).
    pub fn hold_for_traced(pages: Rc<SharedPages>, offset: usize) -> Result<Lifeline> {
        let _keeper = Keeper::hold(&pages, offset)?;
        Ok(Lifeline { pages, offset, holder: Holder::Keeper { _keeper } })
    }
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        self.pages.store(self.offset, 0);
        self.pages.wake(self.offset, i32::MAX as u32);
        if let Holder::Us { head, old } = &mut self.holder {
            let _ = set_robust_list(old.0 as usize, old.1 as usize);
            head[0] = 0;
        }
    }
}

fn set_robust_list(head: usize, len: usize) -> Result<()> {
    // SAFETY: the head is either libc's own, put back, or ours in a box that outlives its registration.
    unsafe { syscall(Sysno::set_robust_list, [head, len, 0, 0, 0, 0]) }.map(drop)
}

/// The calling thread's id.
pub fn gettid() -> Result<u32> {
    // SAFETY: no memory is touched.
    unsafe { syscall(Sysno::gettid, [0; 6]) }.map(|tid| tid as u32)
}

/// A free stretch of an address space: `len` bytes below `ceiling` that touch none of the `taken` ranges, with room between.
/// They come in any order, and may lie over one another: those of several processes do.
///
/// # Errors
/// ENOMEM: there is none above `floor`.
pub fn find_hole(taken: &[(u64, u64)], len: u64, floor: u64, ceiling: u64) -> Result<u64> {
    const PAGE: u64 = 4096;
    // A growing stack keeps a gap of 256 pages below itself free (stack_guard_gap).
    const GAP: u64 = 512 * PAGE;
    let mut by_end = taken.to_vec();
    by_end.sort_unstable_by_key(|(_, stop)| std::cmp::Reverse(*stop));
    // From here to `end` everything is free of the ranges that were looked at; the others stop further below.
    let mut end = ceiling;
    for (start, stop) in by_end {
        if end.saturating_sub(GAP) >= stop.saturating_add(len).saturating_add(GAP) {
            break;
        }
        end = end.min(start);
    }
    let at = end.saturating_sub(len.saturating_add(GAP)) & !(PAGE - 1);
    if at >= floor && at > 0 {
        return Ok(at);
    }
    Err(Failed { call: format!("finding {len} free bytes of address space"), errno: Errno(libc::ENOMEM) })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_hole_touches_nothing() {
        let taken = [(0x400000, 0x500000), (0x7000_0000, 0x7100_0000), (0x7fff_0000, 0x7fff_f000)];
        let at = find_hole(&taken, 0x10000, 0x10000, 0x8000_0000).unwrap();
        assert!(taken.iter().all(|(a, b)| at + 0x10000 <= *a || at >= *b), "{at:#x}");
        assert!(find_hole(&[(0x1000, 0x8000_0000)], 0x1000, 0x1000, 0x8000_0000).is_err());
    }

    #[test]
    fn a_hole_is_in_none_of_several_processes_ranges() {
        // A reservation of one process, and what others have inside of it and across its ends.
        let large = (0x10_0000_0000, 0x20_0000_0000);
        let nested = [(0x15_0000_0000, 0x15_0000_1000), (0x18_0000_0000, 0x19_0000_0000)];
        let across = [(0xf_ff00_0000, 0x10_0100_0000), (0x1f_ffff_0000, 0x20_0001_0000)];
        let above = (0x20_0010_0000, 0x20_1000_0000);
        let mut taken = vec![large, nested[0], nested[1], across[0], across[1], above, large];
        for _ in 0..taken.len() {
            taken.rotate_left(1);
            for len in [0x1000, 0x10_0000, 0x1_0000_0000] {
                let at = find_hole(&taken, len, 0x10000, above.1).unwrap();
                assert!(
                    taken.iter().all(|(start, stop)| at + len <= *start || at >= *stop),
                    "{len:#x} at {at:#x}"
                );
                let at = find_hole(&taken, len, 0x10000, 0x7fff_ffff_f000).unwrap();
                assert!(at >= above.1, "{len:#x} at {at:#x}: there is room above");
            }
        }
        assert!(find_hole(&[(0x1000, 0x8000_0000), (0x2000, 0x3000)], 0x1000, 0x1000, 0x8000_0000).is_err());
    }

    #[test]
    fn pages_are_shared_words_and_bytes() {
        let fd = memfd_create("bardo test", memfd::CLOEXEC | memfd::ALLOW_SEALING).unwrap();
        truncate(fd.as_fd(), 8192).unwrap();
        seal_size(fd.as_fd()).unwrap();
        assert!(truncate(fd.as_fd(), 0).is_err());
        let (a, b) =
            (SharedPages::map(fd.as_fd(), 0, 8192).unwrap(), SharedPages::map(fd.as_fd(), 0, 8192).unwrap());
        a.store(4096, 7);
        assert_eq!(b.load(4096), 7);
        b.write(5000, b"hello");
        let mut out = [0; 5];
        a.read(5000, &mut out);
        assert_eq!(&out, b"hello");
    }

    #[test]
    fn a_thread_that_dies_lets_go_of_its_lifeline() {
        let fd = memfd_create("bardo test", memfd::CLOEXEC).unwrap();
        truncate(fd.as_fd(), 4096).unwrap();
        let pages = SharedPages::map(fd.as_fd(), 0, 4096).unwrap();
        let theirs = fd.try_clone().unwrap();
        let thread = std::thread::spawn(move || {
            let mine = Rc::new(SharedPages::map(theirs.as_fd(), 0, 4096).unwrap());
            let line = Lifeline::hold(Rc::clone(&mine), 0).unwrap();
            assert_eq!(mine.load(0) & 0x3fff_ffff, gettid().unwrap());
            // The thread ends without dropping it, as a killed one does.
            std::mem::forget(line);
        });
        thread.join().unwrap();
        // A thread is joined when the kernel clears its tid, which comes after the robust list.
        assert_eq!(pages.load(0) & 0x3fff_ffff, 0);
        assert_ne!(pages.load(0) & 0x4000_0000, 0);
    }
}
