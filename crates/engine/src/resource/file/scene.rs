//! What a survey has before it: the processes, their open files, and what can be told of them by comparing them.
//!
//! Of every descriptor fdinfo is read: inode and mount, flags, offset, locks. Those that agree in what never changes of an open
//! file are compared by kcmp(2), which gives an order of the kernel's own: each group is merge-sorted by it, so n descriptors
//! of one inode cost n·log n calls at worst. All else is asked once per open file, by a duplicate that is held for a moment
//! (pidfd_getfd(2)).

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bardo_kernel::fcntl::{self, Owner};
use bardo_kernel::fs::Stat;
use bardo_kernel::kcmp::{self, What};
use bardo_kernel::procfs::descriptors::Descriptors;
use bardo_kernel::procfs::fdinfo::FdInfo;
use bardo_kernel::procfs::locks::{self, Lock};
use bardo_kernel::{fs, pidfd, procfs, ptrace, statfs, tty};

use super::lock;
use super::outside::Outside;
use super::owner;
use super::path::{self, Reach};
use super::pipe::Pipes;
use super::survey::Collected;
use super::timerfd;
use super::watched::Watched;
use crate::error::{Doing, Error, Result, Who};
use crate::resource::memory::Shared;
use crate::subject::Subject;

/// O_ASYNC as the kernel has it (the C library's name is FASYNC).
const O_ASYNC: i32 = libc::O_ASYNC;

/// A descriptor: a process, by its index, and a number in its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// Which of the subjects.
    pub subject: usize,
    /// The number.
    pub fd: i32,
}

/// A descriptor as it was found.
#[derive(Debug)]
pub struct Entry {
    /// Whose it is.
    pub holder: Holder,
    /// Whether it is closed on exec.
    pub cloexec: bool,
    /// The open file it leads to.
    pub file: u64,
}

/// An open file.
#[derive(Debug)]
pub struct Seen {
    /// Its id in the image: from 1, in the order of its first holders.
    pub id: u64,
    /// The descriptors that lead to it, in order; never none.
    pub holders: Vec<Holder>,
    /// The link's text.
    pub link: PathBuf,
    /// Its inode.
    pub stat: Stat,
    /// Status flags and access mode, without O_CLOEXEC, and without O_ASYNC, which belongs to its signals.
    pub flags: i32,
    /// Whether it has O_ASYNC.
    pub is_asynchronous: bool,
    /// Its offset.
    pub pos: i64,
    /// Locks held through it, and who holds them.
    pub locks: Vec<(Holder, Lock)>,
    /// Where its path leads.
    pub reach: Reach,
    /// Who gets its signals.
    pub owner: Owner,
    /// Which signal that is; 0 for SIGIO.
    pub signal: i32,
    /// The type of its file system (statfs(2)), for regular files and directories on one without a disk; else 0.
    pub system: u64,
    /// Whether it is a terminal.
    pub terminal: bool,
    /// What fdinfo says that files of its kind alone have: keys and values, in order.
    pub told: Vec<(String, String)>,
}

/// What an open file is an opening of: terminals by their device, all else by the inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    /// A terminal, by its device number, with `/dev/tty` followed to the one it stands for.
    Terminal(u64),
    /// An inode: device and number.
    Inode(u64, u64),
}

impl Seen {
    /// The link's text, as a message shows it and as `--external` names it.
    pub fn show(&self) -> String {
        self.link.to_string_lossy().into_owned()
    }

    /// Whether it is a pipe that pipe(2) made: those have no path.
    pub fn is_pipe(&self) -> bool {
        self.stat.kind() == libc::S_IFIFO && self.link.as_os_str().as_bytes().starts_with(b"pipe:[")
    }

    /// Whether a descriptor of it is 0, 1 or 2.
    pub fn is_stdio(&self) -> bool {
        self.holders.iter().any(|h| (0..=2).contains(&h.fd))
    }

    /// Whether it can be read from, by its access mode.
    pub fn reads(&self) -> bool {
        matches!(self.flags & libc::O_ACCMODE, libc::O_RDONLY | libc::O_RDWR)
    }

    /// Whether it can be written to.
    pub fn writes(&self) -> bool {
        matches!(self.flags & libc::O_ACCMODE, libc::O_WRONLY | libc::O_RDWR)
    }
}

/// See the module's text.
#[derive(Debug)]
pub struct Scene<'a> {
    /// The processes; the root of the tree is the first.
    pub subjects: &'a [&'a Subject],
    /// The outside that the user vouches for.
    pub vouched: &'a [String],
    /// All descriptors, by process and number.
    pub entries: Vec<Entry>,
    /// All open files, by id: the first is number 1.
    pub files: Vec<Seen>,
    /// What is known of pipes.
    pub pipes: Pipes,
    /// Terminals that belong to the outside: somebody's stdio, or the controlling terminal.
    pub terminals: BTreeSet<u64>,
    outside: OnceCell<Outside>,
    watched: OnceCell<Watched>,
    in_kernel_order: OnceCell<Vec<usize>>,
    /// Set once the timers have expired that were due when all descriptors had been looked at.
    timers_expired: OnceCell<()>,
    /// What the tree has in common: inodes whose content goes into the image.
    shared: RefCell<&'a mut Shared>,
    /// As which of 0, 1 and 2 something is held: by the root, else by anybody.
    roles: BTreeMap<Object, BTreeSet<i32>>,
}

/// The device number that `tty_nr` of stat means, as stat(2) gives device numbers.
fn terminal_of(subject: &Subject) -> u64 {
    // Both encodings agree on their lower 32 bits.
    u64::from(subject.stat.tty_nr as u32)
}

impl<'a> Scene<'a> {
    /// Looks at all descriptors of the processes.
    ///
    /// # Errors
    /// Where `/proc` or kcmp(2) can't be asked.
    pub fn look(
        subjects: &'a [&'a Subject],
        vouched: &'a [String],
        shared: &'a mut Shared,
    ) -> Result<Scene<'a>> {
        let (entries, files) = find(subjects)?;
        let mut scene = Scene {
            subjects,
            vouched,
            entries,
            files,
            pipes: Pipes::default(),
            terminals: BTreeSet::new(),
            outside: OnceCell::new(),
            watched: OnceCell::new(),
            in_kernel_order: OnceCell::new(),
            timers_expired: OnceCell::new(),
            shared: RefCell::new(shared),
            roles: BTreeMap::new(),
        };
        scene.find_other_names();
        scene.find_terminals()?;
        scene.find_roles();
        scene.pipes = Pipes::look(&scene)?;
        Ok(scene)
    }

    /// The first process that holds it.
    pub fn who(&self, file: &Seen) -> &Who {
        &self.subjects[file.holders[0].subject].who
    }

    /// A descriptor of ours for it. It shares the tree's open file: nothing may be called on it that moves an offset,
    /// takes data, or sets anything.
    ///
    /// # Errors
    /// Where pidfd_getfd(2) isn't allowed.
    pub fn duplicate(&self, file: &Seen) -> Result<OwnedFd> {
        let holder = file.holders[0];
        let subject = self.subjects[holder.subject];
        pidfd::getfd(subject.pidfd.as_fd(), holder.fd)
            .doing(format!("duplicating descriptor {}", holder.fd), Some(&subject.who))
    }

    /// The open file that a descriptor leads to.
    pub fn file_of(&self, holder: Holder) -> Option<u64> {
        let at = self.entries.binary_search_by_key(&holder, |entry| entry.holder).ok()?;
        Some(self.entries[at].file)
    }

    /// The positions of all open files in the order that kcmp(2) gives them; found when it is first asked for.
    ///
    /// # Errors
    /// Where open files can't be compared.
    pub fn in_kernel_order(&self) -> Result<&[usize]> {
        if self.in_kernel_order.get().is_none() {
            let at = |file: usize| self.files[file].holders[0];
            let classes =
                unite((0..self.files.len()).collect(), &|a, b| compare_files(self.subjects, at(a), at(b)))?;
            let _ = self.in_kernel_order.set(classes.into_iter().flatten().collect());
        }
        Ok(self.in_kernel_order.get().map_or(&[], Vec::as_slice))
    }

    /// Returns when all timers have expired that were due when the descriptors were looked at, on the processors that the tree's
    /// processes run on, and those that we do.
    ///
    /// # Errors
    /// Where one of our own doesn't expire.
    pub fn have_timers_expired(&self) -> bardo_kernel::Result<()> {
        if self.timers_expired.get().is_none() {
            let mut processors = timerfd::processors(&ptrace::cpu_mask(0)?);
            for subject in self.subjects.iter().filter(|subject| !subject.zombie) {
                processors.extend(timerfd::processors(&ptrace::cpu_mask(subject.door)?));
            }
            timerfd::have_expired(&processors)?;
            let _ = self.timers_expired.set(());
        }
        Ok(())
    }

    /// What processes outside the tree have open of what it has; looked up when it is first asked for.
    ///
    /// # Errors
    /// Where open files can't be compared.
    pub fn outside(&self) -> Result<&Outside> {
        match self.outside.get() {
            Some(outside) => Ok(outside),
            None => {
                let outside = Outside::look(self)?;
                Ok(self.outside.get_or_init(|| outside))
            }
        }
    }

    /// Where the files are that the tree watches; looked up when it is first asked for.
    ///
    /// # Errors
    /// Where fdinfo can't be read.
    pub fn watched(&self) -> Result<&Watched> {
        match self.watched.get() {
            Some(watched) => Ok(watched),
            None => {
                let watched = Watched::look(self)?;
                Ok(self.watched.get_or_init(|| watched))
            }
        }
    }

    /// Has the content of its inode, which no name leads to, go into the image: the inode's id there, under which a restart
    /// finds it ([`crate::resource::memory::MappedFiles::inode`]). What maps it, and what else is an opening of it, has
    /// the same.
    ///
    /// # Errors
    /// Where it can't be looked at. What else stands in the way is refused by [`Shared::complete`].
    pub fn keep_content(&self, file: &Seen) -> Result<u64> {
        let link = file.link.as_os_str().as_bytes();
        let name = OsStr::from_bytes(link.strip_suffix(b" (deleted)").unwrap_or(link));
        let subject = self.subjects[file.holders[0].subject];
        self.shared.borrow_mut().hold(subject, Path::new(name), &self.duplicate(file)?, file.flags)
    }

    /// Whether it is on the kernel's own tmpfs, where memfds are, and shared memory.
    pub fn is_of_kernels_tmpfs(&self, file: &Seen) -> bool {
        self.shared.borrow().is_kernels_tmpfs(file.stat.dev)
    }

    /// Whether the user vouches for it: by its link's text, or as `fd:PID:NUMBER`.
    pub fn is_vouched(&self, file: &Seen) -> bool {
        let named = |name: &String| {
            *name == file.show()
                || file
                    .holders
                    .iter()
                    .any(|h| *name == format!("fd:{}:{}", self.subjects[h.subject].pid(), h.fd))
        };
        self.vouched.iter().any(named)
    }

    /// What it is an opening of.
    pub fn object(&self, file: &Seen) -> Object {
        if !file.terminal {
            return Object::Inode(file.stat.dev, file.stat.ino);
        }
        let own = libc::makedev(5, 0);
        let terminal = terminal_of(self.subjects[file.holders[0].subject]);
        Object::Terminal(if file.stat.rdev == own && terminal != 0 { terminal } else { file.stat.rdev })
    }

    /// As which of 0, 1 and 2 the root of the tree holds what this is an opening of; where it doesn't, anybody.
    pub fn roles(&self, file: &Seen) -> Vec<i32> {
        self.roles.get(&self.object(file)).map(|roles| roles.iter().copied().collect()).unwrap_or_default()
    }

    /// Whether the root of the tree itself holds what this is an opening of as its stdio.
    pub fn is_roots_stdio(&self, file: &Seen) -> bool {
        let object = self.object(file);
        self.files.iter().any(|f| {
            f.holders.iter().any(|h| h.subject == 0 && (0..=2).contains(&h.fd)) && self.object(f) == object
        })
    }

    /// Whether nothing is attached to it that can't be saved: a lease, a signal owner outside. Refuses what is.
    ///
    /// # Errors
    /// Where looking failed.
    pub fn is_plain(&self, file: &Seen, out: &mut Collected) -> Result<bool> {
        let later =
            "a later version of bardo will save it; until then release it, or checkpoint at another moment";
        let mut plain = owner::can_be_kept(file, self, out)?;
        for (holder, lock) in lock::refused(file) {
            let (code, why) = match lock.kind {
                locks::Kind::Lease => {
                    ("file/lease", "the process would not be told any more when others open the file")
                }
                _ => ("file/lock", "this version doesn't know how such a lock is taken"),
            };
            let what = format!("{}, with {}", file.show(), lock::show(lock));
            out.refuse_at(self, *holder, code, what, why, later);
            plain = false;
        }
        Ok(plain)
    }

    /// Whether a process of the tree gets the signals of this file, which belongs to the outside.
    pub fn signals_the_tree(&self, file: &Seen) -> bool {
        self.subjects.iter().any(|subject| match file.owner {
            Owner::None => false,
            Owner::Thread(tid) => subject.tids.contains(&tid),
            Owner::Process(pid) => subject.pid() == pid,
            Owner::Group(group) => subject.stat.pgrp == group,
        })
    }

    /// Files whose name was removed while they have another one are looked for where they were, in the working directories,
    /// and where else the tree has something open.
    fn find_other_names(&mut self) {
        let lost = |file: &Seen| {
            file.reach == Reach::Deleted
                && file.stat.nlink > 0
                && matches!(file.stat.kind(), libc::S_IFREG | libc::S_IFIFO)
        };
        if !self.files.iter().any(lost) {
            return;
        }
        let mut directories: BTreeSet<PathBuf> =
            self.files.iter().filter_map(|file| Some(file.link.parent()?.to_owned())).collect();
        let working = |subject: &&Subject| fs::read_link(procfs::path(subject.pid(), "cwd")).ok();
        directories.extend(self.subjects.iter().filter_map(working));
        directories.retain(|directory| directory.is_absolute());
        for file in self.files.iter_mut().filter(|file| lost(file)) {
            let first = file.link.parent().map(Path::to_owned).filter(|path| path.is_absolute());
            let first = first.as_deref().into_iter();
            if let Some(name) =
                path::other_name(first.chain(directories.iter().map(PathBuf::as_path)), &file.stat)
            {
                file.link = name;
                file.reach = Reach::Same;
            }
        }
    }

    fn find_terminals(&mut self) -> Result<()> {
        self.terminals = self.subjects.iter().map(|s| terminal_of(s)).filter(|rdev| *rdev != 0).collect();
        let mut known: BTreeMap<u64, bool> = BTreeMap::new();
        for index in 0..self.files.len() {
            let file = &self.files[index];
            if file.stat.kind() != libc::S_IFCHR || file.flags & libc::O_PATH != 0 {
                continue;
            }
            let terminal = match known.get(&file.stat.rdev) {
                Some(terminal) => *terminal,
                // Memory devices aren't; and null may be open a thousand times.
                None if libc::major(file.stat.rdev) == 1 => false,
                None => {
                    let fd = self.duplicate(file)?;
                    tty::is_terminal(fd.as_fd()).doing("asking for a terminal", Some(self.who(file)))?
                }
            };
            known.insert(file.stat.rdev, terminal);
            if terminal && file.is_stdio() {
                self.terminals.insert(file.stat.rdev);
            }
            self.files[index].terminal = terminal;
        }
        // /dev/tty stands for the controlling terminal.
        self.terminals.insert(libc::makedev(5, 0));
        Ok(())
    }

    fn find_roles(&mut self) {
        let mut of_root: BTreeMap<Object, BTreeSet<i32>> = BTreeMap::new();
        let mut of_any = of_root.clone();
        for file in self.files.iter().filter(|file| file.is_stdio()) {
            let object = self.object(file);
            for holder in file.holders.iter().filter(|h| (0..=2).contains(&h.fd)) {
                of_any.entry(object).or_default().insert(holder.fd);
                if holder.subject == 0 {
                    of_root.entry(object).or_default().insert(holder.fd);
                }
            }
        }
        of_any.extend(of_root);
        self.roles = of_any;
    }
}

/// A descriptor before it is known which open file it leads to.
struct Raw {
    holder: Holder,
    info: FdInfo,
}

/// What never changes about an open file: mount, inode, access mode, and an eventfd's number, since all of those have one
/// inode. Two descriptors that differ in it lead to two.
type Constant = (i32, Option<u64>, u32, Option<u32>);

/// Flags that fcntl(2) may set at any time, and the one that is the descriptor's.
const SETTABLE: i32 =
    libc::O_APPEND | libc::O_NONBLOCK | libc::O_DIRECT | libc::O_NOATIME | O_ASYNC | libc::O_CLOEXEC;

/// From so many descriptors of one inode on, those at different offsets are told apart by these.
const MANY: usize = 64;

impl Raw {
    fn constant(&self) -> Constant {
        let eventfd = self.info.get("eventfd-id").and_then(|id| id.parse().ok());
        (self.info.mnt_id, self.info.ino, self.info.flags & !(SETTABLE as u32), eventfd)
    }
}

/// What is asked of an open file itself.
struct Asked {
    stat: Stat,
    owner: Owner,
    signal: i32,
    system: u64,
}

impl Asked {
    /// Asks by a duplicate of a descriptor. `systems` remembers the types of file systems by their devices.
    fn ask(subject: &Subject, raw: &Raw, systems: &mut BTreeMap<u64, u64>) -> bardo_kernel::Result<Asked> {
        let fd = pidfd::getfd(subject.pidfd.as_fd(), raw.holder.fd)?;
        let stat = fs::fstat(fd.as_fd())?;
        // fcntl(2) answers EBADF to these for O_PATH, which can't signal.
        let (owner, signal) = match raw.info.flags as i32 & libc::O_PATH {
            0 => (fcntl::owner(fd.as_fd())?, fcntl::signal(fd.as_fd())?),
            _ => (Owner::None, 0),
        };
        let mut system = 0;
        if matches!(stat.kind(), libc::S_IFREG | libc::S_IFDIR) && libc::major(stat.dev) == 0 {
            system = match systems.get(&stat.dev) {
                Some(system) => *system,
                None => *systems.entry(stat.dev).or_insert(statfs::kind(fd.as_fd())?),
            };
        }
        Ok(Asked { stat, owner, signal, system })
    }
}

/// How the open files of two descriptors stand in the kernel's order.
fn compare_files(subjects: &[&Subject], a: Holder, b: Holder) -> Result<std::cmp::Ordering> {
    let (one, other) = (subjects[a.subject], subjects[b.subject]);
    kcmp::compare(one.door, other.door, What::File { fd1: a.fd, fd2: b.fd })
        .and_then(|order| {
            let unordered = || bardo_kernel::Failed::unexpected("kcmp: no order among open files");
            order.ordering().ok_or_else(unordered)
        })
        .doing("comparing open files", Some(&one.who))
}

/// All descriptors, and the open files they lead to.
fn find(subjects: &[&Subject]) -> Result<(Vec<Entry>, Vec<Seen>)> {
    let mut raws = Vec::new();
    let mut tables: BTreeMap<usize, Descriptors> = BTreeMap::new();
    for (index, subject) in subjects.iter().enumerate() {
        if subject.zombie {
            continue;
        }
        let who = Some(&subject.who);
        let mut table = Descriptors::open(subject.door).doing("opening the table of descriptors", who)?;
        for fd in procfs::descriptors(subject.door).doing("listing the descriptors", who)? {
            let info = table.info(fd).doing("looking at a descriptor", who)?;
            raws.push(Raw { holder: Holder { subject: index, fd }, info });
        }
        tables.insert(index, table);
    }
    let mut classes = Vec::new();
    let mut groups: BTreeMap<Constant, Vec<usize>> = BTreeMap::new();
    for (index, raw) in raws.iter().enumerate() {
        groups.entry(raw.constant()).or_default().push(index);
    }
    let same = |a: usize, b: usize| compare_files(subjects, raws[a].holder, raws[b].holder);
    for group in groups.into_values() {
        for part in by_offset(group, &raws, subjects, &mut tables)? {
            classes.extend(unite(part, &same)?);
        }
    }
    classes.sort();
    let mut entries: Vec<Entry> = raws
        .iter()
        .map(|raw| Entry {
            holder: raw.holder,
            cloexec: raw.info.flags & libc::O_CLOEXEC as u32 != 0,
            file: 0,
        })
        .collect();
    let mut files = Vec::with_capacity(classes.len());
    let mut systems = BTreeMap::new();
    for (number, class) in classes.iter().enumerate() {
        let id = number as u64 + 1;
        let first = &raws[class[0]];
        let subject = subjects[first.holder.subject];
        let who = Some(&subject.who);
        let table = tables.get(&first.holder.subject);
        let table = table.ok_or_else(|| Error::Bug("a descriptor of no table".into()))?;
        let link = table.link(first.holder.fd).doing("looking at a descriptor", who)?;
        let asked = Asked::ask(subject, first, &mut systems).doing("looking at a descriptor", who)?;
        let mut locks = Vec::new();
        for index in class {
            entries[*index].file = id;
            locks.extend(raws[*index].info.locks.iter().map(|lock| (raws[*index].holder, lock.clone())));
        }
        files.push(Seen {
            id,
            holders: class.iter().map(|index| raws[*index].holder).collect(),
            reach: path::reach(&link, &asked.stat)?,
            link,
            stat: asked.stat,
            flags: first.info.flags as i32 & !(libc::O_CLOEXEC | O_ASYNC),
            is_asynchronous: first.info.flags as i32 & O_ASYNC != 0,
            pos: first.info.pos,
            locks,
            owner: asked.owner,
            signal: asked.signal,
            system: asked.system,
            terminal: false,
            told: first.info.other.clone(),
        });
    }
    Ok((entries, files))
}

/// Parts a large group of descriptors by their offsets, so that a thousand openings of one file cost no comparison.
///
/// The tree stands still, but an open file that a process outside has too may be moved by it while we look. So every part is
/// looked at a second time; where one has moved, the whole group is compared instead.
fn by_offset(
    group: Vec<usize>,
    raws: &[Raw],
    subjects: &[&Subject],
    tables: &mut BTreeMap<usize, Descriptors>,
) -> Result<Vec<Vec<usize>>> {
    if group.len() < MANY {
        return Ok(vec![group]);
    }
    let mut parts: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    for index in &group {
        parts.entry(raws[*index].info.pos).or_default().push(*index);
    }
    if parts.len() == 1 {
        return Ok(vec![group]);
    }
    for (pos, part) in &parts {
        let Holder { subject, fd } = raws[part[0]].holder;
        let Some(table) = tables.get_mut(&subject) else { return Ok(vec![group]) };
        let now = table.info(fd).doing("looking at a descriptor", Some(&subjects[subject].who))?;
        if now.pos != *pos {
            return Ok(vec![group]);
        }
    }
    Ok(parts.into_values().collect())
}

/// Sorts by an order that may fail to be told, and joins what is equal: each class in ascending order of its members.
/// A merge sort, so that no comparison is made twice and a failure ends it at once.
pub fn unite(
    members: Vec<usize>,
    compare: &impl Fn(usize, usize) -> Result<std::cmp::Ordering>,
) -> Result<Vec<Vec<usize>>> {
    let mut sorted: Vec<Vec<Vec<usize>>> = members.into_iter().map(|member| vec![vec![member]]).collect();
    while sorted.len() > 1 {
        let mut halves = std::mem::take(&mut sorted).into_iter();
        while let Some(left) = halves.next() {
            sorted.push(match halves.next() {
                Some(right) => merge(left, right, compare)?,
                None => left,
            });
        }
    }
    Ok(sorted.pop().unwrap_or_default())
}

fn merge(
    left: Vec<Vec<usize>>,
    right: Vec<Vec<usize>>,
    compare: &impl Fn(usize, usize) -> Result<std::cmp::Ordering>,
) -> Result<Vec<Vec<usize>>> {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    loop {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return Ok(merged),
            (Some(_), None) => Less,
            (None, Some(_)) => Greater,
            (Some(l), Some(r)) => compare(l[0], r[0])?,
        };
        merged.extend(match order {
            Less => left.next(),
            Greater => right.next(),
            Equal => left.next().zip(right.next()).map(|(mut class, more)| {
                class.extend(more);
                class
            }),
        });
    }
}
