//! Whether two processes share a kernel object (man 2 kcmp).
//!
//! The kernel doesn't tell which object, but in which order two of them stand, by an order of its own that holds until it
//! boots again. That is enough to sort, so n objects need n·log n calls to find who shares.
//!
//! Privilege: PTRACE_MODE_READ_REALCREDS over both. Kernel: CONFIG_KCMP; a program in a seccomp filter may be refused it.
//! Errors: ESRCH, EPERM, EBADF for a descriptor that isn't open, EOPNOTSUPP for what the kernel was built without.

use syscalls::Sysno;

use crate::error::{Failed, Result};
use crate::gate::syscall;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Two open files.
    File {
        /// The first process's descriptor.
        fd1: i32,
        /// The second's.
        fd2: i32,
    },
    /// Address spaces.
    Vm,
    /// Tables of descriptors.
    Files,
    /// Root, working directory and umask.
    Fs,
    /// Signal handlers.
    Sighand,
    /// I/O contexts. Two processes that have none are [`Order::Equal`]; so with `Sysvsem`.
    Io,
    /// Lists of System V semaphore undos.
    Sysvsem,
    /// An open file of the first process, and one that an epoll of the second watches.
    EpollTarget {
        /// The first process's descriptor.
        fd1: i32,
        /// The second's epoll.
        epoll: i32,
        /// `tfd` of the epoll's fdinfo: the number under which the target was added.
        target: i32,
        /// Which of the targets with that number, from 0.
        nth: u32,
    },
}

/// How the first stands to the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Order {
    /// It is the same object.
    Equal,
    /// Another, earlier in the kernel's order.
    Less,
    /// Another, later in it.
    Greater,
    /// Another, and the kernel gives no order.
    Different,
}

impl Order {
    /// As an ordering, where the kernel gives one.
    pub fn ordering(self) -> Option<std::cmp::Ordering> {
        match self {
            Order::Equal => Some(std::cmp::Ordering::Equal),
            Order::Less => Some(std::cmp::Ordering::Less),
            Order::Greater => Some(std::cmp::Ordering::Greater),
            Order::Different => None,
        }
    }

    /// Whether it is the same object.
    pub fn is_same(self) -> bool {
        self == Order::Equal
    }
}

/// struct kcmp_epoll_slot of `<linux/kcmp.h>`.
#[repr(C)]
struct EpollSlot {
    efd: u32,
    tfd: u32,
    toff: u32,
}

/// Compares an object of two processes (or threads: any tid will do).
pub fn compare(pid1: i32, pid2: i32, what: What) -> Result<Order> {
    let slot;
    let (kind, a, b) = match what {
        What::File { fd1, fd2 } => (0, fd1 as usize, fd2 as usize),
        What::Vm => (1, 0, 0),
        What::Files => (2, 0, 0),
        What::Fs => (3, 0, 0),
        What::Sighand => (4, 0, 0),
        What::Io => (5, 0, 0),
        What::Sysvsem => (6, 0, 0),
        What::EpollTarget { fd1, epoll, target, nth } => {
            slot = EpollSlot { efd: epoll as u32, tfd: target as u32, toff: nth };
            (7, fd1 as usize, &raw const slot as usize)
        }
    };
    let call = || format!("kcmp({pid1}, {pid2}, {what:?})");
    // SAFETY: the only pointer is that to `slot`, which lives over the call and is only read.
    let order = unsafe { syscall(Sysno::kcmp, [pid1 as usize, pid2 as usize, kind, a, b, 0]) };
    match order.map_err(|e| e.of(call()))? {
        0 => Ok(Order::Equal),
        1 => Ok(Order::Less),
        2 => Ok(Order::Greater),
        3 => Ok(Order::Different),
        other => Err(Failed::unexpected(format!("{} = {other}", call()))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn shared_and_separate_open_files_are_told_apart() {
        let me = std::process::id() as i32;
        let first = std::fs::File::open("/dev/null").unwrap();
        let shared = first.try_clone().unwrap();
        let second = std::fs::File::open("/dev/null").unwrap();
        let files = |a: &std::fs::File, b: &std::fs::File| {
            compare(me, me, What::File { fd1: a.as_raw_fd(), fd2: b.as_raw_fd() }).unwrap()
        };
        assert_eq!(files(&first, &shared), Order::Equal);
        let (there, back) = (files(&first, &second), files(&second, &first));
        assert_ne!(there, Order::Equal);
        assert_eq!(there.ordering().unwrap(), back.ordering().unwrap().reverse(), "the order isn't one");
        assert!(compare(me, me, What::File { fd1: 9999, fd2: 0 }).unwrap_err().is(libc::EBADF));
    }

    #[test]
    fn a_child_shares_nothing_and_a_thread_all() {
        let me = std::process::id() as i32;
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let (finish, finished) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            tell.send(crate::mmap::gettid().unwrap() as i32).unwrap();
            // Ends when the other end is dropped.
            let _ = finished.recv();
        });
        let tid = told.recv().unwrap();
        for what in [What::Vm, What::Files, What::Fs, What::Sighand] {
            assert!(!compare(me, child.id() as i32, what).unwrap().is_same(), "{what:?}");
            assert!(compare(me, tid, what).unwrap().is_same(), "{what:?}");
        }
        drop(finish);
        thread.join().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(compare(me, child.id() as i32, What::Vm).unwrap_err().is(libc::ESRCH));
    }

    #[test]
    fn the_target_of_an_epoll_is_found() {
        let me = std::process::id() as i32;
        // SAFETY: new descriptors from calls that take no pointers, owned from here on; the event lives over its call.
        let (epoll, event) = unsafe {
            use std::os::fd::{FromRawFd, OwnedFd};
            let epoll = OwnedFd::from_raw_fd(libc::epoll_create1(libc::EPOLL_CLOEXEC));
            let event = OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC));
            let mut what = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 7 };
            assert_eq!(
                libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, event.as_raw_fd(), &raw mut what),
                0
            );
            (epoll, event)
        };
        let of =
            |fd1: i32| What::EpollTarget { fd1, epoll: epoll.as_raw_fd(), target: event.as_raw_fd(), nth: 0 };
        assert!(compare(me, me, of(event.as_raw_fd())).unwrap().is_same());
        assert!(!compare(me, me, of(epoll.as_raw_fd())).unwrap().is_same());
    }
}
