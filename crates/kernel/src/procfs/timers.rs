//! `/proc/PID/timers`: the POSIX timers of a process (man 2 timer_create, man 5 proc_pid_timers). What they are set to
//! isn't here: only the process itself can ask (timer_gettime(2)).
//!
//! Privilege: PTRACE_MODE_ATTACH_FSCREDS at open. Kernel: CONFIG_CHECKPOINT_RESTORE and CONFIG_POSIX_TIMERS.

use super::text::{self, malformed, missing};
use crate::error::Result;

const FILE: &str = "timers";

/// How a timer tells of its expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notify {
    /// SIGEV_SIGNAL.
    Signal,
    /// SIGEV_NONE.
    None,
    /// SIGEV_THREAD: as SIGEV_SIGNAL for the kernel.
    Thread,
}

/// One timer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timer {
    /// Its id.
    pub id: i32,
    /// The signal it sends.
    pub signal: i32,
    /// The value (`si_value`) it sends along.
    pub value: u64,
    /// How it tells.
    pub notify: Notify,
    /// Whether `target` is one thread (SIGEV_THREAD_ID) and not the process.
    pub to_thread: bool,
    /// Whom it tells; 0 where that one is gone.
    pub target: i32,
    /// Its clock: CLOCK_…, or a negative number for the CPU clock of a process or thread.
    pub clock: i32,
}

fn signal(text: &[u8]) -> Result<(i32, u64)> {
    let (number, value) = text::split_once(text, b'/').ok_or_else(|| malformed(FILE, "signal", text))?;
    // The kernel writes a null pointer as (null) where it has been built that way.
    let value = if value == b"(null)" { 0 } else { text::radix(FILE, "signal", value, 16)? };
    Ok((text::number(FILE, "signal", number)?, value))
}

fn notify(text: &[u8]) -> Result<(Notify, bool, i32)> {
    let bad = || malformed(FILE, "notify", text);
    let (how, whom) = text::split_once(text, b'/').ok_or_else(bad)?;
    let (what, target) = text::split_once(whom, b'.').ok_or_else(bad)?;
    let how = match how {
        b"signal" => Notify::Signal,
        b"none" => Notify::None,
        b"thread" => Notify::Thread,
        _ => return Err(bad()),
    };
    let to_thread = match what {
        b"tid" => true,
        b"pid" => false,
        _ => return Err(bad()),
    };
    Ok((how, to_thread, text::number(FILE, "notify", target)?))
}

/// Reads the text: four lines a timer, of which `ID` is the first.
///
/// # Errors
/// EPROTO with the line.
pub fn parse(text: &[u8]) -> Result<Vec<Timer>> {
    let mut timers = Vec::new();
    let mut lines = text::lines(text)
        .map(|line| text::key_value(line).ok_or_else(|| malformed(FILE, "a line", line)))
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .peekable();
    if let Some((key, _)) = lines.peek().filter(|(key, _)| *key != b"ID") {
        return Err(malformed(FILE, "the first line", key));
    }
    while let Some((_, id)) = lines.next() {
        let id = text::number(FILE, "ID", id)?;
        let (mut sends, mut tells, mut clock) = (None, None, None);
        while let Some((key, value)) = lines.next_if(|(key, _)| *key != b"ID") {
            match key {
                b"signal" => sends = Some(signal(value)?),
                b"notify" => tells = Some(notify(value)?),
                b"ClockID" => clock = Some(text::number(FILE, "ClockID", value)?),
                _ => {}
            }
        }
        let no = |key: &str| missing(FILE, &format!("{key} line of timer {id}"));
        let (signal, value) = sends.ok_or_else(|| no("signal"))?;
        let (notify, to_thread, target) = tells.ok_or_else(|| no("notify"))?;
        let clock = clock.ok_or_else(|| no("ClockID"))?;
        timers.push(Timer { id, signal, value, notify, to_thread, target, clock });
    }
    Ok(timers)
}

/// The timers of a process.
pub fn read(pid: i32) -> Result<Vec<Timer>> {
    text::read(&super::path(pid, FILE), parse)
}
