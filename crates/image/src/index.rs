//! The index, and reading an image out of order where it is a file.
//!
//! An index frame's body is a row of entries, one per record and per page frame, in the order of the frames:
//!
//! ```text
//! RECD  length of kind u32  offset u64  id u64     kind
//! PAGE  0 u32               offset u64  space u64  first u64  end u64
//! ```
//!
//! The seal is the file's last 104 bytes and says where the index begins. The index is as hostile as the rest: whatever it
//! points to is checked there, by head, checksum, space and kind. A reader of the whole stream checks that the index is
//! exactly that of the frames.

use crate::error::{Error, ErrorKind};
use crate::header::{Header, Identity};
use crate::pages::{Run, RunKind, Table};
use crate::reader::{self, Pages, RawFrame, Reader, Record};
use crate::wire::{self, HEAD, Head, SEAL_BODY, Seal, Summary};
use std::io;

/// The longest kind of a record, in bytes.
pub(crate) const KIND_MAX: usize = 255;

/// Gathers entries while an image is written.
#[derive(Default)]
pub(crate) struct Builder {
    full: Vec<Vec<u8>>,
    last: Vec<u8>,
}

impl Builder {
    pub fn record(&mut self, offset: u64, kind: &str, id: u64) {
        self.add(&record_entry(offset, kind, id));
    }

    pub fn pages(&mut self, offset: u64, space: u64, first: u64, end: u64) {
        self.add(&pages_entry(offset, space, first, end));
    }

    fn add(&mut self, entry: &[u8]) {
        if self.last.len() + entry.len() > wire::INDEX_PART {
            self.full.push(std::mem::take(&mut self.last));
        }
        self.last.extend_from_slice(entry);
    }

    /// The bodies of the index frames.
    pub fn into_parts(self) -> impl Iterator<Item = Vec<u8>> {
        self.full.into_iter().chain(std::iter::once(self.last)).filter(|part| !part.is_empty())
    }
}

pub(crate) fn record_entry(offset: u64, kind: &str, id: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(24 + kind.len());
    out.extend_from_slice(&wire::RECD);
    out.extend_from_slice(&(kind.len() as u32).to_le_bytes());
    out.extend_from_slice(&offset.to_le_bytes());
    out.extend_from_slice(&id.to_le_bytes());
    out.extend_from_slice(kind.as_bytes());
    out
}

pub(crate) fn pages_entry(offset: u64, space: u64, first: u64, end: u64) -> [u8; 40] {
    let mut out = [0; 40];
    out[..4].copy_from_slice(&wire::PAGES);
    for (slot, value) in out[8..].chunks_exact_mut(8).zip([offset, space, first, end]) {
        slot.copy_from_slice(&value.to_le_bytes());
    }
    out
}

/// An entry of the index.
pub(crate) enum Entry {
    Record(RecordAt),
    Pages(PagesAt),
}

/// Takes an index frame's body apart: each entry's bytes and meaning, or where it goes wrong and how.
pub(crate) fn entries(body: &[u8]) -> impl Iterator<Item = Result<(&[u8], Entry), (usize, String)>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = body.get(at..).filter(|rest| !rest.is_empty())?;
        let entry = entry(rest).map_err(|what| (at, what));
        // After an error there is no telling where the next entry begins.
        at = entry.as_ref().map_or(body.len(), |(bytes, _)| at + bytes.len());
        Some(entry)
    })
}

fn entry(rest: &[u8]) -> Result<(&[u8], Entry), String> {
    let cut = |len: usize| rest.get(..len).ok_or("the index ends in the middle of an entry".to_string());
    let fixed = cut(24)?;
    let (word, offset, a) = (wire::u32_at(fixed, 4), wire::u64_at(fixed, 8), wire::u64_at(fixed, 16));
    if fixed[..4] == wire::RECD {
        if word == 0 || word as usize > KIND_MAX {
            return Err(format!("an index entry with a kind of {word} bytes"));
        }
        let bytes = cut(24 + word as usize)?;
        let kind = std::str::from_utf8(&bytes[24..]).map_err(|_| "an index entry whose kind isn't text")?;
        Ok((bytes, Entry::Record(RecordAt { kind: kind.to_string(), id: a, offset })))
    } else if fixed[..4] == wire::PAGES && word == 0 {
        let bytes = cut(40)?;
        let (first, end) = (wire::u64_at(bytes, 24), wire::u64_at(bytes, 32));
        Ok((bytes, Entry::Pages(PagesAt { space: a, first, end, offset })))
    } else {
        Err("an index entry of a type that no index has".into())
    }
}

/// Where a record is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordAt {
    /// The record's kind.
    pub kind: String,
    /// Its id.
    pub id: u64,
    /// Where its frame begins.
    pub offset: u64,
}

/// Where a page frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PagesAt {
    /// The memory object.
    pub space: u64,
    /// The position of its first page.
    pub first: u64,
    /// The position after its last page. Between the two there may be pages that it doesn't mention.
    pub end: u64,
    /// Where its frame begins.
    pub offset: u64,
}

/// A page frame without its pages: what is needed to map them, or to read them to where they belong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The memory object.
    pub space: u64,
    /// Runs in ascending order.
    pub runs: Vec<Run>,
    /// Where the data begins in the file: a multiple of [`crate::PAGE`] if it isn't packed.
    pub data_at: u64,
    /// Bytes of data in the file.
    pub data_len: u32,
    /// Whether the data is zstd.
    pub zstd: bool,
}

/// Something that can be read at any place, by many threads at once.
pub trait ReadAt {
    /// Reads some bytes from `at` on, as pread(2) does.
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize>;
    /// Its length in bytes.
    fn size(&self) -> io::Result<u64>;
}

impl ReadAt for std::fs::File {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, into, at)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

impl ReadAt for [u8] {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let rest = usize::try_from(at).ok().and_then(|at| self.get(at..)).unwrap_or(&[]);
        let len = rest.len().min(into.len());
        into[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        (**self).read_at(into, at)
    }

    fn size(&self) -> io::Result<u64> {
        (**self).size()
    }
}

/// An image in a file, read out of order. It has been found whole as far as the seal and the index go; each frame is
/// checked when it is read.
pub struct RandomAccess<F: ReadAt> {
    file: F,
    header: Header,
    seal: Seal,
    records: Vec<RecordAt>,
    /// Ordered by space, and within it by place in the file.
    pages: Vec<PagesAt>,
}

impl<F: ReadAt> RandomAccess<F> {
    /// Reads header, seal and index.
    pub fn open(file: F) -> Result<Self, Error> {
        let len = file.size().map_err(|error| Error::io(&error, 0, None, "reading the file's length"))?;
        let header = Reader::open(FromStart { file: &file, at: 0 })?.header().clone();
        let seal_at = len.checked_sub((HEAD + SEAL_BODY) as u64);
        let unsealed = |at| Error::new(ErrorKind::Truncated, at, None, "the file doesn't end with a seal");
        let seal_at = seal_at.ok_or_else(|| unsealed(len))?;
        let frame = frame_at(&file, seal_at, len, wire::SEAL).map_err(|error| match error.kind() {
            ErrorKind::Io(_) => error,
            _ => unsealed(seal_at),
        })?;
        let seal = Seal::decode(&frame.body).filter(|seal| seal.bytes == len && seal.index_at <= seal_at);
        let seal = seal.ok_or_else(|| {
            Error::new(ErrorKind::Damaged, seal_at, None, "the seal is for an image of another length")
        })?;
        let mut this = RandomAccess { file, header, seal, records: Vec::new(), pages: Vec::new() };
        let mut at = seal.index_at;
        while at < seal_at {
            let frame = frame_at(&this.file, at, len, wire::INDX)?;
            for entry in entries(&frame.body) {
                let body_at = at + HEAD as u64;
                let wrong = |(off, what)| Error::new(ErrorKind::Damaged, body_at + off as u64, None, what);
                match entry.map_err(wrong)?.1 {
                    Entry::Record(record) => this.records.push(record),
                    Entry::Pages(pages) => this.pages.push(pages),
                }
            }
            at += frame.head.frame_len();
        }
        if at != seal_at {
            return Err(Error::new(
                ErrorKind::Damaged,
                at,
                None,
                "the index doesn't end where the seal begins",
            ));
        }
        this.pages.sort_by_key(|pages| (pages.space, pages.offset));
        Ok(this)
    }

    /// The image's header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Which image it is.
    pub fn identity(&self) -> Identity {
        self.header.identity
    }

    /// What the seal says of the whole.
    pub fn summary(&self) -> Summary {
        Summary {
            bytes: self.seal.bytes,
            frames: self.seal.frames + 1,
            records: self.records.len() as u64,
            page_bytes: self.seal.page_bytes,
            page_bytes_stored: self.seal.page_bytes_stored,
            zero_bytes: self.seal.zero_bytes,
            parent_bytes: self.seal.parent_bytes,
        }
    }

    /// Where the records are, in the order of the stream.
    pub fn records(&self) -> &[RecordAt] {
        &self.records
    }

    /// Where the page frames of a memory object are, in the order of the stream: of two that mention the same page, the
    /// later one is right.
    pub fn pages_of(&self, space: u64) -> &[PagesAt] {
        let from = self.pages.partition_point(|pages| pages.space < space);
        let to = self.pages.partition_point(|pages| pages.space <= space);
        &self.pages[from..to]
    }

    /// Where all page frames are: by space, and within it in the order of the stream.
    pub fn pages_everywhere(&self) -> &[PagesAt] {
        &self.pages
    }

    /// Reads a record.
    pub fn record(&self, at: &RecordAt) -> Result<Record, Error> {
        let frame = frame_at(&self.file, at.offset, self.seal.bytes, wire::RECD)?;
        let record = Record::decode(&frame, u64::from(frame.head.number))?;
        if record.kind != at.kind || record.id != at.id {
            return Err(misled(at.offset, "a record"));
        }
        Ok(record)
    }

    /// Reads a page frame with its pages.
    pub fn pages(&self, at: &PagesAt) -> Result<Pages, Error> {
        let frame = frame_at(&self.file, at.offset, self.seal.bytes, wire::PAGES)?;
        let (table, _) = self.table(&frame, at)?;
        let stored = frame.data.len() as u64;
        let mut data = frame.data;
        if frame.head.flags & wire::ZSTD != 0 {
            let len = Table::extent(&table.runs).data as usize;
            let mut unpacked = Vec::new();
            reader::unpack(&data, len, &mut unpacked)
                .map_err(|what| Error::new(ErrorKind::Damaged, at.offset, None, what))?;
            data = unpacked;
        }
        Ok(Pages { space: table.space, runs: table.runs, data, stored, at: at.offset })
    }

    /// Reads a page frame's runs only. The checksum covers the pages too, so it isn't checked here: that is the price of
    /// not reading them.
    pub fn locate(&self, at: &PagesAt) -> Result<Stored, Error> {
        let frame = part_at(&self.file, at.offset, self.seal.bytes, wire::PAGES, false)?;
        let (table, data_at) = self.table(&frame, at)?;
        Ok(Stored {
            space: table.space,
            runs: table.runs,
            data_at,
            data_len: frame.head.data_len,
            zstd: frame.head.flags & wire::ZSTD != 0,
        })
    }

    fn table(&self, frame: &RawFrame, at: &PagesAt) -> Result<(Table, u64), Error> {
        let body_at = at.offset + HEAD as u64;
        let wrong = |off: usize, what| Error::new(ErrorKind::Damaged, body_at + off as u64, None, what);
        let table = Table::decode(&frame.body).map_err(|(off, what)| wrong(off, what))?;
        let extent = Table::extent(&table.runs);
        reader::check_data_len(&frame.head, extent).map_err(|what| wrong(0, what))?;
        let (first, last) = (table.runs[0], table.runs[table.runs.len() - 1]);
        if table.space != at.space || first.at != at.first || last.end() != at.end {
            return Err(misled(at.offset, "pages"));
        }
        if self.header.parent.is_none()
            && table.runs.iter().any(|run| matches!(run.kind, RunKind::Parent { .. }))
        {
            return Err(wrong(0, "pages of a parent in an image that names none".into()));
        }
        let data_at = body_at + u64::from(frame.head.body_len) + u64::from(frame.head.pad_len);
        Ok((table, data_at))
    }
}

fn misled(at: u64, what: &str) -> Error {
    Error::new(ErrorKind::Damaged, at, None, format!("the index promises other {what} here"))
}

fn frame_at(file: &impl ReadAt, at: u64, len: u64, kind: wire::FrameType) -> Result<RawFrame, Error> {
    part_at(file, at, len, kind, true)
}

/// Reads the frame at `at`, which must be of this type and end within the first `len` bytes; its data on demand only.
fn part_at(
    file: &impl ReadAt,
    at: u64,
    len: u64,
    kind: wire::FrameType,
    data: bool,
) -> Result<RawFrame, Error> {
    let wrong = |kind, what: String| Error::new(kind, at, None, what);
    let ends = || wrong(ErrorKind::Damaged, "a frame that passes the end of the file".into());
    if at.checked_add(HEAD as u64).is_none_or(|end| end > len) {
        return Err(ends());
    }
    let mut head = [0; HEAD];
    fill_at(file, &mut head, at)?;
    let (head, Some(_)) = Head::decode(&head) else {
        return Err(wrong(ErrorKind::Damaged, "the checksum of the frame's head doesn't match".into()));
    };
    if head.kind != kind {
        let names = (wire::type_name(&kind), wire::type_name(&head.kind));
        return Err(wrong(
            ErrorKind::Damaged,
            format!("here should be a {} frame, not a {}", names.0, names.1),
        ));
    }
    head.check(at)
        .map_err(|(limit, what)| wrong(if limit { ErrorKind::Limit } else { ErrorKind::Damaged }, what))?;
    let known = wire::IGNORABLE | if kind == wire::PAGES { wire::ZSTD } else { 0 };
    if head.flags & !known != 0 {
        return Err(wrong(ErrorKind::Newer, format!("a frame with flags {:#x}", head.flags)));
    }
    // The lengths are within the format's limits and within the file, so making room for them is safe.
    if at.checked_add(head.frame_len()).is_none_or(|end| end > len) {
        return Err(ends());
    }
    let mut frame = RawFrame { at, head, body: vec![0; head.body_len as usize], data: Vec::new() };
    let body_at = at + HEAD as u64;
    fill_at(file, &mut frame.body, body_at)?;
    if data {
        frame.data = vec![0; head.data_len as usize];
        fill_at(file, &mut frame.data, body_at + u64::from(head.body_len) + u64::from(head.pad_len))?;
        if wire::sum(&frame.body, &frame.data) != head.sum {
            return Err(wrong(
                ErrorKind::Damaged,
                "the checksum of the frame's content doesn't match".into(),
            ));
        }
    }
    Ok(frame)
}

fn fill_at(file: &impl ReadAt, mut into: &mut [u8], mut at: u64) -> Result<(), Error> {
    while !into.is_empty() {
        match file.read_at(into, at) {
            Ok(0) => {
                let what = "the file has become shorter while it is read";
                return Err(Error::new(ErrorKind::Truncated, at, None, what));
            }
            Ok(n) => {
                into = &mut into[n..];
                at += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io(&error, at, None, "reading")),
        }
    }
    Ok(())
}

/// A file read from its beginning, whatever its own position is.
struct FromStart<'a, F: ReadAt> {
    file: &'a F,
    at: u64,
}

impl<F: ReadAt> io::Read for FromStart<'_, F> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let got = self.file.read_at(into, self.at)?;
        self.at += got as u64;
        Ok(got)
    }
}
