//! A process: its place in the tree and what its threads share (fork(2), setpgid(2), setsid(2), prctl(2), wait(2)).
//!
//! **In the kernel**: a thread group with a parent, a process group, a session; signal dispositions, timers, limits,
//! umask and working directory; once ended, an exit status until the parent fetches it.
//!
//! **In the image**: one record a process, `task/process`, its id the pid as the process sees it.
//!
//! **Taken how**: `/proc/PID/{stat,status,limits,cwd,…}`, and calls inside for what it doesn't show.
//!
//! **Put back how**: clone3(2) with the old pid by the old parent; setsid and setpgid; calls inside. A zombie is a
//! process that ends at once with the old status. A process that job control stopped is stopped before it runs one
//! instruction. The root's group and session, and a session whose leader lives outside the tree, belong to the outside: the
//! restarter's are taken. One whose leader is dead is made again by a stand-in ([`crate::family`]).
//!
//! **Not saved**: CPU times, start time, accounting; the parent death signal of the root, whose parent is another one.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStringExt;

use bardo_image::Blob;
use bardo_kernel::procfs::{self, limits, single};
use bardo_kernel::stub::{Arg, Batch, Batches, StepId};
use bardo_kernel::time::Patience;
use bardo_kernel::{Sysno, fs, time};
use serde::{Deserialize, Serialize};

use super::clock::Ahead;
use super::limit::Limits;
use super::membarrier::{Barriers, BarriersAsked};
use super::mm::{Rules, RulesAsked};
use super::posix_timer::PosixTimers;
use super::seccomp::Filter;
use super::signal::{Actions, ActionsAsked, Pending, answer, words};
use super::timer::IntervalTimers;
use crate::subject::Subject;

/// The record of a process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Process {
    /// Its pid, as it sees itself.
    pub pid: i32,
    /// Its parent's; that of the root isn't in the image.
    pub parent: i32,
    /// The thread of the parent that made it (`/proc/PID/task/TID/children`); 0: its leader.
    #[serde(default)]
    pub parent_thread: i32,
    /// Its process group.
    pub group: i32,
    /// Its session.
    pub session: i32,
    /// Whether the leader of its session lives outside the tree.
    #[serde(default)]
    pub session_outside: bool,
    /// `/proc/PID/comm`.
    pub name: Blob,
    /// The signal its parent gets when it ends (stat, exit_signal).
    pub exit_signal: i32,
    /// The wait status, for a zombie.
    #[serde(default)]
    pub ended: Option<i32>,
    /// The signal that job control stopped it by.
    #[serde(default)]
    pub stopped_by: Option<i32>,
    /// Whether its parent has fetched the news of that stop (waitpid(2), WUNTRACED).
    #[serde(default)]
    pub stop_told: bool,
    /// The first process of the tree that has the same table of descriptors, if that is another one.
    #[serde(default)]
    pub files_with: Option<i32>,
    /// The same for working directory, root directory and umask.
    #[serde(default)]
    pub directory_with: Option<i32>,
    /// The same for memory, which is then in the image as that process's.
    #[serde(default)]
    pub memory_with: Option<i32>,
    /// The same for what is done with signals.
    #[serde(default)]
    pub handlers_with: Option<i32>,
    /// The exit status of the leader, where it has ended and other threads live on.
    #[serde(default)]
    pub leader_ended: Option<i32>,
    /// What only the living have.
    #[serde(default)]
    pub life: Option<Life>,
}

/// What a living process has.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Life {
    /// The file mode creation mask (status, Umask).
    pub umask: u32,
    /// The working directory.
    pub cwd: Blob,
    /// personality(2).
    pub personality: u32,
    /// What is done with signals.
    pub actions: Actions,
    /// The process's queue of signals.
    pub pending: Pending,
    /// Interval timers.
    pub timers: IntervalTimers,
    /// POSIX timers.
    #[serde(default)]
    pub posix_timers: PosixTimers,
    /// Resource limits.
    pub limits: Limits,
    /// PR_GET_DUMPABLE.
    pub dumpable: u32,
    /// PR_GET_CHILD_SUBREAPER.
    pub subreaper: bool,
    /// PR_GET_THP_DISABLE, as it was told before there were [`Rules`].
    pub thp_disable: bool,
    /// What holds for all of its memory.
    #[serde(default)]
    pub rules: Rules,
    /// What it registered for with membarrier(2).
    #[serde(default)]
    pub barriers: Barriers,
    /// `/proc/PID/loginuid`; none: a kernel without audit.
    #[serde(default)]
    pub login: Option<u32>,
    /// The nice value of its session's autogroup (`/proc/PID/autogroup`).
    #[serde(default)]
    pub autogroup_nice: Option<i32>,
    /// `/proc/PID/coredump_filter`.
    pub coredump_filter: u32,
    /// `/proc/PID/oom_score_adj`.
    pub oom_score_adj: i32,
    /// The extended states that it asked permission for: bit 18 is AMX (ARCH_GET_XCOMP_PERM).
    #[serde(default)]
    pub xstate_permission: u64,
    /// The same for guests of its virtual machines (ARCH_GET_XCOMP_GUEST_PERM).
    #[serde(default)]
    pub xstate_guest_permission: u64,
    /// The seccomp filters of its threads, each once.
    #[serde(default)]
    pub seccomp_filters: Vec<Filter>,
}

const ARCH_GET_XCOMP_PERM: u64 = 0x1022;
pub(super) const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
const ARCH_GET_XCOMP_GUEST_PERM: u64 = 0x1024;
const ARCH_REQ_XCOMP_GUEST_PERM: u64 = 0x1025;
/// The tile data of AMX: the only state that needs permission (Documentation/arch/x86/xstate.rst).
pub(super) const XFEATURE_XTILE_DATA: u64 = 18;

/// The questions that are put inside a process.
#[derive(Debug)]
pub struct ProcessAsked {
    at_ns: u64,
    brk: StepId,
    actions: ActionsAsked,
    timers: Arg,
    dumpable: StepId,
    subreaper: Arg,
    rules: RulesAsked,
    /// None, as with the table: what a filter may forbid isn't asked for.
    barriers: Option<BarriersAsked>,
    xstate_permission: Arg,
    xstate_guest_permission: Arg,
    ldt: Option<StepId>,
}

impl ProcessAsked {
    /// Adds the questions to a batch.
    pub fn ask(batch: &mut Batch, with_rare: bool) -> ProcessAsked {
        let brk = batch.call(Sysno::brk, [Arg::Value(0)]);
        let timers = IntervalTimers::ask(batch);
        let dumpable = batch.call(Sysno::prctl, [Arg::Value(libc::PR_GET_DUMPABLE as u64)]);
        let subreaper = batch.room_for(8);
        batch.call(Sysno::prctl, [Arg::Value(libc::PR_GET_CHILD_SUBREAPER as u64), subreaper]);
        let rules = Rules::ask(batch);
        let barriers = with_rare.then(|| Barriers::ask(batch));
        let (xstate_permission, xstate_guest_permission) = (batch.room_for(8), batch.room_for(8));
        // A processor without AMX says ENODEV or EOPNOTSUPP, and the room stays zero.
        batch.attempt(Sysno::arch_prctl, [Arg::Value(ARCH_GET_XCOMP_PERM), xstate_permission]);
        batch.attempt(Sysno::arch_prctl, [Arg::Value(ARCH_GET_XCOMP_GUEST_PERM), xstate_guest_permission]);
        let ldt = with_rare.then(|| ask_segments(batch));
        let actions = Actions::ask(batch);
        ProcessAsked {
            at_ns: time::monotonic_ns(),
            xstate_permission,
            brk,
            actions,
            timers,
            dumpable,
            subreaper,
            rules,
            barriers,
            xstate_guest_permission,
            ldt,
        }
    }

    /// The questions that a filter may forbid, and whose answers hardly any program has reason to change.
    pub fn rare() -> Batch {
        let mut batch = Batch::new();
        Barriers::ask(&mut batch);
        ask_segments(&mut batch);
        batch
    }

    /// What holds for all of its memory.
    pub fn rules(&self, batch: &Batch) -> Rules {
        Rules::take(&self.rules, batch)
    }

    /// Whether it has a table of segments of its own (modify_ldt(2)).
    pub fn has_segments(&self, batch: &Batch) -> bool {
        self.ldt.is_some_and(|ldt| batch.result(ldt).is_ok_and(|bytes| bytes > 0))
    }

    /// The program break.
    pub fn brk(&self, batch: &Batch) -> bardo_kernel::Result<u64> {
        batch.result(self.brk)
    }
}

fn ask_segments(batch: &mut Batch) -> StepId {
    let table = batch.room_for(8);
    batch.attempt(Sysno::modify_ldt, [Arg::Value(0), table, Arg::Value(8)])
}

/// Sets the nice value of the group that the scheduler makes of a session. Nobody but root may do so more than ten times a second.
fn put_autogroup(pid: i32, nice: i32) -> bardo_kernel::Result<()> {
    let mut patience = Patience::of(1_000_000_000);
    loop {
        if single::autogroup_nice(pid)?.is_none_or(|now| now == nice) {
            return Ok(());
        }
        match fs::write_text(procfs::path(pid, "autogroup"), &nice.to_string()) {
            Err(e) if e.is(libc::EAGAIN) && patience.wait() => {}
            Err(e) if e.is(libc::EPERM) || e.is(libc::EACCES) || e.is(libc::EAGAIN) => return Ok(()),
            other => return other,
        }
    }
}

impl Process {
    /// The record of a process; `life` for the living.
    pub fn take(subject: &Subject, stopped_by: Option<i32>, life: Option<Life>) -> Process {
        let own = |ids: &[i32], otherwise: i32| ids.last().copied().unwrap_or(otherwise);
        Process {
            pid: subject.own_pid,
            parent: subject.stat.ppid,
            parent_thread: 0,
            group: own(&subject.status.ns_pgid, subject.stat.pgrp),
            session: own(&subject.status.ns_sid, subject.stat.session),
            session_outside: false,
            name: Blob(subject.stat.comm.clone().into_vec()),
            exit_signal: subject.stat.exit_signal,
            ended: subject.zombie.then_some(subject.stat.exit_code),
            stopped_by,
            stop_told: false,
            files_with: None,
            directory_with: None,
            memory_with: None,
            handlers_with: None,
            leader_ended: (subject.status.is_dead() && !subject.zombie).then_some(subject.stat.exit_code),
            life,
        }
    }
}

impl Life {
    /// What a living process has, whose answers are in `batch`. `pending`: its queue, looked at after that.
    pub fn take(
        subject: &Subject,
        pending: Pending,
        posix_timers: PosixTimers,
        asked: &ProcessAsked,
        batch: &Batch,
    ) -> bardo_kernel::Result<Life> {
        let pid = subject.door;
        let asked_ns_ago = time::monotonic_ns() - asked.at_ns;
        let rang = pending.has_from_kernel(libc::SIGALRM);
        let rules = asked.rules(batch);
        Ok(Life {
            umask: subject.status.umask.unwrap_or(0o022),
            cwd: Blob(fs::read_link(procfs::path(pid, "cwd"))?.into_os_string().into_vec()),
            personality: single::personality(pid)?,
            actions: Actions::take(&asked.actions, batch),
            pending,
            timers: IntervalTimers::take(asked.timers, batch, asked_ns_ago, rang),
            posix_timers,
            limits: Limits::take(pid)?,
            dumpable: answer(batch, asked.dumpable, 1) as u32,
            subreaper: words(batch.output(asked.subreaper, 8))[0] as u32 != 0,
            thp_disable: rules.huge_pages_off != 0,
            rules,
            barriers: asked
                .barriers
                .as_ref()
                .map_or_else(Barriers::default, |asked| Barriers::take(asked, batch)),
            login: single::loginuid(pid)?,
            autogroup_nice: single::autogroup_nice(pid)?,
            coredump_filter: single::coredump_filter(pid)?.unwrap_or(0x33),
            oom_score_adj: single::oom_score_adj(pid)?,
            xstate_permission: words(batch.output(asked.xstate_permission, 8))[0],
            xstate_guest_permission: words(batch.output(asked.xstate_guest_permission, 8))[0],
            seccomp_filters: Vec::new(),
        })
    }

    /// Goes back, inside the process, to where it worked; a directory that was removed is the family of files'.
    pub fn put_cwd(&self, batch: &mut Batch) {
        let cwd = batch.text(&self.cwd);
        batch.call(Sysno::chdir, [cwd]);
    }

    /// Puts back, inside the process, what all its threads share. Memory and files are there already.
    pub fn put(&self, now: &Rules, batch: &mut Batch) {
        batch.attempt(Sysno::umask, [Arg::Value(u64::from(self.umask))]);
        batch.attempt(Sysno::personality, [Arg::Value(u64::from(self.personality))]);
        self.actions.put(batch);
        for (permission, ask) in [
            (self.xstate_permission, ARCH_REQ_XCOMP_PERM),
            (self.xstate_guest_permission, ARCH_REQ_XCOMP_GUEST_PERM),
        ] {
            if permission & 1 << XFEATURE_XTILE_DATA != 0 {
                batch.call(Sysno::arch_prctl, [Arg::Value(ask), Arg::Value(XFEATURE_XTILE_DATA)]);
            }
        }
        if self.subreaper {
            batch.call(Sysno::prctl, [Arg::Value(libc::PR_SET_CHILD_SUBREAPER as u64), Arg::Value(1)]);
        }
        let told_by_rules = self.rules.huge_pages_off != 0 || !self.thp_disable;
        let huge_pages_off = if told_by_rules { self.rules.huge_pages_off } else { 1 };
        Rules { huge_pages_off, ..self.rules }.put(now, batch);
        self.barriers.put(batch);
    }

    /// Puts back, from outside, what only `/proc` takes, and says what stays other than it was, for want of a right: limits that
    /// are put by now, too.
    pub fn put_outside(&self, pid: i32, first_of_session: bool) -> bardo_kernel::Result<Vec<String>> {
        let mut less = Vec::new();
        let mut differs = |what: &str, was: String, is: String| {
            if was != is {
                less.push(format!("{what} is {is} and was {was}"));
            }
        };
        let denied = |e: &bardo_kernel::Failed| e.is(libc::EACCES) || e.is(libc::EPERM);
        if single::coredump_filter(pid)? != Some(self.coredump_filter) {
            fs::write_text(procfs::path(pid, "coredump_filter"), &format!("{:#x}", self.coredump_filter))?;
        }
        if single::oom_score_adj(pid)? != self.oom_score_adj {
            // Below the least that it ever was, it needs CAP_SYS_RESOURCE.
            match fs::write_text(procfs::path(pid, "oom_score_adj"), &self.oom_score_adj.to_string()) {
                Err(e) if denied(&e) => {}
                other => other?,
            }
        }
        differs("oom_score_adj", self.oom_score_adj.to_string(), single::oom_score_adj(pid)?.to_string());
        if let (Some(was), Some(is)) = (self.login, single::loginuid(pid)?) {
            let show = |login: u32| if login == u32::MAX { "nobody".to_owned() } else { login.to_string() };
            differs("its login (loginuid)", show(was), show(is));
        }
        if let Some(was) = self.autogroup_nice.filter(|_| first_of_session) {
            put_autogroup(pid, was)?;
            let is = single::autogroup_nice(pid)?.unwrap_or(was);
            differs("the nice value of its session (autogroup)", was.to_string(), is.to_string());
        }
        for ((resource, is), [_, was]) in limits::read(pid)?.iter().zip(&self.limits.0) {
            let show =
                |limit: u64| if limit == u64::MAX { "unlimited".to_owned() } else { limit.to_string() };
            differs(&format!("the hard limit of {}", resource.line()), show(*was), show(is.hard));
        }
        Ok(less)
    }

    /// What comes after everything that a change of credentials resets or that time counts for. `queued`: the timers whose
    /// signals wait. `ahead`: its clocks.
    pub fn put_last(&self, pid: i32, queued: &BTreeSet<i32>, ahead: Ahead, batches: &mut Batches) {
        let batch = batches.with_room_for(4096);
        // 2 (SUID_DUMP_ROOT) can't be set; the kernel's own rules give it where it is due.
        if self.dumpable < 2 {
            batch.call(
                Sysno::prctl,
                [Arg::Value(libc::PR_SET_DUMPABLE as u64), Arg::Value(u64::from(self.dumpable))],
            );
        }
        self.pending.put(pid, None, &self.posix_timers, ahead, batches);
        self.timers.put(batches.with_room_for(1024));
        self.posix_timers.arm(queued, batches);
    }
}
