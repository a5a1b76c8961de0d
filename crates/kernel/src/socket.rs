//! Sockets: which kind one is (man 7 socket: SO_DOMAIN, SO_TYPE, SO_PROTOCOL).
//!
//! Privilege: none. Kernel: any.

use std::os::fd::{AsRawFd, BorrowedFd};

use syscalls::Sysno;

use crate::error::Result;
use crate::gate::syscall;

/// What socket(2) was called with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// AF_UNIX, AF_INET, ….
    pub domain: i32,
    /// SOCK_STREAM, SOCK_DGRAM, ….
    pub kind: i32,
    /// IPPROTO_TCP, NETLINK_ROUTE, …; what 0 came to mean.
    pub protocol: i32,
}

fn option(fd: BorrowedFd<'_>, option: i32, name: &str) -> Result<i32> {
    let mut value: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    let args = [
        fd.as_raw_fd() as usize,
        libc::SOL_SOCKET as usize,
        option as usize,
        &raw mut value as usize,
        &raw mut len as usize,
        0,
    ];
    // SAFETY: value and length are ours and live over the call; the length says how much may be written.
    unsafe { syscall(Sysno::getsockopt, args) }
        .map_err(|e| e.of(format!("getsockopt(fd {}, {name})", fd.as_raw_fd())))?;
    Ok(value)
}

/// The socket's kind.
///
/// # Errors
/// ENOTSOCK: it isn't a socket.
pub fn kind(fd: BorrowedFd<'_>) -> Result<Kind> {
    Ok(Kind {
        domain: option(fd, libc::SO_DOMAIN, "SO_DOMAIN")?,
        kind: option(fd, libc::SO_TYPE, "SO_TYPE")?,
        protocol: option(fd, libc::SO_PROTOCOL, "SO_PROTOCOL")?,
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn sockets_say_what_they_are() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = Kind { domain: libc::AF_INET, kind: libc::SOCK_STREAM, protocol: libc::IPPROTO_TCP };
        assert_eq!(kind(listener.as_fd()).unwrap(), tcp);
        let (a, _b) = std::os::unix::net::UnixDatagram::pair().unwrap();
        let unix = Kind { domain: libc::AF_UNIX, kind: libc::SOCK_DGRAM, protocol: 0 };
        assert_eq!(kind(a.as_fd()).unwrap(), unix);
        let null = std::fs::File::open("/dev/null").unwrap();
        assert!(kind(null.as_fd()).unwrap_err().is(libc::ENOTSOCK));
    }
}
