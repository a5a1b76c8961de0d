//! The address space of a process as a whole.
//!
//! **In the kernel**: `struct mm_struct`: the areas, and what the program's start wrote down beside them: where code, data,
//! heap, stack, arguments and environment begin and end, the program break, the file that `/proc/PID/exe` names, and the
//! auxiliary vector. `[heap]` and `[stack]` in `maps` are areas that these addresses fall into.
//!
//! **In the image**: `memory/space`, its id the process's own pid: these fields, and the table of mapped files; then
//! `memory/areas` of the same id, one record or more, with the areas in order.
//!
//! **Taken how**: from outside while the process is stopped: smaps, stat, auxv, exe; the program break by brk(0) inside,
//! since no file shows it (where nothing is on the heap yet, or it was given back). PAGEMAP_SCAN finds the pages. Whether
//! memory that is mapped later will be locked (MCL_FUTURE of mlockall(2)) shows in what the visit has mapped itself.
//!
//! **Put back how**: see [`super::restore`]; in the end PR_SET_MM_MAP sets all fields at once. It sets the exe link only for
//! holders of CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN in the process's user namespace.
//!
//! **Not saved**: counters (peaks, faults).

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bardo_image::{Blob, Writer};
use bardo_kernel::fs;
use bardo_kernel::pagemap::{self, Categories, PageRun, Scan};
use bardo_kernel::procfs::maps::Special;
use bardo_kernel::procfs::smaps::{self, VmFlag};
use bardo_kernel::procfs::{self, stat::Stat};
use serde::{Deserialize, Serialize};

use super::area::{Area, Backing, FilePath, Flags, Span, USER_MAX, USER_MIN, is_default};
use super::inode::InodeKind;
use super::mapped::{self, FileIdentity, Identified, Obstacle};
use super::object::{MEMFD, Shared, Unnamed, What};
use super::policy::Policy;
use super::vdso::{self, Vdso};
use crate::error::{Doing, Refusal, Result};
use crate::subject::Subject;

/// How many areas go into one record.
const AREAS_PER_RECORD: usize = 8192;

/// Where the parts of a program are (`struct prctl_mm_map`, prctl(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Mm {
    /// stat, 26.
    pub start_code: u64,
    /// stat, 27.
    pub end_code: u64,
    /// stat, 45.
    pub start_data: u64,
    /// stat, 46.
    pub end_data: u64,
    /// stat, 47.
    pub start_brk: u64,
    /// brk(0).
    pub brk: u64,
    /// stat, 28.
    pub start_stack: u64,
    /// stat, 48.
    pub arg_start: u64,
    /// stat, 49.
    pub arg_end: u64,
    /// stat, 50.
    pub env_start: u64,
    /// stat, 51.
    pub env_end: u64,
}

impl Mm {
    fn of(stat: &Stat, brk: u64) -> Mm {
        Mm {
            start_code: stat.start_code,
            end_code: stat.end_code,
            start_data: stat.start_data,
            end_data: stat.end_data,
            start_brk: stat.start_brk,
            brk,
            start_stack: stat.start_stack,
            arg_start: stat.arg_start,
            arg_end: stat.arg_end,
            env_start: stat.env_start,
            env_end: stat.env_end,
        }
    }

    /// In the order of `struct prctl_mm_map`.
    pub(super) fn words(&self) -> [u64; 11] {
        [
            self.start_code,
            self.end_code,
            self.start_data,
            self.end_data,
            self.start_brk,
            self.brk,
            self.start_stack,
            self.arg_start,
            self.arg_end,
            self.env_start,
            self.env_end,
        ]
    }
}

/// The record `memory/space`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceRecord {
    /// Where the program's parts are.
    pub mm: Mm,
    /// The program's file, in `files`.
    pub exe: u32,
    /// The program's file, where it has no name any more: an inode.
    #[serde(default, skip_serializing_if = "is_default")]
    pub exe_inode: Option<u64>,
    /// `/proc/PID/auxv`, as it is.
    pub auxv: Blob,
    /// The vdso that its areas are of.
    #[serde(default, skip_serializing_if = "is_default")]
    pub vdso: Option<Vdso>,
    /// The files that its areas are of.
    pub files: Vec<FileIdentity>,
    /// Guard pages (MADV_GUARD_INSTALL), in order.
    #[serde(default, skip_serializing_if = "is_default")]
    pub guards: Vec<Span>,
    /// What is in huge pages, in order.
    #[serde(default, skip_serializing_if = "is_default")]
    pub huge: Vec<Span>,
    /// MCL_FUTURE and MCL_ONFAULT of mlockall(2).
    #[serde(default, skip_serializing_if = "is_default")]
    pub lock_future: u32,
    /// NUMA policies, in order.
    #[serde(default, skip_serializing_if = "is_default")]
    pub policies: Vec<Policy>,
}

/// The record `memory/areas`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AreasRecord {
    /// The next areas of the space, in order of their addresses.
    pub areas: Vec<Area>,
}

/// Pages to be taken, of one area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Present {
    pub span: Span,
    /// Whether process_vm_readv(2) can read them, and may.
    pub direct: bool,
}

impl Present {
    /// The same pages, to be read through `/proc/PID/mem`.
    pub fn to_be_read_gently(self) -> Present {
        Present { direct: false, ..self }
    }
}

/// What a survey has found of an address space.
#[derive(Debug)]
pub struct Space {
    /// Its number in the image: the process's own pid.
    pub id: u64,
    /// What is not an area.
    pub record: SpaceRecord,
    areas: Vec<Area>,
    pub(super) pages: Vec<Present>,
}

impl Space {
    /// How many areas it has.
    pub fn areas(&self) -> usize {
        self.areas.len()
    }

    /// Whether there is an area at this address that can have pages of its own.
    pub(super) fn has_own_pages_at(&self, addr: u64) -> bool {
        let at = self.areas.partition_point(|area| area.end <= addr);
        self.areas.get(at).is_some_and(|area| area.start <= addr && area.has_own_pages())
    }

    /// Bytes of pages that will be read.
    pub fn page_bytes(&self) -> u64 {
        self.pages.iter().map(|p| p.span.len()).sum()
    }

    /// Writes its records.
    pub fn write<W: Write>(&self, image: &mut Writer<W>) -> std::io::Result<()> {
        image.record("memory/space", self.id, &self.record)?;
        for areas in self.areas.chunks(AREAS_PER_RECORD) {
            image.record("memory/areas", self.id, &AreasRecord { areas: areas.to_vec() })?;
        }
        Ok(())
    }
}

/// Obstacles of one process, those of one sort together.
#[derive(Default)]
struct Obstacles(BTreeMap<(&'static str, String), (Obstacle, Span, usize)>);

impl Obstacles {
    fn add(&mut self, obstacle: Obstacle, span: Span) {
        let key = (obstacle.code, obstacle.what.clone());
        self.0.entry(key).or_insert((obstacle, span, 0)).2 += 1;
    }

    fn refuse(self, subject: &Subject, refusals: &mut Vec<Refusal>) {
        for (obstacle, span, count) in self.0.into_values() {
            let more = if count > 1 { format!(" and {} more areas", count - 1) } else { String::new() };
            let place = if span.is_empty() { String::new() } else { format!(", at {span}{more}") };
            let what = format!("{}{place}", obstacle.what);
            refusals.push(subject.refusal(obstacle.code, None, what, obstacle.why, obstacle.remedy));
        }
    }
}

fn obstacle(
    code: &'static str,
    what: impl Into<String>,
    why: &'static str,
    remedy: &'static str,
) -> Obstacle {
    Obstacle { code, what: what.into(), why, remedy }
}

/// What only a visit can ask.
#[derive(Debug, Clone, Default)]
pub struct Inside {
    /// What brk(0) gave.
    pub brk: u64,
    /// MCL_FUTURE and MCL_ONFAULT of mlockall(2), where memory that is mapped from now on is locked.
    pub lock_future: u32,
    /// NUMA policies of its memory, in order.
    pub policies: Vec<Policy>,
}

/// Looks at the memory of a stopped process, from outside: writes nothing, and has no page faulted in. Whatever can't be saved goes to `refusals`.
///
/// # Errors
/// Files of `/proc` that can't be read.
pub fn survey(
    subject: &Subject,
    inside: Inside,
    cx: &mut Shared,
    refusals: &mut Vec<Refusal>,
) -> Result<Space> {
    let pid = subject.door;
    let who = Some(&subject.who);
    let entries = smaps::read(pid).doing("reading its memory areas", who)?;
    let auxv = fs::read_all(procfs::path(pid, "auxv")).doing("reading its auxiliary vector", who)?;
    let mut obstacles = Obstacles::default();
    let mut files = Table::default();
    let (exe, exe_inode) = match mapped::program(subject)? {
        Identified::Named(file) => (files.add(file), None),
        Identified::Nameless { key, path } => (0, Some(cx.note_program(subject, key, &path))),
    };
    let mut areas = Vec::with_capacity(entries.len());
    for entry in &entries {
        let span = Span { start: entry.area.start, end: entry.area.end };
        match classify(subject, entry, cx, &mut files) {
            Ok(Some(area)) => areas.push(area),
            Ok(None) => {}
            Err(obstacle) => obstacles.add(obstacle, span),
        }
    }
    let has_vdso = areas.iter().any(|a| a.backing == Backing::Vdso);
    let Found { pages, guards, huge } = find_pages(pid, &areas).doing("looking for its pages", who)?;
    obstacles.refuse(subject, refusals);
    let record = SpaceRecord {
        mm: Mm::of(&subject.stat, inside.brk),
        exe,
        exe_inode,
        auxv: Blob(auxv),
        vdso: cx.here.vdso.filter(|_| has_vdso),
        files: files.files,
        guards,
        huge,
        lock_future: inside.lock_future,
        policies: inside.policies,
    };
    Ok(Space { id: subject.own_pid as u64, record, areas, pages })
}

#[derive(Default)]
struct Table {
    files: Vec<FileIdentity>,
    numbers: HashMap<FilePath, u32>,
}

impl Table {
    fn add(&mut self, file: FileIdentity) -> u32 {
        let next = self.files.len() as u32;
        *self.numbers.entry(file.path.clone()).or_insert_with(|| {
            self.files.push(file);
            next
        })
    }
}

/// The area as an image has it; none for what isn't part of the address space.
fn classify(
    subject: &Subject,
    entry: &smaps::Entry,
    cx: &mut Shared,
    files: &mut Table,
) -> std::result::Result<Option<Area>, Obstacle> {
    let area = &entry.area;
    let flags = &entry.vm_flags;
    if area.special == Some(Special::Vsyscall) || area.path == "/memfd:bardo" {
        return Ok(None);
    }
    let kept = |backing, flags: Flags| {
        let prot = area.perms.prot() as u32;
        let shared = area.perms.shared;
        Ok(Some(Area { start: area.start, end: area.end, prot, shared, flags, backing, name: None }))
    };
    if let Some(backing) = area.special.as_ref().and_then(vdso::backing) {
        return kept(backing, Flags::default());
    }
    if let Some(obstacle) = flagged(entry) {
        return Err(obstacle);
    }
    if area.end > USER_MAX || area.start < USER_MIN {
        return Err(obstacle(
            "memory/address",
            "memory outside the usual address space",
            "a restart asks only for addresses between 64 KiB and 128 TiB",
            "run the program without mappings at such addresses",
        ));
    }
    let own = Flags::of(flags);
    let writable = area.perms.shared && flags.has(VmFlag::MayWrite);
    let named = |name: &std::ffi::OsStr, area: Option<Area>| {
        area.map(|area| Area { name: Some(FilePath(name.into())), ..area })
    };
    if let Some(unnamed) = cx.unnamed(area) {
        const SHARED: &str =
            "it is more than shared memory between relatives: others can find it by its name or descriptor";
        return match unnamed {
            Unnamed::Anonymous if area.perms.shared => {
                let what = What::Anonymous { noreserve: flags.has(VmFlag::NoReserve) };
                let object = cx.note(subject, area, (area.dev(), area.inode), what);
                let kept = kept(Backing::Object { object, offset: area.offset }, own)?;
                match &area.special {
                    Some(Special::AnonShmem(name)) => Ok(named(name, kept)),
                    _ => Ok(kept),
                }
            }
            Unnamed::Memfd => {
                let name = area.path.as_bytes().strip_prefix(MEMFD).unwrap_or_default();
                let what = What::named(InodeKind::Memfd, Path::new(OsStr::from_bytes(name)));
                let inode = cx.note(subject, area, (area.dev(), area.inode), what);
                kept(Backing::Inode { inode, offset: area.offset, writable }, own)
            }
            Unnamed::SysV => {
                cx.note_attached(area.inode);
                let what = format!("SysV shared memory with the id {}", area.inode);
                Err(obstacle("memory/sysv", what, SHARED, LATER))
            }
            Unnamed::Anonymous | Unnamed::Other => Err(obstacle(
                "memory/unnamed-file",
                format!("a mapping of {}, a file of the kernel's own", area.path.display()),
                "nothing tells what it is",
                LATER,
            )),
        };
    }
    match &area.special {
        None | Some(Special::Heap | Special::Stack) if !area.has_file() => kept(Backing::Anonymous, own),
        Some(Special::Anon(name)) => Ok(named(name, kept(Backing::Anonymous, own)?)),
        Some(special) => Err(obstacle(
            "memory/special",
            format!("an area of the kernel's own: {special:?}"),
            "nothing tells how it came there",
            "end what made it (a tracer's probe, for example)",
        )),
        None if !area.path.as_encoded_bytes().starts_with(b"/") => {
            Err(device(format!("a mapping of {}", area.path.display())))
        }
        None if area.deleted && area.path == "/[aio]" => Err(obstacle(
            "memory/aio",
            "the ring of an AIO context (io_setup)",
            "requests in flight and the context's identity are not part of memory",
            LATER,
        )),
        None if area.deleted && area.path == "/secretmem" => Err(obstacle(
            "memory/secret",
            "secret memory (memfd_secret)",
            "the kernel lets nobody else read it",
            "checkpoint while the program has no secret memory",
        )),
        None => match cx.files.identify(subject, area)? {
            Identified::Named(identity) => {
                let file = files.add(identity);
                kept(Backing::File { file, offset: area.offset, writable }, own)
            }
            Identified::Nameless { key, path } => {
                let inode = cx.note(subject, area, key, What::named(InodeKind::Deleted, &path));
                kept(Backing::Inode { inode, offset: area.offset, writable }, own)
            }
        },
    }
}

const LATER: &str = "checkpoint while the program doesn't use it";

fn device(what: String) -> Obstacle {
    obstacle("memory/device", what, "what a driver has behind a mapping is known to it alone", LATER)
}

/// What stands in the way by an area's flags alone.
fn flagged(entry: &smaps::Entry) -> Option<Obstacle> {
    let flags = &entry.vm_flags;
    if !flags.unknown.is_empty() {
        return Some(obstacle(
            "memory/unknown-flag",
            format!("memory with the flag {:?}", flags.unknown.join(" ")),
            "this bardo doesn't know what it means, so a restart would lose it",
            "use a newer bardo",
        ));
    }
    let first = |of: &[VmFlag]| of.iter().copied().find(|f| flags.has(*f));
    let has = |flag| flags.has(flag);
    if has(VmFlag::HugeTlb) {
        let why = "the pool of huge pages belongs to the host";
        return Some(obstacle("memory/hugetlb", "huge pages of hugetlbfs", why, LATER));
    }
    if first(&[VmFlag::UffdMissing, VmFlag::UffdWp, VmFlag::UffdMinor]).is_some() {
        let why = "the descriptor behind it, and who waits there, would have to come back with it";
        return Some(obstacle("memory/userfaultfd", "memory watched by userfaultfd", why, LATER));
    }
    if has(VmFlag::ShadowStack) {
        let why = "the kernel lets nobody write one";
        let remedy = "run the program with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off";
        return Some(obstacle("memory/shadow-stack", "a shadow stack", why, remedy));
    }
    if first(&[VmFlag::Io, VmFlag::PfnMap]).is_some() {
        let name = if entry.area.path.is_empty() { "device memory".into() } else { entry.area.path.clone() };
        return Some(device(format!("a mapping of {}", name.display())));
    }
    let strange = [VmFlag::Sync, VmFlag::Arch1, VmFlag::NonLinear, VmFlag::MemoryTags, VmFlag::BranchTargets];
    if let Some(flag) = first(&strange) {
        let what = format!("memory with the property {flag:?} ({})", flag.code());
        return Some(obstacle("memory/flag", what, "a restart can't make such memory yet", LATER));
    }
    if entry.protection_key.is_some_and(|key| key != 0) {
        let why = "who holds which key is not saved";
        return Some(obstacle("memory/pkey", "memory with a protection key", why, LATER));
    }
    None
}

/// What the page tables tell of private memory.
#[derive(Debug, Default)]
struct Found {
    /// Pages that are there.
    pages: Vec<Present>,
    /// Guard pages.
    guards: Vec<Span>,
    /// What is in huge pages.
    huge: Vec<Span>,
}

fn find_pages(pid: i32, areas: &[Area]) -> bardo_kernel::Result<Found> {
    let (Some(first), Some(last)) = (areas.first(), areas.last()) else { return Ok(Default::default()) };
    let map = pagemap::open(pid)?;
    // Not of a file, and there or swapped out: the kernel drops the rest.
    let what = Scan {
        inverted: Categories::FILE,
        all: Categories::FILE,
        any: Categories::PRESENT.with(Categories::SWAPPED),
        returned: Categories::PFNZERO
            .with(Categories::SWAPPED)
            .with(Categories::GUARD)
            .with(Categories::HUGE),
        ..Scan::default()
    };
    let (start, end) = (first.start, last.end.max(first.start));
    let scan = |what: &Scan| pagemap::scan(map.as_fd(), start, end, what);
    let runs = match scan(&what) {
        // Guard pages have no bit of their own before Linux 6.15, where they look swapped out and can't be read.
        Err(e) if e.is(libc::EINVAL) => {
            scan(&Scan { returned: what.returned.without(Categories::GUARD), ..what })
        }
        other => other,
    };
    let runs = match runs {
        Err(e) if e.is(libc::ENOTTY) => by_entries(&map, areas)?,
        other => other?,
    };
    Ok(sort_out(&runs, areas))
}

/// The parts of a private mapping where the file itself shows: all but pages of the process's own.
pub(super) fn without_own_pages(pid: i32, span: Span) -> bardo_kernel::Result<Vec<Span>> {
    let map = pagemap::open(pid)?;
    let runs = pagemap::runs(map.as_fd(), span.start, span.end)?;
    let (mut parts, mut from) = (Vec::new(), span.start);
    for run in runs.iter().filter(|run| !run.categories.has(Categories::FILE)) {
        parts.push(Span { start: from, end: run.start });
        from = run.end();
    }
    parts.push(Span { start: from, end: span.end });
    parts.retain(|part| !part.is_empty());
    Ok(parts)
}

fn by_entries(map: &std::os::fd::OwnedFd, areas: &[Area]) -> bardo_kernel::Result<Vec<PageRun>> {
    let mut runs = Vec::new();
    for area in areas.iter().filter(|a| a.has_own_pages()) {
        let found = pagemap::runs_by_entries(map.as_fd(), area.start, area.end)?;
        runs.extend(found.into_iter().filter(|r| !r.categories.has(Categories::FILE)));
    }
    Ok(runs)
}

/// Cuts runs at the bounds of areas, and sorts them into pages and guards.
fn sort_out(runs: &[PageRun], areas: &[Area]) -> Found {
    let Found { mut pages, mut guards, mut huge } = Found::default();
    let mut areas = areas.iter().filter(|a| a.has_own_pages()).peekable();
    for run in runs {
        let run_span = Span { start: run.start, end: run.end() };
        while areas.next_if(|a| a.end <= run.start).is_some() {}
        let mut here = areas.clone();
        while let Some(area) = here.next_if(|a| a.start < run_span.end) {
            let span = run_span.cut(area.span());
            let of_file = area.backing.is_file();
            if span.is_empty() {
            } else if run.categories.has(Categories::GUARD) {
                lengthen(&mut guards, span);
            } else if of_file || !run.categories.has(Categories::PFNZERO) {
                if run.categories.has(Categories::HUGE) && !of_file {
                    lengthen(&mut huge, span);
                }
                let direct = area.prot & libc::PROT_READ as u32 != 0;
                match pages.last_mut() {
                    Some(last) if last.span.end == span.start && last.direct == direct => {
                        last.span.end = span.end
                    }
                    _ => pages.push(Present { span, direct }),
                }
            }
        }
    }
    Found { pages, guards, huge }
}

/// Adds a stretch, or makes the last one longer.
pub(super) fn lengthen(spans: &mut Vec<Span>, span: Span) {
    match spans.last_mut() {
        Some(last) if last.end == span.start => last.end = span.end,
        _ => spans.push(span),
    }
}
