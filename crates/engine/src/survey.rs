//! The survey: looks at everything a frozen tree is made of, and at all that stands in the way. It writes nothing.
//!
//! What can be seen from outside is read from outside. What can't (dispositions, timers, alternate stacks, …) is asked
//! inside, by one visit per process ([`crate::visit`]).

use std::collections::{HashMap, HashSet};

use bardo_kernel::procfs::{self, ns, timers};
use bardo_kernel::stub::Batch;
use bardo_kernel::{fs, pidfd, ptrace, scheduler};

use crate::error::{Doing, Error, Refusal, Result};
use crate::family;
use crate::family::sharing::Sharing;
use crate::freeze::{Frozen, Process as FrozenProcess};
use crate::resource::file::{self, Files};
use crate::resource::memory::{self, Commons, Relative, Shared, Space};
use crate::resource::shared::{SysvObjects, sysv};
use crate::resource::task::clock::{Ahead, Clocks, TimeNamespace};
use crate::resource::task::own_directory;
use crate::resource::task::posix_timer;
use crate::resource::task::process::Process;
use crate::resource::task::seccomp::Filters;
use crate::resource::task::thread::Thread;
use crate::subject::Subject;
use crate::visit::{Asks, let_out, visit};
use crate::watch::Watch;

/// Everything a checkpoint will write, but for the pages.
#[derive(Debug)]
pub struct Survey {
    /// Processes, parents first.
    pub processes: Vec<Process>,
    /// Threads, each process's leader first.
    pub threads: Vec<Thread>,
    /// The address space of each living process, with its index in the frozen tree.
    pub spaces: Vec<(usize, Space)>,
    /// Memory shared between them.
    pub shared: Shared,
    /// Pages that they have in common copy-on-write.
    pub commons: Commons,
    /// Their files.
    pub files: Files,
    /// What their clocks show: later than any of them has seen, and than what remains of any timer.
    pub clocks: Clocks,
    /// What of the kernel's IPC objects stays where it is.
    pub sysv: SysvObjects,
    /// What was found of an earlier bardo that died, and put right.
    pub cleaned: Vec<String>,
}

/// Looks at a frozen tree. All refusals are found before this returns.
///
/// # Errors
/// [`Error::Refused`] with everything that stands in the way; [`Error::Failed`] where looking failed.
pub fn look(frozen: &mut Frozen, externals: &[String], watch: &dyn Watch) -> Result<Survey> {
    let mut refusals = Vec::new();
    let mut processes = Vec::new();
    let mut threads = Vec::new();
    let mut spaces = Vec::new();
    let mut shared = Shared::new()?;
    let mut cleaned = Vec::new();
    let ours = ns::read(std::process::id() as i32).doing("reading our own namespaces", None)?;
    let stopped_children = stopped_children(frozen);
    let mut told = Vec::new();
    let known = known_tids(frozen);
    let sharing = Sharing::look(frozen, &mut refusals)?;
    let mut own_directories = Vec::new();
    let mut memory_is_seen: HashSet<usize> = HashSet::new();
    for class in sharing.of_memory().filter(|class| class.len() > 1) {
        memory_is_seen.extend(&class[1..]);
        // Who visits one of them clears away what lies in the memory of all.
        for index in class {
            let_out(&mut frozen.processes[*index])?;
        }
    }
    let mut time_namespace = TimeNamespace::default();
    for (index, process) in frozen.processes.iter_mut().enumerate() {
        if watch.cancelled() {
            return Err(cancelled());
        }
        let before = refusals.len();
        if process.subject.zombie {
            processes.push(Process::take(&process.subject, None, None));
            continue;
        }
        look_outside(process, &ours, &known, &mut time_namespace, &mut refusals)?;
        let (directories, firsts) = own_directory::look(&process.subject, &mut refusals)?;
        own_directories.extend(firsts.into_iter().map(|first| (index, first)));
        let seccomp = if process.subject.status.is_dead() {
            Filters::default()
        } else {
            let seccomp = Filters::look(process, &mut refusals)?;
            seccomp.judge_continuation(&process.subject, &mut process.threads, &mut refusals)?;
            seccomp
        };
        if refusals.len() > before {
            // What can't be saved isn't visited either: a seccomp filter could kill it for our calls.
            processes.push(Process::take(&process.subject, process.stopped_by, None));
            continue;
        }
        let mut asks = Asks {
            stopped_children: &stopped_children[index],
            told: &mut told,
            seccomp,
            refusals: &mut refusals,
        };
        let first = threads.len();
        let Some((life, inside)) = visit(process, &mut asks, &mut threads, &mut cleaned, watch)? else {
            processes.push(Process::take(&process.subject, process.stopped_by, None));
            continue;
        };
        for thread in &mut threads[first..] {
            thread.directory = directories.get(&thread.tid).cloned();
        }
        processes.push(Process::take(&process.subject, process.stopped_by, Some(life)));
        if !memory_is_seen.contains(&index) {
            let space = memory::survey(&process.subject, inside, &mut shared, &mut refusals)?;
            spaces.push((index, space));
        }
    }
    let all = fs::read_text("/sys/devices/system/cpu/online").unwrap_or_default();
    let (all, ours) = (scheduler::mask_of(&all), scheduler::processors_of_our_set());
    for thread in &mut threads {
        thread.schedule.compare_processors(&all, &ours);
    }
    for process in &mut processes {
        process.stop_told = told.contains(&process.pid);
    }
    own_parents(frozen, &mut processes)?;
    find_outside_sessions(frozen, &mut processes)?;
    own_directory::refuse_shared(frozen, &own_directories, &mut refusals)?;
    sharing.note(&mut processes);
    let subjects: Vec<&Subject> = frozen.processes.iter().map(|p| &p.subject).collect();
    let files = file::survey(&subjects, externals, &mut shared, &mut refusals)?;
    shared.complete(&subjects, &mut refusals)?;
    let sysv = sysv::survey(frozen, shared.attached(), externals, &mut refusals)?;
    let births = family::plan(&processes).unwrap_or_else(|hindrances| {
        for hindrance in hindrances {
            refusals.push(frozen.processes[hindrance.process].subject.refusal(
                hindrance.code,
                None,
                hindrance.what,
                hindrance.why,
                "start the tree, or the process, in a session of its own: setsid(1)",
            ));
        }
        family::Births::default()
    });
    if !refusals.is_empty() {
        refusals.sort();
        refusals.dedup();
        return Err(Error::Refused(refusals));
    }
    let commons = commons(&subjects, &births.births, &mut spaces, shared.next_id())?;
    let door = frozen.door();
    let clocks = Ahead::of_process(door).and_then(|ahead| Clocks::take(door, ahead));
    let clocks = clocks.doing("reading the tree's clocks", Some(&subjects[0].who))?;
    Ok(Survey { processes, threads, spaces, shared, commons, files, clocks, sysv, cleaned })
}

/// Finds what the processes have in common copy-on-write.
fn commons(
    subjects: &[&Subject],
    births: &[family::Birth],
    spaces: &mut [(usize, Space)],
    free_id: u64,
) -> Result<Commons> {
    let mut spaces: HashMap<usize, &mut Space> =
        spaces.iter_mut().map(|(index, space)| (*index, space)).collect();
    let (mut relatives, mut numbers) = (Vec::new(), HashMap::new());
    for birth in births {
        // Whoever is adopted inherits nothing from its parent.
        let parent = birth.parent.filter(|_| birth.adopted.is_none());
        let parent = parent.and_then(|parent| numbers.get(&parent).copied());
        if let Some(parent) = parent.filter(|_| birth.shares & libc::CLONE_VM as u64 != 0) {
            numbers.insert(birth.process, parent);
        }
        let Some(space) = spaces.remove(&birth.process) else { continue };
        numbers.insert(birth.process, relatives.len());
        relatives.push(Relative { subject: subjects[birth.process], space, parent });
    }
    memory::common::find(&mut relatives, free_id)
}

/// All pids and tids of the tree as its processes see them.
fn known_tids(frozen: &Frozen) -> HashSet<i32> {
    let pids = frozen.processes.iter().map(|process| process.subject.own_pid);
    let threads = frozen
        .processes
        .iter()
        .flat_map(|process| process.threads.iter().map(|thread| own_tid(process.subject.pid(), thread.tid)));
    pids.chain(threads).collect()
}

/// A thread's tid as it sees itself.
fn own_tid(pid: i32, tid: i32) -> i32 {
    let status = procfs::status::read_thread(pid, tid).ok();
    status.and_then(|status| status.ns_pid.last().copied()).unwrap_or(tid)
}

/// Parents as the processes see them: `stat` tells the pids that we see.
fn own_parents(frozen: &Frozen, processes: &mut [Process]) -> Result<()> {
    let by_pid: HashMap<i32, &FrozenProcess> =
        frozen.processes.iter().map(|p| (p.subject.pid(), p)).collect();
    let index: HashMap<i32, usize> =
        frozen.processes.iter().enumerate().map(|(index, p)| (p.subject.pid(), index)).collect();
    for process in processes.iter_mut() {
        process.parent = by_pid.get(&process.parent).map_or(0, |parent| parent.subject.own_pid);
    }
    // A child belongs to the thread that made it, which is the leader where there is only one.
    for parent in &frozen.processes {
        for thread in parent.threads.iter().filter(|thread| thread.tid != parent.subject.pid()) {
            let (pid, tid) = (parent.subject.pid(), thread.tid);
            let children = procfs::children::read_thread(pid, tid)
                .doing("listing children", Some(&parent.subject.who))?;
            for child in children.iter().filter_map(|child| index.get(child)) {
                let status =
                    procfs::status::read_thread(pid, tid).doing("reading a thread's status", None)?;
                processes[*child].parent_thread = status.ns_pid.last().copied().unwrap_or(tid);
            }
        }
    }
    Ok(())
}

/// Which sessions have a leader that lives outside the tree; where it is dead, nobody outside has its pid.
fn find_outside_sessions(frozen: &Frozen, processes: &mut [Process]) -> Result<()> {
    let inside: HashSet<i32> = frozen.processes.iter().map(|p| p.subject.pid()).collect();
    let mut known: HashMap<i32, bool> = HashMap::new();
    for (process, frozen) in processes.iter_mut().zip(&frozen.processes) {
        let session = frozen.subject.stat.session;
        let lives = match known.get(&session) {
            Some(lives) => *lives,
            // 0: of another pid namespace, which we don't see.
            None if session == 0 => true,
            None if inside.contains(&session) => false,
            None => match procfs::stat::read(session) {
                Ok(_) => true,
                Err(e) if e.is(libc::ENOENT) || e.is(libc::ESRCH) => false,
                Err(e) => {
                    return Err(e).doing("looking for the leader of a session", Some(&frozen.subject.who));
                }
            },
        };
        known.insert(session, lives);
        process.session_outside = lives;
    }
    Ok(())
}

/// What can be told without touching the process.
fn look_outside(
    process: &FrozenProcess,
    ours: &ns::Links,
    known: &HashSet<i32>,
    time_namespace: &mut TimeNamespace,
    refusals: &mut Vec<Refusal>,
) -> Result<()> {
    let subject = &process.subject;
    let who = Some(&subject.who);
    let later = "a later version of bardo will save it; until then checkpoint before it is set up";
    let mut refuse = |code, what: String, why: &str, remedy: &str| {
        refusals.push(subject.refusal(code, None, what, why, remedy));
    };
    if subject.status.is_dead() && pidfd::open_thread(subject.door).is_err_and(|e| e.is(libc::EINVAL)) {
        refuse(
            "task/dead-leader",
            "its first thread has ended, others live on".into(),
            "this kernel gives nobody its descriptors: Linux 6.9 and later do",
            "use a newer kernel",
        );
        return Ok(());
    }
    if subject.status.is_dead() && process.stopped_by.is_some() {
        refuse(
            "task/dead-leader",
            "its first thread has ended, and job control has stopped the others".into(),
            "as long as it is stopped, the kernel tells nobody with which status that thread has ended",
            "let it go on: kill -CONT",
        );
    }
    for thread in &process.threads {
        if let Some(held) = &thread.held
            && held.thread.user_dispatch().doing("asking for syscall user dispatch", who)?.is_some()
        {
            refuse(
                "task/user-dispatch",
                format!(
                    "thread {} has its system calls dispatched (PR_SET_SYSCALL_USER_DISPATCH)",
                    thread.tid
                ),
                "bardo's own calls in it would become signals to the program",
                later,
            );
        }
        let status =
            procfs::status::read_thread(subject.pid(), thread.tid).doing("reading a thread's status", who)?;
        if let Some(features) = status.x86_thread_features.filter(|features| !features.is_empty()) {
            refuse(
                "task/shadow-stack",
                format!("thread {} has a shadow stack ({})", thread.tid, features.join(", ")),
                "the kernel lets nobody write into it, and bardo's own code would break it",
                "start the program without it (GLIBC_TUNABLES=glibc.cpu.hwcaps=-SHSTK)",
            );
        }
        let untagged = |(key, mask): &(String, String)| key == "untag_mask" && mask != "0xffffffffffffffff";
        if status.other.iter().any(untagged) {
            refuse(
                "task/tagged-addresses",
                format!("thread {} uses tagged addresses (LAM)", thread.tid),
                "they are a property of its memory that can only be set before it has a second thread",
                later,
            );
        }
        if ptrace::core_cookie(thread.tid).doing("asking for core scheduling", who)? != 0 {
            refuse(
                "task/core-cookie",
                format!(
                    "thread {} shares a processor's core with some threads only (PR_SCHED_CORE)",
                    thread.tid
                ),
                "with whom is known by a number that means nothing after a restart",
                later,
            );
        }
        if let Some(held) = &thread.held
            && held.thread.has_thread_area().doing("asking for its segments", who)?
        {
            refuse(
                "task/segments",
                format!("thread {} has a segment of its own (set_thread_area(2))", thread.tid),
                "segments aren't saved: 64-bit programs have no use for them",
                later,
            );
        }
        if thread.held.as_ref().is_some_and(|held| !held.registers.is_native()) {
            refuse(
                "task/compat",
                format!("thread {} runs 32-bit code", thread.tid),
                "bardo handles 64-bit programs only",
                "use a 64-bit build of the program",
            );
        }
    }
    let timers = timers::read(subject.door).doing("reading timers", who)?;
    for timer in timers {
        if let Some(owner) = posix_timer::owner_of(timer.clock).filter(|owner| !known.contains(owner)) {
            refuse(
                "task/posix-timer",
                format!("timer {} counts the CPU time of pid {owner}, which isn't in the tree", timer.id),
                "after a restart there would be no such clock",
                "checkpoint a tree that has both",
            );
        }
    }
    let theirs = ns::read(subject.door).doing("reading namespaces", who)?;
    for (kind, link) in theirs.iter() {
        let may_differ =
            matches!(kind.name(), "pid" | "user" | "time" | "pid_for_children" | "time_for_children");
        if !may_differ && ours.get(kind).is_some_and(|mine| mine != link) {
            refuse(
                "namespace/other",
                format!("it is in another {} namespace than bardo", kind.name()),
                "namespaces aren't saved yet, and what it names means something else here",
                "run bardo inside the same namespaces (nsenter(1)), or wait for a later version",
            );
        }
    }
    time_namespace.join(subject, &theirs, refusals);
    let mut refuse = |code, what: String, why: &str, remedy: &str| {
        refusals.push(subject.refusal(code, None, what, why, remedy));
    };
    let root = fs::read_link(procfs::path(subject.door, "root")).doing("reading its root directory", who)?;
    if root != std::path::Path::new("/") {
        refuse(
            "task/root",
            format!("its root directory is {}", root.display()),
            "every path it names would lead elsewhere",
            "run bardo inside the same root (chroot(8))",
        );
    }
    Ok(())
}

/// For each process the children that job control has stopped, by the pids that it knows.
fn stopped_children(frozen: &Frozen) -> Vec<Vec<i32>> {
    let stopped: Vec<&FrozenProcess> = frozen.processes.iter().filter(|p| p.stopped_by.is_some()).collect();
    let of = |parent: &FrozenProcess| {
        let mine = stopped.iter().filter(|child| child.subject.stat.ppid == parent.subject.pid());
        mine.map(|child| child.subject.own_pid).collect()
    };
    frozen.processes.iter().map(of).collect()
}

/// The user asked to stop.
pub fn cancelled() -> Error {
    Error::Failed(crate::error::Failure {
        doing: "stopping, as you asked".into(),
        who: None,
        call: None,
        left: "the tree runs on; nothing was written".into(),
        remedy: None,
    })
}

/// For `--steps`.
pub fn show_steps(pid: i32, batch: &Batch, watch: &dyn Watch) {
    if watch.wants_steps() {
        for line in batch.lines() {
            watch.step(pid, &line);
        }
    }
}
