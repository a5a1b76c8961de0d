//! The family `shared`: objects that processes reach by a name of the kernel's, and neither through a descriptor nor in memory.

pub mod sysv;

pub use sysv::{SysvImage, SysvObjects};

use crate::support::Support;

/// The table, for `docs/support.md` and `bardo doctor`.
pub fn support() -> Vec<Support> {
    vec![sysv::SUPPORT]
}
