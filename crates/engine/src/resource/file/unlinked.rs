//! Regular files without a name: unlinked while they were open, or made so (O_TMPFILE).
//!
//! **In the kernel**: an inode lives as long as an open file or a mapping of it does, whether a name leads to it or not. The
//! link in `/proc/PID/fd` shows the path that it had, and ` (deleted)`. Nothing can give it a name again (linkat(2):
//! ENOENT), unless it was made by O_TMPFILE without O_EXCL.
//!
//! **In the image**: `file/unlinked`: flags, offset, and the id of the inode, whose record (`memory/inode`) and content are
//! beside those of memory: what is open and mapped is there once.
//!
//! **Taken how**: the link, stat and fdinfo of `/proc/PID/fd/N`; the content through an opening of our own.
//!
//! **Put back how**: the inode is made anew by O_TMPFILE in the directory where it was, or the next one above that there is;
//! each open file is an opening of that, by `/proc/self/fd/N`, but for the one that O_TMPFILE itself gave. See
//! [`super::kept`].
//!
//! **Not saved**: the inode's number, the path that it had (the link shows another), access and change times, extended attributes,
//! blocks that were allocated and never written, O_NOFOLLOW. Whether O_TMPFILE had O_EXCL: it can be given a name after a restart.
//! Refused: a file that a process outside the tree has too (`memory/leak`); a file with another name still that isn't found
//! (`file/other-name`); those of file systems that make up their content or that this version doesn't know.

use std::os::fd::OwnedFd;

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
pub struct Unlinked;

/// The record's name.
pub const NAME: &str = "file/unlinked";

/// File systems without a disk of their own whose files are bytes and nothing else (`<linux/magic.h>`). Those with a disk have
/// type 0 here.
const OF_BYTES: &[u64] = &[
    0,
    0x0102_1994, // tmpfs
    0x8584_58f6, // ramfs
    0x794c_7630, // overlayfs
    0x9123_683e, // btrfs
    0xca45_1a4e, // bcachefs
    0x2fc1_2fc1, // zfs
    0x6573_5546, // fuse
    0x0102_1997, // 9p
    0x00c3_6400, // ceph
    0xff53_4d42, // cifs
    0xfe53_4d42, // smb2
    0x6969,      // nfs
];

/// The record of an open file without a name.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OpenUnlinked(pub OpenKept);

/// Whether its content is bytes that a file system of the same sort holds as well.
pub(super) fn is_of_bytes(file: &Seen, scene: &Scene<'_>) -> bool {
    OF_BYTES.contains(&file.system) && !scene.is_of_kernels_tmpfs(file)
}

impl Kind for Unlinked {
    fn support(&self) -> Support {
        Support {
            kind: NAME,
            kept: "content, size, mode, owner; one inode for all who have it open or mapped; flags (O_TMPFILE too), offset",
            not_kept: "the path that it had, inode number, access and change times, extended attributes; one that a process \
                       outside has too: refused",
            privilege: "",
            workload: "file/unlinked",
        }
    }

    fn records(&self) -> &'static [&'static str] {
        &[NAME]
    }

    fn claims(&self, file: &Seen, scene: &Scene<'_>) -> bool {
        file.flags & libc::O_PATH == 0
            && file.stat.kind() == libc::S_IFREG
            && file.stat.nlink == 0
            && file.reach == Reach::Deleted
            && is_of_bytes(file, scene)
    }

    fn collect(&self, file: &Seen, scene: &Scene<'_>, out: &mut Collected) -> Result<()> {
        OpenKept::collect(NAME, file, scene, out)
    }

    fn take(&self, record: &Record, image: &mut FilesImage) -> Result<()> {
        let file = OpenUnlinked(OpenKept::take(record, image)?);
        image.add(record, Box::new(file))
    }
}

impl Saved for OpenUnlinked {
    fn what(&self) -> String {
        format!("file without a name (inode {} of the image)", self.0.inode)
    }

    fn check(&self, _: &Rules<'_>) -> Vec<Hindrance> {
        // The inode is memory's, and nothing has to be there for it.
        Vec::new()
    }

    fn open(&self, _: u64, making: &mut Making<'_>) -> Result<OwnedFd> {
        self.0.open(&self.what(), making)
    }
}
