//! `/proc/PID/stat` and `/proc/PID/task/TID/stat`: one line with 52 fields (man 5 proc_pid_stat).
//!
//! The second field, `comm`, stands in parentheses and is raw: a process may put spaces, newlines and parentheses into
//! it. No field after it holds a `)`, so the last one on the text ends it.
//!
//! Privilege: none, but without PTRACE_MODE_READ_FSCREDS the addresses (start_code and later, exit_code too) read as 0.
//! The kernel writes sentinels while a process execs or exits. Kernel: any; fields beyond the 52nd are ignored.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::text::{self, malformed, missing};
use crate::error::Result;

const FILE: &str = "stat";

/// What a process or thread is doing, by the letter the kernel gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// `R`: running, or ready to.
    Running,
    /// `S`: waiting, and a signal would end the wait.
    Sleeping,
    /// `D`: waiting, and no signal ends the wait.
    DiskSleep,
    /// `T`: stopped by a signal.
    Stopped,
    /// `t`: stopped by its tracer.
    Traced,
    /// `Z`: dead, not waited for.
    Zombie,
    /// `X` or `x`: being removed.
    Dead,
    /// `I`: an idle kernel thread.
    Idle,
    /// `P`: a parked kernel thread.
    Parked,
    /// A letter that we don't know.
    Other(u8),
}

impl State {
    /// The state of a letter.
    pub fn of(letter: u8) -> State {
        match letter {
            b'R' => State::Running,
            b'S' => State::Sleeping,
            b'D' => State::DiskSleep,
            b'T' => State::Stopped,
            b't' => State::Traced,
            b'Z' => State::Zombie,
            b'X' | b'x' => State::Dead,
            b'I' => State::Idle,
            b'P' => State::Parked,
            other => State::Other(other),
        }
    }
}

/// The fields of the line, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// (1) The thread's id; of a process, its leader's.
    pub pid: i32,
    /// (2) Its name, without the parentheses: at most 15 bytes of any kind (a kernel thread's may be longer).
    pub comm: OsString,
    /// (3) What it is doing.
    pub state: State,
    /// (4) The process whose child it is; 0 where that one lies outside the pid namespace of this `/proc`.
    pub ppid: i32,
    /// (5) Its process group.
    pub pgrp: i32,
    /// (6) Its session.
    pub session: i32,
    /// (7) The controlling terminal's device number as the kernel encodes it; 0 for none.
    pub tty_nr: i32,
    /// (8) The foreground process group of that terminal; -1 for none.
    pub tpgid: i32,
    /// (9) The kernel's PF_ flags.
    pub flags: u64,
    /// (10) Page faults that needed no I/O.
    pub minflt: u64,
    /// (11) The same of waited-for children.
    pub cminflt: u64,
    /// (12) Page faults that needed I/O.
    pub majflt: u64,
    /// (13) The same of waited-for children.
    pub cmajflt: u64,
    /// (14) Time in user mode, in clock ticks.
    pub utime: u64,
    /// (15) Time in kernel mode, in clock ticks.
    pub stime: u64,
    /// (16) utime of waited-for children.
    pub cutime: i64,
    /// (17) stime of waited-for children.
    pub cstime: i64,
    /// (18) The kernel's view of the priority: 20 + nice, or −1 − the real-time priority.
    pub priority: i64,
    /// (19) The nice value, −20 to 19.
    pub nice: i64,
    /// (20) How many threads its process has.
    pub num_threads: i64,
    /// (21) Always 0.
    pub itrealvalue: i64,
    /// (22) When it started, in clock ticks since boot. With the pid, it identifies a process within one boot.
    pub starttime: u64,
    /// (23) Size of the address space, in bytes.
    pub vsize: u64,
    /// (24) Resident pages, not exact.
    pub rss: i64,
    /// (25) The soft RLIMIT_RSS.
    pub rsslim: u64,
    /// (26) Where its program's text begins.
    pub start_code: u64,
    /// (27) Where its program's text ends.
    pub end_code: u64,
    /// (28) Where its stack began.
    pub start_stack: u64,
    /// (29) Stack pointer: 0 unless the process is exiting.
    pub kstkesp: u64,
    /// (30) Instruction pointer: 0 unless the process is exiting.
    pub kstkeip: u64,
    /// (31) Obsolete: pending signals 1 to 31; `status` has all.
    pub signal: u64,
    /// (32) Obsolete: blocked signals.
    pub blocked: u64,
    /// (33) Obsolete: ignored signals.
    pub sigignore: u64,
    /// (34) Obsolete: caught signals.
    pub sigcatch: u64,
    /// (35) Whether it waits in the kernel (formerly where).
    pub wchan: u64,
    /// (36) Always 0.
    pub nswap: u64,
    /// (37) Always 0.
    pub cnswap: u64,
    /// (38) The signal its parent gets at its end; −1 for a thread that isn't a leader.
    pub exit_signal: i32,
    /// (39) The CPU it last ran on.
    pub processor: i32,
    /// (40) Its real-time priority; 0 for none.
    pub rt_priority: u32,
    /// (41) Its scheduling policy, SCHED_OTHER and so on.
    pub policy: u32,
    /// (42) Clock ticks spent waiting for block devices.
    pub delayacct_blkio_ticks: u64,
    /// (43) Clock ticks spent running virtual CPUs.
    pub guest_time: u64,
    /// (44) The same of waited-for children.
    pub cguest_time: i64,
    /// (45) Where its program's data begins.
    pub start_data: u64,
    /// (46) Where its program's data ends.
    pub end_data: u64,
    /// (47) Where its heap begins (brk(2)).
    pub start_brk: u64,
    /// (48) Where its arguments begin.
    pub arg_start: u64,
    /// (49) Where its arguments end.
    pub arg_end: u64,
    /// (50) Where its environment begins.
    pub env_start: u64,
    /// (51) Where its environment ends.
    pub env_end: u64,
    /// (52) Its status as waitpid(2) would report it; meaningful for a zombie.
    pub exit_code: i32,
}

/// Takes the fields after `comm` one by one.
struct Rest<'a> {
    words: Box<dyn Iterator<Item = &'a [u8]> + 'a>,
    line: &'a [u8],
}

impl Rest<'_> {
    fn next<T: std::str::FromStr>(&mut self, name: &str) -> Result<T> {
        let word = self
            .words
            .next()
            .ok_or_else(|| missing(FILE, &format!("{name} in {}", text::quote(self.line))))?;
        text::number(FILE, name, word)
    }
}

/// Reads the line.
///
/// # Errors
/// EPROTO with the field's name.
pub fn parse(text: &[u8]) -> Result<Stat> {
    let bad = || malformed(FILE, "comm", text);
    let open = text.iter().position(|b| *b == b'(').ok_or_else(bad)?;
    let close = text.iter().rposition(|b| *b == b')').filter(|c| *c > open).ok_or_else(bad)?;
    let pid = text::number(FILE, "pid", &text[..open])?;
    let comm = OsString::from_vec(text[open + 1..close].to_vec());
    let line = text[close + 1..].trim_ascii();
    let mut words = text::fields(line);
    let state = match words.next() {
        Some([letter]) => State::of(*letter),
        other => return Err(malformed(FILE, "state", other.unwrap_or(b""))),
    };
    let mut rest = Rest { words: Box::new(words), line };
    Ok(Stat {
        pid,
        comm,
        state,
        ppid: rest.next("ppid")?,
        pgrp: rest.next("pgrp")?,
        session: rest.next("session")?,
        tty_nr: rest.next("tty_nr")?,
        tpgid: rest.next("tpgid")?,
        flags: rest.next("flags")?,
        minflt: rest.next("minflt")?,
        cminflt: rest.next("cminflt")?,
        majflt: rest.next("majflt")?,
        cmajflt: rest.next("cmajflt")?,
        utime: rest.next("utime")?,
        stime: rest.next("stime")?,
        cutime: rest.next("cutime")?,
        cstime: rest.next("cstime")?,
        priority: rest.next("priority")?,
        nice: rest.next("nice")?,
        num_threads: rest.next("num_threads")?,
        itrealvalue: rest.next("itrealvalue")?,
        starttime: rest.next("starttime")?,
        vsize: rest.next("vsize")?,
        rss: rest.next("rss")?,
        rsslim: rest.next("rsslim")?,
        start_code: rest.next("start_code")?,
        end_code: rest.next("end_code")?,
        start_stack: rest.next("start_stack")?,
        kstkesp: rest.next("kstkesp")?,
        kstkeip: rest.next("kstkeip")?,
        signal: rest.next("signal")?,
        blocked: rest.next("blocked")?,
        sigignore: rest.next("sigignore")?,
        sigcatch: rest.next("sigcatch")?,
        wchan: rest.next("wchan")?,
        nswap: rest.next("nswap")?,
        cnswap: rest.next("cnswap")?,
        exit_signal: rest.next("exit_signal")?,
        processor: rest.next("processor")?,
        rt_priority: rest.next("rt_priority")?,
        policy: rest.next("policy")?,
        delayacct_blkio_ticks: rest.next("delayacct_blkio_ticks")?,
        guest_time: rest.next("guest_time")?,
        cguest_time: rest.next("cguest_time")?,
        start_data: rest.next("start_data")?,
        end_data: rest.next("end_data")?,
        start_brk: rest.next("start_brk")?,
        arg_start: rest.next("arg_start")?,
        arg_end: rest.next("arg_end")?,
        env_start: rest.next("env_start")?,
        env_end: rest.next("env_end")?,
        exit_code: rest.next("exit_code")?,
    })
}

/// The line of a process: of its leader, with some sums over all its threads.
pub fn read(pid: i32) -> Result<Stat> {
    text::read(&super::path(pid, FILE), parse)
}

/// The line of one thread.
pub fn read_thread(pid: i32, tid: i32) -> Result<Stat> {
    text::read(&super::thread_path(pid, tid, FILE), parse)
}
