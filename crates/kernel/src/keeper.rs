//! A small process that holds the lifeline for us, where its end must not come before our tracees are free.
//!
//! When a process dies, the kernel marks its robust futexes first and lets go of what it traces later
//! (do_exit: exit_mm, then exit_notify). A thread whose seccomp filters we have suspended would leave the stub in between, and run
//! its own code unjudged; one whose process job control has stopped would run it in spite of that. So a fork of ours holds the futex, and is told of our end: the parent-death signal
//! (PR_SET_PDEATHSIG) is sent after the tracees were let go (forget_original_parent: exit_ptrace, then the children).
//!
//! Privilege: none.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;

use syscalls::Sysno;

use crate::error::{Errno, Failed, Result};
use crate::gate::syscall;
use crate::mmap::{FUTEX_WAITERS, RobustHead, SharedPages};
use crate::shelf::{CLONE_ARGS, CloneArgs};
use crate::{fs, pipe, ptrace};

/// See the module's text. Dropped, it is ended.
#[derive(Debug)]
pub(crate) struct Keeper {
    pid: i32,
}

impl Keeper {
    /// Makes one that holds the word at `offset`.
    ///
    /// # Errors
    /// No process or pipe can be made, or it ended at once.
    pub fn hold(pages: &Rc<SharedPages>, offset: usize) -> Result<Keeper> {
        let word = pages.check(offset, 4, 4);
        let pipe::Pipe { read, write } = pipe::make(libc::O_CLOEXEC)?;
        let mut head = Box::new([0usize; 4]);
        RobustHead::lay(&mut head, word);
        let me = std::process::id();
        let clone = CloneArgs::default().to_bytes(0);
        // SAFETY: a plain fork. The child makes system calls on memory that was there before, then waits for its end.
        let pid = unsafe {
            let pid = syscall(Sysno::clone3, [clone.as_ptr() as usize, CLONE_ARGS, 0, 0, 0, 0])
                .map_err(|e| e.of("clone3(0)"))?;
            if pid == 0 {
                keep(&write, pages, offset, &head, me);
            }
            pid as i32
        };
        let keeper = Keeper { pid };
        drop(write);
        let mut ready = [0u8; 1];
        match fs::read(read.as_fd(), &mut ready)? {
            1 => Ok(keeper),
            _ => Err(Failed { call: "waiting for the lifeline's keeper".into(), errno: Errno(libc::ESRCH) }),
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let end = || ptrace::kill(self.pid, libc::SIGKILL);
        let _ = end().or_else(|_| end());
        for _ in 0..2 {
            if ptrace::reap(self.pid, libc::__WALL).is_ok() {
                break;
            }
        }
    }
}

/// The keeper's whole life. Nothing here allocates: other threads of ours may have held any lock when it was forked.
///
/// # Safety
/// For the child of a fork only.
unsafe fn keep(ready: &OwnedFd, pages: &SharedPages, offset: usize, head: &[usize; 4], parent: u32) -> ! {
    // SAFETY: every call below is given live memory or none. The gate isn't used: it may allocate.
    let call = |nr: Sysno, args: [usize; 4]| unsafe {
        libc::syscall(nr.id() as libc::c_long, args[0], args[1], args[2], args[3])
    };
    let all = u64::MAX;
    call(Sysno::rt_sigprocmask, [libc::SIG_SETMASK as usize, &raw const all as usize, 0, 8]);
    // Whoever ends our group ends us alone.
    call(Sysno::setsid, [0; 4]);
    call(Sysno::prctl, [libc::PR_SET_PDEATHSIG as usize, libc::SIGUSR1 as usize, 0, 0]);
    call(Sysno::set_robust_list, [head.as_ptr() as usize, size_of::<[usize; 3]>(), 0, 0]);
    // Its end may have come before the signal was asked for; without the robust list or the signal nothing would come of it.
    if call(Sysno::getppid, [0; 4]) == parent as libc::c_long {
        pages.store(offset, call(Sysno::gettid, [0; 4]) as u32 | FUTEX_WAITERS);
        let byte = 1u8;
        call(Sysno::write, [ready.as_raw_fd() as usize, &raw const byte as usize, 1, 0]);
        call(Sysno::close_range, [0, u32::MAX as usize, 0, 0]);
        // Everybody is woken: of a robust futex the kernel wakes one waiter only, which may be dying itself, traced by us.
        let told = 1u64 << (libc::SIGUSR1 - 1);
        while call(Sysno::getppid, [0; 4]) == parent as libc::c_long {
            call(Sysno::rt_sigtimedwait, [&raw const told as usize, 0, 0, 8]);
        }
        pages.store(offset, 0);
        call(Sysno::futex, [pages.check(offset, 4, 4), libc::FUTEX_WAKE as usize, i32::MAX as usize, 0]);
    }
    loop {
        call(Sysno::exit_group, [0; 4]);
    }
}
