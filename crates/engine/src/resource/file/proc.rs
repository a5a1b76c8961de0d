//! Files and directories whose content the kernel makes up as it is read: of proc, sysfs and cgroups (man 5 proc, sysfs, 7 cgroups).
//!
//! **In the kernel**: an open file with an offset into a text that is made when it is read. Below `/proc/PID` it stands for one
//! process for ever, whoever has that number later; some files (`auxv`, `environ`, `maps`, `mem`) for the address space
//! that the process had when they were opened.
//!
//! **In the image**: `file/proc`: path, flags, offset; for a process's file which process of the tree, and the path below its
//! directory.
//!
//! **Taken how**: the link, stat and fdinfo of `/proc/PID/fd/N`.
//!
//! **Put back how**: files of the system by their path, as regular ones are. A process's file can't be opened before there is
//! that process: until then another file keeps its numbers. When all processes are there, the holder opens it itself and moves
//! it to them.
//!
//! **Not saved**: what the kernel has already made up beyond the offset: reading goes on at the offset in the text of then.
//! A change of which poll(2) would have told while the tree didn't run is told of files of sysfs and cgroups, and not of
//! `mounts`, `mountinfo` and `sys`. Refused: files of processes outside the tree, of zombies, or such that several processes
//! share; what is read away (`kmsg`); those open to write, but for a process's own and `/proc/sys`; all other file systems of this sort.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use bardo_image::{Blob, Record};
use bardo_kernel::stub::{Arg, Batch};
use bardo_kernel::{Failed, Sysno, fs, procfs};
use serde::{Deserialize, Serialize};

use super::path::{Place, REOPEN, Reach};
use super::pool::Making;
use super::scene::{Scene, Seen};
use super::survey::Collected;
use super::table::TableEntry;
use super::{FilesImage, Hindrance, Kind, Rules, Saved, image};
use crate::error::{Doing, Error, Result};
use crate::support::Support;

/// The kind.
#[derive(Debug, Clone, Copy)]
pub struct Proc;

/// The record's name.
pub const NAME: &str = "file/proc";

/// File systems whose files are made up by the kernel as they are read: reopened, such a file is another one.
/// Numbers of `<linux/magic.h>`.
const MADE_UP: &[(u64, &str)] = &[
    (0x9fa0, PROC),
    (0x6265_6572, "sysfs"),
    (0x6462_6720, "debugfs"),
    (0x7472_6163, "tracefs"),
    (0x7363_6673, "securityfs"),
    (0x6367_7270, "cgroup2"),
    (0x27_e0eb, "cgroup"),
    (0xcafe_4a11, "bpf"),
    (0x6265_6570, "configfs"),
    (0x6573_5543, "fusectl"),
    (0xf97c_ff8c, "selinuxfs"),
    (0x4249_4e4d, "binfmt_misc"),
    (0x6e73_6673, "nsfs"),
    (0x5049_4446, "pidfs"),
    (0x1980_0202, "mqueue"),
];
const PROC: &str = "proc";
/// Those whose files hold nothing between two reads.
const READ_AGAIN: &[&str] = &[PROC, "sysfs", "cgroup2", "cgroup"];

/// The record of such a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OpenProc {
    /// Where it is, and how it was open.
    #[serde(flatten)]
    pub place: Place,
    /// The offset (fdinfo, `pos`).
    pub offset: i64,
    /// The process that it stands for.
    #[serde(default)]
    pub process: Option<OfProcess>,
}

/// A file below the directory of a process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OfProcess {
    /// The process, as it sees itself.
    pub pid: i32,
    /// The thread of it, as it sees itself, for what is below `task/TID`.
    #[serde(default)]
    pub tid: Option<i32>,
    /// The path below that directory; none for the directory itself.
    pub path: Blob,
}

/// The file system's name, if it is one of those whose files are made up.
fn made_up(file: &Seen) -> Option<&'static str> {
    // All of them are without a disk, and have their type looked up.
    MADE_UP.iter().find(|(magic, _)| *magic == file.system).map(|(_, name)| *name)
}

/// The file system's name, if it is an open file of such a one.
fn system_of(file: &Seen) -> Option<&'static str> {
    let is = file.flags & libc::O_PATH == 0
        && matches!(file.stat.kind(), libc::S_IFREG | libc::S_IFDIR)
        && file.reach == Reach::Same;
    made_up(file).filter(|_| is)
}

/// Whether it stands for a process, and can't be opened before that is there.
pub(super) fn is_of_process(file: &Seen) -> bool {
    system_of(file) == Some(PROC) && of_process(&file.link).is_some()
}

/// Whose file it is, if it is one of a process's: the pid, and the path below `/proc/PID`.
fn of_process(path: &Path) -> Option<(i32, PathBuf)> {
    let below = path.strip_prefix("/proc").ok()?;
    let mut parts = below.components();
    let pid = parts.next()?.as_os_str().to_str()?.parse().ok()?;
    Some((pid, parts.as_path().to_owned()))
}

/// Which thread's file it is, if it is one's: the tid, and the path below its directory.
fn of_thread(path: &Path) -> Option<(i32, &Path)> {
    let mut parts = path.strip_prefix("task").ok()?.components();
    let tid = parts.next()?.as_os_str().to_str()?.parse().ok()?;
    Some((tid, parts.as_path()))
}

impl Kind for Proc {
    fn support(&self) -> Support {
        Support {
            kind: NAME,
            kept: "files of proc, sysfs and cgroups: path, flags, offset; those of the tree's own processes",
            not_kept: "the text as it was; those of processes outside the tree, shared ones of a process, ones open to write \
                       (but /proc/sys, and a process's own), /proc/kmsg, other file systems of this sort: refused",
            privilege: "",
            workload: "file/proc",
        }
    }

    fn records(&self) -> &'static [&'static str] {
        &[NAME]
    }

    fn claims(&self, file: &Seen, _: &Scene<'_>) -> bool {
        system_of(file).is_some()
    }

    fn collect(&self, file: &Seen, scene: &Scene<'_>, out: &mut Collected) -> Result<()> {
        if !scene.is_plain(file, out) {
            return Ok(());
        }
        let system = made_up(file).unwrap_or(PROC);
        let place = Place::of(&file.link, file.flags & REOPEN, &file.stat);
        let mut record = OpenProc { place, offset: file.pos, process: None };
        let refusal = match of_process(&file.link).filter(|_| system == PROC) {
            Some((pid, path)) => match process(pid, &path, file, scene)? {
                Ok(process) => {
                    record.process = Some(process);
                    None
                }
                Err(refusal) => Some(refusal),
            },
            None => obstacle(system, file),
        };
        match refusal {
            None => out.record(NAME, file.id, &record),
            Some((why, remedy)) => {
                let what = match file.stat.kind() {
                    libc::S_IFDIR => format!("{} (a directory of {system})", file.show()),
                    _ => format!("{} (a file of {system})", file.show()),
                };
                out.refuse(scene, file, NAME, what, why, remedy);
                Ok(())
            }
        }
    }

    fn take(&self, record: &Record, image: &mut FilesImage) -> Result<()> {
        let file: OpenProc = image::read(record)?;
        file.place.validate(REOPEN, None).map_err(|why| image::wrong(record, why))?;
        if !matches!(file.place.mode & libc::S_IFMT, libc::S_IFREG | libc::S_IFDIR) {
            return Err(image::wrong(record, format!("the mode {:#o}", file.place.mode)));
        }
        if file.offset < 0 {
            return Err(image::wrong(record, format!("the offset {}", file.offset)));
        }
        if let Some(process) = &file.process {
            let below = process.path();
            let plain = below.components().all(|part| matches!(part, Component::Normal(_)));
            if process.pid <= 0
                || process.tid.is_some_and(|tid| tid <= 0)
                || !plain
                || process.path.contains(&0)
                || process.path.len() > 255
            {
                return Err(image::wrong(record, format!("{below:?} of process {}", process.pid)));
            }
            image.proc.insert(record.id, file.clone());
        }
        image.add(record, Box::new(file))
    }
}

type Why = (&'static str, &'static str);
const REMEDY: &str = "close it, or checkpoint at another moment";

/// What stands in the way of opening a file of the system again.
fn obstacle(system: &str, file: &Seen) -> Option<Why> {
    let path = &file.link;
    if !READ_AGAIN.contains(&system) {
        return Some(("the kernel keeps something for whoever has it open, which it doesn't show", REMEDY));
    }
    if system == PROC && !path.starts_with("/proc") {
        return Some(("it is of another mount of proc than bardo's own", REMEDY));
    }
    if path.starts_with("/proc/kmsg") {
        return Some(("what is read from it is gone, so who reads it has it for himself", REMEDY));
    }
    if file.writes() && !path.starts_with("/proc/sys") {
        return Some(("what was written to it may last as long as it is open, and isn't shown", REMEDY));
    }
    None
}

/// The process of the tree that a file stands for.
fn process(
    pid: i32,
    path: &Path,
    file: &Seen,
    scene: &Scene<'_>,
) -> Result<std::result::Result<OfProcess, Why>> {
    let refuse = |why, remedy| Ok(Err((why, remedy)));
    let Some(index) = scene.subjects.iter().position(|subject| subject.pid() == pid) else {
        return refuse(
            "it stands for a process that isn't part of the tree, and may be gone at the restart",
            REMEDY,
        );
    };
    let subject = scene.subjects[index];
    if subject.zombie || subject.status.is_dead() {
        return refuse("it stands for a process that has ended", REMEDY);
    }
    let holders: BTreeSet<usize> = file.holders.iter().map(|holder| holder.subject).collect();
    if holders.len() > 1 {
        return refuse(
            "several processes share it, and each could only open it for itself",
            "a later version of bardo will save it; until then close it, or checkpoint at another moment",
        );
    }
    if !holders.contains(&index) && path.starts_with("fdinfo") {
        return refuse("the other process's descriptors may not be in place when it is opened", REMEDY);
    }
    let mut tid = None;
    let mut below = path;
    if let Some((thread, rest)) = of_thread(path) {
        let status = procfs::status::read_thread(pid, thread);
        let status = status.doing(format!("looking at thread {thread}"), Some(&subject.who))?;
        tid = status.ns_pid.last().copied();
        below = rest;
    }
    let path = Blob(below.as_os_str().as_bytes().to_vec());
    Ok(Ok(OfProcess { pid: subject.own_pid, tid, path }))
}

impl OfProcess {
    fn path(&self) -> PathBuf {
        PathBuf::from(OsStr::from_bytes(&self.path))
    }

    /// The whole path here, where the process is called `pid`.
    fn find(&self, pid: i32) -> bardo_kernel::Result<PathBuf> {
        let mut directory = procfs::path(pid, "");
        if let Some(tid) = self.tid {
            // In a pid namespace of its own a thread has another number than here.
            let is_it = |here: &i32| {
                procfs::status::read_thread(pid, *here).is_ok_and(|s| s.ns_pid.last() == Some(&tid))
            };
            let here = procfs::threads(pid)?.into_iter().find(is_it);
            let none = || Failed::unexpected(format!("process {pid} has no thread {tid}"));
            directory = procfs::thread_path(pid, here.ok_or_else(none)?, "");
        }
        Ok(directory.join(self.path()))
    }
}

/// The steps by which a process opens the files that stand for a process, and puts them where its table has a stand-in: one
/// batch for each. All that its table says is open, and nothing else. `here` knows what a process of the tree is called here.
pub(super) fn steps(
    entries: &[TableEntry],
    files: &BTreeMap<u64, OpenProc>,
    here: &dyn Fn(i32) -> Option<i32>,
) -> Result<Vec<Batch>> {
    if files.is_empty() {
        return Ok(Vec::new());
    }
    // open(2) gives the lowest number that is free.
    let free = (0..).zip(entries).find(|(number, entry)| *number != entry.fd);
    let free = free.map_or(entries.len() as i32, |(number, _)| number);
    let wanted: BTreeSet<u64> = entries.iter().map(|entry| entry.file).collect();
    let mut batches = Vec::new();
    for file in wanted.iter().filter_map(|id| files.get(id).map(|file| (*id, file))) {
        let (id, file) = file;
        let Some(process) = &file.process else { continue };
        let pid = here(process.pid);
        let pid =
            pid.ok_or_else(|| Error::Bug(format!("a file of process {}, which isn't there", process.pid)))?;
        let path = process.find(pid).doing(format!("looking for {}", file.what()), None)?;
        let mut batch = Batch::new();
        let path = batch.text(path.as_os_str().as_bytes());
        let flags = file.place.flags | libc::O_NOCTTY | libc::O_NONBLOCK;
        let at = Arg::Value(libc::AT_FDCWD as u64);
        batch.call_for(Sysno::openat, [at, path, Arg::Value(flags as u64), Arg::Value(0)], free as u64);
        let fd = Arg::Value(free as u64);
        if file.place.flags & libc::O_NONBLOCK == 0 {
            let flags = Arg::Value(file.place.flags as u64);
            batch.call(Sysno::fcntl, [fd, Arg::Value(libc::F_SETFL as u64), flags]);
        }
        if file.offset != 0 {
            let offset = file.offset as u64;
            batch.call_for(Sysno::lseek, [fd, Arg::Value(offset), Arg::Value(libc::SEEK_SET as u64)], offset);
        }
        for entry in entries.iter().filter(|entry| entry.file == id) {
            let cloexec = if entry.cloexec { libc::O_CLOEXEC } else { 0 };
            let to = entry.fd as u64;
            batch.call_for(Sysno::dup3, [fd, Arg::Value(to), Arg::Value(cloexec as u64)], to);
        }
        batch.call_for(Sysno::close, [fd], 0);
        batches.push(batch);
    }
    Ok(batches)
}

impl Saved for OpenProc {
    fn what(&self) -> String {
        format!("file {}", self.place.show())
    }

    fn check(&self, rules: &Rules<'_>) -> Vec<Hindrance> {
        match self.process {
            None => self.place.check("file", false, rules),
            Some(_) => Vec::new(),
        }
    }

    fn open(&self, _: u64, _: &mut Making<'_>) -> Result<OwnedFd> {
        match self.process {
            None => self.place.open_at(self.offset),
            // Keeps its numbers until its process is there.
            Some(_) => fs::open(Path::new("/"), libc::O_PATH, 0).doing("opening a stand-in", None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processs_file_is_told_from_the_systems() {
        let of =
            |path: &str| of_process(Path::new(path)).map(|(pid, path)| (pid, path.display().to_string()));
        assert_eq!(of("/proc/12/task/13/stat"), Some((12, "task/13/stat".into())));
        assert_eq!(of("/proc/12"), Some((12, String::new())));
        assert_eq!(of("/proc/sys/kernel/hostname"), None);
        assert_eq!(of("/proc"), None);
        assert_eq!(of("/sys/12"), None);
    }
}
