//! The flow of a restart. Read this file second.
//!
//! Each step is a value that only the step before can make: an image whose records were read, a plan that was checked
//! against this host, files that are open, processes that exist, memory that is filled, and a seal that was verified.
//! Until the commit at the very end, everything that was made ends with us, however we end.

use bardo_image::{Frame, Pages, Reader};
use bardo_kernel::time;

use crate::error::{Error, Failure, Refusal, Result};
use crate::host;
use crate::make::Tree;
use crate::plan::Plan;
use crate::resource::file::Pool;
use crate::resource::memory::{MappedFiles, MemoryImage};
use crate::resource::task::{clock, mm, schedule, seccomp, thread};
pub use crate::source::Source;
use crate::space::{Space, capabilities};
use crate::watch::{Stage, Watch};

/// What to do about files that changed since the checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Files {
    /// Report them and start nothing.
    #[default]
    MustMatch,
    /// Go on with the files as they are now.
    IgnoreChanges,
}

/// In which pid namespace the tree comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PidSpace {
    /// The caller's where the kernel lets us choose pids there, else a new one.
    #[default]
    Auto,
    /// The caller's, or fail.
    Callers,
    /// A new one (with a user namespace where the caller lacks CAP_SYS_ADMIN).
    New,
}

/// By which clocks the tree goes on: CLOCK_MONOTONIC and CLOCK_BOOTTIME.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Clocks {
    /// The host's, but in a new time namespace where they are behind, or where the tree had one.
    #[default]
    Auto,
    /// They go on from where they were, in a new time namespace.
    Continue,
    /// The host's, though they may go back.
    Host,
}

/// What to restart, and how.
#[derive(Debug)]
pub struct Request {
    /// The image.
    pub source: Source,
    /// Leave every process stopped as by SIGSTOP.
    pub stopped: bool,
    /// What the outside connects to: `stdout=FILE`, `pipe:[4711]=fd:5`, in the names `show` prints.
    pub external: Vec<String>,
    /// Changed files.
    pub files: Files,
    /// Namespace.
    pub pid_space: PidSpace,
    /// Clocks.
    pub clocks: Clocks,
    /// The tree lives on without us: its root is not tied to the caller's exit.
    pub detach: bool,
}

/// A tree that runs again.
#[derive(Debug)]
pub struct Restarted {
    /// The root's pid as the caller sees it. The root is a child of the calling process, or (new pid namespace) of an
    /// init that is.
    pub root: i32,
    /// The pid to wait for: the root itself or the namespace's init, which exits as the root does.
    pub wait_for: i32,
    /// How many processes.
    pub processes: u64,
    /// How many threads.
    pub threads: u64,
    /// Bytes of memory put back.
    pub page_bytes: u64,
    /// What isn't as it was, since the caller lacks a right: `pid 4127 (nginx): oom_score_adj is 0 and was -500`.
    pub lessened: Vec<String>,
    /// From the call to the tree's first instruction, in microseconds.
    pub total_us: u64,
}

/// What our process holds open for the tree: it inherits all of it.
#[derive(Debug)]
pub struct Opened {
    /// Every open file.
    pub pool: Pool,
    /// Every mapped file.
    pub mapped: MappedFiles,
}

/// Restarts a tree.
///
/// # Errors
/// See [`crate::Error`]. Whatever it is, nothing runs and nothing was left half-made.
pub fn restart(request: Request, watch: &dyn Watch) -> Result<Restarted> {
    let begun_ns = time::monotonic_ns();
    watch.stage(Stage::Open);
    let mut reader = request.source.open()?;
    host::Needs::of_this_host()?.check(&reader.header().host)?;
    let (mut plan, mut next) = read_records(&mut reader)?;
    plan.complete()?;
    // The memory's images of pages are put while the plan is read: they are apart.
    let mut memory = std::mem::take(&mut plan.memory);
    let space = Space::choose(request.pid_space, clock::to_continue(plan.clocks, request.clocks)?)?;
    check(&plan, &memory, &space, &request)?;

    watch.stage(Stage::Files);
    let base = plan.files.highest_fd().max(2) + 1;
    let mapped = memory.open_all(base, request.files)?;
    let pool = plan.files.open_all(&request.external, &mapped, base)?;
    let open = Opened { pool, mapped };

    watch.stage(Stage::Processes);
    let mut tree = Tree::begin(&plan, &memory, &space, watch)?;
    tree.make(&memory, &open, &mut next, &mut reader)?;
    tree.build(&memory, &open)?;

    watch.stage(Stage::Memory);
    let page_bytes = tree.fill(&mut memory, &open, next, &mut reader)?;

    watch.stage(Stage::Go);
    tree.furnish(&memory, &open)?;
    tree.finish()?;
    let root = tree.root();
    let lessened = tree.lessened();
    if watch.cancelled() {
        return Err(cancelled());
    }
    let Opened { pool, mapped } = open;
    // Files that are closed only now would be news to those who watch them.
    drop(mapped);
    tree.go(&pool, request.stopped)?;
    Ok(Restarted {
        root,
        wait_for: space.commit()?.unwrap_or(root),
        processes: plan.processes.len() as u64,
        threads: plan.threads.len() as u64,
        page_bytes,
        lessened,
        total_us: time::monotonic_ns().saturating_sub(begun_ns) / 1000,
    })
}

/// Everything before the first page.
fn read_records<R: std::io::Read>(reader: &mut Reader<R>) -> Result<(Plan, Option<Pages>)> {
    let mut plan = Plan::default();
    loop {
        match reader.next().map_err(Error::Image)? {
            Some(Frame::Record(record)) => plan.take(&record)?,
            Some(Frame::Pages(pages)) => return Ok((plan, Some(pages))),
            None => return Ok((plan, None)),
        }
    }
}

/// What stands in the way on this host, all of it, before anything is made.
fn check(plan: &Plan, memory: &MemoryImage, space: &Space, request: &Request) -> Result<()> {
    let mut unfit = plan.files.check(request.files, &request.external);
    for inode in plan.files.inodes().filter(|inode| !memory.has_inode(*inode)) {
        unfit.push(Refusal {
            who: None,
            fd: None,
            what: format!("an open file of inode {inode}, of which the image doesn't tell"),
            code: "file/unlinked",
            why: "the image contradicts itself".into(),
            remedy: "`bardo verify` tells whether it was damaged".into(),
        });
    }
    for pid in plan.files.processes().filter(|pid| plan.living().all(|member| member.pid != *pid)) {
        unfit.push(Refusal {
            who: None,
            fd: None,
            what: format!("a file of process {pid}, of which the image doesn't tell"),
            code: "file/proc",
            why: "the image contradicts itself".into(),
            remedy: "`bardo verify` tells whether it was damaged".into(),
        });
    }
    unfit.extend(space.check(plan)?);
    unfit.extend(seccomp::check(&plan.threads)?);
    unfit.extend(schedule::check(&plan.threads));
    unfit.extend(thread::check_flushers(&plan.threads, capabilities()?));
    unfit.extend(mm::check(plan.processes.iter().filter_map(|process| Some(process.life.as_ref()?.rules))));
    unfit.extend(memory.check(request.files)?);
    unfit.extend(plan.sysv.check()?);
    if !unfit.is_empty() {
        unfit.sort();
        unfit.dedup();
        return Err(Error::Unfit(unfit));
    }
    if !space.is_new() {
        let taken = plan.taken_pids();
        if !taken.is_empty() {
            return Err(Error::Conflict(taken));
        }
    }
    Ok(())
}

fn cancelled() -> Error {
    Error::Failed(Failure {
        doing: "stopping, as you asked".into(),
        who: None,
        call: None,
        left: "nothing runs, nothing was left behind".into(),
        remedy: None,
    })
}

/// A refusal of the host, not of a process.
pub fn unfit(code: &'static str, what: String, why: &str, remedy: &str) -> Error {
    Error::Unfit(vec![Refusal { who: None, fd: None, what, code, why: why.into(), remedy: remedy.into() }])
}
