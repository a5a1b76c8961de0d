//! What is in an image, for people and for other programs: all of it but the pages.
//!
//! An image that is truncated, damaged or incomplete has an outline too: of what comes before the trouble, and then the
//! trouble. As text, byte strings are given by their length and first bytes; as JSON, in hexadecimal and in full.

use crate::error::{Error, ErrorKind};
use crate::header::{Fields, Header};
use crate::pages::Table;
use crate::reader::{Part, Reader};
use crate::wire::{self, PAGE, Summary};
use ciborium::Value;
use serde::ser::{Serialize, SerializeMap, SerializeStruct, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;

/// What is in an image.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Outline {
    /// The version of its format.
    pub format: u32,
    /// Its header.
    #[serde(serialize_with = "header_json")]
    pub header: Header,
    /// Its frames before index and seal, in order.
    pub frames: Vec<FrameLine>,
    /// Its records, in order.
    pub records: Vec<RecordLine>,
    /// Its memory objects, in the order of their first frames.
    pub spaces: Vec<SpaceLine>,
    /// It in figures; those of what could be read, if there is trouble.
    pub summary: Summary,
    /// Why it can't be used, if it can't.
    pub trouble: Option<Trouble>,
}

/// Why an image can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble(pub Error);

/// A frame, as far as its head tells.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct FrameLine {
    /// Its type: four letters.
    pub kind: String,
    /// Where it begins.
    pub at: u64,
    /// Bytes of its body.
    pub body: u32,
    /// Bytes of its data, as stored.
    pub data: u32,
    /// Whether the data is zstd.
    pub zstd: bool,
}

/// A record.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct RecordLine {
    /// What it describes.
    pub kind: String,
    /// Which one of that kind.
    pub id: u64,
    /// Where its frame begins.
    pub at: u64,
    /// The description.
    #[serde(serialize_with = "value_json")]
    pub body: Value,
    /// Fields that this version doesn't know.
    #[serde(serialize_with = "fields_json", skip_serializing_if = "Fields::is_empty")]
    pub extra: Fields,
}

/// A memory object. Pages that are given twice are counted twice.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct SpaceLine {
    /// Its number.
    pub space: u64,
    /// Page frames that tell of it.
    pub frames: u64,
    /// The lowest position told of.
    pub first: u64,
    /// The end of the highest.
    pub end: u64,
    /// Pages whose content is in the image.
    pub data_pages: u64,
    /// Bytes they take there.
    pub stored: u64,
    /// Pages that are zero.
    pub zero_pages: u64,
    /// Pages that another image holds.
    pub parent_pages: u64,
}

/// Reads an image and tells what is in it. An error means that there isn't even a header; what goes wrong later is in
/// [`Outline::trouble`].
pub fn show(stream: impl Read) -> Result<Outline, Error> {
    let mut reader = Reader::open(stream)?;
    let mut outline = Outline {
        format: reader.format(),
        header: reader.header().clone(),
        frames: Vec::new(),
        records: Vec::new(),
        spaces: Vec::new(),
        summary: Summary::default(),
        trouble: None,
    };
    let mut places = BTreeMap::new();
    loop {
        let part = match next(&mut reader) {
            Ok(Some(part)) => part,
            Ok(None) => break,
            Err(error) => {
                outline.trouble = Some(Trouble(error));
                break;
            }
        };
        let raw = reader.raw();
        outline.frames.push(FrameLine {
            kind: wire::type_name(&raw.head.kind),
            at: raw.at,
            body: raw.head.body_len,
            data: raw.head.data_len,
            zstd: raw.head.kind == wire::PAGES && raw.head.flags & wire::ZSTD != 0,
        });
        match part {
            Part::Record(record) => outline.records.push(RecordLine {
                kind: record.kind,
                id: record.id,
                at: record.at,
                body: record.body,
                extra: record.extra,
            }),
            Part::Pages(table) => {
                let place = *places.entry(table.space).or_insert(outline.spaces.len());
                if place == outline.spaces.len() {
                    outline.spaces.push(SpaceLine {
                        space: table.space,
                        first: u64::MAX,
                        ..SpaceLine::default()
                    });
                }
                outline.spaces[place].add(&table, raw.head.data_len);
            }
            Part::Unknown => {}
        }
    }
    outline.summary = reader.summary();
    Ok(outline)
}

/// The next frame, checked as far as its packed pages.
fn next<R: Read>(reader: &mut Reader<R>) -> Result<Option<Part>, Error> {
    let part = reader.advance()?;
    if let Some(Part::Pages(table)) = &part {
        reader.check_packed(table)?;
    }
    Ok(part)
}

impl SpaceLine {
    fn add(&mut self, table: &Table, stored: u32) {
        let extent = Table::extent(&table.runs);
        let pages = |bytes: u64| bytes / PAGE as u64;
        self.frames += 1;
        self.first = self.first.min(table.runs[0].at);
        self.end = self.end.max(table.runs[table.runs.len() - 1].end());
        self.data_pages += pages(extent.data);
        self.stored += u64::from(stored);
        self.zero_pages += pages(extent.zero);
        self.parent_pages += pages(extent.parent);
    }
}

impl Outline {
    /// The error that ends it, if the image can't be used.
    pub fn error(&self) -> Option<&Error> {
        self.trouble.as_ref().map(|trouble| &trouble.0)
    }

    /// Writes it for people.
    pub fn render(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        writeln!(out, "image {}", self.header.identity)?;
        let line = |out: &mut dyn fmt::Write, name: &str, value: &dyn fmt::Display| {
            writeln!(out, "  {name:<10} {value}")
        };
        if let Some(parent) = self.header.parent {
            line(out, "parent", &parent)?;
        }
        line(out, "format", &self.format)?;
        line(out, "written by", &Plain(&self.header.writer))?;
        line(out, "created", &Moment(self.header.created_unix_ns))?;
        line(out, "command", &Plain(&self.header.command))?;
        let host = &self.header.host;
        let about = format!("{}, Linux {}, pages of {}", host.arch, host.kernel, host.page_size);
        line(out, "host", &Plain(&about))?;
        line(out, "cpu", &Plain(&host.cpu.join(" ")))?;
        for (name, value) in self.header.summary.iter().chain(&host.extra).chain(&self.header.extra) {
            line(out, &Plain(name).to_string(), &Text(value))?;
        }
        writeln!(out, "\nrecords")?;
        for record in &self.records {
            writeln!(out, "  {} {}", Plain(&record.kind), record.id)?;
            match &record.body {
                Value::Map(fields) => {
                    let names: Vec<_> = fields.iter().map(|(name, _)| Name(name).to_string()).collect();
                    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).min(24);
                    for (name, (_, value)) in names.iter().zip(fields) {
                        writeln!(out, "    {name:<width$}  {}", Text(value))?;
                    }
                }
                other => writeln!(out, "    {}", Text(other))?,
            }
            for (name, value) in &record.extra {
                writeln!(out, "    (unknown) {}  {}", Plain(name), Text(value))?;
            }
        }
        writeln!(out, "\nmemory")?;
        for space in &self.spaces {
            let SpaceLine { first, end, data_pages, stored, zero_pages, parent_pages, .. } = space;
            writeln!(
                out,
                "  {:<4} {first:#x}-{end:#x}  {data_pages} pages in {stored} bytes, {zero_pages} zero, \
                 {parent_pages} of the parent",
                space.space
            )?;
        }
        for frame in &self.frames {
            if !["RECD", "PAGE"].contains(&frame.kind.as_str()) {
                let FrameLine { kind, at, body, data, .. } = frame;
                writeln!(out, "\nunknown frame {kind} at {at}: {body} + {data} bytes")?;
            }
        }
        let sum = &self.summary;
        writeln!(
            out,
            "\n{} bytes in {} frames: {} records, {} bytes of pages in {}, {} zero, {} of the parent",
            sum.bytes,
            sum.frames,
            sum.records,
            sum.page_bytes,
            sum.page_bytes_stored,
            sum.zero_bytes,
            sum.parent_bytes
        )?;
        match self.error() {
            None => writeln!(out, "whole: sealed, and every checksum matches"),
            Some(error) => writeln!(out, "NOT WHOLE: {}", Plain(&error.to_string())),
        }
    }
}

/// Text from an image, on its way to a terminal: control characters are spelled out.
struct Plain<'a>(&'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| {
            // Besides control characters, those that reorder or hide what stands around them.
            if c.is_control()
                || ('\u{200b}'..='\u{200f}').contains(&c)
                || ('\u{2028}'..='\u{202e}').contains(&c)
                || ('\u{2066}'..='\u{2069}').contains(&c)
            {
                write!(f, "{}", c.escape_unicode())
            } else {
                write!(f, "{c}")
            }
        })
    }
}

/// A map's key: bare if it is text.
struct Name<'a>(&'a Value);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Text(name) => Plain(name).fmt(f),
            other => Text(other).fmt(f),
        }
    }
}

/// A value on one line.
struct Text<'a>(&'a Value);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Integer(number) => write!(f, "{}", i128::from(*number)),
            Value::Bytes(bytes) => {
                let shown = bytes.len().min(16);
                write!(f, "<{} bytes", bytes.len())?;
                bytes[..shown]
                    .iter()
                    .enumerate()
                    .try_for_each(|(i, byte)| write!(f, "{}{byte:02x}", if i == 0 { ": " } else { " " }))?;
                f.write_str(if shown < bytes.len() { " …>" } else { ">" })
            }
            Value::Float(number) => write!(f, "{number:?}"),
            Value::Text(text) => write!(f, "\"{}\"", Plain(text)),
            Value::Bool(is) => write!(f, "{is}"),
            Value::Null => f.write_str("-"),
            Value::Tag(tag, value) => write!(f, "{tag}({})", Text(value)),
            Value::Array(items) => {
                f.write_str("[")?;
                for (i, item) in items.iter().enumerate() {
                    write!(f, "{}{}", if i == 0 { "" } else { ", " }, Text(item))?;
                }
                f.write_str("]")
            }
            Value::Map(entries) => {
                f.write_str("{")?;
                for (i, (name, value)) in entries.iter().enumerate() {
                    write!(f, "{}{}: {}", if i == 0 { "" } else { ", " }, Name(name), Text(value))?;
                }
                f.write_str("}")
            }
            _ => f.write_str("?"),
        }
    }
}

/// Nanoseconds since 1970 as a date and time, UTC.
struct Moment(u64);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / 1_000_000_000;
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        // Days are counted in years that begin in March, so that the leap day is the last: 1970-01-01 is day 719468 of
        // the count that begins on 0000-03-01. 400 years have 146097 days.
        let day = days + 719_468;
        let (era, day) = (day / 146_097, day % 146_097);
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (year, month) =
            (era * 400 + year + u64::from(month >= 10), if month < 10 { month + 3 } else { month - 9 });
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
    }
}

/// A CBOR value as JSON: bytes become `{"hex": …, "length": …}`, tags `{"tag": …, "value": …}`, keys that aren't text
/// their text, integers and floats that JSON hasn't got their text.
struct Json<'a>(&'a Value);

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Integer(number) => {
                let number = i128::from(*number);
                match (u64::try_from(number), i64::try_from(number)) {
                    (Ok(number), _) => s.serialize_u64(number),
                    (_, Ok(number)) => s.serialize_i64(number),
                    _ => s.collect_str(&number),
                }
            }
            Value::Bytes(bytes) => {
                let mut out = s.serialize_map(Some(2))?;
                out.serialize_entry(
                    "hex",
                    &bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
                )?;
                out.serialize_entry("length", &bytes.len())?;
                out.end()
            }
            Value::Float(number) if number.is_finite() => s.serialize_f64(*number),
            Value::Float(number) => s.collect_str(number),
            Value::Text(text) => s.serialize_str(text),
            Value::Bool(is) => s.serialize_bool(*is),
            Value::Tag(tag, value) => {
                let mut out = s.serialize_map(Some(2))?;
                out.serialize_entry("tag", tag)?;
                out.serialize_entry("value", &Json(value))?;
                out.end()
            }
            Value::Array(items) => s.collect_seq(items.iter().map(Json)),
            Value::Map(entries) => s.collect_map(entries.iter().map(|(name, value)| match name {
                Value::Text(name) => (name.clone(), Json(value)),
                other => (Text(other).to_string(), Json(value)),
            })),
            _ => s.serialize_unit(),
        }
    }
}

fn value_json<S: Serializer>(value: &Value, s: S) -> Result<S::Ok, S::Error> {
    Json(value).serialize(s)
}

fn fields_json<S: Serializer>(fields: &Fields, s: S) -> Result<S::Ok, S::Error> {
    s.collect_map(fields.iter().map(|(name, value)| (name, Json(value))))
}

fn header_json<S: Serializer>(header: &Header, s: S) -> Result<S::Ok, S::Error> {
    let value = Value::serialized(header).map_err(serde::ser::Error::custom)?;
    Json(&value).serialize(s)
}

impl Serialize for Trouble {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut out = s.serialize_struct("Trouble", 4)?;
        let kind = match self.0.kind() {
            ErrorKind::NotAnImage => "not-an-image",
            ErrorKind::Truncated => "truncated",
            ErrorKind::Damaged => "damaged",
            ErrorKind::Newer => "newer",
            ErrorKind::Incomplete => "incomplete",
            ErrorKind::Limit => "limit",
            ErrorKind::Record => "record",
            ErrorKind::Io(_) => "io",
        };
        out.serialize_field("kind", kind)?;
        out.serialize_field("byte", &self.0.position())?;
        out.serialize_field("frame", &self.0.frame())?;
        out.serialize_field("what", self.0.what())?;
        out.end()
    }
}
