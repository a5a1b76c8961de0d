//! An image: what a checkpoint writes and a restart reads. Bytes only; nothing here knows a process.
//!
//! ```text
//! preamble   magic, format version, length and checksum of the header       32 bytes
//! header     CBOR map: identity, parent, command, host needs, tree summary
//! frame      48-byte head, body, padding, data                              any number
//!   RECD     a record: CBOR map {kind, id, body}
//!   PAGE     runs of pages of one memory object; data starts at a multiple of 4096 if it isn't compressed
//!   FAIL     why this image is incomplete; nothing follows
//! INDX       where each record and page frame is
//! SEAL       totals, and where the index begins; always the last 104 bytes
//! ```
//!
//! An image is written in one pass and read in one pass, neither seeks: a pipe will do. In a file, [`RandomAccess`] finds
//! the index from the end. Each frame's head carries the checksum of the head before it, so that a frame can't be changed,
//! removed, moved or borrowed from another image without notice.
//!
//! An image is hostile input. No length, offset or count in it is believed before the bytes are there, and memory is
//! taken only as they arrive. `docs/image-format.md` is the specification.
//!
//! Start with [`Writer`] and [`Reader`].

#![forbid(unsafe_code)]

mod cbor;
mod copy;
mod error;
mod header;
mod index;
mod outline;
mod pages;
mod reader;
mod wire;
mod writer;

pub use cbor::Blob;
pub use ciborium::Value;
pub use copy::{copy, verify};
pub use error::{Error, ErrorKind};
pub use header::{Fields, Header, Host, Identity, NotAnIdentity};
pub use index::{PagesAt, RandomAccess, ReadAt, RecordAt, Stored};
pub use outline::{FrameLine, Outline, RecordLine, SpaceLine, Trouble, show};
pub use pages::{Packer, PreparedPages, Run, RunKind, is_zero, prepare_owned, prepare_pages};
pub use reader::{Frame, Pages, Reader, Record};
pub use wire::{BODY_MAX, DATA_MAX, FORMAT, HEADER_MAX, ITEMS_MAX, NESTING_MAX, PAGE, RUNS_MAX, Summary};
pub use writer::Writer;
