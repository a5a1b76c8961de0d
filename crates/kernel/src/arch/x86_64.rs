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

    /// Whether a thread in a system call stop is at the call's entry: the kernel shows ENOSYS as its result until there is one.
    pub fn is_at_entry(&self) -> bool {
        self.call().is_some() && self.rax as i64 == -i64::from(libc::ENOSYS)
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

    /// The registers with which the thread continues a call with a time that runs on, and a mark of ours on it.
    ///
    /// `restart_syscall(2)` doesn't say which call it continues, nor until when. The kernel looks at the lower half of
    /// `rax` only, but keeps all of it in `orig_rax`, which the thread never sees: that is where the mark waits for the
    /// next checkpoint.
    #[must_use]
    pub fn continued(self, mark: u32) -> Registers {
        Registers { rax: u64::from(mark) << 32 | NR_RESTART_SYSCALL, ..self.again() }
    }

    /// The mark on the call that is being continued; 0: none, or the call isn't `restart_syscall(2)`.
    pub fn mark(&self) -> u32 {
        if self.call() == Some(NR_RESTART_SYSCALL) { (self.orig_rax >> 32) as u32 } else { 0 }
    }

    /// Whether the call is `restart_syscall(2)`.
    pub fn is_continuing(&self) -> bool {
        self.call() == Some(NR_RESTART_SYSCALL)
    }

    /// The registers of a thread that stands at its `syscall` instruction, as those of one that was interrupted in this
    /// call: the kernel makes it again, or has it return EINTR if a signal is handled first.
    #[must_use]
    pub fn interrupted_in(self, nr: syscalls::Sysno) -> Registers {
        Registers { rax: -ERESTARTNOHAND as u64, orig_rax: nr.id() as u64, rip: self.rip + 2, ..self }
    }

    /// The registers of a thread that stands at its `syscall` instruction, as those of one whose call has returned this.
    #[must_use]
    pub fn after_call(self, value: u64) -> Registers {
        Registers { rax: value, orig_rax: u64::MAX, rip: self.rip + 2, ..self }
    }

    /// The registers with what the stub can't set as it goes back, taken from others: the segments' bases.
    #[must_use]
    pub fn based_as(self, other: &Registers) -> Registers {
        let Registers { fs_base, gs_base, ds, es, fs, gs, .. } = *other;
        Registers { fs_base, gs_base, ds, es, fs, gs, ..self }
    }

    /// Registers that start the stub at `entry`; the kernel restarts no call on them.
    #[must_use]
    pub fn at(self, entry: u64) -> Registers {
        Registers { rip: entry, orig_rax: u64::MAX, rax: 0, ..self }
    }
}

/// The sixth argument, which the kernel ignores, of an arch_prctl(2) after which the stub uses AMX once, with the configuration
/// that the fifth leads to. The kernel makes room for a thread's tiles when it uses one first, and PTRACE_SETREGSET takes
/// none before that (EINVAL).
pub const TOUCH_TILES: u64 = 0x7365_6c74;

/// A configuration with one tile of one row (palette 1, `colsb`, `rows`), for [`TOUCH_TILES`].
pub const ONE_TILE: [u8; 64] = {
    let mut configuration = [0; 64];
    configuration[0] = 1;
    configuration[16] = 64;
    configuration[48] = 1;
    configuration
};

/// Whether extended state as PTRACE_GETREGSET gives it holds tiles: bit 18 of XSTATE_BV, behind the 512 bytes of FXSAVE.
pub fn holds_tiles(xstate: &[u8]) -> bool {
    xstate.get(514).is_some_and(|byte| byte & 1 << 2 != 0)
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

// The stub. It runs inside a target, in memory that may be read-only to it, and uses no stack at all. Nothing here may
// fault, whatever becomes of us: a thread that left our hands runs it alone.
//
// It has two parts. The body is shared by all slots of a process. A slot is the entries, the last instructions and the
// data of one thread. In the body rbp is the slot's data (`stub::SlotData`), rbx the control block (`stub::control`), r12
// the step (`stub::Step`), r13 how many are left.
std::arch::global_asm!(
    r#"
    .pushsection .rodata.bardo_stub,"a",@progbits
    .globl bardo_stub_body, bardo_stub_body_boot, bardo_stub_body_enter, bardo_stub_body_unmap, bardo_stub_body_leave
    .globl bardo_stub_body_end
    .globl bardo_slot, bardo_slot_boot, bardo_slot_enter, bardo_slot_unmap, bardo_slot_tail, bardo_slot_data
    .globl bardo_slot_end
    .equ D_FLAGS, 128
    .equ D_SP, 136
    .equ D_MASK, 144
    .equ D_ALL_SIGNALS, 152
    .equ D_ANY, 160
    .equ D_AREA, 168
    .equ D_AREA_LEN, 176
    .equ D_UNMAP_LEN, 184
    .equ D_CONTROL, 192
    .equ D_WORD, 200
    .equ D_COMMIT, 208
    .equ D_BUSY, 216
    .equ D_MEMFD_FLAGS, 224
    .equ D_NAME, 232
    .equ D_TAIL_AT, 264
    .p2align 4
bardo_stub_body:

    // Make the area that is shared with bardo. bardo takes the descriptor while we stand at the exit of memfd_create, and
    // sizes the file; if it dies before that, the area can't be touched, only probed.
bardo_stub_body_boot:
    lea     D_ALL_SIGNALS(%rbp), %rsi
    mov     $2, %edi                            // SIG_SETMASK
    xor     %edx, %edx
    mov     $8, %r10d
    mov     $14, %eax                           // rt_sigprocmask
    syscall
    lea     D_NAME(%rbp), %rdi
    mov     D_MEMFD_FLAGS(%rbp), %esi
    mov     $319, %eax                          // memfd_create
    syscall
    test    %rax, %rax
    js      bardo_stub_body_leave
    mov     %rax, %r12
    mov     D_AREA(%rbp), %rdi
    mov     D_AREA_LEN(%rbp), %rsi
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
    cmp     D_AREA(%rbp), %r13
    jne     bardo_stub_body_leave
    mov     D_CONTROL(%rbp), %rdi
    add     $120, %rdi
    mov     $8, %esi
    mov     $127, %eax                          // rt_sigpending writes 8 bytes there, or says EFAULT
    syscall
    test    %rax, %rax
    jz      .Lbardo_loop
    mov     D_UNMAP_LEN(%rbp), %rsi             // nothing in it may be read, the busy mark neither
    jmp     .Lbardo_munmap

    // Wait for steps, in an area that is there.
bardo_stub_body_enter:
    lea     D_ALL_SIGNALS(%rbp), %rsi
    mov     $2, %edi
    xor     %edx, %edx
    mov     $8, %r10d
    mov     $14, %eax
    syscall

.Lbardo_loop:
    mov     D_CONTROL(%rbp), %rbx
    mov     4(%rbx), %eax                       // posted
    cmp     8(%rbx), %eax                       // done
    jne     .Lbardo_run
    mov     D_WORD(%rbp), %rdx
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
    mov     (%r12), %r14                        // in registers: by the time a clone3's child runs, the steps may be others
    mov     56(%r12), %r15
    mov     %r14, %rax
    mov     8(%r12), %rdi
    mov     16(%r12), %rsi
    mov     24(%r12), %rdx
    mov     32(%r12), %r10
    mov     40(%r12), %r8
    mov     48(%r12), %r9
    syscall
    test    %rax, %rax
    jnz     .Lbardo_result
    cmp     $435, %r14                          // clone3 returned in the child: it has a slot of its own
    jne     .Lbardo_permitted
    jmp     *%r15
.Lbardo_permitted:
    cmp     $158, %r14                          // arch_prctl gave the permission to use AMX, and it is to be used (TOUCH_TILES)
    jne     .Lbardo_result
    cmp     $0x73656c74, %r9
    jne     .Lbardo_result
    .byte   0xc4, 0xc2, 0x78, 0x49, 0x00        // ldtilecfg (%r8)
    .byte   0xc4, 0xe2, 0x7b, 0x49, 0xc0        // tilezero %tmm0
    .byte   0xc4, 0xe2, 0x78, 0x49, 0xc0        // tilerelease
.Lbardo_result:
    mov     %rax, 64(%r12)
    cmpq    $435, (%r12)
    je      .Lbardo_must
    mov     56(%r12), %rcx
    cmp     %rcx, %rax
    je      .Lbardo_next
    mov     D_ANY(%rbp), %rdx
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
    mov     D_WORD(%rbp), %rdi
    mov     $1, %esi
    mov     $0x7fffffff, %edx
    mov     $202, %eax
    syscall
    mov     D_COMMIT(%rbp), %rax
    test    %rax, %rax
    jz      bardo_stub_body_unmap
    cmpl    $0, (%rax)
    jne     bardo_stub_body_unmap
    mov     $137, %edi
    mov     $231, %eax                          // exit_group: a restart that wasn't committed leaves nothing running
    syscall

    // Go back to where the thread was: unmap the area (unless another thread still uses it), restore flags, signal mask
    // and registers. Signals stay blocked while the stack pointer isn't the thread's own.
bardo_stub_body_unmap:
    mov     D_UNMAP_LEN(%rbp), %rsi
    test    %rsi, %rsi
    jz      bardo_stub_body_leave
    mov     D_BUSY(%rbp), %rdi
    test    %rdi, %rdi
    jz      .Lbardo_munmap
    cmpl    $0, (%rdi)
    jne     bardo_stub_body_leave
.Lbardo_munmap:
    mov     D_AREA(%rbp), %rdi
    mov     $11, %eax                           // munmap
    syscall
bardo_stub_body_leave:                          // from here on nothing but mask and registers is set: see `leaving`
    lea     D_ALL_SIGNALS(%rbp), %rsi
    mov     $2, %edi
    xor     %edx, %edx
    mov     $8, %r10d
    mov     $14, %eax
    syscall
    lea     D_FLAGS(%rbp), %rsp
    popfq
    mov     D_SP(%rbp), %rsp
    mov     $2, %edi
    lea     D_MASK(%rbp), %rsi
    mov     $0, %edx
    mov     $8, %r10d
    mov     $14, %eax
    syscall
    mov     0(%rbp), %r15
    mov     8(%rbp), %r14
    mov     16(%rbp), %r13
    mov     24(%rbp), %r12
    mov     40(%rbp), %rbx
    mov     48(%rbp), %r11
    mov     56(%rbp), %r10
    mov     64(%rbp), %r9
    mov     72(%rbp), %r8
    mov     80(%rbp), %rax
    mov     88(%rbp), %rcx
    mov     96(%rbp), %rdx
    mov     104(%rbp), %rsi
    mov     112(%rbp), %rdi
    jmp     *D_TAIL_AT(%rbp)
    .p2align 4
bardo_stub_body_end:

bardo_slot:
bardo_slot_boot:
    lea     bardo_slot_data(%rip), %rbp
    jmp     *bardo_slot_data+240(%rip)
bardo_slot_enter:
    lea     bardo_slot_data(%rip), %rbp
    jmp     *bardo_slot_data+248(%rip)
bardo_slot_unmap:
    lea     bardo_slot_data(%rip), %rbp
    jmp     *bardo_slot_data+256(%rip)
bardo_slot_tail:
    mov     bardo_slot_data+32(%rip), %rbp
    jmp     *bardo_slot_data+120(%rip)
    .p2align 3
bardo_slot_data:
    .skip   272
    .p2align 4
bardo_slot_end:
    .popsection
"#,
    options(att_syntax)
);

unsafe extern "C" {
    static bardo_stub_body: u8;
    static bardo_stub_body_boot: u8;
    static bardo_stub_body_enter: u8;
    static bardo_stub_body_unmap: u8;
    static bardo_stub_body_leave: u8;
    static bardo_stub_body_end: u8;
    static bardo_slot: u8;
    static bardo_slot_boot: u8;
    static bardo_slot_enter: u8;
    static bardo_slot_unmap: u8;
    static bardo_slot_tail: u8;
    static bardo_slot_data: u8;
    static bardo_slot_end: u8;
}

/// Where the entries of a slot are, from its beginning.
#[derive(Debug, Clone, Copy)]
pub struct SlotEntries {
    /// For the first thread of a checkpointed process: makes the area.
    pub boot: u64,
    /// For every other thread.
    pub enter: u64,
    /// Unmaps the area and goes back to where the thread was.
    pub unmap: u64,
}

fn between(from: *const u8, to: *const u8) -> u64 {
    to as u64 - from as u64
}

fn blob(from: *const u8, to: *const u8) -> Vec<u8> {
    // SAFETY: called below with two labels of the one read-only blob above, in order.
    unsafe { std::slice::from_raw_parts(from, between(from, to) as usize) }.to_vec()
}

/// The entries of a slot.
pub fn slot_entries() -> SlotEntries {
    let slot = &raw const bardo_slot;
    SlotEntries {
        boot: between(slot, &raw const bardo_slot_boot),
        enter: between(slot, &raw const bardo_slot_enter),
        unmap: between(slot, &raw const bardo_slot_unmap),
    }
}

/// The stub's body.
pub fn stub_body() -> Vec<u8> {
    blob(&raw const bardo_stub_body, &raw const bardo_stub_body_end)
}

/// A slot at this address, with this data, over a body at that address.
pub fn slot_bytes(at: u64, body: u64, mut data: SlotData) -> Vec<u8> {
    let start = &raw const bardo_stub_body;
    data.boot_at = body + between(start, &raw const bardo_stub_body_boot);
    data.enter_at = body + between(start, &raw const bardo_stub_body_enter);
    data.unmap_at = body + between(start, &raw const bardo_stub_body_unmap);
    let slot = &raw const bardo_slot;
    data.tail_at = at + between(slot, &raw const bardo_slot_tail);
    let mut bytes = blob(slot, &raw const bardo_slot_end);
    let offset = between(slot, &raw const bardo_slot_data) as usize;
    let data = data.as_bytes();
    bytes[offset..offset + data.len()].copy_from_slice(data);
    bytes
}

/// What a thread in the stub goes back to, and with which signal mask, where it has nothing left to do but to set those: then
/// a tracer can set them too. `read` reads the thread's memory, and says whether it could.
pub fn leaving(registers: &Registers, read: impl Fn(u64, &mut [u8]) -> bool) -> Option<(Registers, u64)> {
    const LEN: usize = size_of::<SlotData>();
    let data_at = |at: u64| {
        let mut bytes = [0; LEN];
        read(at, &mut bytes).then(|| SlotData::from_bytes(&bytes))?
    };
    let back = |data: &SlotData| {
        let [r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi] = data.registers;
        let general = Registers {
            r15,
            r14,
            r13,
            r12,
            rbp,
            rbx,
            r11,
            r10,
            r9,
            r8,
            rax,
            rcx,
            rdx,
            rsi,
            rdi,
            ..*registers
        };
        let place =
            Registers { rip: data.ip, eflags: data.flags, rsp: data.sp, orig_rax: u64::MAX, ..general };
        (place, data.mask)
    };
    // In the body, rbp is the slot's data.
    let body = &raw const bardo_stub_body;
    let leave =
        between(body, &raw const bardo_stub_body_leave)..between(body, &raw const bardo_stub_body_end);
    if let Some(data) = data_at(registers.rbp) {
        let body_at = data.unmap_at.wrapping_sub(between(body, &raw const bardo_stub_body_unmap));
        if leave.contains(&registers.rip.wrapping_sub(body_at)) {
            return Some(back(&data));
        }
    }
    // In the slot's two last instructions, of seven and six bytes, the data is at a distance behind them.
    let tail = blob(&raw const bardo_slot_tail, &raw const bardo_slot_data);
    let distance = between(&raw const bardo_slot_tail, &raw const bardo_slot_data);
    [0u64, 7].into_iter().find_map(|done| {
        let mut bytes = [0; 13];
        let bytes = &mut bytes[done as usize..];
        let begin = registers.rip.wrapping_sub(done);
        let there = read(registers.rip, bytes) && *bytes == tail[done as usize..13];
        let data = there.then(|| data_at(begin.wrapping_add(distance)))??;
        (data.tail_at == begin).then(|| back(&data))
    })
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
            r.r15, r.r14, r.r13, r.r12, r.rbp, r.rbx, r.r11, r.r10, r.r9, r.r8, r.rax, r.rcx, r.rdx, r.rsi,
            r.rdi,
        ];
        self.ip = r.rip;
        self.flags = r.eflags;
        self.sp = r.rsp;
        self.mask = mask;
    }
}

/// The words of [`Registers`], in its order.
pub const REGISTER_WORDS: usize = 27;

impl Registers {
    /// As words, in the order of `struct user_regs_struct`.
    pub fn to_words(&self) -> [u64; REGISTER_WORDS] {
        [
            self.r15,
            self.r14,
            self.r13,
            self.r12,
            self.rbp,
            self.rbx,
            self.r11,
            self.r10,
            self.r9,
            self.r8,
            self.rax,
            self.rcx,
            self.rdx,
            self.rsi,
            self.rdi,
            self.orig_rax,
            self.rip,
            self.cs,
            self.eflags,
            self.rsp,
            self.ss,
            self.fs_base,
            self.gs_base,
            self.ds,
            self.es,
            self.fs,
            self.gs,
        ]
    }

    /// From such words; none where there aren't 27.
    pub fn from_words(words: &[u64]) -> Option<Registers> {
        let [
            r15,
            r14,
            r13,
            r12,
            rbp,
            rbx,
            r11,
            r10,
            r9,
            r8,
            rax,
            rcx,
            rdx,
            rsi,
            rdi,
            orig_rax,
            rip,
            cs,
            eflags,
            rsp,
            ss,
            fs_base,
            gs_base,
            ds,
            es,
            fs,
            gs,
        ] = *words
        else {
            return None;
        };
        Some(Registers {
            r15,
            r14,
            r13,
            r12,
            rbp,
            rbx,
            r11,
            r10,
            r9,
            r8,
            rax,
            rcx,
            rdx,
            rsi,
            rdi,
            orig_rax,
            rip,
            cs,
            eflags,
            rsp,
            ss,
            fs_base,
            gs_base,
            ds,
            es,
            fs,
            gs,
        })
    }
}
