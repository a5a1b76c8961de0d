//! seccomp: filters that judge every system call of a thread (seccomp(2)).
//!
//! **In the kernel**: a chain of programs (classic BPF) that each thread inherits from whoever made it, and can only add to;
//! threads that inherited, or were told by SECCOMP_FILTER_FLAG_TSYNC, share their chain. Strict mode, the older kind, lets
//! a thread read, write, exit and return from signal handlers. Neither can be taken off again.
//!
//! **In the image**: with the process's record its programs, each once; with the thread's which of them are in force, oldest
//! first.
//!
//! **Taken how**: PTRACE_SECCOMP_GET_FILTER, and GET_METADATA for the LOG flag. bardo's own calls in such a thread must not be
//! judged: PTRACE_O_SUSPEND_SECCOMP sees to that as long as we live. If we are killed, the filters are in force again while
//! the thread still has some calls of ours before it. So every one of them is put to the filters beforehand, here: the
//! thread must survive it, and those that bring it back must be allowed. What doesn't pass is refused.
//!
//! **Put back how**: installed again, in the old order, while the thread still has the rights of the restarter, and suspended
//! until it goes. What all threads of a process have in common is theirs together again.
//!
//! **Not saved**: that filters of several processes are the same object (only memory tells); SECCOMP_FILTER_FLAG_SPEC_ALLOW,
//! whose effect is a speculation control. Refused: strict mode, for no thread under it gets back out of a visit by itself;
//! filters that may hand calls to another process (SECCOMP_RET_USER_NOTIF), for nothing shows who that is.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bardo_image::Blob;
use bardo_kernel::arch::Interrupted;
use bardo_kernel::bpf::{self, Verdict};
use bardo_kernel::procfs::{ns, status};
use bardo_kernel::stub::{Arg, Batch, Batches, OWN_CALLS, Own};
use bardo_kernel::{Failed, Sysno};
use serde::{Deserialize, Serialize};

use super::thread::Thread;
use crate::error::{Doing, Refusal, Result};
use crate::freeze::{self, Process};
use crate::subject::Subject;

/// A filter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Filter {
    /// Instructions of eight bytes (`struct sock_filter`).
    pub program: Blob,
    /// SECCOMP_FILTER_FLAG_LOG.
    #[serde(default)]
    pub log: bool,
}

/// What judges a thread: indices of its process's filters, the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Chain(pub Vec<u32>);

/// The filters of a frozen process and of its threads.
#[derive(Debug, Default)]
pub struct Filters {
    /// Each once.
    pub all: Vec<Filter>,
    chains: BTreeMap<i32, Chain>,
}

const CODE: &str = "task/seccomp";
const MODE_STRICT: u32 = 1;
const FLAG_TSYNC: u64 = 1;
const FLAG_LOG: u64 = 2;
const SET_MODE_FILTER: u64 = 1;
/// How long a chain can be: MAX_INSNS_PER_PATH (kernel/seccomp.c), four instructions being counted for each filter.
const CHAIN_MAX: usize = 32768 / 5;

impl Filters {
    /// Reads the filters of a process whose threads stand still.
    pub fn look(process: &Process, refusals: &mut Vec<Refusal>) -> Result<Filters> {
        let subject = &process.subject;
        let who = Some(&subject.who);
        let mut filters = Filters::default();
        let mut known = HashMap::new();
        for thread in &process.threads {
            let status =
                status::read_thread(subject.pid(), thread.tid).doing("reading a thread's status", who)?;
            let mode = status.seccomp.unwrap_or(0);
            if mode == 0 {
                continue;
            }
            let mut refuse = |what: String, why: &str, remedy: &str| {
                refusals.push(subject.refusal(CODE, None, what, why, remedy));
            };
            if mode == MODE_STRICT {
                refuse(
                    format!("thread {} is under seccomp's strict mode", thread.tid),
                    "if bardo were killed in the middle, the thread couldn't come back by itself: it may make no call for \
                     that",
                    "use a filter (seccomp(2)) that allows munmap, rt_sigprocmask and futex",
                );
                break;
            }
            let Some(held) = &thread.held else { continue };
            let mut chain = Chain::default();
            let wanted = status.seccomp_filters.map_or(usize::MAX, |n| n as usize);
            while chain.0.len() < wanted {
                let index = chain.0.len();
                let program = match held.thread.seccomp_filter(index) {
                    Ok(Some(program)) => program,
                    Ok(None) if wanted == usize::MAX && index > 0 => break,
                    Ok(None) => {
                        return Err(Failed::unexpected(format!("filter {index} of {wanted} isn't there")))
                            .doing("reading a thread's seccomp filters", who);
                    }
                    Err(e) if e.is(libc::EACCES) => {
                        refuse(
                            format!(
                                "thread {} is under seccomp, and bardo may not read its filters",
                                thread.tid
                            ),
                            "they have to be read, and suspended for bardo's own calls: that takes CAP_SYS_ADMIN, \
                             and a bardo that is under no filter itself",
                            "run bardo as root, outside the container",
                        );
                        return Ok(filters);
                    }
                    Err(e) => return Err(e).doing("reading a thread's seccomp filters", who),
                };
                let flags =
                    held.thread.seccomp_flags(index).doing("reading a thread's seccomp filters", who)?;
                if bpf::may_ask(&program) {
                    refuse(
                        format!(
                            "a filter of thread {} may leave calls to another process to answer",
                            thread.tid
                        ),
                        "nothing shows which process that is, and it couldn't be connected again \
                         (SECCOMP_RET_USER_NOTIF)",
                        "start the program without that filter",
                    );
                    return Ok(filters);
                }
                let filter = Filter { program: Blob(program), log: flags & FLAG_LOG != 0 };
                let at = *known.entry(filter).or_insert_with_key(|filter| {
                    filters.all.push(filter.clone());
                    filters.all.len() as u32 - 1
                });
                chain.0.push(at);
            }
            filters.chains.insert(thread.tid, chain);
        }
        Ok(filters)
    }

    /// Whether a thread has filters.
    pub fn any(&self) -> bool {
        !self.chains.is_empty()
    }

    /// A thread's filters.
    pub fn of(&self, tid: i32) -> Option<&Chain> {
        self.chains.get(&tid)
    }

    /// Has a thread's filters judge nothing as long as it is held.
    pub fn suspend(&self, thread: &freeze::Thread) -> bardo_kernel::Result<()> {
        match (&thread.held, self.of(thread.tid)) {
            (Some(held), Some(_)) => held.thread.suspend_seccomp(),
            _ => Ok(()),
        }
    }

    /// Whether every thread would survive these calls on its own.
    pub fn survives(&self, calls: &Batch) -> bool {
        let survives =
            |chain: &Chain, nr, args| self.verdict(chain, nr, args).is_some_and(|v| v.is_survived());
        self.chains.values().all(|chain| calls.calls().all(|(nr, args)| survives(chain, nr, args)))
    }

    /// Refuses where a thread would be worse off if it had to make one of these calls on its own.
    pub fn judge<'b>(
        &self,
        subject: &Subject,
        batches: impl Iterator<Item = &'b Batch>,
        refusals: &mut Vec<Refusal>,
    ) {
        if self.chains.is_empty() {
            return;
        }
        let mut calls: BTreeSet<(Sysno, [u64; 6], bool)> =
            OWN_CALLS.into_iter().map(|(nr, args, own)| (nr, args, own == Own::Needed)).collect();
        calls.extend(batches.flat_map(Batch::calls).map(|(nr, args)| (nr, args, false)));
        let mut seen = BTreeSet::new();
        for (tid, chain) in &self.chains {
            if !seen.insert(chain) {
                continue;
            }
            let mut bad: Vec<&str> = calls
                .iter()
                .filter(|(nr, args, needed)| {
                    let verdict = self.verdict(chain, *nr, *args);
                    !verdict.is_some_and(|v| if *needed { v == Verdict::Allow } else { v.is_survived() })
                })
                .map(|(nr, ..)| nr.name())
                .collect();
            bad.dedup();
            if !bad.is_empty() {
                refusals.push(subject.refusal(
                    CODE,
                    None,
                    format!("the seccomp filters of thread {tid} forbid {}", bad.join(", ")),
                    "bardo suspends the filters for its own calls, but if it were killed in the middle, the filters would \
                     end the program for one of these, or keep it from coming back",
                    "have the filter allow them, or answer with an error (SECCOMP_RET_ERRNO) where bardo can do without",
                ));
            }
        }
    }

    /// A call with a time that runs on is continued by restart_syscall(2) after any stop, and that is judged too: where it isn't
    /// allowed, the thread makes the call from its beginning instead.
    pub fn judge_continuation(
        &self,
        subject: &Subject,
        threads: &mut [freeze::Thread],
        refusals: &mut Vec<Refusal>,
    ) -> Result<()> {
        for thread in threads {
            let Some(chain) = self.of(thread.tid) else { continue };
            let Some(held) = thread.held.as_mut() else { continue };
            let again = match (&thread.sleep, held.registers.interrupted()) {
                (Some(sleep), Interrupted::No) if !held.registers.is_continuing() => {
                    let mut registers = held.registers;
                    registers.rax = sleep.call.number().id() as u64;
                    registers
                }
                (_, Interrupted::Block(_)) if !held.registers.is_continuing() => held.registers.again(),
                _ => continue,
            };
            if self.verdict(chain, Sysno::restart_syscall, [0; 6]) == Some(Verdict::Allow) {
                continue;
            }
            held.thread
                .set_registers(&again)
                .doing("having a thread make its call again", Some(&subject.who))?;
            held.registers = again;
            refusals.push(subject.refusal(
                CODE,
                None,
                format!("the seccomp filters of thread {} forbid restart_syscall", thread.tid),
                "it sleeps in a call with a time, and the kernel continues such a call by restart_syscall(2)",
                "have the filter allow restart_syscall, as libseccomp's users do",
            ));
        }
        Ok(())
    }

    fn verdict(&self, chain: &Chain, nr: Sysno, args: [u64; 6]) -> Option<Verdict> {
        let call = bpf::Call { nr: nr.id() as u32, args };
        let mut strictest = Verdict::Allow;
        for index in &chain.0 {
            strictest = strictest.min(bpf::answer(&self.all.get(*index as usize)?.program, &call)?);
        }
        Some(strictest)
    }
}

/// What keeps threads with filters from being made here.
pub fn check(threads: &[Thread]) -> Result<Option<Refusal>> {
    if threads.iter().all(|thread| thread.seccomp.is_none()) {
        return Ok(None);
    }
    const CAP_SYS_ADMIN: u32 = 21;
    /// PROC_USER_INIT_INO (include/linux/proc_ns.h): the first user namespace.
    const FIRST_USER_NAMESPACE: u64 = 0xefff_fffd;
    let me = std::process::id() as i32;
    let status = status::read(me).doing("reading our own capabilities", None)?;
    let user = ns::read(me).doing("reading our own namespaces", None)?;
    let first = user.get(ns::Kind::User).is_none_or(|inode| inode == FIRST_USER_NAMESPACE);
    if status.cap_eff & 1 << CAP_SYS_ADMIN != 0 && status.seccomp.unwrap_or(0) == 0 && first {
        return Ok(None);
    }
    Ok(Some(Refusal {
        who: None,
        fd: None,
        what: "the tree has seccomp filters, which would judge bardo's own calls".into(),
        code: CODE,
        why: "suspending them until the tree goes takes CAP_SYS_ADMIN, and a bardo that is under no filter itself".into(),
        remedy: "restart it as root, outside any container".into(),
    }))
}

/// The filters of a process, to be installed by its threads.
#[derive(Debug)]
pub struct Installation<'a> {
    filters: &'a [Filter],
    chains: Vec<Option<&'a Chain>>,
    common: usize,
}

impl<'a> Installation<'a> {
    /// Of these threads, the leader first. None where none has filters.
    ///
    /// # Errors
    /// The image names filters that it doesn't have.
    pub fn of(
        filters: &'a [Filter],
        threads: &[&'a Thread],
    ) -> bardo_kernel::Result<Option<Installation<'a>>> {
        let chains: Vec<Option<&Chain>> = threads.iter().map(|thread| thread.seccomp.as_ref()).collect();
        if chains.iter().all(Option::is_none) {
            return Ok(None);
        }
        for chain in chains.iter().flatten() {
            let fits = chain.0.iter().all(|index| (*index as usize) < filters.len());
            if !fits || chain.0.len() > CHAIN_MAX {
                return Err(Failed::unexpected("seccomp filters that the image doesn't have"));
            }
        }
        let nothing: &[u32] = &[];
        let first = chains[0].map_or(nothing, |chain| &chain.0);
        let alike = |other: &Option<&Chain>| {
            let other = other.map_or(nothing, |chain| &chain.0);
            first.iter().zip(other).take_while(|(a, b)| a == b).count()
        };
        let common = chains.iter().map(alike).min().unwrap_or(0);
        Ok(Some(Installation { filters, chains, common }))
    }

    /// Whether this thread has filters.
    pub fn concerns(&self, thread: usize) -> bool {
        self.chains.get(thread).is_some_and(Option::is_some)
    }

    /// What all threads have in common: for the leader, who tells the others.
    pub fn shared(&self, batches: &mut Batches) {
        let Some(Some(chain)) = self.chains.first() else { return };
        for index in &chain.0[..self.common] {
            self.install(*index, FLAG_TSYNC, batches);
        }
    }

    /// What a thread has on top of that.
    pub fn own(&self, thread: usize, batches: &mut Batches) {
        let Some(Some(chain)) = self.chains.get(thread) else { return };
        for index in &chain.0[self.common..] {
            self.install(*index, 0, batches);
        }
    }

    fn install(&self, index: u32, flags: u64, batches: &mut Batches) {
        let filter = &self.filters[index as usize];
        let batch = batches.with_room_for(filter.program.len() + 512);
        let program = batch.data(&filter.program);
        // struct sock_fprog {u16 len; struct sock_filter *filter}
        let mut head = [0u8; 16];
        head[..2].copy_from_slice(&((filter.program.len() / 8) as u16).to_ne_bytes());
        let head = batch.data(&head);
        batch.point(head, 8, program);
        let flags = flags | if filter.log { FLAG_LOG } else { 0 };
        // With TSYNC a positive result is the thread that couldn't be told.
        batch.call_for(Sysno::seccomp, [Arg::Value(SET_MODE_FILTER), Arg::Value(flags), head], 0);
    }
}
