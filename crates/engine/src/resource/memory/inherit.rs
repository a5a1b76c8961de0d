//! Handing pages on: what relatives had in common copy-on-write is common again, because they are forked in the same order.
//!
//! A process that hands pages on ([`super::common`]) gets its areas and these pages before it makes its children. A child
//! keeps an area of its parent's if all of the child's area is part of it, is mapped in the same way, and holds pages that the
//! two of them have in common or hand on; all else is unmapped and mapped anew. Once all processes are made, each drops what
//! it has from its ancestors and didn't have in common with them. Then all goes on as if nothing had been handed on.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::AsFd;

use bardo_image::{Pages, Record};
use bardo_kernel::procfs::smaps::VmFlag;
use bardo_kernel::stub::{Arg, Batch};
use bardo_kernel::{Sysno, process_vm};

use super::anonymous;
use super::area::{Area, Backing, Span};
use super::common::CommonRecord;
use super::mapped::MappedFiles;
use super::put::{Places, Putter};
use super::restore::{Batches, MemoryImage, SpaceImage};
use crate::error::{Doing, Error, Result};

/// How much is copied at once.
const CHUNK: u64 = 256 << 10;

/// One set of common pages of an image.
#[derive(Debug)]
pub(super) struct CommonImage {
    pub record: CommonRecord,
    /// All processes between the one that hands them on and those who have them, with both ends. Empty if they can't be
    /// handed on.
    path: BTreeSet<u64>,
}

impl CommonImage {
    fn is_handed_on(&self) -> bool {
        !self.path.is_empty()
    }

    /// Whether this process gets them from its parent.
    fn comes_to(&self, id: u64) -> bool {
        self.path.contains(&id) && self.record.from != Some(id)
    }
}

impl MemoryImage {
    /// Takes a record of common pages. The areas of all processes are known by now.
    pub(super) fn take_common(&mut self, record: &Record) -> Result<()> {
        let wrong = |what: String| Error::Image(record.unexpected(what));
        let common: CommonRecord = record.read().map_err(Error::Image)?;
        self.check_id(record)?;
        let mut free_from = 0;
        for span in &common.spans {
            if !span.is_sound() || span.start < free_from {
                return Err(wrong(format!("common pages at {span}")));
            }
            free_from = span.end;
        }
        for id in common.members.iter().chain(&common.from) {
            let Some(space) = self.spaces.get_mut(id) else {
                return Err(wrong(format!("pages of {id}, which wasn't told of")));
            };
            for span in &common.spans {
                let mut at = span.start;
                while at < span.end {
                    let area = space.area_at(at).filter(|n| space.areas[*n].has_own_pages());
                    let Some(area) = area else {
                        return Err(wrong(format!("{id} has no pages of its own at {at:#x}")));
                    };
                    at = space.areas[area].end;
                    if common.members.contains(id) {
                        space.filled[area] = true;
                    }
                }
            }
        }
        self.commons.insert(record.id, CommonImage { record: common, path: BTreeSet::new() });
        Ok(())
    }

    /// Tells who is whose child, in the order in which processes are made, once all records are there: what can be handed on
    /// is known from then on.
    pub fn settle_family(&mut self, family: &[(u64, Option<u64>)]) {
        self.parents.clear();
        for (id, parent) in family {
            // Parents first, so no line goes round in a circle.
            if let Some(parent) = parent.filter(|parent| self.spaces.contains_key(parent) && parent != id) {
                self.parents.insert(*id, parent);
            }
        }
        let (spaces, parents) = (&self.spaces, &self.parents);
        for common in self.commons.values_mut() {
            let Some(from) = common.record.from else { continue };
            let mut path = BTreeSet::from([from]);
            let descend = common.record.members.iter().all(|member| {
                let line: Vec<u64> = line(parents, *member).take_while(|id| *id != from).collect();
                let whole = line.last().map_or(*member == from, |top| parents.get(top) == Some(&from));
                path.extend(line);
                whole && path.iter().all(|id| spaces.contains_key(id))
            });
            if descend {
                common.path = path;
            }
        }
    }

    /// Whether anything is handed on, so that processes get their memory as they are made.
    pub fn hands_on(&self) -> bool {
        self.commons.values().any(CommonImage::is_handed_on)
    }

    /// Whether these pages are handed on by this process.
    pub fn is_handed_on_by(&self, pages: &Pages, id: u64) -> bool {
        self.commons.get(&pages.space).is_some_and(|c| c.is_handed_on() && c.record.from == Some(id))
    }

    /// Puts pages into the process that hands them on.
    ///
    /// # Errors
    /// The image's; a page that can't be written.
    pub fn put_to_hand_on(&self, pages: &Pages, id: u64, places: &Places, files: &MappedFiles) -> Result<()> {
        self.check_common(pages)?;
        Putter::new(self, places, files).put_into(id, pages)
    }

    /// Whether pages are where a record of common pages says.
    pub(super) fn check_common(&self, pages: &Pages) -> Result<()> {
        let spans = self.commons.get(&pages.space).map_or(&[][..], |common| &common.record.spans);
        for run in &pages.runs {
            let at = spans.partition_point(|span| span.end <= run.at);
            if spans.get(at).is_none_or(|span| span.start > run.at || span.end < run.end()) {
                let what = format!("{:#x} is not among the common pages", run.at);
                return Err(Error::Image(pages.unexpected(what)));
            }
        }
        Ok(())
    }

    /// The numbers of those areas of a process that it keeps from its parent.
    pub(super) fn kept_areas(&self, id: u64) -> BTreeSet<usize> {
        let parent = self.parents.get(&id);
        let Some((space, parent)) = self.spaces.get(&id).zip(parent.and_then(|p| self.spaces.get(p))) else {
            return BTreeSet::new();
        };
        let mut kept = BTreeSet::new();
        if !same_program(space, parent) {
            return kept;
        }
        for common in self.commons.values().filter(|common| common.comes_to(id)) {
            for span in &common.record.spans {
                let mut at = span.start;
                while let Some(number) = space.areas_from(at).filter(|n| space.areas[*n].start < span.end) {
                    let area = &space.areas[number];
                    at = area.end;
                    if kept.contains(&number) || !area.has_own_pages() {
                        continue;
                    }
                    let old = parent.area_at(area.start).map(|n| &parent.areas[n]);
                    if old.is_some_and(|old| is_part(space, area, parent, old)) {
                        kept.insert(number);
                    }
                }
            }
        }
        kept
    }

    /// What a process should have from its parent and can't keep: copied from the process that hands it on.
    ///
    /// # Errors
    /// Memory that can't be read or written.
    pub fn copy_what_is_not_kept(&self, id: u64, pids: &HashMap<u64, i32>) -> Result<()> {
        let Some(space) = self.spaces.get(&id) else { return Ok(()) };
        let kept = self.kept_areas(id);
        let doing = "copying pages that it shared with its relatives";
        let mut buffer = vec![0; CHUNK as usize];
        for common in self.commons.values().filter(|common| common.comes_to(id)) {
            let from = common.record.from.and_then(|from| pids.get(&from));
            let (Some(from), Some(to)) = (from, pids.get(&id)) else {
                return Err(Error::Bug(format!("the relatives of pid {id} aren't there")));
            };
            let mut parts = Vec::new();
            for span in &common.record.spans {
                let mut at = span.start;
                while let Some(number) = space.areas_from(at).filter(|n| space.areas[*n].start < span.end) {
                    let area = &space.areas[number];
                    at = area.end;
                    if area.has_own_pages() && !kept.contains(&number) {
                        parts.push(span.cut(area.span()));
                    }
                }
            }
            if parts.is_empty() {
                continue;
            }
            let from = process_vm::open_mem(*from, false).doing(doing, None)?;
            let to = process_vm::open_mem(*to, true).doing(doing, None)?;
            for part in parts {
                for at in (part.start..part.end).step_by(CHUNK as usize) {
                    let piece = &mut buffer[..(part.end - at).min(CHUNK) as usize];
                    process_vm::read_mem_exact(from.as_fd(), at, piece).doing(doing, None)?;
                    process_vm::write_mem_exact(to.as_fd(), at, piece).doing(doing, None)?;
                }
            }
        }
        Ok(())
    }

    /// The steps that drop what a process has from its ancestors, or was given to hand on, and didn't have in common with
    /// them; once all processes are made.
    pub fn drop_steps(&self, id: u64, room: usize) -> Vec<Batch> {
        let mut batches = Batches::new(room);
        let Some(space) = self.spaces.get(&id) else { return Vec::new() };
        let ancestors: BTreeSet<u64> = line(&self.parents, id).collect();
        let (mut others, mut own) = (Vec::new(), Vec::new());
        for common in self.commons.values().filter(|common| common.is_handed_on()) {
            if common.record.members.contains(&id) {
                own.extend_from_slice(&common.record.spans);
            } else if common.record.from.is_some_and(|from| ancestors.contains(&from)) {
                others.extend_from_slice(&common.record.spans);
            }
        }
        for span in without(joined(others), &joined(own)) {
            let mut at = span.start;
            while let Some(number) = space.areas_from(at).filter(|n| space.areas[*n].start < span.end) {
                let area = &space.areas[number];
                at = area.end;
                let part = span.cut(area.span());
                if area.has_own_pages() && !part.is_empty() {
                    let advice = libc::MADV_DONTNEED as u64;
                    let args = [part.start, part.len(), advice].map(Arg::Value);
                    batches.add(|batch| {
                        batch.call_for(Sysno::madvise, args, 0);
                    });
                }
            }
        }
        batches.done
    }
}

/// A process and its ancestors, as far as they are known.
fn line(parents: &HashMap<u64, u64>, id: u64) -> impl Iterator<Item = u64> {
    // In a circle, which no family has, it would go on for ever.
    std::iter::successors(Some(id), |id| parents.get(id).copied()).take(parents.len() + 1)
}

/// Stretches in order, those that meet made one.
fn joined(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_unstable();
    let mut all: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        match all.last_mut() {
            Some(last) if last.end >= span.start => last.end = last.end.max(span.end),
            _ => all.push(span),
        }
    }
    all
}

/// What of some stretches isn't in others; all in order, none meets another of its kind.
fn without(spans: Vec<Span>, others: &[Span]) -> Vec<Span> {
    let mut left = Vec::new();
    for span in spans {
        let mut from = span.start;
        let first = others.partition_point(|other| other.end <= span.start);
        for other in others[first..].iter().take_while(|other| other.start < span.end) {
            left.push(Span { start: from, end: other.start.max(from) });
            from = other.end.min(span.end);
        }
        left.push(Span { start: from, end: span.end });
    }
    left.retain(|span| !span.is_empty());
    left
}

/// Whether both run the same program, which fork hands on.
fn same_program(one: &SpaceImage, other: &SpaceImage) -> bool {
    let file = |space: &SpaceImage| space.record.files.get(space.record.exe as usize).cloned();
    match (one.record.exe_inode, other.record.exe_inode) {
        (None, None) => file(one).is_some() && file(one) == file(other),
        (one, other) => one == other,
    }
}

/// Whether an area is a part of one of its process's parent, and is mapped in the same way.
fn is_part(space: &SpaceImage, area: &Area, parent: &SpaceImage, old: &Area) -> bool {
    let same_backing = match (&area.backing, &old.backing) {
        (Backing::Anonymous, Backing::Anonymous) => true,
        (Backing::File { file, offset, .. }, Backing::File { file: old_file, offset: old_offset, .. }) => {
            let file = space.record.files.get(*file as usize);
            file.is_some()
                && file == parent.record.files.get(*old_file as usize)
                && offset.wrapping_sub(area.start) == old_offset.wrapping_sub(old.start)
        }
        (
            Backing::Inode { inode, offset, .. },
            Backing::Inode { inode: old_inode, offset: old_offset, .. },
        ) => inode == old_inode && offset.wrapping_sub(area.start) == old_offset.wrapping_sub(old.start),
        _ => false,
    };
    let flags = [VmFlag::HugePage, VmFlag::NoHugePage, VmFlag::Droppable];
    same_backing
        && old.span().holds(area.span())
        && old.has_own_pages()
        && area.fill_prot() == old.fill_prot()
        && anonymous::map_flags(area) == anonymous::map_flags(old)
        && flags.iter().all(|flag| area.flags.has(*flag) == old.flags.has(*flag))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: u64, end: u64) -> Span {
        Span { start, end }
    }

    #[test]
    fn stretches_are_joined_and_taken_away() {
        let all = joined(vec![span(50, 60), span(0, 10), span(10, 20), span(15, 30)]);
        assert_eq!(all, [span(0, 30), span(50, 60)]);
        let others = [span(5, 6), span(29, 51), span(59, 70)];
        assert_eq!(without(all, &others), [span(0, 5), span(6, 29), span(51, 59)]);
        assert_eq!(without(vec![span(1, 2)], &[]), [span(1, 2)]);
        assert_eq!(without(vec![span(1, 2)], &[span(0, 3)]), []);
    }
}
