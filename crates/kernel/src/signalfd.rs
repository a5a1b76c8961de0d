//! Signals that are read (man 2 signalfd). Privilege: none. Kernel: any.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use syscalls::Sysno;

use crate::error::Result;
use crate::gate::syscall;

/// Makes one for these signals (bit 0 is signal 1); SIGKILL and SIGSTOP are left out. Flags: SFD_NONBLOCK; SFD_CLOEXEC is
/// added.
pub fn make(mask: u64, flags: i32) -> Result<OwnedFd> {
    let flags = (flags | libc::SFD_CLOEXEC) as usize;
    let args = [usize::MAX, &raw const mask as usize, size_of::<u64>(), flags, 0, 0];
    // SAFETY: the mask lives over the call and is only read; the new descriptor is ours alone.
    unsafe {
        let fd = syscall(Sysno::signalfd4, args).map_err(|e| e.of(format!("signalfd4(-1, {mask:#x})")))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::procfs::fdinfo;

    #[test]
    fn the_mask_is_told() {
        let fd = make(1 << 9 | 1 << 8, 0).unwrap();
        let info = fdinfo::read(std::process::id() as i32, fd.as_raw_fd()).unwrap();
        // SIGKILL is left out.
        assert_eq!(info.get("sigmask"), Some("0000000000000200"));
    }
}
