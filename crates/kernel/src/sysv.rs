//! System V semaphores, as far as we look at them (man 2 semctl).
//!
//! Privilege: read permission on the set, or CAP_IPC_OWNER. Only the caller's IPC namespace is seen.

use syscalls::Sysno;

use crate::error::Result;
use crate::gate::syscall;

/// Who operated on a semaphore last (GETPID): a pid of our pid namespace, 0 for nobody.
///
/// # Errors
/// EACCES; EINVAL, EIDRM: the set is gone.
pub fn last_user(set: i32, semaphore: u32) -> Result<i32> {
    const GETPID: usize = 11;
    // SAFETY: no memory is touched.
    unsafe { syscall(Sysno::semctl, [set as usize, semaphore as usize, GETPID, 0, 0, 0]) }
        .map(|pid| pid as i32)
        .map_err(|e| e.of(format!("semctl({set}, {semaphore}, GETPID)")))
}
