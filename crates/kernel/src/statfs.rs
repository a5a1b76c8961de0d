//! File systems: which type one is (man 2 fstatfs; the numbers are in `<linux/magic.h>`).
//!
//! Privilege: none. Kernel: any.

use std::os::fd::{AsRawFd, BorrowedFd};

use syscalls::Sysno;

use crate::error::Result;
use crate::gate::syscall;

/// The type of the file system that a file is on: 0xef53 for ext4, 0x9fa0 for proc.
pub fn kind(fd: BorrowedFd<'_>) -> Result<u64> {
    let mut st = std::mem::MaybeUninit::<libc::statfs>::zeroed();
    let args = [fd.as_raw_fd() as usize, st.as_mut_ptr() as usize, 0, 0, 0, 0];
    // SAFETY: the result lives over the call; a zeroed statfs is a valid statfs.
    let st = unsafe {
        syscall(Sysno::fstatfs, args).map_err(|e| e.of(format!("fstatfs(fd {})", fd.as_raw_fd())))?;
        st.assume_init()
    };
    Ok(st.f_type as u64)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn proc_is_proc() {
        assert_eq!(kind(std::fs::File::open("/proc/self/stat").unwrap().as_fd()).unwrap(), 0x9fa0);
    }
}
