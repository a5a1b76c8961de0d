//! Signals that are read (man 2 signalfd).
//!
//! **In the kernel**: a set of signals, and nothing else: who reads takes one of its own that is pending. So it means something
//! else in each process that has it.
//!
//! **In the image**: `file/signalfd`: the signals, status flags. What is pending is in the records of processes and threads.
//!
//! **Taken how**: fdinfo.
//!
//! **Put back how**: signalfd4(2). An epoll's entry for it belongs to the process that made it, whose signals it hears of; it
//! is made by steps in that process.
//!
//! **Not saved**: one that a process outside the tree has too is refused, unless the user vouches for it.

use std::os::fd::OwnedFd;

use bardo_image::Record;
use bardo_kernel::signalfd;
use serde::{Deserialize, Serialize};

use super::nameless::{self, STATUS};
use super::pool::Making;
use super::scene::{Scene, Seen};
use super::survey::Collected;
use super::{FilesImage, Hindrance, Kind, Rules, Saved, image};
use crate::error::{Doing, Result};
use crate::support::Support;

/// The kind.
#[derive(Debug, Clone, Copy)]
pub struct Signalfd;

/// The record's name.
pub const NAME: &str = "file/signalfd";
/// What the kernel calls it.
pub const LINK: &str = "anon_inode:[signalfd]";

/// The record of a signalfd.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OpenSignalfd {
    /// The signals; bit 0 is signal 1 (fdinfo, `sigmask`).
    pub mask: u64,
    /// Access mode and status flags (fdinfo, `flags`).
    pub flags: i32,
}

impl Kind for Signalfd {
    fn support(&self) -> Support {
        Support {
            kind: NAME,
            kept: "its signals, status flags",
            not_kept: "",
            privilege: "",
            workload: "file/signalfd",
        }
    }

    fn records(&self) -> &'static [&'static str] {
        &[NAME]
    }

    fn claims(&self, file: &Seen, _: &Scene<'_>) -> bool {
        nameless::is(file, LINK)
    }

    fn collect(&self, file: &Seen, scene: &Scene<'_>, out: &mut Collected) -> Result<()> {
        if !nameless::is_ours(file, scene, "signalfd", libc::O_RDWR, out)? {
            return Ok(());
        }
        let key = "sigmask";
        let mask = nameless::must(nameless::told_hex(file, scene, key)?, file, scene, key)?;
        out.record(NAME, file.id, &OpenSignalfd { mask, flags: file.flags })
    }

    fn take(&self, record: &Record, image: &mut FilesImage) -> Result<()> {
        let file: OpenSignalfd = image::read(record)?;
        if file.flags & !(STATUS | libc::O_RDWR) != 0 {
            return Err(image::wrong(record, format!("a signalfd with the flags {:#o}", file.flags)));
        }
        image.add(record, Box::new(file))
    }
}

impl Saved for OpenSignalfd {
    fn what(&self) -> String {
        "signalfd".into()
    }

    fn check(&self, _: &Rules<'_>) -> Vec<Hindrance> {
        Vec::new()
    }

    fn open(&self, _: u64, _: &mut Making<'_>) -> Result<OwnedFd> {
        let make = || {
            let fd = signalfd::make(self.mask, 0)?;
            nameless::set_status(&fd, self.flags)?;
            Ok(fd)
        };
        make().doing("making a signalfd", None)
    }
}
