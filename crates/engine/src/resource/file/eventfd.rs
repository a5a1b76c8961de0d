//! Event counters (man 2 eventfd).
//!
//! **In the kernel**: a number of 64 bits. A write adds to it, and waits while the sum would exceed 2^64 − 2; a read waits
//! until it isn't 0, and takes all of it, or 1 if it was made with EFD_SEMAPHORE.
//!
//! **In the image**: `file/eventfd`: the count, whether it is a semaphore, flags.
//!
//! **Taken how**: fdinfo. A read would take the count away, and wake those who wait to write.
//!
//! **Put back how**: eventfd2(2), and a write of the count. Who waited in read(2) or write(2) makes that call again.
//!
//! **Not saved**: `eventfd-id` of fdinfo, by which `/proc` alone tells eventfds apart. Kernels before 6.5 don't show whether it
//! is a semaphore: refused there. So is one that a process outside the tree has too, unless the user vouches for it.

use std::os::fd::{AsFd, OwnedFd};

use bardo_image::Record;
use bardo_kernel::{eventfd, fs};
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
pub struct Eventfd;

/// The record's name.
pub const NAME: &str = "file/eventfd";

/// The record of an eventfd.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OpenEventfd {
    /// What a read would return (fdinfo, `eventfd-count`).
    pub count: u64,
    /// Whether a read takes 1 (fdinfo, `eventfd-semaphore`).
    pub semaphore: bool,
    /// Access mode and status flags (fdinfo, `flags`).
    pub flags: i32,
}

impl Kind for Eventfd {
    fn support(&self) -> Support {
        Support {
            kind: NAME,
            kept: "count, EFD_SEMAPHORE, status flags",
            not_kept: "before Linux 6.5, which doesn't show EFD_SEMAPHORE: refused",
            privilege: "",
            workload: "file/eventfd",
        }
    }

    fn records(&self) -> &'static [&'static str] {
        &[NAME]
    }

    fn claims(&self, file: &Seen, _: &Scene<'_>) -> bool {
        nameless::is(file, "anon_inode:[eventfd]")
    }

    fn collect(&self, file: &Seen, scene: &Scene<'_>, out: &mut Collected) -> Result<()> {
        if !nameless::is_ours(file, scene, "eventfd", libc::O_RDWR, out)? {
            return Ok(());
        }
        let key = "eventfd-count";
        let count = nameless::must(nameless::told_hex(file, scene, key)?, file, scene, key)?;
        let mut refuse = |what: String, why: &str, remedy: &str| {
            out.refuse(scene, file, NAME, what, why, remedy);
        };
        let Some(semaphore) = nameless::told::<u8>(file, scene, "eventfd-semaphore")? else {
            refuse(
                "eventfd".into(),
                "this kernel doesn't show whether it counts as a semaphore does",
                "use Linux 6.5 or later",
            );
            return Ok(());
        };
        if count > eventfd::COUNT_MAX {
            refuse(
                format!("eventfd, with a count of {count}"),
                "only the kernel itself can bring it that far",
                "have it read before",
            );
            return Ok(());
        }
        out.record(NAME, file.id, &OpenEventfd { count, semaphore: semaphore != 0, flags: file.flags })
    }

    fn take(&self, record: &Record, image: &mut FilesImage) -> Result<()> {
        let file: OpenEventfd = image::read(record)?;
        if file.flags & !(STATUS | libc::O_RDWR) != 0 || file.count > eventfd::COUNT_MAX {
            let why = format!("an eventfd with the flags {:#o} and the count {}", file.flags, file.count);
            return Err(image::wrong(record, why));
        }
        image.add(record, Box::new(file))
    }
}

impl OpenEventfd {
    fn make(&self) -> bardo_kernel::Result<OwnedFd> {
        let kind = if self.semaphore { libc::EFD_SEMAPHORE } else { 0 };
        let fd = eventfd::make(kind | libc::EFD_NONBLOCK)?;
        if self.count > 0 {
            fs::write(fd.as_fd(), &self.count.to_ne_bytes())?;
        }
        nameless::set_status(&fd, self.flags)?;
        Ok(fd)
    }
}

impl Saved for OpenEventfd {
    fn what(&self) -> String {
        "eventfd".into()
    }

    fn check(&self, _: &Rules<'_>) -> Vec<Hindrance> {
        Vec::new()
    }

    fn open(&self, _: u64, _: &mut Making<'_>) -> Result<OwnedFd> {
        self.make().doing("making an eventfd", None)
    }
}
