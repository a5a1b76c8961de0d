//! `/proc/PID/sched` and `/proc/PID/task/TID/sched`: the scheduler's book-keeping. bardo looks at it to see whether a
//! thread has run: `exec_start` and the counts of switches don't move while it is stopped.
//!
//! The first line begins with the raw `comm`, newlines and all. The values begin after a rule of dashes longer than any
//! `comm` can be, so a name can't forge one.
//!
//! Privilege: none. Kernel: CONFIG_SCHED_DEBUG (always, since 6.15); it is for people, and its keys change.

use super::text::{self, malformed, missing};
use crate::error::Result;

const FILE: &str = "sched";

/// A `comm` has at most 15 bytes, a kernel thread's at most 63; the rule has 67 dashes.
const RULE_BYTES_MIN: usize = 64;

/// The lines that bardo uses, and the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sched {
    /// `se.exec_start`: when it last began to run or was last accounted, in nanoseconds of the scheduler's clock.
    pub exec_start_ns: u64,
    /// `se.sum_exec_runtime`: how long it has run, in nanoseconds.
    pub sum_exec_runtime_ns: u64,
    /// `nr_switches`: how often it left the CPU.
    pub nr_switches: u64,
    /// `nr_voluntary_switches`: of its own will.
    pub nr_voluntary_switches: u64,
    /// `nr_involuntary_switches`: by the scheduler's.
    pub nr_involuntary_switches: u64,
    /// All other `key : value` lines, as written.
    pub other: Vec<(String, String)>,
}

/// `1470403.303590` milliseconds as nanoseconds.
fn milliseconds(key: &str, value: &[u8]) -> Result<u64> {
    let bad = || malformed(FILE, key, value);
    let (whole, fraction) = text::split_once(value, b'.').ok_or_else(bad)?;
    if fraction.len() != 6 {
        return Err(bad());
    }
    let whole: u64 = text::number(FILE, key, whole)?;
    let fraction: u64 = text::number(FILE, key, fraction)?;
    whole.checked_mul(1_000_000).and_then(|ns| ns.checked_add(fraction)).ok_or_else(bad)
}

/// Reads the text.
///
/// # Errors
/// EPROTO with the line's key.
pub fn parse(text: &[u8]) -> Result<Sched> {
    let is_rule = |line: &&[u8]| line.len() >= RULE_BYTES_MIN && line.iter().all(|b| *b == b'-');
    let mut lines = text.split(|b| *b == b'\n');
    lines.find(is_rule).ok_or_else(|| missing(FILE, "rule of dashes"))?;
    let mut pairs: Vec<(&[u8], &[u8])> = lines.filter_map(text::key_value).collect();
    let mut take = |key: &str| {
        let at = pairs.iter().position(|(k, _)| *k == key.as_bytes());
        at.map(|at| pairs.remove(at).1).ok_or_else(|| missing(FILE, &format!("{key} line")))
    };
    let exec_start = take("se.exec_start")?;
    let sum = take("se.sum_exec_runtime")?;
    let switches = take("nr_switches")?;
    let voluntary = take("nr_voluntary_switches")?;
    let involuntary = take("nr_involuntary_switches")?;
    Ok(Sched {
        exec_start_ns: milliseconds("se.exec_start", exec_start)?,
        sum_exec_runtime_ns: milliseconds("se.sum_exec_runtime", sum)?,
        nr_switches: text::number(FILE, "nr_switches", switches)?,
        nr_voluntary_switches: text::number(FILE, "nr_voluntary_switches", voluntary)?,
        nr_involuntary_switches: text::number(FILE, "nr_involuntary_switches", involuntary)?,
        other: pairs.into_iter().map(|(k, v)| (text::words(k), text::words(v))).collect(),
    })
}

/// Of a process: of its leader.
pub fn read(pid: i32) -> Result<Sched> {
    text::read(&super::path(pid, FILE), parse)
}

/// Of one thread.
pub fn read_thread(pid: i32, tid: i32) -> Result<Sched> {
    text::read(&super::thread_path(pid, tid, FILE), parse)
}
