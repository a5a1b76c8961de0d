//! Private anonymous memory: mmap(2), the heap, stacks, guard areas.
//!
//! **In the kernel**: areas without a file. The heap is one that brk(2) moves the end of; a stack one that grows down at a
//! fault (`gd`); a guard one without any protection. A page exists from the first touch; from the first write it is the
//! process's own. Memory that was ever writable counts as committed (`ac`), even once it is read-only. madvise(2),
//! mlock(2) and mmap(2)'s MAP_NORESERVE leave flags on an area.
//!
//! **In the image**: place, protection, flags; the pages that aren't zero; which of them were parts of huge pages.
//!
//! **Taken how**: `/proc/PID/smaps` and PAGEMAP_SCAN, nothing inside.
//!
//! **Put back how**: mmap(2) at the same address, refusing to replace anything; writable if it ever was. What was in huge
//! pages is made to exist in huge pages; the rest of an area gets its advice only when it is filled, or single pages would
//! become huge ones. Then the pages; then protection, advice and locks as they were; guard pages (MADV_GUARD_INSTALL); at last
//! the seals (mseal(2)), which forbid all of that. Memory that the kernel may drop at any time (MAP_DROPPABLE; libc keeps
//! the state of its random numbers there) comes back empty: nobody draws the same numbers in two restarts of one image.
//!
//! **Not saved**: which zero pages were resident; which pages were in swap; names, where the restarting kernel has none
//! (CONFIG_ANON_VMA_NAME). Adjacent areas of the same kind may come back as one, and as one that may hold guard pages
//! (`gu`) if one of them did. Refused: hugetlbfs (the pool of the host may be empty when the pages are needed),
//! userfaultfd, secret memory, protection keys, shadow stacks.

use bardo_kernel::Sysno;
use bardo_kernel::procfs::smaps::VmFlag;
use bardo_kernel::stub::{Arg, Batch};

use super::area::{Area, Backing, PAGE, Span};

/// MADV_GUARD_INSTALL of `<linux/mman.h>` (6.13).
const MADV_GUARD_INSTALL: u64 = 102;
/// MADV_POPULATE_WRITE of `<linux/mman.h>` (5.14).
const MADV_POPULATE_WRITE: u64 = 23;
/// MADV_COLLAPSE of `<linux/mman.h>` (6.1).
const MADV_COLLAPSE: u64 = 25;
/// MAP_DROPPABLE of `<linux/mman.h>` (6.11), in the place of MAP_PRIVATE.
const MAP_DROPPABLE: i32 = 0x08;
/// PR_SET_VMA and PR_SET_VMA_ANON_NAME of `<linux/prctl.h>` (5.17).
const PR_SET_VMA: u64 = 0x5356_4d41;
const PR_SET_VMA_ANON_NAME: u64 = 0;

fn value(v: u64) -> Arg {
    Arg::Value(v)
}

fn has(area: &Area, flag: VmFlag) -> bool {
    area.flags.has(flag)
}

/// The MAP_ flags of an area beyond private or shared.
pub(super) fn map_flags(area: &Area) -> u64 {
    let mut flags = libc::MAP_FIXED_NOREPLACE;
    if has(area, VmFlag::NoReserve) {
        flags |= libc::MAP_NORESERVE;
    }
    if has(area, VmFlag::GrowsDown) {
        // Without MAP_STACK, which means MADV_NOHUGEPAGE since Linux 6.7; where it was given, that flag is kept anyway.
        flags |= libc::MAP_GROWSDOWN;
    }
    flags as u64
}

/// Adds the step that makes an anonymous area.
pub(super) fn map(area: &Area, batch: &mut Batch) {
    let kind = if has(area, VmFlag::Droppable) { MAP_DROPPABLE } else { libc::MAP_PRIVATE };
    let flags = map_flags(area) | (kind | libc::MAP_ANONYMOUS) as u64;
    let prot = value(area.fill_prot().into());
    let args = [value(area.start), value(area.len()), prot, value(flags), value(u64::MAX), value(0)];
    batch.call_for(Sysno::mmap, args, area.start);
}

fn advise(area: &Area, advice: u64) -> [Arg; 3] {
    [value(area.start), value(area.len()), value(advice)]
}

/// Adds the advice that keeps single pages from becoming huge ones while an area is filled. The kernel may be built without
/// huge pages.
pub(super) fn advise_early(area: &Area, batch: &mut Batch) {
    if has(area, VmFlag::HugePage) || has(area, VmFlag::NoHugePage) {
        batch.attempt(Sysno::madvise, advise(area, libc::MADV_NOHUGEPAGE as u64));
    }
}

/// Adds the steps that make what was in huge pages exist in huge pages.
pub(super) fn make_huge(area: &Area, huge: &[Span], batch: &mut Batch) {
    if !has(area, VmFlag::HugePage) || huge.is_empty() {
        return;
    }
    batch.attempt(Sysno::madvise, advise(area, libc::MADV_HUGEPAGE as u64));
    for span in huge {
        let args = [value(span.start), value(span.len()), value(MADV_POPULATE_WRITE)];
        batch.attempt(Sysno::madvise, args);
    }
    batch.attempt(Sysno::madvise, advise(area, libc::MADV_NOHUGEPAGE as u64));
}

/// Adds the last steps for an area, once its pages are there. `empty`: none of its own were put. `guarded`: guard pages
/// are yet to come. `huge`: what was in huge pages.
pub(super) fn finish(area: &Area, empty: bool, guarded: bool, huge: &[Span], batch: &mut Batch) {
    if has(area, VmFlag::HugePage) {
        batch.attempt(Sysno::madvise, advise(area, libc::MADV_HUGEPAGE as u64));
    } else {
        // The system made them huge without advice, and may do so no more.
        for span in huge {
            batch.attempt(Sysno::madvise, [value(span.start), value(span.len()), value(MADV_COLLAPSE)]);
        }
    }
    if area.fill_prot() != area.prot {
        let keep_account = area.backing == Backing::Anonymous && empty;
        // mprotect(2) to read-only gives back the commitment of anonymous memory that never had a page (6.7), so an
        // area that had one once gets one for a moment.
        let first = [value(area.start), value(PAGE)];
        if keep_account {
            let [at, len] = first;
            batch.call(Sysno::madvise, [at, len, value(MADV_POPULATE_WRITE)]);
        }
        batch.call_for(Sysno::mprotect, advise(area, area.prot.into()), 0);
        if keep_account {
            let [at, len] = first;
            batch.call_for(Sysno::madvise, [at, len, value(libc::MADV_DONTNEED as u64)], 0);
        }
    }
    let kept = [
        (VmFlag::SequentialRead, libc::MADV_SEQUENTIAL),
        (VmFlag::RandomRead, libc::MADV_RANDOM),
        (VmFlag::DontDump, libc::MADV_DONTDUMP),
        (VmFlag::WipeOnFork, libc::MADV_WIPEONFORK),
        (VmFlag::DontCopy, libc::MADV_DONTFORK),
    ];
    for (_, advice) in kept.iter().filter(|(flag, _)| has(area, *flag)) {
        batch.call_for(Sysno::madvise, advise(area, *advice as u64), 0);
    }
    if has(area, VmFlag::Mergeable) {
        // The kernel may be built without KSM; nothing depends on it.
        batch.attempt(Sysno::madvise, advise(area, libc::MADV_MERGEABLE as u64));
    }
    if let Some(name) = &area.name {
        let name = batch.text(name.0.as_os_str().as_encoded_bytes());
        let span = [value(area.start), value(area.len())];
        let [at, len] = span;
        batch.attempt(Sysno::prctl, [value(PR_SET_VMA), value(PR_SET_VMA_ANON_NAME), at, len, name]);
    }
    if has(area, VmFlag::Locked) && !guarded {
        lock(area, false, batch);
    }
}

/// Adds the step that takes an area out of the merging of equal pages, in which its whole process takes part, where it wasn't.
pub(super) fn keep_apart(area: &Area, batch: &mut Batch) {
    if !has(area, VmFlag::Mergeable) {
        // Shared areas and devices are never merged.
        batch.attempt(Sysno::madvise, advise(area, libc::MADV_UNMERGEABLE as u64));
    }
}

/// Adds the very last step for an area that has guard pages: until then the kernel may have made one area of it and its
/// neighbours, and a mark that it keeps for guard pages (`gu`) would be theirs too. The lock comes after it: guard pages
/// can't be installed in locked memory.
pub(super) fn install_guards(area: &Area, guards: &[Span], batch: &mut Batch) {
    for guard in guards {
        let args = [value(guard.start), value(guard.len()), value(MADV_GUARD_INSTALL)];
        batch.call_for(Sysno::madvise, args, 0);
    }
    if has(area, VmFlag::Locked) {
        lock(area, true, batch);
    }
}

/// Adds the step that seals an area, after everything else that is done to memory.
pub(super) fn seal(area: &Area, batch: &mut Batch) {
    if has(area, VmFlag::Sealed) {
        batch.call_for(Sysno::mseal, [value(area.start), value(area.len()), value(0)], 0);
    }
}

fn lock(area: &Area, guarded: bool, batch: &mut Batch) {
    let on_fault = u64::from(has(area, VmFlag::LockOnFault)); // MLOCK_ONFAULT is 1
    let args = [value(area.start), value(area.len()), value(on_fault)];
    // mlock2(2) locks an area that has unreadable pages all the same, and reports ENOMEM.
    if area.prot == 0 || guarded {
        batch.attempt(Sysno::mlock2, args);
    } else {
        batch.call_for(Sysno::mlock2, args, 0);
    }
}
