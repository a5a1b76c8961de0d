//! A process's descriptors, one after the other: `/proc/PID/fd` and `/proc/PID/fdinfo`, opened once (man 5 proc_pid_fd).
//!
//! A process may have a hundred thousand of them. By the directory's descriptor each costs one name to look up instead of a
//! path, and a text that a buffer has room for costs one read.
//!
//! Privilege: PTRACE_MODE_READ_FSCREDS. Kernel: any.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use super::fdinfo::{self, FdInfo};
use crate::error::Result;
use crate::fs;

/// See the module's text.
#[derive(Debug)]
pub struct Descriptors {
    pid: i32,
    links: OwnedFd,
    infos: OwnedFd,
    text: Vec<u8>,
}

impl Descriptors {
    /// Opens the two directories of a process.
    pub fn open(pid: i32) -> Result<Descriptors> {
        let open = |name: &str| {
            fs::open(&super::path(pid, name), libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC, 0)
        };
        Ok(Descriptors { pid, links: open("fd")?, infos: open("fdinfo")?, text: vec![0; 4096] })
    }

    /// What a descriptor is doing.
    ///
    /// # Errors
    /// ENOENT: there is no such descriptor.
    pub fn info(&mut self, fd: i32) -> Result<FdInfo> {
        let of = |failed: crate::Failed| {
            let call = format!("/proc/{}/fdinfo/{fd}: {}", self.pid, failed.call);
            failed.of(call)
        };
        let file = fs::open_at(self.infos.as_fd(), &fd.to_string(), libc::O_RDONLY).map_err(of)?;
        let mut len = 0;
        loop {
            let n = fs::read(file.as_fd(), &mut self.text[len..]).map_err(of)?;
            len += n;
            // The kernel makes such a text at once, and gives as much of it as there is room for.
            if len < self.text.len() {
                return fdinfo::parse(&self.text[..len]).map_err(of);
            }
            self.text.resize(len * 4, 0);
        }
    }

    /// The text of a descriptor's link: a path, or what the kernel calls it.
    pub fn link(&self, fd: i32) -> Result<PathBuf> {
        fs::read_link_at(self.links.as_fd(), &fd.to_string())
            .map_err(|e| e.of(format!("readlink(/proc/{}/fd/{fd})", self.pid)))
    }
}
