//! NUMA policies of memory: mbind(2), get_mempolicy(2).
//!
//! A policy is a mode with flags, and a set of nodes. The kernel cuts the set to the nodes that are there, except where the
//! flags say that it is to be kept as it was given.
//!
//! Privilege: none. Kernel: CONFIG_NUMA, else ENOSYS; MPOL_WEIGHTED_INTERLEAVE since Linux 6.9.

use syscalls::Sysno;

use crate::error::Result;
use crate::gate::syscall;

/// MPOL_F_ADDR of get_mempolicy(2): the policy of the memory at an address, not the thread's.
pub const AT_ADDRESS: u64 = 2;
/// MPOL_MF_MOVE of mbind(2): pages that lie elsewhere are moved, where they can be.
pub const MOVE: u64 = 2;
/// Bytes of a set of nodes: 1024, as many as any kernel has (MAX_NUMNODES).
pub const MASK_LEN: usize = 128;
/// `maxnode` for a whole set: one more than it has bits.
pub const MASK_BITS: u64 = MASK_LEN as u64 * 8 + 1;

/// A set of nodes as the kernel has it.
pub type Mask = [u8; MASK_LEN];

/// What becomes of a policy on this host: it is given to a page of ours and asked for again.
///
/// # Errors
/// EINVAL: no such mode here, or none of these nodes; ENOSYS.
pub fn try_out(mode: u32, nodes: &Mask) -> Result<(u32, Mask)> {
    let page = 4096;
    let (prot, flags) = (libc::PROT_READ as usize, (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize);
    // SAFETY: a new mapping where the kernel likes, which replaces none and is taken away before anybody can use it.
    let at = unsafe { syscall(Sysno::mmap, [0, page, prot, flags, usize::MAX, 0]) }
        .map_err(|e| e.of("mmap(1 page)"))?;
    let (mut got_mode, mut got) = (0u32, [0; MASK_LEN]);
    // Where there are no nodes, an empty set won't do.
    let (mask, bits) = match nodes.iter().all(|byte| *byte == 0) {
        true => (0, 0),
        false => (nodes.as_ptr() as usize, MASK_BITS as usize),
    };
    // SAFETY: the page is ours; the sets and the mode live over the calls.
    let tried = unsafe {
        syscall(Sysno::mbind, [at, page, mode as usize, mask, bits, 0])
            .map_err(|e| e.of(format!("mbind(mode {mode:#x})")))
            .and_then(|_| {
                let (mode, mask) = (&raw mut got_mode as usize, got.as_mut_ptr() as usize);
                let args = [mode, mask, MASK_BITS as usize, at, AT_ADDRESS as usize, 0];
                syscall(Sysno::get_mempolicy, args).map_err(|e| e.of("get_mempolicy(MPOL_F_ADDR)"))
            })
    };
    // SAFETY: the page is ours, and nothing refers to it.
    unsafe { syscall(Sysno::munmap, [at, page, 0, 0, 0, 0]) }.map_err(|e| e.of("munmap()"))?;
    tried.map(|_| (got_mode, got))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_what_was_asked_for_or_an_error() {
        const LOCAL: u32 = 4;
        const BIND: u32 = 2;
        match try_out(LOCAL, &[0; MASK_LEN]) {
            // No CONFIG_NUMA.
            Err(e) => return assert!(e.is(libc::ENOSYS), "{e}"),
            Ok(policy) => assert_eq!(policy, (LOCAL, [0; MASK_LEN])),
        }
        let mut first = [0; MASK_LEN];
        first[0] = 1;
        assert_eq!(try_out(BIND, &first).unwrap(), (BIND, first));
        assert!(try_out(BIND, &[0; MASK_LEN]).unwrap_err().is(libc::EINVAL));
        assert!(try_out(77, &first).unwrap_err().is(libc::EINVAL));
    }
}
