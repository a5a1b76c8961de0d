//! ptrace(2), by seizing: no SIGSTOP is sent, and a tracer's death lets every tracee go on.
//!
//! Privilege: what ptrace access asks for (ptrace(2), "Ptrace access mode checking"): the same user and a dumpable
//! target, or CAP_SYS_PTRACE. A process has one tracer at most: EPERM where it has another.
//!
//! A thread that may be running is a [`Running`], one in a ptrace stop a [`Stopped`]; neither can be copied, and what
//! is only true of a stopped thread can only be asked of one. Letting a [`Stopped`] go takes it away.
//!
//! ESRCH from any of these has three meanings (ptrace(2), "Errors"): the thread is gone; it isn't ours; it isn't
//! stopped. Since the types keep the last two from happening, it means gone: a SIGKILL can take a thread out of any
//! stop at any moment.

use std::os::fd::RawFd;

use syscalls::Sysno;

use crate::arch::Registers;
use crate::error::{Failed, Result};
use crate::gate::syscall;

const SEIZE: usize = 0x4206;
const INTERRUPT: usize = 0x4207;
const CONT: usize = 7;
const SYSCALL: usize = 24;
const DETACH: usize = 17;
const GET_THREAD_AREA: usize = 25;
const SETOPTIONS: usize = 0x4200;
const GETREGSET: usize = 0x4204;
const SETREGSET: usize = 0x4205;
const GETSIGMASK: usize = 0x420a;
const SETSIGMASK: usize = 0x420b;
const PEEKSIGINFO: usize = 0x4209;
const GETSIGINFO: usize = 0x4202;
const GET_RSEQ_CONFIGURATION: usize = 0x420f;
const GETEVENTMSG: usize = 0x4201;
const SECCOMP_GET_FILTER: usize = 0x420c;
const SECCOMP_GET_METADATA: usize = 0x420d;
const GET_SYSCALL_USER_DISPATCH_CONFIG: usize = 0x4211;

const NT_PRSTATUS: usize = 1;
const NT_X86_XSTATE: usize = 0x202;

/// Syscall stops are marked by bit 7. Without it, a tracer's death in a syscall stop delivers a real SIGTRAP.
const O_TRACESYSGOOD: usize = 1;
/// The tracer's death kills the tracee.
const O_EXITKILL: usize = 1 << 20;
/// The thread's seccomp filters don't judge what it calls, as long as it is ours.
const O_SUSPEND_SECCOMP: usize = 1 << 21;

const EVENT_STOP: i32 = 128;

fn ptrace(request: usize, tid: i32, addr: usize, data: usize, name: &str) -> Result<usize> {
    // SAFETY: each caller below passes, in `addr` and `data`, what its request takes: numbers, or pointers to buffers
    // that live over the call and that the kernel fills no further than the length given.
    unsafe { syscall(Sysno::ptrace, [request, tid as usize, addr, data, 0, 0]) }
        .map_err(|e| e.of(format!("ptrace({name}, {tid})")))
}

/// Why a thread stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// By our PTRACE_INTERRUPT, or because it was born traced.
    Interrupt,
    /// Its process is stopped by job control, with this signal.
    Group(i32),
    /// A signal is about to be delivered to it.
    Signal(i32),
    /// At the entry or the exit of a system call.
    Syscall,
    /// Some other event, by its number (PTRACE_EVENT_…).
    Event(i32),
}

/// What waiting for a thread found.
#[derive(Debug)]
pub enum Waited {
    /// It stopped.
    Stopped(Stopped),
    /// It is gone: its wait status.
    Gone(i32),
    /// Nothing yet.
    Still(Running),
}

/// A seized thread that may be running.
#[derive(Debug)]
pub struct Running {
    tid: i32,
}

/// A seized thread in a ptrace stop.
#[derive(Debug)]
pub struct Stopped {
    tid: i32,
    stop: Stop,
}

impl Running {
    /// Seizes a thread (PTRACE_SEIZE). It runs on; our death lets it go.
    ///
    /// # Errors
    /// EPERM: no ptrace access, or it has a tracer. ESRCH: it is gone.
    pub fn seize(tid: i32) -> Result<Running> {
        ptrace(SEIZE, tid, 0, O_TRACESYSGOOD, "PTRACE_SEIZE")?;
        Ok(Running { tid })
    }

    /// Seizes a thread that dies if we do, until [`Stopped::outlive`].
    pub fn seize_for_life(tid: i32) -> Result<Running> {
        ptrace(SEIZE, tid, 0, O_TRACESYSGOOD | O_EXITKILL, "PTRACE_SEIZE, PTRACE_O_EXITKILL")?;
        Ok(Running { tid })
    }

    /// The same for a thread that is under seccomp, or is about to be: its filters judge nothing while it is ours.
    ///
    /// # Errors
    /// As [`Stopped::suspend_seccomp`].
    pub fn seize_for_life_suspended(tid: i32) -> Result<Running> {
        let options = O_TRACESYSGOOD | O_EXITKILL | O_SUSPEND_SECCOMP;
        ptrace(SEIZE, tid, 0, options, "PTRACE_SEIZE, PTRACE_O_EXITKILL | PTRACE_O_SUSPEND_SECCOMP")?;
        Ok(Running { tid })
    }

    /// A thread that is ours already: after an exec, the thread that called it goes on under the leader's tid.
    pub fn adopt(tid: i32) -> Running {
        Running { tid }
    }

    /// Which thread.
    pub fn tid(&self) -> i32 {
        self.tid
    }

    /// Asks it to stop (PTRACE_INTERRUPT); [`Running::wait`] tells when it has.
    pub fn interrupt(&self) -> Result<()> {
        ptrace(INTERRUPT, self.tid, 0, 0, "PTRACE_INTERRUPT").map(drop)
    }

    /// Waits for the next stop, or the end, of the thread.
    pub fn wait(self) -> Result<Waited> {
        self.wait_with(0)
    }

    /// Looks whether it has stopped or ended, without waiting.
    pub fn poll(self) -> Result<Waited> {
        self.wait_with(libc::WNOHANG)
    }

    fn wait_with(self, flags: i32) -> Result<Waited> {
        let mut status = 0i32;
        let tid = self.tid;
        loop {
            let args = [tid as usize, &raw mut status as usize, (flags | libc::__WALL) as usize, 0, 0, 0];
            // SAFETY: the status lives over the call.
            match unsafe { syscall(Sysno::wait4, args) } {
                Ok(0) => return Ok(Waited::Still(self)),
                Ok(_) => break,
                Err(e) if e.is(libc::EINTR) => continue,
                Err(e) => return Err(e.of(format!("wait4({tid}, __WALL)"))),
            }
        }
        if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
            return Ok(Waited::Gone(status));
        }
        let signal = libc::WSTOPSIG(status);
        let stop = match status >> 16 {
            EVENT_STOP if signal == libc::SIGTRAP => Stop::Interrupt,
            EVENT_STOP => Stop::Group(signal),
            0 if signal == libc::SIGTRAP | 0x80 => Stop::Syscall,
            0 => Stop::Signal(signal),
            event => Stop::Event(event),
        };
        Ok(Waited::Stopped(Stopped { tid, stop }))
    }
}

impl Stopped {
    /// A thread that is ours, and in a ptrace stop that we may not have waited for: why is unknown.
    pub(crate) fn adopt(tid: i32) -> Stopped {
        Stopped { tid, stop: Stop::Interrupt }
    }

    /// Which thread.
    pub fn tid(&self) -> i32 {
        self.tid
    }

    /// Why it stopped.
    pub fn stop(&self) -> Stop {
        self.stop
    }

    /// Has it stop again as soon as it is let go, before it runs any code of its own (PTRACE_INTERRUPT of a stopped
    /// thread stays pending).
    pub fn interrupt_next(&self) -> Result<()> {
        ptrace(INTERRUPT, self.tid, 0, 0, "PTRACE_INTERRUPT").map(drop)
    }

    /// Lets it run, delivering `signal` (0: none) where it stopped for one.
    pub fn resume(self, signal: i32) -> Result<Running> {
        ptrace(CONT, self.tid, 0, signal as usize, "PTRACE_CONT")?;
        Ok(Running { tid: self.tid })
    }

    /// As [`Stopped::resume`], which is tried once more where it fails.
    pub fn resume_or_again(self, signal: i32) -> Result<Running> {
        let resume = || ptrace(CONT, self.tid, 0, signal as usize, "PTRACE_CONT");
        resume().or_else(|_| resume())?;
        Ok(Running { tid: self.tid })
    }

    /// Lets it run to the next entry or exit of a system call, and delivers the signal that it stopped for, if it stopped for
    /// one: found out from the kernel.
    pub(crate) fn resume_to_syscall_with_its_signal(self) -> Result<Running> {
        // struct siginfo {s32 si_signo; s32 si_errno; s32 si_code; …}: stops that aren't for a signal say SIGTRAP with a code
        // above 0 (ptrace(2)), or EINVAL.
        let signal = match self.signal_info() {
            Ok(info) => {
                let word =
                    |at: usize| i32::from_ne_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]]);
                if word(0) == libc::SIGTRAP && word(8) > 0 { 0 } else { word(0) }
            }
            Err(_) => 0,
        };
        self.resume_to_syscall(signal)
    }

    /// Lets it run to the next entry or exit of a system call, delivering `signal` (0: none).
    pub fn resume_to_syscall(self, signal: i32) -> Result<Running> {
        ptrace(SYSCALL, self.tid, 0, signal as usize, "PTRACE_SYSCALL")?;
        Ok(Running { tid: self.tid })
    }

    /// From now on our death lets it go instead of killing it.
    pub fn outlive(&self) -> Result<()> {
        ptrace(SETOPTIONS, self.tid, 0, O_TRACESYSGOOD, "PTRACE_SETOPTIONS").map(drop)
    }

    /// As [`Stopped::outlive`], with its seccomp filters still suspended.
    pub fn outlive_suspended(&self) -> Result<()> {
        let options = O_TRACESYSGOOD | O_SUSPEND_SECCOMP;
        ptrace(SETOPTIONS, self.tid, 0, options, "PTRACE_SETOPTIONS, PTRACE_O_SUSPEND_SECCOMP").map(drop)
    }

    /// From now on its seccomp filters, or strict mode, judge nothing, until it is let go or we end.
    ///
    /// # Errors
    /// EPERM: that needs CAP_SYS_ADMIN in the first user namespace, and that we aren't under seccomp ourselves.
    /// EINVAL: the kernel lacks CONFIG_CHECKPOINT_RESTORE.
    pub fn suspend_seccomp(&self) -> Result<()> {
        self.outlive_suspended()
    }

    /// Its seccomp filter of this index, the oldest being 0: instructions as eight bytes each (`struct sock_filter`). None
    /// where it has no such filter.
    ///
    /// # Errors
    /// EACCES: that needs CAP_SYS_ADMIN in the first user namespace, and that we aren't under seccomp ourselves.
    pub fn seccomp_filter(&self, index: usize) -> Result<Option<Vec<u8>>> {
        const INSTRUCTION: usize = 8;
        const NAME: &str = "PTRACE_SECCOMP_GET_FILTER";
        let len = match ptrace(SECCOMP_GET_FILTER, self.tid, index, 0, NAME) {
            Err(e) if e.is(libc::ENOENT) => return Ok(None),
            // It has none at all.
            Err(e) if e.is(libc::EINVAL) && index == 0 => return Ok(None),
            other => other?,
        };
        // BPF_MAXINSNS: no filter is longer. The thread stands still: it gets no other one in between.
        if len > 4096 {
            return Err(Failed::unexpected(format!("a seccomp filter of {len} instructions")));
        }
        let mut program = vec![0u8; len * INSTRUCTION];
        let again = ptrace(SECCOMP_GET_FILTER, self.tid, index, program.as_mut_ptr() as usize, NAME)?;
        if again != len {
            return Err(Failed::unexpected(format!(
                "a seccomp filter of {len} instructions, then of {again}"
            )));
        }
        Ok(Some(program))
    }

    /// The SECCOMP_FILTER_FLAG_… that can still be told of this filter: LOG alone.
    ///
    /// # Errors
    /// As [`Stopped::seccomp_filter`].
    pub fn seccomp_flags(&self, index: usize) -> Result<u64> {
        // struct seccomp_metadata {u64 filter_off; u64 flags} (linux/ptrace.h)
        let mut metadata = [index as u64, 0];
        let at = metadata.as_mut_ptr() as usize;
        ptrace(SECCOMP_GET_METADATA, self.tid, size_of_val(&metadata), at, "PTRACE_SECCOMP_GET_METADATA")?;
        Ok(metadata[1])
    }

    /// Its syscall user dispatch (prctl(2), PR_SET_SYSCALL_USER_DISPATCH): where system calls outside a range of addresses become
    /// SIGSYS. None where it is off, or the kernel (before 6.4) doesn't tell.
    pub fn user_dispatch(&self) -> Result<Option<UserDispatch>> {
        let mut dispatch = UserDispatch::default();
        let (len, at) = (size_of::<UserDispatch>(), &raw mut dispatch as usize);
        match ptrace(
            GET_SYSCALL_USER_DISPATCH_CONFIG,
            self.tid,
            len,
            at,
            "PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG",
        ) {
            Ok(_) => Ok((dispatch.mode != 0).then_some(dispatch)),
            // What ptrace(2) doesn't know is EIO.
            Err(e) if e.is(libc::EIO) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Whether it has a segment in one of the slots of set_thread_area(2). None has one on a kernel without 32-bit code.
    pub fn has_thread_area(&self) -> Result<bool> {
        /// The first of the three slots, GDT_ENTRY_TLS_MIN (asm/segment.h).
        const FIRST: usize = 12;
        /// Of `struct user_desc` (asm/ldt.h), the bit after seg_32bit, contents, read_exec_only and limit_in_pages.
        const SEG_NOT_PRESENT: u32 = 1 << 5;
        for slot in FIRST..FIRST + 3 {
            // struct user_desc {entry_number, base_addr, limit, bits}
            let mut descriptor = [0u32; 4];
            let at = descriptor.as_mut_ptr() as usize;
            match ptrace(GET_THREAD_AREA, self.tid, slot, at, "PTRACE_GET_THREAD_AREA") {
                Ok(_) if descriptor[3] & SEG_NOT_PRESENT == 0 => return Ok(true),
                Ok(_) => {}
                Err(e) if e.is(libc::EIO) => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        Ok(false)
    }

    /// Lets it go for good, delivering `signal` (0: none). A process that job control stopped stays stopped.
    pub fn detach(self, signal: i32) -> Result<()> {
        let detach = || ptrace(DETACH, self.tid, 0, signal as usize, "PTRACE_DETACH").map(drop);
        // Once more, but for a thread that is gone: left alone, it would stand until we end.
        detach().or_else(|e| if e.is(libc::ESRCH) { Err(e) } else { detach() })
    }

    /// Its general registers.
    pub fn registers(&self) -> Result<Registers> {
        let mut registers = Registers::default();
        let mut iov = libc::iovec { iov_base: (&raw mut registers).cast(), iov_len: size_of::<Registers>() };
        ptrace(GETREGSET, self.tid, NT_PRSTATUS, &raw mut iov as usize, "PTRACE_GETREGSET, NT_PRSTATUS")?;
        if iov.iov_len != size_of::<Registers>() {
            return Err(Failed::unexpected(format!(
                "thread {}: registers of {} bytes",
                self.tid, iov.iov_len
            )));
        }
        Ok(registers)
    }

    /// Sets its general registers, all at once. The segment registers and bases are checked by the kernel.
    pub fn set_registers(&self, registers: &Registers) -> Result<()> {
        let mut registers = *registers;
        let mut iov = libc::iovec { iov_base: (&raw mut registers).cast(), iov_len: size_of::<Registers>() };
        ptrace(SETREGSET, self.tid, NT_PRSTATUS, &raw mut iov as usize, "PTRACE_SETREGSET, NT_PRSTATUS")
            .map(drop)
    }

    /// Its whole extended state (x87, SSE, AVX, AVX-512, AMX), in the processor's XSAVE layout, not compacted.
    pub fn xstate(&self) -> Result<Vec<u8>> {
        let mut buffer = vec![0u8; 16 << 10];
        let mut iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        ptrace(GETREGSET, self.tid, NT_X86_XSTATE, &raw mut iov as usize, "PTRACE_GETREGSET, NT_X86_XSTATE")?;
        buffer.truncate(iov.iov_len);
        Ok(buffer)
    }

    /// Sets its extended state; the kernel refuses (EINVAL) reserved bits, and AMX without the permission for it.
    pub fn set_xstate(&self, state: &[u8]) -> Result<()> {
        let mut state = state.to_vec();
        let mut iov = libc::iovec { iov_base: state.as_mut_ptr().cast(), iov_len: state.len() };
        ptrace(SETREGSET, self.tid, NT_X86_XSTATE, &raw mut iov as usize, "PTRACE_SETREGSET, NT_X86_XSTATE")
            .map(drop)
    }

    /// Its signal mask: the one it has when the call it may be in (sigsuspend, ppoll, …) is over.
    pub fn signal_mask(&self) -> Result<u64> {
        let mut mask = 0u64;
        ptrace(GETSIGMASK, self.tid, 8, &raw mut mask as usize, "PTRACE_GETSIGMASK")?;
        Ok(mask)
    }

    /// Sets its signal mask.
    pub fn set_signal_mask(&self, mask: u64) -> Result<()> {
        let mut mask = mask;
        ptrace(SETSIGMASK, self.tid, 8, &raw mut mask as usize, "PTRACE_SETSIGMASK").map(drop)
    }

    /// The `siginfo_t` of the signal it stopped for, as the kernel lays it out (128 bytes).
    pub fn signal_info(&self) -> Result<[u8; 128]> {
        let mut info = [0u8; 128];
        ptrace(GETSIGINFO, self.tid, 0, info.as_mut_ptr() as usize, "PTRACE_GETSIGINFO")?;
        Ok(info)
    }

    /// The pending signals of the thread, or of its process (`shared`), in the order of the queue, without taking them
    /// (PTRACE_PEEKSIGINFO): each a `siginfo_t` of 128 bytes.
    pub fn pending_signals(&self, shared: bool) -> Result<Vec<[u8; 128]>> {
        #[repr(C)]
        struct PeekArgs {
            off: u64,
            flags: u32,
            nr: i32,
        }
        let mut all = Vec::new();
        let mut infos = vec![[0u8; 128]; 32];
        loop {
            let mut peek =
                PeekArgs { off: all.len() as u64, flags: u32::from(shared), nr: infos.len() as i32 };
            let n = ptrace(
                PEEKSIGINFO,
                self.tid,
                &raw mut peek as usize,
                infos.as_mut_ptr() as usize,
                "PTRACE_PEEKSIGINFO",
            )?;
            all.extend_from_slice(&infos[..n.min(infos.len())]);
            if n < infos.len() {
                return Ok(all);
            }
        }
    }

    /// The thread's restartable-sequences registration (rseq(2)): address, length and signature; none where it has none.
    pub fn rseq(&self) -> Result<Option<Rseq>> {
        let mut rseq = Rseq::default();
        match ptrace(
            GET_RSEQ_CONFIGURATION,
            self.tid,
            size_of::<Rseq>(),
            &raw mut rseq as usize,
            "PTRACE_GET_RSEQ_CONFIGURATION",
        ) {
            Ok(_) => Ok((rseq.address != 0).then_some(rseq)),
            // Kernels without rseq say EIO.
            Err(e) if e.is(libc::EIO) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The message of the event it stopped for (PTRACE_GETEVENTMSG).
    pub fn event_message(&self) -> Result<u64> {
        let mut message = 0u64;
        ptrace(GETEVENTMSG, self.tid, 0, &raw mut message as usize, "PTRACE_GETEVENTMSG")?;
        Ok(message)
    }
}

/// `struct ptrace_sud_config` (linux/ptrace.h).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UserDispatch {
    /// PR_SYS_DISPATCH_…; 0: off.
    pub mode: u64,
    /// The address of the byte that says whether calls are dispatched now.
    pub selector: u64,
    /// The range of addresses: from where.
    pub offset: u64,
    /// And how long it is.
    pub len: u64,
}

/// `struct ptrace_rseq_configuration` (linux/ptrace.h).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rseq {
    /// Where the thread's `struct rseq` is, in the target.
    pub address: u64,
    /// How long it is.
    pub size: u32,
    /// The signature before every abort handler.
    pub signature: u32,
    flags: u32,
    pad: u32,
}

/// The head of a thread's robust futex list and its length (get_robust_list(2)); ptrace access is needed.
pub fn robust_list(tid: i32) -> Result<(u64, u64)> {
    let (mut head, mut len) = (0u64, 0u64);
    let args = [tid as usize, &raw mut head as usize, &raw mut len as usize, 0, 0, 0];
    // SAFETY: both results live over the call.
    unsafe { syscall(Sysno::get_robust_list, args) }.map_err(|e| e.of(format!("get_robust_list({tid})")))?;
    Ok((head, len))
}

/// Pins the calling thread to one processor until dropped; then its old mask is back.
///
/// Handing over between tracer and target costs 5 µs on one processor and 100 across two.
#[derive(Debug)]
pub struct Pinned {
    old: [u64; 16],
}

impl Pinned {
    /// Pins us to this processor. Where that isn't allowed, nothing is pinned.
    pub fn to(cpu: usize) -> Option<Pinned> {
        let mut old = [0u64; 16];
        affinity(0, Sysno::sched_getaffinity, &mut old).ok()?;
        let mut one = [0u64; 16];
        *one.get_mut(cpu / 64)? |= 1 << (cpu % 64);
        affinity(0, Sysno::sched_setaffinity, &mut one).ok()?;
        Some(Pinned { old })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = affinity(0, Sysno::sched_setaffinity, &mut self.old);
    }
}

fn affinity(tid: i32, nr: Sysno, mask: &mut [u64; 16]) -> Result<usize> {
    // SAFETY: the mask is 128 bytes and lives over the call.
    unsafe { syscall(nr, [tid as usize, 128, mask.as_mut_ptr() as usize, 0, 0, 0]) }
}

/// The processors a thread may run on (sched_getaffinity(2)), as the kernel's bit mask without its trailing zeros.
pub fn cpu_mask(tid: i32) -> Result<Vec<u8>> {
    let mut mask = [0u64; 16];
    let n = affinity(tid, Sysno::sched_getaffinity, &mut mask)
        .map_err(|e| e.of(format!("sched_getaffinity({tid})")))?;
    let mut bytes: Vec<u8> = mask.iter().flat_map(|word| word.to_ne_bytes()).take(n).collect();
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    Ok(bytes)
}

/// A thread's scheduling policy with its flag (sched_getscheduler(2)).
pub fn scheduler(tid: i32) -> Result<u32> {
    // SAFETY: no memory is touched.
    unsafe { syscall(Sysno::sched_getscheduler, [tid as usize, 0, 0, 0, 0, 0]) }
        .map(|policy| policy as u32)
        .map_err(|e| e.of(format!("sched_getscheduler({tid})")))
}

/// A thread's cookie of core scheduling (prctl(2), PR_SCHED_CORE_GET): only threads of one cookie share a core. 0: none,
/// or a kernel or a processor that has no such thing. Privilege: that to trace it.
pub fn core_cookie(tid: i32) -> Result<u64> {
    const PR_SCHED_CORE: usize = 62;
    const PR_SCHED_CORE_GET: usize = 0;
    const PIDTYPE_PID: usize = 0;
    let mut cookie = 0u64;
    let args = [PR_SCHED_CORE, PR_SCHED_CORE_GET, tid as usize, PIDTYPE_PID, &raw mut cookie as usize, 0];
    // SAFETY: the result lives over the call.
    match unsafe { syscall(Sysno::prctl, args) } {
        Ok(_) => Ok(cookie),
        Err(e) if e.is(libc::EINVAL) || e.is(libc::ENODEV) => Ok(0),
        Err(e) => Err(e.of(format!("prctl(PR_SCHED_CORE_GET, {tid})"))),
    }
}

/// Whether we are kept from making memory executable that isn't (prctl(2), PR_SET_MDWE), and with us all that we fork.
pub fn hands_on_executable_rule() -> bool {
    const PR_GET_MDWE: usize = 66;
    const REFUSE_EXEC_GAIN: usize = 1;
    const NO_INHERIT: usize = 2;
    // SAFETY: no memory is touched. A kernel without it says EINVAL.
    let rule = unsafe { syscall(Sysno::prctl, [PR_GET_MDWE, 0, 0, 0, 0, 0]) }.unwrap_or(0);
    rule & (REFUSE_EXEC_GAIN | NO_INHERIT) == REFUSE_EXEC_GAIN
}

/// A thread's I/O priority (ioprio_get(2)).
pub fn io_priority(tid: i32) -> Result<u32> {
    const IOPRIO_WHO_PROCESS: usize = 1;
    // SAFETY: no memory is touched.
    unsafe { syscall(Sysno::ioprio_get, [IOPRIO_WHO_PROCESS, tid as usize, 0, 0, 0, 0]) }
        .map(|priority| priority as u32)
        .map_err(|e| e.of(format!("ioprio_get({tid})")))
}

/// Waits for any child without blocking, for reaping: its pid and status.
pub fn reap(pid: i32, flags: i32) -> Result<Option<(i32, i32)>> {
    let mut status = 0i32;
    // SAFETY: the status lives over the call.
    let got =
        unsafe { syscall(Sysno::wait4, [pid as usize, &raw mut status as usize, flags as usize, 0, 0, 0]) }
            .map_err(|e| e.of(format!("wait4({pid})")))?;
    Ok((got != 0).then_some((got as i32, status)))
}

/// While it lives, orphans among our descendants become our children (prctl(2), PR_SET_CHILD_SUBREAPER): we can fetch
/// their ends. Privilege: none.
#[derive(Debug)]
pub struct Subreaper {
    before: i32,
}

impl Subreaper {
    /// Begins.
    pub fn begin() -> Result<Subreaper> {
        let mut before = 0i32;
        // SAFETY: the value lives over the call.
        unsafe {
            let at = &raw mut before as usize;
            syscall(Sysno::prctl, [libc::PR_GET_CHILD_SUBREAPER as usize, at, 0, 0, 0, 0])?;
        }
        set_subreaper(1)?;
        Ok(Subreaper { before })
    }
}

impl Drop for Subreaper {
    fn drop(&mut self) {
        let _ = set_subreaper(self.before).or_else(|_| set_subreaper(self.before));
    }
}

fn set_subreaper(value: i32) -> Result<()> {
    // SAFETY: no memory is touched.
    unsafe { syscall(Sysno::prctl, [libc::PR_SET_CHILD_SUBREAPER as usize, value as usize, 0, 0, 0, 0]) }
        .map(drop)
}

/// Sends a signal to one process (kill(2)). Never to a group: pids below 2 are refused here.
pub fn kill(pid: i32, signal: i32) -> Result<()> {
    assert!(pid > 1, "kill({pid}) would hit more than one process");
    // SAFETY: no memory is touched.
    unsafe { syscall(Sysno::kill, [pid as usize, signal as usize, 0, 0, 0, 0]) }
        .map(drop)
        .map_err(|e| e.of(format!("kill({pid}, {signal})")))
}

/// Whether a process with this pid is there (kill(2) with signal 0).
///
/// # Errors
/// ESRCH: there is none. EPERM counts as being there.
pub fn kill_would(pid: i32) -> Result<()> {
    match kill(pid, 0) {
        Err(e) if e.is(libc::EPERM) => Ok(()),
        other => other,
    }
}

/// Whether somebody is in the process group of this number (kill(2) with signal 0, which signals nobody). EPERM counts as yes,
/// whatever else fails as no.
pub fn group_is_there(group: i32) -> bool {
    assert!(group > 1, "kill({group}) would be about more than one group");
    // SAFETY: no memory is touched.
    let asked = unsafe { syscall(Sysno::kill, [-(group as isize) as usize, 0, 0, 0, 0, 0]) };
    asked.map_or_else(|e| e.is(libc::EPERM), |_| true)
}

/// A descriptor number in a target: not ours to use or close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TargetFd(pub RawFd);
