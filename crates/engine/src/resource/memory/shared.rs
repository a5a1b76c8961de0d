//! Shared anonymous memory: MAP_SHARED | MAP_ANONYMOUS between relatives.
//!
//! **In the kernel**: an unlinked file of a tmpfs that is the kernel's own, called `/dev/zero (deleted)` in `maps`. Its
//! pages belong to the file, whoever maps them; fork(2) hands mappings on, and nothing else can.
//!
//! **In the image**: one object per file: size, and the pages that aren't zero, once. Areas refer to it.
//!
//! **Taken how**: an object is recognised by device and inode. Where we may open `/proc/PID/map_files` (root,
//! CAP_CHECKPOINT_RESTORE) its holes are skipped (SEEK_DATA) and what nobody maps any more is read too. Otherwise all of
//! it is read through the areas of its mappers, which makes the kernel give pages to its holes: slower, and it costs memory.
//!
//! **Put back how**: the first process of the restart makes every object anew at a temporary place, all others inherit
//! it by fork; each duplicates the parts it had (mremap(2) with an old size of 0), and unmaps the temporary place.
//!
//! **Not saved**: the inode's number. Refused: an object that a process outside the tree maps too (a leak), or that
//! can't be read whole.

use std::collections::{BTreeMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};

use bardo_image::Writer;
use bardo_kernel::fcntl::{self, Whence};
use bardo_kernel::mmap::memfd;
use bardo_kernel::procfs::maps;
use bardo_kernel::{fs, mmap, procfs};
use serde::{Deserialize, Serialize};
use std::io::Write;

use super::area::{PAGE, Span, is_default};
use super::mapped::Known;
use super::pages::Source;
use super::vdso::Here;
use crate::error::{Doing, Refusal, Result};
use crate::subject::Subject;

/// The spaces of shared objects are numbered from here; below are those of processes, by their pids.
pub const OBJECTS: u64 = 1 << 32;

/// An object in an image (`memory/shared`, its id is the record's).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRecord {
    /// Its size in bytes.
    pub size: u64,
    /// MAP_NORESERVE.
    #[serde(default, skip_serializing_if = "is_default")]
    pub noreserve: bool,
}

#[derive(Debug)]
struct Mapper {
    pid: i32,
    span: Span,
    offset: u64,
    readable: bool,
}

#[derive(Debug)]
struct Object {
    id: u64,
    ino: u64,
    size: u64,
    noreserve: bool,
    mappers: Vec<Mapper>,
    file: Option<OwnedFd>,
}

/// What the survey of one process after another has found that they share.
#[derive(Debug)]
pub struct Shared {
    /// The device of the kernel's own tmpfs.
    dev: u64,
    objects: BTreeMap<u64, Object>,
    pub(super) files: Known,
    pub(super) here: Here,
}

/// What a file of the kernel's own tmpfs is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unnamed {
    Anonymous,
    Memfd,
    SysV,
    Other,
}

impl Shared {
    /// Nothing seen yet.
    pub fn new() -> Result<Shared> {
        // A memfd lives on the kernel's own tmpfs, whose device number nothing else tells.
        let doing = "looking for the kernel's tmpfs";
        let probe = mmap::memfd_create("bardo", memfd::CLOEXEC).doing(doing, None)?;
        let dev = fs::fstat(probe.as_fd()).doing(doing, None)?.dev;
        Ok(Shared { dev, objects: BTreeMap::new(), files: Known::default(), here: Here::look()? })
    }

    /// What an area is, if it is of a file of the kernel's own tmpfs.
    pub(super) fn unnamed(&self, area: &maps::Area) -> Option<Unnamed> {
        if !area.has_file() || area.dev() != self.dev {
            return None;
        }
        let path = area.path.as_encoded_bytes();
        Some(match path {
            b"/dev/zero" => Unnamed::Anonymous,
            _ if matches!(area.special, Some(maps::Special::AnonShmem(_))) => Unnamed::Anonymous,
            _ if path.starts_with(b"/memfd:") => Unnamed::Memfd,
            _ if path.starts_with(b"/SYSV") => Unnamed::SysV,
            _ => Unnamed::Other,
        })
    }

    /// Notes an area of an object: the object's id.
    pub(super) fn note(&mut self, pid: i32, area: &maps::Area, noreserve: bool) -> u64 {
        let next = OBJECTS + self.objects.len() as u64;
        let object = self.objects.entry(area.inode).or_insert_with(|| Object {
            id: next,
            ino: area.inode,
            size: 0,
            noreserve: false,
            mappers: Vec::new(),
            file: None,
        });
        object.size = object.size.max(area.offset.saturating_add(area.len()));
        object.noreserve |= noreserve;
        object.mappers.push(Mapper {
            pid,
            span: Span { start: area.start, end: area.end },
            offset: area.offset,
            readable: area.perms.read,
        });
        object.id
    }

    /// Once every process was surveyed: learns each object's size and whether all of it can be read, and looks for
    /// processes outside the tree that map it.
    pub fn complete(&mut self, tree: &[&Subject], refusals: &mut Vec<Refusal>) -> Result<()> {
        if self.objects.is_empty() {
            return Ok(());
        }
        for object in self.objects.values_mut() {
            object.open()?;
            if object.file.is_some() {
                continue;
            }
            if let Some(gap) = object.gap() {
                let owner = tree.iter().find(|s| object.mappers.iter().any(|m| m.pid == s.pid()));
                refusals.push(Refusal {
                    who: owner.map(|s| s.who.clone()),
                    fd: None,
                    what: format!(
                        "shared anonymous memory of {} bytes, of which nobody maps {gap}",
                        object.size
                    ),
                    code: "memory/unreachable-shared",
                    why: "what is in that part can only be read through /proc/PID/map_files".into(),
                    remedy: "run bardo with CAP_CHECKPOINT_RESTORE".into(),
                });
            }
        }
        self.look_outside(tree, refusals)
    }

    /// Finds mappers that aren't of the tree, as far as we may read other processes' maps.
    fn look_outside(&self, tree: &[&Subject], refusals: &mut Vec<Refusal>) -> Result<()> {
        let inside: HashSet<i32> = tree.iter().map(|s| s.pid()).collect();
        let mut told = HashSet::new();
        for pid in procfs::processes().doing("listing all processes", None)? {
            if inside.contains(&pid) {
                continue;
            }
            // Not readable, or gone by now: it isn't ours to look at. Most have no such area, so the text is looked at first.
            let Ok(text) = fs::read_all(procfs::path(pid, "maps")) else { continue };
            if !text.windows(SHMEM_NAME.len()).any(|w| w == SHMEM_NAME) {
                continue;
            }
            let Ok(areas) = maps::parse(&text) else { continue };
            for area in areas.iter().filter(|a| self.unnamed(a) == Some(Unnamed::Anonymous)) {
                let Some(object) = self.objects.get(&area.inode).filter(|o| told.insert((o.ino, pid))) else {
                    continue;
                };
                let owner = tree.iter().find(|s| object.mappers.iter().any(|m| m.pid == s.pid()));
                let name = procfs::comm(pid).map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
                refusals.push(Refusal {
                    who: owner.map(|s| s.who.clone()),
                    fd: None,
                    what: format!("shared anonymous memory that pid {pid} ({name}) maps too"),
                    code: "memory/leak",
                    why: "that process is not of the tree: after a restart the two would no longer share it"
                        .into(),
                    remedy: "checkpoint their common ancestor".into(),
                });
            }
        }
        Ok(())
    }

    /// Writes the objects' records.
    pub fn write<W: Write>(&self, image: &mut Writer<W>) -> std::io::Result<()> {
        for object in self.objects.values() {
            let record = ObjectRecord { size: object.size, noreserve: object.noreserve };
            image.record("memory/shared", object.id, &record)?;
        }
        Ok(())
    }

    /// Where the pages of all objects are.
    pub(super) fn sources(&self) -> Result<Vec<Source<'_>>> {
        self.objects.values().map(Object::source).collect()
    }

    /// As if `/proc/PID/map_files` were closed to us.
    #[cfg(test)]
    pub(super) fn forget_files(&mut self) {
        self.objects.values_mut().for_each(|object| object.file = None);
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether nothing is shared.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}

const SHMEM_NAME: &[u8] = b"/dev/zero (deleted)";

impl Object {
    fn open(&mut self) -> Result<()> {
        for mapper in &self.mappers {
            let Span { start, end } = mapper.span;
            let path = procfs::path(mapper.pid, &format!("map_files/{start:x}-{end:x}"));
            match fs::open_read(&path) {
                Ok(file) => {
                    let stat = fs::fstat(file.as_fd()).doing("looking at shared memory", None)?;
                    if stat.ino == self.ino {
                        self.size = self.size.max(stat.size.next_multiple_of(PAGE));
                        self.file = Some(file);
                    }
                    return Ok(());
                }
                Err(e) if e.is(libc::EPERM) || e.is(libc::EACCES) || e.is(libc::ENOENT) => {}
                Err(e) => return Err(e).doing("opening shared memory", None),
            }
        }
        Ok(())
    }

    /// The pieces of the object in order, each with a mapper that it can be read through.
    fn pieces(&self) -> Vec<(&Mapper, Span)> {
        let mut mappers: Vec<&Mapper> = self.mappers.iter().collect();
        // Where several map a piece, one that may read it by itself is the faster way.
        mappers.sort_by_key(|m| (m.offset, !m.readable, std::cmp::Reverse(m.span.len())));
        let mut pieces = Vec::new();
        let mut done = 0;
        for mapper in mappers {
            let end = mapper.offset + mapper.span.len();
            if end > done {
                let from = done.max(mapper.offset);
                pieces.push((mapper, Span { start: from, end }));
                done = end;
            }
        }
        pieces
    }

    /// The first part that nobody maps.
    fn gap(&self) -> Option<Span> {
        let mut done = 0;
        for (_, piece) in self.pieces() {
            if piece.start > done {
                return Some(Span { start: done, end: piece.start });
            }
            done = piece.end;
        }
        (done < self.size).then_some(Span { start: done, end: self.size })
    }

    fn source(&self) -> Result<Source<'_>> {
        let mut source = Source::new(self.id);
        match &self.file {
            Some(file) => {
                for span in populated(file, self.size)? {
                    source.add_file(file.as_fd(), span);
                }
            }
            None => {
                for (mapper, piece) in self.pieces() {
                    let addr = mapper.span.start + (piece.start - mapper.offset);
                    source.add_memory(mapper.pid, piece, addr, mapper.readable);
                }
            }
        }
        Ok(source)
    }
}

/// The parts of a file that aren't holes, in whole pages.
fn populated(file: &OwnedFd, size: u64) -> Result<Vec<Span>> {
    let mut spans = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match fcntl::seek(file.as_fd(), at as i64, Whence::Data) {
            Ok(start) => start,
            Err(e) if e.is(libc::ENXIO) => break,
            Err(e) => return Err(e).doing("looking for the pages of shared memory", None),
        };
        let end = fcntl::seek(file.as_fd(), start as i64, Whence::Hole)
            .doing("looking for the pages of shared memory", None)?;
        let span = Span { start: start / PAGE * PAGE, end: end.next_multiple_of(PAGE).min(size) };
        if end <= at || span.is_empty() {
            break;
        }
        spans.push(span);
        at = end;
    }
    Ok(spans)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(mappers: &[(u64, u64, bool)], size: u64) -> Object {
        let mappers = mappers
            .iter()
            .enumerate()
            .map(|(n, (offset, len, readable))| Mapper {
                pid: n as i32,
                span: Span { start: 0x100000, end: 0x100000 + len },
                offset: *offset,
                readable: *readable,
            })
            .collect();
        Object { id: OBJECTS, ino: 1, size, noreserve: false, mappers, file: None }
    }

    #[test]
    fn what_nobody_maps_is_found() {
        assert_eq!(object(&[(0, 0x2000, true), (0x2000, 0x1000, true)], 0x3000).gap(), None);
        let hole = object(&[(0x2000, 0x1000, true), (0, 0x1000, true)], 0x3000).gap();
        assert_eq!(hole, Some(Span { start: 0x1000, end: 0x2000 }));
        assert_eq!(object(&[(0, 0x1000, true)], 0x2000).gap(), Some(Span { start: 0x1000, end: 0x2000 }));
    }

    #[test]
    fn each_piece_is_read_once_and_where_it_is_readable() {
        let object = object(&[(0, 0x2000, false), (0, 0x2000, true), (0x1000, 0x2000, true)], 0x3000);
        let pieces: Vec<_> = object.pieces().into_iter().map(|(m, s)| (m.pid, s)).collect();
        assert_eq!(pieces, [(1, Span { start: 0, end: 0x2000 }), (2, Span { start: 0x2000, end: 0x3000 })]);
    }
}
