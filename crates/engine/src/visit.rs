//! A visit: what a process and its threads have that nobody sees from outside is asked inside, in one go
//! (`bardo_kernel::remote` says why that is safe). What a bardo that died has left there is taken away first.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use bardo_kernel::mmap::find_hole;
use bardo_kernel::procfs::maps::{self, Area, Special};
use bardo_kernel::procfs::smaps::{self, VmFlag};
use bardo_kernel::procfs::{status, timers};
use bardo_kernel::ptrace::Pinned;
use bardo_kernel::remote::{AREA_LEN, Candidate, Place, Visit};
use bardo_kernel::stub::{Arg, Batch};
use bardo_kernel::{Failed, Sysno};

use crate::error::{Doing, Error, Refusal, Result, Who};
use crate::freeze::{Process as FrozenProcess, Thread as FrozenThread};
use crate::resource::memory::Inside;
use crate::resource::memory::policy::{self, PoliciesAsked};
use crate::resource::task::posix_timer::{self, OwnerAsked, PosixTimers, TimersAsked};
use crate::resource::task::process::{Life, ProcessAsked};
use crate::resource::task::seccomp::Filters;
use crate::resource::task::signal::Pending;
use crate::resource::task::thread::{Thread, ThreadAsked};
use crate::subject::Subject;
use crate::survey::show_steps;
use crate::watch::Watch;

/// The end of the addresses a 64-bit process uses by default (TASK_SIZE, 47 bits).
const CEILING: u64 = 0x7fff_ffff_f000;
const FLOOR: u64 = 0x10_0000;

/// What a visit is to find out beyond the process's own state.
pub struct Asks<'a> {
    /// Children, by the pids that the process knows, of which it may not have heard that they stopped.
    pub stopped_children: &'a [i32],
    /// Those of which it has.
    pub told: &'a mut Vec<i32>,
    /// What judges its system calls.
    pub seccomp: Filters,
    /// What stands in the way.
    pub refusals: &'a mut Vec<Refusal>,
}

/// Asks inside a process what can't be seen from outside. None where that was refused: it wasn't entered.
///
/// # Errors
/// The process is as it was, or gone.
pub fn visit(
    process: &mut FrozenProcess,
    asks: &mut Asks<'_>,
    records: &mut Vec<Thread>,
    cleaned: &mut Vec<String>,
    watch: &dyn Watch,
) -> Result<Option<(Life, Inside)>> {
    let FrozenProcess { subject, threads, stopped_by } = process;
    let who = subject.who.clone();
    let pid = (subject.pid(), subject.own_pid);
    let read_areas = || maps::read(subject.door).doing("reading the memory map", Some(&who));
    let mut areas = read_areas()?;
    let mem = subject.mem.as_ref().ok_or_else(|| Error::Bug(format!("{who} is alive and has no memory")))?;
    let _pinned = Pinned::to(subject.stat.processor as usize);
    let candidates = candidates(&areas);
    let left = let_out_of(subject, threads, &areas)?;
    for left in &left {
        left.clear(mem.as_fd()).doing("removing what a bardo that died has left", Some(&who))?;
        cleaned.push(format!("{who}: code of a checkpoint that was killed"));
        // What came out has unmapped its memory by itself.
        areas = read_areas()?;
    }
    let place = Place::find(mem.as_fd(), &candidates).doing("finding room for the stub", Some(&who))?;
    let area = find_hole(&ranges(&areas), AREA_LEN as u64, FLOOR, CEILING)
        .doing("finding free addresses", Some(&who))?;

    let mut batch = Batch::new();
    for left in areas.iter().filter(|area| is_ours(area)) {
        batch.call(Sysno::munmap, [Arg::Value(left.start), Arg::Value(left.end - left.start)]);
        cleaned.push(format!("{who}: memory of a checkpoint that was killed"));
    }
    let timers = timers::read(subject.door).doing("reading timers", Some(&who))?;
    let mut leader_timers = OwnerAsked::before(&timers, &mut batch);
    // Filters may forbid to ask what there is no need to.
    let with_rare = asks.seccomp.survives(&ProcessAsked::rare());
    let has_policies = !asks.seccomp.any()
        || policy::may_have_any(subject.door).doing("looking for NUMA policies", Some(&who))?;
    let process_asked = ProcessAsked::ask(&mut batch, with_rare);
    let leader_asked = ThreadAsked::ask(&mut batch, has_policies);
    leader_timers.after(&mut batch);
    let stops: Vec<(i32, Arg)> =
        asks.stopped_children.iter().map(|child| (*child, ask_stop(*child, &mut batch))).collect();
    // The other threads' questions, and those about timers, are like these.
    let before = asks.refusals.len();
    let mut timers_like_those = TimersAsked::ask(&timers, AREA_LEN / 2);
    let mut policies = PoliciesAsked::default();
    if has_policies {
        // A batch may have a little less than half of the visit's memory.
        policies = PoliciesAsked::ask(&areas, AREA_LEN / 4);
    }
    let batches = std::iter::once(&batch)
        .chain(timers_like_those.batches().map(|batch| &*batch))
        .chain(policies.batches().map(|batch| &*batch));
    asks.seccomp.judge(subject, batches, asks.refusals);
    if asks.refusals.len() > before {
        return Ok(None);
    }
    show_steps(subject.pid(), &batch, watch);

    let leader = &mut threads[0];
    asks.seccomp.suspend(leader).doing("suspending seccomp filters", Some(&who))?;
    let held = leader.held.take().ok_or_else(|| lost(&who, leader.tid))?;
    // What it would do by itself, with bardo killed, has to wait until the kernel's own hold on it is there again.
    let careful = asks.seccomp.any() || stopped_by.is_some();
    let mut visit = Visit::enter(held, mem.as_fd(), subject.pidfd.as_fd(), place, area, careful)
        .doing("entering the process", Some(&who))?;
    visit.run(&mut batch).doing("asking inside the process", Some(&who))?;
    // The visit's own memory is a mapping like any other that comes later: what is locked of it tells of MCL_FUTURE.
    let locked = status::read(subject.door).doing("reading its status", Some(&who))?.vm_lck;
    let lock_future = if locked != subject.status.vm_lck || !cleaned.is_empty() {
        look_for_lock(subject.door, area).doing("looking whether its memory is locked", Some(&who))?
    } else {
        0
    };
    let mut others = Vec::new();
    for thread in &mut threads[1..] {
        let mut batch = Batch::new();
        let mut asked_timers = OwnerAsked::before(&timers, &mut batch);
        let asked = ThreadAsked::ask(&mut batch, has_policies);
        asked_timers.after(&mut batch);
        asks.seccomp.suspend(thread).doing("suspending seccomp filters", Some(&who))?;
        let held = thread.held.take().ok_or_else(|| lost(&who, thread.tid))?;
        let held = visit.run_in(held, &mut batch).doing("asking inside a thread", Some(&who))?;
        others.push((asked, asked_timers, batch));
        thread.held = Some(held);
    }
    let mut timers_asked = TimersAsked::ask(&timers, visit.room());
    for batch in timers_asked.batches() {
        visit.run(batch).doing("asking for timers", Some(&who))?;
    }
    let (policies, unclear) = {
        let asking = "asking for NUMA policies";
        for batch in policies.batches() {
            visit.run(batch).doing(asking, Some(&who))?;
        }
        let mut pages = policies.ask_pages(visit.room()).doing(asking, Some(&who))?;
        for batch in pages.batches() {
            visit.run(batch).doing(asking, Some(&who))?;
        }
        (policies.take(&pages), policies.unclear())
    };
    threads[0].held = Some(visit.leave().doing("leaving the process", Some(&who))?);

    let others = others.iter().map(|(asked, timers, batch)| (asked, timers, batch));
    let answers = std::iter::once((&leader_asked, &leader_timers, &batch)).chain(others);
    let first = records.len();
    let mut timer_owners = BTreeMap::new();
    for (thread, (asked, timers, batch)) in threads.iter().zip(answers) {
        let held = thread.held.as_ref().ok_or_else(|| lost(&who, thread.tid))?;
        let mut record = Thread::take(pid, held, thread.sleep.clone(), asked, batch)
            .doing("reading a thread's state", Some(&who))?;
        record.seccomp = asks.seccomp.of(thread.tid).cloned();
        for timer in timers.moved(batch) {
            // The leader is asked first, while the others stand still; later it may move beside them.
            timer_owners.entry(timer).or_insert(record.tid);
        }
        records.push(record);
    }
    let held = threads[0].held.as_ref().ok_or_else(|| lost(&who, threads[0].tid))?;
    let infos = held.thread.pending_signals(true).doing("reading pending signals", Some(&who))?;
    let pending = Pending::take(&infos, subject.status.shd_pnd);
    let own = |tid: i32| {
        let at = threads.iter().position(|thread| thread.tid == tid)?;
        records.get(first + at).map(|record| record.tid)
    };
    let queues = records[first..].iter().map(|record| &record.pending).chain([&pending]);
    let queued = queues.flat_map(Pending::timers).collect();
    let posix_timers = PosixTimers::take(&timers, &timers_asked, own, &timer_owners, &queued);
    for timer in posix_timers.0.iter().filter(|timer| posix_timer::is_of_caller(timer.clock)) {
        if threads.len() > 1 && timer.clock_thread.is_none() {
            asks.refusals.push(subject.refusal(
                "task/posix-timer",
                None,
                format!("timer {} is on the CPU time of the thread that made it, and isn't set", timer.id),
                "as long as it isn't set, the kernel doesn't tell which thread that is",
                "have the program name the thread's clock (pthread_getcpuclockid(3)), or set the timer",
            ));
        }
    }
    if let Some(span) = unclear {
        asks.refusals.push(subject.refusal(
            "memory/policy",
            None,
            format!("shared memory at {span} has more than one NUMA policy"),
            "the kernel tells them page by page only, and these are too many",
            "have the program set policies of shared memory where each is mapped by itself",
        ));
    }
    if process_asked.has_segments(&batch) {
        asks.refusals.push(subject.refusal(
            "task/segments",
            None,
            "it has a table of segments of its own (modify_ldt(2))",
            "segments aren't saved: 64-bit programs have no use for them",
            "checkpoint it before it sets them up",
        ));
    }
    let mut life = Life::take(subject, pending, posix_timers, &process_asked, &batch)
        .doing("reading the process's state", Some(&who))?;
    life.seccomp_filters = std::mem::take(&mut asks.seccomp.all);
    for (child, answer) in stops {
        // si_pid is set where there is news.
        if batch.output(answer, 20)[16..20] == [0; 4] {
            asks.told.push(child);
        }
    }
    let brk = process_asked.brk(&batch).doing("asking for the program break", Some(&who))?;
    Ok(Some((life, Inside { brk, lock_future, policies })))
}

/// Lets threads out of what a bardo that died has left in a process's memory: job control may have stopped one before it was out,
/// of a visit's stub, or of a restart's shelf. Whoever shares the memory has to be out before it is taken away.
///
/// # Errors
/// A thread is gone, or doesn't come out.
pub fn let_out(process: &mut FrozenProcess) -> Result<()> {
    let who = Some(&process.subject.who);
    let areas = maps::read(process.subject.door).doing("reading the memory map", who)?;
    let_out_of(&process.subject, &mut process.threads, &areas).map(drop)
}

/// The same; gives the stubs that are left.
fn let_out_of(subject: &Subject, threads: &mut [FrozenThread], areas: &[Area]) -> Result<Vec<Place>> {
    let who = &subject.who;
    let mem = subject.mem.as_ref().ok_or_else(|| Error::Bug(format!("{who} is alive and has no memory")))?;
    let left: Vec<Place> =
        candidates(areas).iter().filter_map(|c| Place::find_left(mem.as_fd(), *c)).collect();
    let stubs = left.iter().map(Place::range);
    let stubs = stubs.chain(areas.iter().filter(|area| is_ours(area)).map(|area| (area.start, area.end)));
    for stub in stubs {
        for thread in threads.iter_mut().filter(|thread| thread.is_in(stub)) {
            thread
                .run_out(subject.pid(), stub)
                .doing("letting a thread go on that a bardo that died has left", Some(who))?;
        }
    }
    Ok(left)
}

/// The MCL_ flags with which the visit's memory at `area` has been locked.
fn look_for_lock(pid: i32, area: u64) -> bardo_kernel::Result<u32> {
    let entries = smaps::read(pid)?;
    let ours = entries.iter().find(|entry| entry.area.start <= area && area < entry.area.end);
    let has = |flag| ours.is_some_and(|entry| entry.vm_flags.has(flag));
    Ok(match (has(VmFlag::Locked), has(VmFlag::LockOnFault)) {
        (false, _) => 0,
        (true, false) => libc::MCL_FUTURE as u32,
        (true, true) => (libc::MCL_FUTURE | libc::MCL_ONFAULT) as u32,
    })
}

/// What is mapped, as ranges in order.
fn ranges(areas: &[Area]) -> Vec<(u64, u64)> {
    areas.iter().map(|area| (area.start, area.end)).collect()
}

/// Where a visit's slots could go: the vdso first, then other executable mappings that can't be written to.
pub fn candidates(areas: &[Area]) -> Vec<Candidate> {
    let executable =
        |area: &&Area| area.perms.exec && !area.perms.write && !area.perms.shared && area.start < CEILING;
    let mut all: Vec<&Area> = areas.iter().filter(executable).collect();
    all.sort_by_key(|area| area.special != Some(Special::Vdso));
    all.iter().map(|area| Candidate { start: area.start, end: area.end }).collect()
}

/// Asks a parent whether there is news of a child's stop that it hasn't fetched (waitid(2), WNOWAIT).
fn ask_stop(child: i32, batch: &mut Batch) -> Arg {
    let info = batch.room_for(128);
    let options = libc::WSTOPPED | libc::WNOHANG | libc::WNOWAIT;
    let child = Arg::Value(child as u64);
    batch.attempt(Sysno::waitid, [Arg::Value(libc::P_PID.into()), child, info, Arg::Value(options as u64)]);
    info
}

/// The memory of a visit whose bardo died.
fn is_ours(area: &Area) -> bool {
    area.perms.shared && area.deleted && area.path == "/memfd:bardo"
}

fn lost(who: &Who, tid: i32) -> Error {
    Error::Failed(crate::error::Failure {
        doing: format!("looking for thread {tid}"),
        who: Some(who.clone()),
        call: Some(Failed { call: format!("thread {tid} is gone"), errno: bardo_kernel::Errno(libc::ESRCH) }),
        left: "the tree runs on; nothing was written".into(),
        remedy: None,
    })
}
