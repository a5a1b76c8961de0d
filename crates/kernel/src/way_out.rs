//! Letting go of a thread so that it goes on as if nothing had been.
//!
//! A thread that we hold is in one of three states: in its own code, where a detach is enough but for an EINTR that our
//! stop has caused; in the stub, which it leaves by itself once nobody holds the lifeline; or gone. The second one may not be
//! left to itself where job control has stopped the process: it would stay in the stub until SIGCONT, and whoever
//! cleared the stub away until then would kill it. So it is let run, under our hand, until it is out.
//!
//! Privilege: the thread is ours already.

use crate::arch::{self, Interrupted};
use crate::error::{Errno, Failed, Result};
use crate::procfs::stat::{self, State};
use crate::procfs::status;
use crate::ptrace::{Running, Stop, Stopped, Waited};
use crate::time::Patience;
use crate::{process_vm, remote};

/// How long a thread is given until it is let go wherever it may be: it has only a few instructions to run, but others may
/// have the processors.
const PATIENCE_NS: u64 = 30_000_000_000;

/// A thread that may be in the stub, between these addresses. Dropped, it is let out and let go.
#[derive(Debug)]
pub(crate) struct WayOut {
    tid: i32,
    stub: (u64, u64),
    taken: bool,
}

impl WayOut {
    /// Watches over a seized thread.
    pub fn of(tid: i32, stub: (u64, u64)) -> WayOut {
        WayOut { tid, stub, taken: false }
    }

    /// Stops the thread, wherever it is.
    pub fn stop(&self) {
        if !self.taken {
            // Where that fails, it is as gone as it can be.
            let _ = stand(self.tid);
        }
    }

    /// The thread is out, or somebody else looks after it.
    pub fn taken(&mut self) {
        self.taken = true;
    }
}

impl Drop for WayOut {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        if let Ok(thread) = run_out(self.tid, self.stub) {
            release(thread);
        }
    }
}

/// Has a seized thread run until it is out of the stub, and stops it there, before it has run anything of its own: job control
/// may have stopped its process.
///
/// # Errors
/// `ESRCH` where it is gone; `ETIMEDOUT` where it doesn't come out: then it has been let go.
pub fn run_out(tid: i32, stub: (u64, u64)) -> Result<Stopped> {
    let mut patience = Patience::of(PATIENCE_NS);
    loop {
        let thread = stand(tid)?;
        match stands_outside(thread, stub) {
            Ok(Outside(thread)) => return Ok(thread),
            Ok(Inside(thread)) => {
                // To the next entry or exit of a call. It may wait for somebody's end in one, as long as we are patient.
                let mut running = thread.resume_to_syscall_with_its_signal();
                while let Ok(Waited::Still(still)) = running.and_then(Running::poll) {
                    if !patience.wait() {
                        break;
                    }
                    running = Ok(still);
                }
            }
            // Where it is gone, the next look tells.
            Err(_) => {}
        }
        if !patience.wait() {
            let _ = stand(tid)?.detach(0);
            return Err(failed(libc::ETIMEDOUT, format!("waiting until thread {tid} is out of the stub")));
        }
    }
}

/// Where a stopped thread stands.
enum Standing {
    Outside(Stopped),
    Inside(Stopped),
}
use Standing::{Inside, Outside};

/// Looks where a thread stands, and takes it outside where nothing is left to be done inside.
fn stands_outside(thread: Stopped, stub: (u64, u64)) -> Result<Standing> {
    let registers = thread.registers()?;
    if !(stub.0..stub.1).contains(&registers.ip()) {
        return Ok(Outside(thread));
    }
    let tid = thread.tid();
    let read = |at: u64, bytes: &mut [u8]| process_vm::read_exact(tid, at, bytes).is_ok();
    let Some((own, mask)) = arch::leaving(&registers, read) else { return Ok(Inside(thread)) };
    if registers.is_at_entry() {
        return Ok(Inside(thread));
    }
    // Not from the exit of a call: the kernel would report that exit once more, with registers that are the thread's own.
    let thread = if thread.stop() == Stop::Syscall {
        thread.interrupt_next()?;
        remote::wait_interrupt_stop(thread.resume(0)?)?
    } else {
        thread
    };
    thread.set_signal_mask(mask)?;
    thread.set_registers(&own)?;
    Ok(Outside(thread))
}

/// Puts the seccomp filters of a seized thread in force again, where they were suspended, before it may leave the stub by itself.
pub fn judge_again(tid: i32) {
    if let Ok(thread) = stand(tid) {
        let _ = thread.outlive().or_else(|_| thread.outlive());
        // No further than its next call: `let_out` sees to the rest.
        let _ = thread.resume_to_syscall_with_its_signal();
    }
}

/// Lets a seized thread out of the stub between these addresses, then lets it go.
pub fn let_out(tid: i32, stub: (u64, u64)) {
    drop(WayOut::of(tid, stub));
}

/// Brings a seized thread to a stop, whatever it is doing.
fn stand(tid: i32) -> Result<Stopped> {
    let gone = || failed(libc::ESRCH, format!("stopping thread {tid}"));
    let mut patience = Patience::of(PATIENCE_NS);
    loop {
        match stat::read(tid) {
            Ok(stat) if stat.state == State::Traced => return Ok(Stopped::adopt(tid)),
            Ok(stat) if matches!(stat.state, State::Zombie | State::Dead) => return Err(gone()),
            Err(e) if e.is(libc::ENOENT) || e.is(libc::ESRCH) => return Err(gone()),
            _ => {}
        }
        let running = Running::adopt(tid);
        // Where it isn't ours any more, it was let go already: it would never stop.
        if running.interrupt().is_err_and(|e| e.is(libc::ESRCH)) {
            return Err(gone());
        }
        match running.poll() {
            Ok(Waited::Stopped(thread)) => return Ok(thread),
            Ok(Waited::Gone(_)) => return Err(gone()),
            Err(e) if e.is(libc::ECHILD) => return Err(e),
            _ if patience.wait() => {}
            _ => return Err(failed(libc::ETIMEDOUT, format!("stopping thread {tid}"))),
        }
    }
}

fn failed(errno: i32, call: String) -> Failed {
    Failed { call, errno: Errno(errno) }
}

/// Lets a thread go that stands in its own code: a call that answered our stop with EINTR is made again first.
pub fn release(thread: Stopped) {
    let signal = if let Stop::Signal(signal) = thread.stop() { signal } else { 0 };
    for _ in 0..2 {
        if make_again(&thread).is_ok() {
            break;
        }
    }
    // A thread that is gone needs nothing.
    let _ = thread.detach(signal);
}

/// Where a call has answered our stop with EINTR, has the thread make it again. Whether that was so.
///
/// # Errors
/// The thread is gone, or a call failed.
pub fn make_again(thread: &Stopped) -> Result<bool> {
    let registers = thread.registers()?;
    if !matches!(registers.interrupted(), Interrupted::Spurious(_)) {
        return Ok(false);
    }
    // At once, and only then the question whether it was right: if we die before this, the program sees the EINTR.
    thread.set_registers(&registers.again())?;
    let spurious = !may_run_handler(thread.tid());
    if !spurious {
        thread.set_registers(&registers)?;
    }
    Ok(spurious)
}

/// Whether a signal is waiting that the thread would handle now: then its EINTR is one that it has to see.
pub fn may_run_handler(tid: i32) -> bool {
    status::read(tid).is_ok_and(|s| (s.sig_pnd | s.shd_pnd) & !s.sig_blk & !s.sig_ign != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_was_let_go_already_is_not_waited_for() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let tid = child.id() as i32;
        let _seized = Running::seize(tid).unwrap();
        assert!(stand(tid).is_ok());
        stand(tid).unwrap().detach(0).unwrap();
        let stood = stand(tid);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(
            stood.is_err_and(|e| e.is(libc::ESRCH)),
            "a thread that isn't ours is neither stopped nor waited for"
        );
    }
}
