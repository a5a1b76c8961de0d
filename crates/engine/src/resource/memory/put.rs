//! Putting pages back: from the image into the memory of processes that are being built.
//!
//! One thread reads the image and verifies it, another writes into the processes (process_vm_writev(2), many ranges a
//! call); the frames' memory goes around between them. What isn't writable is written through `/proc/PID/mem`, which makes
//! the process's own copy of a page whatever the protection.
//!
//! A page frame may write only into private areas of its own space, and inside its own shared object: the image is hostile.
//! Zero pages need nothing in fresh anonymous memory; over a file, or over pages that were put before, zeros are written.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc;

use bardo_image::{Frame, Pages, Reader, Record, RunKind};
use bardo_kernel::process_vm::{self, Range};
use bardo_kernel::{Errno, Failed, fs};

use super::area::{PAGE, Span};
use super::mapped::MappedFiles;
use super::object::OBJECTS;
use super::pages::cancelled;
use super::restore::MemoryImage;
use crate::error::{Doing, Error, Result};
use crate::watch::Watch;

/// Frames under way at once.
const AHEAD: usize = 4;

/// Where the image's spaces are.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// The pid, as we see it, of the process that each space is built in.
    pub pids: HashMap<u64, i32>,
    /// A process that has the shared objects at their temporary place: the first.
    pub shared_pid: i32,
    /// That place.
    pub shared_at: u64,
}

impl MemoryImage {
    /// Puts the pages of `first` and of all frames that follow, to the image's end (the seal is verified by then): how
    /// many bytes. A record among them goes to `other`.
    ///
    /// # Errors
    /// The image's; a page that can't be written; EINTR if cancelled.
    pub fn put<R: Read>(
        &mut self,
        first: Option<Pages>,
        reader: &mut Reader<R>,
        places: &Places,
        files: &MappedFiles,
        watch: &dyn Watch,
        mut other: impl FnMut(Record) -> Result<()>,
    ) -> Result<u64> {
        let (frames, coming) = mpsc::sync_channel::<Pages>(AHEAD);
        let (give_back, spare) = mpsc::channel::<Pages>();
        let image = &*self;
        let (bytes, filled) = std::thread::scope(|scope| {
            let writer = scope.spawn(move || {
                let mut putter = Putter::new(image, places, files);
                for pages in coming {
                    if watch.cancelled() {
                        return Err(cancelled("putting pages back"));
                    }
                    putter.put(&pages)?;
                    watch.bytes(putter.bytes, None);
                    let _ = give_back.send(pages);
                }
                Ok((putter.bytes, putter.filled()))
            });
            let feed = || -> Result<()> {
                let mut next = first;
                loop {
                    // Whoever writes has failed, and says why below.
                    if let Some(pages) = next.take()
                        && frames.send(pages).is_err()
                    {
                        return Ok(());
                    }
                    while let Ok(used) = spare.try_recv() {
                        reader.recycle(used);
                    }
                    match reader.next().map_err(Error::Image)? {
                        None => return Ok(()),
                        Some(Frame::Pages(pages)) => next = Some(pages),
                        Some(Frame::Record(record)) => other(record)?,
                    }
                }
            };
            let fed = feed();
            drop(frames);
            let written = writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            fed.and(written)
        })?;
        for (id, area) in filled {
            if let Some(space) = self.spaces.get_mut(&id) {
                space.filled[area] = true;
            }
        }
        Ok(bytes)
    }
}

/// What was written of one space.
#[derive(Default)]
struct Progress {
    /// Stretches that were written, by start.
    written: BTreeMap<u64, u64>,
    filled: Vec<usize>,
    /// The process's memory, or the inode.
    file: Option<OwnedFd>,
}

impl Progress {
    fn note(&mut self, span: Span) {
        // Frames come in ascending order as a rule, so this makes the last stretch longer.
        let (mut start, mut end) = (span.start, span.end);
        while let Some((s, e)) = self.written.range(..=end).next_back().map(|(s, e)| (*s, *e))
            && e >= start
        {
            self.written.remove(&s);
            start = start.min(s);
            end = end.max(e);
        }
        self.written.insert(start, end);
    }

    /// The parts of a stretch that were written before.
    fn before(&self, span: Span) -> Vec<Span> {
        let stretches = self.written.range(..span.end).rev().map(|(s, e)| Span { start: *s, end: *e });
        stretches.take_while(|s| s.end > span.start).map(|s| s.cut(span)).collect()
    }
}

/// Writes pages into processes.
pub(super) struct Putter<'a> {
    image: &'a MemoryImage,
    places: &'a Places,
    files: &'a MappedFiles,
    progress: HashMap<u64, Progress>,
    bytes: u64,
}

/// How a stretch is to be written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Direct,
    Forced,
}

impl<'a> Putter<'a> {
    pub fn new(image: &'a MemoryImage, places: &'a Places, files: &'a MappedFiles) -> Putter<'a> {
        Putter { image, places, files, progress: HashMap::new(), bytes: 0 }
    }

    fn filled(self) -> Vec<(u64, usize)> {
        self.progress.into_iter().flat_map(|(id, p)| p.filled.into_iter().map(move |n| (id, n))).collect()
    }

    fn put(&mut self, pages: &Pages) -> Result<()> {
        if let Some(inode) = self.image.inodes.get(&pages.space) {
            return self.put_into_file(pages, inode.size);
        }
        if let Some(common) = self.image.commons.get(&pages.space) {
            self.image.check_common(pages)?;
            return common.record.members.iter().try_for_each(|member| self.put_into(*member, pages));
        }
        self.put_into(pages.space, pages)
    }

    /// Puts pages into the memory of a process, or into a shared object.
    pub fn put_into(&mut self, space: u64, pages: &Pages) -> Result<()> {
        let wrong = |what: String| Error::Image(pages.unexpected(what));
        let pid = match space {
            OBJECTS.. => Some(self.places.shared_pid),
            id => self.places.pids.get(&id).copied(),
        };
        let pid = pid.ok_or_else(|| wrong("no record tells of that space".into()))?;
        // What can go in one call: ranges, and from where to where in the frame's data.
        let mut direct: Vec<Range> = Vec::new();
        let (mut from, mut to) = (0, 0);
        for run in &pages.runs {
            let span = Span { start: run.at, end: run.end() };
            match run.kind {
                RunKind::Parent { .. } => return Err(parent(pages)),
                RunKind::Zero => {
                    for (part, _, of_file) in self.stretches(space, span).map_err(wrong)? {
                        let over = if of_file { vec![part] } else { self.progress(space).before(part) };
                        for part in over {
                            self.write_zeros(space, pid, part)?;
                        }
                    }
                }
                RunKind::Data => {
                    for (part, way, _) in self.stretches(space, span).map_err(wrong)? {
                        let len = part.len() as usize;
                        let addr = self.address(space, part.start);
                        if way == Way::Direct {
                            direct.push(Range { addr, len });
                            to += len;
                            continue;
                        }
                        self.write(pid, &direct, &pages.data[from..to])?;
                        direct.clear();
                        self.force(space, pid, addr, &pages.data[to..to + len])?;
                        to += len;
                        from = to;
                    }
                    self.progress(space).note(span);
                }
            }
        }
        self.write(pid, &direct, &pages.data[from..to])?;
        self.bytes += pages.data.len() as u64;
        Ok(())
    }

    /// Fills an inode, which has its size and holes everywhere else.
    fn put_into_file(&mut self, pages: &Pages, size: u64) -> Result<()> {
        let doing = || format!("filling the inode {}", pages.space);
        let mut from = 0;
        for run in &pages.runs {
            let span = Span { start: run.at, end: run.end() };
            if span.end > size.next_multiple_of(PAGE) {
                let what = format!("{span} passes the end of an inode of {size} bytes");
                return Err(Error::Image(pages.unexpected(what)));
            }
            match run.kind {
                RunKind::Parent { .. } => return Err(parent(pages)),
                RunKind::Zero => {
                    for part in self.progress(pages.space).before(span) {
                        let zeros = vec![0; part.cut(Span { start: 0, end: size }).len() as usize];
                        let file = self.file(pages.space)?;
                        write_file(file, &zeros, part.start).doing(doing(), None)?;
                    }
                }
                RunKind::Data => {
                    let bytes = &pages.data[from..from + span.len() as usize];
                    from += bytes.len();
                    // The last page may pass the end.
                    let own = &bytes[..span.cut(Span { start: 0, end: size }).len() as usize];
                    write_file(self.file(pages.space)?, own, span.start).doing(doing(), None)?;
                    self.progress(pages.space).note(span);
                }
            }
        }
        self.bytes += pages.data.len() as u64;
        Ok(())
    }

    /// An inode, open to be filled.
    fn file(&mut self, id: u64) -> Result<&OwnedFd> {
        let files = self.files;
        let progress = self.progress(id);
        Ok(match &mut progress.file {
            Some(file) => file,
            none => none.insert(files.to_fill(id)?),
        })
    }

    fn progress(&mut self, space: u64) -> &mut Progress {
        self.progress.entry(space).or_default()
    }

    /// Where a position of a space is in the process that is written to.
    fn address(&self, space: u64, at: u64) -> u64 {
        match self.image.objects.get(&space) {
            Some(object) => self.places.shared_at + object.at + at,
            None => at,
        }
    }

    /// Cuts a stretch at the bounds of areas; each part with the way it is written, and whether a file lies under it.
    fn stretches(&mut self, id: u64, span: Span) -> std::result::Result<Vec<(Span, Way, bool)>, String> {
        if id >= OBJECTS {
            let size = self.image.objects.get(&id).map(|o| o.record.size);
            return match size {
                Some(size) if span.end <= size => Ok(vec![(span, Way::Direct, false)]),
                Some(size) => Err(format!("{span} passes the end of an object of {size:#x} bytes")),
                None => Err("no record tells of that object".into()),
            };
        }
        let image = self.image;
        let space = image.spaces.get(&id).ok_or("no record tells of that space")?;
        let progress = self.progress.entry(id).or_default();
        let mut parts = Vec::with_capacity(1);
        let mut at = span.start;
        while at < span.end {
            let number = space.area_at(at).ok_or_else(|| format!("{at:#x} is in no area"))?;
            let area = &space.areas[number];
            if !area.has_own_pages() {
                return Err(format!("{at:#x} is in an area that has no pages of its own"));
            }
            if progress.filled.last() != Some(&number) {
                progress.filled.push(number);
            }
            let end = span.end.min(area.end);
            let writable = area.fill_prot() & libc::PROT_WRITE as u32 != 0;
            let way = if writable { Way::Direct } else { Way::Forced };
            parts.push((Span { start: at, end }, way, area.backing.is_file()));
            at = end;
        }
        Ok(parts)
    }

    fn write(&self, pid: i32, ranges: &[Range], bytes: &[u8]) -> Result<()> {
        if ranges.is_empty() {
            return Ok(());
        }
        let doing = "putting pages back";
        let done = process_vm::writev(pid, ranges, bytes).doing(doing, None)?;
        if done == bytes.len() {
            return Ok(());
        }
        let mut left = done;
        let stopped = ranges.iter().find_map(|range| match left < range.len {
            true => Some(range.addr + left as u64),
            false => {
                left -= range.len;
                None
            }
        });
        let call = format!("process_vm_writev({pid}) stopped at {:#x}", stopped.unwrap_or(0));
        // The kernel says only how far it came: no memory (the tree's control group, perhaps), or no such page.
        Err(Failed { call, errno: Errno(libc::EFAULT) }).doing(doing, None)
    }

    fn write_zeros(&mut self, space: u64, pid: i32, span: Span) -> Result<()> {
        const ZEROS: [u8; 16 << 10] = [0; 16 << 10];
        let mut at = self.address(space, span.start);
        let end = at + span.len();
        while at < end {
            let len = (end - at).min(ZEROS.len() as u64) as usize;
            self.force(space, pid, at, &ZEROS[..len])?;
            at += len as u64;
        }
        Ok(())
    }

    /// Writes through `/proc/PID/mem`.
    fn force(&mut self, space: u64, pid: i32, addr: u64, bytes: &[u8]) -> Result<()> {
        let doing = || format!("putting pages back at {addr:#x}");
        let progress = self.progress(space);
        let mem = match &progress.file {
            Some(mem) => mem,
            None => progress.file.insert(process_vm::open_mem(pid, true).doing(doing(), None)?),
        };
        let mut done = 0;
        while done < bytes.len() {
            let here = addr + done as u64;
            match process_vm::write_mem(mem.as_fd(), here, &bytes[done..]).doing(doing(), None)? {
                0 => {
                    let call = format!("pwrite(/proc/{pid}/mem, {here:#x}) = 0");
                    return Err(Failed { call, errno: Errno(libc::ESRCH) }).doing(doing(), None);
                }
                n => done += n,
            }
        }
        Ok(())
    }
}

/// The error for pages that another image has.
fn parent(pages: &Pages) -> Error {
    Error::Image(pages.unexpected("pages of a parent image, which this bardo can't follow"))
}

fn write_file(file: &OwnedFd, bytes: &[u8], start: u64) -> bardo_kernel::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match fs::pwrite(file.as_fd(), &bytes[done..], start + done as u64)? {
            0 => return Err(Failed { call: "pwrite() = 0".into(), errno: Errno(libc::ENOSPC) }),
            n => done += n,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: u64, end: u64) -> Span {
        Span { start, end }
    }

    #[test]
    fn what_was_written_is_known() {
        let mut progress = Progress::default();
        progress.note(span(0x1000, 0x2000));
        progress.note(span(0x5000, 0x6000));
        progress.note(span(0x2000, 0x3000));
        assert_eq!(progress.written.len(), 2);
        let mut before = progress.before(span(0, 0x5800));
        before.sort_unstable();
        assert_eq!(before, [span(0x1000, 0x3000), span(0x5000, 0x5800)]);
        assert_eq!(progress.before(span(0x3000, 0x5000)), []);
        progress.note(span(0x2800, 0x5800));
        assert_eq!(progress.written.into_iter().collect::<Vec<_>>(), [(0x1000, 0x6000)]);
    }
}
