//! What areas and open files of the tree have in common: objects, each with its own content in the image, once.
//!
//! An object is an inode without a name: of shared anonymous memory ([`super::shared`]), or a memfd or a file that was
//! deleted ([`super::inode`]). It is recognised by device and number, in `maps` and by stat(2) alike.
//!
//! It is read whole through a *door*, a path under `/proc` that opens it, if one lets us in: its holes are skipped
//! (SEEK_DATA), and what nobody maps is read too. Else it is read through the areas of its mappers, which makes the kernel
//! give pages to its holes: slower, and it costs memory.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bardo_image::Writer;
use bardo_kernel::fcntl::{self, Whence};
use bardo_kernel::mmap::{self, memfd};
use bardo_kernel::procfs::maps;
use bardo_kernel::{fs, process_vm, procfs};

use super::area::{FilePath, PAGE, Span};
use super::inode::{InodeKind, InodeRecord, MADE_BY, TMPFILE};
use super::mapped::Known;
use super::pages::Source;
use super::shared::ObjectRecord;
use super::space;
use super::vdso::Here;
use crate::error::{Doing, Refusal, Result, Who};
use crate::subject::Subject;

/// The spaces of objects are numbered from here; below are those of processes, by their pids.
pub const OBJECTS: u64 = 1 << 32;

/// An inode: its device and its number.
pub(super) type Key = (u64, u64);

/// What an object is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// Shared anonymous memory.
    Anonymous {
        /// MAP_NORESERVE.
        noreserve: bool,
    },
    /// An inode that an image describes.
    Inode(InodeRecord),
}

impl What {
    /// An inode of which no more is known than its name.
    pub fn named(kind: InodeKind, name: &Path) -> What {
        What::Inode(InodeRecord {
            kind,
            name: FilePath(name.to_owned()),
            size: 0,
            mode: None,
            owner: None,
            mtime_ns: None,
            seals: 0,
            shared: false,
            made_by: 0,
        })
    }
}

/// An area of an object.
#[derive(Debug)]
pub(super) struct Mapper {
    pub pid: i32,
    pub span: Span,
    pub offset: u64,
    pub readable: bool,
    pub shared: bool,
}

impl Mapper {
    pub fn new(pid: i32, area: &maps::Area) -> Mapper {
        Mapper {
            pid,
            span: Span { start: area.start, end: area.end },
            offset: area.offset,
            readable: area.perms.read,
            shared: area.perms.shared,
        }
    }

    fn end(&self) -> u64 {
        self.offset + self.span.len()
    }
}

/// A part of an object, and where in whose memory it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    span: Span,
    pid: i32,
    addr: u64,
    readable: bool,
}

#[derive(Debug)]
struct Object {
    id: u64,
    key: Key,
    what: What,
    /// Its size in bytes, as far as it is known.
    size: u64,
    /// How many names it has, as far as that is known.
    names: u64,
    mappers: Vec<Mapper>,
    /// Paths that open it for whoever may.
    doors: Vec<PathBuf>,
    file: Option<OwnedFd>,
    /// Where there is no file.
    pieces: Vec<Piece>,
    /// A process of the tree that has it.
    who: Who,
}

/// What the survey of one process after another has found that they have in common.
#[derive(Debug)]
pub struct Shared {
    /// The device of the kernel's own tmpfs.
    dev: u64,
    objects: BTreeMap<Key, Object>,
    /// System V segments that processes have attached, by their ids.
    attached: BTreeSet<u64>,
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

/// What `maps` shows before a memfd's name.
pub(super) const MEMFD: &[u8] = b"/memfd:";

impl Shared {
    /// Nothing seen yet.
    pub fn new() -> Result<Shared> {
        // A memfd lives on the kernel's own tmpfs, whose device number nothing else tells.
        let doing = "looking for the kernel's tmpfs";
        let probe = mmap::memfd_create("bardo", memfd::CLOEXEC).doing(doing, None)?;
        let dev = fs::fstat(probe.as_fd()).doing(doing, None)?.dev;
        Ok(Shared {
            dev,
            objects: BTreeMap::new(),
            attached: BTreeSet::new(),
            files: Known::default(),
            here: Here::look()?,
        })
    }

    /// What an area is, if it is of a file of the kernel's own tmpfs.
    pub(super) fn unnamed(&self, area: &maps::Area) -> Option<Unnamed> {
        if !area.has_file() || area.dev() != self.dev {
            return None;
        }
        let path = area.path.as_bytes();
        Some(match path {
            b"/dev/zero" => Unnamed::Anonymous,
            _ if matches!(area.special, Some(maps::Special::AnonShmem(_))) => Unnamed::Anonymous,
            _ if path.starts_with(MEMFD) => Unnamed::Memfd,
            _ if path.starts_with(b"/SYSV") => Unnamed::SysV,
            _ => Unnamed::Other,
        })
    }

    /// Notes that a process has attached a System V segment.
    pub(super) fn note_attached(&mut self, id: u64) {
        self.attached.insert(id);
    }

    /// The ids of System V segments that processes have attached.
    pub fn attached(&self) -> &BTreeSet<u64> {
        &self.attached
    }

    /// Whether this is the device of the kernel's own tmpfs, where memfds are.
    pub fn is_kernels_tmpfs(&self, dev: u64) -> bool {
        dev == self.dev
    }

    /// The object of this inode, made known if it wasn't.
    fn object(&mut self, key: Key, what: What, who: &Who) -> &mut Object {
        let id = OBJECTS + self.objects.len() as u64;
        self.objects.entry(key).or_insert_with(|| Object {
            id,
            key,
            what,
            size: 0,
            names: 0,
            mappers: Vec::new(),
            doors: Vec::new(),
            file: None,
            pieces: Vec::new(),
            who: who.clone(),
        })
    }

    /// Notes an area of an object: the object's id.
    pub(super) fn note(&mut self, subject: &Subject, area: &maps::Area, key: Key, what: What) -> u64 {
        let object = self.object(key, what.clone(), &subject.who);
        object.size = object.size.max(area.offset.saturating_add(area.len()));
        match (&mut object.what, what) {
            (What::Anonymous { noreserve }, What::Anonymous { noreserve: also }) => *noreserve |= also,
            (What::Inode(inode), _) => inode.shared |= area.perms.shared,
            _ => {}
        }
        let door = format!("map_files/{:x}-{:x}", area.start, area.end);
        object.doors.push(procfs::path(subject.door, &door));
        object.mappers.push(Mapper::new(subject.door, area));
        object.id
    }

    /// Notes that the program file of a process is an inode without a name: the object's id.
    pub(super) fn note_program(&mut self, subject: &Subject, key: Key, path: &Path) -> u64 {
        let object = self.object(key, What::named(InodeKind::Deleted, path), &subject.who);
        // Open to whoever may trace the process.
        object.doors.insert(0, procfs::path(subject.door, "exe"));
        object.id
    }

    /// Notes an open file of an inode that no name leads to: the id of the object that it is one of. `link` is the text of
    /// its link under `/proc/PID/fd`, without ` (deleted)`; `fd` a descriptor of ours for it; `flags` its status flags.
    ///
    /// To be called once all processes were surveyed, and before [`Shared::complete`].
    ///
    /// # Errors
    /// Where the descriptor can't be looked at.
    pub fn hold(&mut self, subject: &Subject, link: &Path, fd: &OwnedFd, flags: i32) -> Result<u64> {
        let doing = || format!("looking at {}", link.display());
        let stat = fs::fstat(fd.as_fd()).doing(doing(), Some(&subject.who))?;
        // `maps` may tell of another device than stat(2) does (btrfs, overlayfs).
        let other = |o: &&Object| {
            o.key.1 == stat.ino
                && libc::major(stat.dev) == 0
                && matches!(&o.what, What::Inode(inode) if inode.name.0 == link)
        };
        let key = match self.objects.values().find(other) {
            Some(object) if !self.objects.contains_key(&(stat.dev, stat.ino)) => object.key,
            _ => (stat.dev, stat.ino),
        };
        let memfd = (stat.dev == self.dev).then(|| link.as_os_str().as_bytes().strip_prefix(MEMFD)).flatten();
        let what = match memfd {
            Some(name) => What::named(InodeKind::Memfd, Path::new(std::ffi::OsStr::from_bytes(name))),
            None => What::named(InodeKind::Deleted, link),
        };
        let object = self.object(key, what, &subject.who);
        if let What::Inode(inode) = &mut object.what {
            inode.shared = true;
            if flags & TMPFILE != 0 && inode.made_by == 0 {
                inode.made_by = flags & MADE_BY;
            }
        }
        if object.file.is_none() {
            let again = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
            object.file = fs::open_read(&again).ok();
            object.learn().doing(doing(), Some(&subject.who))?;
        }
        Ok(object.id)
    }

    /// Once every process was surveyed: learns each object's size and whether all of it can be read, and looks for
    /// processes outside the tree that have it.
    pub fn complete(&mut self, tree: &[&Subject], refusals: &mut Vec<Refusal>) -> Result<()> {
        if self.objects.is_empty() {
            return Ok(());
        }
        for object in self.objects.values_mut() {
            object.open()?;
            if object.file.is_none() {
                object.find_pieces()?;
            }
            refusals.extend(object.obstacle());
        }
        self.look_outside(tree, refusals)
    }

    /// Finds who isn't of the tree and has an object all the same, as far as we may look at other processes.
    fn look_outside(&self, tree: &[&Subject], refusals: &mut Vec<Refusal>) -> Result<()> {
        let wanted: BTreeMap<Key, &Object> =
            self.objects.values().filter(|o| o.is_shared()).map(|o| (o.key, o)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let open_too = wanted.values().any(|o| matches!(o.what, What::Inode(_)));
        let mut inside: HashSet<i32> = tree.iter().map(|s| s.pid()).collect();
        inside.insert(std::process::id() as i32);
        for pid in procfs::processes().doing("listing all processes", None)? {
            if inside.contains(&pid) {
                continue;
            }
            let looking = "looking at what other processes share";
            let mapped = mapped_by(pid).doing(looking, None)?;
            let mut found: BTreeSet<Key> = mapped.into_iter().filter(|k| wanted.contains_key(k)).collect();
            let mapped = found.len();
            if open_too {
                let opened = opened_by(pid).doing(looking, None)?;
                found.extend(opened.into_iter().filter(|k| wanted.contains_key(k)));
            }
            if found.is_empty() {
                continue;
            }
            let name = procfs::comm(pid).map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let does = if mapped > 0 { "maps" } else { "has open" };
            for object in found.iter().filter_map(|key| wanted.get(key)) {
                refusals.push(Refusal {
                    who: Some(object.who.clone()),
                    fd: None,
                    what: format!("{} that pid {pid} ({name}) {does} too", object.show()),
                    code: "memory/leak",
                    why: "that process is not of the tree: after a restart the two would no longer share it"
                        .into(),
                    remedy: "checkpoint their common ancestor".into(),
                });
            }
        }
        Ok(())
    }

    /// The first id that no object has.
    pub fn next_id(&self) -> u64 {
        OBJECTS + self.objects.len() as u64
    }

    /// Writes the objects' records.
    pub fn write<W: Write>(&self, image: &mut Writer<W>) -> std::io::Result<()> {
        for object in self.objects.values() {
            match &object.what {
                What::Anonymous { noreserve } => {
                    let size = object.size.next_multiple_of(PAGE);
                    let record = ObjectRecord { size, noreserve: *noreserve };
                    image.record("memory/shared", object.id, &record)?;
                }
                What::Inode(inode) => {
                    let record = InodeRecord { size: object.size, ..inode.clone() };
                    image.record("memory/inode", object.id, &record)?;
                }
            }
        }
        Ok(())
    }

    /// Where the pages of all objects are.
    pub(super) fn sources(&self) -> Result<Vec<Source<'_>>> {
        self.objects.values().map(Object::source).collect()
    }

    /// As if `/proc` let us in at no door.
    #[cfg(test)]
    pub(super) fn forget_files(&mut self) {
        for object in self.objects.values_mut() {
            object.file = None;
            object.find_pieces().unwrap();
        }
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

/// The inodes without a name that a process maps; none where we may not look, or it is gone.
fn mapped_by(pid: i32) -> bardo_kernel::Result<Vec<Key>> {
    const DELETED: &[u8] = b" (deleted)";
    let text = procfs::if_visible(fs::read_all(procfs::path(pid, "maps")))?.unwrap_or_default();
    // Most have none, so the text is looked at first.
    if !text.windows(DELETED.len()).any(|w| w == DELETED) {
        return Ok(Vec::new());
    }
    let areas = maps::parse(&text)?;
    Ok(areas.iter().filter(|area| area.deleted).map(|area| (area.dev(), area.inode)).collect())
}

/// The inodes without a name that a process has open; none where we may not look, or it is gone.
fn opened_by(pid: i32) -> bardo_kernel::Result<Vec<Key>> {
    let mut keys = Vec::new();
    for fd in procfs::if_visible(procfs::descriptors(pid))?.unwrap_or_default() {
        let path = procfs::path(pid, &format!("fd/{fd}"));
        let link = procfs::if_visible(fs::read_link(&path))?;
        if link.is_some_and(|link| link.as_os_str().as_bytes().ends_with(b" (deleted)"))
            // A file system that doesn't answer says so every time, and is none of ours.
            && let Ok(stat) = fs::stat(&path).or_else(|_| fs::stat(&path))
        {
            keys.push((stat.dev, stat.ino));
        }
    }
    Ok(keys)
}

impl Object {
    fn is_shared(&self) -> bool {
        match &self.what {
            What::Anonymous { .. } => true,
            What::Inode(inode) => inode.shared,
        }
    }

    fn show(&self) -> String {
        match &self.what {
            What::Anonymous { .. } => format!("shared anonymous memory of {} bytes", self.size),
            What::Inode(InodeRecord { kind: InodeKind::Memfd, name, .. }) => {
                format!("the memfd {:?}", name.0)
            }
            What::Inode(inode) => format!("{}, which was deleted,", inode.name.0.display()),
        }
    }

    /// Opens it by the first door that lets us in.
    fn open(&mut self) -> Result<()> {
        for door in &self.doors {
            if self.file.is_some() {
                break;
            }
            match fs::open_read(door) {
                Ok(file) => {
                    // A door leads elsewhere where its process has just exchanged what it maps.
                    let stat = fs::fstat(file.as_fd()).doing("looking at shared memory", None)?;
                    if stat.ino != self.key.1 {
                        continue;
                    }
                    self.file = Some(file);
                }
                Err(e) if [libc::EPERM, libc::EACCES, libc::ENOENT].iter().any(|errno| e.is(*errno)) => {}
                Err(e) => return Err(e).doing("opening shared memory", None),
            }
        }
        self.learn().doing("looking at shared memory", None)
    }

    /// Learns what its file tells.
    fn learn(&mut self) -> bardo_kernel::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let stat = fs::fstat(file.as_fd())?;
        self.size = stat.size;
        self.names = stat.nlink;
        if let What::Inode(inode) = &mut self.what {
            inode.mode = Some(stat.mode & 0o7777);
            inode.owner = Some((stat.uid, stat.gid));
            inode.mtime_ns = Some(stat.mtime_ns.clamp(i64::MIN.into(), i64::MAX.into()) as i64);
            if inode.kind == InodeKind::Memfd {
                inode.seals = fcntl::seals(file.as_fd())? as u32;
            }
        }
        Ok(())
    }

    /// Which parts can be read through whom, where there is no file: in order, each part once.
    fn find_pieces(&mut self) -> Result<()> {
        let mut mappers: Vec<&Mapper> = self.mappers.iter().collect();
        // Where several map a part, one that has no pages of its own there, and that may read it by itself.
        mappers.sort_by_key(|m| (m.offset, !m.shared, !m.readable, std::cmp::Reverse(m.span.len())));
        let (mut pieces, mut done) = (Vec::new(), 0);
        for mapper in mappers {
            let from = mapper.offset.max(done);
            if mapper.end() <= from {
                continue;
            }
            let addr = |at: u64| mapper.span.start + (at - mapper.offset);
            let part = Span { start: addr(from), end: mapper.span.end };
            let visible = match mapper.shared {
                true => vec![part],
                false => space::without_own_pages(mapper.pid, part).doing("looking for its pages", None)?,
            };
            done = mapper.end();
            let piece = |span: Span| {
                let start = mapper.offset + (span.start - mapper.span.start);
                Piece {
                    span: Span { start, end: start + span.len() },
                    pid: mapper.pid,
                    addr: span.start,
                    readable: mapper.readable,
                }
            };
            pieces.extend(visible.into_iter().map(piece));
        }
        self.pieces = pieces;
        if matches!(self.what, What::Inode(_)) {
            self.find_end()?;
        }
        Ok(())
    }

    /// An inode may end before its areas do, and what lies behind its end can't be read.
    fn find_end(&mut self) -> Result<()> {
        let mut size = 0;
        for at in 0..self.pieces.len() {
            let piece = &mut self.pieces[at];
            let whole = piece.span;
            let reachable = reachable(piece).doing("looking for the end of a file", None)?;
            piece.span.end = whole.start + reachable;
            size = size.max(piece.span.end);
            if piece.span != whole {
                self.pieces.truncate(at + usize::from(reachable > 0));
                break;
            }
        }
        self.size = size;
        Ok(())
    }

    /// The first part that nobody maps.
    fn gap(&self) -> Option<Span> {
        let mut areas: Vec<(u64, u64)> = self.mappers.iter().map(|m| (m.offset, m.end())).collect();
        areas.sort_unstable();
        let mut done = 0;
        for (start, end) in areas {
            if start > done {
                return Some(Span { start: done, end: start });
            }
            done = done.max(end);
        }
        None
    }

    /// What stands in the way of saving it.
    fn obstacle(&self) -> Option<Refusal> {
        let refuse = |code, what: String, why: &str, remedy: &str| {
            let who = Some(self.who.clone());
            Some(Refusal { who, fd: None, what, code, why: why.into(), remedy: remedy.into() })
        };
        let code = "memory/unreachable-shared";
        if self.names > 0 && self.is_shared() {
            let why = "whoever opens it by that name shares it with the tree, and wouldn't after a restart";
            let what = format!("{} and has another name that can't be found", self.show());
            return refuse("memory/other-name", what, why, "checkpoint while the program doesn't use it");
        }
        if self.file.is_some() {
            return None;
        }
        let remedy = "run bardo with CAP_CHECKPOINT_RESTORE";
        if self.mappers.is_empty() {
            let why = "its content has no name by which it could be opened, and nobody maps it";
            return refuse(code, self.show(), why, "run bardo as root");
        }
        // Of a file that nobody shares, what is mapped is what counts.
        let gap = self.gap().filter(|_| self.is_shared())?;
        let why = "what is in that part can only be read through /proc/PID/map_files";
        refuse(code, format!("{}, of which nobody maps {gap}", self.show()), why, remedy)
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
                for piece in &self.pieces {
                    source.add_memory(piece.pid, piece.span, piece.addr, piece.readable);
                }
            }
        }
        Ok(source)
    }
}

/// How many bytes of a piece are before the end of its file: whole pages.
fn reachable(piece: &Piece) -> bardo_kernel::Result<u64> {
    let mem = process_vm::open_mem(piece.pid, false)?;
    let is_there = |page: u64| match process_vm::read_mem(mem.as_fd(), piece.addr + page * PAGE, &mut [0]) {
        Ok(n) => Ok(n == 1),
        Err(e) if e.is(libc::EIO) || e.is(libc::EFAULT) => Ok(false),
        Err(e) => Err(e),
    };
    let (mut there, mut beyond) = (0, piece.span.len() / PAGE);
    if beyond == 0 || is_there(beyond - 1)? {
        return Ok(beyond * PAGE);
    }
    // All pages below `there` are there, none from `beyond` on, once the two meet.
    while there < beyond {
        let middle = there + (beyond - there) / 2;
        match is_there(middle)? {
            true => there = middle + 1,
            false => beyond = middle,
        }
    }
    Ok(there * PAGE)
}

/// The parts of a file that aren't holes, in whole pages.
fn populated(file: &OwnedFd, size: u64) -> Result<Vec<Span>> {
    let doing = "looking for the pages of shared memory";
    let mut spans: Vec<Span> = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match fcntl::seek(file.as_fd(), at as i64, Whence::Data) {
            Ok(start) => start,
            Err(e) if e.is(libc::ENXIO) => break,
            Err(e) => return Err(e).doing(doing, None),
        };
        let end = fcntl::seek(file.as_fd(), start as i64, Whence::Hole).doing(doing, None)?;
        let done = spans.last().map_or(0, |span| span.end);
        let span = Span { start: (start / PAGE * PAGE).max(done), end: end.min(size).next_multiple_of(PAGE) };
        if end <= at {
            break;
        }
        if !span.is_empty() {
            spans.push(span);
        }
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
                shared: true,
            })
            .collect();
        Object {
            id: OBJECTS,
            key: (1, 1),
            what: What::Anonymous { noreserve: false },
            size,
            names: 0,
            mappers,
            doors: Vec::new(),
            file: None,
            pieces: Vec::new(),
            who: Who { pid: 1, name: "one".into() },
        }
    }

    #[test]
    fn what_nobody_maps_is_found() {
        assert_eq!(object(&[(0, 0x2000, true), (0x2000, 0x1000, true)], 0x3000).gap(), None);
        let hole = object(&[(0x2000, 0x1000, true), (0, 0x1000, true)], 0x3000).gap();
        assert_eq!(hole, Some(Span { start: 0x1000, end: 0x2000 }));
        assert_eq!(object(&[(0x1000, 0x1000, true)], 0x2000).gap(), Some(Span { start: 0, end: 0x1000 }));
    }

    #[test]
    fn each_piece_is_read_once_and_where_it_is_readable() {
        let mut object = object(&[(0, 0x2000, false), (0, 0x2000, true), (0x1000, 0x2000, true)], 0x3000);
        object.find_pieces().unwrap();
        let pieces: Vec<_> = object.pieces.iter().map(|p| (p.pid, p.span, p.addr)).collect();
        let (first, second) = (Span { start: 0, end: 0x2000 }, Span { start: 0x2000, end: 0x3000 });
        assert_eq!(pieces, [(1, first, 0x100000), (2, second, 0x101000)]);
    }
}
