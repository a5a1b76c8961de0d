//! Every way bardo talks to Linux, typed. The only crate of ours with `unsafe` in it.
//!
//! Each module states which kernel interface it wraps, what it needs (kernel version, privilege) and how it fails.
//! All calls pass [`gate`]; whatever differs between architectures is in [`arch`].

pub mod arch;
pub mod bpf;
pub mod epoll;
pub mod error;
pub mod eventfd;
pub mod fcntl;
pub mod fs;
pub mod gate;
pub mod guardian;
pub mod handle;
pub mod inotify;
pub mod kcmp;
mod keeper;
pub mod mailbox;
pub mod mmap;
pub mod namespace;
pub mod numa;
pub mod pagemap;
pub mod pidfd;
pub mod pipe;
pub mod poll;
pub mod probe;
pub mod process_vm;
pub mod procfs;
pub mod ptrace;
pub mod remote;
pub mod rlimit;
pub mod scheduler;
pub mod shelf;
pub mod signalfd;
pub mod socket;
pub mod statfs;
pub mod stub;
pub mod sysv;
pub mod time;
pub mod timerfd;
pub mod tty;
pub mod way_out;

pub use error::{Errno, Failed, Result};
pub use syscalls::Sysno;
