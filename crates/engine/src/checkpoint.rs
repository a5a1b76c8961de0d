//! The flow of a checkpoint.

use std::path::PathBuf;

use crate::error::Result;
use crate::watch::Watch;

/// What becomes of the tree once its state is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum After {
    /// It runs on.
    #[default]
    Run,
    /// It is ended by SIGKILL, once the image is sealed and durable.
    Kill,
    /// It is stopped as by SIGSTOP, once the image is sealed and durable.
    Stop,
}

/// Where the image goes.
#[derive(Debug)]
pub enum Sink {
    /// A file: written to a temporary name beside it, synced, then renamed.
    File {
        /// The final name.
        path: PathBuf,
        /// Replace a file that is there.
        force: bool,
    },
    /// A stream that is already open (standard output, a pipe, a socket).
    Stream(std::os::fd::OwnedFd),
}

/// What to checkpoint, and how.
#[derive(Debug)]
pub struct Request {
    /// The root of the tree.
    pub pid: i32,
    /// Where the image goes.
    pub sink: Sink,
    /// What becomes of the tree.
    pub after: After,
    /// Resources outside the tree that the user vouches for, as a refusal spells them (`pipe:[4711]`, `/dev/pts/3`).
    pub external: Vec<String>,
    /// zstd level for pages; none: stored raw.
    pub compress: Option<i32>,
}

/// What a checkpoint did.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The image's identity, 32 hexadecimal digits.
    pub identity: String,
    /// How many processes, zombies included.
    pub processes: u64,
    /// How many threads.
    pub threads: u64,
    /// How many memory areas.
    pub areas: u64,
    /// How many descriptors.
    pub descriptors: u64,
    /// Bytes of pages stored.
    pub page_bytes: u64,
    /// Bytes of pages elided because they hold only zeros.
    pub zero_bytes: u64,
    /// Bytes of the image.
    pub image_bytes: u64,
    /// How long the tree stood still, in microseconds.
    pub pause_us: u64,
    /// From the call to the sealed image, in microseconds.
    pub total_us: u64,
    /// What belongs to the outside, as it is named for `--external`.
    pub externals: Vec<String>,
    /// What was found and put right of an earlier bardo that died (`pid 4127: a mapping of an unfinished checkpoint`).
    pub cleaned: Vec<String>,
}

/// Checkpoints a tree.
///
/// # Errors
/// See [`crate::Error`]. Whatever it is, the tree goes on unharmed and the image is whole or absent.
pub fn checkpoint(_request: Request, _watch: &dyn Watch) -> Result<Report> {
    Err(crate::Error::Bug("not built yet".into()))
}

/// Says everything that stands in the way of a checkpoint without making one: freezes, looks, thaws.
///
/// # Errors
/// As [`checkpoint`]; the refusals are the result here.
pub fn rehearse(_pid: i32, _external: &[String], _watch: &dyn Watch) -> Result<Vec<crate::Refusal>> {
    Err(crate::Error::Bug("not built yet".into()))
}
