//! Regular files with a name.
//!
//! **In the kernel**: an open file is a path walked once, an access mode, status flags and an offset; the content belongs
//! to the inode, which the file system keeps.
//!
//! **In the image**: `file/regular`: path, flags, offset, and what the file was like (size, modification time, inode), so that
//! a restart knows whether it is still the same. Not the content.
//!
//! **Taken how**: the link, stat and fdinfo of `/proc/PID/fd/N`. The offset comes from there, not from lseek(2), which
//! would be a call on the tree's own open file.
//!
//! A file whose name was removed while it has another one is looked for where it was, and in all directories that the tree uses;
//! it is recorded by that name.
//!
//! **Put back how**: open(2) by the path with the old flags, lseek(2). A file that changed is reported first; `--files
//! ignore-changes` goes on with it. One that is gone is always an obstacle.
//!
//! **Not saved**: content; leases and signal owners are refused. An open file that is shared with a
//! process outside the tree isn't shared with it after a restart. Hints of posix_fadvise(2) and F_SET_RW_HINT. Files
//! without a name are [`super::unlinked`], those of `/proc` and `/sys` [`super::proc`].

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
pub struct Regular;

/// The record's name.
pub const NAME: &str = "file/regular";

/// The record of an open regular file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OpenRegular {
    /// Where it is, and how it was open.
    #[serde(flatten)]
    pub place: Place,
    /// The offset (fdinfo, `pos`).
    pub offset: i64,
}

impl Kind for Regular {
    fn support(&self) -> Support {
        Support {
            kind: NAME,
            kept: "path, access mode, status flags, offset; shared offsets stay shared",
            not_kept: "content (the file system has it; a change is reported); leases, F_SETOWN: refused",
            privilege: "",
            workload: "file/regular",
        }
    }

    fn records(&self) -> &'static [&'static str] {
        &[NAME]
    }

    fn claims(&self, file: &Seen, _: &Scene<'_>) -> bool {
        file.stat.kind() == libc::S_IFREG && file.reach == Reach::Same
    }

    fn collect(&self, file: &Seen, scene: &Scene<'_>, out: &mut Collected) -> Result<()> {
        if !scene.is_plain(file, out) {
            return Ok(());
        }
        let place = Place::of(&file.link, file.flags & REOPEN, &file.stat);
        out.record(NAME, file.id, &OpenRegular { place, offset: file.pos })
    }

    fn take(&self, record: &Record, image: &mut FilesImage) -> Result<()> {
        let file: OpenRegular = image::read(record)?;
        file.place.validate(REOPEN, Some(libc::S_IFREG)).map_err(|why| image::wrong(record, why))?;
        if file.offset < 0 {
            return Err(image::wrong(record, format!("the offset {}", file.offset)));
        }
        image.add(record, Box::new(file))
    }
}

impl Saved for OpenRegular {
    fn what(&self) -> String {
        format!("regular file {}", self.place.show())
    }

    fn check(&self, rules: &Rules<'_>) -> Vec<Hindrance> {
        self.place.check("regular file", true, rules)
    }

    fn open(&self, _: u64, _: &mut Making<'_>) -> Result<OwnedFd> {
        self.place.open_at(self.offset)
    }
}
