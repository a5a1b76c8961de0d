//! `/proc/PID/task/TID/syscall`: the system call that a thread waits in (man 5 proc_pid_syscall).
//!
//! Privilege: PTRACE_MODE_ATTACH_FSCREDS. Kernel: CONFIG_HAVE_ARCH_TRACEHOOK. For a thread that isn't stopped, the answer
//! is old by the time it is read.

use super::text::{self, malformed};
use crate::error::Result;

const FILE: &str = "syscall";

/// Where a thread is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syscall {
    /// On a CPU, or ready to be: the kernel doesn't look.
    Running,
    /// Waiting, but not in a system call: stopped in user mode, or in a page fault.
    Outside {
        /// Its stack pointer.
        sp: u64,
        /// Its instruction pointer.
        pc: u64,
    },
    /// Waiting in a system call.
    Inside {
        /// The call's number.
        nr: u64,
        /// Its arguments.
        args: [u64; 6],
        /// Its stack pointer.
        sp: u64,
        /// Its instruction pointer.
        pc: u64,
    },
}

/// Reads the text.
///
/// # Errors
/// EPROTO with the text.
pub fn parse(text: &[u8]) -> Result<Syscall> {
    let bad = || malformed(FILE, "the text", text);
    let words: Vec<&[u8]> = text.trim_ascii().split(|b| *b == b' ').collect();
    let hex = |word: &[u8]| {
        if word.starts_with(b"0x") { text::radix(FILE, "an address", word, 16) } else { Err(bad()) }
    };
    match words[..] {
        [b"running"] => Ok(Syscall::Running),
        [b"-1", sp, pc] => Ok(Syscall::Outside { sp: hex(sp)?, pc: hex(pc)? }),
        [nr, a, b, c, d, e, f, sp, pc] => Ok(Syscall::Inside {
            nr: text::number(FILE, "the number", nr)?,
            args: [hex(a)?, hex(b)?, hex(c)?, hex(d)?, hex(e)?, hex(f)?],
            sp: hex(sp)?,
            pc: hex(pc)?,
        }),
        _ => Err(bad()),
    }
}

/// Where a process's leader is.
pub fn read(pid: i32) -> Result<Syscall> {
    text::read(&super::path(pid, FILE), parse)
}

/// Where one thread is.
pub fn read_thread(pid: i32, tid: i32) -> Result<Syscall> {
    text::read(&super::thread_path(pid, tid, FILE), parse)
}
