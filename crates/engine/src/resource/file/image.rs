//! What an image says about files, and what a restart makes of it: read, check, open, move into place.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;

use bardo_image::Record;
use bardo_kernel::stub::{Arg, Batch, Batches};
use bardo_kernel::{Sysno, fcntl, rlimit};
use serde::de::DeserializeOwned;

use super::epoll::{self, Watched};
use super::external::{self, Connections};
use super::gone::GoneDirectory;
use super::inotify::{self, Watching};
use super::lock::{self, Held};
use super::owner::{self, Owned};
use super::pidfd::{self, OpenPidfd};
use super::pipe::SavedPipe;
use super::pool::{Making, Pool};
use super::proc::{self, OpenProc};
use super::table::{self, FD_MAX, Table, TableEntry};
use super::{Hindrance, KINDS, Rules, Saved};
use crate::error::{Doing, Error, Refusal, Result};
use crate::resource::memory::MappedFiles;
use crate::resource::task::clock::Ahead;
use crate::restart;

/// The files of an image.
#[derive(Debug, Default)]
pub struct FilesImage {
    files: BTreeMap<u64, Box<dyn Saved>>,
    /// Pipes, which several open files share.
    pub(super) pipes: BTreeMap<u64, SavedPipe>,
    /// Inodes whose content the image has, each with a record that needs it.
    pub(super) inodes: BTreeMap<u64, u64>,
    /// Open files that stand for a process, and can't be opened before it is there.
    pub(super) proc: BTreeMap<u64, OpenProc>,
    /// Removed directories, by their numbers.
    pub(super) gone: BTreeMap<u64, GoneDirectory>,
    /// Which of them a process works in.
    pub(super) cwds: BTreeMap<i32, u64>,
    /// What each process locks.
    pub(super) locks: BTreeMap<i32, Vec<Held>>,
    /// What each epoll watches.
    pub(super) epolls: BTreeMap<u64, Vec<Watched>>,
    /// What each inotify watches.
    pub(super) inotifies: BTreeMap<u64, Watching>,
    /// Those that processes open themselves.
    pub(super) pidfds: BTreeMap<u64, OpenPidfd>,
    /// Who is told of what by a signal.
    pub(super) owners: Vec<Owned>,
    tables: BTreeMap<i32, Vec<TableEntry>>,
}

/// Reads a record's body.
pub(super) fn read<T: DeserializeOwned>(record: &Record) -> Result<T> {
    record.read().map_err(Error::Image)
}

/// The error for a record that can be read, and says what can't be.
pub(super) fn wrong(record: &Record, why: String) -> Error {
    Error::Image(record.unexpected(why))
}

impl FilesImage {
    /// Takes a record, if it is of this family: whether it was.
    ///
    /// # Errors
    /// [`Error::Image`] where it says what can't be.
    pub fn take(&mut self, record: &Record) -> Result<bool> {
        if record.kind == table::NAME {
            self.take_table(record)?;
            return Ok(true);
        }
        match KINDS.iter().find(|kind| kind.records().contains(&record.kind.as_str())) {
            Some(kind) => kind.take(record, self).map(|()| true),
            None => Ok(false),
        }
    }

    /// Adds an open file under its record's id.
    ///
    /// # Errors
    /// [`Error::Image`] where the id is taken.
    pub(super) fn add(&mut self, record: &Record, file: Box<dyn Saved>) -> Result<()> {
        if self.has(record.id) {
            return Err(wrong(record, "another open file has the same id".into()));
        }
        self.files.insert(record.id, file);
        Ok(())
    }

    /// Whether the record of this open file came before.
    pub(super) fn has(&self, id: u64) -> bool {
        self.files.contains_key(&id) || self.pidfds.contains_key(&id)
    }

    /// Whether it is opened once, for all who have it.
    pub(super) fn is_opened_once(&self, id: u64) -> bool {
        self.files.contains_key(&id)
    }

    /// The open file that a process's descriptor leads to.
    pub(super) fn leads_to(&self, pid: i32, fd: i32) -> Option<u64> {
        let table = self.tables.get(&pid)?;
        let at = table.binary_search_by_key(&fd, |entry| entry.fd).ok()?;
        Some(table[at].file)
    }

    /// A process's first descriptor that leads to this open file.
    pub(super) fn number_of(&self, pid: i32, file: u64) -> Option<i32> {
        self.tables.get(&pid)?.iter().find(|entry| entry.file == file).map(|entry| entry.fd)
    }

    fn take_table(&mut self, record: &Record) -> Result<()> {
        let part: Table = read(record)?;
        if part.pid <= 0 {
            return Err(wrong(record, format!("the pid {}", part.pid)));
        }
        let table = self.tables.entry(part.pid).or_default();
        for entry in part.entries {
            let last = table.last().map_or(-1, |last| last.fd);
            if entry.fd <= last || entry.fd > FD_MAX {
                let why = format!("descriptor {} after {last}, where they ascend up to {FD_MAX}", entry.fd);
                return Err(wrong(record, why));
            }
            if !self.files.contains_key(&entry.file) && !self.pidfds.contains_key(&entry.file) {
                let why = format!(
                    "descriptor {} leads to the open file {}, of which no record came before",
                    entry.fd, entry.file
                );
                return Err(wrong(record, why));
            }
            table.push(entry);
        }
        Ok(())
    }

    /// The inodes that open files are of, and whose content the image must have.
    pub fn inodes(&self) -> impl Iterator<Item = u64> {
        self.inodes.keys().copied()
    }

    /// The highest descriptor of any process, or number that an epoll knows; −1 for none at all. What processes inherit must
    /// lie above it.
    pub fn highest_fd(&self) -> i32 {
        let open = self.tables.values().filter_map(|table| table.last()).map(|entry| entry.fd);
        open.chain(self.epolls.values().flatten().map(|entry| entry.fd)).max().unwrap_or(-1)
    }

    /// How many open files there are.
    pub fn open_files(&self) -> usize {
        self.files.len() + self.pidfds.len()
    }

    /// How many descriptors there are.
    pub fn descriptors(&self) -> usize {
        self.tables.values().map(Vec::len).sum()
    }

    /// Everything about files that keeps this host from running the image, found before anything is made: files that are
    /// missing, changed or not ours to open, outsides that nothing is connected to.
    pub fn check(&self, policy: restart::Files, outside: &[String]) -> Vec<Refusal> {
        let rules = Rules { files: policy, external: outside };
        let mut holders: BTreeMap<u64, (i32, i32)> = BTreeMap::new();
        for (pid, table) in &self.tables {
            for entry in table {
                holders.entry(entry.file).or_insert((*pid, entry.fd));
            }
        }
        let mut refusals = Vec::new();
        for (id, file) in &self.files {
            let held = holders.get(id);
            let of = held.map_or(String::new(), |(pid, fd)| format!(" (descriptor {fd} of process {pid})"));
            refusals.extend(file.check(&rules).into_iter().map(|hindrance| Refusal {
                who: None,
                fd: held.map(|(_, fd)| *fd),
                what: format!("{}{of}", hindrance.what),
                code: hindrance.code,
                why: hindrance.why,
                remedy: hindrance.remedy,
            }));
        }
        let bare = |hindrance: Hindrance| Refusal {
            who: None,
            fd: None,
            what: hindrance.what,
            code: hindrance.code,
            why: hindrance.why,
            remedy: hindrance.remedy,
        };
        refusals.extend(self.pipes.iter().filter_map(|(id, pipe)| pipe.check(*id)).map(bare));
        let names: Vec<&str> =
            self.files.values().flat_map(|file| file.names()).map(String::as_str).collect();
        refusals.extend(external::unknown(outside, &names).map(bare));
        let held = self.locks.iter().flat_map(|(pid, locks)| locks.iter().map(|lock| (*pid, lock)));
        let taken = lock::check(held).into_iter();
        refusals.extend(taken.map(|(fd, hindrance)| Refusal { fd: Some(fd), ..bare(hindrance) }));
        refusals.extend(epoll::check(&self.epolls).map(bare));
        refusals.extend(inotify::check(&self.inotifies, &rules).into_iter().map(bare));
        refusals.extend(self.check_limit());
        refusals
    }

    fn check_limit(&self) -> Option<Refusal> {
        let needed = self.numbers(self.highest_fd() + 1);
        let failed = rlimit::raise_files(needed).err()?;
        Some(Refusal {
            who: None,
            fd: None,
            what: format!(
                "{needed} descriptor numbers: up to {} in the tree, and all its open files",
                self.highest_fd()
            ),
            code: "file/limit",
            why: format!("a process here can't have as many: {failed}"),
            remedy: "raise the hard limit of open files (ulimit -Hn), or fs.nr_open".into(),
        })
    }

    /// One above the highest number that is needed while the tree is made.
    fn numbers(&self, base: i32) -> u64 {
        let roles: usize = self.files.values().map(|file| file.names().len()).sum();
        // A few more pass by while the others are opened.
        u64::from(base.max(0) as u32)
            + (self.files.len() + roles + 2 * self.pipes.len() + self.gone.len() + 3 * self.inodes.len() + 64)
                as u64
    }

    /// Opens everything once, at numbers from `base` on, which must be above [`FilesImage::highest_fd`]. All are
    /// close-on-exec; children inherit them. `inodes` has those whose content comes from the image. Our soft limit of open files is raised first, and children inherit that too.
    ///
    /// # Errors
    /// Where this host said no. Nothing is left open.
    pub fn open_all(&self, external: &[String], inodes: &MappedFiles, base: i32) -> Result<Pool> {
        if base <= self.highest_fd() {
            return Err(Error::Bug(format!("base {base}, with descriptors up to {}", self.highest_fd())));
        }
        rlimit::raise_files(self.numbers(base)).doing("raising the limit of open files", None)?;
        let mut making = Making::new(base, Connections::new(external), &self.pipes, &self.gone, inodes);
        for (id, file) in &self.files {
            let fd = file.open(*id, &mut making)?;
            making.put(*id, fd)?;
        }
        for number in self.cwds.values() {
            making.directory(*number)?;
        }
        let pool = making.finish();
        epoll::fill(&self.epolls, &self.files, &pool)?;
        Ok(pool)
    }

    /// Sets in motion what runs by itself. The last thing before the tree goes.
    ///
    /// # Errors
    /// Where this host said no.
    pub fn start(&self, pool: &Pool, ahead: Ahead) -> Result<()> {
        self.files.iter().try_for_each(|(id, file)| file.start(*id, pool, ahead))?;
        inotify::start(&self.inotifies, pool)
    }

    /// The steps by which a process, which inherited the pool, gets the table of the process that had this pid: batches of at
    /// most `room` bytes. A process without descriptors gets an empty table.
    pub fn steps(&self, pid: i32, pool: &Pool, room: usize) -> Vec<Batch> {
        let mut batches = Vec::new();
        if let Some(directory) = self.cwds.get(&pid).and_then(|number| pool.gone(*number)) {
            let mut batch = Batch::new();
            batch.call_for(Sysno::fchdir, [Arg::Value(directory.as_raw_fd() as u64)], 0);
            batches.push(batch);
        }
        batches.extend(table::steps(self.tables.get(&pid).map_or(&[], Vec::as_slice), pool, room));
        batches
    }

    /// Whether a process works in a directory that was removed: it is there once it has its table.
    pub fn has_cwd(&self, pid: i32) -> bool {
        self.cwds.contains_key(&pid)
    }

    /// The processes, as they see themselves, that open files stand for.
    pub fn processes(&self) -> impl Iterator<Item = i32> {
        self.proc.values().filter_map(|file| Some(file.process.as_ref()?.pid))
    }

    /// The steps by which a process, once its table is in place, opens what stands for a process. `here` knows what a process
    /// of the tree is called here.
    ///
    /// # Errors
    /// Where a process or a thread isn't found.
    pub fn proc_steps(&self, pid: i32, here: &dyn Fn(i32) -> Option<i32>) -> Result<Vec<Batch>> {
        proc::steps(self.tables.get(&pid).map_or(&[], Vec::as_slice), &self.proc, here)
    }

    /// The steps by which a process, once its table is in place, opens what only it can, and has its epolls watch that:
    /// batches of at most `room` bytes.
    pub fn late_steps(&self, pid: i32, room: usize) -> [Batches; 2] {
        let table = self.tables.get(&pid).map_or(&[][..], Vec::as_slice);
        [pidfd::steps(table, &self.pidfds, room), epoll::steps(pid, self, room)]
    }

    /// The steps by which a process, with its credentials, says who is told of its files: batches of at most `room` bytes.
    pub fn owner_steps(&self, pid: i32, room: usize) -> Batches {
        owner::steps(self.owners.iter().filter(|owned| owned.pid == pid), room)
    }

    /// The steps by which a process, once its table is in place, takes its locks again: batches of at most `room` bytes.
    pub fn lock_steps(&self, pid: i32, room: usize) -> Vec<Batch> {
        lock::steps(self.locks.get(&pid).map_or(&[], Vec::as_slice), room)
    }
}

/// A descriptor that lies at or above `base`: itself, or a duplicate there.
pub(super) fn lift(fd: std::os::fd::OwnedFd, base: i32) -> Result<std::os::fd::OwnedFd> {
    use std::os::fd::AsFd;
    if fd.as_raw_fd() >= base {
        return Ok(fd);
    }
    fcntl::duplicate(fd.as_fd(), base).doing(format!("moving a descriptor above {base}"), None)
}
