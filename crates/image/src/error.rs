//! Why an image can't be used: what is wrong, at which byte, in which frame.
//!
//! One type for every way of reading. The kind is for programs (the exit code, whether a retry makes sense), the rest is
//! for people. The position is the offset in the stream, counted from the image's first byte, of the thing that is wrong:
//! a frame's header, or a byte inside its body.

use std::fmt;
use std::io;

/// What sort of trouble it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The stream doesn't begin as an image does.
    NotAnImage,
    /// The stream ends before the seal.
    Truncated,
    /// Bytes are not what was written: a checksum, a link or a rule of the format is broken.
    Damaged,
    /// A newer bardo wrote it, using something that this one doesn't know.
    Newer,
    /// The checkpoint that wrote it failed, and the image says why.
    Incomplete,
    /// Something is larger or deeper than the format allows.
    Limit,
    /// A record is sound, yet isn't what its reader expects of that kind.
    Record,
    /// The stream couldn't be read, or the copy couldn't be written.
    Io(io::ErrorKind),
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ErrorKind::NotAnImage => "not an image",
            ErrorKind::Truncated => "truncated image",
            ErrorKind::Damaged => "damaged image",
            ErrorKind::Newer => "image of a newer bardo",
            ErrorKind::Incomplete => "incomplete image",
            ErrorKind::Limit => "image beyond the format's limits",
            ErrorKind::Record => "unexpected record",
            ErrorKind::Io(_) => "input/output error",
        })
    }
}

/// Why an image can't be used, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    at: u64,
    frame: Option<u64>,
    what: String,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, at: u64, frame: Option<u64>, what: impl Into<String>) -> Error {
        Error { kind, at, frame, what: what.into() }
    }

    pub(crate) fn io(error: &io::Error, at: u64, frame: Option<u64>, doing: &str) -> Error {
        Error::new(ErrorKind::Io(error.kind()), at, frame, format!("{doing}: {error}"))
    }

    /// What sort of trouble it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The byte, counted from the start of the image, where the trouble is.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// The number of the frame, from 0, or `None` before the first frame and where there is no telling.
    pub fn frame(&self) -> Option<u64> {
        self.frame
    }

    /// In words, what is wrong there. For [`ErrorKind::Incomplete`] this holds the reason that the image gives.
    pub fn what(&self) -> &str {
        &self.what
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: byte {}", self.kind, self.at)?;
        if let Some(frame) = self.frame {
            write!(f, " (frame {frame})")?;
        }
        write!(f, ": {}", self.what)
    }
}

impl std::error::Error for Error {}
