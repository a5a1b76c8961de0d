//! The gate: the one place where this program calls the kernel.
//!
//! Every system call bardo makes goes through [`syscall`], so that one module can trace them all, make the Nth fail, or
//! kill us at it. The tests loop over N until a run meets no fault: nobody has to write the list of faults.
//! (Closing a descriptor when its owner is dropped is the exception: it can't fail in a way that matters.)
//!
//! The environment variable `BARDO_GATE` sets it: `trace=FILE` appends one line a call, `fail=N` makes the Nth call
//! return EIO without being made (`fail=N:ERRNO` another errno), `kill=N` raises SIGKILL instead of the Nth call,
//! `kill-after=N` right after it. N counts from 1.

use std::fmt::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use syscalls::Sysno;

use crate::error::{Errno, Failed, Result};

/// What the gate was asked to do to this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Let every call pass.
    Open,
    /// Append a line for every call to this file.
    Trace(String),
    /// The Nth call fails with this errno and isn't made.
    Fail(u64, Errno),
    /// Instead of the Nth call, the process dies by SIGKILL.
    Kill(u64),
    /// Right after the Nth call, the process dies by SIGKILL.
    KillAfter(u64),
}

impl Mode {
    /// Reads the value of `BARDO_GATE`. Anything unknown is an error: a test whose fault is misspelt must not pass.
    pub fn parse(text: &str) -> std::result::Result<Mode, String> {
        let bad =
            || format!("BARDO_GATE={text}: expected trace=FILE, fail=N[:ERRNO], kill=N or kill-after=N");
        let (word, value) = text.split_once('=').ok_or_else(bad)?;
        let number = |s: &str| s.parse::<u64>().map_err(|_| bad());
        match word {
            "trace" => Ok(Mode::Trace(value.to_owned())),
            "kill" => Ok(Mode::Kill(number(value)?)),
            "kill-after" => Ok(Mode::KillAfter(number(value)?)),
            "fail" => match value.split_once(':') {
                None => Ok(Mode::Fail(number(value)?, Errno(libc::EIO))),
                Some((n, errno)) => Ok(Mode::Fail(number(n)?, Errno(number(errno)? as i32))),
            },
            _ => Err(bad()),
        }
    }
}

/// The gate is the one piece of global state: a fault must hit wherever the Nth call happens to be made.
struct Gate {
    mode: Mode,
    calls: AtomicU64,
    trace_fd: i32,
}

static GATE: OnceLock<Gate> = OnceLock::new();

fn gate() -> &'static Gate {
    GATE.get_or_init(|| {
        let mode = match std::env::var("BARDO_GATE") {
            Ok(text) => Mode::parse(&text).unwrap_or_else(|why| {
                eprintln!("bardo: {why}");
                std::process::exit(2)
            }),
            Err(_) => Mode::Open,
        };
        let trace_fd = match &mode {
            Mode::Trace(path) => match std::ffi::CString::new(path.as_str()) {
                // SAFETY: the path is a valid C string; the call touches no other memory of ours.
                Ok(path) => unsafe {
                    let fd = libc::open(
                        path.as_ptr(),
                        libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND | libc::O_CLOEXEC,
                        0o600,
                    );
                    // Out of the way of the numbers that programs use: see `fcntl::in_own_table`.
                    match libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 1000) {
                        -1 => fd,
                        high => high,
                    }
                },
                Err(_) => -1,
            },
            _ => -1,
        };
        Gate { mode, calls: AtomicU64::new(0), trace_fd }
    })
}

/// How many calls have passed the gate so far.
pub fn calls() -> u64 {
    gate().calls.load(Ordering::Relaxed)
}

fn die() -> ! {
    loop {
        // SAFETY: kill(2) on ourselves touches no memory; SIGKILL can't be handled, so the loop never turns.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
}

/// Makes a system call, after the gate has let it pass.
///
/// # Errors
/// The call's errno, or the gate's, as a [`Failed`] that names the call and its arguments.
///
/// # Safety
/// The caller vouches for what the kernel will do with these arguments: pointers must be valid for the call and for
/// as long as the kernel keeps them, and descriptors must be the caller's to use.
pub unsafe fn syscall(nr: Sysno, args: [usize; 6]) -> Result<usize> {
    let gate = gate();
    if gate.mode == Mode::Open {
        // SAFETY: the caller's contract.
        return unsafe { raw(nr, args) };
    }
    let n = gate.calls.fetch_add(1, Ordering::Relaxed) + 1;
    match gate.mode {
        Mode::Fail(at, errno) if at == n => return Err(Failed::new(nr, args, errno)),
        Mode::Kill(at) if at == n => die(),
        _ => {}
    }
    // SAFETY: the caller's contract.
    let result = unsafe { raw(nr, args) };
    match gate.mode {
        Mode::KillAfter(at) if at == n => die(),
        Mode::Trace(_) => trace(gate.trace_fd, n, nr, args, &result),
        _ => {}
    }
    result
}

/// The call itself.
///
/// # Safety
/// As [`syscall`].
unsafe fn raw(nr: Sysno, a: [usize; 6]) -> Result<usize> {
    // SAFETY: the caller's contract.
    let result = unsafe { libc::syscall(nr.id() as libc::c_long, a[0], a[1], a[2], a[3], a[4], a[5]) };
    if result == -1 {
        // SAFETY: errno's location is valid for the calling thread.
        let errno = Errno(unsafe { *libc::__errno_location() });
        return Err(Failed::new(nr, a, errno));
    }
    Ok(result as usize)
}

fn trace(fd: i32, n: u64, nr: Sysno, args: [usize; 6], result: &Result<usize>) {
    let mut line = String::with_capacity(160);
    let _ = write!(line, "{n} {}(", nr.name());
    for (i, arg) in args.iter().enumerate() {
        let _ = write!(line, "{}{arg:#x}", if i == 0 { "" } else { ", " });
    }
    let _ = match result {
        Ok(value) => writeln!(line, ") = {value:#x}"),
        Err(failed) => writeln!(line, ") = {}", failed.errno),
    };
    // SAFETY: the buffer lives for the call; a failed write of a trace line is of no consequence.
    unsafe { libc::write(fd, line.as_ptr().cast(), line.len()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read_exactly() {
        assert_eq!(Mode::parse("fail=3"), Ok(Mode::Fail(3, Errno(libc::EIO))));
        assert_eq!(Mode::parse("fail=3:28"), Ok(Mode::Fail(3, Errno(28))));
        assert_eq!(Mode::parse("kill=12"), Ok(Mode::Kill(12)));
        assert!(Mode::parse("kil=12").is_err());
        assert!(Mode::parse("kill=x").is_err());
    }
}
