//! What the kinds share whose inode no name leads to, so that its content is in the image ([`crate::resource::memory::inode`]):
//! files that were unlinked, and memfds.
//!
//! Such an open file is flags, an offset, and the id of its inode. All openings of one inode, and all mappings of it, have
//! one id: what one of them writes, the others see, as before. They are opened by `/proc/self/fd/N` of a descriptor that
//! the restart has for the inode, before its content is there, its mode forbids it, or a seal does.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use bardo_image::Record;
use bardo_kernel::{fcntl, fs};
use serde::{Deserialize, Serialize};

use super::path::REOPEN;
use super::pool::Making;
use super::scene::{Scene, Seen};
use super::survey::Collected;
use super::{FilesImage, image};
use crate::error::{Doing, Result};
use crate::resource::memory::TMPFILE;

/// O_NOFOLLOW and O_DIRECTORY spoke of the path's last part, and there is no path any more.
const FLAGS: i32 = REOPEN & !(libc::O_DIRECTORY | libc::O_NOFOLLOW) | TMPFILE;
/// What fcntl(2) may change of an open file.
const STATUS: i32 = libc::O_APPEND | libc::O_NONBLOCK | libc::O_DIRECT | libc::O_NOATIME;

/// An open file of an inode whose content is in the image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OpenKept {
    /// The inode: the id of a record `memory/inode`.
    pub inode: u64,
    /// Access mode and status flags (fdinfo, `flags`).
    pub flags: i32,
    /// The offset (fdinfo, `pos`).
    pub offset: i64,
}

impl OpenKept {
    /// Records an open file, and has its inode kept, unless something that isn't saved is attached to it.
    ///
    /// # Errors
    /// Where looking failed.
    pub(super) fn collect(
        kind: &'static str,
        file: &Seen,
        scene: &Scene<'_>,
        out: &mut Collected,
    ) -> Result<()> {
        if !scene.is_plain(file, out) {
            return Ok(());
        }
        let inode = scene.keep_content(file)?;
        out.record(kind, file.id, &OpenKept { inode, flags: file.flags & FLAGS, offset: file.pos })
    }

    /// Takes its record from an image.
    ///
    /// # Errors
    /// [`crate::Error::Image`] where it says what can't be.
    pub(super) fn take(record: &Record, image: &mut FilesImage) -> Result<OpenKept> {
        let file: OpenKept = image::read(record)?;
        if file.flags & !FLAGS != 0 {
            return Err(image::wrong(record, format!("the flags {:#o}", file.flags)));
        }
        if file.offset < 0 {
            return Err(image::wrong(record, format!("the offset {}", file.offset)));
        }
        image.inodes.insert(file.inode, record.id);
        Ok(file)
    }

    /// Opens it, and moves to where it was.
    ///
    /// # Errors
    /// Where this host said no.
    pub(super) fn open(&self, what: &str, making: &Making<'_>) -> Result<OwnedFd> {
        let doing = || format!("opening {what}");
        let inode = making.inodes.inode(self.inode)?;
        // Only one opening of an inode can have O_TMPFILE: the one that made it.
        let made = if self.flags & TMPFILE != 0 { making.inodes.made_by(self.inode)? } else { None };
        let fd = match made {
            Some(made) => made,
            None => {
                let path = format!("/proc/self/fd/{}", inode.as_raw_fd());
                fs::open(Path::new(&path), self.flags & !TMPFILE, 0).doing(doing(), None)?
            }
        };
        if self.flags & TMPFILE != 0 {
            fcntl::set_status_flags(fd.as_fd(), self.flags & STATUS).doing(doing(), None)?;
        }
        if self.offset != 0 {
            fcntl::seek(fd.as_fd(), self.offset, fcntl::Whence::Start).doing(doing(), None)?;
        }
        Ok(fd)
    }
}
