//! A small process that ends others if we die before a commit.
//!
//! A process that job control has stopped can't end itself by the shelf, and PTRACE_O_EXITKILL has to be taken from one
//! process after the other: neither lets a single store decide for all of them. So a fork of ours waits for our end, or for
//! our word, then looks at the commit word, and ends them if it isn't set. Who is killed is us: it survives.
//!
//! Privilege: none.

use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use syscalls::Sysno;

use crate::error::Result;
use crate::gate::syscall;
use crate::mmap::SharedPages;
use crate::shelf::{CLONE_ARGS, CloneArgs};
use crate::{pidfd, pipe, ptrace};

/// See the module's text. Dropped, it looks at the commit word, acts, and is gone.
#[derive(Debug)]
pub struct Guardian {
    pid: i32,
    ours: Option<OwnedFd>,
}

impl Guardian {
    /// Has these processes end if we end before the word at `offset` is set.
    ///
    /// # Errors
    /// A process is gone, or no process or pipe can be made.
    pub fn keep(pages: &Rc<SharedPages>, offset: usize, pids: &[i32]) -> Result<Guardian> {
        let wards = pids.iter().map(|pid| pidfd::open(*pid)).collect::<Result<Vec<_>>>()?;
        let pipe::Pipe { read, write } = pipe::make(libc::O_CLOEXEC)?;
        // No exit signal: nobody hears of its end but us, who wait for it.
        let clone = CloneArgs::default().to_bytes(0);
        // SAFETY: a plain fork. The child makes system calls on memory that was there before, then ends.
        let pid = unsafe {
            let pid = syscall(Sysno::clone3, [clone.as_ptr() as usize, CLONE_ARGS, 0, 0, 0, 0])
                .map_err(|e| e.of("clone3(0)"))?;
            if pid == 0 {
                watch(&read, &write, pages, offset, &wards);
            }
            pid as i32
        };
        Ok(Guardian { pid, ours: Some(write) })
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        drop(self.ours.take());
        for _ in 0..2 {
            if ptrace::reap(self.pid, libc::__WALL).is_ok() {
                break;
            }
        }
    }
}

/// The guardian's whole life. Nothing here allocates: other threads of ours may have held any lock when it was forked.
///
/// # Safety
/// For the child of a fork only.
unsafe fn watch(read: &OwnedFd, write: &OwnedFd, pages: &SharedPages, offset: usize, wards: &[OwnedFd]) -> ! {
    // SAFETY: every call below is given live stack memory or none. The gate isn't used: it may allocate.
    let call = |nr: Sysno, args: [usize; 4]| unsafe {
        libc::syscall(nr.id() as libc::c_long, args[0], args[1], args[2], args[3])
    };
    let all = u64::MAX;
    call(Sysno::rt_sigprocmask, [libc::SIG_SETMASK as usize, &raw const all as usize, 0, 8]);
    call(Sysno::setsid, [0; 4]);
    // Our own copy of the writing end would keep the pipe open.
    call(Sysno::close, [write.as_raw_fd() as usize, 0, 0, 0]);
    let mut word = 0u8;
    call(Sysno::read, [read.as_raw_fd() as usize, &raw mut word as usize, 1, 0]);
    if pages.load(offset) == 0 {
        for ward in wards {
            call(Sysno::pidfd_send_signal, [ward.as_raw_fd() as usize, libc::SIGKILL as usize, 0, 0]);
        }
    }
    loop {
        call(Sysno::exit_group, [0; 4]);
    }
}
