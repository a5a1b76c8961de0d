//! A pid namespace of our own, with a small init (pid_namespaces(7), user_namespaces(7)).
//!
//! The init is a fork of ours. It makes the tree's first process, waits for our verdict, then reaps what ends in its
//! namespace until nobody is left, and ends with the first process's status (128 + N where signal N ended it: the kernel
//! lets no signal of its own kind end an init). If we die before the verdict it ends, and the kernel ends the namespace.
//!
//! Privilege: CAP_SYS_ADMIN for a pid namespace; none if it is made with a user namespace, where the system lets users
//! make those. In it our user id stays what it is, and supplementary groups can't be changed.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use syscalls::Sysno;

use crate::error::{Errno, Failed, Result};
use crate::gate::syscall;
use crate::shelf::{CLONE_ARGS, CloneArgs, Shelf};
use crate::{fs, pipe, ptrace};

/// A namespace's init, and the first process beside it.
#[derive(Debug)]
pub struct Init {
    pid: i32,
    /// The first process, as we see it.
    root: i32,
    /// Our end of the verdict's pipe; its closing is the verdict to end.
    verdict: Option<OwnedFd>,
}

const GO: u8 = b'g';
const OUTLIVE: u8 = b'o';

impl Init {
    /// Makes the namespace, its init, and in it the first process, which enters the shelf's slot.
    ///
    /// # Errors
    /// EPERM, ENOSPC (user.max_pid_namespaces, user.max_user_namespaces), EUSERS: no such namespace for us.
    pub fn make(new_user: bool, shelf: &Shelf, slot: usize, clone: &CloneArgs) -> Result<Init> {
        let entry = shelf.open(slot);
        let pipe::Pipe { read: verdict_in, write: verdict } = pipe::make(libc::O_CLOEXEC)?;
        let pipe::Pipe { read: answer, write: answer_out } = pipe::make(libc::O_CLOEXEC)?;
        let user = if new_user { libc::CLONE_NEWUSER as u64 } else { 0 };
        let flags = libc::CLONE_NEWPID as u64 | user;
        let init = CloneArgs { flags, exit_signal: libc::SIGCHLD as u64, set_tid: Vec::new() }.to_bytes(0);
        let first = clone.to_bytes(clone.set_tid.as_ptr() as u64);
        let (uid, gid) = ids();
        // SAFETY: a plain fork. The child only makes system calls on memory that was there before, then ends or enters
        // the stub.
        let pid = unsafe {
            let pid = syscall(Sysno::clone3, [init.as_ptr() as usize, CLONE_ARGS, 0, 0, 0, 0])
                .map_err(|e| e.of(format!("clone3({flags:#x})")))?;
            if pid == 0 {
                serve(&verdict_in, &verdict, &answer_out, &first, entry);
            }
            pid as i32
        };
        drop((verdict_in, answer_out));
        let mut made = Init { pid, root: 0, verdict: Some(verdict) };
        if new_user {
            write_file(pid, "setgroups", "deny")?;
            write_file(pid, "uid_map", &format!("{uid} {uid} 1"))?;
            write_file(pid, "gid_map", &format!("{gid} {gid} 1"))?;
        }
        made.tell(GO)?;
        let mut result = [0u8; 8];
        if fs::read(answer.as_fd(), &mut result)? != 8 {
            return Err(Failed::unexpected("the namespace's init ended"));
        }
        let result = i64::from_ne_bytes(result);
        if result < 0 {
            let call = format!("clone3(set_tid {:?}) in the new pid namespace", clone.set_tid);
            return Err(Failed { call, errno: Errno(-result as i32) });
        }
        made.root = crate::procfs::children::read_thread(pid, pid)?
            .into_iter()
            .next()
            .ok_or_else(|| Failed::unexpected("the namespace's first process is gone"))?;
        Ok(made)
    }

    fn tell(&self, word: u8) -> Result<()> {
        match &self.verdict {
            Some(verdict) => fs::write(verdict.as_fd(), &[word]).map(drop),
            None => Ok(()),
        }
    }

    /// The first process, as we see it.
    pub fn root(&self) -> i32 {
        self.root
    }

    /// The namespace outlives us from now on: the init's pid, as we see it.
    pub fn release(mut self) -> Result<i32> {
        self.tell(OUTLIVE)?;
        self.verdict = None;
        Ok(self.pid)
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        if self.verdict.take().is_some() {
            let _ = ptrace::kill(self.pid, libc::SIGKILL);
            let _ = ptrace::reap(self.pid, libc::__WALL);
        }
    }
}

fn ids() -> (usize, usize) {
    // SAFETY: no memory is touched; these can't fail.
    unsafe { (syscall(Sysno::geteuid, [0; 6]).unwrap_or(0), syscall(Sysno::getegid, [0; 6]).unwrap_or(0)) }
}

fn write_file(pid: i32, name: &str, text: &str) -> Result<()> {
    fs::write_text(crate::procfs::path(pid, name), text)
}

/// The init's whole life. Nothing here allocates: other threads of ours may have held any lock when it was forked.
///
/// # Safety
/// For the child of a fork only; `entry` is a slot of a shelf that is mapped.
unsafe fn serve(
    verdict: &OwnedFd,
    ours: &OwnedFd,
    answer: &OwnedFd,
    first: &[u8; CLONE_ARGS],
    entry: u64,
) -> ! {
    let call = |nr: Sysno, args: [usize; 6]| -> i64 {
        // SAFETY: every call below is given live stack memory or none. The gate isn't used: it may allocate.
        let result = unsafe {
            libc::syscall(nr.id() as libc::c_long, args[0], args[1], args[2], args[3], args[4], args[5])
        };
        // SAFETY: errno's location is the thread's own.
        if result == -1 { -i64::from(unsafe { *libc::__errno_location() }) } else { result }
    };
    let read_word = || {
        let mut word = 0u8;
        let n = call(Sysno::read, [verdict.as_raw_fd() as usize, &raw mut word as usize, 1, 0, 0, 0]);
        if n == 1 { word } else { 0 }
    };
    let end = |status: usize| -> ! {
        loop {
            call(Sysno::exit_group, [status, 0, 0, 0, 0, 0]);
        }
    };
    // Our copy of the writing end would keep the pipe open after bardo's death.
    call(Sysno::close, [ours.as_raw_fd() as usize, 0, 0, 0, 0, 0]);
    if read_word() != GO {
        end(1);
    }
    let made = call(Sysno::clone3, [first.as_ptr() as usize, CLONE_ARGS, 0, 0, 0, 0]);
    if made == 0 {
        // SAFETY: the caller's contract.
        unsafe { crate::arch::enter_stub(entry) };
    }
    call(Sysno::write, [answer.as_raw_fd() as usize, &raw const made as usize, 8, 0, 0, 0]);
    // What bardo has open is for the tree; held here, pipes would never end. One descriptor stays.
    call(Sysno::dup3, [verdict.as_raw_fd() as usize, 0, 0, 0, 0, 0]);
    let verdict_now = |word: &mut u8| call(Sysno::read, [0, &raw mut *word as usize, 1, 0, 0, 0]);
    call(Sysno::close_range, [1, u32::MAX as usize, 0, 0, 0, 0]);
    let mut word = 0;
    if verdict_now(&mut word) != 1 || word != OUTLIVE {
        end(1);
    }
    call(Sysno::close, [0; 6]);
    call(Sysno::setsid, [0; 6]);
    let mut last = 0usize;
    loop {
        let mut status = 0i32;
        let pid = call(Sysno::wait4, [usize::MAX, &raw mut status as usize, libc::__WALL as usize, 0, 0, 0]);
        if pid == made {
            last = if libc::WIFSIGNALED(status) {
                128 + libc::WTERMSIG(status) as usize
            } else {
                libc::WEXITSTATUS(status) as usize
            };
        } else if pid == -i64::from(libc::ECHILD) {
            end(last);
        }
    }
}
