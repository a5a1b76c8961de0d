//! An image's encoder and decoder written from docs/image-format.md alone, sharing no code with the crate, and the contents of
//! the golden image. It believes what it reads and writes whatever it is told: with it, tests make images that break one
//! rule of the format and keep all others, checksums included.

#![allow(dead_code, reason = "each test file uses a part of it")]

use ciborium::{Value, cbor};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

pub const PREAMBLE: usize = 32;
pub const HEAD: usize = 48;
pub const IGNORABLE: u32 = 1;
pub const ZSTD: u32 = 2;

/// A frame. The numbers that follow from the rest can be replaced by wrong ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawFrame {
    pub kind: [u8; 4],
    pub flags: u32,
    pub body: Vec<u8>,
    pub data: Vec<u8>,
    pub body_len: Option<u32>,
    pub pad_len: Option<u32>,
    pub data_len: Option<u32>,
    pub number: Option<u32>,
    pub link: Option<u64>,
    pub sum: Option<u64>,
}

/// An image before its checksums.
#[derive(Clone, Debug, PartialEq)]
pub struct RawImage {
    pub format: u32,
    pub header: Vec<u8>,
    pub header_len: Option<u32>,
    pub frames: Vec<RawFrame>,
}

pub fn frame(kind: &[u8; 4], flags: u32, body: Vec<u8>, data: Vec<u8>) -> RawFrame {
    RawFrame { kind: *kind, flags, body, data, ..RawFrame::default() }
}

pub fn encoded(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    ciborium::into_writer(value, &mut out).unwrap();
    out
}

pub fn record(kind: &str, id: u64, body: Value) -> RawFrame {
    frame(b"RECD", 0, encoded(&cbor!({"kind" => kind, "id" => id, "body" => body}).unwrap()), Vec::new())
}

/// A run as (position, pages, kind, where the parent has it).
pub type RawRun<'a> = (u64, u32, u32, Option<(&'a [u8; 16], u64, u64)>);

pub fn pages(space: u64, runs: &[RawRun], flags: u32, data: Vec<u8>) -> RawFrame {
    let mut body = Vec::new();
    body.extend(space.to_le_bytes());
    body.extend((runs.len() as u32).to_le_bytes());
    body.extend(0u32.to_le_bytes());
    for (at, pages, kind, source) in runs {
        body.extend(at.to_le_bytes());
        body.extend(pages.to_le_bytes());
        body.extend(kind.to_le_bytes());
        if let Some((image, space, at)) = source {
            body.extend(*image);
            body.extend(space.to_le_bytes());
            body.extend(at.to_le_bytes());
        }
    }
    frame(b"PAGE", flags, body, data)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

impl RawImage {
    pub fn new(header: &Value) -> RawImage {
        RawImage { format: 1, header: encoded(header), header_len: None, frames: Vec::new() }
    }

    /// Takes a sound image apart.
    pub fn parse(bytes: &[u8]) -> RawImage {
        let header_len = u32_at(bytes, 12) as usize;
        let mut image = RawImage {
            format: u32_at(bytes, 8),
            header: bytes[PREAMBLE..PREAMBLE + header_len].to_vec(),
            header_len: None,
            frames: Vec::new(),
        };
        let mut at = PREAMBLE + header_len;
        while at < bytes.len() {
            let len = |i: usize| u32_at(bytes, at + i) as usize;
            let body_at = at + HEAD;
            let data_at = body_at + len(8) + len(12);
            image.frames.push(frame(
                bytes[at..at + 4].try_into().unwrap(),
                u32_at(bytes, at + 4),
                bytes[body_at..body_at + len(8)].to_vec(),
                bytes[data_at..data_at + len(16)].to_vec(),
            ));
            at = data_at + len(16);
        }
        image
    }

    /// The bytes, with every checksum, link and number right unless a frame says otherwise.
    pub fn encode(&self) -> Vec<u8> {
        self.encode_with_offsets().0
    }

    /// The bytes, and where each frame begins.
    pub fn encode_with_offsets(&self) -> (Vec<u8>, Vec<usize>) {
        let mut out = b"bardo\x89\r\n".to_vec();
        out.extend(self.format.to_le_bytes());
        out.extend(self.header_len.unwrap_or(self.header.len() as u32).to_le_bytes());
        out.extend(xxh3_64(&self.header).to_le_bytes());
        let mut link = xxh3_64(&out);
        out.extend(link.to_le_bytes());
        out.extend(&self.header);
        let mut offsets = Vec::new();
        for (number, frame) in self.frames.iter().enumerate() {
            let start = out.len();
            offsets.push(start);
            let raw = &frame.kind == b"PAGE" && frame.flags & ZSTD == 0 && !frame.data.is_empty();
            let data_at = start + HEAD + frame.body.len();
            let pad = if raw { data_at.next_multiple_of(4096) - data_at } else { 0 };
            let pad = frame.pad_len.unwrap_or(pad as u32);
            out.extend(frame.kind);
            out.extend(frame.flags.to_le_bytes());
            out.extend(frame.body_len.unwrap_or(frame.body.len() as u32).to_le_bytes());
            out.extend(pad.to_le_bytes());
            out.extend(frame.data_len.unwrap_or(frame.data.len() as u32).to_le_bytes());
            out.extend(frame.number.unwrap_or(number as u32).to_le_bytes());
            let sum = xxh3_64_with_seed(&frame.data, xxh3_64(&frame.body));
            out.extend(frame.sum.unwrap_or(sum).to_le_bytes());
            out.extend(frame.link.unwrap_or(link).to_le_bytes());
            link = xxh3_64(&out[start..]);
            out.extend(link.to_le_bytes());
            out.extend(&frame.body);
            // A wrong padding length may be any number; the padding itself stays within reason.
            out.resize(out.len() + (pad as usize).min(1 << 16), 0);
            out.extend(&frame.data);
        }
        (out, offsets)
    }

    /// Puts the right index and seal at the end, in place of those there.
    pub fn sealed(mut self) -> RawImage {
        self.frames.retain(|frame| &frame.kind != b"INDX" && &frame.kind != b"SEAL");
        let (bytes, offsets) = self.encode_with_offsets();
        let index_at = bytes.len() as u64;
        let mut index = Vec::new();
        let [mut data, mut stored, mut zero, mut parent] = [0u64; 4];
        for (frame, offset) in self.frames.iter().zip(offsets) {
            if &frame.kind == b"RECD" {
                let Ok(Value::Map(fields)) = ciborium::from_reader::<Value, _>(&frame.body[..]) else {
                    continue;
                };
                let field =
                    |name: &str| fields.iter().find(|(key, _)| key.as_text() == Some(name)).map(|(_, v)| v);
                let Some(kind) = field("kind").and_then(Value::as_text) else { continue };
                let Some(Ok(id)) = field("id").and_then(Value::as_integer).map(u64::try_from) else {
                    continue;
                };
                index.extend(b"RECD");
                index.extend((kind.len() as u32).to_le_bytes());
                index.extend((offset as u64).to_le_bytes());
                index.extend(id.to_le_bytes());
                index.extend(kind.as_bytes());
            } else if &frame.kind == b"PAGE" {
                stored += frame.data.len() as u64;
                let (mut at, mut first, mut end) = (16, None, 0u64);
                while at + 16 <= frame.body.len() {
                    let len = u64::from(u32_at(&frame.body, at + 8)) * 4096;
                    let start = u64_at(&frame.body, at);
                    first.get_or_insert(start);
                    end = start.saturating_add(len);
                    let kind = u32_at(&frame.body, at + 12);
                    *[&mut data, &mut zero, &mut parent][kind.min(2) as usize] += len;
                    at += if kind == 2 { 48 } else { 16 };
                }
                index.extend(b"PAGE");
                index.extend([0; 4]);
                index.extend((offset as u64).to_le_bytes());
                index.extend(frame.body.get(..8).unwrap_or(&[0; 8]));
                index.extend(first.unwrap_or(0).to_le_bytes());
                index.extend(end.to_le_bytes());
            }
        }
        if !index.is_empty() {
            self.frames.push(frame(b"INDX", 0, index, Vec::new()));
        }
        let frames = self.frames.len() as u64;
        let bytes = self.encode().len() as u64 + HEAD as u64 + 56;
        let seal: Vec<u8> = [frames, bytes, index_at, data, stored, zero, parent]
            .iter()
            .flat_map(|n| n.to_le_bytes())
            .collect();
        self.frames.push(frame(b"SEAL", 0, seal, Vec::new()));
        self
    }
}

pub fn header(parent: bool) -> Value {
    let identity = "000102030405060708090a0b0c0d0e0f";
    let mut fields = vec![("identity", Value::from(identity))];
    if parent {
        fields.push(("parent", "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff".into()));
    }
    fields.extend([
        ("created_unix_ns", Value::from(1_767_225_600_123_456_789u64)),
        ("writer", "bardo 0.1.0".into()),
        ("command", "sleep 1000".into()),
        (
            "host",
            cbor!({"arch" => "x86_64", "kernel" => "6.12.0", "page_size" => 4096, "cpu" => ["fxsr", "xsave"],
                "firmware" => "a field of tomorrow"})
            .unwrap(),
        ),
        ("summary", cbor!({"processes" => 1, "threads" => 2}).unwrap()),
        ("mood", Value::Tag(1234, Box::new(Value::Array(vec![Value::Null, Value::Float(0.5)])))),
    ]);
    Value::Map(fields.into_iter().map(|(name, value)| (name.into(), value)).collect())
}

/// A page's worth of bytes that differ from page to page.
pub fn page(seed: u8) -> Vec<u8> {
    (0..4096u32).map(|i| seed.wrapping_add((i / 16) as u8)).collect()
}

/// One page of 0xab as a zstd frame made by hand: a single segment of 4096 bytes in one run-length block.
pub const PACKED_PAGE: [u8; 11] = [0x28, 0xb5, 0x2f, 0xfd, 0x60, 0x00, 0x0f, 0x03, 0x80, 0x00, 0xab];

/// The golden image: a delta with a little of everything.
pub fn golden() -> RawImage {
    let parent: [u8; 16] = std::array::from_fn(|i| 0xf0 + i as u8);
    let mut image = RawImage::new(&header(true));
    image.frames.push(record(
        "process",
        1,
        cbor!({"pid" => 4127, "parent" => 1, "comm" => "sleep", "argv" => ["sleep", "1000"], "nice" => -5,
            "vdso" => 0x7fff_0000_1000u64, "dumpable" => true, "exit" => null})
        .unwrap(),
    ));
    let mut pipe = cbor!({"kind" => "pipe", "id" => 3, "body" => {"capacity" => 65536}}).unwrap();
    let fields = pipe.as_map_mut().unwrap();
    fields[2]
        .1
        .as_map_mut()
        .unwrap()
        .push(("data".into(), Value::Bytes(b"in flight\n\0\x01\x02\x03\x04\x05\x06\x07".to_vec())));
    fields.push(("since".into(), "a field of tomorrow".into()));
    image.frames.push(frame(b"RECD", 0, encoded(&pipe), Vec::new()));
    image.frames.push(pages(
        1,
        &[
            (0x1000, 1, 0, None),
            (0x2000, 3, 1, None),
            (0x8000, 1, 0, None),
            (0x10000, 2, 2, Some((&parent, 7, 0x30000))),
        ],
        0,
        [page(1), page(2)].concat(),
    ));
    image.frames.push(frame(b"XTRA", IGNORABLE, b"a frame of tomorrow".to_vec(), b"with data".to_vec()));
    image.frames.push(pages(1, &[(0x8000, 1, 0, None)], ZSTD, PACKED_PAGE.to_vec()));
    image.frames.push(pages(2, &[(0, 1 << 20, 1, None)], 0, Vec::new()));
    image.frames.push(record("end of records", u64::MAX, cbor!([1.5, "β", []]).unwrap()));
    image.sealed()
}
