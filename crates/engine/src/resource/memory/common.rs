//! Pages that relatives share copy-on-write.
//!
//! **In the kernel**: fork(2) copies page tables, not pages. Parent and child have the same pages until one of them writes, and
//! gets a copy of its own. A hundred workers that were forked from one process hold most of its memory in common; nothing but
//! fork makes private pages common.
//!
//! **In the image**: `memory/common`: a set of processes, the addresses of the pages that just these have in common, and the
//! process that handed them on: their nearest common ancestor, which may be one of them. The pages are those of a space of the
//! same id, once. What was handed on comes before all other pages, in the order in which processes are made.
//!
//! **Taken how**: `/proc/PID/pagemap` tells which pages more than one process has (bit 56), and to holders of CAP_SYS_ADMIN
//! which page frame it is; the frames are looked at twice, for the kernel moves pages while we look. Who may not see frames
//! compares the contents of pages that have the same address and aren't their process's alone. All such pages are read through
//! `/proc/PID/mem`: process_vm_readv(2) pins what it reads, and since Linux 5.19 the kernel gives a process its own copy of a
//! page before it is pinned. A checkpoint would make a hundred copies of what a hundred workers share.
//!
//! **Put back how**: as they came about. The process that handed a page on is filled with it before its children are made, and
//! gives it up afterwards if it isn't its own; a child keeps the areas that it shares with its parent, and drops what it
//! hasn't in common with it. Where a child's area isn't part of an area of its parent any more, the page is copied.
//!
//! **Not saved**: that pages were common which have been moved to another address (mremap(2)) or swapped out, or that are
//! common by KSM. Two versions of one page that different children of one process have in common: only the one with more
//! owners is common again. Huge pages that were common come back as small ones.

use std::collections::{BTreeSet, HashMap};
use std::io::Write;
use std::os::fd::AsFd;

use bardo_image::Writer;
use bardo_kernel::{pagemap, process_vm};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::area::{PAGE, Span};
use super::pages::Source;
use super::space::{Present, Space, lengthen};
use crate::error::{Doing, Result};
use crate::subject::Subject;

/// How many stretches go into one record.
const SPANS_PER_RECORD: usize = 8192;
/// How much is compared at once.
const CHUNK: u64 = 256 << 10;

/// The record `memory/common`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommonRecord {
    /// The processes that have these pages, by their own pids.
    pub members: BTreeSet<u64>,
    /// The process that handed them on, if they can be handed on again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// Where they are, in order.
    pub spans: Vec<Span>,
}

/// A process among its relatives, which are in the order of their making.
#[derive(Debug)]
pub struct Relative<'a> {
    /// The process.
    pub subject: &'a Subject,
    /// Its memory.
    pub space: &'a mut Space,
    /// Its parent's number among them.
    pub parent: Option<usize>,
}

/// Pages of one set of processes.
#[derive(Debug)]
struct Common {
    id: u64,
    record: CommonRecord,
    /// In whose memory they are read.
    pid: i32,
    pages: Vec<Present>,
}

/// What the processes of a tree have in common page by page.
#[derive(Debug, Default)]
pub struct Commons(Vec<Common>);

/// A page that isn't its process's alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Page {
    at: u64,
    /// Its frame, or a hash of its content.
    key: u64,
    /// Whose it is.
    of: u32,
}

/// The pages that a set of processes has in common.
#[derive(Debug)]
struct Set {
    members: Vec<u32>,
    /// The nearest process that all of them descend from, if there is one.
    from: Option<usize>,
    /// All processes between it and them, with both ends, in order.
    path: Vec<u32>,
    /// What can be handed on again.
    handed: Vec<Span>,
    /// What can't: two versions of a page would have to be handed on by the same process.
    apart: Vec<Span>,
}

/// Finds the pages that relatives have in common, and takes them out of their own. `id` is the first id that is free.
///
/// # Errors
/// What keeps us from looking at their page tables, or at their memory.
pub fn find(relatives: &mut [Relative<'_>], id: u64) -> Result<Commons> {
    find_by(relatives, id, false)
}

/// The same; `blind`: as if we didn't see frames.
pub(super) fn find_by(relatives: &mut [Relative<'_>], id: u64, blind: bool) -> Result<Commons> {
    let mut pages = look(relatives)?;
    // Those that are shared with somebody outside of the tree as well.
    let mut shared: Vec<Vec<Span>> = vec![Vec::new(); relatives.len()];
    for page in &pages {
        lengthen(&mut shared[page.of as usize], Span { start: page.at, end: page.at + PAGE });
    }
    let blind = blind || pages.iter().any(|page| page.key == 0);
    if blind {
        by_content(relatives, &mut pages)?;
    } else {
        let again = look(relatives)?;
        let mut again = again.iter().peekable();
        pages.retain(|page| {
            while again.next_if(|other| *other < page).is_some() {}
            again.peek() == Some(&page)
        });
    }
    let mut commons = Commons::default();
    let mut sets = group(relatives, &pages);
    if blind {
        for set in &mut sets {
            if !set.is_the_same(relatives)? {
                (set.handed, set.apart) = Default::default();
            }
        }
    }
    sets.sort_by_key(|set| set.from);
    let handed = sets.iter().map(|set| (set, set.from, &set.handed));
    let apart = sets.iter().map(|set| (set, None, &set.apart));
    for (set, from, spans) in handed.chain(apart) {
        for spans in spans.chunks(SPANS_PER_RECORD) {
            let first = &relatives[set.members[0] as usize];
            commons.0.push(Common {
                id: id + commons.0.len() as u64,
                record: CommonRecord {
                    members: set.members.iter().map(|n| relatives[*n as usize].space.id).collect(),
                    from: from.map(|n| relatives[n].space.id),
                    spans: spans.to_vec(),
                },
                pid: first.subject.door,
                pages: divide(&first.space.pages, spans)
                    .0
                    .into_iter()
                    .map(Present::to_be_read_gently)
                    .collect(),
            });
        }
    }
    for (number, relative) in relatives.iter_mut().enumerate() {
        let mut spans: Vec<Span> = sets
            .iter()
            .filter(|set| set.members.binary_search(&(number as u32)).is_ok())
            .flat_map(|set| set.handed.iter().chain(&set.apart).copied())
            .collect();
        spans.sort_unstable();
        let (gently, directly) = divide(&divide(&relative.space.pages, &spans).1, &shared[number]);
        relative.space.pages = gently.into_iter().map(Present::to_be_read_gently).chain(directly).collect();
        relative.space.pages.sort_unstable_by_key(|present| present.span);
    }
    Ok(commons)
}

/// All pages that more than one process has, in order.
fn look(relatives: &[Relative<'_>]) -> Result<Vec<Page>> {
    let mut pages = Vec::new();
    for (of, relative) in relatives.iter().enumerate() {
        let who = Some(&relative.subject.who);
        let doing = "looking for pages that it shares with its relatives";
        let map = pagemap::open(relative.subject.door).doing(doing, who)?;
        for present in &relative.space.pages {
            let note = |at, key| pages.push(Page { at, key, of: of as u32 });
            let Span { start, end } = present.span;
            pagemap::shared_frames(map.as_fd(), start, end, note).doing(doing, who)?;
        }
    }
    // Runs that are in order already: this is a merge.
    pages.sort();
    Ok(pages)
}

/// Sets each page's key by its content. Pages whose address only one process has are left out.
fn by_content(relatives: &[Relative<'_>], pages: &mut Vec<Page>) -> Result<()> {
    let mut wanted: Vec<Vec<u64>> = vec![Vec::new(); relatives.len()];
    for same in pages.chunk_by(|a, b| a.at == b.at).filter(|same| same.len() > 1) {
        for page in same {
            wanted[page.of as usize].push(page.at);
        }
    }
    pages.clear();
    for (of, (relative, wanted)) in relatives.iter().zip(wanted).enumerate() {
        let mut memory = Memory::of(relative)?;
        for at in wanted {
            let content = memory.read(Span { start: at, end: at + PAGE })?;
            pages.push(Page { at, key: xxh3_64(content), of: of as u32 });
        }
    }
    pages.sort();
    Ok(())
}

/// A process's memory, to be read piece by piece.
struct Memory<'a> {
    relative: &'a Relative<'a>,
    file: std::os::fd::OwnedFd,
    buffer: Vec<u8>,
}

impl<'a> Memory<'a> {
    fn of(relative: &'a Relative<'a>) -> Result<Memory<'a>> {
        let file = process_vm::open_mem(relative.subject.door, false)
            .doing("opening its memory", Some(&relative.subject.who))?;
        Ok(Memory { relative, file, buffer: vec![0; CHUNK as usize] })
    }

    /// Reads at most [`CHUNK`] bytes.
    fn read(&mut self, span: Span) -> Result<&[u8]> {
        let who = Some(&self.relative.subject.who);
        let buffer = &mut self.buffer[..span.len() as usize];
        process_vm::read_mem_exact(self.file.as_fd(), span.start, buffer)
            .doing("comparing pages with those of its relatives", who)?;
        Ok(buffer)
    }
}

impl Set {
    fn new(relatives: &[Relative<'_>], members: Vec<u32>) -> Set {
        let line = |of: u32| std::iter::successors(Some(of as usize), |n| relatives[*n].parent);
        // Parents have lower numbers than their children: the highest number that is in all lines.
        let mut from: BTreeSet<usize> = members.first().map(|of| line(*of).collect()).unwrap_or_default();
        for of in &members {
            let own: BTreeSet<usize> = line(*of).collect();
            from.retain(|n| own.contains(n));
        }
        let from = from.last().copied();
        let between = members.iter().flat_map(|of| line(*of).take_while(|n| Some(*n) >= from));
        let path: BTreeSet<u32> = between.map(|n| n as u32).collect();
        Set { members, from, path: path.into_iter().collect(), handed: Vec::new(), apart: Vec::new() }
    }

    fn meets(&self, other: &Set) -> bool {
        let (few, many) = if self.path.len() < other.path.len() { (self, other) } else { (other, self) };
        few.path.iter().any(|n| many.path.binary_search(n).is_ok())
    }

    /// Whether all members really have the same content there: a hash may lie, most of all when somebody wants it to.
    fn is_the_same(&self, relatives: &[Relative<'_>]) -> Result<bool> {
        let (first, others) = self.members.split_first().map_or((0, &[][..]), |(first, rest)| (*first, rest));
        let mut first = Memory::of(&relatives[first as usize])?;
        let mut others =
            others.iter().map(|n| Memory::of(&relatives[*n as usize])).collect::<Result<Vec<_>>>()?;
        for span in self.handed.iter().chain(&self.apart) {
            for start in (span.start..span.end).step_by(CHUNK as usize) {
                let span = Span { start, end: span.end.min(start + CHUNK) };
                let content = first.read(span)?;
                for other in &mut others {
                    if other.read(span)? != content {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }
}

/// Sorts pages by who has them in common.
fn group(relatives: &[Relative<'_>], pages: &[Page]) -> Vec<Set> {
    let mut sets: Vec<Set> = Vec::new();
    let mut known: HashMap<Vec<u32>, usize> = HashMap::new();
    let mut members = Vec::new();
    let mut here = Vec::new();
    for same_place in pages.chunk_by(|a, b| a.at == b.at) {
        here.clear();
        for same in same_place.chunk_by(|a, b| a.key == b.key).filter(|same| same.len() > 1) {
            members.clear();
            members.extend(same.iter().map(|page| page.of));
            let number = known.get(&members).copied().unwrap_or_else(|| {
                known.insert(members.clone(), sets.len());
                sets.push(Set::new(relatives, members.clone()));
                sets.len() - 1
            });
            here.push(number);
        }
        here.sort_by_key(|number| std::cmp::Reverse(sets[*number].members.len()));
        let at = same_place[0].at;
        let span = Span { start: at, end: at + PAGE };
        for (n, number) in here.iter().enumerate() {
            let set = &sets[*number];
            let can_hold = set.from.is_some_and(|from| relatives[from].space.has_own_pages_at(at));
            let alone = here[..n].iter().all(|other| !sets[*other].meets(set));
            let set = &mut sets[*number];
            lengthen(if can_hold && alone { &mut set.handed } else { &mut set.apart }, span);
        }
    }
    sets
}

/// What of these pages lies in the stretches, and what doesn't. Both are in order.
fn divide(pages: &[Present], spans: &[Span]) -> (Vec<Present>, Vec<Present>) {
    let (mut within, mut without) = (Vec::new(), Vec::with_capacity(pages.len()));
    let mut spans = spans.iter().peekable();
    for page in pages {
        let mut from = page.span.start;
        while spans.next_if(|span| span.end <= from).is_some() {}
        let mut here = spans.clone();
        while let Some(span) = here.next_if(|span| span.start < page.span.end) {
            let common = span.cut(page.span);
            without.push(Present { span: Span { start: from, end: common.start.max(from) }, ..*page });
            within.push(Present { span: common, ..*page });
            from = common.end;
        }
        without.push(Present { span: Span { start: from, ..page.span }, ..*page });
    }
    without.retain(|page| !page.span.is_empty());
    (within, without)
}

impl Commons {
    /// Writes its records, after those of the processes' memory.
    pub fn write<W: Write>(&self, image: &mut Writer<W>) -> std::io::Result<()> {
        self.0.iter().try_for_each(|common| image.record("memory/common", common.id, &common.record))
    }

    /// Where the pages are.
    pub(super) fn sources(&self) -> Vec<Source<'static>> {
        let source = |common: &Common| {
            let mut source = Source::new(common.id);
            for page in &common.pages {
                source.add_memory(common.pid, page.span, page.span.start, page.direct);
            }
            source
        };
        self.0.iter().map(source).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn present(start: u64, end: u64) -> Present {
        Present { span: Span { start: start * PAGE, end: end * PAGE }, direct: true }
    }

    fn spans(pages: &[Present]) -> Vec<(u64, u64)> {
        pages.iter().map(|p| (p.span.start / PAGE, p.span.end / PAGE)).collect()
    }

    #[test]
    fn pages_are_divided_without_loss() {
        let pages = [present(10, 20), present(20, 22), present(30, 31), present(40, 50)];
        let common = [present(8, 9), present(12, 13), present(15, 21), present(40, 41), present(49, 60)];
        let common: Vec<Span> = common.iter().map(|p| p.span).collect();
        let (within, without) = divide(&pages, &common);
        assert_eq!(spans(&within), [(12, 13), (15, 20), (20, 21), (40, 41), (49, 50)]);
        assert_eq!(spans(&without), [(10, 12), (13, 15), (21, 22), (30, 31), (41, 49)]);
        assert_eq!(spans(&divide(&pages, &[]).1), spans(&pages));
    }
}
