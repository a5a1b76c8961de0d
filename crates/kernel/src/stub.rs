//! The stub: the only code of ours that ever runs inside a target. It walks an array of [`Step`]s in shared memory.
//!
//! It has a body, and a *slot* for each thread it serves: a few instructions with the thread's data right behind, found
//! by instruction-relative addressing, so that it needs no register, no stack and no memory but its own page (which may be
//! read-only to the target). It takes its steps from a [`Control`] block in memory shared with bardo:
//!
//! - bardo writes steps, sets `steps` and `count`, raises `posted` and wakes; the stub runs them, sets `done` to
//!   `posted` and wakes bardo. No ptrace stop is involved: what costs is the stop.
//! - While it waits, it waits for two things at once (futex_waitv(2), Linux 5.16): the next batch, and our death. Our
//!   death is a *robust futex* (set_robust_list(2)): a word that holds our tid and that the kernel marks when we die,
//!   however we die. No descriptor of ours is needed in the target for that.
//! - Orphaned, it either goes back to where the thread was (a checkpoint; a restart that was committed) or ends the
//!   process (a restart that wasn't).

use crate::error::{Errno, Failed};
use syscalls::Sysno;

/// A step's expectation: any result will do.
pub const ANY: i64 = i64::MIN;
/// A step's expectation: anything but an error.
pub const NO_ERROR: i64 = i64::MIN + 1;

/// One system call to be made inside a target: the layout the stub reads.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The call's number.
    pub nr: u64,
    /// Its arguments.
    pub args: [u64; 6],
    /// What its result must be for the batch to go on: a value, [`ANY`] or [`NO_ERROR`]. For clone3, where the child
    /// goes.
    pub expected: i64,
    /// What it was.
    pub result: i64,
}

/// What stands for an address in a target that isn't known yet.
pub const STAND_IN: u64 = 0x7000_0000_0000;

/// The calls that the stub makes of its own accord in a checkpoint, and what becomes of a thread that is left alone with one
/// that fails: it comes out all the same, or not.
pub const OWN_CALLS: [(Sysno, [u64; 6], Own); 8] = [
    (Sysno::rt_sigprocmask, [2, STAND_IN, 0, 8, 0, 0], Own::Needed),
    (Sysno::memfd_create, [STAND_IN, 3, 0, 0, 0, 0], Own::MayFail),
    // PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE
    (Sysno::mmap, [STAND_IN, crate::remote::AREA_LEN as u64, 3, 0x10_0001, 3, 0], Own::MayFail),
    (Sysno::close, [3, 0, 0, 0, 0, 0], Own::Needed),
    (Sysno::rt_sigpending, [STAND_IN, 8, 0, 0, 0, 0], Own::MayFail),
    (Sysno::futex_waitv, [STAND_IN, 2, 0, 0, 0, 0], Own::MayFail),
    // FUTEX_WAKE
    (Sysno::futex, [STAND_IN, 1, 1, 0, 0, 0], Own::Needed),
    (Sysno::munmap, [STAND_IN, crate::remote::AREA_LEN as u64, 0, 0, 0, 0], Own::Needed),
];

/// See [`OWN_CALLS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// The stub comes out, and leaves nothing, without it.
    MayFail,
    /// Without it the thread would be left with its signals blocked, or with something of ours.
    Needed,
}

/// The size of a step in the target's memory.
pub const STEP: usize = 72;
const _: () = assert!(size_of::<Step>() == STEP);

impl Step {
    /// The step in the layout of the target.
    pub fn to_bytes(self) -> [u8; STEP] {
        let mut bytes = [0; STEP];
        let words = [
            self.nr,
            self.args[0],
            self.args[1],
            self.args[2],
            self.args[3],
            self.args[4],
            self.args[5],
            self.expected as u64,
            self.result as u64,
        ];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}

/// Offsets in a control block.
pub mod control {
    /// u32: the robust futex that bardo holds while it lives (one for many blocks: see `SlotData::word`).
    pub const WORD: usize = 0;
    /// u32: how many batches were posted.
    pub const POSTED: usize = 4;
    /// u32: how many are done.
    pub const DONE: usize = 8;
    /// u64: where the steps are, in the target.
    pub const STEPS: usize = 16;
    /// u64: how many there are; when done, how many weren't reached.
    pub const COUNT: usize = 24;
    /// Two `struct futex_waitv`: {value, address, flags}.
    pub const WAITV: usize = 32;
    /// u32: another thread of the target uses the area.
    pub const BUSY: usize = 96;
    /// The size of a block.
    pub const SIZE: usize = 128;
}

/// The data of a slot, behind its code.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct SlotData {
    /// General registers to go back to, in the architecture's order.
    pub registers: [u64; 15],
    /// Instruction pointer to go back to.
    pub ip: u64,
    /// Flags to go back to.
    pub flags: u64,
    /// Stack pointer to go back to.
    pub sp: u64,
    /// Signal mask to go back to.
    pub mask: u64,
    all_signals: u64,
    any: u64,
    /// The shared area, in the target.
    pub area: u64,
    /// Its length.
    pub area_len: u64,
    /// How much of it the slot unmaps when it leaves; 0: nothing.
    pub unmap_len: u64,
    /// This slot's control block, in the target.
    pub control: u64,
    /// The robust futex, in the target.
    pub word: u64,
    /// A u32 in the target that says whether an orphan goes on (not 0) or ends; 0: it goes on.
    pub commit: u64,
    /// A u32 in the target that says whether another thread uses the area; 0: never.
    pub busy: u64,
    /// Flags for memfd_create(2).
    pub memfd_flags: u64,
    name: [u8; 8],
    /// Where the body's entries are, and this slot's last instructions: filled in by the architecture.
    pub(crate) boot_at: u64,
    pub(crate) enter_at: u64,
    pub(crate) unmap_at: u64,
    pub(crate) tail_at: u64,
}

const _: () = assert!(size_of::<SlotData>() == 272);

impl SlotData {
    /// Data with the constants filled in.
    pub fn new() -> SlotData {
        SlotData { all_signals: u64::MAX, any: ANY as u64, name: *b"bardo\0\0\0", ..SlotData::default() }
    }

    /// What such bytes say of where a thread goes back to; none where they aren't a slot's.
    pub fn from_bytes(bytes: &[u8; size_of::<SlotData>()]) -> Option<SlotData> {
        let mut words = [0; size_of::<SlotData>() / 8];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_ne_bytes(*bytes);
        }
        let [
            r0,
            r1,
            r2,
            r3,
            r4,
            r5,
            r6,
            r7,
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            ip,
            flags,
            sp,
            mask,
            ..,
            name,
            boot_at,
            enter_at,
            unmap_at,
            tail_at,
        ] = words;
        let registers = [r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, r10, r11, r12, r13, r14];
        let name = name.to_ne_bytes();
        let data = SlotData {
            registers,
            ip,
            flags,
            sp,
            mask,
            name,
            boot_at,
            enter_at,
            unmap_at,
            tail_at,
            ..SlotData::default()
        };
        (name == SlotData::new().name).then_some(data)
    }

    /// The bytes, as they go behind the code.
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: the struct is `repr(C)` of 64-bit words and a byte array: no padding, any bytes are initialised.
        unsafe { std::slice::from_raw_parts((&raw const *self).cast(), size_of::<SlotData>()) }
    }
}

/// An argument of a step: a value, or a place in the batch's own data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arg {
    /// A plain value.
    Value(u64),
    /// The address, in the target, of this offset in the batch's data.
    Data(usize),
}

impl From<u64> for Arg {
    fn from(value: u64) -> Arg {
        Arg::Value(value)
    }
}

/// Identifies a step of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepId(usize);

/// A list of steps to be run inside one thread, with the data they point to.
///
/// The data lies in memory that the target sees at another address than we do; [`Arg::Data`] stands for a place in it
/// until the batch is posted.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    steps: Vec<(Sysno, [Arg; 6], i64)>,
    data: Vec<u8>,
    /// Places in the data that hold the address of another place in it.
    pointers: Vec<(usize, usize)>,
    results: Vec<i64>,
    reached: usize,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// How many steps it has.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// How much room it takes in the shared area.
    pub fn room(&self) -> usize {
        self.steps.len() * STEP + self.data.len() + 64
    }

    /// Puts bytes into the batch's data, aligned to 64, and says where.
    pub fn data(&mut self, bytes: &[u8]) -> Arg {
        self.data.resize(self.data.len().next_multiple_of(64), 0);
        let at = self.data.len();
        self.data.extend_from_slice(bytes);
        Arg::Data(at)
    }

    /// Room for `len` bytes that a call will fill; read it by [`Batch::output`].
    pub fn room_for(&mut self, len: usize) -> Arg {
        self.data(&vec![0; len])
    }

    /// A C string in the batch's data.
    pub fn text(&mut self, text: &[u8]) -> Arg {
        let mut bytes = text.to_vec();
        bytes.push(0);
        self.data(&bytes)
    }

    /// Adds a step whose result must not be an error.
    pub fn call<const N: usize>(&mut self, nr: Sysno, args: [Arg; N]) -> StepId {
        self.push(nr, args, NO_ERROR)
    }

    /// Adds a step whose result may be anything.
    pub fn attempt<const N: usize>(&mut self, nr: Sysno, args: [Arg; N]) -> StepId {
        self.push(nr, args, ANY)
    }

    /// Adds a step whose result must be this one.
    pub fn call_for<const N: usize>(&mut self, nr: Sysno, args: [Arg; N], expected: u64) -> StepId {
        self.push(nr, args, expected as i64)
    }

    /// Adds a step that makes a process or a thread by clone3(2); the child goes to `entry`, a slot of its own.
    pub fn clone3(&mut self, clone: &crate::shelf::CloneArgs, entry: u64) -> StepId {
        let tids: Vec<u8> = clone.set_tid.iter().flat_map(|tid| tid.to_ne_bytes()).collect();
        let tids = self.data(&tids);
        // `struct clone_args` holds a pointer, which is only known once the batch is placed: it is told by patching.
        let args = self.data(&clone.to_bytes(0));
        if let (Arg::Data(args), Arg::Data(tids)) = (args, tids)
            // An address without a count is EINVAL.
            && !clone.set_tid.is_empty()
        {
            self.pointers.push((args + crate::shelf::SET_TID_OFFSET, tids));
        }
        let len = Arg::Value(crate::shelf::CLONE_ARGS as u64);
        self.push(Sysno::clone3, [args, len], entry as i64)
    }

    /// Has the eight bytes at `at` + `offset` of the data hold the target's address of `to`.
    pub fn point(&mut self, at: Arg, offset: usize, to: Arg) {
        if let (Arg::Data(at), Arg::Data(to)) = (at, to) {
            self.pointers.push((at + offset, to));
        }
    }

    fn push<const N: usize>(&mut self, nr: Sysno, args: [Arg; N], expected: i64) -> StepId {
        let mut all = [Arg::Value(0); 6];
        all[..N].copy_from_slice(&args);
        self.steps.push((nr, all, expected));
        StepId(self.steps.len() - 1)
    }

    /// Adds the steps and the data of another batch behind ours.
    pub fn append(&mut self, other: &Batch) {
        self.data.resize(self.data.len().next_multiple_of(64), 0);
        let base = self.data.len();
        self.data.extend_from_slice(&other.data);
        self.pointers.extend(other.pointers.iter().map(|(at, to)| (base + at, base + to)));
        for (nr, args, expected) in &other.steps {
            let args = args.map(|arg| match arg {
                Arg::Data(at) => Arg::Data(base + at),
                value => value,
            });
            self.steps.push((*nr, args, *expected));
        }
    }

    /// Whether the step was reached.
    pub fn was_reached(&self, step: StepId) -> bool {
        step.0 < self.reached
    }

    /// What the step returned, once the batch has run: an error number becomes an error.
    ///
    /// # Errors
    /// The call's errno; ECANCELED where an earlier step kept it from being made.
    pub fn result(&self, step: StepId) -> Result<u64, Failed> {
        let failed = |errno| Failed { call: self.describe(step.0), errno: Errno(errno) };
        if step.0 >= self.reached {
            return Err(failed(libc::ECANCELED));
        }
        let result = self.results[step.0];
        if (-4095..0).contains(&result) { Err(failed(-result as i32)) } else { Ok(result as u64) }
    }

    /// The bytes at a place that calls were to fill, once the batch has run.
    pub fn output(&self, at: Arg, len: usize) -> &[u8] {
        match at {
            Arg::Data(at) => &self.data[at..at + len],
            Arg::Value(_) => &[],
        }
    }

    /// The step that kept the batch from going on, if one did.
    pub fn stumble(&self) -> Option<Failed> {
        if self.reached == self.steps.len() {
            let last = self.steps.len().checked_sub(1)?;
            return self.disappoints(last);
        }
        // The last step that was made is the one that disappointed.
        self.reached
            .checked_sub(1)
            .and_then(|at| self.disappoints(at))
            .or_else(|| Some(Failed { call: "the batch never began".into(), errno: Errno(libc::ECANCELED) }))
    }

    fn disappoints(&self, at: usize) -> Option<Failed> {
        let (nr, _, expected) = self.steps[at];
        let result = self.results[at];
        let is_error = (-4095..0).contains(&result);
        let fine = match expected {
            ANY => true,
            NO_ERROR => !is_error,
            _ if nr == Sysno::clone3 => !is_error,
            value => result == value,
        };
        if fine {
            return None;
        }
        let errno = if is_error { Errno(-result as i32) } else { Errno(libc::EPROTO) };
        let what = if is_error { String::new() } else { format!(" returned {result:#x}, not {expected:#x}") };
        Some(Failed { call: format!("{}{what} (inside the target)", self.describe(at)), errno })
    }

    fn describe(&self, at: usize) -> String {
        let (nr, args, _) = &self.steps[at];
        let used = args.iter().rposition(|a| *a != Arg::Value(0)).map_or(0, |i| i + 1);
        let args: Vec<String> = args[..used]
            .iter()
            .map(|arg| match arg {
                Arg::Value(v) if *v < 4096 => format!("{v}"),
                Arg::Value(v) if *v as i64 > -4096 && (*v as i64) < 0 => format!("{}", *v as i64),
                Arg::Value(v) => format!("{v:#x}"),
                Arg::Data(at) => self.show_data(*at),
            })
            .collect();
        format!("{}({})", nr.name(), args.join(", "))
    }

    fn show_data(&self, at: usize) -> String {
        let bytes = &self.data[at.min(self.data.len())..];
        let text = &bytes[..bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len()).min(200)];
        match std::str::from_utf8(text) {
            Ok(s) if s.len() > 1 && s.chars().all(|c| !c.is_control()) => format!("{s:?}"),
            _ => format!("data+{at:#x}"),
        }
    }

    /// Every step's call and arguments, with an address of ours in the place of one in the target.
    pub fn calls(&self) -> impl Iterator<Item = (Sysno, [u64; 6])> + '_ {
        self.steps.iter().map(|(nr, args, _)| {
            let args = args.map(|arg| match arg {
                Arg::Value(value) => value,
                Arg::Data(at) => STAND_IN + at as u64,
            });
            (*nr, args)
        })
    }

    /// Every step as a person reads it.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        (0..self.steps.len()).map(|at| self.describe(at))
    }

    /// The steps and the data as the target reads them, when the steps lie at `at` in it.
    pub fn encode(&self, at: u64) -> Vec<u8> {
        let data_at = at + (self.steps.len() * STEP).next_multiple_of(64) as u64;
        let mut bytes = Vec::with_capacity(self.room());
        for (nr, args, expected) in &self.steps {
            let args = args.map(|arg| match arg {
                Arg::Value(value) => value,
                Arg::Data(at) => data_at + at as u64,
            });
            let step =
                Step { nr: nr.id() as u64, args, expected: *expected, result: i64::from(-libc::ECANCELED) };
            bytes.extend_from_slice(&step.to_bytes());
        }
        bytes.resize((data_at - at) as usize, 0);
        let base = bytes.len();
        bytes.extend_from_slice(&self.data);
        for (place, to) in &self.pointers {
            bytes[base + place..base + place + 8].copy_from_slice(&(data_at + *to as u64).to_ne_bytes());
        }
        bytes
    }

    /// Takes back what the target left of [`Batch::encode`]'s bytes; `left` steps weren't reached. A hostile target may
    /// have written anything there: every value is only ever read as a number or as bytes.
    pub fn decode(&mut self, bytes: &[u8], left: u64) {
        let steps = self.steps.len();
        // A step that disappoints is made, but counted as left.
        let left = usize::try_from(left).unwrap_or(steps).min(steps);
        self.reached = if left == 0 { steps } else { steps - left + 1 };
        self.results = bytes
            .chunks_exact(STEP)
            .take(steps)
            .map(|step| i64::from_ne_bytes(step[64..72].try_into().expect("eight bytes")))
            .collect();
        let data_at = (steps * STEP).next_multiple_of(64);
        let len = self.data.len();
        self.data.copy_from_slice(&bytes[data_at..data_at + len]);
    }
}

/// Batches to be run one after the other, each of which fits where it goes.
#[derive(Debug)]
pub struct Batches {
    room: usize,
    all: Vec<Batch>,
}

impl Batches {
    /// None yet. `room`: how large each may be ([`Batch::room`]).
    pub fn new(room: usize) -> Batches {
        Batches { room, all: Vec::new() }
    }

    /// The last batch, or a new one where that has less than `bytes` left: a step takes [`STEP`], data its length and up
    /// to 64.
    pub fn with_room_for(&mut self, bytes: usize) -> &mut Batch {
        if self.all.last().is_none_or(|batch| batch.room() + bytes > self.room) {
            self.all.push(Batch::new());
        }
        let last = self.all.len() - 1;
        &mut self.all[last]
    }

    /// All of them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Batch> {
        self.all.iter_mut()
    }
}
