//! Directories.
//!
//! **In the kernel**: an open file whose offset says how far getdents64(2) has read. On some file systems it counts entries
//! (tmpfs), on others it is a hash of a name (ext4, btrfs: an index), a cookie that only the file system understands.
//!
//! **In the image**: `file/directory`: path, flags, offset, identity.
//!
//! **Taken how**: the link, stat and fdinfo of `/proc/PID/fd/N`.
//!
//! **Put back how**: open(2) by the path, lseek(2) to the offset. What a directory holds may have changed, as it may under a
//! process that reads it; that isn't reported.
//!
//! **Not saved**: which entries were already read, other than by the offset. Where it is a cookie, reading goes on at the
//! right entry on the same file system; on a copy it may repeat or miss entries. tmpfs and overlayfs are exact only as
//! long as nothing is added or removed. dnotify (F_NOTIFY) is refused, as its owner is.

use std::os::fd::OwnedFd;

use bardo_image::Record;
use serde::{Deserialize, Serialize};

use super::path::{Place, REOPEN, Reach};
use super::pool::Making;
use super::scene::{Scene, Seen};
use super::survey::Collected;
use super::{FilesImage, Hindrance, Kind, Rules, Saved, image};
use crate::error::Result;
use crate::support::Support;

/// The kind.
#[derive(Debug, Clone, Copy)]
pub struct Directory;

/// The record's name.
pub const NAME: &str = "file/directory";

/// The record of an open directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OpenDirectory {
    /// Where it is, and how it was open.
    #[serde(flatten)]
    pub place: Place,
    /// The offset (fdinfo, `pos`).
    pub offset: i64,
}

impl Kind for Directory {
    fn support(&self) -> Support {
        Support {
            kind: NAME,
            kept: "path, status flags, how far it was read",
            not_kept: "which entries were read, beyond what the file system's own offset says; dnotify: refused",
            privilege: "",
            workload: "file/directory",
        }
    }

    fn records(&self) -> &'static [&'static str] {
        &[NAME]
    }

    fn claims(&self, file: &Seen, _: &Scene<'_>) -> bool {
        file.stat.kind() == libc::S_IFDIR && file.reach == Reach::Same
    }

    fn collect(&self, file: &Seen, scene: &Scene<'_>, out: &mut Collected) -> Result<()> {
        if !scene.is_plain(file, out) {
            return Ok(());
        }
        let place = Place::of(&file.link, file.flags & REOPEN, &file.stat);
        out.record(NAME, file.id, &OpenDirectory { place, offset: file.pos })
    }

    fn take(&self, record: &Record, image: &mut FilesImage) -> Result<()> {
        let file: OpenDirectory = image::read(record)?;
        file.place.validate(REOPEN, Some(libc::S_IFDIR)).map_err(|why| image::wrong(record, why))?;
        image.add(record, Box::new(file))
    }
}

impl Saved for OpenDirectory {
    fn what(&self) -> String {
        format!("directory {}", self.place.show())
    }

    fn check(&self, rules: &Rules<'_>) -> Vec<Hindrance> {
        self.place.check("directory", false, rules)
    }

    fn open(&self, _: u64, _: &mut Making<'_>) -> Result<OwnedFd> {
        self.place.open_at(self.offset)
    }
}
