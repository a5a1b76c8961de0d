//! Running system calls inside a stopped process that must survive our death at any instruction.
//!
//! How it is done, and why each step is safe to die after:
//! 1. Room for the stub's body and two slots is found in the zeros behind the end of the vdso (or of another executable mapping
//!    that isn't writable). They are written there through `/proc/PID/mem`; the page becomes the process's own copy.
//!    Nobody reads or runs those bytes, so a target that is left here notices nothing. Nothing is ever written to its
//!    stack: below a stack pointer there may be somebody else's memory (goroutines, coroutines).
//! 2. One PTRACE_SETREGSET sends the thread into the slot, which knows the registers, flags, stack pointer and signal
//!    mask to go back to, with the interrupted system call's restart worked in. From here on the thread comes back by
//!    itself whether we live or not. It blocks all signals first: a handler must not see a half-restored stack pointer.
//! 3. The stub makes a memfd, we take a descriptor of it (pidfd_getfd(2)) and size it, it maps it and closes its own. If
//!    we die before the size is set, a probing system call finds out (EFAULT) where a load would be killed by SIGBUS.
//! 4. Batches go through that memory. The stub sees our death by a robust futex, unmaps the memory and goes back.
//! 5. To leave, we stop the thread, have it unmap the memory, and set the *original* registers, `orig_rax` included, in
//!    a stop from which the kernel itself continues the interrupted call, as if there had been no stop. Then the slots'
//!    bytes are put back to zeros.
//!
//! Other threads of the process take turns in the second slot, while the first thread waits in its own.
//!
//! Privilege: ptrace access. Kernel: futex_waitv (5.16). Cost: two stops and a few calls per process; about a
//! microsecond per call in a batch.

use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use crate::arch::{self, Registers};
use crate::error::{Errno, Failed, Result};
use crate::fs;
use crate::mailbox::Mailbox;
use crate::mmap::{self, Lifeline, SharedPages, memfd};
use crate::ptrace::{Running, Stop, Stopped, Waited};
use crate::stub::{Batch, SlotData, control};
use crate::time;
use crate::way_out::{self, WayOut};

/// How much memory is shared with a target.
pub const AREA_LEN: usize = 256 << 10;
const ARENA: usize = 4096;

/// The mark at the end of every slot, by which a later bardo recognises what a dead one left.
pub const MARK: &[u8; 8] = b"bardo\0\0\0";

/// How many bytes a slot takes.
pub fn slot_len() -> usize {
    arch::slot_bytes(0, 0, SlotData::new()).len()
}

/// How many bytes the stub's body and two slots take.
fn place_len() -> usize {
    arch::stub_body().len() + 2 * slot_len()
}

/// Where the stub's body and two slots fit in a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The body's address.
    at: u64,
}

/// An executable mapping of the target that could hold the slots.
#[derive(Debug, Clone, Copy)]
pub struct Candidate {
    /// Its first address.
    pub start: u64,
    /// The address behind its last.
    pub end: u64,
}

impl Place {
    /// Finds zeros for two slots at the end of one of these mappings, in order of preference: the vdso first.
    pub fn find(mem: BorrowedFd<'_>, candidates: &[Candidate]) -> Result<Place> {
        let need = place_len();
        for candidate in candidates {
            let tail = (candidate.end - candidate.start).min(4096) as usize;
            let mut bytes = vec![0; tail];
            let at = candidate.end - tail as u64;
            match fs::pread(mem, &mut bytes, at) {
                Ok(n) if n == tail => {}
                _ => continue,
            }
            let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |i| i + 1);
            // Sixteen zeros may still belong to what is before them.
            let free_from = (at as usize + used + 16).next_multiple_of(16) as u64;
            if free_from + need as u64 <= candidate.end {
                return Ok(Place { at: candidate.end - need as u64 });
            }
        }
        Err(Failed {
            call: "finding room for the stub in an executable mapping".into(),
            errno: Errno(libc::ENOSPC),
        })
    }

    /// What a dead bardo left at the end of this mapping: where its slots begin.
    pub fn find_left(mem: BorrowedFd<'_>, candidate: Candidate) -> Option<Place> {
        let at = candidate.end.checked_sub(place_len() as u64)?;
        let mut bytes = vec![0; place_len()];
        fs::pread(mem, &mut bytes, at).ok()?;
        bytes.windows(8).any(|w| w == MARK).then_some(Place { at })
    }

    /// Whether an instruction pointer is in one of the slots.
    pub fn contains(&self, ip: u64) -> bool {
        (self.range().0..self.range().1).contains(&ip)
    }

    /// From where to where the stub and its slots lie.
    pub fn range(&self) -> (u64, u64) {
        (self.at, self.at + place_len() as u64)
    }

    fn slot(&self, index: usize) -> u64 {
        self.at + (arch::stub_body().len() + index * slot_len()) as u64
    }

    /// Writes a slot (and, with the first, the body) and gives its address.
    fn write(&self, mem: BorrowedFd<'_>, index: usize, data: SlotData) -> Result<u64> {
        let at = self.slot(index);
        let slot = arch::slot_bytes(at, self.at, data);
        if index == 0 {
            // In one call, within one page: a body without a slot has no mark, and nobody would ever take it away.
            let mut bytes = arch::stub_body();
            bytes.extend_from_slice(&slot);
            write_all(mem, self.at, &bytes)?;
        } else {
            write_all(mem, at, &slot)?;
        }
        Ok(at)
    }

    /// Puts the zeros back.
    pub fn clear(&self, mem: BorrowedFd<'_>) -> Result<()> {
        write_all(mem, self.at, &vec![0; place_len()])
    }
}

fn write_all(mem: BorrowedFd<'_>, at: u64, bytes: &[u8]) -> Result<()> {
    let n = fs::pwrite(mem, bytes, at)?;
    if n == bytes.len() {
        Ok(())
    } else {
        Err(Failed::unexpected(format!("a write of {n} bytes at {at:#x}")))
    }
}

/// A thread that was stopped, with what it must get back.
#[derive(Debug)]
pub struct Held {
    /// The stopped thread.
    pub thread: Stopped,
    /// Its registers, as the kernel showed them at the stop.
    pub registers: Registers,
    /// Its signal mask.
    pub mask: u64,
}

impl Held {
    /// Lets it go on as if it hadn't been stopped.
    pub fn release(self) {
        way_out::release(self.thread);
    }

    /// Puts mask and registers back, in that order: at no moment does a thread that we leave here run its own code with
    /// the signals still blocked.
    fn put_back(&self) -> Result<()> {
        self.thread.set_signal_mask(self.mask)?;
        self.thread.set_registers(&self.registers)
    }
}

/// Lets a thread run to its next system call stop, passing over what isn't one.
fn to_syscall_stop(mut thread: Stopped) -> Result<Stopped> {
    loop {
        let signal = match thread.stop() {
            // All signals but SIGKILL and SIGSTOP are blocked: let the stop take effect, and go on regardless.
            Stop::Signal(signal) => signal,
            _ => 0,
        };
        thread = wait_stop(thread.resume_to_syscall(signal)?)?;
        if thread.stop() == Stop::Syscall {
            return Ok(thread);
        }
    }
}

fn wait_stop(running: Running) -> Result<Stopped> {
    let tid = running.tid();
    match running.wait()? {
        Waited::Stopped(stopped) => Ok(stopped),
        Waited::Gone(status) => Err(gone(tid, status)),
        Waited::Still(_) => Err(Failed::unexpected(format!("wait4({tid}) returned nothing"))),
    }
}

fn gone(tid: i32, status: i32) -> Failed {
    Failed { call: format!("thread {tid} ended (status {status:#x})"), errno: Errno(libc::ESRCH) }
}

/// Stops a thread by PTRACE_INTERRUPT, in a stop from which the kernel continues interrupted calls.
pub fn to_interrupt_stop(running: Running) -> Result<Stopped> {
    running.interrupt()?;
    wait_interrupt_stop(running)
}

/// Waits for such a stop, which was asked for already.
pub fn wait_interrupt_stop(running: Running) -> Result<Stopped> {
    let mut thread = wait_stop(running)?;
    loop {
        match thread.stop() {
            Stop::Interrupt => return Ok(thread),
            Stop::Signal(signal) => {
                let running = thread.resume(signal)?;
                running.interrupt()?;
                thread = wait_stop(running)?;
            }
            Stop::Group(_) => return Ok(thread),
            _ => {
                let running = thread.resume(0)?;
                running.interrupt()?;
                thread = wait_stop(running)?;
            }
        }
    }
}

/// Takes a thread from a system call stop in the stub to a stop from which the kernel continues interrupted calls, with
/// its own registers.
fn step_out(thread: Stopped, registers: Registers, mask: u64) -> Result<Held> {
    thread.interrupt_next()?;
    let held = Held { thread: wait_interrupt_stop(thread.resume(0)?)?, registers, mask };
    held.put_back()?;
    Ok(held)
}

/// Has a stopped thread unmap `len` bytes at `at`, where the code runs that it would otherwise go on in, and gives it
/// these registers: the end of a restart. As safe to die in as a visit.
pub fn unmap_and_set(
    thread: Stopped,
    mem: BorrowedFd<'_>,
    place: Place,
    (at, len): (u64, u64),
    registers: Registers,
    mask: u64,
) -> Result<Held> {
    let mut data = SlotData::new();
    data.set_registers(&registers.resumed(), mask);
    data.area = at;
    data.area_len = len;
    data.unmap_len = len;
    let mut way_out = WayOut::of(thread.tid(), place.range());
    let slot = place.write(mem, 0, data)?;
    thread.set_registers(&registers.at(slot + arch::slot_entries().unmap))?;
    let mut thread = thread;
    for _ in 0..2 {
        thread = to_syscall_stop(thread)?;
    }
    let unmapped = thread.registers()?.rax as i64;
    let held = step_out(thread, registers, mask)?;
    place.clear(mem)?;
    way_out.taken();
    if unmapped != 0 {
        return Err(Failed { call: format!("munmap({at:#x}, {len})"), errno: Errno(-unmapped as i32) });
    }
    Ok(held)
}

/// A process with its first thread in the stub. Dropped without [`Visit::leave`], it is let go of and recovers by itself.
#[derive(Debug)]
pub struct Visit<'p> {
    mem: BorrowedFd<'p>,
    place: Place,
    first: Option<Running>,
    registers: Registers,
    mask: u64,
    boxes: [Mailbox; 2],
    area: u64,
    pages: Rc<SharedPages>,
    lifeline: Option<Lifeline>,
    way_out: WayOut,
}

impl<'p> Visit<'p> {
    /// Sends a stopped thread into the stub. `area` is a free stretch of [`AREA_LEN`] bytes of its address space, `mem`
    /// its `/proc/PID/mem`, `pidfd` its process. `careful`: job control has stopped it, or
    /// seccomp filters of its threads are suspended; both are in force again only after the kernel has let go of the threads.
    ///
    /// # Errors
    /// The call that failed; the thread was let go of and is where it was, or gone.
    pub fn enter(
        held: Held,
        mem: BorrowedFd<'p>,
        pidfd: BorrowedFd<'_>,
        place: Place,
        area: u64,
        careful: bool,
    ) -> Result<Visit<'p>> {
        let boxes = [
            Mailbox::new(control::SIZE, ARENA, AREA_LEN / 2 - ARENA, area),
            Mailbox::new(2 * control::SIZE, AREA_LEN / 2, AREA_LEN / 2, area),
        ];
        let Held { thread, registers, mask } = held;
        let way_out = WayOut::of(thread.tid(), place.range());
        let mut data = SlotData::new();
        data.set_registers(&registers.resumed(), mask);
        data.area = area;
        data.area_len = AREA_LEN as u64;
        data.unmap_len = AREA_LEN as u64;
        data.word = area;
        data.control = boxes[0].target_control();
        data.busy = boxes[0].target_busy();
        data.memfd_flags = u64::from(memfd::CLOEXEC | memfd::ALLOW_SEALING);
        let slot = place.write(mem, 0, data)?;
        thread.set_registers(&registers.at(slot + arch::slot_entries().boot))?;
        thread.set_signal_mask(u64::MAX)?;
        // Entry and exit of rt_sigprocmask, entry and exit of memfd_create.
        let mut thread = thread;
        for _ in 0..4 {
            thread = to_syscall_stop(thread)?;
        }
        let pages = Rc::new(share(pidfd, &thread)?);
        for mailbox in &boxes {
            mailbox.prepare(&pages, area);
        }
        let line = Rc::clone(&pages);
        let lifeline =
            Some(if careful { Lifeline::hold_for_traced(line, 0)? } else { Lifeline::hold(line, 0)? });
        let first = Some(thread.resume(0)?);
        Ok(Visit { mem, place, first, registers, mask, boxes, area, pages, lifeline, way_out })
    }

    /// How large a batch may be ([`Batch::room`]).
    pub fn room(&self) -> usize {
        self.boxes[0].room().min(self.boxes[1].room())
    }

    /// Runs a batch in the first thread.
    ///
    /// # Errors
    /// The first step that disappointed, or the thread's end.
    pub fn run(&mut self, batch: &mut Batch) -> Result<()> {
        self.boxes[0].post(&self.pages, batch)?;
        let (first, begun_ns) = (&mut self.first, time::monotonic_ns());
        self.boxes[0].finish(&self.pages, batch, || look_after(first, begun_ns))
    }

    /// Runs a batch in another thread of the process, and gives it back as it was.
    ///
    /// # Errors
    /// As [`Visit::run`]; the thread was let go of.
    pub fn run_in(&mut self, held: Held, batch: &mut Batch) -> Result<Held> {
        let mut way_out = WayOut::of(held.thread.tid(), self.place.range());
        match self.run_in_slot(held, batch) {
            Ok(held) => {
                way_out.taken();
                Ok(held)
            }
            Err(failed) => {
                // The first thread unmaps the area as it goes: not before this one is out.
                let first = self.first.take().map(to_interrupt_stop);
                way_out.stop();
                drop(self.lifeline.take());
                drop(way_out);
                if let Some(Ok(_)) = first {
                    self.boxes[0].set_busy(&self.pages, false);
                }
                Err(failed)
            }
        }
    }

    fn run_in_slot(&mut self, held: Held, batch: &mut Batch) -> Result<Held> {
        let Held { thread, registers, mask } = held;
        let mut data = SlotData::new();
        data.set_registers(&registers.resumed(), mask);
        data.word = self.area;
        data.control = self.boxes[1].target_control();
        let slot = self.place.write(self.mem, 1, data)?;
        self.boxes[1].prepare(&self.pages, self.area);
        self.boxes[0].set_busy(&self.pages, true);
        self.boxes[1].post(&self.pages, batch)?;
        thread.set_registers(&registers.at(slot + arch::slot_entries().enter))?;
        thread.set_signal_mask(u64::MAX)?;
        let (mut running, begun_ns) = (Some(thread.resume(0)?), time::monotonic_ns());
        self.boxes[1].finish(&self.pages, batch, || look_after(&mut running, begun_ns))?;
        let running = running.ok_or_else(|| Failed::unexpected("the thread was lost"))?;
        let held = Held { thread: to_interrupt_stop(running)?, registers, mask };
        held.put_back()?;
        self.boxes[0].set_busy(&self.pages, false);
        Ok(held)
    }

    /// Takes the first thread out of the stub and everything of ours out of the process.
    pub fn leave(mut self) -> Result<Held> {
        let running = self.first.take().ok_or_else(|| Failed::unexpected("the thread was lost"))?;
        let mut thread = to_interrupt_stop(running)?;
        thread.set_registers(&self.registers.at(self.place.slot(0) + arch::slot_entries().unmap))?;
        // Entry and exit of munmap.
        for _ in 0..2 {
            thread = to_syscall_stop(thread)?;
        }
        let unmapped = thread.registers()?.rax as i64;
        let held = step_out(thread, self.registers, self.mask)?;
        self.place.clear(self.mem)?;
        if unmapped != 0 {
            return Err(Failed { call: "munmap inside the target".into(), errno: Errno(-unmapped as i32) });
        }
        self.way_out.taken();
        Ok(held)
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        // Stopped while it still waits for us: without the lifeline it would be out, and run its own code, before anybody sees
        // whether it may.
        self.way_out.stop();
        drop(self.lifeline.take());
    }
}

/// Takes the descriptor that `memfd_create` has just returned to the thread, sizes the file and maps it.
fn share(pidfd: BorrowedFd<'_>, thread: &Stopped) -> Result<SharedPages> {
    let fd = thread.registers()?.rax as i64;
    if fd < 0 {
        return Err(Failed {
            call: "memfd_create(\"bardo\") inside the target".into(),
            errno: Errno(-fd as i32),
        });
    }
    let fd = crate::pidfd::getfd(pidfd, fd as i32)?;
    mmap::truncate(fd.as_fd(), AREA_LEN as u64)?;
    mmap::seal_size(fd.as_fd())?;
    // Somebody else of the same user may have had it open before it was sealed.
    let size = fs::fstat(fd.as_fd())?.size;
    if size != AREA_LEN as u64 {
        return Err(Failed::unexpected(format!("the shared memory has {size} bytes")));
    }
    SharedPages::map(fd.as_fd(), 0, AREA_LEN)
}

/// Called when a batch takes long: has the thread ended, or stopped for something?
fn look_after(running: &mut Option<Running>, begun_ns: u64) -> Result<()> {
    // No call of a visit waits for anything: this is far above what a busy machine needs.
    const PATIENCE_NS: u64 = 30_000_000_000;
    if time::monotonic_ns().saturating_sub(begun_ns) > PATIENCE_NS {
        return Err(Failed { call: "waiting for the stub's answer".into(), errno: Errno(libc::ETIMEDOUT) });
    }
    let Some(thread) = running.take() else { return Err(Failed::unexpected("the thread was lost")) };
    let tid = thread.tid();
    match thread.poll()? {
        Waited::Still(thread) => *running = Some(thread),
        Waited::Stopped(stopped) => {
            let signal = if let Stop::Signal(signal) = stopped.stop() { signal } else { 0 };
            *running = Some(stopped.resume(signal)?);
        }
        Waited::Gone(status) => return Err(gone(tid, status)),
    }
    Ok(())
}
