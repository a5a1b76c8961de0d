//! Open memfds (man 2 memfd_create).
//!
//! **In the kernel**: a file on the kernel's own tmpfs, with a name that only `/proc` shows, and with seals: rules of what nobody may do
//! to it any more. Seals belong to the inode; they can be added, never removed.
//!
//! **In the image**: `file/memfd`: flags, offset, and the id of the inode, whose record (`memory/inode`: name, mode, seals) and
//! content are beside those of memory: what is open and mapped is there once.
//!
//! **Taken how**: the link, stat and fdinfo of `/proc/PID/fd/N`; F_GET_SEALS and the content through an opening of our own.
//!
//! **Put back how**: memfd_create(2), once per inode; each open file is an opening of that, by `/proc/self/fd/N`. Content, mode
//! and seals come after: what is open to write stays so under F_SEAL_WRITE and F_SEAL_FUTURE_WRITE, as it was. See
//! [`super::kept`].
//!
//! **Not saved**: inode number, access and change times, extended attributes, allocated pages that are all zero. Refused: one that a
//! process outside the tree has too (`memory/leak`), one of huge pages (`file/hugetlb`), secret memory.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use bardo_image::Record;
use serde::{Deserialize, Serialize};

use super::kept::OpenKept;
use super::path::Reach;
use super::pool::Making;
use super::scene::{Scene, Seen};
use super::survey::Collected;
use super::{FilesImage, Hindrance, Kind, Rules, Saved};
use crate::error::Result;
use crate::support::Support;

/// The kind.
#[derive(Debug, Clone, Copy)]
pub struct Memfd;

/// The record's name.
pub const NAME: &str = "file/memfd";

/// The record of an open memfd.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OpenMemfd(pub OpenKept);

impl Kind for Memfd {
    fn support(&self) -> Support {
        Support {
            kind: NAME,
            kept: "name, content, size, mode, seals; one inode for all who have it open or mapped; flags, offset",
            not_kept: "inode number, access and change times; of huge pages, or of a process outside too: refused",
            privilege: "",
            workload: "file/memfd",
        }
    }

    fn records(&self) -> &'static [&'static str] {
        &[NAME]
    }

    fn claims(&self, file: &Seen, scene: &Scene<'_>) -> bool {
        file.flags & libc::O_PATH == 0
            && file.stat.kind() == libc::S_IFREG
            && file.reach == Reach::Deleted
            && file.link.as_os_str().as_bytes().starts_with(b"/memfd:")
            // Those of huge pages are on another file system.
            && scene.is_of_kernels_tmpfs(file)
    }

    fn collect(&self, file: &Seen, scene: &Scene<'_>, out: &mut Collected) -> Result<()> {
        OpenKept::collect(NAME, file, scene, out)
    }

    fn take(&self, record: &Record, image: &mut FilesImage) -> Result<()> {
        let file = OpenMemfd(OpenKept::take(record, image)?);
        image.add(record, Box::new(file))
    }
}

impl Saved for OpenMemfd {
    fn what(&self) -> String {
        format!("memfd (inode {} of the image)", self.0.inode)
    }

    fn check(&self, _: &Rules<'_>) -> Vec<Hindrance> {
        // The inode is memory's, and nothing has to be there for it.
        Vec::new()
    }

    fn open(&self, _: u64, making: &mut Making<'_>) -> Result<OwnedFd> {
        self.0.open(&self.what(), making)
    }
}
