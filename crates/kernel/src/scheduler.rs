//! How threads are scheduled: sched_getattr(2), sched_setattr(2), and whether the kernel would admit threads by deadline.
//!
//! Privilege: none to read; CAP_SYS_NICE, in the first user namespace, for a deadline. Kernel: any; utilisation clamps need
//! CONFIG_UCLAMP_TASK, a slice of its own for a fair thread Linux 6.12.

use std::sync::{RwLock, mpsc};

use syscalls::Sysno;

use crate::error::Result;
use crate::gate::syscall;
use crate::procfs::status::NumberList;
use crate::ptrace;

/// `struct sched_attr` (linux/sched/types.h), its first version with clamps.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes {
    /// The bytes of this structure.
    pub size: u32,
    /// SCHED_….
    pub policy: u32,
    /// SCHED_FLAG_….
    pub flags: u64,
    /// The nice value, of a fair thread.
    pub nice: i32,
    /// The priority, of a real-time thread.
    pub priority: u32,
    /// By deadline: how long it may run in each period, in nanoseconds. Of a fair thread: its slice (6.12).
    pub runtime_ns: u64,
    /// By deadline: by when, counted from the period's start.
    pub deadline_ns: u64,
    /// By deadline: the period.
    pub period_ns: u64,
    /// The least utilisation that it counts as, of 1024.
    pub clamp_min: u32,
    /// The most; 0 beside 0 where the kernel has no clamps.
    pub clamp_max: u32,
}

/// The size of [`Attributes`].
pub const ATTRIBUTES: usize = 56;

impl Attributes {
    /// As the kernel reads it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(ATTRIBUTES);
        bytes.extend_from_slice(&(ATTRIBUTES as u32).to_ne_bytes());
        bytes.extend_from_slice(&self.policy.to_ne_bytes());
        bytes.extend_from_slice(&self.flags.to_ne_bytes());
        bytes.extend_from_slice(&self.nice.to_ne_bytes());
        bytes.extend_from_slice(&self.priority.to_ne_bytes());
        for word in [self.runtime_ns, self.deadline_ns, self.period_ns] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        bytes.extend_from_slice(&self.clamp_min.to_ne_bytes());
        bytes.extend_from_slice(&self.clamp_max.to_ne_bytes());
        bytes
    }
}

/// How a thread is scheduled; 0: the calling one.
pub fn attributes(tid: i32) -> Result<Attributes> {
    let mut attributes = Attributes::default();
    let args = [tid as usize, &raw mut attributes as usize, ATTRIBUTES, 0, 0, 0];
    // SAFETY: the structure is `repr(C)`, as large as we say, and lives over the call.
    unsafe { syscall(Sysno::sched_getattr, args) }.map_err(|e| e.of(format!("sched_getattr({tid})")))?;
    Ok(attributes)
}

/// Changes how the calling thread is scheduled.
fn set_own(attributes: &Attributes) -> Result<()> {
    let bytes = attributes.to_bytes();
    // SAFETY: the bytes live over the call, and say how many they are.
    unsafe { syscall(Sysno::sched_setattr, [0, bytes.as_ptr() as usize, 0, 0, 0, 0]) }
        .map(drop)
        .map_err(|e| e.of(format!("sched_setattr({attributes:?})")))
}

/// Restricts the calling thread to these processors, as far as there are any of them.
fn run_on(mask: &[u8]) {
    // SAFETY: the mask lives over the call.
    let _ = unsafe { syscall(Sysno::sched_setaffinity, [0, mask.len(), mask.as_ptr() as usize, 0, 0, 0]) };
}

/// A list of processors (`0-3,8`) as the kernel's bit mask; empty where it can't be read.
pub fn mask_of(list: &str) -> Vec<u8> {
    const PROCESSORS_MAX: u32 = 1 << 16;
    let mut mask = Vec::new();
    let list = NumberList::parse(list.as_bytes()).unwrap_or_default();
    for processor in list.iter().take_while(|processor| *processor < PROCESSORS_MAX) {
        let at = processor as usize / 8;
        mask.resize(mask.len().max(at + 1), 0);
        mask[at] |= 1 << (processor % 8);
    }
    mask
}

/// All processors that a thread of ours could be given: those of our cpuset. A thread that ends at once is given them.
pub fn processors_of_our_set() -> Vec<u8> {
    let find = || {
        run_on(&[0xff; 128]);
        ptrace::cpu_mask(0).unwrap_or_default()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, find);
        thread.ok().and_then(|thread| thread.join().ok()).unwrap_or_default()
    })
}

/// Whether the kernel admits all of these at once, each with the processors that it may run on: tried by as many threads of
/// ours, which are scheduled that way until the last has an answer. What we have no thread for is not tried.
pub fn admit(wanted: &[(Attributes, Vec<u8>)]) -> Vec<Result<()>> {
    let tried = RwLock::new(());
    let (say, answers) = mpsc::channel();
    let mut results = vec![Ok(()); wanted.len()];
    std::thread::scope(|scope| {
        let until_all_have_tried = tried.write();
        let mut trying = 0;
        for (at, (attributes, mask)) in wanted.iter().enumerate() {
            let (say, tried) = (say.clone(), &tried);
            let thread = std::thread::Builder::new().spawn_scoped(scope, move || {
                run_on(mask);
                let said = say.send((at, set_own(attributes)));
                drop((said, tried.read()));
            });
            trying += usize::from(thread.is_ok());
        }
        for (at, result) in answers.iter().take(trying) {
            results[at] = result;
        }
        drop(until_all_have_tried);
    });
    results
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_read_as_it_was_set() {
        let read = std::thread::spawn(|| {
            let mut wanted = attributes(0).expect("ours");
            wanted.policy = libc::SCHED_BATCH as u32;
            set_own(&wanted).expect("to batch and back is nobody's privilege");
            (wanted, attributes(0).expect("ours"))
        });
        let (wanted, read) = read.join().expect("a thread");
        assert_eq!((read.policy, read.nice), (wanted.policy, wanted.nice));
        assert_eq!(read.size, ATTRIBUTES as u32);
        assert_eq!(size_of::<Attributes>(), ATTRIBUTES);
        assert_eq!(wanted.to_bytes().len(), ATTRIBUTES);
    }

    #[test]
    fn lists_become_masks() {
        assert_eq!(mask_of("0-3,8\n"), [0x0f, 0x01]);
        assert_eq!(mask_of("\n"), []);
        assert_eq!(mask_of("what"), []);
        assert_eq!(mask_of("0,4000000000"), [0x01]);
        let ours = processors_of_our_set();
        assert!(ptrace::cpu_mask(0).expect("ours").iter().zip(&ours).all(|(now, all)| now & !all == 0));
    }

    #[test]
    fn more_than_a_processor_has_is_not_admitted() {
        let by_deadline = |runtime_ns| {
            let policy = libc::SCHED_DEADLINE as u32;
            let (deadline_ns, period_ns) = (100_000_000, 100_000_000);
            (
                Attributes { policy, runtime_ns, deadline_ns, period_ns, ..Attributes::default() },
                vec![0xff; 128],
            )
        };
        // As many as there can't be, however many processors there are.
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let tried = admit(&vec![by_deadline(90_000_000); processors + 1]);
        assert!(tried.iter().any(|result| result.is_err()), "{tried:?}");
        // Longer to run than it has time for is nothing at all.
        assert!(
            admit(&[by_deadline(200_000_000)])[0]
                .as_ref()
                .is_err_and(|e| e.is(libc::EINVAL) || e.is(libc::EPERM))
        );
        assert!(admit(&[]).is_empty());
    }
}
