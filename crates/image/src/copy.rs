//! Going through a whole image: to verify it, or to write it again.

use crate::error::Error;
use crate::pages::{PreparedPages, Table};
use crate::reader::{Part, Reader};
use crate::wire::{self, Summary};
use crate::writer::Writer;
use std::borrow::Cow;
use std::io::{Read, Write};

/// Reads all of an image and checks everything that can be checked without restarting it. `progress` is told after each
/// frame how many bytes have been read.
pub fn verify(stream: impl Read, mut progress: impl FnMut(u64)) -> Result<Summary, Error> {
    let mut reader = Reader::open(stream)?;
    progress(reader.position());
    while let Some(part) = reader.advance()? {
        if let Part::Pages(table) = part {
            reader.check_packed(&table)?;
        }
        progress(reader.position());
    }
    Ok(reader.summary())
}

/// Writes an image again, frame by frame, as it is read. Records and frames that this version doesn't know go along, and
/// so do unknown fields of the header and of records; the copy of an image has its identity. Only a copy of a whole image
/// is whole: on an error the output lacks its seal.
pub fn copy<R: Read, W: Write>(mut reader: Reader<R>, sink: W) -> Result<(W, Summary), Error> {
    let writing = |error: &std::io::Error, at, frame| Error::io(error, at, frame, "writing the copy");
    let mut writer = Writer::begin_encoded(sink, reader.header_bytes(), reader.header().parent.is_some())
        .map_err(|error| writing(&error, 0, None))?;
    while let Some(part) = reader.advance()? {
        if let Part::Pages(table) = &part {
            reader.check_packed(table)?;
        }
        let raw = reader.raw();
        match part {
            Part::Record(record) => writer.encoded_record(&record.kind, record.id, &raw.body),
            Part::Pages(table) => writer.write_prepared(&PreparedPages {
                body: raw.body.clone(),
                data: Cow::Borrowed(&raw.data),
                zstd: raw.head.flags & wire::ZSTD != 0,
                sum: raw.head.sum,
                space: table.space,
                first: table.runs[0].at,
                end: table.runs[table.runs.len() - 1].end(),
                extent: Table::extent(&table.runs),
                fault: None,
            }),
            Part::Unknown => writer.unknown(raw.head.kind, raw.head.flags, &raw.body, &raw.data),
        }
        .map_err(|error| writing(&error, raw.at, Some(u64::from(raw.head.number))))?;
    }
    let end = reader.position();
    writer.seal().map_err(|error| writing(&error, end, None))
}
