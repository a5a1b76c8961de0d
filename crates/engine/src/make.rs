//! Making a tree of processes out of an image's records, in the order of the restart flow.
//!
//! Every process and every thread is born into a slot of the shelf (`bardo_kernel::shelf`), where it does what we ask, one
//! batch after another. Until the commit, our death ends all of them.

mod adopt;
mod birth;
mod group;
mod leader;
mod thread;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Read;

use bardo_image::{Frame, Pages, Reader};
use bardo_kernel::arch::{Interrupted, Registers};
use bardo_kernel::mmap::find_hole;
use bardo_kernel::procfs::maps::{self, Special};
use bardo_kernel::procfs::syscall::{self, Syscall};
use bardo_kernel::procfs::{self, children, single, status};
use bardo_kernel::ptrace::{self, Pinned, Running, Stopped, Subreaper, Waited};
use bardo_kernel::remote::{self, Candidate, Held, Place};
use bardo_kernel::shelf::{CloneArgs, Layout, Shelf};
use bardo_kernel::stub::{Arg, Batch, Batches};
use bardo_kernel::time::{self, Patience};
use bardo_kernel::{Errno, Failed, Sysno, fs, way_out};

use crate::error::{Doing, Error, Result, Who};
use crate::plan::{Member, Plan};
use crate::resource::file::Pool;
use crate::resource::memory::{MemoryImage, Places, Site};
use crate::resource::task::limit::Limits;
use crate::resource::task::mm::Rules;
use crate::resource::task::posix_timer::PosixTimers;
use crate::resource::task::process::{Life, ProcessAsked};
use crate::resource::task::seccomp::Installation;
use crate::resource::task::signal::Pending;
use crate::resource::task::sleep::{Call, Sleep};
use crate::resource::task::thread::{Born as BornThread, Thread, ThreadAsked};
use crate::restart::Opened;
use crate::space::Space;
use crate::survey::show_steps;
use crate::watch::Watch;

/// How many bytes of steps a slot takes at once.
const ARENA: usize = 64 << 10;
const CEILING: u64 = 0x7fff_ffff_f000;
const FLOOR: u64 = 0x10_0000;

/// A tree under way.
pub struct Tree<'a> {
    plan: &'a Plan,
    space: &'a Space,
    shelf: Shelf,
    shared_at: u64,
    /// Each process's pid as we see it; 0 where it isn't made yet.
    pids: Vec<i32>,
    /// What a process was born with, before anything was put back.
    born: Option<Born>,
    watch: &'a dyn Watch,
    pinned: Option<Pinned>,
    /// Threads whose seccomp filters are suspended, by the tids we see.
    suspended: HashMap<i32, Running>,
    /// Threads that job control has stopped.
    stopped: Vec<Stopped>,
    /// All threads that job control has stopped, in our hands or not.
    stopped_tids: HashSet<i32>,
    committed: bool,
    /// What isn't as it was, where the restarter lacks a right.
    lessened: Vec<String>,
    /// While what was made may have to be buried.
    subreaper: Option<Subreaper>,
}

/// A thread that waits for the commit, and what it then gets.
struct Ready {
    slot: usize,
    running: Running,
    registers: Registers,
    mask: u64,
}

#[derive(Debug)]
struct Born {
    thread: BornThread,
    limits: Limits,
    rules: Rules,
}

impl<'a> Tree<'a> {
    /// Makes the first process of the plan.
    pub fn begin(
        plan: &'a Plan,
        memory: &MemoryImage,
        space: &'a Space,
        watch: &'a dyn Watch,
    ) -> Result<Tree<'a>> {
        let layout = Layout { slots: plan.slots(), arena: ARENA };
        let shared_len = memory.shared_len();
        let mut taken = memory.taken_ranges();
        let mine = maps::read(std::process::id() as i32).doing("reading our own memory map", None)?;
        taken.extend(mine.iter().map(|area| (area.start, area.end)));
        let base = find_hole(&taken, layout.len() as u64 + shared_len, FLOOR, CEILING)
            .doing("finding addresses that are free in every process", None)?;
        let cpu = procfs::stat::read(std::process::id() as i32).map_or(0, |stat| stat.processor);
        let pinned = Pinned::to(cpu as usize);
        let shelf = Shelf::build(base, layout).doing("building the shelf", None)?;
        let mut tree = Tree {
            plan,
            space,
            shelf,
            shared_at: base + layout.len() as u64,
            pids: vec![0; plan.births.len()],
            born: None,
            watch,
            pinned,
            suspended: HashMap::new(),
            stopped: Vec::new(),
            stopped_tids: HashSet::new(),
            committed: false,
            lessened: Vec::new(),
            subreaper: Some(Subreaper::begin().doing("adopting orphans of the restart", None)?),
        };
        tree.seed(memory)?;
        Ok(tree)
    }

    /// Makes all processes of the plan, with their pids, parents, sessions and groups. Where relatives had pages in common,
    /// each gets its memory's layout before it has children, and what they inherit: such pages come `next`.
    pub fn make<R: Read>(
        &mut self,
        memory: &MemoryImage,
        open: &Opened,
        next: &mut Option<Pages>,
        reader: &mut Reader<R>,
    ) -> Result<()> {
        for member in &self.plan.members {
            self.adopt(member)?;
            self.make_threads(member)?;
            if memory.hands_on() && !member.threads.is_empty() && member.owns_memory() {
                self.map(member, memory, open)?;
                self.hand_on(member, memory, open, next, reader)?;
            }
            self.make_children(member)?;
        }
        self.group()
    }

    /// The pid of the first process that has it, by the number of each memory in the image.
    fn spaces(&self) -> HashMap<u64, i32> {
        self.plan.owners().map(|m| (m.memory, self.pids[m.index])).collect()
    }

    /// Maps a process's memory.
    fn map(&self, member: &Member, memory: &MemoryImage, open: &Opened) -> Result<()> {
        let (base, len) = self.shelf.range();
        let keep = [(base, base + len)];
        let old =
            maps::read(self.pids[member.index]).doing("reading a memory map", Some(&self.who(member)))?;
        for mut batch in memory.map_steps(member.pid as u64, &open.mapped, self.site(), &old, &keep)? {
            self.run_leader(member, &mut batch, "mapping memory")?;
        }
        Ok(())
    }

    /// Gives a process the pages that its children inherit from it.
    fn hand_on<R: Read>(
        &self,
        member: &Member,
        memory: &MemoryImage,
        open: &Opened,
        next: &mut Option<Pages>,
        reader: &mut Reader<R>,
    ) -> Result<()> {
        let id = member.pid as u64;
        let pids = self.spaces();
        memory.copy_what_is_not_kept(id, &pids)?;
        let places = Places { pids, shared_pid: self.pids[0], shared_at: self.shared_at };
        while let Some(pages) = next.take_if(|pages| memory.is_handed_on_by(pages, id)) {
            memory.put_to_hand_on(&pages, id, &places, &open.mapped)?;
            reader.recycle(pages);
            *next = next_pages(reader)?;
        }
        Ok(())
    }

    /// The root's pid as we see it.
    pub fn root(&self) -> i32 {
        self.pids[0]
    }

    fn who(&self, member: &Member) -> Who {
        Who { pid: member.pid, name: member.name.clone() }
    }

    fn run(&self, slot: usize, pid: i32, batch: &mut Batch, doing: &str, who: &Who) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        show_steps(who.pid, batch, self.watch);
        let alive = || {
            if self.watch.cancelled() {
                return Err(Failed { call: "you asked to stop".into(), errno: Errno(libc::EINTR) });
            }
            match procfs::stat::read(pid) {
                Ok(stat)
                    if !matches!(stat.state, procfs::stat::State::Zombie | procfs::stat::State::Dead) =>
                {
                    Ok(())
                }
                _ => {
                    Err(Failed { call: format!("process {pid} ended in between"), errno: Errno(libc::ESRCH) })
                }
            }
        };
        self.shelf.run(slot, batch, alive).doing(doing, Some(who))
    }

    fn life(&self, member: &Member) -> Result<&'a Life> {
        let life = self.plan.processes[member.index].life.as_ref();
        life.ok_or_else(|| Error::Bug(format!("process {} is alive without a life", member.pid)))
    }

    fn run_leader(&self, member: &Member, batch: &mut Batch, doing: &str) -> Result<()> {
        self.run(member.slot, self.pids[member.index], batch, doing, &self.who(member))
    }

    /// The root: a fork of ours, emptied.
    fn seed(&mut self, memory: &MemoryImage) -> Result<()> {
        let root = &self.plan.members[0];
        let clone = CloneArgs { flags: 0, exit_signal: libc::SIGCHLD as u64, set_tid: vec![root.pid] };
        let who = self.who(root);
        let seeded = self.space.seed(&self.shelf, root.slot, &clone, &who);
        let pid = seeded.map_err(|error| self.taken_since(error, root.pid))?;
        self.pids[0] = pid;
        // Our libc registered an area for restartable sequences that is about to go.
        let running = Running::seize_for_life(pid).doing("tracing the first process", Some(&who))?;
        running.interrupt().doing("stopping the first process", Some(&who))?;
        let stopped = self.stopped(running, &who)?;
        let rseq = stopped.rseq().doing("looking at its restartable sequences", Some(&who))?;
        stopped.detach(0).doing("letting the first process go", Some(&who))?;

        let mut batch = Batch::new();
        if let Some(rseq) = rseq {
            const UNREGISTER: u64 = 1;
            let len = Arg::Value(u64::from(rseq.size));
            let signature = Arg::Value(u64::from(rseq.signature));
            batch.call(Sysno::rseq, [Arg::Value(rseq.address), len, Arg::Value(UNREGISTER), signature]);
        }
        for signal in (1..=64u64).filter(|s| *s != libc::SIGKILL as u64 && *s != libc::SIGSTOP as u64) {
            let default = batch.data(&[0; 32]);
            batch.call(Sysno::rt_sigaction, [Arg::Value(signal), default, Arg::Value(0), Arg::Value(8)]);
        }
        let mut stack = [0u8; 24];
        stack[8..12].copy_from_slice(&(libc::SS_DISABLE as u32).to_ne_bytes());
        let stack = batch.data(&stack);
        batch.call(Sysno::sigaltstack, [stack, Arg::Value(0)]);
        batch.call(Sysno::personality, [Arg::Value(0)]);
        Rules::take_off(&mut batch);
        let areas = maps::read(pid).doing("reading the first process's memory map", Some(&who))?;
        let (base, len) = self.shelf.range();
        batch.append(&MemoryImage::clear_steps(&areas, &[(base, base + len)]));
        batch.append(&memory.shared_steps(self.shared_at));
        self.run(root.slot, pid, &mut batch, "emptying the first process", &who)?;

        self.log_in(root, pid)?;

        let mut batch = Batch::new();
        let thread = ThreadAsked::ask(&mut batch, true);
        let process = ProcessAsked::ask(&mut batch, true);
        self.run(root.slot, pid, &mut batch, "looking at the first process", &who)?;
        self.born = Some(Born {
            thread: BornThread::take(pid, pid, &thread, &batch)
                .doing("looking at the first process", Some(&who))?,
            limits: Limits::take(pid).doing("reading its limits", Some(&who))?,
            rules: process.rules(&batch),
        });
        Ok(())
    }

    /// Gives the first process the login of the tree (`/proc/PID/loginuid`), which all others inherit. Only a process itself can
    /// change its own, and as a rule once in its life.
    fn log_in(&self, root: &Member, pid: i32) -> Result<()> {
        let who = self.who(root);
        let Some(login) = self.life(root)?.login else { return Ok(()) };
        let now = single::loginuid(pid).doing("reading a login", Some(&who))?;
        if now.is_none_or(|now| now == login) {
            return Ok(());
        }
        let mut batch = Batch::new();
        let path = batch.text(b"/proc/self/loginuid");
        let flags = Arg::Value((libc::O_WRONLY | libc::O_CLOEXEC) as u64);
        let opened = batch.attempt(Sysno::openat, [Arg::Value(libc::AT_FDCWD as u64), path, flags]);
        self.run(root.slot, pid, &mut batch, "opening a login", &who)?;
        let Ok(fd) = batch.result(opened) else { return Ok(()) };
        let mut batch = Batch::new();
        // (uid_t) −1 is nobody.
        let text = if login == u32::MAX { "-1".to_owned() } else { login.to_string() };
        let at = batch.text(text.as_bytes());
        batch.attempt(Sysno::write, [Arg::Value(fd), at, Arg::Value(text.len() as u64)]);
        batch.call(Sysno::close, [Arg::Value(fd)]);
        self.run(root.slot, pid, &mut batch, "setting a login", &who)
    }

    fn stopped(&self, running: Running, who: &Who) -> Result<Stopped> {
        match running.wait().doing("waiting for a stop", Some(who))? {
            Waited::Stopped(stopped) => Ok(stopped),
            _ => Err(Failed {
                call: format!("process {} ended in between", who.pid),
                errno: Errno(libc::ESRCH),
            })
            .doing("waiting for a stop", Some(who)),
        }
    }

    /// Every process makes its children: those of the session it was born into, then its own session, then the others.
    fn make_children(&mut self, member: &Member) -> Result<()> {
        let own = |child: &&Member| child.parent == Some(member.index) && child.adopted.is_none();
        let mut children: Vec<&Member> = self.plan.members.iter().filter(own).collect();
        // Those of one session and one thread side by side.
        children.sort_by_key(|child| (!child.early, child.parent_slot));
        let mut session_due = self.plan.births[member.index].leads_session;
        for some in children.chunk_by(|a, b| (a.early, a.parent_slot) == (b.early, b.parent_slot)) {
            if !some[0].early && session_due {
                self.make_session(member)?;
                session_due = false;
            }
            for some in some.chunks(100) {
                let (mut batch, mut births) = (Batch::new(), Vec::with_capacity(some.len()));
                for child in some {
                    let (flags, exit_signal) = (child.shares, child.exit_signal);
                    let clone = CloneArgs { flags, exit_signal, set_tid: vec![child.pid] };
                    births.push((batch.clone3(&clone, self.shelf.open(child.slot)), child.pid));
                }
                let at = (some[0].parent_slot, self.pids[member.index]);
                self.bear(at, &mut batch, &births, "making child processes", &self.who(member))?;
            }
        }
        if session_due {
            self.make_session(member)?;
        }
        self.find_children(member.index, &children)
    }

    fn make_session(&self, member: &Member) -> Result<()> {
        let mut batch = Batch::new();
        batch.call(Sysno::setsid, []);
        self.run_leader(member, &mut batch, "making a session")
    }

    /// The children's pids as we see them: their own, unless the tree is in a pid namespace of its own.
    fn find_children(&mut self, parent: usize, wanted: &[&Member]) -> Result<()> {
        if self.pids[0] == self.plan.members[0].pid {
            for child in wanted {
                self.pids[child.index] = child.pid;
            }
            return Ok(());
        }
        for seen in children::read(self.pids[parent]).doing("listing children", None)? {
            let own = status::read(seen).doing("reading a child's status", None)?.ns_pid.last().copied();
            if let Some(child) = wanted.iter().find(|child| Some(child.pid) == own) {
                self.pids[child.index] = seen;
            }
        }
        Ok(())
    }

    fn site(&self) -> Site {
        Site { shared_at: self.shared_at, may_set_exe: self.space.may_set_exe(), room: self.shelf.room() }
    }

    /// Every living process has its memory's layout, and nothing of its ancestors that isn't its own.
    pub fn build(&mut self, memory: &MemoryImage, open: &Opened) -> Result<()> {
        let room = self.shelf.room();
        for member in self.plan.owners() {
            let id = member.pid as u64;
            if !memory.hands_on() {
                self.map(member, memory, open)?;
            }
            for mut batch in memory.drop_steps(id, room).into_iter().chain(memory.huge_steps(id, room)?) {
                self.run_leader(member, &mut batch, "preparing memory")?;
            }
        }
        Ok(())
    }

    /// The pages, from the image to its seal.
    pub fn fill<R: Read>(
        &mut self,
        memory: &mut MemoryImage,
        open: &Opened,
        first: Option<Pages>,
        reader: &mut Reader<R>,
    ) -> Result<u64> {
        // Reading and writing go side by side: not on one processor.
        self.pinned = None;
        let places = Places { pids: self.spaces(), shared_pid: self.pids[0], shared_at: self.shared_at };
        let put = memory
            .put(first, reader, &places, &open.mapped, self.watch, |record| Err(late_record(&record)))?;
        open.mapped.settle()?;
        let cpu = procfs::stat::read(self.pids[0]).map_or(0, |stat| stat.processor);
        self.pinned = Pinned::to(cpu as usize);
        Ok(put)
    }

    /// Everything else that is done inside: descriptors, protections, threads, what the kernel keeps for each.
    pub fn furnish(&mut self, memory: &MemoryImage, open: &Opened) -> Result<()> {
        let born = self.born.as_ref().ok_or_else(|| Error::Bug("the tree has no root".into()))?;
        let (mut sessions, mut lessened) = (HashSet::new(), BTreeMap::new());
        for member in self.plan.owners() {
            for mut batch in memory.finish_steps(member.pid as u64, &open.mapped, self.site())? {
                self.run_leader(member, &mut batch, "finishing memory")?;
            }
        }
        for member in self.plan.living() {
            let life = self.life(member)?;
            // A table that is shared has been put together by the first who has it.
            if member.shares & libc::CLONE_FILES as u64 == 0 {
                for mut batch in self.plan.files.steps(member.pid, &open.pool, self.shelf.room()) {
                    self.run_leader(member, &mut batch, "putting descriptors in place")?;
                }
            }
            for batches in &mut self.plan.files.late_steps(member.pid, self.shelf.room()) {
                for batch in batches.iter_mut() {
                    self.run_leader(member, batch, "opening what only the process can")?;
                }
            }
            let here = |pid: i32| Some(self.pids[self.plan.living().find(|m| m.pid == pid)?.index]);
            for mut batch in self.plan.files.proc_steps(member.pid, &here)? {
                self.run_leader(member, &mut batch, "opening files of processes")?;
            }
            for mut batch in self.plan.files.lock_steps(member.pid, self.shelf.room()) {
                self.run_leader(member, &mut batch, "taking file locks again")?;
            }
            let mut batch = Batch::new();
            if !self.plan.files.has_cwd(member.pid) {
                life.put_cwd(&mut batch);
            }
            life.put(&born.rules, &mut batch);
            self.run_leader(member, &mut batch, "putting the process's state back")?;
            self.put_own_directories(member)?;
            if life.rules.merge && member.owns_memory() {
                for mut batch in memory.apart_steps(member.pid as u64, self.shelf.room())? {
                    self.run_leader(member, &mut batch, "putting the process's state back")?;
                }
            }
            let mut batch = Batch::new();
            life.limits.put(&born.limits, &mut batch);
            self.run_leader(member, &mut batch, "limiting its resources")?;
            self.make_timers(member, &life.posix_timers)?;
            let process = &self.plan.processes[member.index];
            let session = Some(process.session).filter(|_| !process.session_outside);
            let first_of_session = session.is_some_and(|session| sessions.insert(session));
            let who = self.who(member);
            let less = life
                .put_outside(self.pids[member.index], first_of_session)
                .doing("putting the process's state back", Some(&who))?;
            for less in less {
                lessened.entry(less).or_insert((who.clone(), 0)).1 += 1;
            }
        }
        let lines = lessened.into_iter().map(|(less, (who, count))| match count {
            1 => format!("{who}: {less}"),
            _ => format!("{who} and {} more: {less}", count - 1),
        });
        self.lessened = lines.collect();
        Ok(())
    }

    /// What isn't as it was.
    pub fn lessened(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lessened)
    }

    /// POSIX timers, under their old ids; not armed yet.
    fn make_timers(&self, member: &Member, timers: &PosixTimers) -> Result<()> {
        if timers.0.is_empty() {
            return Ok(());
        }
        let who = self.who(member);
        let mut batch = Batch::new();
        let choosing = PosixTimers::choose_ids(true, &mut batch);
        self.run_leader(member, &mut batch, "asking for timers with chosen ids")?;
        let chosen = batch.result(choosing).is_ok();
        for mut made in timers.make(chosen, self.shelf.room()).doing("making timers", Some(&who))? {
            let slot = made.thread.map_or(member.slot, |tid| thread::slot_of(member, tid));
            self.run(slot, self.pids[member.index], &mut made.batch, "making timers", &who)?;
            made.check().doing("making timers", Some(&who))?;
        }
        let mut batch = Batch::new();
        PosixTimers::choose_ids(false, &mut batch);
        self.run_leader(member, &mut batch, "making timers")
    }

    /// Zombies end; then each thread takes back what a change of credentials or the passing of time would spoil.
    pub fn finish(&mut self) -> Result<()> {
        let born = self.born.take().ok_or_else(|| Error::Bug("the tree has no root".into()))?;
        let ahead = self.space.ahead();
        for member in &self.plan.members {
            let Some(ended) = self.plan.processes[member.index].ended else { continue };
            let mut batch = Batch::new();
            let name = batch.text(&self.plan.processes[member.index].name);
            batch.call(Sysno::prctl, [Arg::Value(libc::PR_SET_NAME as u64), name]);
            if libc::WIFSIGNALED(ended) {
                // Its signal must not leave a core file behind.
                let none = batch.data(&[0; 16]);
                batch.call(Sysno::prlimit64, [Arg::Value(0), Arg::Value(u64::from(libc::RLIMIT_CORE)), none]);
                let signal = libc::WTERMSIG(ended);
                batch.call(Sysno::kill, [Arg::Value(member.pid as u64), Arg::Value(signal as u64)]);
                let open = batch.data(&[0; 8]);
                batch.call(Sysno::rt_sigprocmask, [Arg::Value(2), open, Arg::Value(0), Arg::Value(8)]);
            }
            batch.call(Sysno::exit_group, [Arg::Value(libc::WEXITSTATUS(ended) as u64)]);
            show_steps(member.pid, &batch, self.watch);
            self.shelf.post(member.slot, &batch).doing("ending a zombie", Some(&self.who(member)))?;
            self.wait_for_zombie(member)?;
        }
        // Children before their parents: what a parent hears of them now is not for the program.
        let living: Vec<&Member> = self.plan.living().collect();
        for member in living.into_iter().rev() {
            let pid = self.pids[member.index];
            let who = self.who(member);
            let life = self.life(member)?;
            let records = member.threads.iter().map(|thread| &self.plan.threads[thread.record].pending);
            let queued = records.chain([&life.pending]).flat_map(Pending::timers).collect();
            self.put_filters(member, life)?;
            self.prepare_end_of_leader(member, &born.thread)?;
            for (at, thread) in member.threads.iter().enumerate() {
                let record = &self.plan.threads[thread.record];
                let leader = at == 0;
                let mut batches = Batches::new(self.shelf.room());
                let batch = batches.with_room_for(0);
                record.put(&born.thread, batch);
                if leader {
                    // The zombies' and stand-ins' deaths were reported to us, not to the program.
                    self.fetch_stops(member, batch);
                    let (child, now) =
                        (batch.data(&(1u64 << (libc::SIGCHLD - 1)).to_ne_bytes()), batch.data(&[0; 16]));
                    batch.attempt(Sysno::rt_sigtimedwait, [child, Arg::Value(0), now, Arg::Value(8)]);
                }
                if record.parent_death_signal != 0 && member.index != 0 {
                    let signal = Arg::Value(u64::from(record.parent_death_signal));
                    batch.call(Sysno::prctl, [Arg::Value(libc::PR_SET_PDEATHSIG as u64), signal]);
                }
                life.posix_timers.put_overruns(thread.tid, leader, &queued, ahead, &mut batches);
                record.pending.put(member.pid, Some(thread.tid), &life.posix_timers, ahead, &mut batches);
                for batch in batches.iter_mut() {
                    self.run(thread.slot, pid, batch, "putting a thread's state back", &who)?;
                }
            }
            let mut batches = Batches::new(self.shelf.room());
            life.put_last(member.pid, &queued, ahead, &mut batches);
            for batch in batches.iter_mut() {
                self.run_leader(member, batch, "putting the last of a process back")?;
            }
            for batch in self.plan.files.owner_steps(member.pid, self.shelf.room()).iter_mut() {
                self.run_leader(member, batch, "saying who gets a file's signals")?;
            }
            self.end_leader(member)?;
            if let Some(signal) = self.plan.processes[member.index].stopped_by {
                self.stop_by_job_control(member, signal)?;
            }
        }
        Ok(())
    }

    /// Seccomp filters, while the threads still have our rights. From here on they are ours, so that nothing is judged.
    fn put_filters(&mut self, member: &Member, life: &Life) -> Result<()> {
        let who = self.who(member);
        let records: Vec<&Thread> = member.threads.iter().map(|t| &self.plan.threads[t.record]).collect();
        let installation = Installation::of(&life.seccomp_filters, &records)
            .doing("putting seccomp filters back", Some(&who))?;
        let Some(installation) = installation else { return Ok(()) };
        for (at, tid) in self.seen_tids(member)?.into_iter().enumerate() {
            if installation.concerns(at) {
                let running =
                    Running::seize_for_life_suspended(tid).doing("suspending seccomp filters", Some(&who))?;
                self.suspended.insert(tid, running);
            }
        }
        let mut batches = Batches::new(self.shelf.room());
        installation.shared(&mut batches);
        for batch in batches.iter_mut() {
            self.run_leader(member, batch, "putting seccomp filters back")?;
        }
        for (at, thread) in member.threads.iter().enumerate() {
            let mut batches = Batches::new(self.shelf.room());
            installation.own(at, &mut batches);
            for batch in batches.iter_mut() {
                self.run(thread.slot, self.pids[member.index], batch, "putting seccomp filters back", &who)?;
            }
        }
        Ok(())
    }

    /// A thread that is ours from here on, and dies with us.
    fn trace(&mut self, tid: i32, who: &Who) -> Result<Running> {
        match self.suspended.remove(&tid) {
            Some(running) => Ok(running),
            None => Running::seize_for_life(tid).doing("tracing a thread", Some(who)),
        }
    }

    /// Has a parent fetch the news of its children's stops that it had fetched already.
    fn fetch_stops(&self, parent: &Member, batch: &mut Batch) {
        for child in self.plan.members.iter().filter(|child| child.parent == Some(parent.index)) {
            let process = &self.plan.processes[child.index];
            if process.stopped_by.is_some() && process.stop_told {
                let options = Arg::Value((libc::WSTOPPED | libc::WNOHANG) as u64);
                let child = Arg::Value(child.pid as u64);
                batch.attempt(Sysno::waitid, [Arg::Value(libc::P_PID.into()), child, Arg::Value(0), options]);
            }
        }
    }

    /// Stops a process as job control does, while its threads are in the stub and ours.
    fn stop_by_job_control(&mut self, member: &Member, signal: i32) -> Result<()> {
        let who = self.who(member);
        let mut running = Vec::new();
        for tid in self.seen_tids(member)? {
            running.push(self.trace(tid, &who)?);
        }
        // Of the signals that stop, only SIGSTOP isn't blocked here; the thread that takes it is told another one.
        ptrace::kill(self.pids[member.index], libc::SIGSTOP).doing("stopping a process", Some(&who))?;
        let (mut stopped, mut signal) = (0, signal);
        while stopped < member.threads.len() {
            let mut still = Vec::new();
            for thread in running {
                match thread.poll().doing("waiting for a stop", Some(&who))? {
                    Waited::Still(thread) => still.push(thread),
                    Waited::Gone(_) => return Err(Error::Bug(format!("{who} ended while it was stopped"))),
                    Waited::Stopped(thread) => match thread.stop() {
                        ptrace::Stop::Group(_) => {
                            stopped += 1;
                            self.stopped_tids.insert(thread.tid());
                            self.stopped.push(thread);
                        }
                        ptrace::Stop::Signal(_) => {
                            // A blocked signal would be queued instead.
                            thread
                                .set_signal_mask(!(1 << (signal - 1)))
                                .doing("stopping a process", Some(&who))?;
                            // Its next stop tells what became of the signal, for that is dealt with first.
                            thread.interrupt_next().doing("stopping a process", Some(&who))?;
                            still.push(thread.resume(signal).doing("stopping a process", Some(&who))?);
                        }
                        // Nothing: a process of an orphaned group ignores the stops of a terminal. SIGSTOP stops it too.
                        _ => {
                            signal = libc::SIGSTOP;
                            still.push(thread.resume(0).doing("stopping a process", Some(&who))?);
                            ptrace::kill(self.pids[member.index], signal)
                                .doing("stopping a process", Some(&who))?;
                        }
                    },
                }
            }
            running = still;
            time::give_way();
        }
        Ok(())
    }

    fn wait_for_zombie(&self, member: &Member) -> Result<()> {
        let mut patience = Patience::of(30_000_000_000);
        while patience.wait() {
            match procfs::stat::read(self.pids[member.index]) {
                Ok(stat) if stat.state == procfs::stat::State::Zombie => return Ok(()),
                Ok(_) => {}
                Err(e) => return Err(e).doing("waiting for a zombie", Some(&self.who(member))),
            }
        }
        Err(Error::Bug(format!("process {} doesn't end", member.pid)))
    }

    /// Gives every thread its registers, commits, and lets the tree go. From the commit on it outlives us.
    pub fn go(mut self, pool: &Pool, stopped: bool) -> Result<()> {
        let mut all = Vec::new();
        for member in self.plan.living() {
            let who = self.who(member);
            let tids = self.seen_tids(member)?;
            for (thread, tid) in member.threads.iter().zip(tids) {
                let record = &self.plan.threads[thread.record];
                let early = self.stopped.iter().position(|thread| thread.tid() == tid);
                let thread_stopped = match early {
                    Some(at) => self.stopped.swap_remove(at),
                    None => {
                        let running = self.trace(tid, &who)?;
                        remote::to_interrupt_stop(running).doing("stopping a thread", Some(&who))?
                    }
                };
                let held =
                    self.prepare(thread.slot, thread_stopped, record, (self.pids[member.index], tid), &who)?;
                all.push((member, thread.slot, record.seccomp.is_some(), held));
            }
        }
        let job_stopped: Vec<i32> =
            self.pids.iter().copied().filter(|pid| self.stopped_tids.contains(pid)).collect();
        let guardian = if job_stopped.is_empty() {
            None
        } else {
            Some(self.shelf.guard(&job_stopped).doing("watching over stopped processes", None)?)
        };
        // Nobody dies with us any more by the kernel's hand, but still by the shelf's, or the guardian's.
        let mut ready = Vec::with_capacity(all.len());
        for (member, slot, suspended, (stopped, registers, mask)) in all {
            let who = self.who(member);
            self.shelf.set_return(slot, &registers.resumed(), mask);
            let outlive = if suspended { stopped.outlive_suspended() } else { stopped.outlive() };
            outlive.doing("letting a thread outlive us", Some(&who))?;
            let running = stopped.resume(0).doing("letting a thread wait", Some(&who))?;
            ready.push(Ready { slot, running, registers, mask });
        }
        self.plan.files.start(pool, self.space.ahead())?;
        // The tree's own orphans are none of ours.
        self.subreaper = None;
        self.shelf.commit();
        self.committed = true;
        drop(guardian);
        self.release(ready, stopped);
        Ok(())
    }

    /// After the commit nothing can fail any more: a thread that we can't set by hand goes to its registers by itself, and
    /// leaves the shelf mapped, for the next bardo to remove.
    fn release(&mut self, ready: Vec<Ready>, stopped: bool) {
        let mut ready = ready.into_iter();
        let mut held: Vec<Stopped> = Vec::new();
        let mut late: Vec<i32> = Vec::new();
        // Of each memory whoever unmaps the shelf, when nobody else is on it any more.
        let mut last: Vec<(&Member, Ready)> = Vec::new();
        // The memory of those who can't be taken off it.
        let mut keeps: HashSet<u64> = HashSet::new();
        for member in self.plan.living() {
            let first = member.threads[0].slot;
            for ready in ready.by_ref().take(member.threads.len()) {
                if member.owns_memory() && ready.slot == first {
                    last.push((member, ready));
                    continue;
                }
                let tid = ready.running.tid();
                let set = remote::to_interrupt_stop(ready.running).and_then(|thread| {
                    put_registers(&thread, &ready.registers, ready.mask)?;
                    held.push(thread);
                    Ok(())
                });
                if set.is_err() {
                    late.push(tid);
                    keeps.insert(member.memory);
                }
            }
        }
        for (member, ready) in last {
            let tid = ready.running.tid();
            let alone = !keeps.contains(&member.memory);
            let thread = remote::to_interrupt_stop(ready.running).ok().filter(|_| alone);
            match thread.map(|thread| self.take_off_the_shelf(member, thread, ready.registers, ready.mask)) {
                Some(Ok(thread)) => held.push(thread),
                _ => {
                    late.push(tid);
                    keeps.insert(member.memory);
                }
            }
        }
        for member in self.plan.living() {
            let pid = self.pids[member.index];
            if member.owns_memory() && keeps.contains(&member.memory) {
                self.watch.note(&format!(
                    "pid {pid} runs, and keeps a mapping of bardo's until it is checkpointed"
                ));
            }
            if stopped && self.plan.processes[member.index].stopped_by.is_none() {
                let stop = || ptrace::kill(pid, libc::SIGSTOP);
                // It fails where the process is gone.
                let _ = stop().or_else(|_| stop());
            }
        }
        // Those that job control has stopped first: their parents are to find them so.
        held.sort_by_key(|thread| !self.stopped_tids.contains(&thread.tid()));
        for thread in held {
            let tid = thread.tid();
            // A thread that was killed by now needs nothing.
            let _ = thread.detach(0);
            if self.stopped_tids.contains(&tid) {
                crate::freeze::settle(tid);
            }
        }
        for tid in &late {
            way_out::judge_again(*tid);
        }
        self.shelf.abandon();
        for tid in late {
            way_out::let_out(tid, self.shelf_range());
        }
    }

    /// From where to where the shelf lies.
    fn shelf_range(&self) -> (u64, u64) {
        let (base, len) = self.shelf.range();
        (base, base + len)
    }

    fn seen_tids(&self, member: &Member) -> Result<Vec<i32>> {
        let pid = self.pids[member.index];
        if pid == member.pid {
            return Ok(member.threads.iter().map(|t| t.tid).collect());
        }
        let who = self.who(member);
        let mut seen = std::collections::HashMap::new();
        for tid in procfs::threads(pid).doing("listing threads", Some(&who))? {
            let status = status::read_thread(pid, tid).doing("reading a thread's status", Some(&who))?;
            seen.insert(status.ns_pid.last().copied().unwrap_or(tid), tid);
        }
        let find = |thread: &crate::plan::ThreadSlot| {
            seen.get(&thread.tid)
                .copied()
                .ok_or_else(|| Error::Bug(format!("thread {} isn't there", thread.tid)))
        };
        member.threads.iter().map(find).collect()
    }

    /// Extended state, and the call with a time that runs on; then the thread stands in a stop, in its slot.
    fn prepare(
        &self,
        slot: usize,
        thread: Stopped,
        record: &Thread,
        (pid, tid): (i32, i32),
        who: &Who,
    ) -> Result<(Stopped, Registers, u64)> {
        let mut registers = record.registers().doing("reading its registers from the image", Some(who))?;
        let mut thread = thread;
        thread.set_xstate(&record.xstate).doing("setting its extended registers", Some(who))?;
        // The rest comes from the slot, if need be without us.
        thread
            .registers()
            .and_then(|now| thread.set_registers(&now.based_as(&registers)))
            .doing("setting the bases of its segments", Some(who))?;
        match &record.sleep {
            None => {}
            // It has no end, or one that its arguments tell: the kernel makes it again, or returns EINTR for a signal.
            Some(sleep) if sleep.remaining_ns.is_none() => {
                registers = registers.interrupted_in(sleep.call.number())
            }
            Some(sleep) => {
                let now_ns = self.space.ahead().theirs(libc::CLOCK_MONOTONIC, time::monotonic_ns());
                let end_ns = now_ns.saturating_add(sleep.remaining_ns.unwrap_or(0));
                let (stopped, result) = self
                    .fall_asleep(slot, thread, sleep, &registers, (pid, tid))
                    .doing("letting a call go on with the time that remained", Some(who))?;
                thread = stopped;
                registers = match result {
                    None => Registers {
                        rax: u64::from(Sleep::mark_of(sleep.call, Some(end_ns))) << 32 | 219,
                        ..registers
                    },
                    Some(value) => registers.after_call(value),
                };
            }
        }
        Ok((thread, registers, record.mask))
    }

    /// Has a thread make its call with the time that remains, and stops it in it: the kernel then knows until when.
    /// Gives what the call returned, if it was over at once.
    fn fall_asleep(
        &self,
        slot: usize,
        thread: Stopped,
        sleep: &Sleep,
        registers: &Registers,
        (pid, tid): (i32, i32),
    ) -> bardo_kernel::Result<(Stopped, Option<u64>)> {
        let mut batch = Batch::new();
        let remaining_ns = sleep.remaining_ns.unwrap_or(0);
        let mut args = registers.arguments().map(Arg::Value);
        let time: Vec<u8> = [remaining_ns / 1_000_000_000, remaining_ns % 1_000_000_000]
            .iter()
            .flat_map(|w| w.to_ne_bytes())
            .collect();
        let time = batch.data(&time);
        match sleep.call {
            Call::Nanosleep => args[0] = time,
            Call::ClockNanosleep => args[2] = time,
            Call::Poll => args[2] = Arg::Value(remaining_ns.div_ceil(1_000_000).min(i32::MAX as u64)),
            Call::Futex => args[3] = time,
        }
        let nr = sleep.call.number();
        let step = batch.attempt(nr, args);
        let mut running = thread.resume(0)?;
        self.shelf.post(slot, &batch)?;
        loop {
            // In the call, or over it.
            for turn in 0u64.. {
                match syscall::read_thread(pid, tid)? {
                    Syscall::Inside { nr: now, .. } if now == nr.id() as u64 => break,
                    _ if self.shelf.is_done(slot) => break,
                    _ if turn < 3 => time::give_way(),
                    _ => time::sleep_ns(20_000 * turn.min(50)),
                }
            }
            let thread = remote::to_interrupt_stop(running)?;
            if self.shelf.is_done(slot) {
                self.shelf.finish(slot, &mut batch, || Ok(()))?;
                // An error number is what the call returned, too.
                let value = match batch.result(step) {
                    Ok(value) => value,
                    Err(e) => (-i64::from(e.errno.0)) as u64,
                };
                return Ok((thread, Some(value)));
            }
            let now = thread.registers()?;
            match now.interrupted() {
                Interrupted::Block(_) if now.call() == Some(nr.id() as u64) => {
                    self.shelf.cancel(slot);
                    thread.set_registers(&now.at(self.shelf.entry(slot)))?;
                    return Ok((thread, None));
                }
                _ => running = thread.resume(0)?,
            }
        }
    }

    /// Unmaps the shelf from a process, whose other threads have left it, and sets its leader's registers.
    fn take_off_the_shelf(
        &self,
        member: &Member,
        thread: Stopped,
        registers: Registers,
        mask: u64,
    ) -> Result<Stopped> {
        let who = self.who(member);
        // The process's own directory in /proc shows nothing where its leader has ended.
        let pid = thread.tid();
        let areas = maps::read(pid).doing("reading a memory map", Some(&who))?;
        let mem =
            fs::open(&procfs::path(pid, "mem"), libc::O_RDWR, 0).doing("opening its memory", Some(&who))?;
        let candidates = crate::visit::candidates(&areas);
        let shelf = self.shelf.range();
        let candidates: Vec<Candidate> =
            candidates.into_iter().filter(|c| c.end <= shelf.0 || c.start >= shelf.0 + shelf.1).collect();
        use std::os::fd::AsFd;
        let place = Place::find(mem.as_fd(), &candidates).doing("finding room for the stub", Some(&who))?;
        let held: Held = remote::unmap_and_set(thread, mem.as_fd(), place, shelf, registers, mask)
            .doing("taking the shelf away", Some(&who))?;
        Ok(held.thread)
    }
}

/// The next frame of pages; none at the image's end.
fn next_pages<R: Read>(reader: &mut Reader<R>) -> Result<Option<Pages>> {
    match reader.next().map_err(Error::Image)? {
        Some(Frame::Pages(pages)) => Ok(Some(pages)),
        Some(Frame::Record(record)) => Err(late_record(&record)),
        None => Ok(None),
    }
}

fn late_record(record: &bardo_image::Record) -> Error {
    Error::Image(record.unexpected("a record after the first page"))
}

/// Whether this area is one of the kernel's own.
pub fn is_kernels(area: &maps::Area) -> bool {
    matches!(area.special, Some(Special::Vdso | Special::Vvar | Special::VvarVclock | Special::Vsyscall))
}

fn put_registers(thread: &Stopped, registers: &Registers, mask: u64) -> bardo_kernel::Result<()> {
    thread.set_signal_mask(mask)?;
    thread.set_registers(registers)
}

impl Drop for Tree<'_> {
    fn drop(&mut self) {
        if self.committed {
            return;
        }
        // Everything that was made ends: the stub by the shelf, what is held in a stop by a signal.
        self.shelf.abandon();
        for pid in self.pids.iter().filter(|pid| **pid > 1) {
            let _ = ptrace::kill(*pid, libc::SIGKILL);
        }
        if !self.space.is_new() {
            self.bury();
        }
    }
}

impl Tree<'_> {
    /// Waits until nothing is left of what was made, and fetches the ends of all of it: a batch that failed may have made
    /// processes that we were never told of. Orphans of ours come to us meanwhile ([`ptrace::Subreaper`]).
    fn bury(&self) {
        const PATIENCE_NS: u64 = 10_000_000_000;
        let begun_ns = time::monotonic_ns();
        let me = std::process::id() as i32;
        let tids = self.plan.members.iter().flat_map(|m| m.threads.iter().map(|t| t.tid));
        let pids = self.plan.members.iter().map(|m| m.pid);
        let mut left: Vec<i32> = pids.chain(self.plan.stand_in_pids()).chain(tids).collect();
        left.sort_unstable();
        left.dedup();
        while time::monotonic_ns().saturating_sub(begun_ns) < PATIENCE_NS {
            left.retain(|pid| {
                if !descends(*pid, me) {
                    return false;
                }
                let _ = ptrace::kill(*pid, libc::SIGKILL);
                let _ = ptrace::reap(*pid, libc::__WALL | libc::WNOHANG);
                true
            });
            if left.is_empty() {
                return;
            }
            time::sleep_ns(500_000);
        }
    }
}

/// Whether a process is below another one; a thread is where its process is.
fn descends(pid: i32, from: i32) -> bool {
    let mut at = pid;
    // A parent's pid may be reused while we climb: a circle ends by its length.
    for _ in 0..1 << 16 {
        match procfs::stat::read(at).or_else(|_| procfs::stat::read(at)) {
            Ok(stat) if stat.ppid == from => return true,
            Ok(stat) if stat.ppid > 1 => at = stat.ppid,
            _ => return false,
        }
    }
    false
}
