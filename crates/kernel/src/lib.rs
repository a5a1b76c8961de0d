//! Every way bardo talks to Linux, typed. The only crate of ours with `unsafe` in it.
//!
//! Each module states which kernel interface it wraps, what it needs (kernel version, privilege) and how it fails.
//! All calls pass [`gate`]; whatever differs between architectures is in [`arch`].

pub mod arch;
pub mod error;
pub mod fs;
pub mod gate;
pub mod mmap;
pub mod ptrace;
pub mod stub;

pub use error::{Errno, Failed, Result};
pub use syscalls::Sysno;
