//! Pipes, and FIFOs, which are pipes with a name (man 7 pipe, fifo).
//!
//! **In the kernel**: a ring of buffers, each at most a page; an inode on pipefs; open files that are ends of it: one for
//! reading and one for writing from pipe(2), and more by open(2) of `/proc/PID/fd/N`, even for both directions. A read
//! at an empty pipe ends once no writer is left anywhere, a write fails once no reader is. In packet mode (O_DIRECT on the
//! writing end) a buffer is one message. A buffer that is partly filled may take more of the next write, if that fits.
//! A FIFO's ring is there from the first open(2) to the last close(2); all openings of its name share it, to read, to write, or
//! both (O_RDWR). Its reader isn't told of a hang-up (POLLHUP) before there was a writer.
//!
//! **In the image**: `file/pipe`: capacity, and the length of each buffer, negative for a packet; `file/pipe-data`, any number:
//! the bytes, in order; `file/pipe-end`, one for each open file: which pipe, which flags. A FIFO has its path too.
//!
//! **Taken how**: tee(2) from a duplicate of a reading end into a pipe of ours: the tree's stays as it is. Ours is then taken
//! apart buffer by buffer, by splice(2) into one that has room for a single buffer. Whether somebody outside the tree has
//! an end too is found by poll(2) on ours, and by looking through `/proc` for those that we may see. One side of a FIFO without the
//! other is as good as both: who opens it later is welcome.
//!
//! **Put back how**: pipe2(2), F_SETPIPE_SZ, the buffers written so that each is one again; further ends opened by
//! `/proc/self/fd/N`; ends that nobody had are closed when all are made, which leaves a pipe half-closed if it was.
//! A FIFO is opened by its path, which nobody else may have open then; one that lost its name becomes a pipe, as nobody can open it any more.
//!
//! **Not saved**: a FIFO's content that has no reader left is refused (`pipe/unread`): looking would be reading. Inode number, owner, times. What is in a pipe without readers: nobody can read it any more. A pipe whose
//! other end is outside is refused, or belongs to the outside as a whole ([`super::external`]), with what is in it. An end
//! held by a process that we may not look at, or on its way in a socket, isn't noticed where the tree has both itself.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use bardo_image::{Blob, Record};
use bardo_kernel::{Failed, fcntl, fs, pipe, poll};
use serde::{Deserialize, Serialize};

use super::outside;
use super::path::{O_LARGEFILE, Place, REOPEN, Reach};
use super::pool::Making;
use super::scene::{Scene, Seen};
use super::survey::Collected;
use super::{FilesImage, Hindrance, Kind, Rules, Saved, image};
use crate::error::{Doing, Error, Result, Who};
use crate::support::Support;

/// The kind.
#[derive(Debug, Clone, Copy)]
pub struct Pipe;

/// The name of the pipe's own record.
pub const NAME: &str = "file/pipe";
/// The name of the record of its content.
pub const DATA: &str = "file/pipe-data";
/// The name of the record of an end.
pub const END: &str = "file/pipe-end";

/// The most that one record of content holds.
const PART: usize = 1 << 20;
/// The largest capacity that a record may ask for; F_SETPIPE_SZ allows no more.
const CAPACITY_MAX: u64 = 1 << 31;
const PAGE: usize = 4096;
/// The flags of an end.
const FLAGS: i32 = libc::O_ACCMODE | libc::O_NONBLOCK | libc::O_DIRECT | O_LARGEFILE;

/// The record of a pipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipeRecord {
    /// How much it holds at most (F_GETPIPE_SZ).
    pub capacity: u64,
    /// How many bytes are in each of its buffers, the first to be read first; negative for a packet.
    #[serde(default)]
    pub buffers: Vec<i64>,
    /// The FIFO that it is.
    #[serde(default)]
    pub fifo: Option<Place>,
    /// Whether it had no writer since its readers opened it.
    #[serde(default)]
    pub waiting: bool,
}

/// The record of a part of what is in a pipe.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PipeData {
    /// The bytes.
    pub data: Blob,
}

/// The record of an end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PipeEnd {
    /// The id of the pipe's record.
    pub pipe: u64,
    /// Access mode and status flags (fdinfo, `flags`).
    pub flags: i32,
}

/// Who is at the two ends of a pipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The tree has both.
    Whole,
    /// Nobody writes to it any more.
    NoWriter,
    /// Nobody reads from it any more.
    NoReader,
    /// The tree has both, and somebody outside has one too.
    Leaks(Who, i32),
    /// The other end is outside the tree.
    Outside,
}

/// A pipe of the tree.
#[derive(Debug)]
pub struct PipeSeen {
    id: u64,
    /// Its ends, by the open files' positions in the scene.
    ends: Vec<usize>,
    standing: Standing,
    stdio: bool,
    vouched: bool,
    waiting: bool,
}

/// The pipes of a tree, by device and inode.
#[derive(Debug, Default)]
pub struct Pipes(BTreeMap<(u64, u64), PipeSeen>);

impl Pipes {
    /// Finds the pipes among the open files, and who is at their ends.
    ///
    /// # Errors
    /// Where that can't be asked.
    pub fn look(scene: &Scene<'_>) -> Result<Pipes> {
        let mut all: BTreeMap<(u64, u64), PipeSeen> = BTreeMap::new();
        for (at, file) in scene.files.iter().enumerate() {
            if file.stat.kind() != libc::S_IFIFO || file.flags & libc::O_PATH != 0 {
                continue;
            }
            let id = all.len() as u64 + 1;
            let fresh = PipeSeen {
                id,
                ends: Vec::new(),
                standing: Standing::Whole,
                stdio: false,
                vouched: false,
                waiting: false,
            };
            let pipe = all.entry((file.stat.dev, file.stat.ino)).or_insert(fresh);
            pipe.ends.push(at);
            pipe.stdio |= file.is_stdio();
            pipe.vouched |= scene.is_vouched(file);
        }
        for pipe in all.values_mut() {
            pipe.standing = standing(scene, &pipe.ends)?;
            let first = &scene.files[pipe.ends[0]];
            if pipe.standing == Standing::Outside && !first.is_pipe() && first.reads() {
                // Nobody tells a reader of a FIFO that there is no writer, before there was one.
                (pipe.standing, pipe.waiting) = (Standing::NoWriter, true);
            }
        }
        // Without a writer, what is left belongs to all readers; without a reader, nothing is left to anybody.
        let suspects: BTreeSet<(u64, u64)> = all
            .iter()
            .filter(|(_, pipe)| {
                // A FIFO can get another reader at any time.
                let named = !scene.files[pipe.ends[0]].is_pipe() && pipe.standing == Standing::NoReader;
                matches!(pipe.standing, Standing::Whole | Standing::NoWriter) || named
            })
            .map(|(key, _)| *key)
            .collect();
        if !suspects.is_empty() {
            let outside = scene.outside()?;
            for (key, pipe) in &mut all {
                let file = &scene.files[pipe.ends[0]];
                let holder = || match file.is_pipe() {
                    true => outside.with_link(file.link.as_os_str().as_bytes()),
                    false => outside.with_inode(*key),
                };
                if suspects.contains(key)
                    && let Some(holder) = holder()
                {
                    let whole = pipe.standing == Standing::Whole;
                    pipe.standing =
                        if whole { Standing::Leaks(holder.who(), holder.fd) } else { Standing::Outside };
                }
            }
        }
        Ok(Pipes(all))
    }

    fn of(&self, file: &Seen) -> Option<&PipeSeen> {
        self.0.get(&(file.stat.dev, file.stat.ino))
    }

    /// Whether it is an end of a pipe that belongs to the outside: its other end is there, and it is somebody's stdio, or
    /// vouched for.
    pub fn is_external(&self, file: &Seen) -> bool {
        self.of(file).is_some_and(|pipe| pipe.standing == Standing::Outside && (pipe.stdio || pipe.vouched))
    }
}

fn standing(scene: &Scene<'_>, ends: &[usize]) -> Result<Standing> {
    let reader = ends.iter().map(|at| &scene.files[*at]).find(|file| file.reads());
    let writer = ends.iter().map(|at| &scene.files[*at]).find(|file| file.writes());
    let asked = |file: &Seen| {
        let fd = scene.duplicate(file)?;
        poll::now(fd.as_fd(), 0).doing(format!("polling {}", file.show()), Some(scene.who(file)))
    };
    Ok(match (reader, writer) {
        (Some(_), Some(_)) => Standing::Whole,
        (Some(reader), None) if asked(reader)? & libc::POLLHUP != 0 => Standing::NoWriter,
        (None, Some(writer)) if asked(writer)? & libc::POLLERR != 0 => Standing::NoReader,
        _ => Standing::Outside,
    })
}

impl Kind for Pipe {
    fn support(&self) -> Support {
        Support {
            kind: NAME,
            kept: "pipes and FIFOs: all ends, their flags, capacity, data in order, packets, half-closed ones",
            not_kept: "what is in a pipe of the outside; one whose other end is outside and isn't stdio: refused without \
                       --external; what is in a FIFO without a reader: refused",
            privilege: "CAP_SYS_RESOURCE for pipes larger than /proc/sys/fs/pipe-max-size",
            workload: "file/pipe",
        }
    }

    fn records(&self) -> &'static [&'static str] {
        &[NAME, DATA, END]
    }

    fn claims(&self, file: &Seen, scene: &Scene<'_>) -> bool {
        let reachable = match file.reach {
            Reach::Same => true,
            Reach::Deleted => file.stat.nlink == 0,
            Reach::Replaced | Reach::Unreachable => false,
        };
        file.stat.kind() == libc::S_IFIFO && (file.is_pipe() || reachable) && scene.pipes.of(file).is_some()
    }

    fn collect(&self, file: &Seen, scene: &Scene<'_>, out: &mut Collected) -> Result<()> {
        let Some(pipe) = scene.pipes.of(file) else { return Ok(()) };
        let plain = scene.is_plain(file, out)?;
        let first = scene.files[pipe.ends[0]].id == file.id;
        let allow = format!("--external '{}'", file.show());
        match &pipe.standing {
            Standing::Outside => {
                let (end, why) = if file.writes() {
                    ("writing", "who reads from it isn't part of the tree, and would see it end")
                } else {
                    ("reading", "who writes to it isn't part of the tree, and would meet nobody")
                };
                let remedy =
                    format!("{allow}   if it is to be connected anew at the restart, or checkpoint both");
                out.refuse(scene, file, "pipe/outside", format!("{} ({end} end)", file.show()), why, &remedy);
                return Ok(());
            }
            Standing::Leaks(who, fd) if !pipe.vouched => {
                if first {
                    out.refuse(
                        scene,
                        file,
                        "pipe/leak",
                        format!(
                            "{}, which {who} outside the tree has open too, as descriptor {fd}",
                            file.show()
                        ),
                        "a copy of the pipe would be made, and the other process would keep the old one",
                        &format!(
                            "{allow}   if the other process doesn't use it, or checkpoint both together"
                        ),
                    );
                }
                return Ok(());
            }
            _ => {}
        }
        if !plain {
            return Ok(());
        }
        if first && !collect_pipe(pipe, file, scene, out)? {
            return Ok(());
        }
        let known = if file.is_pipe() { FLAGS } else { FLAGS | REOPEN };
        out.record(END, file.id, &PipeEnd { pipe: pipe.id, flags: file.flags & known })
    }

    fn take(&self, record: &Record, image: &mut FilesImage) -> Result<()> {
        match record.kind.as_str() {
            NAME => take_pipe(record, image),
            DATA => take_data(record, image),
            _ => {
                let end: PipeEnd = image::read(record)?;
                if !image.pipes.contains_key(&end.pipe) {
                    let why = format!("it is an end of pipe {}, of which no record came before", end.pipe);
                    return Err(image::wrong(record, why));
                }
                if end.flags & !(FLAGS | REOPEN) != 0 || end.flags & libc::O_ACCMODE == libc::O_ACCMODE {
                    return Err(image::wrong(record, format!("the flags {:#o}", end.flags)));
                }
                image.add(record, Box::new(end))
            }
        }
    }
}

/// Adds the records of the pipe itself: whether it could.
fn collect_pipe(pipe: &PipeSeen, file: &Seen, scene: &Scene<'_>, out: &mut Collected) -> Result<bool> {
    let doing = || format!("looking into {}", file.show());
    let who = Some(scene.who(file));
    let reader = pipe.ends.iter().map(|at| &scene.files[*at]).find(|end| end.reads());
    let fd = scene.duplicate(reader.unwrap_or(file))?;
    let capacity = pipe::capacity(fd.as_fd()).doing(doing(), who)?;
    let named = !file.is_pipe() && file.stat.nlink > 0;
    let fifo = named.then(|| Place::of(&file.link, file.flags & REOPEN, &file.stat));
    let waiting = named && pipe.waiting;
    let mut record = PipeRecord { capacity: capacity as u64, buffers: Vec::new(), fifo, waiting };
    if named && reader.is_none() {
        let left = pipe::readable(fd.as_fd()).doing(doing(), who)?;
        if left > 0 {
            let what = format!("FIFO {}, with {left} bytes that nobody reads", file.show());
            let why = "its next reader would get them, and they can't be seen but by being that reader";
            out.refuse(scene, file, "pipe/unread", what, why, "checkpoint once a reader has it open");
            return Ok(false);
        }
    }
    let mut data = Vec::new();
    if reader.is_some() && pipe::readable(fd.as_fd()).doing(doing(), who)? > 0 {
        match copy(&fd, capacity).doing(doing(), who)? {
            Some((buffers, bytes)) => (record.buffers, data) = (buffers, bytes),
            None => {
                out.refuse(
                    scene,
                    file,
                    "pipe/size",
                    format!("{} of {capacity} bytes", file.show()),
                    "a pipe as large as this one is needed to copy it, and we may not make one",
                    "grant CAP_SYS_RESOURCE, or raise fs.pipe-max-size and fs.pipe-user-pages-soft",
                );
                return Ok(false);
            }
        }
    }
    out.record(NAME, pipe.id, &record)?;
    for part in data.chunks(PART) {
        out.record(DATA, pipe.id, &PipeData { data: part.into() })?;
    }
    Ok(true)
}

/// The buffers of a pipe and what is in them, which stays there. None where we can't have a pipe as large.
fn copy(from: &OwnedFd, capacity: usize) -> bardo_kernel::Result<Option<(Vec<i64>, Vec<u8>)>> {
    let total = pipe::readable(from.as_fd())?;
    let all = pipe::make(libc::O_NONBLOCK)?;
    if capacity > pipe::capacity(all.write.as_fd())? {
        match pipe::set_capacity(all.write.as_fd(), capacity) {
            // What is in it may fit all the same.
            Err(e) if e.is(libc::EPERM) => {}
            other => drop(other?),
        }
    }
    // tee begins at the front each time, so it must take all at once.
    if pipe::tee(from.as_fd(), all.write.as_fd(), total, libc::SPLICE_F_NONBLOCK)? != total {
        return Ok(None);
    }
    // Room for two buffers, one of which a byte of our own takes.
    let one = pipe::make(libc::O_NONBLOCK)?;
    pipe::set_capacity(one.write.as_fd(), 2 * PAGE)?;
    let (mut buffers, mut data) = (Vec::new(), Vec::with_capacity(total));
    let mut bytes = vec![0; PAGE + 1];
    fs::write(one.write.as_fd(), b"|")?;
    while data.len() < total {
        let n =
            pipe::splice(all.read.as_fd(), None, one.write.as_fd(), None, total, libc::SPLICE_F_NONBLOCK)?;
        // [own byte][buffer] becomes [buffer][own byte]. A read goes on into the next buffer, unless this one is a
        // packet.
        fs::read(one.read.as_fd(), &mut bytes[..1])?;
        fs::write(one.write.as_fd(), b"|")?;
        bytes.resize(bytes.len().max(n + 1), 0);
        let got = fs::read(one.read.as_fd(), &mut bytes[..n + 1])?;
        let packet = got == n;
        if !packet {
            fs::write(one.write.as_fd(), b"|")?;
        }
        if n == 0 || got < n {
            return Err(bardo_kernel::Failed::unexpected(format!(
                "a buffer of {n} bytes, of which {got} can be read"
            )));
        }
        data.extend_from_slice(&bytes[..n]);
        buffers.push(if packet { -(n as i64) } else { n as i64 });
    }
    Ok(Some((buffers, data)))
}

/// A pipe as an image has it.
#[derive(Debug)]
pub struct SavedPipe {
    record: PipeRecord,
    data: Vec<u8>,
    /// How many bytes all buffers have.
    expected: u64,
}

impl SavedPipe {
    /// What keeps it from being made here.
    pub(super) fn check(&self, id: u64) -> Option<Hindrance> {
        let what = format!("pipe {id} with a capacity of {} bytes", self.record.capacity);
        if self.data.len() as u64 != self.expected {
            return Some(Hindrance {
                code: "pipe/incomplete",
                what,
                why: format!(
                    "the image has {} bytes of what was in it, of {}",
                    self.data.len(),
                    self.expected
                ),
                remedy: "the image is unusable: take another".into(),
            });
        }
        if let Some(hindrance) = self.record.fifo.as_ref().and_then(check_fifo) {
            return Some(hindrance);
        }
        let made = pipe::make(0).and_then(|made| set_capacity(&made, self.record.capacity));
        made.err().map(|failed| Hindrance {
            code: "pipe/size",
            what,
            why: format!("it can't be made here: {failed}"),
            remedy: "grant CAP_SYS_RESOURCE, or raise fs.pipe-max-size and fs.pipe-user-pages-soft".into(),
        })
    }
}

/// What keeps a FIFO from being opened again. It isn't opened: that would let others go on who wait for it.
fn check_fifo(place: &Place) -> Option<Hindrance> {
    let now = match place.find("FIFO") {
        Ok(now) => now,
        Err(hindrance) => return Some(hindrance),
    };
    let holder = match outside::who_has((now.dev, now.ino)) {
        Ok(holder) => holder?,
        Err(failed) => {
            return Some(Hindrance {
                code: "pipe/taken",
                what: format!("FIFO {}", place.show()),
                why: format!("nobody can tell whether a process here has it open: {failed}"),
                remedy: "try again".into(),
            });
        }
    };
    Some(Hindrance {
        code: "pipe/taken",
        what: format!("FIFO {}", place.show()),
        why: format!(
            "{} has it open, as descriptor {}, and would get what isn't for it",
            holder.who(),
            holder.fd
        ),
        remedy: "end that process (is it the original, still running?), or have it close the FIFO".into(),
    })
}

fn set_capacity(pipe: &pipe::Pipe, capacity: u64) -> bardo_kernel::Result<()> {
    if pipe::capacity(pipe.write.as_fd())? as u64 == capacity {
        return Ok(());
    }
    pipe::set_capacity(pipe.write.as_fd(), usize::try_from(capacity).unwrap_or(usize::MAX)).map(drop)
}

fn take_pipe(record: &Record, image: &mut FilesImage) -> Result<()> {
    let pipe: PipeRecord = image::read(record)?;
    if pipe.capacity == 0 || pipe.capacity > CAPACITY_MAX {
        return Err(image::wrong(record, format!("a capacity of {}", pipe.capacity)));
    }
    let mut expected: u64 = 0;
    for buffer in &pipe.buffers {
        expected = expected.saturating_add(buffer.unsigned_abs());
        if *buffer == 0 || *buffer < -(PAGE as i64) || expected > pipe.capacity {
            return Err(image::wrong(
                record,
                format!("a buffer of {buffer} bytes, {expected} with those before"),
            ));
        }
    }
    if let Some(fifo) = &pipe.fifo {
        fifo.validate(REOPEN, Some(libc::S_IFIFO)).map_err(|why| image::wrong(record, why))?;
    }
    if pipe.waiting && (pipe.fifo.is_none() || !pipe.buffers.is_empty()) {
        return Err(image::wrong(record, "content without a writer".into()));
    }
    if image.pipes.contains_key(&record.id) {
        return Err(image::wrong(record, "another pipe has the same id".into()));
    }
    image.pipes.insert(record.id, SavedPipe { record: pipe, data: Vec::new(), expected });
    Ok(())
}

fn take_data(record: &Record, image: &mut FilesImage) -> Result<()> {
    let part: PipeData = image::read(record)?;
    let Some(pipe) = image.pipes.get_mut(&record.id) else {
        return Err(image::wrong(record, "content of a pipe of which no record came before".into()));
    };
    let all = (pipe.data.len() + part.data.len()) as u64;
    if all > pipe.expected {
        let why = format!("{all} bytes in pipe {}, whose buffers have {}", record.id, pipe.expected);
        return Err(image::wrong(record, why));
    }
    pipe.data.extend_from_slice(&part.data);
    Ok(())
}

/// A pipe that is made anew, with both ends that pipe(2) gave.
#[derive(Debug)]
pub struct OpenPipe {
    ends: pipe::Pipe,
    fifo: bool,
    read_given: bool,
    write_given: bool,
}

impl OpenPipe {
    pub(super) fn make(saved: &SavedPipe) -> Result<OpenPipe> {
        if saved.data.len() as u64 != saved.expected {
            let what = format!("a pipe with {} bytes of {}", saved.data.len(), saved.expected);
            return Err(Error::Bug(format!("{what}, which the check should have found")));
        }
        let ends = fill(saved).doing("making a pipe and filling it", None)?;
        let fifo = saved.record.fifo.is_some();
        Ok(OpenPipe { ends, fifo, read_given: fifo, write_given: fifo })
    }

    /// An open file with these flags. The first that can be gets the end that pipe(2) gave; others open it anew, which
    /// shows in their flags: open(2) sets O_LARGEFILE.
    fn end(&mut self, flags: i32) -> bardo_kernel::Result<OwnedFd> {
        let reopened = flags & O_LARGEFILE != 0;
        let (end, given) = match flags & libc::O_ACCMODE {
            libc::O_RDONLY => (&self.ends.read, &mut self.read_given),
            libc::O_WRONLY => (&self.ends.write, &mut self.write_given),
            _ => (&self.ends.read, &mut true),
        };
        let fd = if reopened || *given {
            let path = format!("/proc/self/fd/{}", end.as_raw_fd());
            // The path is followed, though the FIFO's own may not have been; packets are fcntl(2)'s.
            let not = libc::O_NOFOLLOW | libc::O_DIRECTORY | libc::O_DIRECT;
            let kept = if self.fifo { flags & REOPEN & !not } else { 0 };
            fs::open(path.as_ref(), flags & libc::O_ACCMODE | kept | libc::O_NONBLOCK, 0)?
        } else {
            *given = true;
            fcntl::duplicate(end.as_fd(), 0)?
        };
        let status =
            libc::O_NONBLOCK | libc::O_DIRECT | if self.fifo { libc::O_APPEND | libc::O_NOATIME } else { 0 };
        fcntl::set_status_flags(fd.as_fd(), flags & status)?;
        Ok(fd)
    }
}

/// Opens a FIFO as both of its ends; one whose readers wait for the first writer, as a reader only.
fn open_fifo(place: &Place, waiting: bool) -> bardo_kernel::Result<pipe::Pipe> {
    let mode = if waiting { libc::O_RDONLY } else { libc::O_RDWR };
    let read = fs::open(&place.path(), mode | libc::O_NONBLOCK | libc::O_NOCTTY, 0)?;
    let unfit = |why: &str| Failed::unexpected(format!("open({:?}): {why}", place.path()));
    if fs::fstat(read.as_fd())?.kind() != libc::S_IFIFO {
        return Err(unfit("it isn't a FIFO now"));
    }
    if pipe::readable(read.as_fd())? > 0 {
        return Err(unfit("there is something in it already: somebody has it open"));
    }
    let write = fcntl::duplicate(read.as_fd(), 0)?;
    Ok(pipe::Pipe { read, write })
}

/// Makes a pipe with these buffers.
fn fill(saved: &SavedPipe) -> bardo_kernel::Result<pipe::Pipe> {
    let SavedPipe { record, data, .. } = saved;
    let made = match &record.fifo {
        None => pipe::make(libc::O_NONBLOCK)?,
        Some(place) => open_fifo(place, record.waiting)?,
    };
    set_capacity(&made, record.capacity)?;
    let mut helper = None;
    let mut packets = false;
    let mut rest = &data[..];
    for (at, buffer) in record.buffers.iter().enumerate() {
        let len = usize::try_from(buffer.unsigned_abs()).unwrap_or(usize::MAX).min(rest.len());
        let (bytes, after) = rest.split_at(len);
        rest = after;
        let packet = *buffer < 0;
        if packet != packets {
            fcntl::set_status_flags(
                made.write.as_fd(),
                libc::O_NONBLOCK | if packet { libc::O_DIRECT } else { 0 },
            )?;
            packets = packet;
        }
        let next = record.buffers.get(at + 1).map_or(0, |next| next.unsigned_abs()) as usize;
        // The kernel adds the odd part of a write to the last buffer where that has room (pipe_write).
        let (filled, odd) = (len % PAGE, next % PAGE);
        if !packet && filled != 0 && odd != 0 && filled + odd <= PAGE {
            // A buffer that came by tee(2) takes nothing more.
            let helper = match &helper {
                Some(helper) => helper,
                None => helper.insert(pipe::make(libc::O_NONBLOCK)?),
            };
            put(helper, bytes)?;
            let copied = pipe::tee(helper.read.as_fd(), made.write.as_fd(), len, libc::SPLICE_F_NONBLOCK)?;
            let drained = fs::read(helper.read.as_fd(), &mut vec![0; len])?;
            if copied != len || drained != len {
                return Err(bardo_kernel::Failed::unexpected(format!(
                    "tee of {len} bytes: {copied}, {drained}"
                )));
            }
        } else {
            put(&made, bytes)?;
        }
    }
    for end in [&made.read, &made.write] {
        fcntl::set_status_flags(end.as_fd(), 0)?;
    }
    Ok(made)
}

fn put(pipe: &pipe::Pipe, bytes: &[u8]) -> bardo_kernel::Result<()> {
    let written = fs::write(pipe.write.as_fd(), bytes)?;
    if written == bytes.len() {
        return Ok(());
    }
    Err(bardo_kernel::Failed::unexpected(format!("only {written} of {} bytes found room", bytes.len())))
}

/// Another end of the same pipe.
fn reopen(fd: BorrowedFd<'_>, mode: i32) -> bardo_kernel::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    fs::open(path.as_ref(), mode | libc::O_NONBLOCK | libc::O_CLOEXEC, 0)
}

impl Saved for PipeEnd {
    fn what(&self) -> String {
        format!("end of pipe {}", self.pipe)
    }

    fn check(&self, _: &Rules<'_>) -> Vec<Hindrance> {
        // The pipe itself is checked once: SavedPipe::check.
        Vec::new()
    }

    fn open(&self, _: u64, making: &mut Making<'_>) -> Result<OwnedFd> {
        making.pipe(self.pipe)?.end(self.flags).doing(format!("opening an end of pipe {}", self.pipe), None)
    }

    /// A reading end that isn't ready is that of an empty pipe.
    fn rouse(&self, fd: BorrowedFd<'_>) -> bardo_kernel::Result<bool> {
        if self.flags & libc::O_ACCMODE != libc::O_RDONLY {
            return Ok(false);
        }
        fs::write(reopen(fd, libc::O_WRONLY)?.as_fd(), b"x")?;
        Ok(true)
    }

    fn calm(&self, fd: BorrowedFd<'_>) -> bardo_kernel::Result<()> {
        fs::read(reopen(fd, libc::O_RDONLY)?.as_fd(), &mut [0]).map(drop)
    }
}

#[cfg(test)]
mod tests;
