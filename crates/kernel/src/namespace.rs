//! Namespaces of a tree's own: pid, user and time (pid_namespaces(7), user_namespaces(7), time_namespaces(7)).
//!
//! A pid namespace has a small init, a fork of ours. It makes the tree's first process, waits for our verdict, then reaps
//! what ends in its namespace until nobody is left, and ends with the first process's status (128 + N where signal N ended
//! it: the kernel lets no signal of its own kind end an init). If we die before the verdict it ends, and the kernel ends the
//! namespace.
//!
//! A time namespace is made by unshare(2), for the children of who calls it, and its clocks are set before the first of
//! them is born. We don't call it ourselves, since everything that we start later would be in there too: a fork of ours
//! does, and makes the first process as its sibling (CLONE_PARENT).
//!
//! Privilege: CAP_SYS_ADMIN for a pid or time namespace, and CAP_SYS_TIME to set the latter's clocks; none if they are made
//! with a user namespace, where the system lets users make those. In it our user id stays what it is, and supplementary
//! groups can't be changed.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use syscalls::Sysno;

use crate::error::{Errno, Failed, Result};
use crate::gate::syscall;
use crate::procfs::timens_offsets::{self, Offsets};
use crate::shelf::{CLONE_ARGS, CloneArgs, Shelf};
use crate::{fs, pipe, ptrace};

const GO: u8 = b'g';
const OUTLIVE: u8 = b'o';

/// A namespace's init, and the first process beside it.
#[derive(Debug)]
pub struct Init {
    maker: Maker,
    /// The first process, as we see it.
    root: i32,
}

impl Init {
    /// Makes the namespace, its init, and in it the first process, which enters the shelf's slot. `time`: a time namespace
    /// for that process too.
    ///
    /// # Errors
    /// EPERM, ENOSPC (user.max_pid_namespaces, user.max_user_namespaces, user.max_time_namespaces), EUSERS: no such
    /// namespace for us. As [`timens_offsets::write`].
    pub fn make(
        new_user: bool,
        time: Option<Offsets>,
        shelf: &Shelf,
        slot: usize,
        clone: &CloneArgs,
    ) -> Result<Init> {
        let user = if new_user { libc::CLONE_NEWUSER as u64 } else { 0 };
        let (uid, gid) = ids();
        let maker = Maker::fork(libc::CLONE_NEWPID as u64 | user, time.is_some(), true, shelf, slot, clone)?;
        if new_user {
            write_file(maker.pid, "setgroups", "deny")?;
            write_file(maker.pid, "uid_map", &format!("{uid} {uid} 1"))?;
            write_file(maker.pid, "gid_map", &format!("{gid} {gid} 1"))?;
        }
        maker.make(time, clone)?;
        let root = crate::procfs::children::read_thread(maker.pid, maker.pid)?
            .into_iter()
            .next()
            .ok_or_else(|| Failed::unexpected("the namespace's first process is gone"))?;
        Ok(Init { maker, root })
    }

    /// The first process, as we see it.
    pub fn root(&self) -> i32 {
        self.root
    }

    /// The namespace outlives us from now on: the init's pid, as we see it.
    pub fn release(mut self) -> Result<i32> {
        self.maker.tell(OUTLIVE)?;
        self.maker.verdict = None;
        Ok(self.maker.pid)
    }
}

/// Makes the first process of a tree, a child of ours, in a time namespace of its own: its pid. Ours stay what they are.
///
/// # Errors
/// As [`Shelf::seed`]. EPERM: no CAP_SYS_ADMIN. ENOSPC: user.max_time_namespaces. As [`timens_offsets::write`].
pub fn seed_in_time(time: Offsets, shelf: &Shelf, slot: usize, clone: &CloneArgs) -> Result<i32> {
    // The kernel gives a sibling the exit signal of who makes it, and wants none here.
    let flags = clone.flags | libc::CLONE_PARENT as u64;
    let clone = CloneArgs { flags, exit_signal: 0, set_tid: clone.set_tid.clone() };
    Maker::fork(0, true, false, shelf, slot, &clone)?.make(Some(time), &clone)
}

/// A fork of ours that makes the first process of a tree. Dropped, it ends.
#[derive(Debug)]
struct Maker {
    pid: i32,
    /// Our end of the pipe by which it is told what to do; its closing is the verdict to end.
    verdict: Option<OwnedFd>,
    answer: OwnedFd,
}

impl Maker {
    /// Makes one, in new namespaces of these kinds. `time`: it will make a time namespace. `init`: it looks after what it
    /// made.
    fn fork(
        flags: u64,
        time: bool,
        init: bool,
        shelf: &Shelf,
        slot: usize,
        clone: &CloneArgs,
    ) -> Result<Maker> {
        let entry = shelf.open(slot);
        let pipe::Pipe { read: verdict_in, write: verdict } = pipe::make(libc::O_CLOEXEC)?;
        let pipe::Pipe { read: answer, write: answer_out } = pipe::make(libc::O_CLOEXEC)?;
        let args = CloneArgs { flags, exit_signal: libc::SIGCHLD as u64, set_tid: Vec::new() }.to_bytes(0);
        let first = clone.to_bytes(clone.set_tid.as_ptr() as u64);
        // SAFETY: a plain fork. The child only makes system calls on memory that was there before, then ends or enters
        // the stub.
        let pid = unsafe {
            let pid = syscall(Sysno::clone3, [args.as_ptr() as usize, CLONE_ARGS, 0, 0, 0, 0])
                .map_err(|e| e.of(format!("clone3({flags:#x})")))?;
            if pid == 0 {
                serve(&Orders {
                    verdict: &verdict_in,
                    ours: &verdict,
                    answer: &answer_out,
                    time,
                    init,
                    first,
                    entry,
                });
            }
            pid as i32
        };
        Ok(Maker { pid, verdict: Some(verdict), answer })
    }

    fn tell(&self, word: u8) -> Result<()> {
        match &self.verdict {
            Some(verdict) => fs::write(verdict.as_fd(), &[word]).map(drop),
            None => Ok(()),
        }
    }

    /// Tells it to go on, and gives the result of its next call.
    fn next(&self, call: impl FnOnce() -> String) -> Result<i64> {
        self.tell(GO)?;
        let mut result = [0u8; 8];
        if fs::read(self.answer.as_fd(), &mut result)? != 8 {
            return Err(Failed::unexpected("who was to make the first process ended"));
        }
        match i64::from_ne_bytes(result) {
            error if error < 0 => Err(Failed { call: call(), errno: Errno(-error as i32) }),
            result => Ok(result),
        }
    }

    /// Has it make the first process: the pid of it that it sees.
    fn make(&self, time: Option<Offsets>, clone: &CloneArgs) -> Result<i32> {
        if let Some(offsets) = time {
            self.next(|| "unshare(CLONE_NEWTIME)".into())?;
            timens_offsets::write(self.pid, offsets)?;
        }
        Ok(self.next(|| format!("clone3(set_tid {:?})", clone.set_tid))? as i32)
    }
}

impl Drop for Maker {
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

/// What a maker needs to know.
struct Orders<'a> {
    verdict: &'a OwnedFd,
    ours: &'a OwnedFd,
    answer: &'a OwnedFd,
    time: bool,
    init: bool,
    first: [u8; CLONE_ARGS],
    entry: u64,
}

/// The maker's whole life. Nothing here allocates: other threads of ours may have held any lock when it was forked.
///
/// # Safety
/// For the child of a fork only; `entry` is a slot of a shelf that is mapped.
unsafe fn serve(orders: &Orders<'_>) -> ! {
    let Orders { verdict, ours, answer, .. } = *orders;
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
    let say = |result: i64| {
        call(Sysno::write, [answer.as_raw_fd() as usize, &raw const result as usize, 8, 0, 0, 0]);
        if result < 0 {
            end(1);
        }
    };
    if orders.time {
        if read_word() != GO {
            end(1);
        }
        say(call(Sysno::unshare, [libc::CLONE_NEWTIME as usize, 0, 0, 0, 0, 0]));
    }
    if read_word() != GO {
        end(1);
    }
    let made = call(Sysno::clone3, [orders.first.as_ptr() as usize, CLONE_ARGS, 0, 0, 0, 0]);
    if made == 0 {
        // SAFETY: the caller's contract.
        unsafe { crate::arch::enter_stub(orders.entry) };
    }
    say(made);
    if !orders.init {
        end(0);
    }
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
