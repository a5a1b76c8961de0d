//! `/proc/PID/task/TID/children`: the processes that a thread has started and that live, zombies included
//! (man 5 proc_tid_children).
//!
//! A child belongs to the thread that forked it: ask all threads to have all of a process's. The list is reliable only
//! while the children are stopped or otherwise can't exit: one that goes away while the kernel writes may hide another.
//!
//! Privilege: none. Kernel: CONFIG_PROC_CHILDREN. A child outside this `/proc`'s pid namespace reads as 0.

use super::text;
use crate::error::Result;

const FILE: &str = "children";

/// Reads the text: pids and blanks.
///
/// # Errors
/// EPROTO with the word that isn't a number.
pub fn parse(text: &[u8]) -> Result<Vec<i32>> {
    text::numbers(FILE, "a pid", text)
}

/// The children of one thread, oldest first.
pub fn read_thread(pid: i32, tid: i32) -> Result<Vec<i32>> {
    text::read(&super::thread_path(pid, tid, FILE), parse)
}

/// The children of all of a process's threads, in order of the threads. A thread that ends meanwhile hands its children
/// to another one: the list is whole only if the process is stopped.
pub fn read(pid: i32) -> Result<Vec<i32>> {
    let mut all = Vec::new();
    for tid in super::threads(pid)? {
        match read_thread(pid, tid) {
            Ok(children) => all.extend(children),
            Err(e) if (e.is(libc::ENOENT) || e.is(libc::ESRCH)) && tid != pid => {}
            Err(e) => return Err(e),
        }
    }
    Ok(all)
}
