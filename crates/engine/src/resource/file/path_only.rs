//! Descriptors that only name a file: O_PATH (man 2 open).
//!
//! **In the kernel**: a place in the tree of names, for fstat(2), fchdir(2), the `…at` calls and fexecve(2). The file behind
//! it isn't open: there is no offset, no access mode, and no lock.
//!
//! **In the image**: `file/path-only`: path, flags, identity.
//!
//! **Taken how**: the link, stat and fdinfo of `/proc/PID/fd/N`.
//!
//! **Put back how**: open(2) with O_PATH by the path. That opens nothing, so any type of file is safe.
//!
//! **Not saved**: names that lead nowhere any more are refused, but for regular files ([`super::unlinked`]) and directories
//! ([`super::gone`]); so are those of a process's directory in proc.

use std::os::fd::OwnedFd;

use bardo_image::Record;
use serde::{Deserialize, Serialize};

use super::path::{Place, Reach, type_name};
use super::pool::Making;
use super::proc;
use super::scene::{Scene, Seen};
use super::survey::Collected;
use super::{FilesImage, Hindrance, Kind, Rules, Saved, image};
use crate::error::Result;
use crate::support::Support;

/// The kind.
#[derive(Debug, Clone, Copy)]
pub struct PathOnly;

/// The record's name.
pub const NAME: &str = "file/path-only";

/// The flags that open(2) leaves on such a descriptor.
const FLAGS: i32 = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;

/// The record of such a descriptor.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OpenPath {
    /// What it names.
    #[serde(flatten)]
    pub place: Place,
}

impl Kind for PathOnly {
    fn support(&self) -> Support {
        Support {
            kind: NAME,
            kept: "O_PATH descriptors: path and flags",
            not_kept: "those of deleted FIFOs, sockets and devices, and of a process in /proc: refused",
            privilege: "",
            workload: "file/regular",
        }
    }

    fn records(&self) -> &'static [&'static str] {
        &[NAME]
    }

    fn claims(&self, file: &Seen, _: &Scene<'_>) -> bool {
        file.flags & libc::O_PATH != 0 && file.reach == Reach::Same && !proc::is_of_process(file)
    }

    fn collect(&self, file: &Seen, _: &Scene<'_>, out: &mut Collected) -> Result<()> {
        let mut place = Place::of(&file.link, file.flags & FLAGS, &file.stat);
        if file.stat.kind() == libc::S_IFLNK {
            // The link's own name leads back to it only if it isn't followed.
            place.flags |= libc::O_NOFOLLOW;
        }
        out.record(NAME, file.id, &OpenPath { place })
    }

    fn take(&self, record: &Record, image: &mut FilesImage) -> Result<()> {
        let file: OpenPath = image::read(record)?;
        file.place.validate(FLAGS, None).map_err(|why| image::wrong(record, why))?;
        if file.place.flags & libc::O_PATH == 0 {
            return Err(image::wrong(record, "flags without O_PATH".into()));
        }
        image.add(record, Box::new(file))
    }
}

impl Saved for OpenPath {
    fn what(&self) -> String {
        format!("O_PATH descriptor of {} {}", type_name(self.place.mode & libc::S_IFMT), self.place.show())
    }

    fn check(&self, rules: &Rules<'_>) -> Vec<Hindrance> {
        self.place.check("O_PATH descriptor of", false, rules)
    }

    fn open(&self, _: u64, _: &mut Making<'_>) -> Result<OwnedFd> {
        self.place.open()
    }
}
