//! Files of `/proc` that hold one value: a name, a list of strings, or a number.
//!
//! Privilege: named at each; absent configuration gives ENOENT, and `None` where the function says so.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use super::text::{self, malformed};
use crate::error::Result;

/// The value of a file that some kernels don't have.
fn optional<T>(value: Result<T>) -> Result<Option<T>> {
    match value {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.is(libc::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Reads `comm`: all but the newline the kernel ends it with.
pub fn parse_comm(text: &[u8]) -> OsString {
    OsString::from_vec(text.strip_suffix(b"\n").unwrap_or(text).to_vec())
}

/// `/proc/PID/comm`: the name of the process, its leader's. Privilege: none.
pub fn comm(pid: i32) -> Result<OsString> {
    text::read(&super::path(pid, "comm"), |t| Ok(parse_comm(t)))
}

/// `/proc/PID/task/TID/comm`: the name of one thread. Privilege: none.
pub fn comm_thread(pid: i32, tid: i32) -> Result<OsString> {
    text::read(&super::thread_path(pid, tid, "comm"), |t| Ok(parse_comm(t)))
}

/// Reads strings that each end in a NUL byte; the last one's may be missing.
pub fn parse_strings(text: &[u8]) -> Vec<OsString> {
    if text.is_empty() {
        return Vec::new();
    }
    let text = text.strip_suffix(b"\0").unwrap_or(text);
    text.split(|b| *b == 0).map(|s| OsString::from_vec(s.to_vec())).collect()
}

/// `/proc/PID/cmdline`: the arguments, as they stand in the process's memory now: it may have written over them.
/// Empty for zombies and kernel threads. Privilege: none.
pub fn cmdline(pid: i32) -> Result<Vec<OsString>> {
    text::read(&super::path(pid, "cmdline"), |t| Ok(parse_strings(t)))
}

/// `/proc/PID/environ`: the environment that the program was started with, as it stands in its memory now.
/// Privilege: PTRACE_MODE_READ_FSCREDS.
pub fn environ(pid: i32) -> Result<Vec<OsString>> {
    text::read(&super::path(pid, "environ"), |t| Ok(parse_strings(t)))
}

/// Reads eight hexadecimal digits.
pub fn parse_personality(text: &[u8]) -> Result<u32> {
    let bits = text::radix("personality", "the text", text, 16)?;
    u32::try_from(bits).map_err(|_| malformed("personality", "the text", text))
}

/// `/proc/PID/personality`: the execution domain and its flags (man 2 personality); 0 as a rule.
/// Privilege: PTRACE_MODE_ATTACH_FSCREDS.
pub fn personality(pid: i32) -> Result<u32> {
    text::read(&super::path(pid, "personality"), parse_personality)
}

/// The same of one thread.
pub fn personality_thread(pid: i32, tid: i32) -> Result<u32> {
    text::read(&super::thread_path(pid, tid, "personality"), parse_personality)
}

/// `/proc/PID/loginuid`: the user who logged in, for auditing; `u32::MAX` for nobody. Privilege: none. `None` without
/// CONFIG_AUDIT.
pub fn loginuid(pid: i32) -> Result<Option<u32>> {
    optional(text::read(&super::path(pid, "loginuid"), |t| text::number("loginuid", "the text", t)))
}

/// Reads `/autogroup-5 nice 0`.
pub fn parse_autogroup(text: &[u8]) -> Result<i32> {
    let (_, nice) = text::split_once(text, b' ').ok_or_else(|| malformed("autogroup", "the text", text))?;
    let nice = nice.strip_prefix(b"nice ").ok_or_else(|| malformed("autogroup", "the text", text))?;
    text::number("autogroup", "the nice value", nice.trim_ascii_end())
}

/// `/proc/PID/autogroup`: the nice value of the group that the scheduler makes of its session (sched(7)). Privilege: none.
/// `None` without CONFIG_SCHED_AUTOGROUP, and for a zombie.
pub fn autogroup_nice(pid: i32) -> Result<Option<i32>> {
    let read = text::read(&super::path(pid, "autogroup"), |t| {
        if t.is_empty() { Ok(None) } else { parse_autogroup(t).map(Some) }
    });
    Ok(optional(read)?.flatten())
}

/// `/proc/PID/oom_score_adj`: −1000 to 1000 (man 5 proc_pid_oom_score_adj). Privilege: none.
pub fn oom_score_adj(pid: i32) -> Result<i32> {
    text::read(&super::path(pid, "oom_score_adj"), |t| text::number("oom_score_adj", "the text", t))
}

/// Reads hexadecimal digits; a process without memory has an empty file.
pub fn parse_coredump_filter(text: &[u8]) -> Result<Option<u32>> {
    if text.is_empty() {
        return Ok(None);
    }
    let bits = text::radix("coredump_filter", "the text", text, 16)?;
    u32::try_from(bits).map(Some).map_err(|_| malformed("coredump_filter", "the text", text))
}

/// `/proc/PID/coredump_filter`: which areas a core dump takes (man 5 core). `None` for a process without memory, and
/// without CONFIG_ELF_CORE. Privilege: that of the file, which is the process's own user's.
pub fn coredump_filter(pid: i32) -> Result<Option<u32>> {
    Ok(optional(text::read(&super::path(pid, "coredump_filter"), parse_coredump_filter))?.flatten())
}

/// `/proc/PID/timerslack_ns`: how late a thread's timers may be (PR_SET_TIMERSLACK). Of a thread, despite its place:
/// every tid has such a file under `/proc/TID` too. Privilege: none for the very thread that asks, else CAP_SYS_NICE:
/// EPERM. Without it, have the thread ask itself (PR_GET_TIMERSLACK).
pub fn timerslack_ns(tid: i32) -> Result<u64> {
    text::read(&super::path(tid, "timerslack_ns"), |t| text::number("timerslack_ns", "the text", t))
}

/// `/proc/PID/wchan`: the kernel's function that a thread waits in; `None` if it runs, or without
/// PTRACE_MODE_READ_FSCREDS.
pub fn wchan(pid: i32, tid: i32) -> Result<Option<String>> {
    let name = text::read(&super::thread_path(pid, tid, "wchan"), |t| Ok(text::words(t)))?;
    Ok(Some(name).filter(|n| n != "0" && !n.is_empty()))
}

/// Reads a UUID: 32 hexadecimal digits in groups of 8-4-4-4-12.
pub fn parse_boot_id(text: &[u8]) -> Result<String> {
    let id = text.trim_ascii();
    let right = id.len() == 36
        && id.iter().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => *b == b'-',
            _ => b.is_ascii_hexdigit(),
        });
    if right { Ok(text::words(id)) } else { Err(malformed("boot_id", "the text", text)) }
}

/// `/proc/sys/kernel/random/boot_id`: a UUID made at each boot. A pid and its start time mean something only together
/// with it. Privilege: none.
pub fn boot_id() -> Result<String> {
    text::read(Path::new("/proc/sys/kernel/random/boot_id"), parse_boot_id)
}
