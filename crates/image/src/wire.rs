//! The fixed-size parts of an image and its numbers: preamble, frame head, seal, limits, checksums.
//!
//! All integers are little-endian. Everything here is a pure function between bytes and values; who reads and writes the
//! bytes, and in which order they are allowed, is in `reader.rs` and `writer.rs`.

use serde::Serialize;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The format version that this crate writes, and the newest that it reads.
pub const FORMAT: u32 = 1;
/// Bytes of a page. The format has one size on every architecture: larger pages are several of these.
pub const PAGE: usize = 4096;

/// The longest header.
pub const HEADER_MAX: usize = 1 << 20;
/// The longest body of a frame: of a record, a run table, a part of the index.
pub const BODY_MAX: usize = 16 << 20;
/// The longest data of a page frame, packed or not.
pub const DATA_MAX: usize = 4 << 20;
/// The most runs in one page frame.
pub const RUNS_MAX: usize = 1 << 16;
/// How deep arrays, maps and tags may be nested in the header and in a record.
pub const NESTING_MAX: usize = 64;
/// The most items (numbers, strings, arrays, …) in the header or in one record. What is larger is split into records.
pub const ITEMS_MAX: usize = 1 << 20;

/// `bardo`, a byte with the highest bit set, and a line end that a text-mode transfer would change.
pub(crate) const MAGIC: [u8; 8] = *b"bardo\x89\r\n";
pub(crate) const PREAMBLE: usize = 32;
pub(crate) const HEAD: usize = 48;
pub(crate) const SEAL_BODY: usize = 56;
/// The part of the index that goes into one frame; an entry is never split.
pub(crate) const INDEX_PART: usize = 1 << 20;

/// A reader that doesn't know a frame's type may skip it.
pub(crate) const IGNORABLE: u32 = 1;
/// The frame's data is zstd.
pub(crate) const ZSTD: u32 = 2;

pub(crate) type FrameType = [u8; 4];
pub(crate) const RECD: FrameType = *b"RECD";
pub(crate) const PAGES: FrameType = *b"PAGE";
pub(crate) const FAIL: FrameType = *b"FAIL";
pub(crate) const INDX: FrameType = *b"INDX";
pub(crate) const SEAL: FrameType = *b"SEAL";

/// The checksum of a body and its data: XXH3-64 of the data, seeded with that of the body.
pub(crate) fn sum(body: &[u8], data: &[u8]) -> u64 {
    xxh3_64_with_seed(data, xxh3_64(body))
}

/// The checksum of something small and fixed.
pub(crate) fn sum_of(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// Adds one index entry to the running hash of all entries.
pub(crate) fn chain(before: u64, entry: &[u8]) -> u64 {
    xxh3_64_with_seed(entry, before)
}

/// The zero bytes needed before data so that it begins at a multiple of [`PAGE`].
pub(crate) fn padding(position: u64) -> u32 {
    (position.wrapping_neg() % PAGE as u64) as u32
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// The first bytes of every image, of this format and of all later ones.
pub(crate) struct Preamble {
    pub format: u32,
    pub header_len: u32,
    pub header_sum: u64,
}

impl Preamble {
    pub fn encode(&self) -> [u8; PREAMBLE] {
        let mut out = [0; PREAMBLE];
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&self.format.to_le_bytes());
        out[12..16].copy_from_slice(&self.header_len.to_le_bytes());
        out[16..24].copy_from_slice(&self.header_sum.to_le_bytes());
        let sum = sum_of(&out[..24]);
        out[24..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// The fields, and whether the preamble's own checksum holds.
    pub fn decode(bytes: &[u8; PREAMBLE]) -> (Preamble, bool) {
        let fields = Preamble {
            format: u32_at(bytes, 8),
            header_len: u32_at(bytes, 12),
            header_sum: u64_at(bytes, 16),
        };
        (fields, u64_at(bytes, 24) == sum_of(&bytes[..24]))
    }
}

/// What stands before each frame's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub kind: FrameType,
    pub flags: u32,
    pub body_len: u32,
    pub pad_len: u32,
    pub data_len: u32,
    /// The frame's number from 0, its low 32 bits.
    pub number: u32,
    /// [`sum`] of body and data.
    pub sum: u64,
    /// The checksum in the head before this one; for the first frame, the preamble's.
    pub link: u64,
}

impl Head {
    pub fn encode(&self) -> [u8; HEAD] {
        let mut out = [0; HEAD];
        out[..4].copy_from_slice(&self.kind);
        for (slot, value) in out[4..24].chunks_exact_mut(4).zip([
            self.flags,
            self.body_len,
            self.pad_len,
            self.data_len,
            self.number,
        ]) {
            slot.copy_from_slice(&value.to_le_bytes());
        }
        out[24..32].copy_from_slice(&self.sum.to_le_bytes());
        out[32..40].copy_from_slice(&self.link.to_le_bytes());
        let sum = sum_of(&out[..40]);
        out[40..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// The fields, and the head's own checksum if it holds.
    pub fn decode(bytes: &[u8; HEAD]) -> (Head, Option<u64>) {
        let head = Head {
            kind: bytes[..4].try_into().expect("four bytes"),
            flags: u32_at(bytes, 4),
            body_len: u32_at(bytes, 8),
            pad_len: u32_at(bytes, 12),
            data_len: u32_at(bytes, 16),
            number: u32_at(bytes, 20),
            sum: u64_at(bytes, 24),
            link: u64_at(bytes, 32),
        };
        let own = u64_at(bytes, 40);
        (head, (own == sum_of(&bytes[..40])).then_some(own))
    }

    /// Bytes of the whole frame, this head included.
    pub fn frame_len(&self) -> u64 {
        HEAD as u64 + u64::from(self.body_len) + u64::from(self.pad_len) + u64::from(self.data_len)
    }

    pub fn is_known(&self) -> bool {
        [RECD, PAGES, FAIL, INDX, SEAL].contains(&self.kind)
    }

    /// The first rule of the format that this head breaks, in words; `at` is where the head begins. `Err(true)` means that
    /// a limit is exceeded.
    pub fn check(&self, at: u64) -> Result<(), (bool, String)> {
        let name = type_name(&self.kind);
        if self.body_len as usize > BODY_MAX {
            return Err((true, format!("a body of {} bytes, where {BODY_MAX} is the most", self.body_len)));
        }
        if self.data_len as usize > DATA_MAX {
            return Err((true, format!("data of {} bytes, where {DATA_MAX} is the most", self.data_len)));
        }
        if self.pad_len as usize >= PAGE {
            return Err((true, format!("padding of {} bytes, where {} is the most", self.pad_len, PAGE - 1)));
        }
        let raw_pages = self.kind == PAGES && self.flags & ZSTD == 0 && self.data_len > 0;
        let pad = if raw_pages { padding(at + HEAD as u64 + u64::from(self.body_len)) } else { 0 };
        if self.pad_len != pad && self.is_known() {
            return Err((false, format!("a {name} frame with {} bytes of padding, not {pad}", self.pad_len)));
        }
        if self.data_len != 0 && self.is_known() && self.kind != PAGES {
            return Err((false, format!("a {name} frame with data")));
        }
        Ok(())
    }
}

/// A frame's type as people read it.
pub(crate) fn type_name(kind: &FrameType) -> String {
    kind.escape_ascii().to_string()
}

/// What is in an image, in figures. The seal holds them, and a reader checks them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Bytes of the whole image.
    pub bytes: u64,
    /// Frames, the index and the seal included.
    pub frames: u64,
    /// Records.
    pub records: u64,
    /// Bytes of the pages whose content the image holds, before any compression.
    pub page_bytes: u64,
    /// What those take in the image.
    pub page_bytes_stored: u64,
    /// Bytes of pages that are all zero and take no room.
    pub zero_bytes: u64,
    /// Bytes of pages that another image holds.
    pub parent_bytes: u64,
}

/// The seal's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seal {
    /// Frames before the seal.
    pub frames: u64,
    /// Bytes of the image, the seal included.
    pub bytes: u64,
    /// Where the first index frame is, or the seal itself if nothing is indexed.
    pub index_at: u64,
    pub page_bytes: u64,
    pub page_bytes_stored: u64,
    pub zero_bytes: u64,
    pub parent_bytes: u64,
}

impl Seal {
    pub fn encode(&self) -> [u8; SEAL_BODY] {
        let mut out = [0; SEAL_BODY];
        for (slot, (_, value)) in out.chunks_exact_mut(8).zip(self.fields()) {
            slot.copy_from_slice(&value.to_le_bytes());
        }
        out
    }

    /// Its fields in their order, named for people.
    fn fields(&self) -> [(&'static str, u64); SEAL_BODY / 8] {
        [
            ("frames", self.frames),
            ("bytes", self.bytes),
            ("bytes before the index", self.index_at),
            ("bytes of pages", self.page_bytes),
            ("bytes of stored pages", self.page_bytes_stored),
            ("bytes of zero pages", self.zero_bytes),
            ("bytes of the parent's pages", self.parent_bytes),
        ]
    }

    /// The first difference from what was found in the image, in words.
    pub fn differs(&self, found: &Seal) -> Option<String> {
        let pairs = self.fields().into_iter().zip(found.fields());
        let mut differing = pairs.filter(|((_, said), (_, found))| said != found);
        differing.next().map(|((name, said), (_, found))| format!("{said} {name}, and there are {found}"))
    }

    pub fn decode(body: &[u8]) -> Option<Seal> {
        (body.len() == SEAL_BODY).then(|| Seal {
            frames: u64_at(body, 0),
            bytes: u64_at(body, 8),
            index_at: u64_at(body, 16),
            page_bytes: u64_at(body, 24),
            page_bytes_stored: u64_at(body, 32),
            zero_bytes: u64_at(body, 40),
            parent_bytes: u64_at(body, 48),
        })
    }
}
