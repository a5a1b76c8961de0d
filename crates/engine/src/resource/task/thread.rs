//! A thread: registers, extended state, and what the kernel keeps for it alone (clone(2), ptrace(2), prctl(2)).
//!
//! **In the kernel**: a task with registers, a signal mask and queue, an alternate stack, a name, a scheduling state,
//! credentials, and three addresses that it gave the kernel: the robust futex list (set_robust_list(2)), the word to
//! clear when it ends (set_tid_address(2)) and the restartable sequences area (rseq(2)).
//!
//! **In the image**: one record a thread, `task/thread`, its id the tid as the thread sees it.
//!
//! **Taken how**: registers, mask, queue and rseq by ptrace; robust list by get_robust_list(2); the rest by calls inside
//! or from `/proc`. Debug registers are left out: only a tracer sets them, and a traced process is refused.
//!
//! **Put back how**: clone3(2) with the old tid, calls inside for what the kernel keeps, then by ptrace in a stop.
//!
//! **Not saved**: CPU time used so far; who may trace it beside its ancestors (PR_SET_PTRACER), of which nothing tells.

use bardo_image::Blob;
use bardo_kernel::arch::{self, Registers};
use bardo_kernel::procfs::{self, single, stat, status};
use bardo_kernel::ptrace::{self, Rseq};
use bardo_kernel::remote::Held;
use bardo_kernel::stub::{Arg, Batch, StepId};
use bardo_kernel::{Failed, Sysno};
use serde::{Deserialize, Serialize};

use super::credential::{Credentials, CredentialsAsked};
use super::numa::{MemoryPolicy, MemoryPolicyAsked};
use super::own_directory::OwnDirectory;
use super::process::{ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA};
use super::processor::{Processor, ProcessorAsked};
use super::schedule::Schedule;
use super::seccomp::Chain;
use super::signal::{AltStack, Pending, answer, words};
use super::sleep::Sleep;
use crate::error::{Refusal, Who};

const PR_GET_TID_ADDRESS: u64 = 40;
const PR_SET_IO_FLUSHER: u64 = 57;
const PR_MCE_KILL: u64 = 33;
const PR_MCE_KILL_SET: u64 = 1;
const PR_MCE_KILL_GET: u64 = 34;
const MACHINE_CHECK_DEFAULT: u32 = 2;

fn default_machine_check() -> u32 {
    MACHINE_CHECK_DEFAULT
}

/// The record of a thread.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Thread {
    /// Its process's pid, as it sees itself.
    pub pid: i32,
    /// Its tid, as it sees itself.
    pub tid: i32,
    /// `/proc/…/comm`.
    pub name: Blob,
    /// `struct user_regs_struct` as 27 words (PTRACE_GETREGSET, NT_PRSTATUS).
    pub registers: Vec<u64>,
    /// The XSAVE area, not compacted (PTRACE_GETREGSET, NT_X86_XSTATE).
    pub xstate: Blob,
    /// The signal mask (PTRACE_GETSIGMASK).
    pub mask: u64,
    /// sigaltstack(2).
    pub altstack: AltStack,
    /// {address, length, signature} (PTRACE_GET_RSEQ_CONFIGURATION).
    #[serde(default)]
    pub rseq: Option<[u64; 3]>,
    /// {head, length} (get_robust_list(2)).
    pub robust_list: [u64; 2],
    /// PR_GET_TID_ADDRESS.
    pub clear_child_tid: u64,
    /// The thread's own queue of signals.
    pub pending: Pending,
    /// How it is scheduled.
    pub schedule: Schedule,
    /// Its credentials.
    pub credentials: Credentials,
    /// PR_GET_PDEATHSIG.
    #[serde(default)]
    pub parent_death_signal: u32,
    /// PR_MCE_KILL_GET: when memory errors are told; 2, the system's way, unless it was set.
    #[serde(default = "default_machine_check")]
    pub machine_check: u32,
    /// personality(2); none in images that tell one of the process alone.
    #[serde(default)]
    pub personality: Option<u32>,
    /// What it may do with the processor.
    #[serde(default)]
    pub processor: Processor,
    /// Where its memory goes.
    #[serde(default)]
    pub memory_policy: MemoryPolicy,
    /// PR_SET_IO_FLUSHER: it takes part in writing memory out, and doesn't wait for that itself.
    #[serde(default)]
    pub io_flusher: bool,
    /// The call with a time that runs on that it is in.
    #[serde(default)]
    pub sleep: Option<Sleep>,
    /// What judges its system calls; none: nothing.
    #[serde(default)]
    pub seccomp: Option<Chain>,
    /// Its own working directory and umask; none: those of the process's first thread.
    #[serde(default)]
    pub directory: Option<OwnDirectory>,
}

/// The questions that are put inside a thread.
#[derive(Debug)]
pub struct ThreadAsked {
    altstack: Arg,
    tid_address: Arg,
    tid_address_step: StepId,
    parent_death: Arg,
    timer_slack: StepId,
    credentials: CredentialsAsked,
    machine_check: StepId,
    processor: ProcessorAsked,
    /// None: it wasn't asked for.
    memory_policy: Option<MemoryPolicyAsked>,
}

impl ThreadAsked {
    /// Adds the questions to a batch.
    pub fn ask(batch: &mut Batch, with_policy: bool) -> ThreadAsked {
        let altstack = AltStack::ask(batch);
        let tid_address = batch.room_for(8);
        let tid_address_step = batch.attempt(Sysno::prctl, [Arg::Value(PR_GET_TID_ADDRESS), tid_address]);
        let parent_death = batch.room_for(8);
        batch.call(Sysno::prctl, [Arg::Value(libc::PR_GET_PDEATHSIG as u64), parent_death]);
        let timer_slack = batch.attempt(Sysno::prctl, [Arg::Value(libc::PR_GET_TIMERSLACK as u64)]);
        let credentials = Credentials::ask(batch);
        let zero = Arg::Value(0);
        let machine_check =
            batch.attempt(Sysno::prctl, [Arg::Value(PR_MCE_KILL_GET), zero, zero, zero, zero]);
        let processor = Processor::ask(batch);
        let memory_policy = with_policy.then(|| MemoryPolicy::ask(batch));
        ThreadAsked {
            machine_check,
            processor,
            memory_policy,
            altstack,
            tid_address,
            tid_address_step,
            parent_death,
            timer_slack,
            credentials,
        }
    }
}

impl Thread {
    /// The record of a stopped thread, whose answers are in `batch`.
    pub fn take(
        pid: (i32, i32),
        held: &Held,
        sleep: Option<Sleep>,
        asked: &ThreadAsked,
        batch: &Batch,
    ) -> bardo_kernel::Result<Thread> {
        let (pid, own_pid) = pid;
        let tid = held.thread.tid();
        let status = status::read_thread(pid, tid)?;
        let rseq = held.thread.rseq()?;
        let (head, len) = ptrace::robust_list(tid)?;
        // Only a kernel with CONFIG_CHECKPOINT_RESTORE tells the address.
        batch.result(asked.tid_address_step)?;
        let stat = stat::read_thread(pid, tid)?;
        Ok(Thread {
            pid: own_pid,
            tid: status.ns_pid.last().copied().unwrap_or(tid),
            name: Blob(std::os::unix::ffi::OsStringExt::into_vec(single::comm_thread(pid, tid)?)),
            registers: held.registers.to_words().to_vec(),
            xstate: Blob(held.thread.xstate()?),
            mask: held.mask,
            altstack: AltStack::take(asked.altstack, batch),
            rseq: rseq.map(|r: Rseq| [r.address, u64::from(r.size), u64::from(r.signature)]),
            robust_list: [head, len],
            clear_child_tid: words(batch.output(asked.tid_address, 8))[0],
            pending: Pending::take(&held.thread.pending_signals(false)?, status.sig_pnd),
            schedule: Schedule::take(&stat, tid, answer(batch, asked.timer_slack, 50_000))?,
            credentials: Credentials::take(&status, Some((&asked.credentials, batch))),
            parent_death_signal: words(batch.output(asked.parent_death, 8))[0] as u32,
            machine_check: answer(batch, asked.machine_check, u64::from(MACHINE_CHECK_DEFAULT)) as u32,
            personality: Some(single::personality_thread(pid, tid)?),
            processor: Processor::take(&asked.processor, batch),
            memory_policy: asked
                .memory_policy
                .as_ref()
                .map_or_else(MemoryPolicy::default, |asked| MemoryPolicy::take(asked, batch)),
            io_flusher: flushes(&stat),
            sleep,
            seccomp: None,
            directory: None,
        })
    }

    /// Its registers.
    ///
    /// # Errors
    /// Where the image holds another number of them.
    pub fn registers(&self) -> Result<Registers, Failed> {
        Registers::from_words(&self.registers).ok_or_else(|| {
            Failed::unexpected(format!("{} registers of thread {}", self.registers.len(), self.tid))
        })
    }

    /// Puts back, inside the thread, what the kernel keeps for it alone. `now`: what it was born with.
    pub fn put(&self, now: &Born, batch: &mut Batch) {
        let name = batch.text(&self.name);
        batch.call(Sysno::prctl, [Arg::Value(libc::PR_SET_NAME as u64), name]);
        self.altstack.put(batch);
        if arch::holds_tiles(&self.xstate) {
            let (zero, tiles) = (Arg::Value(0), Arg::Value(XFEATURE_XTILE_DATA));
            let (ask, one) = (Arg::Value(ARCH_REQ_XCOMP_PERM), batch.data(&arch::ONE_TILE));
            batch.call(Sysno::arch_prctl, [ask, tiles, zero, zero, one, Arg::Value(arch::TOUCH_TILES)]);
        }
        if self.robust_list[0] != 0 {
            batch.call(Sysno::set_robust_list, self.robust_list.map(Arg::Value));
        }
        batch.call(Sysno::set_tid_address, [Arg::Value(self.clear_child_tid)]);
        if let Some([address, len, signature]) = self.rseq {
            batch.call(
                Sysno::rseq,
                [Arg::Value(address), Arg::Value(len), Arg::Value(0), Arg::Value(signature)],
            );
        }
        if self.machine_check != now.machine_check {
            let (zero, policy) = (Arg::Value(0), Arg::Value(u64::from(self.machine_check)));
            batch.call(
                Sysno::prctl,
                [Arg::Value(PR_MCE_KILL), Arg::Value(PR_MCE_KILL_SET), policy, zero, zero],
            );
        }
        self.memory_policy.put(&now.memory_policy, batch);
        self.processor.put(&now.processor, batch);
        self.schedule.put(&now.schedule, batch);
        if self.io_flusher != now.io_flusher {
            let flusher = [PR_SET_IO_FLUSHER, u64::from(self.io_flusher), 0, 0, 0];
            batch.call(Sysno::prctl, flusher.map(Arg::Value));
        }
        // READ_IMPLIES_EXEC counts for every mapping from then on: none is made any more.
        if let Some(personality) = self.personality {
            batch.call(Sysno::personality, [Arg::Value(u64::from(personality))]);
        }
        self.credentials.put(&now.credentials, batch);
    }
}

/// What a thread is born with, as far as [`Thread::put`] compares with it: what its maker has, in the end the restarter.
#[derive(Debug)]
pub struct Born {
    schedule: Schedule,
    credentials: Credentials,
    machine_check: u32,
    processor: Processor,
    memory_policy: MemoryPolicy,
    io_flusher: bool,
}

impl Born {
    /// What a thread has, whose answers are in `batch`.
    pub fn take(pid: i32, tid: i32, asked: &ThreadAsked, batch: &Batch) -> bardo_kernel::Result<Born> {
        let status = status::read_thread(pid, tid)?;
        let stat = stat::read_thread(pid, tid)?;
        Ok(Born {
            schedule: Schedule::take(&stat, tid, answer(batch, asked.timer_slack, 50_000))?,
            credentials: Credentials::take(&status, Some((&asked.credentials, batch))),
            machine_check: answer(batch, asked.machine_check, u64::from(MACHINE_CHECK_DEFAULT)) as u32,
            processor: Processor::take(&asked.processor, batch),
            memory_policy: asked
                .memory_policy
                .as_ref()
                .map_or_else(MemoryPolicy::default, |asked| MemoryPolicy::take(asked, batch)),
            io_flusher: flushes(&stat),
        })
    }
}

impl Born {
    /// Its credentials.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }
}

/// Whether it has PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE (include/linux/sched.h), which PR_SET_IO_FLUSHER sets: to ask by
/// PR_GET_IO_FLUSHER needs CAP_SYS_RESOURCE.
fn flushes(stat: &stat::Stat) -> bool {
    const FLUSHER: u64 = 0x0008_0000 | 0x0010_0000;
    stat.flags & FLUSHER == FLUSHER
}

/// Threads that the restarter may not make flushers of I/O.
pub fn check_flushers(threads: &[Thread], capabilities: u64) -> Option<Refusal> {
    const CAP_SYS_RESOURCE: u32 = 24;
    let flusher = threads.iter().find(|thread| thread.io_flusher)?;
    if capabilities & 1 << CAP_SYS_RESOURCE != 0 {
        return None;
    }
    Some(Refusal {
        who: Some(Who { pid: flusher.pid, name: String::from_utf8_lossy(&flusher.name).into_owned() }),
        fd: None,
        what: format!("thread {} takes part in writing memory out (PR_SET_IO_FLUSHER)", flusher.tid),
        code: "task/thread",
        why: "the kernel lets nobody say so without CAP_SYS_RESOURCE".into(),
        remedy: "restart it as root, or with `setcap cap_sys_resource+ep`".into(),
    })
}

/// The path of a thread's directory, for messages.
pub fn path(pid: i32, tid: i32) -> std::path::PathBuf {
    procfs::thread_path(pid, tid, "")
}
