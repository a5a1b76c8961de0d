//! Classic BPF as seccomp(2) uses it: what a filter answers to a system call, worked out without making the call.
//!
//! A program is a list of `struct sock_filter {u16 code; u8 jt; u8 jf; u32 k}`; it sees `struct seccomp_data {u32 nr; u32
//! arch; u64 instruction_pointer; u64 args[6]}` and nothing else, has two registers and sixteen words of scratch memory, and
//! can only jump forward: it always ends. Of several filters the strictest answer counts. Privilege: none.

/// What is done with a system call (SECCOMP_RET_…), mildest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// KILL_PROCESS, or an action that the kernel doesn't know.
    KillProcess,
    /// KILL_THREAD.
    KillThread,
    /// TRAP: SIGSYS.
    Trap,
    /// ERRNO: the call fails.
    Fail,
    /// USER_NOTIF: another process answers.
    Ask,
    /// TRACE: the tracer is told; where there is none, the call fails.
    Trace,
    /// LOG or ALLOW: the call is made.
    Allow,
}

impl Verdict {
    fn of(answer: u32) -> Verdict {
        match answer & 0xffff_0000 {
            0x0000_0000 => Verdict::KillThread,
            0x0003_0000 => Verdict::Trap,
            0x0005_0000 => Verdict::Fail,
            0x7fc0_0000 => Verdict::Ask,
            0x7ff0_0000 => Verdict::Trace,
            0x7ffc_0000 | 0x7fff_0000 => Verdict::Allow,
            _ => Verdict::KillProcess,
        }
    }

    /// Whether a thread that makes the call on its own survives it.
    pub fn is_survived(self) -> bool {
        matches!(self, Verdict::Fail | Verdict::Trace | Verdict::Allow)
    }
}

/// A system call as a filter sees it.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// Its number.
    pub nr: u32,
    /// Its arguments.
    pub args: [u64; 6],
}

/// AUDIT_ARCH_X86_64 (linux/audit.h).
#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;

impl Call {
    /// The word at this offset of `struct seccomp_data`; none for the instruction pointer, which isn't known.
    fn word(&self, offset: u32) -> Option<u32> {
        match offset {
            0 => Some(self.nr),
            4 => Some(ARCH),
            16..64 if offset.is_multiple_of(4) => {
                let arg = self.args[(offset as usize - 16) / 8];
                Some(if offset.is_multiple_of(8) { arg as u32 } else { (arg >> 32) as u32 })
            }
            _ => None,
        }
    }
}

#[derive(Clone, Copy)]
struct Instruction {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

fn instructions(program: &[u8]) -> impl Iterator<Item = Instruction> + '_ {
    program.chunks_exact(8).map(|b| Instruction {
        code: u16::from_ne_bytes([b[0], b[1]]),
        jt: b[2],
        jf: b[3],
        k: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
    })
}

const RETURN_CONSTANT: u16 = 0x06;
const RETURN_A: u16 = 0x16;

/// Whether a program may hand a call to another process (SECCOMP_RET_USER_NOTIF), as far as one can tell by looking.
pub fn may_ask(program: &[u8]) -> bool {
    instructions(program).any(|i| match i.code {
        RETURN_CONSTANT => Verdict::of(i.k) == Verdict::Ask,
        code => code == RETURN_A,
    })
}

/// What a program answers to a call. None where that depends on what isn't known beforehand, or the program isn't one that the
/// kernel would have taken.
pub fn answer(program: &[u8], call: &Call) -> Option<Verdict> {
    let code: Vec<Instruction> = instructions(program).collect();
    let (mut a, mut x, mut scratch) = (0u32, 0u32, [0u32; 16]);
    let mut at = 0usize;
    loop {
        let i = *code.get(at)?;
        at += 1;
        match i.code {
            // BPF_LD, BPF_LDX: absolute words, length, constants, scratch memory.
            0x20 => a = call.word(i.k)?,
            0x80 => a = 64,
            0x81 => x = 64,
            0x00 => a = i.k,
            0x01 => x = i.k,
            0x60 => a = *scratch.get(i.k as usize)?,
            0x61 => x = *scratch.get(i.k as usize)?,
            0x02 => *scratch.get_mut(i.k as usize)? = a,
            0x03 => *scratch.get_mut(i.k as usize)? = x,
            // BPF_ALU, by a constant or (bit 3) by X.
            code if code & 0x07 == 0x04 => {
                let by = if code & 0x08 == 0 { i.k } else { x };
                a = match code & 0xf0 {
                    0x00 => a.wrapping_add(by),
                    0x10 => a.wrapping_sub(by),
                    0x20 => a.wrapping_mul(by),
                    // By zero, the kernel ends the program with 0: the thread is killed.
                    0x30 if by == 0 => return Some(Verdict::KillThread),
                    0x30 => a / by,
                    0x40 => a | by,
                    0x50 => a & by,
                    0x60 => a.wrapping_shl(by),
                    0x70 => a.wrapping_shr(by),
                    0x80 => a.wrapping_neg(),
                    0xa0 => a ^ by,
                    _ => return None,
                };
            }
            // BPF_JMP
            0x05 => at = at.checked_add(i.k as usize)?,
            code if code & 0x07 == 0x05 => {
                let with = if code & 0x08 == 0 { i.k } else { x };
                let holds = match code & 0xf0 {
                    0x10 => a == with,
                    0x20 => a > with,
                    0x30 => a >= with,
                    0x40 => a & with != 0,
                    _ => return None,
                };
                at += usize::from(if holds { i.jt } else { i.jf });
            }
            RETURN_CONSTANT => return Some(Verdict::of(i.k)),
            RETURN_A => return Some(Verdict::of(a)),
            0x07 => x = a,
            0x87 => a = x,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(instructions: &[(u16, u8, u8, u32)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (code, jt, jf, k) in instructions {
            bytes.extend_from_slice(&code.to_ne_bytes());
            bytes.extend_from_slice(&[*jt, *jf]);
            bytes.extend_from_slice(&k.to_ne_bytes());
        }
        bytes
    }

    fn ask(program: &[u8], nr: u32, first: u64) -> Option<Verdict> {
        answer(program, &Call { nr, args: [first, 0, 0, 0, 0, 0] })
    }

    #[test]
    fn numbers_and_arguments_decide() {
        // prctl (157) with 15 is allowed, otherwise it fails; all other calls kill.
        let program = program(&[
            (0x20, 0, 0, 0),
            (0x15, 0, 4, 157),
            (0x20, 0, 0, 16),
            (0x15, 0, 1, 15),
            (0x06, 0, 0, 0x7fff_0000),
            (0x06, 0, 0, 0x0005_0001),
            (0x06, 0, 0, 0x8000_0000),
        ]);
        assert_eq!(ask(&program, 157, 15), Some(Verdict::Allow));
        assert_eq!(ask(&program, 157, 16), Some(Verdict::Fail));
        assert_eq!(ask(&program, 1, 15), Some(Verdict::KillProcess));
        assert!(!may_ask(&program));
    }

    #[test]
    fn arithmetic_and_memory() {
        // The call's number times two, in scratch memory, against the upper half of the first argument.
        let program = program(&[
            (0x20, 0, 0, 0),
            (0x24, 0, 0, 2),
            (0x02, 0, 0, 3),
            (0x61, 0, 0, 3),
            (0x20, 0, 0, 20),
            (0x1d, 0, 1, 0),
            (0x06, 0, 0, 0x7fc0_0000),
            (0x06, 0, 0, 0),
        ]);
        assert_eq!(ask(&program, 21, 42 << 32), Some(Verdict::Ask));
        assert_eq!(ask(&program, 21, 42), Some(Verdict::KillThread));
        assert!(may_ask(&program));
    }

    #[test]
    fn what_cannot_be_told_is_not_guessed() {
        assert_eq!(ask(&program(&[(0x20, 0, 0, 8), (0x16, 0, 0, 0)]), 1, 0), None, "instruction pointer");
        assert_eq!(ask(&program(&[(0x15, 9, 9, 0)]), 1, 0), None, "a jump out of the program");
        assert_eq!(ask(&program(&[(0xff, 0, 0, 0)]), 1, 0), None);
        assert_eq!(ask(&[], 1, 0), None);
    }

    #[test]
    fn the_strictest_comes_first() {
        use Verdict::{Allow, Ask, Fail, KillProcess, KillThread, Trace, Trap};
        let mut all = [Allow, Trace, Ask, Fail, Trap, KillThread, KillProcess];
        all.sort();
        assert_eq!(all, [KillProcess, KillThread, Trap, Fail, Ask, Trace, Allow]);
    }
}
