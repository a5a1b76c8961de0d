//! What a restart is going to make, read from an image's records and checked before anything is made.

use std::collections::{BTreeMap, BTreeSet};

use bardo_image::Record;
use bardo_kernel::{procfs, ptrace};

use crate::error::{Error, Refusal, Result, Who};
use crate::family::adoption::Adoption;
use crate::family::{self, Birth, Births, Group};
use crate::resource::file::FilesImage;
use crate::resource::memory::MemoryImage;
use crate::resource::shared::SysvImage;
use crate::resource::task::clock::{self, Clocks};
use crate::resource::task::process::Process;
use crate::resource::task::thread::Thread;

/// No tree of a real machine is larger: PID_MAX_LIMIT (include/linux/threads.h).
const TASKS_MAX: usize = 1 << 22;

/// A thread's slot on the shelf.
#[derive(Debug, Clone, Copy)]
pub struct ThreadSlot {
    /// Its tid, as it sees itself.
    pub tid: i32,
    /// Its slot.
    pub slot: usize,
    /// Its record's index.
    pub record: usize,
}

/// A process to be made.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its index among processes and births.
    pub index: usize,
    /// Its pid, as it sees itself.
    pub pid: i32,
    /// Its name, for messages.
    pub name: String,
    /// Its parent's index.
    pub parent: Option<usize>,
    /// Whether it is born before its parent makes a session.
    pub early: bool,
    /// The signal its parent gets when it ends.
    pub exit_signal: u64,
    /// The adoption by which it comes to its parent.
    pub adopted: Option<usize>,
    /// The flags of clone(2) for what it shares with its parent.
    pub shares: u64,
    /// The id of its memory: the pid of the first process that has it.
    pub memory: u64,
    /// The slot of the parent's thread that makes it.
    pub parent_slot: usize,
    /// Its leader's slot.
    pub slot: usize,
    /// The exit status of a leader that ends once all that the process shares is back.
    pub leader_ended: Option<i32>,
    /// Its living threads, the leader first; none for a zombie.
    pub threads: Vec<ThreadSlot>,
}

impl Member {
    /// Whether it is the first who has its memory.
    pub fn owns_memory(&self) -> bool {
        self.memory == self.pid as u64
    }
}

/// A process that lives only while a group of a dead leader is put together.
#[derive(Debug, Clone, Copy)]
pub struct StandIn {
    /// The group, and its pid.
    pub group: i32,
    /// The index of the process that makes it.
    pub parent: usize,
    /// Its slot.
    pub slot: usize,
}

/// Everything a restart is going to make.
#[derive(Debug, Default)]
pub struct Plan {
    /// The records, parents first.
    pub processes: Vec<Process>,
    /// The records of threads.
    pub threads: Vec<Thread>,
    /// How each process is born.
    pub births: Vec<Birth>,
    /// The same with slots.
    pub members: Vec<Member>,
    /// Stand-ins for leaders of groups.
    pub stand_ins: Vec<StandIn>,
    /// Children who aren't made by their parents, each with the slot of the stand-in that makes them.
    pub adoptions: Vec<(Adoption, usize)>,
    /// What the tree's clocks showed; none: an older bardo made the image.
    pub clocks: Option<Clocks>,
    /// Files.
    pub files: FilesImage,
    /// Memory.
    pub memory: MemoryImage,
    /// IPC objects that must be there.
    pub sysv: SysvImage,
    slots: usize,
}

impl Plan {
    /// Takes a record of the image.
    ///
    /// # Errors
    /// [`Error::Image`]: it doesn't fit. [`Error::Unfit`]: its kind is unknown: a newer bardo wrote it.
    pub fn take(&mut self, record: &Record) -> Result<()> {
        match record.kind.as_str() {
            "task/process" => self.processes.push(record.read().map_err(Error::Image)?),
            "task/thread" => self.threads.push(record.read().map_err(Error::Image)?),
            clock::NAME => {
                if self.clocks.replace(Clocks::read(record)?).is_some() {
                    return Err(Error::Image(record.unexpected("the tree's clocks a second time")));
                }
            }
            kind => {
                if !self.files.take(record)? && !self.memory.take(record)? && !self.sysv.take(record)? {
                    return Err(Error::Unfit(vec![Refusal {
                        who: None,
                        fd: None,
                        what: format!("the image has a record of kind {kind}"),
                        code: "image/unknown-kind",
                        why: "this bardo doesn't know it, and leaving it out would lose something".into(),
                        remedy: "restart it with the bardo that wrote it, or a newer one".into(),
                    }]));
                }
            }
        }
        if self.processes.len() + self.threads.len() > TASKS_MAX {
            return Err(Error::Image(
                record.unexpected("more processes and threads than a machine can have"),
            ));
        }
        Ok(())
    }

    /// All records are there: works out births and slots.
    ///
    /// # Errors
    /// [`Error::Unfit`] where such a tree can't be made.
    pub fn complete(&mut self) -> Result<()> {
        let births = family::plan(&self.processes).map_err(|hindrances| {
            let unfit = |h: family::Hindrance| Refusal {
                who: self.processes.get(h.process).map(who_of),
                fd: None,
                what: h.what,
                code: h.code,
                why: h.why.into(),
                remedy: "the image doesn't describe a tree that can be made; make it again".into(),
            };
            Error::Unfit(hindrances.into_iter().map(unfit).collect())
        })?;
        let adoptions = self.put_in_order(births);
        let mut threads: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
        for (index, thread) in self.threads.iter().enumerate() {
            threads.entry(thread.pid).or_default().push(index);
        }
        let mut slots = 0;
        let mut slot = || {
            slots += 1;
            slots - 1
        };
        for birth in &self.births {
            let process = &self.processes[birth.process];
            let mut own = Vec::new();
            let leader_slot = slot();
            for &record in threads.get(&process.pid).map_or(&[][..], Vec::as_slice) {
                let tid = self.threads[record].tid;
                own.push(ThreadSlot {
                    tid,
                    slot: if tid == process.pid { leader_slot } else { slot() },
                    record,
                });
            }
            own.sort_by_key(|thread| thread.tid != process.pid);
            let broken = |what: &str| {
                Err(Error::Unfit(vec![Refusal {
                    who: Some(who_of(process)),
                    fd: None,
                    what: what.into(),
                    code: "task/process",
                    why: "the image contradicts itself".into(),
                    remedy: "`bardo verify` tells whether it was damaged".into(),
                }]))
            };
            let alive = process.ended.is_none();
            let leads = own.first().is_some_and(|thread| thread.tid == process.pid);
            let lives_on = process.leader_ended.is_some() && !leads && !own.is_empty();
            if alive != process.life.is_some() || alive != (leads != lives_on) {
                return broken("a process that is neither alive nor a zombie");
            }
            if !self.directories_fit(&own) {
                return broken("a thread that shares its working directory with none");
            }
            if process.pid < 2 || own.iter().any(|t| t.tid < 2) {
                return broken("a pid that can't be chosen");
            }
            let memory = process.memory_with.unwrap_or(process.pid) as u64;
            let has_space = |id: u64| self.memory.spaces().any(|space| space == id);
            if alive && !has_space(memory) {
                return broken("a process without memory");
            }
            if memory != process.pid as u64 && has_space(process.pid as u64) {
                return broken("a process with memory of its own and of another one");
            }
            let parent_slot = birth.parent.map_or(0, |parent| {
                let parent = self.members.get(parent);
                let thread = parent.and_then(|p| p.threads.iter().find(|t| t.tid == process.parent_thread));
                // It has come to that thread from one that ended: what it shares is the leader's.
                let own = |t: &&ThreadSlot| self.threads[t.record].directory.is_some();
                let thread = thread.filter(|t| birth.shares & libc::CLONE_FS as u64 == 0 || !own(t));
                thread.map_or(parent.map_or(0, |p| p.slot), |thread| thread.slot)
            });
            self.members.push(Member {
                parent_slot,
                index: birth.process,
                pid: process.pid,
                name: String::from_utf8_lossy(&process.name).into_owned(),
                parent: birth.parent,
                early: birth.early,
                adopted: birth.adopted,
                shares: birth.shares,
                memory,
                exit_signal: (process.exit_signal.max(0) as u64) & 0xff,
                slot: leader_slot,
                leader_ended: process.leader_ended,
                threads: own,
            });
        }
        for birth in &self.births {
            if let Group::Revive(group) = birth.group
                && self.stand_ins.iter().all(|s| s.group != group)
            {
                self.stand_ins.push(StandIn { group, parent: birth.process, slot: slot() });
            }
        }
        self.adoptions = adoptions.into_iter().map(|adoption| (adoption, slot())).collect();
        self.slots = slots;
        // Whoever is adopted inherits nothing from its parent.
        let parent = |member: &Member| member.parent.filter(|_| member.adopted.is_none());
        let memory = |index: usize| self.members[index].memory;
        let owners = self.members.iter().filter(|member| member.owns_memory());
        let family: Vec<(u64, Option<u64>)> =
            owners.map(|member| (member.memory, parent(member).map(memory))).collect();
        self.memory.settle_family(&family);
        Ok(())
    }

    /// Puts the processes into the order in which they are made, so that a birth has the index of its process.
    fn put_in_order(&mut self, births: Births) -> Vec<Adoption> {
        let Births { births, mut adoptions } = births;
        let mut place = vec![0; births.len()];
        for (at, birth) in births.iter().enumerate() {
            place[birth.process] = at;
        }
        self.processes = births.iter().map(|birth| self.processes[birth.process].clone()).collect();
        self.births = births
            .into_iter()
            .map(|birth| Birth {
                process: place[birth.process],
                parent: birth.parent.map(|parent| place[parent]),
                ..birth
            })
            .collect();
        for adoption in &mut adoptions {
            (adoption.maker, adoption.parent) = (place[adoption.maker], place[adoption.parent]);
            adoption.children.iter_mut().for_each(|child| *child = place[*child]);
        }
        adoptions
    }

    /// Whether each thread that doesn't share its working directory with the process's first does with one that has it made.
    fn directories_fit(&self, threads: &[ThreadSlot]) -> bool {
        let with = |thread: &ThreadSlot| self.threads[thread.record].directory.as_ref().map(|own| own.with);
        let makers: BTreeSet<i32> = threads
            .iter()
            .filter(|thread| with(thread) == Some(thread.tid))
            .map(|thread| thread.tid)
            .collect();
        threads.first().is_none_or(|first| with(first).is_none())
            && threads.iter().filter_map(with).all(|maker| makers.contains(&maker))
    }

    /// How many slots the shelf needs.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// The processes that aren't zombies.
    pub fn living(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| !member.threads.is_empty())
    }

    /// The first of those who have the same memory, for each.
    pub fn owners(&self) -> impl Iterator<Item = &Member> {
        self.living().filter(|member| member.owns_memory())
    }

    /// The pids of stand-ins, as far as they are chosen.
    pub fn stand_in_pids(&self) -> impl Iterator<Item = i32> + '_ {
        let sessions = self.adoptions.iter().filter(|(adoption, _)| adoption.revives);
        self.stand_ins.iter().map(|s| s.group).chain(sessions.map(|(adoption, _)| adoption.session))
    }

    /// The pids that are taken in our pid namespace, each with its holder.
    pub fn taken_pids(&self) -> Vec<Refusal> {
        let tids = self.members.iter().flat_map(|m| m.threads.iter().map(|t| t.tid));
        let pids = self.members.iter().map(|m| m.pid).chain(tids).chain(self.stand_in_pids());
        let mut pids: Vec<i32> = pids.collect();
        pids.sort_unstable();
        pids.dedup();
        // A session's number isn't looked for here: that takes a look at every process.
        let as_group = |pid: i32| ptrace::group_is_there(pid).then(|| taken_as_number(pid)).flatten();
        pids.into_iter().filter_map(|pid| taken(pid).or_else(|| as_group(pid))).collect()
    }
}

/// Who has this pid in our pid namespace, if somebody does.
pub fn taken(pid: i32) -> Option<Refusal> {
    let status = procfs::status::read(pid).ok()?;
    let holder = Who { pid, name: status.name.to_string_lossy().into_owned() };
    let zombie = status.is_dead();
    Some(Refusal {
        what: format!("pid {pid} is taken{}", if zombie { " by a zombie" } else { "" }),
        who: Some(holder),
        fd: None,
        code: "task/pid-taken",
        why: "processes know their own pids and each other's: they must be the same again".into(),
        remedy: if zombie {
            format!("its parent ({}) has to fetch its status, or --pid-space new", status.ppid)
        } else {
            "end it first (is it the original, still running?), or --pid-space new".into()
        },
    })
}

/// A pid that nobody has, and that is the number of others' process group or session: the kernel gives it to no process.
pub fn taken_as_number(pid: i32) -> Option<Refusal> {
    let mut all = procfs::processes().ok()?.into_iter().filter_map(|other| procfs::stat::read(other).ok());
    let holder = all.find(|stat| stat.pgrp == pid || stat.session == pid)?;
    let of = if holder.pgrp == pid { "process group" } else { "session" };
    Some(Refusal {
        what: format!("pid {pid} is taken: it is the number of this process's {of}"),
        who: Some(Who { pid: holder.pid, name: holder.comm.to_string_lossy().into_owned() }),
        fd: None,
        code: "task/pid-taken",
        why: "processes know their own pids and each other's: they must be the same again".into(),
        remedy: format!("end what is left of the {of} first, or --pid-space new"),
    })
}

fn who_of(process: &Process) -> Who {
    Who { pid: process.pid, name: String::from_utf8_lossy(&process.name).into_owned() }
}
