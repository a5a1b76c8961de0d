//! The shelf: memory that a whole restarting tree shares with bardo, with a slot of the stub for every thread.
//!
//! It lies at one address that is free in every process of the tree, and in ours: the first process is a fork of ours
//! and inherits it, the others inherit it from their parents. What runs in a slot needs nothing of the address space
//! around it, so the rest can be taken down and built anew under it.
//!
//! ```text
//! base  the stub's body, every slot      (read, execute: a target can't change it)
//!       one page: the lifeline, the commit word
//!       a control block for every slot
//!       room for steps for every slot
//! ```
//!
//! If bardo dies, every thread sees the lifeline break: before the commit it ends its process, after it it goes to the
//! registers it was given. One store decides for the whole tree.

use std::os::fd::AsFd;
use std::rc::Rc;

use syscalls::Sysno;

use crate::arch::{self, Registers};
use crate::error::Result;
use crate::gate::syscall;
use crate::guardian::Guardian;
use crate::mailbox::Mailbox;
use crate::mmap::{self, Lifeline, SharedPages, memfd};
use crate::remote::slot_len;
use crate::stub::{Batch, SlotData, control};

const PAGE: usize = 4096;

/// The size of `struct clone_args` (linux/sched.h, Linux 5.7).
pub const CLONE_ARGS: usize = 88;
/// Where `set_tid` is in it.
pub const SET_TID_OFFSET: usize = 64;

/// What clone3(2) is told, as far as bardo uses it.
#[derive(Debug, Clone, Default)]
pub struct CloneArgs {
    /// CLONE_… flags.
    pub flags: u64,
    /// The signal that the parent gets when the child ends; 0 for threads.
    pub exit_signal: u64,
    /// The child's pid, innermost namespace first; empty: the kernel chooses.
    pub set_tid: Vec<i32>,
}

impl CloneArgs {
    /// The structure, with `set_tid` at this address.
    pub fn to_bytes(&self, set_tid: u64) -> [u8; CLONE_ARGS] {
        // flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup
        let set_tid_size = self.set_tid.len() as u64;
        let set_tid = if set_tid_size == 0 { 0 } else { set_tid };
        let words = [self.flags, 0, 0, 0, self.exit_signal, 0, 0, 0, set_tid, set_tid_size, 0];
        let mut bytes = [0; CLONE_ARGS];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}

/// How large the parts of a shelf are.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// How many threads it serves.
    pub slots: usize,
    /// How many bytes of steps a slot can take at once.
    pub arena: usize,
}

impl Layout {
    fn slot(self, slot: usize) -> usize {
        arch::stub_body().len() + slot * slot_len()
    }
    fn code(self) -> usize {
        self.slot(self.slots).next_multiple_of(PAGE)
    }
    fn word(self) -> usize {
        self.code()
    }
    fn controls(self) -> usize {
        self.code() + PAGE
    }
    fn arenas(self) -> usize {
        self.controls() + (self.slots * control::SIZE).next_multiple_of(PAGE)
    }
    /// How long the whole shelf is.
    pub fn len(self) -> usize {
        self.arenas() + self.slots * self.arena
    }
    /// Whether it has no slots.
    pub fn is_empty(self) -> bool {
        self.slots == 0
    }
}

/// See the module's text.
#[derive(Debug)]
pub struct Shelf {
    layout: Layout,
    base: u64,
    pages: Rc<SharedPages>,
    // What the first process inherits; the addresses are the same in every process.
    _code: SharedPages,
    _rest: SharedPages,
    lifeline: Option<Lifeline>,
}

impl Shelf {
    /// Builds a shelf at `base`, which must be free in our address space too.
    pub fn build(base: u64, layout: Layout) -> Result<Shelf> {
        let fd = mmap::memfd_create("bardo", memfd::CLOEXEC | memfd::ALLOW_SEALING | memfd::EXEC)?;
        mmap::truncate(fd.as_fd(), layout.len() as u64)?;
        mmap::seal_size(fd.as_fd())?;
        let pages = Rc::new(SharedPages::map(fd.as_fd(), 0, layout.len())?);
        pages.write(0, &arch::stub_body());
        let code = layout.code();
        let read_execute = libc::PROT_READ | libc::PROT_EXEC;
        let read_write = libc::PROT_READ | libc::PROT_WRITE;
        let _code = SharedPages::map_at(fd.as_fd(), 0, code, base, read_execute)?;
        let rest = layout.len() - code;
        let _rest = SharedPages::map_at(fd.as_fd(), code as u64, rest, base + code as u64, read_write)?;
        // Of a robust futex the kernel wakes one waiter, who is to wake the next: here it may be one that job control has stopped,
        // or that dies by our hold on it. A keeper wakes everybody.
        let lifeline = Some(Lifeline::hold_for_traced(Rc::clone(&pages), layout.word())?);
        Ok(Shelf { layout, base, pages, _code, _rest, lifeline })
    }

    /// Where it is, in every process.
    pub fn range(&self) -> (u64, u64) {
        (self.base, self.layout.len() as u64)
    }

    /// How large a batch may be ([`Batch::room`]).
    pub fn room(&self) -> usize {
        self.layout.arena
    }

    fn mailbox(&self, slot: usize) -> Mailbox {
        assert!(slot < self.layout.slots, "slot {slot} of {}", self.layout.slots);
        let control = self.layout.controls() + slot * control::SIZE;
        Mailbox::new(control, self.layout.arenas() + slot * self.layout.arena, self.layout.arena, self.base)
    }

    fn data(&self, slot: usize) -> SlotData {
        let mut data = SlotData::new();
        data.control = self.mailbox(slot).target_control();
        data.word = self.base + self.layout.word() as u64;
        data.commit = data.word + 4;
        data
    }

    /// Readies a slot for a thread to come, and gives the address it enters at.
    pub fn open(&self, slot: usize) -> u64 {
        self.mailbox(slot).prepare(&self.pages, self.base + self.layout.word() as u64);
        self.write(slot, self.data(slot)) + arch::slot_entries().enter
    }

    fn write(&self, slot: usize, data: SlotData) -> u64 {
        let offset = self.layout.slot(slot);
        let at = self.base + offset as u64;
        self.pages.write(offset, &arch::slot_bytes(at, self.base, data));
        at
    }

    /// Where the slot's thread goes if we die after the commit.
    pub fn set_return(&self, slot: usize, registers: &Registers, mask: u64) {
        let mut data = self.data(slot);
        data.set_registers(registers, mask);
        self.write(slot, data);
    }

    /// Makes the first process of a tree: a fork of ours that enters the slot. Its pid, as we see it.
    ///
    /// # Errors
    /// EPERM: choosing a pid needs CAP_CHECKPOINT_RESTORE (or CAP_SYS_ADMIN) in the pid namespace. EEXIST: the pid is
    /// taken.
    pub fn seed(&self, slot: usize, clone: &CloneArgs) -> Result<i32> {
        let entry = self.open(slot);
        let bytes = clone.to_bytes(clone.set_tid.as_ptr() as u64);
        // SAFETY: a plain fork (no CLONE_VM: refused here): the child has a copy of everything. It does nothing but
        // enter the stub, which needs none of it.
        unsafe {
            assert_eq!(clone.flags & (libc::CLONE_VM as u64), 0, "a seed has its own memory");
            let pid = syscall(Sysno::clone3, [bytes.as_ptr() as usize, CLONE_ARGS, 0, 0, 0, 0])
                .map_err(|e| e.of(format!("clone3(set_tid {:?})", clone.set_tid)))?;
            if pid == 0 {
                arch::enter_stub(entry);
            }
            Ok(pid as i32)
        }
    }

    /// Runs a batch in a slot's thread. `idle` looks after its process while nothing is heard.
    ///
    /// # Errors
    /// The first step that disappointed, or `idle`'s.
    pub fn run(&self, slot: usize, batch: &mut Batch, idle: impl FnMut() -> Result<()>) -> Result<()> {
        self.post(slot, batch)?;
        self.finish(slot, batch, idle)
    }

    /// Hands a batch to a slot's thread without waiting.
    pub fn post(&self, slot: usize, batch: &Batch) -> Result<()> {
        self.mailbox(slot).post(&self.pages, batch)
    }

    /// Waits for a batch that was posted.
    pub fn finish(&self, slot: usize, batch: &mut Batch, idle: impl FnMut() -> Result<()>) -> Result<()> {
        self.mailbox(slot).finish(&self.pages, batch, idle)
    }

    /// Whether a posted batch is done.
    pub fn is_done(&self, slot: usize) -> bool {
        self.mailbox(slot).is_done(&self.pages)
    }

    /// Has a posted batch end without its steps, where the thread was taken out of the one that it was in.
    pub fn cancel(&self, slot: usize) {
        self.mailbox(slot).cancel(&self.pages);
    }

    /// Where the slot's thread waits for steps.
    pub fn entry(&self, slot: usize) -> u64 {
        self.base + self.layout.slot(slot) as u64 + arch::slot_entries().enter
    }

    fn commit_word(&self) -> usize {
        self.layout.word() + 4
    }

    /// Has these processes, which job control has stopped, end with us unless the tree is committed.
    ///
    /// # Errors
    /// As [`Guardian::keep`].
    pub fn guard(&self, pids: &[i32]) -> Result<Guardian> {
        Guardian::keep(&self.pages, self.commit_word(), pids)
    }

    /// The commit: from this store on, the tree outlives us.
    pub fn commit(&self) {
        self.pages.store(self.commit_word(), 1);
    }

    /// Lets go of the lifeline: every process that is still in a slot ends, or, where the tree was committed, goes on.
    pub fn abandon(&mut self) {
        self.lifeline = None;
    }
}
