//! Building address spaces anew, from the records of an image.
//!
//! An image is hostile input: everything the records say is checked before the first step is made, and no step maps over
//! anything (MAP_FIXED_NOREPLACE). What runs inside a process is only system calls, in batches; all thinking is here.
//!
//! The order, for the whole tree: [`MemoryImage::take`] every record, [`MemoryImage::check`], [`MemoryImage::open_all`];
//! the first process runs [`MemoryImage::clear_steps`] and [`MemoryImage::shared_steps`] before it forks; each process runs
//! [`MemoryImage::map_steps`]; [`MemoryImage::put`] fills them all; each runs [`MemoryImage::finish_steps`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::iter::Peekable;

use bardo_image::Record;
use bardo_kernel::Sysno;
use bardo_kernel::probe;
use bardo_kernel::procfs::maps;
use bardo_kernel::procfs::smaps::VmFlag;
use bardo_kernel::stub::{Arg, Batch};

use super::area::{Area, Backing, PAGE, Span, USER_MAX, USER_MIN};
use super::inherit::CommonImage;
use super::inode::InodeRecord;
use super::mapped::{self, MappedFiles};
use super::object::OBJECTS;
use super::policy::Policy;
use super::shared::{self, ObjectRecord};
use super::space::{AreasRecord, SpaceRecord};
use super::{anonymous, vdso};
use crate::error::{Doing, Error, Refusal, Result};
use crate::restart::Files;

/// The highest pid of Linux (PID_MAX_LIMIT).
const PID_MAX: u64 = 1 << 22;
/// PR_SET_MM and PR_SET_MM_MAP of prctl(2).
const PR_SET_MM: u64 = 35;
const PR_SET_MM_MAP: u64 = 14;
/// The longest auxiliary vector that any kernel has (AT_VECTOR_SIZE words), with room.
const AUXV_MAX: usize = 1024;

/// One space of an image.
#[derive(Debug)]
pub(super) struct SpaceImage {
    pub record: SpaceRecord,
    pub areas: Vec<Area>,
    /// Whether any page was put into the area of the same number.
    pub filled: Vec<bool>,
}

impl SpaceImage {
    /// The number of the area that an address lies in.
    pub fn area_at(&self, addr: u64) -> Option<usize> {
        let at = self.areas.partition_point(|a| a.end <= addr);
        (self.areas.get(at)?.start <= addr).then_some(at)
    }

    /// The number of the first area that ends behind an address.
    pub fn areas_from(&self, addr: u64) -> Option<usize> {
        let at = self.areas.partition_point(|a| a.end <= addr);
        (at < self.areas.len()).then_some(at)
    }
}

/// One shared object of an image, with its place among all.
#[derive(Debug)]
pub(super) struct ObjectImage {
    pub record: ObjectRecord,
    /// Where in the temporary room it lies.
    pub at: u64,
}

/// Where and under which conditions spaces are built.
#[derive(Debug, Clone, Copy)]
pub struct Site {
    /// Where the shared objects lie meanwhile.
    pub shared_at: u64,
    /// Whether the program's file (`/proc/PID/exe`) can be set.
    pub may_set_exe: bool,
    /// How large a batch may be.
    pub room: usize,
}

/// The memory part of an image.
#[derive(Debug, Default)]
pub struct MemoryImage {
    pub(super) spaces: BTreeMap<u64, SpaceImage>,
    pub(super) objects: BTreeMap<u64, ObjectImage>,
    pub(super) inodes: BTreeMap<u64, InodeRecord>,
    pub(super) commons: BTreeMap<u64, CommonImage>,
    /// Whose child a process is, where both have memory.
    pub(super) parents: HashMap<u64, u64>,
    shared_len: u64,
}

fn value(v: u64) -> Arg {
    Arg::Value(v)
}

impl MemoryImage {
    /// Takes a record if it is of this family.
    ///
    /// # Errors
    /// [`Error::Image`] with the record's place, where it isn't what a checkpoint writes.
    pub fn take(&mut self, record: &Record) -> Result<bool> {
        match record.kind.as_str() {
            "memory/space" => self.take_space(record)?,
            "memory/areas" => self.take_areas(record)?,
            "memory/shared" => self.take_object(record)?,
            "memory/inode" => self.take_inode(record)?,
            "memory/common" => self.take_common(record)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn take_space(&mut self, record: &Record) -> Result<()> {
        let wrong = |what: String| Error::Image(record.unexpected(what));
        let space: SpaceRecord = record.read().map_err(Error::Image)?;
        if record.id == 0 || record.id > PID_MAX {
            return Err(wrong(format!("no process has the pid {}", record.id)));
        }
        if let Some(inode) = space.exe_inode {
            if !self.inodes.contains_key(&inode) {
                return Err(wrong(format!("its program is the inode {inode}, which wasn't told of")));
            }
        } else if space.exe as usize >= space.files.len() {
            return Err(wrong(format!("its program is file {} of {}", space.exe, space.files.len())));
        }
        if space.auxv.len() > AUXV_MAX || !space.auxv.len().is_multiple_of(16) {
            return Err(wrong(format!("an auxiliary vector of {} bytes", space.auxv.len())));
        }
        if let Some(file) = space.files.iter().find(|f| !f.path.0.is_absolute()) {
            return Err(wrong(format!("the path {:?} isn't absolute", file.path.0)));
        }
        for (spans, what) in [(&space.guards, "guard"), (&space.huge, "huge")] {
            let mut free_from = 0;
            for span in spans {
                if !span.is_sound() || span.start < free_from {
                    return Err(wrong(format!("{what} pages at {span}")));
                }
                free_from = span.end;
            }
        }
        if space.lock_future & !((libc::MCL_FUTURE | libc::MCL_ONFAULT) as u32) != 0 {
            return Err(wrong(format!("the flags {:#x} for mlockall", space.lock_future)));
        }
        if let Some(fault) = space.policies.iter().find_map(Policy::fault) {
            return Err(wrong(fault));
        }
        let image = SpaceImage { record: space, areas: Vec::new(), filled: Vec::new() };
        if self.spaces.insert(record.id, image).is_some() {
            return Err(wrong("a second one of this id".into()));
        }
        Ok(())
    }

    fn take_areas(&mut self, record: &Record) -> Result<()> {
        let wrong = |what: String| Error::Image(record.unexpected(what));
        let AreasRecord { areas } = record.read().map_err(Error::Image)?;
        let Some(space) = self.spaces.get_mut(&record.id) else {
            return Err(wrong("areas of a space that wasn't told of".into()));
        };
        let mut free_from = space.areas.last().map_or(0, |a| a.end);
        for area in &areas {
            if let Some(fault) = area.fault(space.record.files.len()) {
                return Err(wrong(fault));
            }
            if area.start < free_from {
                return Err(wrong(format!(
                    "the area {} begins before the one ahead of it ends",
                    area.span()
                )));
            }
            free_from = area.end;
            if let Backing::Inode { inode, .. } = area.backing
                && !self.inodes.contains_key(&inode)
            {
                return Err(wrong(format!("the area {} is of no inode that was told of", area.span())));
            }
            if let Backing::Object { object, offset } = area.backing {
                let size = self.objects.get(&object).map(|o| o.record.size);
                // `fault` has seen that this sum doesn't overflow.
                if size.is_none_or(|size| offset + area.len() > size) {
                    return Err(wrong(format!("the area {} is of no object that was told of", area.span())));
                }
            }
        }
        space.filled.resize(space.filled.len() + areas.len(), false);
        space.areas.extend(areas);
        Ok(())
    }

    fn take_object(&mut self, record: &Record) -> Result<()> {
        let wrong = |what: String| Error::Image(record.unexpected(what));
        let object: ObjectRecord = record.read().map_err(Error::Image)?;
        let at = self.shared_len;
        let end = at.checked_add(object.size).filter(|end| *end < USER_MAX - USER_MIN);
        let (true, Some(end)) = (object.size > 0 && object.size.is_multiple_of(PAGE), end) else {
            return Err(wrong(format!("shared memory of {} bytes", object.size)));
        };
        self.check_id(record)?;
        self.objects.insert(record.id, ObjectImage { record: object, at });
        self.shared_len = end;
        Ok(())
    }

    fn take_inode(&mut self, record: &Record) -> Result<()> {
        let inode: InodeRecord = record.read().map_err(Error::Image)?;
        if let Some(fault) = inode.fault() {
            return Err(Error::Image(record.unexpected(fault)));
        }
        self.check_id(record)?;
        self.inodes.insert(record.id, inode);
        Ok(())
    }

    /// Whether an object may have this id.
    pub(super) fn check_id(&self, record: &Record) -> Result<()> {
        let taken = self.objects.contains_key(&record.id)
            || self.inodes.contains_key(&record.id)
            || self.commons.contains_key(&record.id);
        let what = match record.id {
            0..OBJECTS => "its id is that of a process",
            _ if taken => "a second one of this id",
            _ => return Ok(()),
        };
        Err(Error::Image(record.unexpected(what)))
    }

    /// The ids of all spaces: the processes' own pids.
    pub fn spaces(&self) -> impl Iterator<Item = u64> {
        self.spaces.keys().copied()
    }

    /// Whether the image tells of this inode.
    pub fn has_inode(&self, id: u64) -> bool {
        self.inodes.contains_key(&id)
    }

    /// How many areas a space has.
    pub fn areas(&self, id: u64) -> usize {
        self.spaces.get(&id).map_or(0, |s| s.areas.len())
    }

    /// What is different on this host from what the image needs: files that changed or are missing, another kernel's
    /// vdso. Opens and makes nothing.
    ///
    /// # Errors
    /// What keeps us from looking.
    pub fn check(&self, files: Files) -> Result<Vec<Refusal>> {
        let mut refusals = Vec::new();
        let (mut told, mut policies) = (BTreeSet::new(), BTreeSet::new());
        let here = vdso::Here::look()?;
        refusals.extend(self.check_kernel());
        for space in self.spaces.values() {
            for file in &space.record.files {
                if told.insert((&file.path, file.size, file.mtime_ns)) {
                    refusals.extend(mapped::check(file, files));
                }
            }
            for policy in &space.record.policies {
                if policies.insert((policy.mode, &policy.nodes)) {
                    refusals.extend(policy.check());
                }
            }
            if refusals.iter().all(|r| r.code != "host/vdso") {
                refusals.extend(here.check(&vdso::wanted(&space.areas), space.record.vdso));
            }
        }
        Ok(refusals)
    }

    /// What only newer kernels can do for memory, and this one can't.
    fn check_kernel(&self) -> Vec<Refusal> {
        let any = |flag| self.spaces.values().flat_map(|s| &s.areas).any(|a| a.flags.has(flag));
        let guards = self.spaces.values().any(|s| !s.record.guards.is_empty());
        let wanted = [
            (any(VmFlag::Sealed), probe::seal as fn() -> _, "sealed memory (mseal)", "6.10"),
            (any(VmFlag::Droppable), probe::droppable, "droppable memory (MAP_DROPPABLE)", "6.11"),
            (guards, probe::guard_pages, "guard pages (MADV_GUARD_INSTALL)", "6.13"),
        ];
        let missing = wanted.into_iter().filter(|(wanted, probe, ..)| *wanted && probe().is_err());
        let refuse = |(_, _, what, since): (bool, _, &str, &str)| Refusal {
            who: None,
            fd: None,
            what: what.into(),
            code: "host/memory",
            why: "this kernel can't make such memory".into(),
            remedy: format!("restart on Linux {since} or later"),
        };
        missing.map(refuse).collect()
    }

    /// Opens every mapped file, and every program, once for each way it is used, at numbers from `base` on. Every process
    /// that is forked from us has them at these numbers.
    ///
    /// # Errors
    /// A file that can't be opened, or that changed since [`MemoryImage::check`].
    pub fn open_all(&self, base: i32, policy: Files) -> Result<MappedFiles> {
        let mut open = MappedFiles::default();
        for (id, inode) in &self.inodes {
            open.make(*id, inode, base)?;
        }
        for space in self.spaces.values() {
            let files = &space.record.files;
            if space.record.exe_inode.is_none() {
                open.open(&files[space.record.exe as usize], false, base, policy)?;
            }
            for area in &space.areas {
                match area.backing {
                    Backing::File { file, writable, .. } => {
                        open.open(&files[file as usize], writable, base, policy)?;
                    }
                    Backing::Inode { inode, writable: true, .. } => open.open_to_write(inode, base)?,
                    _ => {}
                }
            }
        }
        Ok(open)
    }

    /// All addresses that any process of the image uses, in order, those that overlap made one.
    pub fn taken_ranges(&self) -> Vec<(u64, u64)> {
        let mut all: Vec<Span> = self.spaces.values().flat_map(|s| s.areas.iter().map(Area::span)).collect();
        all.sort_unstable();
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for span in all {
            match ranges.last_mut() {
                Some(last) if last.1 >= span.start => last.1 = last.1.max(span.end),
                _ => ranges.push((span.start, span.end)),
            }
        }
        ranges
    }

    /// How much room the shared objects need while processes are made.
    pub fn shared_len(&self) -> u64 {
        self.shared_len
    }

    /// The steps of the first process, before it forks: every shared object, one after another from `shared_at`.
    pub fn shared_steps(&self, shared_at: u64) -> Batch {
        let mut batch = Batch::new();
        for object in self.objects.values() {
            shared::make(&object.record, shared_at + object.at, &mut batch);
        }
        batch
    }

    /// The steps that take down what a process has mapped (`old`), all but the kernel's own areas and `keep`.
    pub fn clear_steps(old: &[maps::Area], keep: &[(u64, u64)]) -> Batch {
        let mut kept: Vec<Span> = keep.iter().map(|(start, end)| Span { start: *start, end: *end }).collect();
        kept.extend(vdso::places(old).into_iter().map(|(_, span)| span));
        kept.sort_unstable();
        let mut batch = Batch::new();
        let mut from = 0;
        for span in kept.into_iter().chain([Span { start: USER_MAX, end: u64::MAX }]) {
            // munmap(2) of a range is one call whatever is in it; where nothing is, there is nothing to do.
            let gap = Span { start: from, end: span.start.min(USER_MAX) };
            if !gap.is_empty() && old.iter().any(|a| gap.meets(Span { start: a.start, end: a.end })) {
                batch.call_for(Sysno::munmap, [value(gap.start), value(gap.len())], 0);
            }
            from = from.max(span.end);
        }
        batch
    }

    fn space(&self, id: u64) -> Result<&SpaceImage> {
        self.spaces.get(&id).ok_or_else(|| Error::Bug(format!("the image has no memory of pid {id}")))
    }

    /// The steps that build a space in a process: what is left of `old` is unmapped, all but `keep` (the shelf; the
    /// shared objects are kept anyway) and what it keeps of its parent's memory; the program's file is set; vdso and vvar move
    /// to their places; every area is mapped.
    ///
    /// # Errors
    /// An area that lies where `keep` or the shared objects are; no room to move the vdso.
    pub fn map_steps(
        &self,
        id: u64,
        files: &MappedFiles,
        site: Site,
        old: &[maps::Area],
        keep: &[(u64, u64)],
    ) -> Result<Vec<Batch>> {
        let Site { shared_at, may_set_exe, room } = site;
        let space = self.space(id)?;
        let mut keep = keep.to_vec();
        if self.shared_len > 0 {
            keep.push((shared_at, shared_at + self.shared_len));
        }
        for (start, end) in &keep {
            if let Some(area) = space.areas.iter().find(|a| a.span().meets(Span { start: *start, end: *end }))
            {
                return Err(Error::Bug(format!("the area {} of pid {id} lies where bardo is", area.span())));
            }
        }
        let mut batches = Batches::new(room);
        let kept = self.kept_areas(id);
        keep.extend(kept.iter().map(|number| &space.areas[*number]).map(|area| (area.start, area.end)));
        let clear = Self::clear_steps(old, &keep);
        if !clear.is_empty() {
            batches.add(|batch| batch.append(&clear));
        }
        // Whoever keeps anything runs its parent's program.
        if may_set_exe && space.record.exe_inode.is_none() && kept.is_empty() {
            // While anything of the program before is mapped the kernel takes no other, nor the same (EBUSY): not at the
            // end, when a tree may have mapped bardo itself.
            let fd = files.number(&space.record.files[space.record.exe as usize], false)?;
            batches.add(|batch| set_mm(&space.record, &[], fd as u32, batch));
        }
        let mut busy: Vec<Span> = keep.iter().map(|(start, end)| Span { start: *start, end: *end }).collect();
        busy.extend(space.areas.iter().filter(|a| !a.backing.is_kernels()).map(Area::span));
        let mut moves = Batch::new();
        vdso::moves(&vdso::places(old), &vdso::wanted(&space.areas), &busy, &mut moves)
            .doing("looking for room to move the vdso", None)?;
        if !moves.is_empty() {
            batches.add(|batch| batch.append(&moves));
        }
        for (number, area) in space.areas.iter().enumerate() {
            if kept.contains(&number) {
                continue;
            }
            match area.backing {
                Backing::Vdso | Backing::Vvar | Backing::VvarVclock => continue,
                Backing::Anonymous => batches.add(|batch| anonymous::map(area, batch)),
                Backing::Object { object, offset } => {
                    let at = self.objects.get(&object).map(|o| shared_at + o.at + offset);
                    let at = at.ok_or_else(|| Error::Bug(format!("no shared object {object}")))?;
                    batches.add(|batch| shared::duplicate(area, at, batch));
                }
                Backing::File { file, offset, writable } => {
                    let fd = files.number(&space.record.files[file as usize], writable)?;
                    batches.add(|batch| map_file(area, fd, offset, batch));
                }
                Backing::Inode { inode, offset, writable } => {
                    let fd = files.number_of(inode, writable)?;
                    batches.add(|batch| map_file(area, fd, offset, batch));
                }
            }
            batches.add(|batch| anonymous::advise_early(area, batch));
        }
        Ok(batches.done)
    }

    /// The steps that make huge pages where there were some, before the filling, and once all processes are made: their
    /// children have no part in them.
    ///
    /// # Errors
    /// [`Error::Bug`] for an id that isn't in the image.
    pub fn huge_steps(&self, id: u64, room: usize) -> Result<Vec<Batch>> {
        let space = self.space(id)?;
        let mut batches = Batches::new(room);
        let huge = &mut space.record.huge.iter().peekable();
        for area in &space.areas {
            let own = spans_in(area, huge);
            batches.add(|batch| anonymous::make_huge(area, &own, batch));
        }
        Ok(batches.done)
    }

    /// The steps that take what was no part of it out of the kernel's merging of equal pages, once the whole process takes part
    /// (prctl(2), PR_SET_MEMORY_MERGE).
    ///
    /// # Errors
    /// [`Error::Bug`] for an id that isn't in the image.
    pub fn apart_steps(&self, id: u64, room: usize) -> Result<Vec<Batch>> {
        let mut batches = Batches::new(room);
        for area in self.space(id)?.areas.iter().filter(|area| !area.backing.is_kernels()) {
            batches.add(|batch| anonymous::keep_apart(area, batch));
        }
        Ok(batches.done)
    }

    /// The steps that end a space's building, once its pages are there: protections, advice, locks; the shared objects'
    /// temporary place is unmapped; program break, arguments and auxiliary vector are set. Limits (RLIMIT_MEMLOCK,
    /// RLIMIT_DATA) must not be lowered before.
    ///
    /// # Errors
    /// [`Error::Bug`] for an id that isn't in the image.
    pub fn finish_steps(&self, id: u64, files: &MappedFiles, site: Site) -> Result<Vec<Batch>> {
        let Site { shared_at, may_set_exe, room } = site;
        let space = self.space(id)?;
        let mut batches = Batches::new(room);
        for policy in &space.record.policies {
            batches.add(|batch| policy.put(batch));
        }
        let guards = &mut space.record.guards.iter().peekable();
        let huge = &mut space.record.huge.iter().peekable();
        let mut guarded = Vec::new();
        for (area, filled) in space.areas.iter().zip(&space.filled).filter(|(a, _)| !a.backing.is_kernels()) {
            // A guard of a hostile image that lies in no area is passed over.
            let own = spans_in(area, guards);
            let huge = spans_in(area, huge);
            batches.add(|batch| anonymous::finish(area, !filled, !own.is_empty(), &huge, batch));
            if !own.is_empty() {
                guarded.push((area, own));
            }
        }
        for (area, own) in guarded {
            batches.add(|batch| anonymous::install_guards(area, &own, batch));
        }
        if self.shared_len > 0 {
            batches.add(|batch| {
                batch.call_for(Sysno::munmap, [value(shared_at), value(self.shared_len)], 0);
            });
        }
        // While it runs nobody can write to it, so one that is filled from the image comes now.
        let exe_fd = match space.record.exe_inode.filter(|_| may_set_exe) {
            Some(inode) => files.number_of(inode, false)? as u32,
            None => NO_FILE,
        };
        batches.add(|batch| set_mm(&space.record, &space.record.auxv, exe_fd, batch));
        for area in space.areas.iter().filter(|a| !a.backing.is_kernels()) {
            batches.add(|batch| anonymous::seal(area, batch));
        }
        if space.record.lock_future != 0 {
            let flags = [value(space.record.lock_future.into())];
            batches.add(|batch| {
                batch.call_for(Sysno::mlockall, flags, 0);
            });
        }
        Ok(batches.done)
    }
}

/// The guard pages, or huge ones, in an area; `spans` are those that end after the area ahead of it.
fn spans_in<'a>(area: &Area, spans: &mut Peekable<impl Iterator<Item = &'a Span>>) -> Vec<Span> {
    let mut own = Vec::new();
    while let Some(span) = spans.peek().filter(|s| s.start < area.end) {
        own.extend(Some(span.cut(area.span())).filter(|s| !s.is_empty()));
        if span.end > area.end {
            break;
        }
        spans.next();
    }
    own
}

/// Maps a part of a file.
fn map_file(area: &Area, fd: u64, offset: u64, batch: &mut Batch) {
    let sharing = if area.shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
    let flags = anonymous::map_flags(area) | sharing as u64;
    let prot = value(area.fill_prot().into());
    let args = [value(area.start), value(area.len()), prot, value(flags), value(fd), value(offset)];
    batch.call_for(Sysno::mmap, args, area.start);
}

/// Where [`set_mm`] leaves the program's file as it is.
const NO_FILE: u32 = u32::MAX;

/// Sets all fields of the address space (`struct prctl_mm_map`: eleven words, the auxiliary vector's address and length,
/// the program's descriptor). An empty auxiliary vector leaves the one there is.
fn set_mm(record: &SpaceRecord, auxv_bytes: &[u8], exe_fd: u32, batch: &mut Batch) {
    const AUXV: usize = 11 * 8;
    const LEN: usize = AUXV + 8 + 4 + 4;
    let auxv = batch.data(auxv_bytes);
    let mut map = Vec::with_capacity(LEN);
    for word in record.mm.words() {
        map.extend_from_slice(&word.to_ne_bytes());
    }
    map.extend_from_slice(&[0; 8]);
    map.extend_from_slice(&(auxv_bytes.len() as u32).to_ne_bytes());
    map.extend_from_slice(&exe_fd.to_ne_bytes());
    let map = batch.data(&map);
    if !auxv_bytes.is_empty() {
        batch.point(map, AUXV, auxv);
    }
    batch.call_for(
        Sysno::prctl,
        [value(PR_SET_MM), value(PR_SET_MM_MAP), map, value(LEN as u64), value(0)],
        0,
    );
}

/// Batches that are filled one after another.
pub(super) struct Batches {
    room: usize,
    pub done: Vec<Batch>,
}

impl Batches {
    pub fn new(room: usize) -> Batches {
        Batches { room, done: Vec::new() }
    }

    /// Adds what belongs together, in a new batch if the last one would become too large.
    pub fn add(&mut self, write: impl FnOnce(&mut Batch)) {
        let mut piece = Batch::new();
        write(&mut piece);
        if piece.is_empty() {
            return;
        }
        match self.done.last_mut() {
            // Alignment of the data may cost 64 bytes more.
            Some(last) if last.room() + piece.room() + 64 <= self.room => last.append(&piece),
            _ => self.done.push(piece),
        }
    }
}
