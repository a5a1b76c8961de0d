//! Lists of files that are watched for events (man 7 epoll).
//!
//! **In the kernel**: entries, each an open file and the number it had when it was added, with the events that are wanted and
//! 64 bits of the program's own. An entry goes when its open file does, not when its number is closed: as long as a duplicate
//! lives, in any process, it goes on. Ready entries stand in a queue. One that is level-triggered comes back to it for as
//! long as it is ready; one that is edge-triggered (EPOLLET) is reported and gone until something happens anew; one that is
//! one-shot (EPOLLONESHOT) has its events taken away when it is reported, and nothing else can take away EPOLLERR and
//! EPOLLHUP.
//!
//! **In the image**: `file/epoll`: status flags. `file/epoll_entries`, after all tables: number, open file, events as the kernel
//! has them, data, whether its readiness was reported before, and the process that makes it, where only one can.
//!
//! **Taken how**: the `tfd` lines of fdinfo. Which open file an entry belongs to is asked by kcmp(2), KCMP_EPOLL_TFD: the one
//! that its number leads to in a process that has the epoll, else any of the tree, of those with its inode. Nothing shows the queue, but poll(2) says
//! whether it is empty: then all readiness that lasts was reported.
//!
//! **Put back how**: once all else is open, in a thread with a table of its own, where every number is free. First what was
//! reported, and what has fired; taking all events from the queue makes it so again. What has fired and whose file isn't
//! ready for anything is made ready for that moment ([`Saved::rouse`]). Then the rest, which the kernel queues by itself
//! where it is ready. An epoll is filled before those that watch it. At last fdinfo is read, and must say the same as before. An
//! entry for a signalfd hears of the signals of the process that makes it, and pidfds are opened where they belong: those are
//! made by steps in their processes.
//!
//! **Not saved**: the order of the queue. Where it wasn't empty, nothing tells which of the edge-triggered entries that are
//! ready were reported: all of those are reported again. What has fired on a file that can't be made ready is refused; so is
//! one whose file is open only outside the tree, one for a signalfd where several processes have the epoll, and busy polling of network devices (EPIOCSPARAMS).

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use bardo_image::Record;
use bardo_kernel::fcntl::{self, OwnTable};
use bardo_kernel::kcmp::{self, What};
use bardo_kernel::procfs::fdinfo;
use bardo_kernel::stub::{Arg, Batches, STEP};
use bardo_kernel::{Failed, Sysno, epoll, fs, poll};
use serde::{Deserialize, Serialize};

use super::nameless::{self, STATUS};
use super::pool::{Making, Pool};
use super::proc;
use super::scene::{Holder, Scene, Seen};
use super::survey::Collected;
use super::table::FD_MAX;
use super::{FilesImage, Hindrance, Kind, Rules, Saved, image, pidfd, signalfd};
use crate::error::{Doing, Error, Failure, Result};
use crate::support::Support;

/// The kind.
#[derive(Debug, Clone, Copy)]
pub struct Epoll;

/// The record's name.
pub const NAME: &str = "file/epoll";
/// The name of the records of its entries.
pub const ENTRIES: &str = "file/epoll_entries";

/// Entries in one record. An image's record has at most 2^20 items, and an entry is eleven.
const ENTRIES_MAX: usize = 1 << 15;

/// The record of an epoll.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OpenEpoll {
    /// Access mode and status flags (fdinfo, `flags`).
    pub flags: i32,
}

/// The record of an epoll's entries, or of a part of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EpollEntries {
    /// The id of the epoll's record.
    pub epoll: u64,
    /// The entries.
    pub entries: Vec<Watched>,
}

/// An entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Watched {
    /// The number under which it was added (fdinfo, `tfd`), whatever that leads to now.
    pub fd: i32,
    /// The id of the open file's record.
    pub file: u64,
    /// Wanted events and behaviour, as the kernel has them (fdinfo, `events`).
    pub events: u32,
    /// What the program is told (fdinfo, `data`).
    pub data: u64,
    /// Whether readiness that lasts was reported before.
    #[serde(default)]
    pub reported: bool,
    /// The process that makes it, as it sees itself, where not every process can.
    #[serde(default)]
    pub by: Option<i32>,
}

impl Watched {
    /// Whether it is one-shot and has been reported.
    fn has_fired(&self) -> bool {
        self.events & epoll::ONE_SHOT != 0 && self.events & !epoll::BEHAVIOUR == 0
    }
}

impl Kind for Epoll {
    fn support(&self) -> Support {
        Support {
            kind: NAME,
            kept: "entries with their numbers, events and data, also of numbers that were closed or lead elsewhere now; \
                   nested, edge-triggered, one-shot, exclusive; whether readiness was reported",
            not_kept: "where events wait, edge-triggered entries that are ready are reported again; a one-shot that has fired \
                       on a file that can't be made ready for a moment, busy polling: refused",
            privilege: "CAP_BLOCK_SUSPEND for EPOLLWAKEUP",
            workload: "file/epoll",
        }
    }

    fn records(&self) -> &'static [&'static str] {
        &[NAME, ENTRIES]
    }

    fn claims(&self, file: &Seen, _: &Scene<'_>) -> bool {
        nameless::is(file, "anon_inode:[eventpoll]")
    }

    fn collect(&self, file: &Seen, scene: &Scene<'_>, out: &mut Collected) -> Result<()> {
        if !nameless::is_ours(file, scene, "epoll", libc::O_RDWR, out)? {
            return Ok(());
        }
        let fd = scene.duplicate(file)?;
        if epoll::polls_busily(fd.as_fd()).doing("looking at an epoll", Some(scene.who(file)))? {
            let why = "what it asked of network devices isn't saved";
            let remedy = "have it not ask for that (EPIOCSPARAMS) before the checkpoint";
            out.refuse(scene, file, NAME, "epoll that polls busily", why, remedy);
            return Ok(());
        }
        let Some(mut entries) = entries(file, scene, out)? else { return Ok(()) };
        let watched = |id: u64| scene.files.get(usize::try_from(id).ok()?.checked_sub(1)?);
        if let Some(found) = entries.iter().filter_map(|e| watched(e.file)).find(|f| proc::is_of_process(f)) {
            let what = format!("epoll that watches {}", found.show());
            let why = "a process's files of proc are opened when the epoll is there already";
            out.refuse(scene, file, NAME, what, why, "checkpoint at another moment");
            return Ok(());
        }
        if refuse_stuck(file, &entries, scene, out)? {
            return Ok(());
        }
        // Only who has a signalfd's signals finds it ready, and what isn't found ready leaves the queue. A file system in user
        // space would be asked, and may stand still with the tree.
        let asks_others = |id: u64| {
            let target = &scene.files[id as usize - 1];
            nameless::is(target, signalfd::LINK)
                || nameless::is(target, "anon_inode:[eventpoll]")
                    && scene.files.iter().any(must_not_be_polled)
                || must_not_be_polled(target)
        };
        if !entries.iter().any(|entry| asks_others(entry.file)) {
            let now = poll::now(fd.as_fd(), libc::POLLIN);
            let now = now.doing("polling an epoll", Some(scene.who(file)))?;
            for entry in &mut entries {
                entry.reported = now & libc::POLLIN == 0;
            }
        }
        out.record(NAME, file.id, &OpenEpoll { flags: file.flags })?;
        for part in entries.chunks(ENTRIES_MAX) {
            out.record_late(ENTRIES, &EpollEntries { epoll: file.id, entries: part.to_vec() })?;
        }
        Ok(())
    }

    fn take(&self, record: &Record, image: &mut FilesImage) -> Result<()> {
        if record.kind == NAME {
            let file: OpenEpoll = image::read(record)?;
            if file.flags & !(STATUS | libc::O_RDWR) != 0 {
                return Err(image::wrong(record, format!("an epoll with the flags {:#o}", file.flags)));
            }
            image.epolls.insert(record.id, Vec::new());
            return image.add(record, Box::new(file));
        }
        let part: EpollEntries = image::read(record)?;
        for entry in &part.entries {
            let can_be_made = match entry.by {
                None => image.is_opened_once(entry.file),
                Some(pid) => {
                    image.leads_to(pid, entry.fd) == Some(entry.file)
                        && image.number_of(pid, part.epoll).is_some()
                        && !entry.has_fired()
                }
            };
            if !(0..=FD_MAX).contains(&entry.fd) || !can_be_made {
                return Err(image::wrong(record, format!("{entry:?}")));
            }
        }
        let epoll = image.epolls.get_mut(&part.epoll);
        let epoll = epoll.ok_or_else(|| image::wrong(record, format!("there is no epoll {}", part.epoll)))?;
        epoll.extend(part.entries);
        Ok(())
    }
}

fn must_not_be_polled(file: &Seen) -> bool {
    nameless::is(file, signalfd::LINK) || matches!(file.stat.kind(), libc::S_IFREG | libc::S_IFDIR)
}

/// A `tfd` line: `5 events: 80000019 data: 123456789abc  pos:0 ino:40e sdev:10`: number, events, data, and the inode's number.
fn parse(line: &str) -> Option<(i32, u32, u64, u64)> {
    let mut words = line.split_whitespace();
    let fd = words.next()?.parse().ok()?;
    let mut hex = |key: &str| match words.next()? {
        word if word == key => u64::from_str_radix(words.next()?, 16).ok(),
        _ => None,
    };
    let (events, data) = (u32::try_from(hex("events:")?).ok()?, hex("data:")?);
    let ino = words.find_map(|word| word.strip_prefix("ino:"))?;
    Some((fd, events, data, u64::from_str_radix(ino, 16).ok()?))
}

fn lines(told: &[(String, String)]) -> bardo_kernel::Result<Vec<(i32, u32, u64, u64)>> {
    let lines = told
        .iter()
        .filter(|(key, _)| key == "tfd")
        .map(|(_, line)| parse(line).ok_or_else(|| Failed::unexpected(format!("fdinfo, tfd: `{line}`"))));
    lines.collect()
}

/// The entries, if all of them can be kept; else what can't was refused.
fn entries(file: &Seen, scene: &Scene<'_>, out: &mut Collected) -> Result<Option<Vec<Watched>>> {
    let mut lines = lines(&file.told).doing("looking at an epoll", Some(scene.who(file)))?;
    // Several with one number stand in the order in which they are counted.
    lines.sort_by_key(|(fd, ..)| *fd);
    let mut entries = Vec::with_capacity(lines.len());
    let mut targets = Targets { file, scene, classes: None };
    let (mut last, mut nth) = (-1, 0);
    for (fd, events, data, ino) in lines {
        nth = if fd == last { nth + 1 } else { 0 };
        last = fd;
        match targets.find(fd, nth, ino)? {
            Some(id) => match who_adds(file, id, fd, scene) {
                Ok(by) => entries.push(Watched { fd, file: id, events, data, reported: false, by }),
                Err(why) => {
                    let what = format!("epoll that watches {}", scene.files[id as usize - 1].show());
                    out.refuse(scene, file, NAME, what, why, "have each process use an epoll of its own");
                    return Ok(None);
                }
            },
            None => {
                out.refuse(
                    scene,
                    file,
                    NAME,
                    format!("epoll that watches what was descriptor {fd}"),
                    "no process of the tree has that file open any more; somebody outside has, or it is on its way through a \
                     socket",
                    "have the program take it out of its epoll (EPOLL_CTL_DEL) before it closes it",
                );
                return Ok(None);
            }
        }
    }
    Ok(Some(entries))
}

/// The process that must make the entry, if it matters. A signalfd's entry hears of the signals of the process that made it,
/// and a pidfd is opened by the process that has it.
fn who_adds(
    file: &Seen,
    id: u64,
    number: i32,
    scene: &Scene<'_>,
) -> std::result::Result<Option<i32>, &'static str> {
    let target = &scene.files[id as usize - 1];
    let hears = nameless::is(target, signalfd::LINK);
    if !hears && !pidfd::is_opened_by_its_process(target) {
        return Ok(None);
    }
    let first = file.holders[0].subject;
    if hears && file.holders.iter().any(|holder| holder.subject != first) {
        return Err("several processes have the epoll, and nothing tells whose signals the entry is about");
    }
    let can = file
        .holders
        .iter()
        .find(|holder| scene.file_of(Holder { subject: holder.subject, fd: number }) == Some(id));
    let can =
        can.ok_or("the number under which it was added is closed, and only its process can add it again")?;
    Ok(Some(scene.subjects[can.subject].own_pid))
}

/// Which open files of the tree the entries of an epoll belong to.
///
/// For each question the kernel goes through the epoll's entries one by one up to the one that is meant, so each one less
/// matters: of one inode's open files, which are often moved together, the one after the last that was found is asked for first.
struct Targets<'a, 's> {
    file: &'a Seen,
    scene: &'a Scene<'s>,
    /// By the inode's number; put together when it is first asked for.
    classes: Option<BTreeMap<u64, Class>>,
}

/// The open files of inodes with one number, by their positions.
#[derive(Default)]
struct Class {
    /// In order.
    all: Vec<usize>,
    /// As kcmp(2) orders them.
    sorted: Vec<usize>,
    /// Where in `all` the one is that may come next.
    next: usize,
}

fn classes(scene: &Scene<'_>) -> Result<BTreeMap<u64, Class>> {
    let mut classes: BTreeMap<u64, Class> = BTreeMap::new();
    for (at, file) in scene.files.iter().enumerate() {
        classes.entry(file.stat.ino).or_default().all.push(at);
    }
    for at in scene.in_kernel_order()? {
        classes.entry(scene.files[*at].stat.ino).or_default().sorted.push(*at);
    }
    Ok(classes)
}

impl Targets<'_, '_> {
    /// How the open file of a descriptor stands to that of an entry, in the kernel's order.
    fn compare(&self, holder: Holder, number: i32, nth: u32) -> Result<std::cmp::Ordering> {
        let at = self.file.holders[0];
        let epoll_pid = self.scene.subjects[at.subject].door;
        let pid = self.scene.subjects[holder.subject].door;
        let what = What::EpollTarget { fd1: holder.fd, epoll: at.fd, target: number, nth };
        kcmp::compare(pid, epoll_pid, what)
            .and_then(|order| {
                let unordered = || Failed::unexpected("kcmp: no order among open files");
                order.ordering().ok_or_else(unordered)
            })
            .doing("looking at what an epoll watches", Some(self.scene.who(self.file)))
    }

    fn find(&mut self, number: i32, nth: u32, ino: u64) -> Result<Option<u64>> {
        let scene = self.scene;
        for holder in &self.file.holders {
            let there = Holder { subject: holder.subject, fd: number };
            if let Some(id) = scene.file_of(there)
                && scene.files[id as usize - 1].stat.ino == ino
                && self.compare(there, number, nth)?.is_eq()
            {
                return Ok(Some(id));
            }
        }
        let mut classes = match self.classes.take() {
            Some(classes) => classes,
            None => classes(scene)?,
        };
        let class = classes.entry(ino).or_default();
        let mut found = None;
        if let Some(next) = class.all.get(class.next)
            && self.compare(scene.files[*next].holders[0], number, nth)?.is_eq()
        {
            found = Some(*next);
        }
        if found.is_none() {
            found = self.search(&class.sorted, number, nth)?;
        }
        if let Some(found) = found {
            class.next = class.all.partition_point(|at| *at <= found);
        }
        self.classes = Some(classes);
        if found.is_none() {
            // Where several file systems make up one, stat(2) tells of other numbers.
            found = self.search(scene.in_kernel_order()?, number, nth)?;
        }
        Ok(found.map(|found| scene.files[found].id))
    }

    fn search(&self, sorted: &[usize], number: i32, nth: u32) -> Result<Option<usize>> {
        let (mut low, mut high) = (0, sorted.len());
        while low < high {
            let middle = (low + high) / 2;
            match self.compare(self.scene.files[sorted[middle]].holders[0], number, nth)? {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Ok(Some(sorted[middle])),
            }
        }
        Ok(None)
    }
}

/// Refuses an epoll with entries that have fired and couldn't be made to fire again: whether there are such.
fn refuse_stuck(file: &Seen, entries: &[Watched], scene: &Scene<'_>, out: &mut Collected) -> Result<bool> {
    for entry in entries.iter().filter(|entry| entry.has_fired()) {
        let target = &scene.files[entry.file as usize - 1];
        let reading_end = target.is_pipe() && target.reads() && !target.writes();
        let can_be_roused =
            reading_end && !scene.pipes.is_external(target) || nameless::is(target, "anon_inode:[timerfd]");
        if can_be_roused {
            continue;
        }
        let ready = entry.by.is_none() && !must_not_be_polled(target) && {
            let fd = scene.duplicate(target)?;
            poll::now(fd.as_fd(), epoll::EVENTS as i16).doing("polling a file", Some(scene.who(target)))? != 0
        };
        if !ready {
            out.refuse(
                scene,
                file,
                NAME,
                format!("epoll with an entry that has fired (EPOLLONESHOT), for descriptor {}", entry.fd),
                "only firing switches one off, and the file isn't ready for anything just now",
                "try again at another moment",
            );
            return Ok(true);
        }
    }
    Ok(false)
}

impl Saved for OpenEpoll {
    fn what(&self) -> String {
        "epoll".into()
    }

    fn check(&self, _: &Rules<'_>) -> Vec<Hindrance> {
        Vec::new()
    }

    fn open(&self, _: u64, _: &mut Making<'_>) -> Result<OwnedFd> {
        let make = || {
            let fd = epoll::make()?;
            nameless::set_status(&fd, self.flags)?;
            Ok(fd)
        };
        make().doing("making an epoll", None)
    }
}

/// What keeps this host from having so many entries.
pub(super) fn check(epolls: &BTreeMap<u64, Vec<Watched>>) -> Option<Hindrance> {
    const LIMIT: &str = "/proc/sys/fs/epoll/max_user_watches";
    let count: usize = epolls.values().map(Vec::len).sum();
    // Where the kernel doesn't say, it will when they are added.
    let most: usize = fs::read_text(LIMIT).ok()?.trim().parse().ok()?;
    (count > most).then(|| Hindrance {
        code: "file/limit",
        what: format!("{count} entries of epolls"),
        why: format!("a user may have {most} here"),
        remedy: format!("raise {LIMIT}"),
    })
}

/// Fills all epolls, which lie in the pool with all that they watch, at numbers above all that are watched.
///
/// # Errors
/// Where this host said no.
pub(super) fn fill(
    epolls: &BTreeMap<u64, Vec<Watched>>,
    files: &BTreeMap<u64, Box<dyn Saved>>,
    pool: &Pool,
) -> Result<()> {
    for id in inner_first(epolls) {
        let watch = of(pool, id)?;
        let entries = &epolls[&id];
        let (first, rest): (Vec<&Watched>, Vec<&Watched>) = entries
            .iter()
            .filter(|entry| entry.by.is_none())
            .partition(|entry| entry.has_fired() || entry.reported && entry.events & epoll::EDGE != 0);
        let mut roused = Vec::new();
        for entry in first.iter().filter(|entry| entry.has_fired()) {
            let (fd, file) = (of(pool, entry.file)?, &files[&entry.file]);
            let ready = poll::now(fd, epoll::EVENTS as i16).doing("polling a file", None)?;
            if ready != 0 {
                continue;
            }
            if !file.rouse(fd).doing("making a file ready for a moment", None)? {
                let call = format!("{} isn't ready for anything, as it was at the checkpoint", file.what());
                return Err(why(Failed::unexpected(call), files, &first));
            }
            roused.push((fd, file));
        }
        fcntl::in_own_table(|table| {
            add(watch, &first, pool, table)?;
            while !first.is_empty() && epoll::take(watch)? > 0 {}
            Ok(())
        })
        .map_err(|failed| why(failed, files, &first))?;
        for (fd, file) in roused {
            file.calm(fd).doing("putting a file back", None)?;
        }
        fcntl::in_own_table(|table| add(watch, &rest, pool, table))
            .map_err(|failed| why(failed, files, &rest))?;
        verify(watch, entries)?;
    }
    Ok(())
}

fn of(pool: &Pool, id: u64) -> Result<BorrowedFd<'_>> {
    pool.borrow(id).ok_or_else(|| Error::Bug(format!("file {id} isn't open")))
}

/// An epoll is filled before those that watch it. The kernel allows chains of five.
fn inner_first(epolls: &BTreeMap<u64, Vec<Watched>>) -> Vec<u64> {
    let mut order: Vec<u64> = Vec::new();
    let mut done: BTreeSet<u64> = BTreeSet::new();
    for _ in 0..6 {
        let waits = |id: &u64| {
            epolls[id].iter().any(|entry| epolls.contains_key(&entry.file) && !done.contains(&entry.file))
        };
        let next: Vec<u64> = epolls.keys().copied().filter(|id| !done.contains(id) && !waits(id)).collect();
        done.extend(&next);
        order.extend(next);
    }
    // What watches itself by a longer way is for the kernel to refuse.
    order.extend(epolls.keys().filter(|id| !done.contains(id)));
    order
}

fn add(
    watch: BorrowedFd<'_>,
    entries: &[&Watched],
    pool: &Pool,
    table: &OwnTable,
) -> bardo_kernel::Result<()> {
    for entry in entries {
        let fd = pool.borrow_as(entry.file, entry.fd);
        let fd = fd.ok_or_else(|| Failed::unexpected(format!("file {} isn't open", entry.file)))?;
        table.put(fd, entry.fd)?;
        // One that has fired is to fire again, for whatever is there.
        let events = if entry.has_fired() { entry.events | epoll::EVENTS } else { entry.events };
        epoll::add(watch, entry.fd, events, entry.data)?;
    }
    Ok(())
}

fn why(failed: Failed, files: &BTreeMap<u64, Box<dyn Saved>>, entries: &[&Watched]) -> Error {
    // What the outside gave may be of another sort than before.
    let outside = entries.iter().any(|entry| !files[&entry.file].names().is_empty());
    let remedy = (failed.is(libc::EPERM) && outside).then(|| {
        "connect what belongs to the outside to something that can be waited for: a terminal, a pipe"
            .to_owned()
    });
    Error::Failed(Failure {
        doing: "filling an epoll".into(),
        who: None,
        call: Some(failed),
        left: "nothing runs, nothing was left behind".into(),
        remedy,
    })
}

/// The steps by which a process makes the entries that it alone can: batches of at most `room` bytes.
pub(super) fn steps(pid: i32, image: &FilesImage, room: usize) -> Batches {
    let mut batches = Batches::new(room);
    for (id, entries) in &image.epolls {
        let mut entries = entries.iter().filter(|entry| entry.by == Some(pid)).peekable();
        if entries.peek().is_none() {
            continue;
        }
        let Some(watch) = image.number_of(pid, *id) else { continue };
        for entry in entries {
            let batch = batches.with_room_for(STEP + 128);
            let event = batch.data(&epoll::event_bytes(entry.events, entry.data));
            let [watch, add, fd] = [watch, libc::EPOLL_CTL_ADD, entry.fd].map(|n| Arg::Value(n as u64));
            batch.call_for(Sysno::epoll_ctl, [watch, add, fd, event], 0);
        }
    }
    batches
}

/// What the kernel then has must be what it had.
fn verify(watch: BorrowedFd<'_>, entries: &[Watched]) -> Result<()> {
    let read = || {
        let info = fdinfo::read(std::process::id() as i32, watch.as_raw_fd())?;
        lines(&info.other)
    };
    let now = read().doing("looking at an epoll", None)?;
    let mut now: Vec<(i32, u32, u64)> =
        now.into_iter().map(|(fd, events, data, _)| (fd, events, data)).collect();
    let made = entries.iter().filter(|entry| entry.by.is_none());
    let mut wanted: Vec<(i32, u32, u64)> = made.map(|e| (e.fd, e.events, e.data)).collect();
    now.sort_unstable();
    wanted.sort_unstable();
    let differs = wanted.iter().zip(&now).find(|(wanted, now)| wanted != now);
    let Some(((fd, events, _), (_, is, _))) = differs else {
        let count = (wanted.len(), now.len());
        return if count.0 == count.1 {
            Ok(())
        } else {
            Err(Error::Bug(format!("{count:?} entries of an epoll")))
        };
    };
    let call = format!("the entry for descriptor {fd} has the events {is:#x} instead of {events:#x}");
    let remedy = "EPOLLWAKEUP (0x20000000) needs CAP_BLOCK_SUSPEND, and a kernel that can suspend";
    Err(Error::Failed(Failure {
        doing: "filling an epoll".into(),
        who: None,
        call: Some(Failed::unexpected(call)),
        left: "nothing runs, nothing was left behind".into(),
        remedy: Some(remedy.into()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(file: u64) -> Watched {
        Watched { fd: 0, file, events: 1, data: 0, reported: false, by: None }
    }

    #[test]
    fn the_inner_ones_come_first_and_a_circle_ends() {
        let of = |pairs: &[(u64, &[u64])]| -> BTreeMap<u64, Vec<Watched>> {
            pairs.iter().map(|(id, files)| (*id, files.iter().copied().map(entry).collect())).collect()
        };
        assert_eq!(inner_first(&of(&[(1, &[2, 9]), (2, &[3]), (3, &[9])])), [3, 2, 1]);
        let mut all = inner_first(&of(&[(1, &[2]), (2, &[1]), (3, &[])]));
        all.sort_unstable();
        assert_eq!(all, [1, 2, 3]);
    }

    #[test]
    fn lines_are_read_and_nonsense_is_refused() {
        let line = "77 events: c0000000 data: ffffffffffffffff  pos:0 ino:40e sdev:10";
        assert_eq!(parse(line), Some((77, 0xc000_0000, u64::MAX, 0x40e)));
        for wrong in [
            "",
            "7",
            "7 events: 1",
            "7 events: 1 data: 1",
            "7 data: 1 events: 1",
            "x events: 1 data: 1",
            "7 events: 1ffffffff data: 1",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
