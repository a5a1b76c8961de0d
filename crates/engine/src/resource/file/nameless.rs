//! What the kinds without a path share: the kernel makes all of them on one inode, calls them `anon_inode:[KIND]`, and tells
//! of them in fdinfo alone.
//!
//! None of them can be opened again: a restart makes a new one. So it matters who else has it. Where a process outside the
//! tree has the same open file, each side would go on with one of its own, and what one says would never reach the other:
//! refused, unless the user vouches for it.

use std::fmt::Display;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::str::FromStr;

use bardo_kernel::{Failed, fcntl};

use super::scene::{Scene, Seen};
use super::survey::Collected;
use crate::error::{Doing, Result};

/// The status flags of such a file that fcntl(2) sets; O_ASYNC belongs to its signals.
pub const STATUS: i32 = libc::O_NONBLOCK | libc::O_APPEND | libc::O_NOATIME;

/// Whether the kernel calls it this. No path can: those begin with a slash.
pub fn is(file: &Seen, link: &str) -> bool {
    file.flags & libc::O_PATH == 0 && file.link.as_os_str().as_bytes() == link.as_bytes()
}

/// Whether nothing stands in the way that concerns all of these: signals, flags that we don't know, and a process outside
/// the tree that has it too. Refuses what does.
///
/// # Errors
/// Where looking failed.
pub fn is_ours(file: &Seen, scene: &Scene<'_>, name: &str, known: i32, out: &mut Collected) -> Result<bool> {
    if !scene.is_plain(file, out)? {
        return Ok(false);
    }
    let unknown = file.flags & !(known | STATUS);
    if unknown != 0 {
        out.refuse(
            scene,
            file,
            "file/flags",
            format!("{name}, with the flags {unknown:#o}"),
            "this version doesn't know what they mean",
            "use a newer bardo",
        );
        return Ok(false);
    }
    if let Some((who, fd)) = scene.outside()?.holder(file)
        && !scene.is_vouched(file)
    {
        let holder = file.holders[0];
        out.refuse(
            scene,
            file,
            "file/leak",
            format!("{name}, which {who} outside the tree has open too, as descriptor {fd}"),
            "a copy of it would be made, and the other process would keep the old one",
            &format!(
                "--external fd:{}:{}   if the other process doesn't use it, or checkpoint both together",
                scene.who(file).pid,
                holder.fd
            ),
        );
        return Ok(false);
    }
    Ok(true)
}

/// What fdinfo says of it under this key, if it does.
///
/// # Errors
/// EPROTO where that isn't what we know the kernel to say.
pub fn told<T: FromStr>(file: &Seen, scene: &Scene<'_>, key: &str) -> Result<Option<T>>
where
    T::Err: Display,
{
    read(file, scene, key, |text| text.parse().map_err(|e: T::Err| e.to_string()))
}

/// The same for a number to the base of 16.
///
/// # Errors
/// As [`told`].
pub fn told_hex(file: &Seen, scene: &Scene<'_>, key: &str) -> Result<Option<u64>> {
    read(file, scene, key, |text| u64::from_str_radix(text, 16).map_err(|e| e.to_string()))
}

fn read<T>(
    file: &Seen,
    scene: &Scene<'_>,
    key: &str,
    parse: impl FnOnce(&str) -> std::result::Result<T, String>,
) -> Result<Option<T>> {
    let Some((_, text)) = file.told.iter().find(|(k, _)| k == key) else { return Ok(None) };
    parse(text)
        .map_err(|why| Failed::unexpected(format!("fdinfo, {key}: `{text}`: {why}")))
        .map(Some)
        .doing(format!("looking at {}", file.show()), Some(scene.who(file)))
}

/// The same where every kernel that we support tells it.
///
/// # Errors
/// EPROTO where it is missing, too.
pub fn must<T>(told: Option<T>, file: &Seen, scene: &Scene<'_>, key: &str) -> Result<T> {
    told.ok_or_else(|| Failed::unexpected(format!("fdinfo has no line `{key}`")))
        .doing(format!("looking at {}", file.show()), Some(scene.who(file)))
}

/// Gives an open file that was just made the status flags that it had.
///
/// # Errors
/// EPERM: O_NOATIME, for another's.
pub fn set_status(fd: &OwnedFd, flags: i32) -> bardo_kernel::Result<()> {
    fcntl::set_status_flags(fd.as_fd(), flags & STATUS)
}
