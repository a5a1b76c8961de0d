//! Runs of pages, and the frames they travel in.
//!
//! A page frame says, for a stretch of one memory object (a *space*), which pages the image holds, which are zero, and
//! which another image holds. What it doesn't mention isn't in this image at all. A later frame overrules an earlier one,
//! so pages that were copied while the tree ran can be given again.
//!
//! Checksum and compression are the dear part, and need neither the stream nor what came before: [`prepare_pages`] is a
//! pure function for any thread, and [`crate::Writer::write_prepared`] only adds a head and hands the bytes on. Pages that
//! aren't compressed are never copied.

use crate::header::Identity;
use crate::wire::{self, DATA_MAX, PAGE, RUNS_MAX};
use std::borrow::Cow;
use std::io;

/// Pages that follow one another and are all of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Run {
    /// Where in the space the first page is: a byte position, a multiple of [`PAGE`].
    pub at: u64,
    /// How many pages; never 0.
    pub pages: u32,
    /// Where their content is.
    pub kind: RunKind,
}

/// Where the content of a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RunKind {
    /// In this frame.
    Data,
    /// Nowhere: the pages are zero.
    Zero,
    /// In another image: the parent, or one of its ancestors.
    Parent {
        /// The image that really holds the content (as data, or as zero pages), not one that would name a third.
        image: Identity,
        /// The space there; spaces are numbered anew in each image.
        space: u64,
        /// The position there of the run's first page.
        at: u64,
    },
}

impl Run {
    /// The bytes it stands for.
    pub fn bytes(&self) -> u64 {
        u64::from(self.pages) * PAGE as u64
    }

    /// The position just after it.
    pub fn end(&self) -> u64 {
        self.at.saturating_add(self.bytes())
    }
}

const DATA: u32 = 0;
const ZERO: u32 = 1;
const PARENT: u32 = 2;

/// A page frame's body: space, number of runs, runs in ascending order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub space: u64,
    pub runs: Vec<Run>,
}

/// How many bytes of each kind the runs stand for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    pub data: u64,
    pub zero: u64,
    pub parent: u64,
}

impl Table {
    pub fn encode(space: u64, runs: &[Run]) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 + 16 * runs.len());
        out.extend_from_slice(&space.to_le_bytes());
        out.extend_from_slice(&(runs.len() as u32).to_le_bytes());
        out.extend_from_slice(&0u32.to_le_bytes());
        for run in runs {
            let kind = match run.kind {
                RunKind::Data => DATA,
                RunKind::Zero => ZERO,
                RunKind::Parent { .. } => PARENT,
            };
            out.extend_from_slice(&run.at.to_le_bytes());
            out.extend_from_slice(&run.pages.to_le_bytes());
            out.extend_from_slice(&kind.to_le_bytes());
            if let RunKind::Parent { image, space, at } = run.kind {
                out.extend_from_slice(&image.0);
                out.extend_from_slice(&space.to_le_bytes());
                out.extend_from_slice(&at.to_le_bytes());
            }
        }
        out
    }

    /// The table, or at which byte of the body it goes wrong and how.
    pub fn decode(body: &[u8]) -> Result<Table, (usize, String)> {
        if body.len() < 16 {
            return Err((0, "the run table is shorter than its head".into()));
        }
        let count = wire::u32_at(body, 8);
        if wire::u32_at(body, 12) != 0 {
            return Err((12, "a reserved field of the run table isn't zero".into()));
        }
        let mut runs = Vec::new();
        let mut rest = &body[16..];
        let here = |rest: &[u8]| body.len() - rest.len();
        for _ in 0..count {
            let missing = |rest: &[u8]| (here(rest), format!("the run table ends before its {count} runs"));
            let (run, after) = rest.split_at_checked(16).ok_or_else(|| missing(rest))?;
            let kind = match wire::u32_at(run, 12) {
                DATA => RunKind::Data,
                ZERO => RunKind::Zero,
                PARENT => {
                    let (source, after) = after.split_at_checked(32).ok_or_else(|| missing(after))?;
                    rest = after;
                    RunKind::Parent {
                        image: Identity(source[..16].try_into().expect("sixteen bytes")),
                        space: wire::u64_at(source, 16),
                        at: wire::u64_at(source, 24),
                    }
                }
                kind => return Err((here(rest) + 12, format!("no run has the kind {kind}"))),
            };
            if !matches!(kind, RunKind::Parent { .. }) {
                rest = after;
            }
            runs.push(Run { at: wire::u64_at(run, 0), pages: wire::u32_at(run, 8), kind });
        }
        if !rest.is_empty() {
            return Err((here(rest), format!("{} bytes after the last run", rest.len())));
        }
        check(&runs).map_err(|what| (16, what))?;
        Ok(Table { space: wire::u64_at(body, 0), runs })
    }

    pub fn extent(runs: &[Run]) -> Extent {
        runs.iter().fold(Extent::default(), |mut sum, run| {
            match run.kind {
                RunKind::Data => sum.data += run.bytes(),
                RunKind::Zero => sum.zero += run.bytes(),
                RunKind::Parent { .. } => sum.parent += run.bytes(),
            }
            sum
        })
    }
}

/// What holds for the runs of every page frame, whoever wrote it.
fn check(runs: &[Run]) -> Result<(), String> {
    if runs.is_empty() || runs.len() > RUNS_MAX {
        return Err(format!("{} runs in a page frame, which holds 1 to {RUNS_MAX}", runs.len()));
    }
    let mut free_from = 0;
    for run in runs {
        let end = run.at.checked_add(run.bytes());
        let source_end = match run.kind {
            RunKind::Parent { at, .. } => {
                at.checked_add(run.bytes()).filter(|_| at.is_multiple_of(PAGE as u64))
            }
            _ => Some(0),
        };
        match end {
            _ if run.pages == 0 => return Err(format!("a run of no pages at {:#x}", run.at)),
            _ if !run.at.is_multiple_of(PAGE as u64) => {
                return Err(format!("a run at {:#x}, which is not a multiple of {PAGE}", run.at));
            }
            _ if run.at < free_from => {
                return Err(format!("the run at {:#x} begins before the one ahead of it ends", run.at));
            }
            Some(end) if source_end.is_some() => free_from = end,
            _ => return Err(format!("the run at {:#x} passes the end of its space", run.at)),
        }
    }
    let data = Table::extent(runs).data;
    if data > DATA_MAX as u64 {
        return Err(format!("{data} bytes of pages in one frame, which holds {DATA_MAX}"));
    }
    Ok(())
}

/// A page frame, complete but for its place in the stream.
#[derive(Debug, Clone)]
pub struct PreparedPages<'a> {
    pub(crate) body: Vec<u8>,
    pub(crate) data: Cow<'a, [u8]>,
    pub(crate) zstd: bool,
    pub(crate) sum: u64,
    pub(crate) space: u64,
    pub(crate) first: u64,
    pub(crate) end: u64,
    pub(crate) extent: Extent,
    /// Why it can't be written. It is reported by the writer, whose caller can do something about it.
    pub(crate) fault: Option<String>,
}

impl PreparedPages<'_> {
    /// The same, owning its bytes.
    pub fn into_owned(self) -> PreparedPages<'static> {
        PreparedPages { data: Cow::Owned(self.data.into_owned()), ..self }
    }

    /// The memory of its data, if it owns it.
    pub fn into_data(self) -> Option<Vec<u8>> {
        match self.data {
            Cow::Owned(data) => Some(data),
            Cow::Borrowed(_) => None,
        }
    }

    /// Bytes of page data as they will be stored.
    pub fn stored(&self) -> usize {
        self.data.len()
    }
}

/// Prepares a page frame: `data` holds the pages of all [`RunKind::Data`] runs, in order. With a zstd `level` the data is
/// compressed, unless that saves less than an eighth; else it is borrowed. Runs that break the format's rules (ascending,
/// page-aligned, within the limits, matching `data`) are reported when the frame is written.
pub fn prepare_pages<'a>(space: u64, runs: &[Run], data: &'a [u8], level: Option<i32>) -> PreparedPages<'a> {
    match level.map(Packer::new).transpose() {
        Ok(mut packer) => prepare(space, runs, data, packer.as_mut()),
        Err(error) => {
            PreparedPages { fault: Some(format!("zstd: {error}")), ..prepare(space, runs, data, None) }
        }
    }
}

/// As [`prepare_pages`], with data that goes along: the frame can be sent to another thread without a copy, and
/// [`PreparedPages::into_data`] gives the memory back for the next one. If the data was compressed, its own memory isn't
/// needed any more and comes back at once.
pub fn prepare_owned(
    space: u64,
    runs: &[Run],
    data: Vec<u8>,
    packer: Option<&mut Packer>,
) -> (PreparedPages<'static>, Option<Vec<u8>>) {
    let PreparedPages { body, data: packed, zstd, sum, space, first, end, extent, fault } =
        prepare(space, runs, &data, packer);
    let (data, spare) = match packed {
        Cow::Owned(packed) => (packed, Some(data)),
        Cow::Borrowed(_) => (data, None),
    };
    (PreparedPages { body, data: Cow::Owned(data), zstd, sum, space, first, end, extent, fault }, spare)
}

/// Prepares compressed page frames one after another with the same working memory; one per thread.
pub struct Packer(zstd::bulk::Compressor<'static>);

impl Packer {
    /// A packer of this zstd level.
    pub fn new(level: i32) -> io::Result<Packer> {
        zstd::bulk::Compressor::new(level).map(Packer)
    }

    /// As [`prepare_pages`].
    pub fn prepare<'a>(&mut self, space: u64, runs: &[Run], data: &'a [u8]) -> PreparedPages<'a> {
        prepare(space, runs, data, Some(self))
    }

    fn pack(&mut self, data: &[u8]) -> Option<Vec<u8>> {
        // Room for seven eighths only: zstd gives up early on what doesn't compress, and its error means just that.
        let mut packed = Vec::with_capacity(data.len() - data.len() / 8);
        self.0.compress_to_buffer(data, &mut packed).ok()?;
        Some(packed)
    }
}

fn prepare<'a>(space: u64, runs: &[Run], data: &'a [u8], packer: Option<&mut Packer>) -> PreparedPages<'a> {
    let fault = if runs.is_empty() && data.is_empty() { Ok(()) } else { check(runs) }.err();
    let extent = if fault.is_none() { Table::extent(runs) } else { Extent::default() };
    let fault = fault.or_else(|| {
        (extent.data != data.len() as u64)
            .then(|| format!("{} bytes of data for runs of {}", data.len(), extent.data))
    });
    let sound = fault.is_none();
    let body = if sound { Table::encode(space, runs) } else { Vec::new() };
    let packed = packer.filter(|_| sound && !data.is_empty()).and_then(|packer| packer.pack(data));
    let zstd = packed.is_some();
    let data = packed.map_or(Cow::Borrowed(data), Cow::Owned);
    PreparedPages {
        sum: if sound { wire::sum(&body, &data) } else { 0 },
        body,
        data,
        zstd,
        space,
        first: runs.first().map_or(0, |run| run.at),
        end: runs.last().map_or(0, Run::end),
        extent,
        fault,
    }
}

/// Whether all bytes are zero.
pub fn is_zero(page: &[u8]) -> bool {
    // Most pages that aren't zero show it at once, so look in small steps; within a step there is no branch, which lets
    // the compiler use vector registers.
    let mut steps = page.chunks_exact(256);
    steps.by_ref().all(|step| {
        let words = step.chunks_exact(8);
        words.fold(0, |sum, word| sum | u64::from_ne_bytes(word.try_into().expect("eight bytes"))) == 0
    }) && steps.remainder().iter().all(|byte| *byte == 0)
}
