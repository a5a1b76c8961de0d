//! Signals: what is done with each, the alternate stack, what is pending (signal(7), sigaction(2), sigaltstack(2)).
//!
//! **In the kernel**: dispositions belong to the process; mask, alternate stack and a queue of its own to each thread;
//! another queue to the process.
//!
//! **In the image**: 64 dispositions as the kernel's `struct sigaction`; the stack; each queue's `siginfo_t`s in order.
//!
//! **Taken how**: dispositions and stack by calls inside; the queues by PTRACE_PEEKSIGINFO.
//!
//! **Put back how**: inside, with all signals blocked: rt_sigaction(2), sigaltstack(2), and each queued signal sent by
//! the thread to itself or to its process, in order, which is the one case in which the kernel takes any `si_code`
//! (rt_sigqueueinfo(2)). Signals that carry no information (SEND_SIG_NOINFO) are in the queue's set only: sent by kill.
//!
//! **Not saved**: which async I/O a queued signal came from.

use bardo_image::Blob;
use bardo_kernel::Sysno;
use bardo_kernel::stub::{Arg, Batch, Batches, StepId};
use serde::{Deserialize, Serialize};

use super::clock::Ahead;
use super::posix_timer::{self, PosixTimers};

/// How many signals there are.
pub const SIGNALS: u64 = 64;
/// The kernel's `struct sigaction`: handler, flags, restorer, mask.
const ACTION: usize = 32;
/// `stack_t`.
const STACK: usize = 24;

/// The dispositions of a process: signal 1 first, each {handler, flags, restorer, mask}.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actions(pub Vec<[u64; 4]>);

/// The question for [`Actions::take`].
#[derive(Debug)]
pub struct ActionsAsked(Arg);

impl Actions {
    /// Asks for all dispositions.
    pub fn ask(batch: &mut Batch) -> ActionsAsked {
        let room = batch.room_for(SIGNALS as usize * ACTION);
        for signal in 1..=SIGNALS {
            let at = offset(room, (signal as usize - 1) * ACTION);
            batch.call(Sysno::rt_sigaction, [Arg::Value(signal), Arg::Value(0), at, Arg::Value(8)]);
        }
        ActionsAsked(room)
    }

    /// The answer.
    pub fn take(asked: &ActionsAsked, batch: &Batch) -> Actions {
        let words = words(batch.output(asked.0, SIGNALS as usize * ACTION));
        Actions(words.chunks_exact(4).map(|w| [w[0], w[1], w[2], w[3]]).collect())
    }

    /// Puts them back. SIGKILL and SIGSTOP have none to set.
    pub fn put(&self, batch: &mut Batch) {
        for (signal, action) in (1..=SIGNALS).zip(&self.0) {
            if signal == libc::SIGKILL as u64 || signal == libc::SIGSTOP as u64 {
                continue;
            }
            let bytes: Vec<u8> = action.iter().flat_map(|w| w.to_ne_bytes()).collect();
            let at = batch.data(&bytes);
            batch.call(Sysno::rt_sigaction, [Arg::Value(signal), at, Arg::Value(0), Arg::Value(8)]);
        }
    }
}

/// An alternate signal stack: address, flags, size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AltStack {
    /// Its lowest address.
    pub at: u64,
    /// SS_DISABLE, SS_AUTODISARM; SS_ONSTACK says that the thread runs on it now.
    pub flags: u32,
    /// Its size.
    pub size: u64,
}

impl AltStack {
    /// Asks for it.
    pub fn ask(batch: &mut Batch) -> Arg {
        let room = batch.room_for(STACK);
        batch.call(Sysno::sigaltstack, [Arg::Value(0), room]);
        room
    }

    /// The answer.
    pub fn take(asked: Arg, batch: &Batch) -> AltStack {
        let w = words(batch.output(asked, STACK));
        AltStack { at: w[0], flags: w[1] as u32, size: w[2] }
    }

    /// Puts it back. The stub's thread has its stack pointer elsewhere, so the kernel lets it be set even where the
    /// thread will run on it.
    pub fn put(&self, batch: &mut Batch) {
        if self.flags & libc::SS_DISABLE as u32 != 0 {
            return;
        }
        let flags = self.flags & !(libc::SS_ONSTACK as u32);
        let bytes: Vec<u8> =
            [self.at, u64::from(flags), self.size].iter().flat_map(|w| w.to_ne_bytes()).collect();
        let at = batch.data(&bytes);
        batch.call(Sysno::sigaltstack, [at, Arg::Value(0)]);
    }
}

/// Queued signals, in order: each a `siginfo_t` of 128 bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending(pub Vec<Blob>);

impl Pending {
    /// From what PTRACE_PEEKSIGINFO shows and the set of pending signals: a signal in the set without an entry carries
    /// no information.
    pub fn take(infos: &[[u8; 128]], set: u64) -> Pending {
        let mut queue: Vec<Blob> = infos.iter().map(|info| Blob(info.to_vec())).collect();
        let queued: u64 = infos.iter().map(|info| 1 << (number(info).wrapping_sub(1) & 63)).sum_bits();
        for signal in 1..=SIGNALS {
            if set & !queued & 1 << (signal - 1) != 0 {
                let mut info = vec![0; 128];
                info[..4].copy_from_slice(&(signal as u32).to_ne_bytes());
                queue.push(Blob(info));
            }
        }
        Pending(queue)
    }

    /// The timers whose signals wait here.
    pub fn timers(&self) -> impl Iterator<Item = i32> + '_ {
        self.0.iter().filter_map(|info| posix_timer::timer_of(info))
    }

    /// Whether the kernel has sent this signal by itself (SI_KERNEL), and it waits here.
    pub fn has_from_kernel(&self, signal: i32) -> bool {
        let code = (libc::SI_KERNEL as u32).to_ne_bytes();
        self.0.iter().any(|info| number(info) == signal as u32 && info.get(8..12) == Some(&code[..]))
    }

    /// Queues them again, to the thread itself (`own`: pid and tid as it sees them) or to its process. Those that came
    /// from one of its timers, whose clocks are that far `ahead`, come from it again.
    pub fn put(&self, pid: i32, tid: Option<i32>, timers: &PosixTimers, ahead: Ahead, batches: &mut Batches) {
        for info in &self.0 {
            let batch = batches.with_room_for(1024);
            if timers.expire_again(info, ahead, batch) {
                continue;
            }
            let signal = Arg::Value(u64::from(number(info)));
            let at = batch.data(info);
            match tid {
                Some(tid) => batch.call(
                    Sysno::rt_tgsigqueueinfo,
                    [Arg::Value(pid as u64), Arg::Value(tid as u64), signal, at],
                ),
                None => batch.call(Sysno::rt_sigqueueinfo, [Arg::Value(pid as u64), signal, at]),
            };
        }
    }
}

trait SumBits {
    fn sum_bits(self) -> u64;
}
impl<I: Iterator<Item = u64>> SumBits for I {
    fn sum_bits(self) -> u64 {
        self.fold(0, |all, bit| all | bit)
    }
}

fn number(info: &[u8]) -> u32 {
    info.get(..4).map_or(0, |b| u32::from_ne_bytes(b.try_into().expect("four bytes")))
}

/// A place this much further on in a batch's data.
pub fn offset(at: Arg, by: usize) -> Arg {
    match at {
        Arg::Data(base) => Arg::Data(base + by),
        Arg::Value(base) => Arg::Value(base + by as u64),
    }
}

/// Bytes as 64-bit words.
pub fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks_exact(8).map(|w| u64::from_ne_bytes(w.try_into().expect("eight bytes"))).collect()
}

/// A step's answer as a number; an error counts as `otherwise`.
pub fn answer(batch: &Batch, step: StepId, otherwise: u64) -> u64 {
    batch.result(step).unwrap_or(otherwise)
}
