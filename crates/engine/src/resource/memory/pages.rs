//! Taking pages: from the memory of stopped processes into the image.
//!
//! **In the kernel**: PAGEMAP_SCAN tells which pages an address space really has, without touching any;
//! process_vm_readv(2) copies them out, many ranges a call; `/proc/PID/mem` reads what is mapped without PROT_READ, and
//! what is shared copy-on-write ([`super::common`]).
//!
//! **In the image**: page frames of at most [`FRAME`] bytes: runs of pages with content, runs of zero pages.
//!
//! **Taken how**: by threads that read, look for zero pages, and checksum (or compress) a frame each, while the thread
//! that owns the writer writes; the frames' memory goes around between them. Between the process and the write there is
//! one copy.
//!
//! **Put back how**: see [`super::put`].
//!
//! **Not saved**: pages that were never touched, and pages of files.

use std::collections::HashMap;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};

use bardo_image::{Packer, PreparedPages, Run, RunKind, Writer, is_zero, prepare_owned};
use bardo_kernel::process_vm::{self, Range};
use bardo_kernel::{Errno, Failed, fs};

use super::area::{PAGE, Span};
use super::common::Commons;
use super::object::Shared;
use super::space::Space;
use crate::error::{Doing, Error, Failure, Result, Who};
use crate::subject::Subject;
use crate::watch::Watch;

/// The most bytes in a page frame. Large enough that the cost of a call and of a frame doesn't count, small enough that
/// what was read is still in the cache when it is checksummed and written.
pub const FRAME: usize = 512 << 10;

/// The most ranges in a frame: what one process_vm_readv(2) takes.
const PIECES_MAX: usize = 1024;

/// Up to so many bytes, another thread costs more than it saves.
const ALONE_MAX: u64 = 2 * FRAME as u64;

/// Frames under way at once, for each thread that makes them.
const AHEAD: usize = 2;

/// What was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Taken {
    /// Bytes of pages with content.
    pub stored: u64,
    /// Bytes of pages that were there and all zero.
    pub zero: u64,
}

/// Where pages are read from.
#[derive(Debug, Clone, Copy)]
enum From<'a> {
    /// A process's memory at this address; `direct` where its own protection lets it read there.
    Memory { pid: i32, addr: u64, direct: bool },
    /// A file, at the same position.
    File(BorrowedFd<'a>),
}

/// Pages that follow one another in their space, and where they are read from.
#[derive(Debug, Clone, Copy)]
struct Piece<'a> {
    span: Span,
    from: From<'a>,
}

impl Piece<'_> {
    /// The first `len` bytes, and the rest.
    fn split(self, len: u64) -> (Self, Self) {
        let middle = self.span.start + len;
        let from = match self.from {
            From::Memory { pid, addr, direct } => From::Memory { pid, addr: addr + len, direct },
            file => file,
        };
        (
            Piece { span: Span { end: middle, ..self.span }, ..self },
            Piece { span: Span { start: middle, ..self.span }, from },
        )
    }

    fn len(&self) -> usize {
        self.span.len() as usize
    }
}

/// All pages of one space that are to be taken.
#[derive(Debug)]
pub(super) struct Source<'a> {
    space: u64,
    who: Option<&'a Who>,
    pieces: Vec<Piece<'a>>,
}

impl<'a> Source<'a> {
    pub fn new(space: u64) -> Source<'a> {
        Source { space, who: None, pieces: Vec::new() }
    }

    pub fn of(subject: &'a Subject, space: &Space) -> Source<'a> {
        let memory = |span: Span, direct| From::Memory { pid: subject.door, addr: span.start, direct };
        let pieces = space.pages.iter().map(|p| Piece { span: p.span, from: memory(p.span, p.direct) });
        Source { space: space.id, who: Some(&subject.who), pieces: pieces.collect() }
    }

    pub fn add_file(&mut self, file: BorrowedFd<'a>, span: Span) {
        self.pieces.push(Piece { span, from: From::File(file) });
    }

    pub fn add_memory(&mut self, pid: i32, span: Span, addr: u64, direct: bool) {
        self.pieces.push(Piece { span, from: From::Memory { pid, addr, direct } });
    }

    fn bytes(&self) -> u64 {
        self.pieces.iter().map(|p| p.span.len()).sum()
    }
}

/// What goes into one frame.
struct Job<'a> {
    space: u64,
    who: Option<&'a Who>,
    pieces: Vec<Piece<'a>>,
}

/// Cuts sources into jobs.
struct Cutter<'a> {
    sources: std::vec::IntoIter<Source<'a>>,
    now: Option<(u64, Option<&'a Who>, std::vec::IntoIter<Piece<'a>>)>,
    rest: Option<Piece<'a>>,
}

impl<'a> Cutter<'a> {
    fn new(sources: Vec<Source<'a>>) -> Cutter<'a> {
        Cutter { sources: sources.into_iter(), now: None, rest: None }
    }

    fn next(&mut self) -> Option<Job<'a>> {
        loop {
            if let Some((space, who, pieces)) = &mut self.now {
                let mut job = Job { space: *space, who: *who, pieces: Vec::new() };
                let mut room = FRAME as u64;
                while room > 0 && job.pieces.len() < PIECES_MAX {
                    let Some(piece) = self.rest.take().or_else(|| pieces.next()) else { break };
                    let (piece, rest) = piece.split(piece.span.len().min(room));
                    self.rest = (!rest.span.is_empty()).then_some(rest);
                    room -= piece.span.len();
                    job.pieces.push(piece);
                }
                if !job.pieces.is_empty() {
                    return Some(job);
                }
            }
            let source = self.sources.next()?;
            self.now = Some((source.space, source.who, source.pieces.into_iter()));
        }
    }
}

/// Reads pages; one per thread.
#[derive(Default)]
struct Taker {
    mems: HashMap<i32, OwnedFd>,
}

impl Taker {
    /// Reads what a job names, piece after piece, into the start of a buffer of at least [`FRAME`] bytes.
    fn read(&mut self, job: &Job<'_>, buffer: &mut [u8]) -> Result<()> {
        let mut at = 0;
        let mut pieces = &job.pieces[..];
        while let Some(piece) = pieces.first() {
            let (count, len) = match piece.from {
                From::File(file) => {
                    let len = piece.len();
                    read_file(file, piece.span.start, &mut buffer[at..at + len])
                        .doing("reading shared memory", job.who)?;
                    (1, len)
                }
                From::Memory { pid, addr, direct: false } => {
                    let len = piece.len();
                    self.read_mem(pid, addr, &mut buffer[at..at + len], job.who)?;
                    (1, len)
                }
                From::Memory { pid, .. } => {
                    let ranges: Vec<Range> = pieces
                        .iter()
                        .map_while(|p| match p.from {
                            From::Memory { pid: other, addr, direct: true } if other == pid => {
                                Some(Range { addr, len: p.len() })
                            }
                            _ => None,
                        })
                        .collect();
                    let len = ranges.iter().map(|r| r.len).sum();
                    self.read_direct(pid, &ranges, &mut buffer[at..at + len], job.who)?;
                    (ranges.len(), len)
                }
            };
            at += len;
            pieces = &pieces[count..];
        }
        Ok(())
    }

    fn read_direct(
        &mut self,
        pid: i32,
        ranges: &[Range],
        buffer: &mut [u8],
        who: Option<&Who>,
    ) -> Result<()> {
        let done = match process_vm::readv(pid, ranges, buffer) {
            // The first page refuses: the other way in decides whether it is really unreadable.
            Err(e) if e.is(libc::EFAULT) => 0,
            other => other.doing("reading memory", who)?,
        };
        let mut at = 0;
        for range in ranges {
            let from = done.clamp(at, at + range.len);
            if from < at + range.len {
                let addr = range.addr + (from - at) as u64;
                self.read_mem(pid, addr, &mut buffer[from..at + range.len], who)?;
            }
            at += range.len;
        }
        Ok(())
    }

    /// Reads through `/proc/PID/mem`, which doesn't ask for the area's protection.
    fn read_mem(&mut self, pid: i32, addr: u64, buffer: &mut [u8], who: Option<&Who>) -> Result<()> {
        let mem = match self.mems.entry(pid) {
            std::collections::hash_map::Entry::Occupied(open) => open.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(process_vm::open_mem(pid, false).doing("opening its memory", who)?)
            }
        };
        let mut done = 0;
        while done < buffer.len() {
            let here = addr + done as u64;
            let doing = || format!("reading its memory at {here:#x}");
            match process_vm::read_mem(mem.as_fd(), here, &mut buffer[done..]).doing(doing(), who)? {
                0 => return Err(gone(format!("pread(/proc/{pid}/mem, {here:#x}) = 0"))).doing(doing(), who),
                n => done += n,
            }
        }
        Ok(())
    }
}

fn gone(call: String) -> Failed {
    Failed { call, errno: Errno(libc::ESRCH) }
}

fn read_file(file: BorrowedFd<'_>, start: u64, buffer: &mut [u8]) -> bardo_kernel::Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        match fs::pread(file, &mut buffer[done..], start + done as u64)? {
            // A file may end within its last page.
            0 => {
                buffer[done..].fill(0);
                break;
            }
            n => done += n,
        }
    }
    Ok(())
}

/// Makes runs of what was read, and moves the pages that have content together: how many bytes they are.
fn sift(pieces: &[Piece<'_>], buffer: &mut [u8]) -> (Vec<Run>, usize) {
    const PAGE_LEN: usize = PAGE as usize;
    let mut runs: Vec<Run> = Vec::with_capacity(pieces.len());
    let (mut from, mut kept) = (0, 0);
    for piece in pieces {
        for at in (piece.span.start..piece.span.end).step_by(PAGE_LEN) {
            let kind = if is_zero(&buffer[from..from + PAGE_LEN]) { RunKind::Zero } else { RunKind::Data };
            match runs.last_mut() {
                Some(last) if last.end() == at && last.kind == kind => last.pages += 1,
                _ => runs.push(Run { at, pages: 1, kind }),
            }
            if kind == RunKind::Data {
                if kept != from {
                    buffer.copy_within(from..from + PAGE_LEN, kept);
                }
                kept += PAGE_LEN;
            }
            from += PAGE_LEN;
        }
    }
    (runs, kept)
}

fn bytes_of(runs: &[Run], kind: RunKind) -> u64 {
    runs.iter().filter(|r| r.kind == kind).map(Run::bytes).sum()
}

/// Makes frames; one per thread.
struct Maker<'a> {
    taker: Taker,
    packer: Option<Packer>,
    counts: &'a Counts,
    /// Memory that a frame that was compressed has left over.
    spare: Option<Vec<u8>>,
}

#[derive(Default)]
struct Counts {
    stored: AtomicU64,
    zero: AtomicU64,
}

impl Counts {
    fn into_taken(self) -> Taken {
        Taken { stored: self.stored.into_inner(), zero: self.zero.into_inner() }
    }
}

impl<'a> Maker<'a> {
    fn new(level: Option<i32>, counts: &'a Counts) -> Result<Maker<'a>> {
        let packer = level.map(Packer::new).transpose().map_err(|e| sink_failed(&e))?;
        Ok(Maker { taker: Taker::default(), packer, counts, spare: None })
    }

    /// Makes the frame of a job, in the memory of an earlier one if there is some.
    fn make(&mut self, job: &Job<'_>, used: Option<Vec<u8>>) -> Result<PreparedPages<'static>> {
        let mut buffer = self.spare.take().or(used).unwrap_or_default();
        // Only what a shorter frame has cut off is filled again.
        buffer.resize(FRAME, 0);
        self.taker.read(job, &mut buffer)?;
        let (runs, kept) = sift(&job.pieces, &mut buffer);
        buffer.truncate(kept);
        self.counts.stored.fetch_add(bytes_of(&runs, RunKind::Data), Ordering::Relaxed);
        self.counts.zero.fetch_add(bytes_of(&runs, RunKind::Zero), Ordering::Relaxed);
        let (frame, left) = prepare_owned(job.space, &runs, buffer, self.packer.as_mut());
        self.spare = left;
        Ok(frame)
    }
}

/// Makes frames until there is nothing left to take, nobody wants them any more, or something fails.
fn work(
    mut maker: Maker<'_>,
    cutter: &Mutex<Cutter<'_>>,
    spare: &Mutex<mpsc::Receiver<Vec<u8>>>,
    frames: &mpsc::SyncSender<Result<PreparedPages<'static>>>,
) -> Result<()> {
    loop {
        let job = cutter.lock().unwrap_or_else(PoisonError::into_inner).next();
        let Some(job) = job else { return Ok(()) };
        let used = spare.lock().unwrap_or_else(PoisonError::into_inner).try_recv().ok();
        if frames.send(Ok(maker.make(&job, used)?)).is_err() {
            return Ok(());
        }
    }
}

/// A failure of whatever takes the image.
pub(super) fn sink_failed(error: &std::io::Error) -> Error {
    use std::io::ErrorKind;
    let errno = error.raw_os_error().unwrap_or(match error.kind() {
        ErrorKind::StorageFull => libc::ENOSPC,
        ErrorKind::QuotaExceeded => libc::EDQUOT,
        ErrorKind::FileTooLarge => libc::EFBIG,
        ErrorKind::BrokenPipe => libc::EPIPE,
        ErrorKind::ConnectionReset => libc::ECONNRESET,
        _ => libc::EIO,
    });
    Error::Failed(Failure {
        doing: "writing the image".into(),
        who: None,
        call: Some(Failed { call: error.to_string(), errno: Errno(errno) }),
        left: String::new(),
        remedy: None,
    })
}

/// The answer to a user who asked to stop.
pub(super) fn cancelled(doing: &str) -> Error {
    Error::Failed(Failure {
        doing: doing.into(),
        who: None,
        call: Some(Failed { call: "you asked to stop".into(), errno: Errno(libc::EINTR) }),
        left: String::new(),
        remedy: None,
    })
}

/// Takes the pages of all spaces and shared objects into the image.
///
/// # Errors
/// A page that can't be read (it names the address); the sink's; [`crate::Error::Failed`] with EINTR if cancelled.
pub fn take<W: Write>(
    spaces: &[(&Subject, &Space)],
    shared: &Shared,
    commons: &Commons,
    image: &mut Writer<W>,
    level: Option<i32>,
    watch: &dyn Watch,
) -> Result<Taken> {
    // What is handed on is needed while processes are made.
    let mut sources = commons.sources();
    sources.extend(shared.sources()?);
    sources.extend(spaces.iter().map(|(subject, space)| Source::of(subject, space)));
    let total: u64 = sources.iter().map(Source::bytes).sum();
    if total == 0 {
        return Ok(Taken::default());
    }
    let counts = Counts::default();
    let mut write = |frame: PreparedPages<'static>| {
        if watch.cancelled() {
            return Err(cancelled("taking the pages"));
        }
        image.write_prepared(&frame).map_err(|e| sink_failed(&e))?;
        let done = counts.stored.load(Ordering::Relaxed) + counts.zero.load(Ordering::Relaxed);
        watch.bytes(done.min(total), Some(total));
        Ok(frame.into_data())
    };
    let mut cutter = Cutter::new(sources);
    if total <= ALONE_MAX {
        let mut maker = Maker::new(level, &counts)?;
        let mut used = None;
        while let Some(job) = cutter.next() {
            used = write(maker.make(&job, used)?)?;
        }
        return Ok(counts.into_taken());
    }
    // Reading is faster than any sink; compressing is slower.
    let threads = match level {
        None => 1,
        Some(_) => std::thread::available_parallelism().map_or(1, |n| n.get()).min(16),
    };
    let threads = threads.min(total.div_ceil(FRAME as u64) as usize);
    let makers = (0..threads).map(|_| Maker::new(level, &counts)).collect::<Result<Vec<_>>>()?;
    let cutter = Mutex::new(cutter);
    let (give_back, spare) = mpsc::channel();
    let spare = Mutex::new(spare);
    let (frames, coming) = mpsc::sync_channel(AHEAD * threads);
    std::thread::scope(|scope| {
        for maker in makers {
            let frames = frames.clone();
            let (cutter, spare) = (&cutter, &spare);
            scope.spawn(move || {
                if let Err(error) = work(maker, cutter, spare, &frames) {
                    let _ = frames.send(Err(error));
                }
            });
        }
        // This loop's end drops the receiver, on which every thread ends.
        drop(frames);
        for frame in coming {
            if let Some(data) = write(frame?)? {
                let _ = give_back.send(data);
            }
        }
        Ok(())
    })?;
    Ok(counts.into_taken())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(start: u64, pages: u64) -> Piece<'static> {
        let span = Span { start, end: start + pages * PAGE };
        Piece { span, from: From::Memory { pid: 1, addr: start, direct: true } }
    }

    #[test]
    fn sources_are_cut_into_frames_without_loss() {
        let pages = FRAME as u64 / PAGE;
        let mut first = Source::new(7);
        first.pieces = vec![piece(0x10_0000, 3), piece(0x20_0000, 2 * pages), piece(0x4000_0000, 1)];
        let mut second = Source::new(8);
        second.pieces = (0..3000).map(|n| piece(0x10_0000 + n * 2 * PAGE, 1)).collect();
        let mut cutter = Cutter::new(vec![first, Source::new(9), second]);
        let mut jobs = Vec::new();
        while let Some(job) = cutter.next() {
            jobs.push((job.space, job.pieces.len(), job.pieces.iter().map(|p| p.span.len()).sum::<u64>()));
            for p in &job.pieces {
                assert!(matches!(p.from, From::Memory { addr, .. } if addr == p.span.start));
            }
        }
        assert!(jobs.iter().all(|(_, n, len)| *n <= PIECES_MAX && *len <= FRAME as u64));
        let of = |id| jobs.iter().filter(|j| j.0 == id).map(|j| j.2).sum::<u64>();
        assert_eq!((of(7), of(8)), ((2 * pages + 4) * PAGE, 3000 * PAGE));
        assert_eq!(jobs.iter().filter(|j| j.0 == 7).count(), 3);
    }

    #[test]
    fn zero_pages_are_sifted_out() {
        let pieces = [piece(0x10_0000, 4), piece(0x10_4000, 2), piece(0x20_0000, 1)];
        let mut buffer = vec![0; 7 * PAGE as usize];
        for page in [1, 3, 4, 6] {
            buffer[page * PAGE as usize + 4095] = page as u8;
        }
        let (runs, kept) = sift(&pieces, &mut buffer);
        let run = |at, pages, kind| Run { at, pages, kind };
        let wanted = [
            run(0x10_0000, 1, RunKind::Zero),
            run(0x10_1000, 1, RunKind::Data),
            run(0x10_2000, 1, RunKind::Zero),
            run(0x10_3000, 2, RunKind::Data),
            run(0x10_5000, 1, RunKind::Zero),
            run(0x20_0000, 1, RunKind::Data),
        ];
        assert_eq!(runs, wanted);
        assert_eq!(kept, 4 * PAGE as usize);
        let last_bytes: Vec<u8> = buffer[..kept].chunks(PAGE as usize).map(|p| p[4095]).collect();
        assert_eq!(last_bytes, [1, 3, 4, 6]);
    }
}
