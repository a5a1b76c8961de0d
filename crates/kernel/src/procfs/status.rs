//! `/proc/PID/status` and `/proc/PID/task/TID/status`: `Key:<tab>value` lines (man 5 proc_pid_status).
//!
//! `Name` is what the process calls itself; here the kernel escapes newline and backslash in it, so a name can't forge a
//! line. Ids are as the reader's namespaces see them; the `NS…` lines give them from the reader's pid namespace inwards.
//!
//! Privilege: none. Kernel: lines that some supported kernel (6.1 or later) or configuration doesn't write, or that a
//! zombie or a kernel thread hasn't, are `Option`s; lines we don't know are in [`Status::other`].

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::stat::State;
use super::text::{self, malformed, missing};
use crate::error::Result;

const FILE: &str = "status";

/// A set of small numbers (CPUs, memory nodes) as the ranges in which the kernel lists it: `0-3,8`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NumberList {
    /// First and last number of each range, both included.
    pub ranges: Vec<(u32, u32)>,
}

impl NumberList {
    /// Reads `0-3,8`; an empty text is the empty set.
    pub fn parse(text: &[u8]) -> Result<NumberList> {
        let bad = || malformed(FILE, "a list of ranges", text);
        let mut ranges = Vec::new();
        let text = text.trim_ascii();
        if text.is_empty() {
            return Ok(NumberList { ranges });
        }
        for part in text.split(|b| *b == b',') {
            let (first, last) = text::split_once(part, b'-').unwrap_or((part, part));
            let first = text::number(FILE, "a list of ranges", first)?;
            let last = text::number(FILE, "a list of ranges", last)?;
            if first > last {
                return Err(bad());
            }
            ranges.push((first, last));
        }
        Ok(NumberList { ranges })
    }

    /// Whether it holds this number.
    pub fn contains(&self, number: u32) -> bool {
        self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&number))
    }

    /// Its numbers, in the order listed.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.ranges.iter().flat_map(|(first, last)| *first..=*last)
    }
}

/// Real, effective, saved and file system id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    /// Real.
    pub real: u32,
    /// Effective.
    pub effective: u32,
    /// Saved set-user-id or set-group-id.
    pub saved: u32,
    /// For file system checks.
    pub fs: u32,
}

/// The lines, by their names in lower case. Signal and capability sets are bit sets: signal n is bit n − 1, capability n is
/// bit n. Sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// `Name`, unescaped.
    pub name: OsString,
    /// `Umask`; absent of a zombie.
    pub umask: Option<u32>,
    /// `State`.
    pub state: State,
    /// `Tgid`: the process.
    pub tgid: i32,
    /// `Ngid`: the NUMA group.
    pub ngid: Option<i32>,
    /// `Pid`: the thread.
    pub pid: i32,
    /// `PPid`.
    pub ppid: i32,
    /// `TracerPid`: the *thread* that traces it; 0 for none, or for one outside the reader's pid namespace.
    pub tracer_pid: i32,
    /// `Uid`.
    pub uid: Ids,
    /// `Gid`.
    pub gid: Ids,
    /// `FDSize`: slots in its table of descriptors.
    pub fd_size: u64,
    /// `Groups`: supplementary groups, in the kernel's order (sorted).
    pub groups: Vec<u32>,
    /// `NStgid`: the process's id in each pid namespace, the reader's first.
    pub ns_tgid: Vec<i32>,
    /// `NSpid`: the thread's ids.
    pub ns_pid: Vec<i32>,
    /// `NSpgid`: the process group's ids.
    pub ns_pgid: Vec<i32>,
    /// `NSsid`: the session's ids.
    pub ns_sid: Vec<i32>,
    /// `Kthread` (6.8 and later): whether it is a kernel thread.
    pub kthread: Option<bool>,
    /// `VmPeak`. The `Vm` lines are absent where there is no address space: zombies, kernel threads.
    pub vm_peak: Option<u64>,
    /// `VmSize`.
    pub vm_size: Option<u64>,
    /// `VmLck`: locked by mlock(2).
    pub vm_lck: Option<u64>,
    /// `VmPin`: pinned by the kernel.
    pub vm_pin: Option<u64>,
    /// `VmHWM`: peak of `VmRSS`.
    pub vm_hwm: Option<u64>,
    /// `VmRSS`.
    pub vm_rss: Option<u64>,
    /// `RssAnon`.
    pub rss_anon: Option<u64>,
    /// `RssFile`.
    pub rss_file: Option<u64>,
    /// `RssShmem`.
    pub rss_shmem: Option<u64>,
    /// `VmData`.
    pub vm_data: Option<u64>,
    /// `VmStk`.
    pub vm_stk: Option<u64>,
    /// `VmExe`.
    pub vm_exe: Option<u64>,
    /// `VmLib`.
    pub vm_lib: Option<u64>,
    /// `VmPTE`: page tables.
    pub vm_pte: Option<u64>,
    /// `VmSwap`.
    pub vm_swap: Option<u64>,
    /// `HugetlbPages`.
    pub hugetlb_pages: Option<u64>,
    /// `CoreDumping`.
    pub core_dumping: Option<bool>,
    /// `THP_enabled`: false after `PR_SET_THP_DISABLE`.
    pub thp_enabled: Option<bool>,
    /// `Threads`; 0 of a dead process.
    pub threads: u32,
    /// `SigQ`: signals queued for its user, and the limit.
    pub sig_q: (u64, u64),
    /// `SigPnd`: pending for the thread.
    pub sig_pnd: u64,
    /// `ShdPnd`: pending for the process.
    pub shd_pnd: u64,
    /// `SigBlk`: blocked by the thread.
    pub sig_blk: u64,
    /// `SigIgn`: ignored.
    pub sig_ign: u64,
    /// `SigCgt`: handled.
    pub sig_cgt: u64,
    /// `CapInh`.
    pub cap_inh: u64,
    /// `CapPrm`.
    pub cap_prm: u64,
    /// `CapEff`.
    pub cap_eff: u64,
    /// `CapBnd`.
    pub cap_bnd: u64,
    /// `CapAmb`.
    pub cap_amb: u64,
    /// `NoNewPrivs`.
    pub no_new_privs: bool,
    /// `Seccomp`: 0 off, 1 strict, 2 filter. Absent without CONFIG_SECCOMP.
    pub seccomp: Option<u32>,
    /// `Seccomp_filters`: how many. Absent without CONFIG_SECCOMP_FILTER.
    pub seccomp_filters: Option<u32>,
    /// `Speculation_Store_Bypass`, in the kernel's words.
    pub speculation_store_bypass: Option<String>,
    /// `SpeculationIndirectBranch`, in the kernel's words.
    pub speculation_indirect_branch: Option<String>,
    /// `x86_Thread_features`: `shstk`, `wrss`. Absent where the CPU or kernel has no shadow stacks.
    pub x86_thread_features: Option<Vec<String>>,
    /// `x86_Thread_features_locked`.
    pub x86_thread_features_locked: Option<Vec<String>>,
    /// `Cpus_allowed_list`.
    pub cpus_allowed: NumberList,
    /// `Mems_allowed_list`.
    pub mems_allowed: Option<NumberList>,
    /// `voluntary_ctxt_switches`.
    pub voluntary_ctxt_switches: u64,
    /// `nonvoluntary_ctxt_switches`.
    pub nonvoluntary_ctxt_switches: u64,
    /// Lines this parser doesn't know, key and value as written, in order.
    pub other: Vec<(String, String)>,
}

impl Status {
    /// Whether it is a zombie or beyond: it has no memory, no files and no umask any more.
    pub fn is_dead(&self) -> bool {
        matches!(self.state, State::Zombie | State::Dead)
    }
}

/// The lines by key. A key that is taken is gone; what is left at the end is unknown. A status has some sixty lines, so
/// a search through them is as fast as any map.
struct Lines<'a> {
    lines: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> Lines<'a> {
    fn take(&mut self, key: &str) -> Option<&'a [u8]> {
        let at = self.lines.iter().position(|(k, _)| *k == key.as_bytes())?;
        Some(self.lines.remove(at).1)
    }

    fn must<T>(&mut self, key: &str, read: impl Fn(&str, &str, &[u8]) -> Result<T>) -> Result<T> {
        let value = self.take(key).ok_or_else(|| missing(FILE, &format!("{key} line")))?;
        read(FILE, key, value)
    }

    fn may<T>(&mut self, key: &str, read: impl Fn(&str, &str, &[u8]) -> Result<T>) -> Result<Option<T>> {
        self.take(key).map(|value| read(FILE, key, value)).transpose()
    }
}

fn hex(file: &str, key: &str, value: &[u8]) -> Result<u64> {
    text::radix(file, key, value, 16)
}

fn ids(file: &str, key: &str, value: &[u8]) -> Result<Ids> {
    let [real, effective, saved, fs] = text::array(file, key, value)?;
    Ok(Ids { real, effective, saved, fs })
}

fn state(file: &str, key: &str, value: &[u8]) -> Result<State> {
    match value {
        [letter, b' ', b'(', ..] => Ok(State::of(*letter)),
        _ => Err(malformed(file, key, value)),
    }
}

fn umask(file: &str, key: &str, value: &[u8]) -> Result<u32> {
    let mask = text::radix(file, key, value, 8)?;
    u32::try_from(mask).ok().filter(|m| *m <= 0o777).ok_or_else(|| malformed(file, key, value))
}

fn slash(file: &str, key: &str, value: &[u8]) -> Result<(u64, u64)> {
    let (now, max) = text::split_once(value, b'/').ok_or_else(|| malformed(file, key, value))?;
    Ok((text::number(file, key, now)?, text::number(file, key, max)?))
}

fn feature_names(_: &str, _: &str, value: &[u8]) -> Result<Vec<String>> {
    Ok(text::fields(value).map(text::words).collect())
}

fn list(file: &str, key: &str, value: &[u8]) -> Result<NumberList> {
    NumberList::parse(value).map_err(|_| malformed(file, key, value))
}

fn sentence(_: &str, _: &str, value: &[u8]) -> Result<String> {
    Ok(text::words(value))
}

/// Undoes the two escapes the kernel makes in `Name`: `\n` and `\\`.
fn unescape_name(value: &[u8]) -> OsString {
    let mut name = Vec::with_capacity(value.len());
    let mut bytes = value.iter().peekable();
    while let Some(&byte) = bytes.next() {
        let escaped = match (byte, bytes.peek()) {
            (b'\\', Some(b'n')) => Some(b'\n'),
            (b'\\', Some(b'\\')) => Some(b'\\'),
            _ => None,
        };
        if escaped.is_some() {
            bytes.next();
        }
        name.push(escaped.unwrap_or(byte));
    }
    OsString::from_vec(name)
}

/// Reads the text.
///
/// # Errors
/// EPROTO with the line's key.
pub fn parse(text: &[u8]) -> Result<Status> {
    // The name's own blanks belong to it: it is split at the tab alone.
    let name_line = text::lines(text).find_map(|line| line.strip_prefix(b"Name:\t"));
    let name = unescape_name(name_line.ok_or_else(|| missing(FILE, "Name line"))?);
    let lines = text::lines(text)
        .map(|line| text::key_value(line).ok_or_else(|| malformed(FILE, "a line", line)))
        .filter(|line| !matches!(line, Ok((b"Name", _))))
        .collect::<Result<Vec<_>>>()?;
    let mut lines = Lines { lines };
    let l = &mut lines;
    let status = Status {
        name,
        umask: l.may("Umask", umask)?,
        state: l.must("State", state)?,
        tgid: l.must("Tgid", text::number)?,
        ngid: l.may("Ngid", text::number)?,
        pid: l.must("Pid", text::number)?,
        ppid: l.must("PPid", text::number)?,
        tracer_pid: l.must("TracerPid", text::number)?,
        uid: l.must("Uid", ids)?,
        gid: l.must("Gid", ids)?,
        fd_size: l.must("FDSize", text::number)?,
        groups: l.must("Groups", text::numbers)?,
        ns_tgid: l.may("NStgid", text::numbers)?.unwrap_or_default(),
        ns_pid: l.may("NSpid", text::numbers)?.unwrap_or_default(),
        ns_pgid: l.may("NSpgid", text::numbers)?.unwrap_or_default(),
        ns_sid: l.may("NSsid", text::numbers)?.unwrap_or_default(),
        kthread: l.may("Kthread", text::flag)?,
        vm_peak: l.may("VmPeak", text::kilobytes)?,
        vm_size: l.may("VmSize", text::kilobytes)?,
        vm_lck: l.may("VmLck", text::kilobytes)?,
        vm_pin: l.may("VmPin", text::kilobytes)?,
        vm_hwm: l.may("VmHWM", text::kilobytes)?,
        vm_rss: l.may("VmRSS", text::kilobytes)?,
        rss_anon: l.may("RssAnon", text::kilobytes)?,
        rss_file: l.may("RssFile", text::kilobytes)?,
        rss_shmem: l.may("RssShmem", text::kilobytes)?,
        vm_data: l.may("VmData", text::kilobytes)?,
        vm_stk: l.may("VmStk", text::kilobytes)?,
        vm_exe: l.may("VmExe", text::kilobytes)?,
        vm_lib: l.may("VmLib", text::kilobytes)?,
        vm_pte: l.may("VmPTE", text::kilobytes)?,
        vm_swap: l.may("VmSwap", text::kilobytes)?,
        hugetlb_pages: l.may("HugetlbPages", text::kilobytes)?,
        core_dumping: l.may("CoreDumping", text::flag)?,
        thp_enabled: l.may("THP_enabled", text::flag)?,
        threads: l.must("Threads", text::number)?,
        sig_q: l.must("SigQ", slash)?,
        sig_pnd: l.must("SigPnd", hex)?,
        shd_pnd: l.must("ShdPnd", hex)?,
        sig_blk: l.must("SigBlk", hex)?,
        sig_ign: l.must("SigIgn", hex)?,
        sig_cgt: l.must("SigCgt", hex)?,
        cap_inh: l.must("CapInh", hex)?,
        cap_prm: l.must("CapPrm", hex)?,
        cap_eff: l.must("CapEff", hex)?,
        cap_bnd: l.must("CapBnd", hex)?,
        cap_amb: l.must("CapAmb", hex)?,
        no_new_privs: l.must("NoNewPrivs", text::flag)?,
        seccomp: l.may("Seccomp", text::number)?,
        seccomp_filters: l.may("Seccomp_filters", text::number)?,
        speculation_store_bypass: l.may("Speculation_Store_Bypass", sentence)?,
        speculation_indirect_branch: l.may("SpeculationIndirectBranch", sentence)?,
        x86_thread_features: l.may("x86_Thread_features", feature_names)?,
        x86_thread_features_locked: l.may("x86_Thread_features_locked", feature_names)?,
        cpus_allowed: l.must("Cpus_allowed_list", list)?,
        mems_allowed: l.may("Mems_allowed_list", list)?,
        voluntary_ctxt_switches: l.must("voluntary_ctxt_switches", text::number)?,
        nonvoluntary_ctxt_switches: l.must("nonvoluntary_ctxt_switches", text::number)?,
        other: Vec::new(),
    };
    // The masks say the same as the lists.
    let known = |key: &[u8]| matches!(key, b"Cpus_allowed" | b"Mems_allowed");
    let other = lines.lines.into_iter().filter(|(key, _)| !known(key));
    Ok(Status { other: other.map(|(k, v)| (text::words(k), text::words(v))).collect(), ..status })
}

/// The status of a process: of its leader.
pub fn read(pid: i32) -> Result<Status> {
    text::read(&super::path(pid, FILE), parse)
}

/// The status of one thread.
pub fn read_thread(pid: i32, tid: i32) -> Result<Status> {
    text::read(&super::thread_path(pid, tid, FILE), parse)
}
