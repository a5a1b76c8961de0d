//! Processes, held by pidfd, and ended when their guard drops.
//!
//! The test process is a child subreaper (man 2 prctl, PR_SET_CHILD_SUBREAPER): whatever loses its parent becomes its
//! child, so that it can be waited for. A pid stays taken by a zombie until somebody waits for it, and by a process
//! group or session for as long as that has a member: [`Tree::wait_gone`] waits until `/proc` shows none of them.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, set_child_subreaper,
    waitid,
};

use crate::wait::{until, until_some};

/// Makes this process the parent of its orphaned descendants. To be called before anything is started.
///
/// # Panics
/// When the kernel refuses.
pub fn adopt_orphans() {
    set_child_subreaper(Some(rustix::process::getpid())).expect("PR_SET_CHILD_SUBREAPER");
}

fn stat(pid: i32) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()
}

/// Whether there is such a process (a zombie is one).
pub fn exists(pid: i32) -> bool {
    stat(pid).is_some()
}

/// The process's state, as `/proc/PID/stat` shows it.
pub fn state(pid: i32) -> Option<char> {
    let stat = stat(pid)?;
    stat[stat.rfind(')')? + 1..].trim_start().chars().next()
}

/// Whether every thread of the process and of its descendants is stopped, or a zombie.
pub fn is_stopped(root: i32) -> bool {
    let threads = descendants(root).into_iter().flat_map(|pid| {
        let entries = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
        entries.filter_map(|e| std::fs::read_to_string(e.ok()?.path().join("stat")).ok())
    });
    let state = |stat: String| stat[stat.rfind(')').map_or(0, |at| at + 1)..].trim_start().chars().next();
    threads.map(state).all(|s| matches!(s, Some('T' | 't' | 'Z' | 'X')))
}

/// Whether there is no such process, or only what is to be waited for. A process whose first thread has ended looks like a
/// zombie, too, but has other threads.
pub fn is_dead(pid: i32) -> bool {
    match state(pid) {
        None => true,
        Some('Z') => std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count) <= 1,
        Some(_) => false,
    }
}

/// Field 22 of `/proc/PID/stat`, in ticks since boot: two processes of one pid differ in it.
fn start_time(pid: i32) -> Option<String> {
    let stat = stat(pid)?;
    stat[stat.rfind(')')? + 1..].split_whitespace().nth(19).map(str::to_owned)
}

fn children(pid: i32) -> Vec<i32> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = threads.filter_map(|t| std::fs::read_to_string(t.ok()?.path().join("children")).ok());
    lists.flat_map(|l| l.split_whitespace().filter_map(|p| p.parse().ok()).collect::<Vec<i32>>()).collect()
}

/// The process and all its descendants, sorted.
pub fn descendants(root: i32) -> Vec<i32> {
    let mut all = BTreeSet::new();
    let mut next = vec![root];
    while let Some(pid) = next.pop() {
        if all.insert(pid) {
            next.extend(children(pid));
        }
    }
    all.into_iter().filter(|p| exists(*p)).collect()
}

/// How a process ended: the exit code, or 128 and the signal, as a shell says it.
pub type Status = i32;

/// Reaps every zombie among these pids that is a child of this process: an orphan that nobody knew of.
pub fn reap_orphans(pids: impl IntoIterator<Item = i32>) {
    for pid in pids {
        if state(pid) == Some('Z') {
            Process::open(pid).and_then(|orphan| orphan.reap());
        }
    }
}

/// What was spawned here and will be waited for by whoever spawned it.
static SPAWNED: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Reaps the children of dead bardos, which are this process's since: zombies of its name that nobody here has spawned.
pub fn reap_orphans_of_bardo() {
    // While it is locked, nothing is spawned or waited for.
    let spawned = SPAWNED.lock().unwrap_or_else(PoisonError::into_inner);
    let children = children(std::process::id() as i32).into_iter();
    let orphans = children.filter(|pid| stat(*pid).is_some_and(|stat| stat.contains(" (bardo) Z ")));
    let orphans = orphans.filter(|pid| !spawned.contains(pid)).filter_map(Process::open);
    for orphan in orphans {
        let _status = orphan.status(WaitIdOptions::empty());
    }
}

/// A process that isn't confused with a later one of the same pid. Only one that was spawned here ends when it is dropped.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    start: String,
    pidfd: OwnedFd,
    ends_with_us: bool,
}

impl Process {
    /// Takes hold of a process; none if there is none.
    pub fn open(pid: i32) -> Option<Process> {
        let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        Some(Process { pid, start: start_time(pid)?, pidfd, ends_with_us: false })
    }

    /// Starts a program.
    ///
    /// # Panics
    /// When it can't be started.
    #[expect(clippy::zombie_processes, reason = "it is waited for by its pidfd, by whoever holds it")]
    pub fn spawn(command: &mut Command) -> Process {
        let mut spawned = SPAWNED.lock().unwrap_or_else(PoisonError::into_inner);
        let child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        spawned.insert(child.id() as i32);
        drop(spawned);
        let mut process = Process::open(child.id() as i32).expect("a child that wasn't waited for");
        process.ends_with_us = true;
        process
    }

    /// Lets go of it without ending it.
    pub fn release(mut self) -> i32 {
        self.ends_with_us = false;
        self.pid
    }

    /// Whether `/proc` still shows it, as a zombie perhaps.
    pub fn is_there(&self) -> bool {
        start_time(self.pid).as_deref() == Some(&self.start)
    }

    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends a signal; a process that is gone already is no error.
    pub fn signal(&self, signal: Signal) {
        // ESRCH is what is left to fail with.
        let _gone = pidfd_send_signal(&self.pidfd, signal);
    }

    /// How it ended, if it did and is ours to wait for.
    pub fn reap(&self) -> Option<Status> {
        let mut spawned = SPAWNED.lock().unwrap_or_else(PoisonError::into_inner);
        let status = self.status(WaitIdOptions::empty());
        if status.is_some() {
            spawned.remove(&self.pid);
        }
        status
    }

    /// How it has ended, as its parent sees it; it can still be reaped. Nobody else can tell for sure: while one of its
    /// threads calls exec, `/proc` shows a zombie or nothing at all.
    pub fn ended(&self) -> Option<Status> {
        self.status(WaitIdOptions::NOWAIT)
    }

    fn status(&self, options: WaitIdOptions) -> Option<Status> {
        let options = options | WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = waitid(WaitId::PidFd(self.pidfd.as_fd()), options).ok()??;
        Some(match status.exit_status() {
            Some(code) => code,
            None => 128 + status.terminating_signal().unwrap_or(0),
        })
    }

    /// Waits for its end and says how it ended.
    ///
    /// # Panics
    /// When that takes for ever.
    pub fn wait(&self) -> Status {
        until_some(&format!("pid {} ended", self.pid), || self.reap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ends_with_us {
            // A pidfd of a process that was waited for signals nobody.
            self.signal(Signal::KILL);
            let start = Instant::now();
            while self.reap().is_none() && self.is_there() && start.elapsed().as_secs() < 20 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

/// A tree of processes, all of them held. Dropped, all of them are ended and waited for.
#[derive(Debug)]
pub struct Tree {
    root: i32,
    held: Vec<Process>,
}

impl Tree {
    /// Takes hold of a process and its descendants.
    pub fn of(root: i32) -> Tree {
        let mut tree = Tree { root, held: Vec::new() };
        tree.update();
        tree
    }

    /// Takes hold of what has come since.
    pub fn update(&mut self) {
        self.held.retain(Process::is_there);
        for pid in descendants(self.root) {
            if !self.held.iter().any(|p| p.pid == pid) {
                self.held.extend(Process::open(pid));
            }
        }
    }

    /// The root's pid.
    pub fn root(&self) -> i32 {
        self.root
    }

    /// All pids that were seen.
    pub fn pids(&self) -> Vec<i32> {
        self.held.iter().map(Process::pid).collect()
    }

    /// How the root has ended, if it has, and is this process's child. It can still be waited for.
    pub fn root_ended(&self) -> Option<Status> {
        self.held.iter().find(|p| p.pid == self.root)?.ended()
    }

    /// Waits until the root ends; says how.
    ///
    /// # Panics
    /// When it isn't ours to wait for, or takes for ever.
    pub fn wait_root(&mut self) -> Status {
        self.update();
        let root = self.held.iter().find(|p| p.pid == self.root).expect("the root is held");
        root.wait()
    }

    /// Sends SIGCONT to all.
    pub fn go_on(&mut self) {
        self.update();
        for process in self.held.iter().filter(|p| !is_dead(p.pid)) {
            process.signal(Signal::CONT);
        }
    }

    /// Sends SIGKILL to all. They stand still before: none sees another one die and says so.
    pub fn kill(&mut self) {
        self.update();
        for process in &self.held {
            process.signal(Signal::STOP);
        }
        let start = Instant::now();
        let runs = |p: &Process| state(p.pid).is_some_and(|s| !"TtZX".contains(s));
        while self.held.iter().any(runs) && start.elapsed().as_secs() < 5 {
            std::thread::yield_now();
        }
        self.update();
        for process in &self.held {
            process.signal(Signal::KILL);
        }
    }

    /// Waits until none of the pids is taken any more, reaping what is ours.
    ///
    /// # Panics
    /// When that takes for ever.
    pub fn wait_gone(&mut self) {
        let pids = self.pids();
        until(&format!("the pids {pids:?} are free"), || self.gone());
    }

    /// Reaps what is ours, and says whether nothing is left.
    fn gone(&mut self) -> bool {
        self.held.retain(|process| {
            process.reap();
            process.is_there()
        });
        self.held.is_empty()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        self.kill();
        let start = Instant::now();
        while !self.gone() && start.elapsed().as_secs() < 20 {
            std::thread::sleep(Duration::from_millis(1));
        }
        if !self.held.is_empty() {
            eprintln!("not gone after SIGKILL: {:?}", self.pids());
        }
    }
}
