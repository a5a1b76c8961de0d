//! Files by the handles that the kernel gives them (man 2 open_by_handle_at).
//!
//! Privilege: CAP_DAC_READ_SEARCH: a handle passes by all permissions on the way. Kernel: any; the file system must know handles.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use syscalls::Sysno;

use crate::error::{Errno, Failed, Result};
use crate::gate::syscall;

/// MAX_HANDLE_SZ of `<linux/exportfs.h>`.
const BYTES_MAX: usize = 128;

/// Opens the file of a handle, of the file system that `mount` lies on. O_CLOEXEC is added.
///
/// # Errors
/// EPERM: no CAP_DAC_READ_SEARCH; ESTALE: there is no such file any more; EINVAL: no such handle.
pub fn open(mount: BorrowedFd<'_>, kind: i32, bytes: &[u8], flags: i32) -> Result<OwnedFd> {
    let call = || format!("open_by_handle_at(fd {}, type {kind}, {bytes:02x?})", mount.as_raw_fd());
    if bytes.len() > BYTES_MAX {
        return Err(Failed { call: call(), errno: Errno(libc::EINVAL) });
    }
    // struct file_handle: length, type, bytes.
    let mut handle = Vec::with_capacity(8 + bytes.len());
    handle.extend_from_slice(&(bytes.len() as u32).to_ne_bytes());
    handle.extend_from_slice(&kind.to_ne_bytes());
    handle.extend_from_slice(bytes);
    let flags = (flags | libc::O_CLOEXEC) as usize;
    let args = [mount.as_raw_fd() as usize, handle.as_ptr() as usize, flags, 0, 0, 0];
    // SAFETY: the handle lives over the call, as long as its length says; the new descriptor is ours alone.
    unsafe {
        let fd = syscall(Sysno::open_by_handle_at, args).map_err(|e| e.of(call()))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}
