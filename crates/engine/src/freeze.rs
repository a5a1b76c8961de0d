//! Stopping a whole tree, and letting it go again.
//!
//! Every thread is seized by ptrace and interrupted; passes over `/proc` go on until one finds nobody new, since what is
//! stopped can't fork. Nothing is sent to the tree, and our death at any moment lets all of it run on.
//!
//! Three things are put right at once, in the few microseconds after a thread has stopped:
//! - a call that answers a mere stop with EINTR is made again (no program of this world handles that EINTR);
//! - a call with a time that runs on gets our mark, which tells the next checkpoint until when it sleeps;
//! - a restartable sequence that was interrupted is aborted, as any preemption may (rseq(2)): once code of ours has run
//!   in the thread, the kernel would let it finish a sequence that isn't valid any more.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use bardo_kernel::arch::{Interrupted, Registers};
use bardo_kernel::procfs::stat::{self, Stat, State};
use bardo_kernel::procfs::{self, children, status};
use bardo_kernel::ptrace::{self, Running, Stop, Stopped, Waited};
use bardo_kernel::remote::Held;
use bardo_kernel::time::{self, Patience};
use bardo_kernel::{Failed, fs, kcmp, pidfd, way_out};

use crate::error::{Doing, Error, Failure, Refusal, Result, Who};
use crate::resource::task::sleep::{Sleep, Sleepers};
use crate::subject::Subject;

/// How long a thread may take to stop before we look at what keeps it: a child in vfork(2), most of all.
const LOOK_AFTER_NS: u64 = 1_000_000;
/// How long until any child is taken for that, not only one that has the thread's memory.
const LOOK_CLOSER_AFTER_NS: u64 = 30_000_000;
/// How long it may take in all.
const GIVE_UP_NS: u64 = 3_000_000_000;
/// How long threads that were asked to stop are waited for when they are let go instead.
const LET_GO_NS: u64 = 2_000_000_000;
/// How long the end of a tree that was killed is waited for.
const REAP_NS: u64 = 5_000_000_000;
/// A tree that grows faster than we stop it is given up after this many passes.
const PASSES_MAX: usize = 1000;

/// A thread that stands still.
#[derive(Debug)]
pub struct Thread {
    /// Its tid as we see it.
    pub tid: i32,
    /// The stop; none only while the thread is lent out, or lost.
    pub held: Option<Held>,
    /// The call with a time that runs on that it is in, if it is in one.
    pub sleep: Option<Sleep>,
}

/// A process whose threads all stand still, or a zombie.
#[derive(Debug)]
pub struct Process {
    /// What the survey starts from.
    pub subject: Subject,
    /// Its threads, the leader first; none for a zombie.
    pub threads: Vec<Thread>,
    /// Whether job control has stopped it, and by which signal.
    pub stopped_by: Option<i32>,
}

/// A tree that stands still. Dropped, it goes on.
#[derive(Debug)]
pub struct Frozen {
    /// The processes, parents before their children.
    pub processes: Vec<Process>,
    /// When the first thread was asked to stop, on CLOCK_MONOTONIC.
    pub since_ns: u64,
}

/// What we know of a thread while the freeze goes on.
#[derive(Debug)]
enum Hold {
    Asked(Running),
    Held(Box<Thread>, Option<i32>),
}

struct Freezing {
    root: i32,
    me: i32,
    threads: BTreeMap<(i32, i32), Hold>,
    sleepers: Sleepers,
    since_ns: u64,
}

impl Frozen {
    /// Freezes the tree below `root`.
    ///
    /// # Errors
    /// [`Error::Refused`] for what can't be stopped at all: pid 1, ourselves, a process that another one traces, the
    /// parent in a vfork that lasts. [`Error::Permission`], [`Error::Failed`] as the kernel says. The tree runs on.
    pub fn freeze(root: i32) -> Result<Frozen> {
        let who = Who { pid: root, name: name_of(root) };
        let me = std::process::id() as i32;
        refuse_impossible(root, me, &who)?;
        let mut freezing =
            Freezing { root, me, threads: BTreeMap::new(), sleepers: Sleepers::default(), since_ns: 0 };
        freezing.sleepers = Sleepers::look(&freezing.tree()?);
        freezing.since_ns = time::monotonic_ns();
        let done = freezing.stop_all();
        let since_ns = freezing.since_ns;
        match done {
            Ok(order) => freezing.into_frozen(order, since_ns),
            Err(error) => {
                freezing.let_go();
                Err(error)
            }
        }
    }

    /// The thread whose directory in `/proc` shows the root.
    pub fn door(&self) -> i32 {
        self.processes.first().map_or(0, |root| root.subject.door)
    }

    /// Lets the tree go on.
    ///
    /// Processes that job control has stopped go first, and are seen to stand again before their parents can look.
    pub fn thaw(&mut self) {
        self.processes.sort_by_key(|process| process.stopped_by.is_none());
        for process in &mut self.processes {
            let door = process.subject.door;
            let stopped =
                process.stopped_by.is_some() && process.threads.iter().any(|thread| thread.held.is_some());
            for thread in &mut process.threads {
                if let Some(held) = thread.held.take() {
                    held.release();
                }
            }
            if stopped {
                settle(door);
            }
        }
    }

    /// Ends the tree. It is still stopped: none of its processes sees another one die.
    pub fn kill(mut self) -> Result<()> {
        for process in &self.processes {
            match pidfd::send_signal(process.subject.pidfd.as_fd(), libc::SIGKILL) {
                Err(e) if !e.is(libc::ESRCH) => {
                    return Err(e).doing("ending the tree", Some(&process.subject.who));
                }
                _ => {}
            }
        }
        self.thaw();
        self.reap();
        Ok(())
    }

    /// Waits, a while at most, for the ends of threads that are still ours: until their tracer has seen them, nobody else does,
    /// and no process is gone before its last thread. What is left after that is let go by our exit.
    fn reap(&self) {
        let me = std::process::id() as i32;
        let begun_ns = time::monotonic_ns();
        for process in &self.processes {
            // A child's end is for whoever made it to fetch.
            let is_child = process.subject.stat.ppid == me;
            let tids = process.threads.iter().map(|thread| thread.tid).filter(|tid| {
                // The leader's end comes last.
                *tid != process.subject.pid()
            });
            let leader = (!is_child && !process.subject.zombie).then_some(process.subject.pid());
            for tid in tids.chain(leader) {
                let mut running = Running::adopt(tid);
                while time::monotonic_ns().saturating_sub(begun_ns) < REAP_NS {
                    match running.poll() {
                        Ok(Waited::Still(still)) => running = still,
                        Ok(Waited::Stopped(stopped)) => match stopped.resume(0) {
                            Ok(still) => running = still,
                            Err(_) => running = Running::adopt(tid),
                        },
                        _ => break,
                    }
                    time::sleep_ns(50_000);
                }
            }
        }
    }

    /// Leaves the tree stopped, as by SIGSTOP.
    ///
    /// No thread goes on before it stands, but each has to be scheduled for that: until then `/proc` shows it running, and who
    /// looks for what is to be continued would pass it over.
    pub fn stop(mut self) -> Result<()> {
        for process in self.processes.iter().filter(|p| !p.subject.zombie && p.stopped_by.is_none()) {
            pidfd::send_signal(process.subject.pidfd.as_fd(), libc::SIGSTOP)
                .doing("stopping the tree", Some(&process.subject.who))?;
        }
        self.thaw();
        let mut patience = Patience::of(LET_GO_NS);
        for process in self.processes.iter().filter(|p| !p.subject.zombie) {
            for thread in &process.threads {
                let look = || stat::read_thread(process.subject.pid(), thread.tid);
                while look().is_ok_and(|stat| stat.state == State::Running) && patience.wait() {}
            }
        }
        Ok(())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.thaw();
    }
}

fn name_of(pid: i32) -> String {
    procfs::comm(pid).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn refuse_impossible(root: i32, me: i32, who: &Who) -> Result<()> {
    let refuse = |code, what: &str, why: &str, remedy: &str| {
        Err(Error::Refused(vec![Refusal {
            who: Some(who.clone()),
            fd: None,
            what: what.into(),
            code,
            why: why.into(),
            remedy: remedy.into(),
        }]))
    };
    if root == 1 {
        return refuse(
            "task/init",
            "the init process of this pid namespace",
            "every process here is below it, bardo too: it can't be stopped and brought back from within",
            "name the root of the tree that you mean, or run bardo outside this container",
        );
    }
    let stat = match stat::read(root) {
        Ok(stat) => stat,
        Err(e) if e.is(libc::ENOENT) || e.is(libc::ESRCH) || root <= 0 => {
            return Err(Error::Failed(Failure {
                doing: format!("looking for process {root}"),
                who: None,
                call: Some(e),
                left: "nothing was touched".into(),
                remedy: Some(
                    "there is no process with this pid; `ps` or `pgrep` lists those there are".into(),
                ),
            }));
        }
        Err(e) => return Err(e).doing("looking for the process", Some(who)),
    };
    // PF_KTHREAD (include/linux/sched.h)
    if stat.flags & 0x0020_0000 != 0 {
        return refuse(
            "task/kernel",
            "a kernel thread",
            "it is part of the kernel",
            "name a process of a program",
        );
    }
    let alone = procfs::threads(root).is_ok_and(|tids| tids.len() < 2);
    if matches!(stat.state, State::Zombie | State::Dead) && alone {
        return refuse(
            "task/zombie",
            "a process that has ended",
            "only its exit status is left, for its parent to fetch",
            "checkpoint the tree of its parent",
        );
    }
    if status::read(root).is_ok_and(|s| s.tgid != root) {
        return refuse(
            "task/thread",
            "a thread, not a process",
            "a checkpoint takes whole processes",
            "name the pid of its process (Tgid in /proc/PID/status)",
        );
    }
    let mut above = me;
    while above > 1 {
        if above == root {
            return refuse(
                "task/bardo",
                "bardo itself is in this tree",
                "it would stop itself in the middle of its work",
                "run bardo from outside the tree: from another terminal, or by `setsid`",
            );
        }
        above = match stat::read(above) {
            Ok(stat) => stat.ppid,
            Err(_) => break,
        };
    }
    Ok(())
}

impl Freezing {
    /// The tree's pids now, parents first.
    fn tree(&self) -> Result<Vec<i32>> {
        let mut pids = vec![self.root];
        let mut at = 0;
        while let Some(pid) = pids.get(at).copied() {
            at += 1;
            let tids = match procfs::threads(pid) {
                Ok(tids) => tids,
                Err(e) if is_gone(&e) && pid != self.root => continue,
                Err(e) => return Err(e).doing("listing threads", Some(&self.who(pid))),
            };
            for tid in tids {
                match children::read_thread(pid, tid) {
                    Ok(children) => pids.extend(children),
                    Err(e) if is_gone(&e) => {}
                    Err(e) => return Err(e).doing("listing children", Some(&self.who(pid))),
                }
            }
        }
        Ok(pids)
    }

    fn who(&self, pid: i32) -> Who {
        Who { pid, name: name_of(pid) }
    }

    /// Passes over the tree until one finds nobody new; gives the pids in order.
    fn stop_all(&mut self) -> Result<Vec<i32>> {
        for _ in 0..PASSES_MAX {
            let pids = self.tree()?;
            let mut new = false;
            for &pid in &pids {
                let tids = match procfs::threads(pid) {
                    Err(e) if is_gone(&e) => continue,
                    tids => tids.doing("listing threads", Some(&self.who(pid)))?,
                };
                for tid in tids {
                    new |= self.ask(pid, tid)?;
                }
            }
            self.wait_all()?;
            if !new && self.all_stand(&pids)? {
                return Ok(pids);
            }
        }
        Err(Error::Failed(Failure {
            doing: format!("stopping the tree: it grew in each of {PASSES_MAX} passes"),
            who: Some(self.who(self.root)),
            call: None,
            left: "the tree runs on, untouched; nothing was written".into(),
            remedy: Some("try again when it makes fewer processes".into()),
        }))
    }

    /// Whether of these processes each stands still or has ended. One that isn't held otherwise is about to end: it gets a moment.
    fn all_stand(&self, pids: &[i32]) -> Result<bool> {
        for &pid in pids {
            let held = self.threads.range((pid, 0)..=(pid, i32::MAX)).next().is_some();
            match status::read(pid) {
                _ if held => {}
                Ok(status) if status.is_dead() => {}
                Err(e) if is_gone(&e) => {}
                Ok(_) => {
                    time::sleep_ns(50_000);
                    return Ok(false);
                }
                Err(e) => return Err(e).doing("looking whether it has ended", Some(&self.who(pid))),
            }
        }
        Ok(true)
    }

    /// Seizes a thread and asks it to stop. Whether it was new.
    fn ask(&mut self, pid: i32, tid: i32) -> Result<bool> {
        if self.threads.contains_key(&(pid, tid)) {
            return Ok(false);
        }
        let running = match Running::seize(tid) {
            Ok(running) => running,
            Err(e) if is_gone(&e) => return Ok(false),
            Err(e) => match self.why_not_ours(pid, tid, e)? {
                Some(running) => running,
                None => return Ok(false),
            },
        };
        match running.interrupt() {
            Ok(()) => {}
            Err(e) if is_gone(&e) => return Ok(false),
            Err(e) => return Err(e).doing("stopping a thread", Some(&self.who(pid))),
        }
        self.threads.insert((pid, tid), Hold::Asked(running));
        Ok(true)
    }

    /// Why a thread can't be seized: it is a zombie, it is ours already, another tracer has it, or we may not.
    fn why_not_ours(&self, pid: i32, tid: i32, e: Failed) -> Result<Option<Running>> {
        let status = match status::read_thread(pid, tid) {
            Ok(status) => status,
            Err(e) if is_gone(&e) => return Ok(None),
            Err(e) => return Err(e).doing("looking at a thread", Some(&self.who(pid))),
        };
        if status.is_dead() {
            return Ok(None);
        }
        if status.tracer_pid == self.me {
            return Ok(Some(Running::adopt(tid)));
        }
        if status.tracer_pid != 0 {
            let tracer = self.who(status.tracer_pid);
            return Err(Error::Refused(vec![Refusal {
                who: Some(self.who(pid)),
                fd: None,
                what: format!("thread {tid} is traced by {tracer}"),
                code: "task/traced",
                why: "a thread has one tracer at most, and bardo needs to be it for a moment".into(),
                remedy: format!("detach {} (gdb: `detach`, strace: Ctrl-C), then try again", tracer.name),
            }]));
        }
        Err(e).doing("stopping a thread", Some(&self.who(pid))).map_err(|error| match error {
            Error::Permission(failure) => Error::Permission(Failure {
                remedy: Some(format!(
                    "uid {} owns it: run bardo as that user, or with CAP_SYS_PTRACE; a process that isn't dumpable \
                     (prctl(2), PR_SET_DUMPABLE) needs CAP_SYS_PTRACE in any case",
                    status.uid.real
                )),
                left: "the tree runs on, untouched; nothing was written".into(),
                ..failure
            }),
            other => other,
        })
    }

    /// Waits until every thread that was asked stands still or is gone.
    fn wait_all(&mut self) -> Result<()> {
        let begun_ns = time::monotonic_ns();
        let mut turns = 0u32;
        loop {
            let asked: Vec<(i32, i32)> = self
                .threads
                .iter()
                .filter(|(_, hold)| matches!(hold, Hold::Asked(_)))
                .map(|(key, _)| *key)
                .collect();
            if asked.is_empty() {
                return Ok(());
            }
            for key in &asked {
                self.poll(*key)?;
            }
            let waited_ns = time::monotonic_ns().saturating_sub(begun_ns);
            if waited_ns > LOOK_AFTER_NS {
                self.unblock_vfork(&asked, waited_ns > LOOK_CLOSER_AFTER_NS);
            }
            if waited_ns > GIVE_UP_NS {
                let (pid, tid) = asked[0];
                if self.threads.get(&(pid, tid)).is_some_and(|h| matches!(h, Hold::Asked(_))) {
                    return Err(self.refuse_unstoppable(pid, tid));
                }
            }
            turns += 1;
            if turns < 20 { time::give_way() } else { time::sleep_ns(50_000 * u64::from(turns.min(20))) }
        }
    }

    fn poll(&mut self, key: (i32, i32)) -> Result<()> {
        let Some(Hold::Asked(running)) = self.threads.remove(&key) else { return Ok(()) };
        let (pid, tid) = key;
        let waited = match running.poll() {
            Ok(waited) => waited,
            // ECHILD: an exec by another thread took this one away.
            Err(e) if is_gone(&e) || e.is(libc::ECHILD) => return Ok(()),
            Err(e) => {
                // It stops all the same, and is to be let go of from there.
                self.threads.insert(key, Hold::Asked(Running::adopt(tid)));
                return Err(e).doing("waiting for a thread to stop", Some(&self.who(pid)));
            }
        };
        let hold = match waited {
            Waited::Still(running) => Some(Hold::Asked(running)),
            Waited::Gone(_) => None,
            Waited::Stopped(stopped) => match stopped.stop() {
                Stop::Interrupt => self.held(pid, stopped, None)?,
                Stop::Group(signal) => self.held(pid, stopped, Some(signal))?,
                // Let the signal take its course, then ask again: what it does is part of the state.
                Stop::Signal(signal) => ask_again(stopped, signal),
                _ => ask_again(stopped, 0),
            },
        };
        if let Some(hold) = hold {
            self.threads.insert((pid, tid), hold);
        }
        Ok(())
    }

    /// A thread has stopped: put right at once what a stop does to it.
    fn held(&self, pid: i32, stopped: Stopped, group: Option<i32>) -> Result<Option<Hold>> {
        match take_hold(pid, stopped, &self.sleepers, self.since_ns) {
            Ok(thread) => Ok(Some(Hold::Held(Box::new(thread), group))),
            Err(e) if is_gone(&e) => Ok(None),
            Err(e) => Err(e).doing("looking at a thread that stopped", Some(&self.who(pid))),
        }
    }

    /// A parent in vfork(2) can't be stopped before its child execs or exits: let such children go on for a moment.
    /// `any`: those too that don't share its memory, as a vfork's child does until it calls exec.
    fn unblock_vfork(&mut self, asked: &[(i32, i32)], any: bool) {
        for &(pid, tid) in asked {
            if !stat::read_thread(pid, tid).is_ok_and(|s| s.state == State::DiskSleep) {
                continue;
            }
            for child in children::read_thread(pid, tid).unwrap_or_default() {
                let is_held = matches!(self.threads.get(&(child, child)), Some(Hold::Held(..)));
                if !is_held || !(any || share_memory(pid, child)) {
                    continue;
                }
                if let Some(Hold::Held(mut thread, _)) = self.threads.remove(&(child, child))
                    && let Some(Ok(running)) = thread.held.take().map(|held| held.thread.resume(0))
                {
                    let _ = wait_while_uninterruptible(pid, tid);
                    let _ = running.interrupt();
                    self.threads.insert((child, child), Hold::Asked(running));
                }
            }
        }
    }

    fn refuse_unstoppable(&self, pid: i32, tid: i32) -> Error {
        let what =
            procfs::single::wchan(pid, tid).ok().flatten().unwrap_or_else(|| "an unnamed place".into());
        let child = children::read_thread(pid, tid).unwrap_or_default();
        let vfork = child.iter().find(|child| share_memory(pid, **child));
        let (code, what, why, remedy) = match vfork {
            Some(child) => (
                "task/vfork",
                format!("thread {tid} is in vfork, waiting for its child {}", self.who(*child)),
                "the kernel doesn't let it stop before the child has called exec or ended".to_string(),
                "try again when the child has done so".to_string(),
            ),
            None => (
                "task/uninterruptible",
                format!("thread {tid} sleeps uninterruptibly in the kernel ({what})"),
                "it can't be stopped before the kernel lets it; a disk or a network file system may not answer".into(),
                "try again; if it lasts, look at what it waits for in /proc/PID/task/TID/stack".into(),
            ),
        };
        Error::Refused(vec![Refusal { who: Some(self.who(pid)), fd: None, what, code, why, remedy }])
    }

    fn let_go(&mut self) {
        let mut patience = Patience::of(LET_GO_NS);
        for (_, hold) in std::mem::take(&mut self.threads) {
            match hold {
                Hold::Held(thread, _) => {
                    if let Some(held) = thread.held {
                        held.release();
                    }
                }
                // It stops any moment; only then can it be let go of. One that can't stop is let go by our exit.
                Hold::Asked(running) => {
                    let mut asked = running;
                    let tid = asked.tid();
                    loop {
                        match asked.poll().or_else(|_| Running::adopt(tid).poll()) {
                            Ok(Waited::Still(running)) if patience.wait() => asked = running,
                            Ok(Waited::Stopped(stopped)) => {
                                way_out::release(stopped);
                                break;
                            }
                            _ => break,
                        }
                    }
                }
            }
        }
    }

    fn into_frozen(mut self, order: Vec<i32>, since_ns: u64) -> Result<Frozen> {
        let mut frozen = Frozen { processes: Vec::new(), since_ns };
        for pid in order {
            let mut threads = Vec::new();
            let mut stopped_by = None;
            let keys: Vec<(i32, i32)> =
                self.threads.range((pid, 0)..=(pid, i32::MAX)).map(|(k, _)| *k).collect();
            for key in keys {
                if let Some(Hold::Held(thread, group)) = self.threads.remove(&key) {
                    stopped_by = stopped_by.or(group);
                    threads.push(*thread);
                }
            }
            threads.sort_by_key(|thread| (thread.tid != pid, thread.tid));
            match subject(pid, &threads) {
                Ok(subject) => frozen.processes.push(Process { subject, threads, stopped_by }),
                Err(e) => {
                    threads.into_iter().filter_map(|thread| thread.held).for_each(Held::release);
                    // It ended (SIGKILL ends even what is stopped), and its parent has fetched it.
                    if is_gone(&e) && pid != self.root {
                        continue;
                    }
                    self.let_go();
                    return Err(e).doing("looking at a process that stopped", Some(&self.who(pid)));
                }
            }
        }
        self.let_go();
        Ok(frozen)
    }
}

fn subject(pid: i32, threads: &[Thread]) -> bardo_kernel::Result<Subject> {
    let (mut status, mut stat) = (status::read(pid)?, stat::read(pid)?);
    let zombie = status.is_dead() && threads.is_empty();
    // Nothing shows the memory and the files of a process by its leader, where that has ended.
    let door = threads.first().map_or(pid, |thread| thread.tid);
    let (pidfd, mem) = match status.is_dead() {
        _ if zombie => (pidfd::open(pid)?, None),
        false => (pidfd::open(pid)?, Some(open_memory(door)?)),
        true => {
            status.umask = status::read_thread(pid, door)?.umask;
            stat = Stat {
                pid: stat.pid,
                comm: stat.comm,
                exit_signal: stat.exit_signal,
                exit_code: stat.exit_code,
                ..stat::read(door)?
            };
            // EINVAL before Linux 6.9: the survey refuses it.
            let pidfd = pidfd::open_thread(door);
            (
                pidfd.or_else(|e| if e.is(libc::EINVAL) { pidfd::open(pid) } else { Err(e) })?,
                Some(open_memory(door)?),
            )
        }
    };
    Ok(Subject {
        who: Who { pid, name: status.name.to_string_lossy().into_owned() },
        own_pid: status.ns_pid.last().copied().unwrap_or(pid),
        pidfd,
        mem,
        door,
        stat,
        tids: threads.iter().map(|thread| thread.tid).collect(),
        status,
        zombie,
    })
}

fn open_memory(door: i32) -> bardo_kernel::Result<std::os::fd::OwnedFd> {
    fs::open(&procfs::path(door, "mem"), libc::O_RDWR, 0)
}

/// Waits, a moment at most, until a process that job control has stopped stands where it stood: it is woken to find that
/// out by itself.
pub fn settle(pid: i32) {
    let mut patience = Patience::of(LET_GO_NS);
    while stat::read(pid).is_ok_and(|stat| stat.state == State::Running) && patience.wait() {}
}

fn is_gone(e: &Failed) -> bool {
    e.is(libc::ESRCH) || e.is(libc::ENOENT)
}

/// Each call once more where it fails: the thread, and its signal, would be left in a stop that only our end dissolves.
fn ask_again(stopped: Stopped, signal: i32) -> Option<Hold> {
    let running = stopped.resume_or_again(signal).ok()?;
    running.interrupt().or_else(|_| running.interrupt()).ok()?;
    Some(Hold::Asked(running))
}

/// Takes hold of a thread that has just stopped: puts right what the stop did to it, and tells what it was doing. Where
/// that fails it is let go.
fn take_hold(pid: i32, stopped: Stopped, sleepers: &Sleepers, since_ns: u64) -> bardo_kernel::Result<Thread> {
    // Once more, but for a thread that is gone: it may have got an EINTR that nothing but this takes back.
    let look = || put_right(pid, &stopped, sleepers, since_ns);
    match look().or_else(|e| if is_gone(&e) { Err(e) } else { look() }) {
        Ok((registers, mask, sleep)) => {
            let tid = stopped.tid();
            Ok(Thread { tid, held: Some(Held { thread: stopped, registers, mask }), sleep })
        }
        Err(e) => {
            way_out::release(stopped);
            Err(e)
        }
    }
}

fn put_right(
    pid: i32,
    thread: &Stopped,
    sleepers: &Sleepers,
    since_ns: u64,
) -> bardo_kernel::Result<(Registers, u64, Option<Sleep>)> {
    // First of all: if we are killed before this, the program sees the EINTR.
    way_out::make_again(thread)?;
    let seen = thread.registers()?;
    let mut registers = seen;
    let mut sleep = None;
    if let Interrupted::Block(_) = seen.interrupted() {
        sleep = Sleep::of(pid, thread.tid(), &seen, sleepers, since_ns)?;
        if let Some(sleep) = &sleep {
            registers = seen.continued(sleep.mark());
        }
    }
    if let Some(ip) = abort_of_rseq(pid, thread, &registers)? {
        registers.rip = ip;
    }
    if registers != seen {
        thread.set_registers(&registers)?;
    }
    Ok((registers, thread.signal_mask()?, sleep))
}

impl Thread {
    /// Whether it stands in this stub, where a bardo that died has left it.
    pub fn is_in(&self, stub: (u64, u64)) -> bool {
        self.held.as_ref().is_some_and(|held| (stub.0..stub.1).contains(&held.registers.ip()))
    }

    /// Lets it run out of such a stub by itself, and takes hold of it again.
    ///
    /// # Errors
    /// It is gone, or doesn't come out.
    pub fn run_out(&mut self, pid: i32, stub: (u64, u64)) -> bardo_kernel::Result<()> {
        self.held = None;
        let stopped = way_out::run_out(self.tid, stub)?;
        *self = take_hold(pid, stopped, &Sleepers::default(), time::monotonic_ns())?;
        Ok(())
    }
}

/// Where a thread goes that was stopped inside a restartable sequence: to its abort handler.
fn abort_of_rseq(pid: i32, thread: &Stopped, registers: &Registers) -> bardo_kernel::Result<Option<u64>> {
    let Some(rseq) = thread.rseq()? else { return Ok(None) };
    let read = |at: u64, len: usize| -> Option<Vec<u64>> {
        let mut bytes = vec![0u8; len];
        bardo_kernel::process_vm::read_exact(pid, at, &mut bytes).ok()?;
        Some(bytes.chunks_exact(8).map(|w| u64::from_ne_bytes(w.try_into().expect("eight bytes"))).collect())
    };
    // struct rseq {u32 cpu_id_start; u32 cpu_id; u64 rseq_cs; …}; struct rseq_cs {u32 version; u32 flags; u64 start_ip;
    // u64 post_commit_offset; u64 abort_ip} (linux/rseq.h)
    let Some(cs) = read(rseq.address + 8, 8).map(|w| w[0]).filter(|cs| *cs != 0) else { return Ok(None) };
    let Some(words) = read(cs, 32) else { return Ok(None) };
    let (start, len, abort) = (words[1], words[2], words[3]);
    Ok((registers.ip().wrapping_sub(start) < len).then_some(abort))
}

fn share_memory(pid: i32, child: i32) -> bool {
    kcmp::compare(pid, child, kcmp::What::Vm).is_ok_and(kcmp::Order::is_same)
}

/// Waits, a while at most, until the thread leaves its uninterruptible sleep.
fn wait_while_uninterruptible(pid: i32, tid: i32) -> bardo_kernel::Result<()> {
    for _ in 0..1000 {
        if stat::read_thread(pid, tid)?.state != State::DiskSleep {
            break;
        }
        time::sleep_ns(100_000);
    }
    Ok(())
}

/// A signal to a process by its pid, refusing groups.
pub fn signal(pid: i32, signal: i32) -> bardo_kernel::Result<()> {
    ptrace::kill(pid, signal)
}
