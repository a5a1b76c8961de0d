//! x86-64: registers, the stub's code, and what an interrupted system call looks like.

use crate::stub::SlotData;

/// The architecture's name, as `uname -m` gives it.
pub const NAME: &str = "x86_64";

/// The number of `restart_syscall(2)`.
const NR_RESTART_SYSCALL: u64 = 219;

// Error numbers that never leave the kernel, except to a tracer (include/linux/errno.h).
const ERESTARTSYS: i64 = 512;
const ERESTARTNOINTR: i64 = 513;
const ERESTARTNOHAND: i64 = 514;
const ERESTART_RESTARTBLOCK: i64 = 516;

/// The general registers, in the order of `struct user_regs_struct` (sys/user.h), which PTRACE_GETREGSET with
/// NT_PRSTATUS fills.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the architecture's own names")]
pub struct Registers {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub orig_rax: u64,
    pub rip: u64,
    pub cs: u64,
    pub eflags: u64,
    pub rsp: u64,
    pub ss: u64,
    pub fs_base: u64,
    pub gs_base: u64,
    pub ds: u64,
    pub es: u64,
    pub fs: u64,
    pub gs: u64,
}

const _: () = assert!(size_of::<Registers>() == 27 * 8);

/// The code segment of 64-bit user code; 32-bit code runs with another.
pub const USER_CS: u64 = 0x33;
/// The stack segment of user code.
pub const USER_SS: u64 = 0x2b;

/// How a thread stood when it was stopped, as far as system calls go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupted {
    /// In user code, or a call that had just finished.
    No,
    /// In a call that the kernel would simply make again.
    Again(u64),
    /// In a call with a time that runs on: the kernel continues it by `restart_syscall(2)`.
    Block(u64),
    /// In a call that returns EINTR for a mere stop, though no signal was handled (FACTS: spurious EINTR).
    Spurious(u64),
}

impl Registers {
    /// The instruction pointer.
    pub fn ip(&self) -> u64 {
        self.rip
    }

    /// The stack pointer.
    pub fn sp(&self) -> u64 {
        self.rsp
    }

    /// Whether the thread runs 64-bit code: bardo doesn't handle any other.
    pub fn is_native(&self) -> bool {
        self.cs == USER_CS
    }

    /// The system call the thread is in, if it is in one; only the lower 32 bits count for the kernel.
    pub fn call(&self) -> Option<u64> {
        let nr = self.orig_rax as u32 as i32;
        (nr >= 0).then_some(nr as u64)
    }

    /// The call's six arguments, as they were at its entry.
    pub fn arguments(&self) -> [u64; 6] {
        [self.rdi, self.rsi, self.rdx, self.r10, self.r8, self.r9]
    }

    /// What kind of interrupted call this is.
    pub fn interrupted(&self) -> Interrupted {
        let Some(nr) = self.call() else { return Interrupted::No };
        match -(self.rax as i64) {
            ERESTARTSYS | ERESTARTNOINTR | ERESTARTNOHAND => Interrupted::Again(nr),
            ERESTART_RESTARTBLOCK => Interrupted::Block(nr),
            e if e == i64::from(libc::EINTR) && returns_spurious_eintr(nr) => Interrupted::Spurious(nr),
            _ => Interrupted::No,
        }
    }

    /// The registers with which the thread makes the call once more.
    #[must_use]
    pub fn again(mut self) -> Registers {
        if let Some(nr) = self.call() {
            self.rax = nr;
            // `syscall` is two bytes long.
            self.rip -= 2;
            self.orig_rax = u64::MAX;
        }
        self
    }

    /// The registers with which the thread goes on in user mode by itself, with the kernel's restart worked in: what
    /// the kernel would do at the end of signal handling when no handler runs (arch_do_signal_or_restart).
    #[must_use]
    pub fn resumed(self) -> Registers {
        match self.interrupted() {
            Interrupted::No => Registers { orig_rax: u64::MAX, ..self },
            Interrupted::Again(_) | Interrupted::Spurious(_) => self.again(),
            Interrupted::Block(_) => Registers { rax: NR_RESTART_SYSCALL, ..self.again() },
        }
    }

    /// Registers that start the stub at `entry`; the kernel restarts no call on them.
    #[must_use]
    pub fn at(self, entry: u64) -> Registers {
        Registers { rip: entry, orig_rax: u64::MAX, rax: 0, ..self }
    }
}

/// Calls that answer a stop with EINTR (measured; signal(7), "Interruption of system calls … by stop signals").
fn returns_spurious_eintr(nr: u64) -> bool {
    matches!(
        nr as libc::c_long,
        libc::SYS_epoll_wait
            | libc::SYS_epoll_pwait
            | libc::SYS_epoll_pwait2
            | libc::SYS_rt_sigtimedwait
            | libc::SYS_semop
            | libc::SYS_semtimedop
            | libc::SYS_io_getevents
            | 333 // io_pgetevents
            | libc::SYS_recvfrom
            | libc::SYS_recvmsg
            | libc::SYS_recvmmsg
            | libc::SYS_accept
            | libc::SYS_accept4
            | libc::SYS_read
            | libc::SYS_readv
            | libc::SYS_write
            | libc::SYS_writev
            | libc::SYS_sendto
            | libc::SYS_sendmsg
            | libc::SYS_sendmmsg
            | libc::SYS_io_uring_enter
    )
}

// The stub. It runs inside a target, in memory that may be read-only to it, and uses no stack at all.
//
// Registers: rbx the control block, r12 the step, r13 how many are left. Layouts: `stub::Control`, `stub::Step`,
// `stub::SlotData`. Nothing here may fault, whatever becomes of us: a thread that left our hands runs it alone.
std::arch::global_asm!(
    r#"
    .pushsection .rodata.bardo_stub,"a",@progbits
    .globl bardo_stub_begin, bardo_stub_boot, bardo_stub_enter, bardo_stub_unmap, bardo_stub_data, bardo_stub_end
    .globl bardo_stub_unmap_call
    .p2align 4
bardo_stub_begin:

    // Entry for the first thread: make the area that is shared with bardo. bardo takes the descriptor while we stand at
    // the exit of memfd_create, and sizes the file; if it dies before that, the area can't be touched, only probed.
bardo_stub_boot:
    lea     bardo_stub_all_signals(%rip), %rsi
    mov     $2, %edi                            // SIG_SETMASK
    xor     %edx, %edx
    mov     $8, %r10d
    mov     $14, %eax                           // rt_sigprocmask
    syscall
    lea     bardo_stub_name(%rip), %rdi
    mov     bardo_stub_memfd_flags(%rip), %esi
    mov     $319, %eax                          // memfd_create
    syscall
    test    %rax, %rax
    js      .Lbardo_leave_unmapped
    mov     %rax, %r12
    mov     bardo_stub_area(%rip), %rdi
    mov     bardo_stub_area_len(%rip), %rsi
    mov     $3, %edx                            // PROT_READ | PROT_WRITE
    mov     $0x100001, %r10d                    // MAP_SHARED | MAP_FIXED_NOREPLACE
    mov     %r12, %r8
    xor     %r9d, %r9d
    mov     $9, %eax                            // mmap
    syscall
    mov     %rax, %r13
    mov     %r12, %rdi
    mov     $3, %eax                            // close
    syscall
    cmp     bardo_stub_area(%rip), %r13
    jne     .Lbardo_leave_unmapped
    mov     bardo_stub_control(%rip), %rdi
    add     $120, %rdi
    mov     $8, %esi
    mov     $127, %eax                          // rt_sigpending writes 8 bytes there, or says EFAULT
    syscall
    test    %rax, %rax
    jnz     bardo_stub_unmap
    jmp     .Lbardo_loop

    // Entry for every other thread.
bardo_stub_enter:
    lea     bardo_stub_all_signals(%rip), %rsi
    mov     $2, %edi
    xor     %edx, %edx
    mov     $8, %r10d
    mov     $14, %eax
    syscall

.Lbardo_loop:
    mov     bardo_stub_control(%rip), %rbx
    mov     4(%rbx), %eax                       // posted
    cmp     8(%rbx), %eax                       // done
    jne     .Lbardo_run
    mov     bardo_stub_word(%rip), %rdx
    mov     (%rdx), %ecx                        // the robust futex that bardo holds while it lives
    test    $0x3fffffff, %ecx
    jz      .Lbardo_orphan
    mov     %rax, 32(%rbx)                      // struct futex_waitv[2]: posted is still this, the word is still that
    mov     %rcx, 56(%rbx)
    lea     32(%rbx), %rdi
    mov     $2, %esi
    xor     %edx, %edx
    xor     %r10d, %r10d
    xor     %r8d, %r8d
    mov     $449, %eax                          // futex_waitv
    syscall
    jmp     .Lbardo_loop

.Lbardo_run:
    mov     16(%rbx), %r12
    mov     24(%rbx), %r13
.Lbardo_step:
    test    %r13, %r13
    jz      .Lbardo_finished
    mov     (%r12), %rax
    mov     8(%r12), %rdi
    mov     16(%r12), %rsi
    mov     24(%r12), %rdx
    mov     32(%r12), %r10
    mov     40(%r12), %r8
    mov     48(%r12), %r9
    syscall
    test    %rax, %rax
    jnz     .Lbardo_result
    cmpq    $435, (%r12)                        // clone3 returned in the child: it has a slot of its own
    jne     .Lbardo_result
    mov     56(%r12), %rax
    jmp     *%rax
.Lbardo_result:
    mov     %rax, 64(%r12)
    cmpq    $435, (%r12)
    je      .Lbardo_must
    mov     56(%r12), %rcx
    cmp     %rcx, %rax
    je      .Lbardo_next
    mov     bardo_stub_any(%rip), %rdx
    cmp     %rdx, %rcx                          // any result will do
    je      .Lbardo_next
    inc     %rdx
    cmp     %rdx, %rcx                          // any result but an error will do
    jne     .Lbardo_finished
.Lbardo_must:
    cmp     $-4096, %rax
    ja      .Lbardo_finished
.Lbardo_next:
    add     $72, %r12
    dec     %r13
    jmp     .Lbardo_step

.Lbardo_finished:
    mov     %r13, 24(%rbx)
    mov     4(%rbx), %eax
    mov     %eax, 8(%rbx)
    lea     8(%rbx), %rdi
    mov     $1, %esi                            // FUTEX_WAKE
    mov     $1, %edx
    mov     $202, %eax
    syscall
    jmp     .Lbardo_loop

    // bardo is gone, or has let go of us. The kernel wakes only one waiter of a robust futex: pass it on.
.Lbardo_orphan:
    mov     bardo_stub_word(%rip), %rdi
    mov     $1, %esi
    mov     $0x7fffffff, %edx
    mov     $202, %eax
    syscall
    mov     bardo_stub_commit(%rip), %rax
    test    %rax, %rax
    jz      bardo_stub_unmap
    cmpl    $0, (%rax)
    jne     bardo_stub_unmap
    mov     $137, %edi
    mov     $231, %eax                          // exit_group: a restart that wasn't committed leaves nothing running
    syscall

    // Go back to where the thread was: unmap the area (unless another thread still uses it), restore flags, signal mask
    // and registers. Signals stay blocked while the stack pointer isn't the thread's own.
bardo_stub_unmap:
    mov     bardo_stub_unmap_len(%rip), %rsi
    test    %rsi, %rsi
    jz      .Lbardo_leave_unmapped
    mov     bardo_stub_busy(%rip), %rdi
    test    %rdi, %rdi
    jz      1f
    cmpl    $0, (%rdi)
    jne     .Lbardo_leave_unmapped
1:  mov     bardo_stub_area(%rip), %rdi
    mov     $11, %eax                           // munmap
bardo_stub_unmap_call:
    syscall
.Lbardo_leave_unmapped:
    lea     bardo_stub_all_signals(%rip), %rsi
    mov     $2, %edi
    xor     %edx, %edx
    mov     $8, %r10d
    mov     $14, %eax
    syscall
    lea     bardo_stub_flags(%rip), %rsp
    popfq
    mov     bardo_stub_rsp(%rip), %rsp
    mov     $2, %edi
    lea     bardo_stub_mask(%rip), %rsi
    mov     $0, %edx
    mov     $8, %r10d
    mov     $14, %eax
    syscall
    mov     bardo_stub_regs+0(%rip), %r15
    mov     bardo_stub_regs+8(%rip), %r14
    mov     bardo_stub_regs+16(%rip), %r13
    mov     bardo_stub_regs+24(%rip), %r12
    mov     bardo_stub_regs+32(%rip), %rbp
    mov     bardo_stub_regs+40(%rip), %rbx
    mov     bardo_stub_regs+48(%rip), %r11
    mov     bardo_stub_regs+56(%rip), %r10
    mov     bardo_stub_regs+64(%rip), %r9
    mov     bardo_stub_regs+72(%rip), %r8
    mov     bardo_stub_regs+80(%rip), %rax
    mov     bardo_stub_regs+88(%rip), %rcx
    mov     bardo_stub_regs+96(%rip), %rdx
    mov     bardo_stub_regs+104(%rip), %rsi
    mov     bardo_stub_regs+112(%rip), %rdi
    jmp     *bardo_stub_rip(%rip)

    .p2align 3
bardo_stub_data:
bardo_stub_regs:        .skip 15*8
bardo_stub_rip:         .quad 0
bardo_stub_flags:       .quad 0
bardo_stub_rsp:         .quad 0
bardo_stub_mask:        .quad 0
bardo_stub_all_signals: .quad 0xffffffffffffffff
bardo_stub_any:         .quad 0x8000000000000000
bardo_stub_area:        .quad 0
bardo_stub_area_len:    .quad 0
bardo_stub_unmap_len:   .quad 0
bardo_stub_control:     .quad 0
bardo_stub_word:        .quad 0
bardo_stub_commit:      .quad 0
bardo_stub_busy:        .quad 0
bardo_stub_memfd_flags: .quad 0
bardo_stub_name:        .quad 0
bardo_stub_end:
    .popsection
"#,
    options(att_syntax)
);

unsafe extern "C" {
    static bardo_stub_begin: u8;
    static bardo_stub_boot: u8;
    static bardo_stub_enter: u8;
    static bardo_stub_unmap: u8;
    static bardo_stub_unmap_call: u8;
    static bardo_stub_data: u8;
    static bardo_stub_end: u8;
}

/// Where the entries of the stub are, from its beginning.
#[derive(Debug, Clone, Copy)]
pub struct StubEntries {
    /// For the first thread of a checkpointed process.
    pub boot: u64,
    /// For every other thread.
    pub enter: u64,
    /// Unmaps the area and goes back to where the thread was.
    pub unmap: u64,
    /// The `munmap` call in it.
    pub unmap_call: u64,
}

fn offset(symbol: &'static u8) -> u64 {
    // SAFETY: both symbols are labels of the one blob above.
    unsafe { (&raw const *symbol).offset_from(&raw const bardo_stub_begin) as u64 }
}

/// The entries.
pub fn stub_entries() -> StubEntries {
    // SAFETY: the labels are bytes of the blob, there for the whole run of the program.
    unsafe {
        StubEntries {
            boot: offset(&bardo_stub_boot),
            enter: offset(&bardo_stub_enter),
            unmap: offset(&bardo_stub_unmap),
            unmap_call: offset(&bardo_stub_unmap_call),
        }
    }
}

/// The stub's bytes, with this data in them.
pub fn stub_bytes(data: &SlotData) -> Vec<u8> {
    // SAFETY: begin and end are the bounds of one blob of read-only memory.
    let code = unsafe {
        let len = (&raw const bardo_stub_data).offset_from(&raw const bardo_stub_begin) as usize;
        let whole = (&raw const bardo_stub_end).offset_from(&raw const bardo_stub_begin) as usize;
        assert_eq!(whole, len + size_of::<SlotData>(), "the stub's data and SlotData differ in size");
        std::slice::from_raw_parts(&raw const bardo_stub_begin, len)
    };
    let mut bytes = code.to_vec();
    bytes.extend_from_slice(data.as_bytes());
    bytes
}

/// Enters a slot of the stub in the calling process and never returns. For the child of a fork.
///
/// # Safety
/// `entry` is the address of a slot's `enter` code, mapped executable, with its control block mapped too; nothing of
/// the calling program will run any more in this thread.
pub unsafe fn enter_stub(entry: u64) -> ! {
    // SAFETY: the caller's contract; the stub uses no stack and no memory but its own.
    unsafe { std::arch::asm!("jmp *{0}", in(reg) entry, options(noreturn, att_syntax)) }
}

impl SlotData {
    /// The data of a slot that returns a thread to these registers.
    pub fn set_registers(&mut self, r: &Registers, mask: u64) {
        self.registers = [
            r.r15, r.r14, r.r13, r.r12, r.rbp, r.rbx, r.r11, r.r10, r.r9, r.r8, r.rax, r.rcx, r.rdx, r.rsi, r.rdi,
        ];
        self.ip = r.rip;
        self.flags = r.eflags;
        self.sp = r.rsp;
        self.mask = mask;
    }
}
