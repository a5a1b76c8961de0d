//! Reading an image: one pass, no seeking, nothing believed.
//!
//! [`Reader::open`] takes the preamble and the header, [`Reader::next`] one frame after another. It ends with `None`, and
//! only after a seal that fits everything before it; whatever else happens is an [`Error`], which is given again if asked
//! again. Frames this version doesn't know are skipped if they say they may be, and are an error if not.
//!
//! In the order of the checks, for each frame: the head's own checksum (damage), its link to the head before it (frames
//! removed, moved or from elsewhere), its lengths (limits), whether we know it, the padding, the checksum of body and data,
//! and then what the body says.

use crate::cbor;
use crate::error::{Error, ErrorKind};
use crate::header::{Fields, Header};
use crate::index;
use crate::pages::{Extent, Run, RunKind, Table};
use crate::wire::{self, FORMAT, HEAD, HEADER_MAX, Head, MAGIC, PREAMBLE, Preamble, Seal, Summary};
use ciborium::Value;
use serde::de::DeserializeOwned;
use std::io::{BufReader, Read};

/// The most memory taken for bytes that haven't arrived yet.
const STEP: usize = 64 << 10;

/// Reads an image from anything that gives bytes.
pub struct Reader<R: Read> {
    input: Input<R>,
    header: Header,
    header_bytes: Vec<u8>,
    format: u32,
    link: u64,
    /// The number of the frame being read.
    number: u64,
    frame: RawFrame,
    unpacked: Vec<u8>,
    /// The hash of the index entries that the frames so far should have, and of those that the index has.
    entries: u64,
    indexed: u64,
    index_at: Option<u64>,
    totals: Summary,
    ended: Option<Result<(), Error>>,
}

/// One frame, as it is in the stream.
pub(crate) struct RawFrame {
    pub at: u64,
    pub head: Head,
    pub body: Vec<u8>,
    pub data: Vec<u8>,
}

/// A frame that means something to the reader of an image.
#[derive(Debug)]
pub enum Frame {
    /// One resource's part of the image.
    Record(Record),
    /// Pages of one memory object.
    Pages(Pages),
}

/// One resource's part of the image.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// What it describes.
    pub kind: String,
    /// Which one of that kind.
    pub id: u64,
    /// The description.
    pub body: Value,
    /// Fields beside these that this version doesn't know.
    pub extra: Fields,
    /// Where in the stream its frame begins.
    pub at: u64,
    /// Its frame's number.
    pub frame: u64,
}

/// Pages of one memory object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pages {
    /// The memory object.
    pub space: u64,
    /// Runs in ascending order.
    pub runs: Vec<Run>,
    /// The pages of all [`RunKind::Data`] runs, in order.
    pub data: Vec<u8>,
    /// Bytes that `data` takes in the stream.
    pub stored: u64,
    /// Where in the stream its frame begins.
    pub at: u64,
}

impl Record {
    /// The body as the type that its kind stands for. Fields that the type doesn't have are left out.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Error> {
        self.body.deserialized().map_err(|error| {
            let what = format!("the record {} {}: {error}", self.kind, self.id);
            Error::new(ErrorKind::Record, self.at, Some(self.frame), what)
        })
    }

    /// The error for a record that is sound as a record, but not as what its kind stands for.
    pub fn unexpected(&self, what: impl std::fmt::Display) -> Error {
        let what = format!("the record {} {}: {what}", self.kind, self.id);
        Error::new(ErrorKind::Record, self.at, Some(self.frame), what)
    }

    pub(crate) fn decode(frame: &RawFrame, number: u64) -> Result<Record, Error> {
        let body_at = frame.at + HEAD as u64;
        let wrong = |what: String| {
            Error::new(ErrorKind::Damaged, body_at, Some(number), format!("the record: {what}"))
        };
        let value =
            cbor::decode(&frame.body).map_err(|fault| in_cbor(fault, body_at, Some(number), "the record"))?;
        let mut fields = cbor::fields(value).map_err(wrong)?;
        let mut take =
            |name: &str| fields.remove(name).ok_or_else(|| wrong(format!("the field {name:?} is missing")));
        let Value::Text(kind) = take("kind")? else { return Err(wrong("its kind isn't text".into())) };
        let id = take("id")?.as_integer().and_then(|id| u64::try_from(id).ok());
        let id = id.ok_or_else(|| wrong("its id isn't a number of 64 bits".into()))?;
        if kind.is_empty() || kind.len() > index::KIND_MAX {
            return Err(wrong(format!("its kind has {} bytes, not 1 to {}", kind.len(), index::KIND_MAX)));
        }
        let body = take("body")?;
        Ok(Record { kind, id, body, extra: fields, at: frame.at, frame: number })
    }
}

impl<R: Read> Reader<R> {
    /// Reads up to the first frame.
    pub fn open(stream: R) -> Result<Self, Error> {
        let mut input = Input { stream: BufReader::with_capacity(32 << 10, stream), at: 0, frame: None };
        let preamble = input.preamble()?;
        let (fields, whole) = Preamble::decode(&preamble);
        let open_error = |kind, at, what: String| Err(Error::new(kind, at, None, what));
        if !whole {
            return open_error(ErrorKind::Damaged, 0, "the preamble's checksum doesn't match".into());
        }
        if fields.format > FORMAT {
            let what =
                format!("its format is version {}, and this bardo reads up to {FORMAT}", fields.format);
            return open_error(ErrorKind::Newer, 8, what);
        }
        if fields.format == 0 {
            return open_error(ErrorKind::Damaged, 8, "there is no format version 0".into());
        }
        if fields.header_len as usize > HEADER_MAX {
            let what = format!("a header of {} bytes, where {HEADER_MAX} is the most", fields.header_len);
            return open_error(ErrorKind::Limit, 12, what);
        }
        let mut header_bytes = Vec::new();
        input.fill(&mut header_bytes, fields.header_len as usize, "the header")?;
        let at = PREAMBLE as u64;
        if wire::sum_of(&header_bytes) != fields.header_sum {
            return open_error(ErrorKind::Damaged, at, "the header's checksum doesn't match".into());
        }
        let value = cbor::decode(&header_bytes).map_err(|fault| in_cbor(fault, at, None, "the header"))?;
        let header = Header::from_value(value)
            .map_err(|what| Error::new(ErrorKind::Damaged, at, None, format!("the header: {what}")))?;
        let none = Head {
            kind: *b"    ",
            flags: 0,
            body_len: 0,
            pad_len: 0,
            data_len: 0,
            number: 0,
            sum: 0,
            link: 0,
        };
        Ok(Reader {
            input,
            header,
            header_bytes,
            format: fields.format,
            link: wire::u64_at(&preamble, 24),
            number: 0,
            frame: RawFrame { at: 0, head: none, body: Vec::new(), data: Vec::new() },
            unpacked: Vec::new(),
            entries: 0,
            indexed: 0,
            index_at: None,
            totals: Summary::default(),
            ended: None,
        })
    }

    /// The image's header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The version of the image's format.
    pub fn format(&self) -> u32 {
        self.format
    }

    /// Where the stream stands.
    pub fn position(&self) -> u64 {
        self.input.at
    }

    /// What was read so far; complete once [`Reader::next`] has given `None`.
    pub fn summary(&self) -> Summary {
        Summary { bytes: self.input.at, ..self.totals }
    }

    /// Takes a page frame's memory back, for the next one.
    pub fn recycle(&mut self, pages: Pages) {
        if pages.data.capacity() > self.frame.data.capacity() {
            self.frame.data = pages.data;
        } else if pages.data.capacity() > self.unpacked.capacity() {
            self.unpacked = pages.data;
        }
    }

    /// The next frame, or `None` after the seal.
    // Not an Iterator: a reader that has failed must not look like one that has ended.
    #[expect(clippy::should_implement_trait, reason = "an iterator's None could follow an error")]
    pub fn next(&mut self) -> Result<Option<Frame>, Error> {
        while let Some(part) = self.advance()? {
            match part {
                Part::Record(record) => return Ok(Some(Frame::Record(record))),
                Part::Pages(table) => return self.ended_by(|reader| reader.pages(table).map(Some)),
                Part::Unknown => {}
            }
        }
        Ok(None)
    }

    /// The next frame's meaning, with the frame itself in `self.frame`; or `None` after the seal.
    pub(crate) fn advance(&mut self) -> Result<Option<Part>, Error> {
        self.ended_by(Self::advance_once)
    }

    pub(crate) fn raw(&self) -> &RawFrame {
        &self.frame
    }

    pub(crate) fn header_bytes(&self) -> &[u8] {
        &self.header_bytes
    }

    /// Remembers how the stream ended, and answers with that from then on.
    fn ended_by<T>(
        &mut self,
        step: impl FnOnce(&mut Self) -> Result<Option<T>, Error>,
    ) -> Result<Option<T>, Error> {
        if let Some(end) = &self.ended {
            return end.clone().map(|()| None);
        }
        let result = step(self);
        match &result {
            Ok(Some(_)) => {}
            Ok(None) => self.ended = Some(Ok(())),
            Err(error) => self.ended = Some(Err(error.clone())),
        }
        result
    }

    fn advance_once(&mut self) -> Result<Option<Part>, Error> {
        loop {
            self.read_frame()?;
            let number = self.number;
            self.number += 1;
            self.totals.frames += 1;
            let kind = self.frame.head.kind;
            if self.index_at.is_some() && kind != wire::INDX && kind != wire::SEAL {
                return Err(
                    self.damaged(number, format!("a {} frame after the index", wire::type_name(&kind)))
                );
            }
            match kind {
                wire::RECD => {
                    let record = Record::decode(&self.frame, number)?;
                    let entry = index::record_entry(self.frame.at, &record.kind, record.id);
                    self.entries = wire::chain(self.entries, &entry);
                    self.totals.records += 1;
                    return Ok(Some(Part::Record(record)));
                }
                wire::PAGES => return self.page_table(number).map(|table| Some(Part::Pages(table))),
                wire::FAIL => return Err(self.failure(number)),
                wire::INDX => {
                    self.index_at.get_or_insert(self.frame.at);
                    let body_at = self.frame.at + HEAD as u64;
                    for entry in index::entries(&self.frame.body) {
                        let (bytes, _) = entry.map_err(|(at, what)| {
                            Error::new(ErrorKind::Damaged, body_at + at as u64, Some(number), what)
                        })?;
                        self.indexed = wire::chain(self.indexed, bytes);
                    }
                }
                wire::SEAL => return self.seal(number).map(|()| None),
                _ => return Ok(Some(Part::Unknown)),
            }
        }
    }

    fn damaged(&self, number: u64, what: impl Into<String>) -> Error {
        Error::new(ErrorKind::Damaged, self.frame.at, Some(number), what)
    }

    /// Reads head, body and data, and checks everything that doesn't depend on the type.
    fn read_frame(&mut self) -> Result<(), Error> {
        let number = self.number;
        self.input.frame = Some(number);
        let at = self.input.at;
        self.frame.at = at;
        self.input.fill(&mut self.frame.body, HEAD, "the next frame's head")?;
        let bytes = self.frame.body[..].try_into().expect("the bytes of a head");
        let (head, own) = Head::decode(bytes);
        self.frame.head = head;
        let Some(own) = own else {
            return Err(self.damaged(number, "the checksum of the frame's head doesn't match"));
        };
        if head.link != self.link || head.number != number as u32 {
            let what = format!(
                "this frame is sound but doesn't follow the one before it: it was written as number {}, and frames were \
                 removed, moved or replaced",
                head.number
            );
            return Err(self.damaged(number, what));
        }
        self.link = own;
        head.check(at).map_err(|(limit, what)| {
            let kind = if limit { ErrorKind::Limit } else { ErrorKind::Damaged };
            Error::new(kind, at, Some(number), what)
        })?;
        let name = wire::type_name(&head.kind);
        if !head.is_known() && head.flags & wire::IGNORABLE == 0 {
            let what = format!("a frame of type {name}, which a newer bardo wrote and can read");
            return Err(Error::new(ErrorKind::Newer, at, Some(number), what));
        }
        let known_flags = wire::IGNORABLE | if head.kind == wire::PAGES { wire::ZSTD } else { 0 };
        if head.is_known() && head.flags & !known_flags != 0 {
            let what = format!(
                "a {name} frame with flags {:#x}, which a newer bardo wrote and can read",
                head.flags
            );
            return Err(Error::new(ErrorKind::Newer, at + 4, Some(number), what));
        }
        self.input.fill(&mut self.frame.body, head.body_len as usize, "a frame's body")?;
        self.input.skip_zeros(head.pad_len as usize)?;
        self.input.fill(&mut self.frame.data, head.data_len as usize, "a frame's data")?;
        if wire::sum(&self.frame.body, &self.frame.data) != head.sum {
            return Err(
                self.damaged(number, format!("the checksum of the {name} frame's content doesn't match"))
            );
        }
        Ok(())
    }

    fn page_table(&mut self, number: u64) -> Result<Table, Error> {
        let body_at = self.frame.at + HEAD as u64;
        let table = Table::decode(&self.frame.body)
            .map_err(|(at, what)| Error::new(ErrorKind::Damaged, body_at + at as u64, Some(number), what))?;
        let extent = Table::extent(&table.runs);
        if extent.parent > 0 && self.header.parent.is_none() {
            return Err(self.damaged(number, "pages of a parent in an image that names none"));
        }
        check_data_len(&self.frame.head, extent).map_err(|what| self.damaged(number, what))?;
        for (sum, more) in [
            (&mut self.totals.page_bytes, extent.data),
            (&mut self.totals.page_bytes_stored, self.frame.data.len() as u64),
            (&mut self.totals.zero_bytes, extent.zero),
            (&mut self.totals.parent_bytes, extent.parent),
        ] {
            *sum = sum.checked_add(more).ok_or_else(|| {
                let what = "more pages than 64 bits can count";
                Error::new(ErrorKind::Limit, self.frame.at, Some(number), what)
            })?;
        }
        let (first, last) = (table.runs[0], table.runs[table.runs.len() - 1]);
        let entry = index::pages_entry(self.frame.at, table.space, first.at, last.end());
        self.entries = wire::chain(self.entries, &entry);
        Ok(table)
    }

    /// The pages of the frame just read.
    fn pages(&mut self, table: Table) -> Result<Frame, Error> {
        let stored = self.frame.data.len() as u64;
        let mut data = std::mem::take(&mut self.frame.data);
        if self.frame.head.flags & wire::ZSTD != 0 {
            let len = Table::extent(&table.runs).data as usize;
            let mut unpacked = std::mem::take(&mut self.unpacked);
            unpack(&data, len, &mut unpacked).map_err(|what| self.damaged(self.number - 1, what))?;
            self.frame.data = data;
            data = unpacked;
        }
        Ok(Frame::Pages(Pages { space: table.space, runs: table.runs, data, stored, at: self.frame.at }))
    }

    /// Checks that packed pages can be unpacked, without giving them to anyone.
    pub(crate) fn check_packed(&mut self, table: &Table) -> Result<(), Error> {
        self.ended_by(|reader| {
            if reader.frame.head.flags & wire::ZSTD != 0 {
                let len = Table::extent(&table.runs).data as usize;
                let mut unpacked = std::mem::take(&mut reader.unpacked);
                unpack(&reader.frame.data, len, &mut unpacked)
                    .map_err(|what| reader.damaged(reader.number - 1, what))?;
                reader.unpacked = unpacked;
            }
            Ok(Some(()))
        })
        .map(|_| ())
    }

    fn failure(&self, number: u64) -> Error {
        let reason = cbor::decode(&self.frame.body).ok().and_then(|value| cbor::fields(value).ok());
        match reason.and_then(|mut fields| fields.remove("reason")) {
            Some(Value::Text(reason)) => Error::new(
                ErrorKind::Incomplete,
                self.frame.at,
                Some(number),
                format!("the checkpoint that wrote it failed: {reason}"),
            ),
            _ => self.damaged(number, "a FAIL frame without a reason"),
        }
    }

    fn seal(&mut self, number: u64) -> Result<(), Error> {
        let Some(seal) = Seal::decode(&self.frame.body) else {
            return Err(self.damaged(number, format!("a seal of {} bytes", self.frame.body.len())));
        };
        let found = Seal {
            frames: number,
            bytes: self.input.at,
            index_at: self.index_at.unwrap_or(self.frame.at),
            page_bytes: self.totals.page_bytes,
            page_bytes_stored: self.totals.page_bytes_stored,
            zero_bytes: self.totals.zero_bytes,
            parent_bytes: self.totals.parent_bytes,
        };
        if let Some(what) = seal.differs(&found) {
            return Err(self.damaged(number, format!("the seal says {what}")));
        }
        if self.indexed != self.entries {
            return Err(self.damaged(number, "the index isn't that of the frames before it"));
        }
        self.input.expect_end()
    }
}

/// What [`Reader::advance`] has found.
pub(crate) enum Part {
    Record(Record),
    Pages(Table),
    Unknown,
}

/// Whether a page frame's data can be what its runs say.
pub(crate) fn check_data_len(head: &Head, extent: Extent) -> Result<(), String> {
    let len = u64::from(head.data_len);
    let fits =
        if head.flags & wire::ZSTD == 0 { len == extent.data } else { (len == 0) == (extent.data == 0) };
    if fits { Ok(()) } else { Err(format!("{len} bytes of data for runs of {} bytes", extent.data)) }
}

/// Unpacks exactly `len` bytes, which the caller has found to be within the limits.
pub(crate) fn unpack(packed: &[u8], len: usize, out: &mut Vec<u8>) -> Result<(), String> {
    out.clear();
    if len == 0 {
        return Ok(());
    }
    // What a zstd frame says of its own size is for the decoder to check; the room is what the runs say.
    out.reserve_exact(len);
    let mut decoder = zstd::bulk::Decompressor::new().map_err(|error| format!("zstd: {error}"))?;
    match decoder.decompress_to_buffer(packed, out) {
        Ok(got) if got == len => Ok(()),
        Ok(got) => Err(format!("the packed pages are {got} bytes, and the runs say {len}")),
        Err(error) => Err(format!("the packed pages can't be unpacked: {error}")),
    }
}

pub(crate) fn in_cbor(fault: cbor::Fault, base: u64, frame: Option<u64>, thing: &str) -> Error {
    let kind = if fault.limit { ErrorKind::Limit } else { ErrorKind::Damaged };
    Error::new(kind, base + fault.at as u64, frame, format!("{thing}: {}", fault.what))
}

/// The stream, and where it stands.
struct Input<R: Read> {
    stream: BufReader<R>,
    at: u64,
    frame: Option<u64>,
}

impl<R: Read> Input<R> {
    /// As many bytes as there are, up to `into.len()`.
    fn read(&mut self, into: &mut [u8]) -> Result<usize, Error> {
        let mut got = 0;
        while got < into.len() {
            match self.stream.read(&mut into[got..]) {
                Ok(0) => break,
                Ok(n) => got += n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io(&error, self.at + got as u64, self.frame, "reading")),
            }
        }
        self.at += got as u64;
        Ok(got)
    }

    fn preamble(&mut self) -> Result<[u8; PREAMBLE], Error> {
        let mut bytes = [0; PREAMBLE];
        let got = self.read(&mut bytes)?;
        let seen = got.min(MAGIC.len());
        if bytes[..seen] != MAGIC[..seen] {
            let what = "it doesn't begin with bardo's magic bytes";
            return Err(Error::new(ErrorKind::NotAnImage, 0, None, what));
        }
        if got < PREAMBLE {
            return Err(self.truncated(PREAMBLE - got, "the preamble"));
        }
        Ok(bytes)
    }

    /// Reads exactly `len` bytes into `out`, in place of what it held. Memory is taken as the bytes arrive.
    fn fill(&mut self, out: &mut Vec<u8>, len: usize, thing: &str) -> Result<(), Error> {
        let mut have = 0;
        while have < len {
            // What the buffer has from earlier frames may be used at once; beyond that, at most double.
            let upto = len.min(out.capacity().max(have * 2).max(STEP));
            out.resize(upto, 0);
            let got = self.read(&mut out[have..])?;
            have += got;
            if have < upto {
                return Err(self.truncated(len - have, thing));
            }
        }
        out.truncate(len);
        Ok(())
    }

    fn skip_zeros(&mut self, len: usize) -> Result<(), Error> {
        let mut pad = [0; wire::PAGE];
        let start = self.at;
        let got = self.read(&mut pad[..len])?;
        if let Some(off) = pad[..got].iter().position(|byte| *byte != 0) {
            let what = "the padding before the pages isn't zero";
            return Err(Error::new(ErrorKind::Damaged, start + off as u64, self.frame, what));
        }
        if got < len { Err(self.truncated(len - got, "a frame's padding")) } else { Ok(()) }
    }

    fn expect_end(&mut self) -> Result<(), Error> {
        let end = self.at;
        if self.read(&mut [0])? > 0 {
            let what = "bytes follow the seal, which ends an image";
            return Err(Error::new(ErrorKind::Damaged, end, self.frame, what));
        }
        Ok(())
    }

    fn truncated(&self, missing: usize, thing: &str) -> Error {
        let what = format!("the stream ends here, {missing} bytes short of {thing}");
        Error::new(ErrorKind::Truncated, self.at, self.frame, what)
    }
}

impl Pages {
    /// The error for pages that don't fit what the image's records say of their space.
    pub fn unexpected(&self, what: impl std::fmt::Display) -> Error {
        Error::new(ErrorKind::Record, self.at, None, format!("pages of space {}: {what}", self.space))
    }

    /// Each run, with its pages if they are here (empty for the other kinds).
    pub fn iter(&self) -> impl Iterator<Item = (Run, &[u8])> {
        let mut rest = &self.data[..];
        self.runs.iter().map(move |run| {
            let len = if run.kind == RunKind::Data { run.bytes() as usize } else { 0 };
            let (pages, after) = rest.split_at(len.min(rest.len()));
            rest = after;
            (*run, pages)
        })
    }
}
