//! Lists of watched files (man 7 epoll).
//!
//! Privilege: none; EPOLLWAKEUP needs CAP_BLOCK_SUSPEND, and is silently left out without it. Kernel: any;
//! [`polls_busily`] asks what 6.9 brought. Limits: `/proc/sys/fs/epoll/max_user_watches`.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use syscalls::Sysno;

use crate::error::Result;
use crate::gate::syscall;

/// EPOLLWAKEUP, EPOLLONESHOT, EPOLLET and EPOLLEXCLUSIVE: how an entry behaves. What is left of one whose EPOLLONESHOT has
/// fired.
pub const BEHAVIOUR: u32 = 1 << 28 | 1 << 29 | ONE_SHOT | EDGE;
/// EPOLLONESHOT.
pub const ONE_SHOT: u32 = 1 << 30;
/// EPOLLET.
pub const EDGE: u32 = 1 << 31;
/// All events that a file can have.
pub const EVENTS: u32 = 0xffff;

/// `struct epoll_event`, for epoll_ctl(2) in a target. It is packed on x86-64 alone.
pub fn event_bytes(events: u32, data: u64) -> [u8; size_of::<libc::epoll_event>()] {
    let mut bytes = [0; size_of::<libc::epoll_event>()];
    bytes[..4].copy_from_slice(&events.to_ne_bytes());
    bytes[std::mem::offset_of!(libc::epoll_event, u64)..].copy_from_slice(&data.to_ne_bytes());
    bytes
}

/// Makes an empty one; close-on-exec.
pub fn make() -> Result<OwnedFd> {
    // SAFETY: the call takes no pointers, and the new descriptor is ours alone.
    unsafe {
        let fd = syscall(Sysno::epoll_create1, [libc::EPOLL_CLOEXEC as usize, 0, 0, 0, 0, 0])
            .map_err(|e| e.of("epoll_create1(EPOLL_CLOEXEC)"))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// Adds the open file that `number` leads to in the table of the calling thread (EPOLL_CTL_ADD). The entry is known by both,
/// and goes with the open file, not with the number. EPOLLERR and EPOLLHUP are always added to the events.
///
/// # Errors
/// EPERM: a file that can't be waited for; EEXIST: it is there already; ELOOP: epolls that watch each other; ENOSPC: more
/// entries than a user may have.
pub fn add(epoll: BorrowedFd<'_>, number: i32, events: u32, data: u64) -> Result<()> {
    let event = libc::epoll_event { events, u64: data };
    let args = [
        epoll.as_raw_fd() as usize,
        libc::EPOLL_CTL_ADD as usize,
        number as usize,
        &raw const event as usize,
        0,
        0,
    ];
    // SAFETY: the event lives over the call and is only read; a number that isn't open is EBADF.
    unsafe { syscall(Sysno::epoll_ctl, args) }.map(drop).map_err(|e| {
        e.of(format!("epoll_ctl(fd {}, EPOLL_CTL_ADD, {number}, {events:#x})", epoll.as_raw_fd()))
    })
}

/// Takes what is there to be reported, without waiting: how much it was, at most 1024. What is edge-triggered is reported
/// once, and what is one-shot is switched off by it.
pub fn take(epoll: BorrowedFd<'_>) -> Result<usize> {
    const MAX: usize = 1024;
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; MAX];
    loop {
        let args = [epoll.as_raw_fd() as usize, events.as_mut_ptr() as usize, MAX, 0, 0, 0];
        // SAFETY: the array is ours, has room for `MAX` events, and lives over the call; no signal mask.
        match unsafe { syscall(Sysno::epoll_pwait, args) } {
            Err(e) if e.is(libc::EINTR) => {}
            other => return other.map_err(|e| e.of(format!("epoll_pwait(fd {})", epoll.as_raw_fd()))),
        }
    }
}

/// Whether it was told to poll network devices busily (EPIOCGPARAMS). Kernels that know no such thing say no.
pub fn polls_busily(epoll: BorrowedFd<'_>) -> Result<bool> {
    /// `_IOR(0x8A, 0x02, struct epoll_params)` of `<linux/eventpoll.h>`.
    const EPIOCGPARAMS: usize = 0x8008_8a02;
    let mut params = [0u8; 8];
    let args = [epoll.as_raw_fd() as usize, EPIOCGPARAMS, &raw mut params as usize, 0, 0, 0];
    // SAFETY: the command writes the eight bytes of struct epoll_params, which are ours.
    match unsafe { syscall(Sysno::ioctl, args) } {
        // Time, budget, preference; the last byte is padding.
        Ok(_) => Ok(params[..7].iter().any(|byte| *byte != 0)),
        Err(e) if [libc::ENOTTY, libc::EINVAL, libc::EOPNOTSUPP].contains(&e.errno.0) => Ok(false),
        Err(e) => Err(e.of(format!("ioctl(fd {}, EPIOCGPARAMS)", epoll.as_raw_fd()))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::procfs::fdinfo;
    use crate::{eventfd, fcntl, fs};

    #[test]
    fn an_edge_is_taken_once_and_an_entry_outlives_its_number() {
        let (epoll, event) = (make().unwrap(), eventfd::make(libc::EFD_NONBLOCK).unwrap());
        assert!(!polls_busily(epoll.as_fd()).unwrap());
        let (watch, source) = (epoll.as_fd(), event.as_fd());
        fcntl::in_own_table(|table| {
            table.put(source, 77)?;
            add(watch, 77, EDGE | libc::EPOLLIN as u32, 0x1234_5678_9abc)?;
            assert!(add(watch, 77, 0, 0).unwrap_err().is(libc::EEXIST));
            Ok(())
        })
        .unwrap();
        assert_eq!(take(watch).unwrap(), 0);
        fs::write(source, &1u64.to_ne_bytes()).unwrap();
        assert_eq!((take(watch).unwrap(), take(watch).unwrap()), (1, 0));
        let info = fdinfo::read(std::process::id() as i32, epoll.as_raw_fd()).unwrap();
        assert!(
            info.get("tfd").is_some_and(|t| {
                let words: Vec<&str> = t.split_whitespace().collect();
                words.starts_with(&["77", "events:", "80000019", "data:", "123456789abc"])
            }),
            "{info:?}"
        );
        assert!(add(watch, epoll.as_raw_fd(), 0, 0).unwrap_err().is(libc::EINVAL), "it watches itself");
    }
}
