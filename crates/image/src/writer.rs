//! Writing an image: one pass, no seeking.
//!
//! Small frames are gathered and handed on together; page data goes straight from the caller's buffer to the sink, in one
//! vectored write with what was gathered. The writer remembers one short index entry per frame and writes them at the end.
//!
//! A writer that is dropped without [`Writer::seal`] or [`Writer::fail`] leaves an image that ends early, which every
//! reader reports as truncated; after a failed write it can't be continued. It refuses to write what [`crate::Reader`] would refuse to read.

use crate::cbor;
use crate::header::Header;
use crate::index;
use crate::pages::{Packer, PreparedPages, Run, RunKind, prepare_pages};
use crate::wire::{self, BODY_MAX, FORMAT, FrameType, HEAD, HEADER_MAX, Head, Preamble, Seal, Summary};
use serde::Serialize;
use std::io::{self, IoSlice, Write};

/// How much is gathered before it is handed on.
const GATHER: usize = 64 << 10;

/// Writes an image to anything that takes bytes.
pub struct Writer<W: Write> {
    sink: W,
    gathered: Vec<u8>,
    /// The stream position after everything written or gathered.
    at: u64,
    link: u64,
    number: u64,
    has_parent: bool,
    /// The sink has failed, and nobody knows how much of the last bytes it took.
    broken: bool,
    index: index::Builder,
    totals: Summary,
}

/// A record as it stands in a frame's body.
#[derive(Serialize)]
struct RecordOut<'a, T> {
    kind: &'a str,
    id: u64,
    body: &'a T,
}

impl<W: Write> Writer<W> {
    /// Begins an image.
    pub fn begin(sink: W, header: &Header) -> io::Result<Self> {
        let mut bytes = Vec::new();
        ciborium::into_writer(header, &mut bytes).map_err(io::Error::other)?;
        Self::begin_encoded(sink, &bytes, header.parent.is_some())
    }

    pub(crate) fn begin_encoded(sink: W, header: &[u8], has_parent: bool) -> io::Result<Self> {
        if header.len() > HEADER_MAX {
            return Err(invalid(format!(
                "a header of {} bytes, where {HEADER_MAX} is the most",
                header.len()
            )));
        }
        cbor::scan(header).map_err(|fault| invalid(format!("the header: {}", fault.what)))?;
        let preamble =
            Preamble { format: FORMAT, header_len: header.len() as u32, header_sum: wire::sum_of(header) }
                .encode();
        let mut writer = Writer {
            sink,
            gathered: Vec::with_capacity(GATHER),
            at: (preamble.len() + header.len()) as u64,
            link: wire::u64_at(&preamble, 24),
            number: 0,
            has_parent,
            broken: false,
            index: index::Builder::default(),
            totals: Summary::default(),
        };
        writer.gathered.extend_from_slice(&preamble);
        writer.gathered.extend_from_slice(header);
        // The header is for whoever waits at the other end of a pipe: it goes out before the long work begins.
        writer.hand_on(&[])?;
        Ok(writer)
    }

    /// Writes a record. `kind` and `id` name it within the image; the body is any value that serde can write, with named
    /// fields. Bytes belong in a [`crate::Blob`].
    pub fn record<T: Serialize + ?Sized>(&mut self, kind: &str, id: u64, body: &T) -> io::Result<()> {
        let mut bytes = Vec::new();
        ciborium::into_writer(&RecordOut { kind, id, body: &body }, &mut bytes)
            .map_err(|error| invalid(format!("the record {kind} {id}: {error}")))?;
        cbor::scan(&bytes).map_err(|fault| invalid(format!("the record {kind} {id}: {}", fault.what)))?;
        self.encoded_record(kind, id, &bytes)
    }

    pub(crate) fn encoded_record(&mut self, kind: &str, id: u64, body: &[u8]) -> io::Result<()> {
        if body.len() > BODY_MAX {
            let most = format!("{} bytes, where {BODY_MAX} is the most", body.len());
            return Err(invalid(format!("the record {kind} {id} has {most}")));
        }
        if kind.is_empty() || kind.len() > index::KIND_MAX {
            return Err(invalid(format!("a record's kind has 1 to {} bytes: {kind:?}", index::KIND_MAX)));
        }
        self.index.record(self.at, kind, id);
        self.totals.records += 1;
        self.frame(wire::RECD, 0, body, &[], wire::sum(body, &[]))
    }

    /// Writes pages of one memory object, not compressed. Runs ascend; `data` holds the pages of all [`RunKind::Data`]
    /// runs, in order. No runs, no frame.
    pub fn pages(&mut self, space: u64, runs: &[Run], data: &[u8]) -> io::Result<()> {
        self.check_parents(runs)?;
        self.write_prepared(&prepare_pages(space, runs, data, None))
    }

    /// Writes pages compressed by `packer` where that is worth it.
    pub fn pages_packed(
        &mut self,
        packer: &mut Packer,
        space: u64,
        runs: &[Run],
        data: &[u8],
    ) -> io::Result<()> {
        self.check_parents(runs)?;
        self.write_prepared(&packer.prepare(space, runs, data))
    }

    fn check_parents(&self, runs: &[Run]) -> io::Result<()> {
        if !self.has_parent && runs.iter().any(|run| matches!(run.kind, RunKind::Parent { .. })) {
            return Err(invalid("pages of a parent in an image that has none".into()));
        }
        Ok(())
    }

    /// Writes a page frame that was prepared elsewhere.
    pub fn write_prepared(&mut self, pages: &PreparedPages) -> io::Result<()> {
        if let Some(fault) = &pages.fault {
            return Err(invalid(format!("pages of space {}: {fault}", pages.space)));
        }
        if pages.extent == Default::default() {
            return Ok(());
        }
        if pages.extent.parent > 0 && !self.has_parent {
            return Err(invalid("pages of a parent in an image that has none".into()));
        }
        let totals = &mut self.totals;
        for (sum, more) in [
            (&mut totals.page_bytes, pages.extent.data),
            (&mut totals.page_bytes_stored, pages.data.len() as u64),
            (&mut totals.zero_bytes, pages.extent.zero),
            (&mut totals.parent_bytes, pages.extent.parent),
        ] {
            *sum =
                sum.checked_add(more).ok_or_else(|| invalid("more pages than 64 bits can count".into()))?;
        }
        self.index.pages(self.at, pages.space, pages.first, pages.end);
        let flags = if pages.zstd { wire::ZSTD } else { 0 };
        self.frame(wire::PAGES, flags, &pages.body, &pages.data, pages.sum)
    }

    /// Passes on a frame that this version doesn't know.
    pub(crate) fn unknown(
        &mut self,
        kind: FrameType,
        flags: u32,
        body: &[u8],
        data: &[u8],
    ) -> io::Result<()> {
        self.frame(kind, flags, body, data, wire::sum(body, data))
    }

    /// Ends the image as an incomplete one that says why.
    pub fn fail(mut self, reason: &str) -> io::Result<W> {
        #[derive(Serialize)]
        struct Failure<'a> {
            reason: &'a str,
        }
        let mut bytes = Vec::new();
        ciborium::into_writer(&Failure { reason }, &mut bytes).map_err(io::Error::other)?;
        self.frame(wire::FAIL, 0, &bytes, &[], wire::sum(&bytes, &[]))?;
        self.hand_on(&[])?;
        self.sink.flush()?;
        Ok(self.sink)
    }

    /// Ends the image: index, seal. Only now is it whole.
    pub fn seal(mut self) -> io::Result<(W, Summary)> {
        let index_at = self.at;
        for part in std::mem::take(&mut self.index).into_parts() {
            self.frame(wire::INDX, 0, &part, &[], wire::sum(&part, &[]))?;
        }
        let bytes = self.at + (HEAD + wire::SEAL_BODY) as u64;
        let seal = Seal {
            frames: self.number,
            bytes,
            index_at,
            page_bytes: self.totals.page_bytes,
            page_bytes_stored: self.totals.page_bytes_stored,
            zero_bytes: self.totals.zero_bytes,
            parent_bytes: self.totals.parent_bytes,
        }
        .encode();
        self.frame(wire::SEAL, 0, &seal, &[], wire::sum(&seal, &[]))?;
        self.hand_on(&[])?;
        self.sink.flush()?;
        Ok((self.sink, Summary { bytes, frames: self.number, ..self.totals }))
    }

    /// Where the stream stands: bytes written so far.
    pub fn position(&self) -> u64 {
        self.at
    }

    fn frame(&mut self, kind: FrameType, flags: u32, body: &[u8], data: &[u8], sum: u64) -> io::Result<()> {
        let raw_pages = kind == wire::PAGES && flags & wire::ZSTD == 0 && !data.is_empty();
        let pad_len = if raw_pages { wire::padding(self.at + (HEAD + body.len()) as u64) } else { 0 };
        let head = Head {
            kind,
            flags,
            body_len: body.len() as u32,
            pad_len,
            data_len: data.len() as u32,
            number: self.number as u32,
            sum,
            link: self.link,
        };
        let encoded = head.encode();
        self.link = wire::u64_at(&encoded, 40);
        self.number += 1;
        self.at += head.frame_len();
        self.gathered.extend_from_slice(&encoded);
        self.gathered.extend_from_slice(body);
        self.gathered.resize(self.gathered.len() + pad_len as usize, 0);
        if self.gathered.len() + data.len() < GATHER {
            self.gathered.extend_from_slice(data);
            return Ok(());
        }
        self.hand_on(data)
    }

    /// Writes what was gathered, then `data`.
    fn hand_on(&mut self, data: &[u8]) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("the image can't be continued after a failed write"));
        }
        self.broken = true;
        let mut slices = [IoSlice::new(&self.gathered), IoSlice::new(data)];
        let mut left = &mut slices[..];
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match self.sink.write_vectored(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => IoSlice::advance_slices(&mut left, n),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.gathered.clear();
        self.broken = false;
        Ok(())
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}
