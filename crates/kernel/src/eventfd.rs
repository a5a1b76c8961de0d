//! Event counters (man 2 eventfd). Privilege: none. Kernel: any.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use syscalls::Sysno;

use crate::error::Result;
use crate::gate::syscall;

/// The largest count that write(2) gives; the kernel itself may go one further.
pub const COUNT_MAX: u64 = u64::MAX - 1;

/// Makes an eventfd with a count of 0. Flags: EFD_SEMAPHORE, EFD_NONBLOCK; EFD_CLOEXEC is added.
pub fn make(flags: i32) -> Result<OwnedFd> {
    let args = [0, (flags | libc::EFD_CLOEXEC) as usize, 0, 0, 0, 0];
    // SAFETY: the call takes no pointers, and the new descriptor is ours alone.
    unsafe {
        let fd = syscall(Sysno::eventfd2, args).map_err(|e| e.of(format!("eventfd2(0, {flags:#o})")))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, AsRawFd};

    use super::*;
    use crate::fs;
    use crate::procfs::fdinfo;

    #[test]
    fn fdinfo_tells_the_count_and_the_kind_of_counting() {
        let fd = make(libc::EFD_SEMAPHORE | libc::EFD_NONBLOCK).unwrap();
        fs::write(fd.as_fd(), &COUNT_MAX.to_ne_bytes()).unwrap();
        let info = fdinfo::read(std::process::id() as i32, fd.as_raw_fd()).unwrap();
        assert_eq!(info.get("eventfd-count"), Some("fffffffffffffffe"));
        assert!(matches!(info.get("eventfd-semaphore"), Some("1") | None), "{info:?}");
        assert!(fs::write(fd.as_fd(), &1u64.to_ne_bytes()).unwrap_err().is(libc::EAGAIN));
    }
}
