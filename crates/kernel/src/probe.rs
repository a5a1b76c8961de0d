//! What this kernel and these privileges allow, found by trying it on ourselves or on a child that ends at once.
//!
//! A version number tells little, and a call that merely succeeds tells less (soft-dirty bits can be "cleared" on kernels
//! that never set them): so every probe looks at the effect.

use std::os::fd::AsFd;

use syscalls::Sysno;

use crate::error::{Errno, Failed, Result};
use crate::gate::syscall;
use crate::shelf::{CLONE_ARGS, CloneArgs};
use crate::{fs, kcmp, pagemap, pidfd, procfs, ptrace};

/// Makes a child that ends at once: whether clone3(2) takes these arguments.
fn child(clone: &CloneArgs) -> Result<()> {
    let bytes = clone.to_bytes(clone.set_tid.as_ptr() as u64);
    // SAFETY: a plain fork; the child does nothing but end.
    let pid = unsafe {
        let pid = syscall(Sysno::clone3, [bytes.as_ptr() as usize, CLONE_ARGS, 0, 0, 0, 0])?;
        if pid == 0 {
            libc::_exit(0);
        }
        pid as i32
    };
    ptrace::reap(pid, libc::__WALL).map(drop)
}

/// Choosing the pid of a new process in our pid namespace: CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN.
pub fn choose_pid() -> Result<()> {
    // A number that is free now may be taken in a moment: EEXIST shows the permission just as well.
    let taken = procfs::processes()?;
    let free = (300..30_000).rev().find(|pid| taken.binary_search(pid).is_err()).unwrap_or(29_999);
    match child(&CloneArgs { flags: 0, exit_signal: libc::SIGCHLD as u64, set_tid: vec![free] }) {
        Err(e) if e.is(libc::EEXIST) => Ok(()),
        other => other,
    }
}

/// A pid namespace in a user namespace: none, where the system lets users make them.
pub fn own_namespace() -> Result<()> {
    let flags = (libc::CLONE_NEWUSER | libc::CLONE_NEWPID) as u64;
    child(&CloneArgs { flags, exit_signal: libc::SIGCHLD as u64, set_tid: Vec::new() })
}

/// Waiting for two words at once: futex_waitv(2), Linux 5.16. The stub rests on it.
pub fn futex_waitv() -> Result<()> {
    // SAFETY: no waiter is passed: EINVAL from a kernel that has the call.
    match unsafe { syscall(Sysno::futex_waitv, [0; 6]) } {
        Err(e) if e.is(libc::EINVAL) => Ok(()),
        Err(e) => Err(e),
        Ok(_) => Ok(()),
    }
}

/// What `CONFIG_CHECKPOINT_RESTORE` brings: the address to clear when a thread ends.
pub fn tid_address() -> Result<()> {
    const PR_GET_TID_ADDRESS: usize = 40;
    let mut address = 0usize;
    // SAFETY: the result lives over the call.
    unsafe { syscall(Sysno::prctl, [PR_GET_TID_ADDRESS, &raw mut address as usize, 0, 0, 0, 0]) }
        .map(drop)
        .map_err(|e| e.of("prctl(PR_GET_TID_ADDRESS)"))
}

/// Setting the fields of an address space: PR_SET_MM_MAP.
pub fn set_mm() -> Result<()> {
    let mut size = 0u32;
    let args = [libc::PR_SET_MM as usize, libc::PR_SET_MM_MAP_SIZE as usize, &raw mut size as usize, 0, 0, 0];
    // SAFETY: the result lives over the call.
    unsafe { syscall(Sysno::prctl, args) }.map(drop).map_err(|e| e.of("prctl(PR_SET_MM, PR_SET_MM_MAP_SIZE)"))
}

/// Listing a thread's children: `/proc/PID/task/TID/children`, CONFIG_PROC_CHILDREN.
pub fn children() -> Result<()> {
    let me = std::process::id() as i32;
    procfs::children::read_thread(me, me).map(drop)
}

/// Comparing kernel objects: kcmp(2).
pub fn compare() -> Result<()> {
    let me = std::process::id() as i32;
    kcmp::compare(me, me, kcmp::What::Files).map(drop)
}

/// Taking a descriptor out of another process: pidfd_getfd(2).
pub fn take_descriptor() -> Result<()> {
    let me = pidfd::open(std::process::id() as i32)?;
    let any = fs::open_read("/dev/null")?;
    use std::os::fd::AsRawFd;
    pidfd::getfd(me.as_fd(), any.as_raw_fd()).map(drop)
}

/// Finding present pages by one call: the PAGEMAP_SCAN ioctl, Linux 6.7.
pub fn pagemap_scan() -> Result<()> {
    let me = procfs::path(std::process::id() as i32, "pagemap");
    let fd = fs::open_read(me)?;
    let here = &raw const fd as u64 & !4095;
    pagemap::scan(fd.as_fd(), here, here + 4096, &pagemap::Scan::default()).map(drop)
}

/// Opening what a process has mapped: `/proc/PID/map_files`; CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE.
pub fn map_files() -> Result<()> {
    let directory = procfs::path(std::process::id() as i32, "map_files");
    let name = fs::list(&directory)?
        .into_iter()
        .next()
        .ok_or(Failed { call: "listing /proc/self/map_files".into(), errno: Errno(libc::ENOENT) })?;
    fs::open_read(directory.join(name)).map(drop)
}

/// Sealing memory: mseal(2), Linux 6.10.
pub fn seal() -> Result<()> {
    // SAFETY: a range of no length: nothing is sealed.
    unsafe { syscall(Sysno::mseal, [0; 6]) }.map(drop).map_err(|e| e.of("mseal(0, 0)"))
}

/// Memory that the kernel may drop: MAP_DROPPABLE of mmap(2), Linux 6.11.
pub fn droppable() -> Result<()> {
    const MAP_DROPPABLE: i32 = 0x08;
    let (len, prot) = (4096, (libc::PROT_READ | libc::PROT_WRITE) as usize);
    let flags = (MAP_DROPPABLE | libc::MAP_ANONYMOUS) as usize;
    // SAFETY: a new mapping where the kernel likes, which replaces none and is taken away before anybody can use it.
    unsafe {
        let at = syscall(Sysno::mmap, [0, len, prot, flags, usize::MAX, 0])
            .map_err(|e| e.of("mmap(MAP_DROPPABLE)"))?;
        syscall(Sysno::munmap, [at, len, 0, 0, 0, 0]).map(drop).map_err(|e| e.of("munmap()"))
    }
}

/// Guard pages: MADV_GUARD_INSTALL of madvise(2), Linux 6.13.
pub fn guard_pages() -> Result<()> {
    const MADV_GUARD_INSTALL: usize = 102;
    // SAFETY: a range of no length: only whether the advice is known is looked at.
    unsafe { syscall(Sysno::madvise, [0, 0, MADV_GUARD_INSTALL, 0, 0, 0]) }
        .map(drop)
        .map_err(|e| e.of("madvise(0, 0, MADV_GUARD_INSTALL)"))
}

/// Seeing physical page numbers in pagemap: CAP_SYS_ADMIN.
pub fn page_numbers() -> Result<()> {
    let fd = fs::open_read(procfs::path(std::process::id() as i32, "pagemap"))?;
    let mut entry = [0u8; 8];
    let here = &raw const entry as u64;
    fs::pread(fd.as_fd(), &mut entry, here / 4096 * 8)?;
    match u64::from_ne_bytes(entry) & ((1 << 55) - 1) {
        0 => Err(Failed { call: "page numbers read as 0".into(), errno: Errno(libc::EPERM) }),
        _ => Ok(()),
    }
}

/// Tracing a process of our own.
pub fn trace() -> Result<()> {
    let clone = CloneArgs { flags: 0, exit_signal: libc::SIGCHLD as u64, set_tid: Vec::new() };
    let bytes = clone.to_bytes(0);
    // SAFETY: a plain fork; the child only waits to be killed.
    let pid = unsafe {
        let pid = syscall(Sysno::clone3, [bytes.as_ptr() as usize, CLONE_ARGS, 0, 0, 0, 0])?;
        if pid == 0 {
            loop {
                libc::pause();
            }
        }
        pid as i32
    };
    let traced = ptrace::Running::seize(pid).map(drop);
    ptrace::kill(pid, libc::SIGKILL)?;
    ptrace::reap(pid, libc::__WALL)?;
    traced
}

/// Raising a hard limit: CAP_SYS_RESOURCE.
pub fn raise_limits() -> Result<()> {
    const CAP_SYS_RESOURCE: u64 = 24;
    let effective = procfs::status::read(std::process::id() as i32)?.cap_eff;
    if effective & 1 << CAP_SYS_RESOURCE != 0 {
        return Ok(());
    }
    Err(Failed { call: "prlimit above the hard limit".into(), errno: Errno(libc::EPERM) })
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_every_supported_kernel_has() {
        super::futex_waitv().unwrap();
        super::tid_address().unwrap();
        super::set_mm().unwrap();
        super::children().unwrap();
        super::compare().unwrap();
        super::take_descriptor().unwrap();
        super::trace().unwrap();
    }
}
