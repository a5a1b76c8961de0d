//! The vdso and its data: code that the kernel puts into every process.
//!
//! **In the kernel**: execve(2) maps a small library (man 7 vdso) and, before it, pages of data that it reads
//! (`[vvar]`, since 6.13 `[vvar_vclock]` too) at a random place. libc finds it by AT_SYSINFO_EHDR and remembers addresses
//! in it, and a thread may be stopped inside it. Both can be moved by mremap(2) and by nothing else.
//!
//! **In the image**: the areas' places, and the size and hash of the code.
//!
//! **Taken how**: `/proc/PID/smaps`. The code is hashed from our own vdso, since the kernel has one for all programs of
//! an architecture, and bardo writes into the slack behind a target's own (see the kernel crate's `remote`).
//!
//! **Put back how**: a process of the restart has the vdso that it inherited from us; each area is moved to its old
//! place, by way of free room if old and new places overlap. The host's vdso must be the very same code with the same
//! layout: else addresses in it would point at other instructions. Then this host can't run the image.
//!
//! **Not saved**: breakpoints or other changes that somebody wrote into it.

use bardo_kernel::Sysno;
use bardo_kernel::mmap::find_hole;
use bardo_kernel::process_vm;
use bardo_kernel::procfs::maps::{self, Special};
use bardo_kernel::stub::{Arg, Batch};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::area::{Area, Backing, PAGE, Span, USER_MAX, USER_MIN};
use crate::error::{Doing, Refusal, Result};

/// The largest vdso that is taken for one.
const LEN_MAX: u64 = 1 << 20;

/// Which vdso a kernel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vdso {
    /// Bytes of its code.
    pub len: u64,
    /// XXH3-64 of them.
    pub hash: u64,
}

/// What a special area of `maps` is to an image.
pub(super) fn backing(special: &Special) -> Option<Backing> {
    match special {
        Special::Vdso => Some(Backing::Vdso),
        Special::Vvar => Some(Backing::Vvar),
        Special::VvarVclock => Some(Backing::VvarVclock),
        _ => None,
    }
}

/// The kernel's areas among those of a process, with their places.
pub(super) fn places(areas: &[maps::Area]) -> Vec<(Backing, Span)> {
    areas
        .iter()
        .filter_map(|a| Some((backing(a.special.as_ref()?)?, Span { start: a.start, end: a.end })))
        .collect()
}

/// What this kernel has of its own in every process, as our own shows it.
#[derive(Debug)]
pub(super) struct Here {
    /// Its vdso; none where it has none (`vdso=0`).
    pub vdso: Option<Vdso>,
    places: Vec<(Backing, Span)>,
}

impl Here {
    /// Looks at our own memory.
    pub fn look() -> Result<Here> {
        let pid = std::process::id() as i32;
        let places = places(&maps::read(pid).doing("reading our own memory areas", None)?);
        let code = places.iter().find(|(kind, span)| *kind == Backing::Vdso && span.len() <= LEN_MAX);
        let vdso = match code {
            None => None,
            Some((_, span)) => {
                let mut code = vec![0; span.len() as usize];
                process_vm::read_exact(pid, span.start, &mut code).doing("reading our own vdso", None)?;
                Some(Vdso { len: span.len(), hash: xxh3_64(&code) })
            }
        };
        Ok(Here { vdso, places })
    }

    /// Why a space's areas of the kernel, of this vdso, can't be had here.
    pub fn check(&self, wanted: &[(Backing, Span)], taken: Option<Vdso>) -> Option<Refusal> {
        let refuse = |what: String| {
            Some(Refusal {
                who: None,
                fd: None,
                what,
                code: "host/vdso",
                why: "the kernel's code in the tree's memory would be other code at the same addresses"
                    .into(),
                remedy: "restart on the kernel of the checkpoint".into(),
            })
        };
        for (kind, span) in wanted {
            match self.places.iter().filter(|(k, _)| k == kind).collect::<Vec<_>>()[..] {
                [(_, here)] if here.len() == span.len() => {}
                [(_, here)] => {
                    let (old, new) = (span.len(), here.len());
                    return refuse(format!("{} of {old} bytes, where this kernel's has {new}", name(kind)));
                }
                _ => return refuse(format!("{}, which this kernel doesn't give a process", name(kind))),
            }
        }
        if wanted.iter().any(|(kind, _)| *kind == Backing::Vdso) && taken != self.vdso {
            return refuse("a vdso that isn't this kernel's".into());
        }
        None
    }
}

fn name(kind: &Backing) -> &'static str {
    match kind {
        Backing::Vvar => "[vvar]",
        Backing::VvarVclock => "[vvar_vclock]",
        _ => "[vdso]",
    }
}

/// Adds the steps that move the kernel's areas from where they are (`now`) to where they belong. `busy` is everything
/// else that is mapped or will be.
///
/// # Errors
/// ENOMEM: no room to move by way of.
pub(super) fn moves(
    now: &[(Backing, Span)],
    wanted: &[(Backing, Span)],
    busy: &[Span],
    batch: &mut Batch,
) -> bardo_kernel::Result<()> {
    let value = Arg::Value;
    let unmap = |batch: &mut Batch, span: Span| {
        batch.call_for(Sysno::munmap, [value(span.start), value(span.len())], 0);
    };
    let shift = |batch: &mut Batch, from: Span, to: u64| {
        let flags = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64;
        let len = value(from.len());
        batch.call_for(Sysno::mremap, [value(from.start), len, len, value(flags), value(to)], to);
    };
    let mut pairs = Vec::new();
    for (kind, from) in now {
        match wanted.iter().find(|(k, _)| k == kind) {
            Some((_, to)) if to.len() == from.len() => pairs.push((*from, *to)),
            _ => unmap(batch, *from),
        }
    }
    pairs.retain(|(from, to)| from != to);
    let overlap = pairs.iter().any(|(_, to)| now.iter().any(|(_, from)| from.meets(*to)));
    if overlap {
        let total: u64 = pairs.iter().map(|(from, _)| from.len() + PAGE).sum();
        let mut taken: Vec<(u64, u64)> = busy.iter().map(|s| (s.start, s.end)).collect();
        taken.extend(now.iter().chain(wanted).map(|(_, s)| (s.start, s.end)));
        taken.sort_unstable();
        let mut hole = find_hole(&taken, total, USER_MIN, USER_MAX)?;
        for (from, _) in &mut pairs {
            let to = Span { start: hole, end: hole + from.len() };
            shift(batch, *from, to.start);
            *from = to;
            hole = to.end + PAGE;
        }
    }
    for (from, to) in pairs {
        shift(batch, from, to.start);
    }
    Ok(())
}

/// The kernel's areas of a space.
pub(super) fn wanted(areas: &[Area]) -> Vec<(Backing, Span)> {
    areas.iter().filter(|a| a.backing.is_kernels()).map(|a| (a.backing.clone(), a.span())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: u64, pages: u64) -> Span {
        Span { start, end: start + pages * PAGE }
    }

    fn lines(now: &[(Backing, Span)], wanted: &[(Backing, Span)], busy: &[Span]) -> Vec<String> {
        let mut batch = Batch::new();
        moves(now, wanted, busy, &mut batch).unwrap();
        batch.lines().collect()
    }

    #[test]
    fn areas_move_straight_where_nothing_is_in_the_way() {
        let now = [(Backing::Vvar, at(0x100000, 4)), (Backing::Vdso, at(0x104000, 2))];
        let there = [(Backing::Vvar, at(0x200000, 4)), (Backing::Vdso, at(0x204000, 2))];
        assert_eq!(lines(&now, &there, &[]).len(), 2);
        assert_eq!(lines(&now, &now, &[]).len(), 0);
        assert_eq!(
            lines(&now, &[], &[]),
            ["munmap(0x100000, 16384)", "munmap(0x104000, 8192)"]
                .map(|s| s.replace("16384", "0x4000").replace("8192", "0x2000"))
        );
    }

    #[test]
    fn areas_that_swap_places_go_by_way_of_free_room() {
        let now = [(Backing::Vvar, at(0x100000, 2)), (Backing::Vdso, at(0x102000, 2))];
        let there = [(Backing::Vdso, at(0x100000, 2)), (Backing::Vvar, at(0x102000, 2))];
        let steps = lines(&now, &there, &[at(0x200000, 16)]);
        assert_eq!(steps.len(), 4, "{steps:?}");
        assert!(steps[0].starts_with("mremap(0x100000,") && steps[1].starts_with("mremap(0x102000,"));
        assert!(steps[2].ends_with("0x102000)") && steps[3].ends_with("0x100000)"), "{steps:?}");
    }

    #[test]
    fn our_own_vdso_fits_us() {
        let here = Here::look().unwrap();
        let (mine, vdso) = (&here.places, here.vdso);
        assert!(vdso.is_some());
        assert_eq!(here.check(mine, vdso), None);
        let other = vdso.map(|v| Vdso { hash: v.hash ^ 1, ..v });
        assert_eq!(here.check(mine, other).unwrap().code, "host/vdso");
        let longer: Vec<_> =
            mine.iter().map(|(k, s)| (k.clone(), Span { start: s.start, end: s.end + PAGE })).collect();
        assert_eq!(here.check(&longer, vdso).unwrap().code, "host/vdso");
        assert_eq!(here.check(&[mine.clone(), mine.clone()].concat(), vdso), None);
        let bare = Here { vdso: None, places: Vec::new() };
        assert_eq!(bare.check(mine, vdso).unwrap().code, "host/vdso");
    }
}
