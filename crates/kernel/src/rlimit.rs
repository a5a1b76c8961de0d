//! Our own resource limits (man 2 prlimit, getrlimit).
//!
//! Privilege: none; raising a hard limit needs CAP_SYS_RESOURCE in the first user namespace. Kernel: any.

use syscalls::Sysno;

use crate::error::Result;
use crate::gate::syscall;

/// A limit: what holds, and how far it may be raised. `u64::MAX` is no limit.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// What the kernel enforces.
    pub soft: u64,
    /// The most that the soft limit can be set to.
    pub hard: u64,
}

fn prlimit(resource: u32, new: Option<Limit>) -> Result<Limit> {
    let mut old = Limit { soft: 0, hard: 0 };
    let new_at = new.as_ref().map_or(0, |new| &raw const *new as usize);
    // SAFETY: struct rlimit64 is two words of 64 bits; both are ours and live over the call. Pid 0 is ourselves.
    unsafe { syscall(Sysno::prlimit64, [0, resource as usize, new_at, &raw mut old as usize, 0, 0]) }
        .map_err(|e| e.of(format!("prlimit({resource}, {new:?})")))?;
    Ok(old)
}

/// One of our limits: `RLIMIT_NOFILE`, ….
pub fn get(resource: u32) -> Result<Limit> {
    prlimit(resource, None)
}

/// Sets one of our limits: what it was.
///
/// # Errors
/// EPERM: above the hard limit, or RLIMIT_NOFILE above `/proc/sys/fs/nr_open`; EINVAL: soft above hard.
pub fn set(resource: u32, limit: Limit) -> Result<Limit> {
    prlimit(resource, Some(limit))
}

/// Raises our soft RLIMIT_NOFILE to at least `numbers`, and the hard one where it must be: the soft limit now.
///
/// # Errors
/// EPERM where that is beyond what we may.
pub fn raise_files(numbers: u64) -> Result<u64> {
    let now = get(libc::RLIMIT_NOFILE)?;
    let wanted = Limit { soft: now.hard.max(numbers), hard: now.hard.max(numbers) };
    if now.soft < wanted.soft {
        set(libc::RLIMIT_NOFILE, wanted)?;
    }
    Ok(wanted.soft)
}

/// Has a write beyond RLIMIT_FSIZE fail with EFBIG, where it would end us by SIGXFSZ: it is an error like a full disk.
///
/// # Errors
/// None that a kernel gives.
pub fn file_size_is_an_error() -> Result<()> {
    // struct kernel_sigaction {handler, flags, restorer, mask}; SIG_IGN is 1.
    let ignore = [libc::SIG_IGN as u64, 0, 0, 0];
    // SAFETY: the structure lives over the call; no handler of anybody's is replaced by code.
    unsafe { syscall(Sysno::rt_sigaction, [libc::SIGXFSZ as usize, ignore.as_ptr() as usize, 0, 8, 0, 0]) }
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_of_files_is_raised() {
        let before = get(libc::RLIMIT_NOFILE).unwrap();
        // It is never lowered here: other tests of this process may need it.
        assert_eq!(set(libc::RLIMIT_NOFILE, before).unwrap(), before);
        assert_eq!(raise_files(1).unwrap(), before.hard);
        assert_eq!(get(libc::RLIMIT_NOFILE).unwrap(), Limit { soft: before.hard, hard: before.hard });
        assert!(raise_files(u64::MAX).unwrap_err().is(libc::EPERM));
    }
}
