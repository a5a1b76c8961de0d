//! The family `memory`: address spaces, their areas, their pages.
//!
//! A checkpoint runs [`survey`] on each process, [`Shared::complete`] once, then writes ([`Shared::write`] before every
//! [`Space::write`], since areas name objects), then [`take`]s the pages. A restart goes through [`MemoryImage`].
//!
//! A *space* in the image is what page frames belong to: a process's memory (its own pid) or an object that processes have in
//! common ([`object::OBJECTS`] and up).

pub mod anonymous;
pub mod area;
pub mod common;
pub mod inherit;
pub mod inode;
pub mod mapped;
pub mod object;
pub mod pages;
pub mod policy;
pub mod put;
pub mod restore;
pub mod shared;
pub mod space;
pub mod vdso;

pub use common::{Commons, Relative};
pub use inode::TMPFILE;
pub use mapped::MappedFiles;
pub use object::Shared;
pub use pages::{Taken, take};
pub use put::Places;
pub use restore::{MemoryImage, Site};
pub use space::{Inside, Space, survey};

use crate::support::Support;

/// The kinds of this family.
pub const KINDS: &[Support] = &[
    Support {
        kind: "memory/anonymous",
        kept: "private anonymous memory, heap, stacks, PROT_NONE and guard pages, huge pages, with advice, locks and seals; \
               droppable memory, as if it had been dropped",
        not_kept: "hugetlbfs, userfaultfd and secret memory, AIO rings, protection keys, shadow stacks: refused",
        privilege: "",
        workload: "memory/anonymous",
    },
    Support {
        kind: "memory/mapped",
        kept: "private and shared file mappings; of private ones the pages that were written",
        not_kept: "what the files hold; SysV memory, devices: refused",
        privilege: "",
        workload: "memory/private_file",
    },
    Support {
        kind: "memory/inode",
        kept: "what is mapped or open of memfds and of deleted or replaced files (libraries that were upgraded), with the \
               content",
        not_kept: "the name of a deleted file; files that are shared and have another name, or that others have too: refused",
        privilege: "CAP_CHECKPOINT_RESTORE for what is mapped and neither open nor the program: all of its content, its size, \
                    mode and seals",
        workload: "memory/deleted",
    },
    Support {
        kind: "memory/shared",
        kept: "shared anonymous memory between relatives, its pages once",
        not_kept: "objects shared with processes outside the tree: refused",
        privilege: "CAP_CHECKPOINT_RESTORE to skip holes, and for parts that nobody maps any more",
        workload: "memory/shared_anonymous",
    },
    Support {
        kind: "memory/policy",
        kept: "NUMA policies of memory (mbind), with their flags and nodes",
        not_kept: "home nodes, which nothing tells; of shared memory, policies within what every process maps in one piece, \
                   where its ends have none; where the nodes aren't there, the host can't run the image",
        privilege: "",
        workload: "memory/policies",
    },
    Support {
        kind: "memory/common",
        kept: "pages that relatives share copy-on-write: in the image once, and shared again",
        not_kept: "sharing of pages that were moved or swapped out; of two versions that children of one process share, the \
                   one that fewer have is copied; huge pages that were shared come back small",
        privilege: "CAP_SYS_ADMIN to see which pages are shared; else their contents are compared",
        workload: "memory/workers",
    },
    Support {
        kind: "memory/vdso",
        kept: "vdso, vvar and vvar_vclock at their places",
        not_kept: "another kernel's vdso: the host can't run the image",
        privilege: "",
        workload: "task/identity",
    },
    Support {
        kind: "memory/space",
        kept: "program break, code, data, stack, arguments, environment, auxiliary vector, exe link, MCL_FUTURE",
        not_kept: "counters: peaks, faults",
        privilege: "CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN, in the process's user namespace, for the exe link",
        workload: "task/identity",
    },
];

/// The table, for `docs/support.md` and `bardo doctor`.
pub fn support() -> Vec<Support> {
    KINDS.to_vec()
}

#[cfg(test)]
mod tests;
