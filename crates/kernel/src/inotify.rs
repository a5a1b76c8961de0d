//! Watches of files and directories, and their events (man 7 inotify).
//!
//! Privilege: to watch a file, permission to read it. Kernel: any; [`set_next`] needs CONFIG_CHECKPOINT_RESTORE, and
//! [`MUST_CREATE`] 4.19.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use syscalls::Sysno;

use crate::error::Result;
use crate::fs::c_path;
use crate::gate::syscall;

/// Together with a mask: EEXIST for what is watched already, which otherwise is changed.
pub const MUST_CREATE: u32 = libc::IN_MASK_CREATE;

/// What stays of a mask: the events, and how they are told.
pub const LASTING: u32 = libc::IN_ALL_EVENTS | libc::IN_EXCL_UNLINK | libc::IN_ONESHOT;

/// INOTIFY_IOC_SETNEXTWD of `<linux/inotify.h>`: `_IOW('I', 0, __s32)`.
const SET_NEXT: usize = 0x4004_4900;

/// Makes an instance. Flags: IN_NONBLOCK; IN_CLOEXEC is added.
pub fn make(flags: i32) -> Result<OwnedFd> {
    let args = [(flags | libc::IN_CLOEXEC) as usize, 0, 0, 0, 0, 0];
    // SAFETY: the call takes no pointers, and the new descriptor is ours alone.
    unsafe {
        let fd =
            syscall(Sysno::inotify_init1, args).map_err(|e| e.of(format!("inotify_init1({flags:#o})")))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// Watches what a path leads to: the watch's number.
///
/// # Errors
/// EACCES: it isn't ours to read; ENOSPC: too many watches of this user; EEXIST: see [`MUST_CREATE`].
pub fn watch(fd: BorrowedFd<'_>, path: &Path, mask: u32) -> Result<i32> {
    let c = c_path(path)?;
    let args = [fd.as_raw_fd() as usize, c.as_ptr() as usize, mask as usize, 0, 0, 0];
    // SAFETY: the path lives over the call.
    unsafe { syscall(Sysno::inotify_add_watch, args) }
        .map(|number| number as i32)
        .map_err(|e| e.of(format!("inotify_add_watch({path:?}, {mask:#x})")))
}

/// Says which number the next watch gets, or the next free one above it.
///
/// # Errors
/// EINVAL for a number below 1; ENOTTY: a kernel without CONFIG_CHECKPOINT_RESTORE.
pub fn set_next(fd: BorrowedFd<'_>, number: i32) -> Result<()> {
    // SAFETY: the argument is a number; no memory is touched.
    unsafe { syscall(Sysno::ioctl, [fd.as_raw_fd() as usize, SET_NEXT, number as usize, 0, 0, 0]) }
        .map(drop)
        .map_err(|e| e.of(format!("ioctl(fd {}, INOTIFY_IOC_SETNEXTWD, {number})", fd.as_raw_fd())))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::{fs, pipe};

    #[test]
    fn a_watch_gets_the_number_that_was_chosen_and_its_events_can_be_counted() {
        let directory = std::env::temp_dir().join(format!("bardo-inotify-{}", std::process::id()));
        fs::make_directory(&directory, 0o700).unwrap();
        let fd = make(libc::IN_NONBLOCK).unwrap();
        set_next(fd.as_fd(), 4711).unwrap();
        assert_eq!(watch(fd.as_fd(), &directory, libc::IN_CREATE | MUST_CREATE).unwrap(), 4711);
        assert!(watch(fd.as_fd(), &directory, libc::IN_CREATE | MUST_CREATE).unwrap_err().is(libc::EEXIST));
        assert_eq!(pipe::readable(fd.as_fd()).unwrap(), 0);
        std::fs::write(directory.join("new"), "").unwrap();
        assert_eq!(pipe::readable(fd.as_fd()).unwrap(), 32);
        std::fs::remove_dir_all(&directory).unwrap();
        assert!(set_next(fd.as_fd(), 0).unwrap_err().is(libc::EINVAL));
    }
}
