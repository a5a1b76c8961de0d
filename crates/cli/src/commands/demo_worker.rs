//! The living tree of the demo: two processes of two threads, two pipes between them, a journal at a moving offset, and
//! 32 MiB of memory under a checksum. `bardo demo` starts its own program again with this hidden command.
//!
//! The root makes a step: each of its threads changes a block of its memory, seeded by the child's last checksum. The
//! root's new checksum goes through a pipe to the child, which makes the same step seeded by it, and answers with its own.
//! Then the root appends a line to the journal. So each line depends on all memory, all pipes and all threads before
//! it, and anyone can compute what an undisturbed tree would have written ([`Model`]): a single lost or doubled byte
//! changes every line that follows.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use clap::Args;
use rustix::process::{getpid, setsid};
use rustix::thread::gettid;

use crate::ending::{Ending, Exit};

/// Words of a block: 64 KiB.
const BLOCK: usize = 8192;
/// Blocks of a thread's memory: 8 MiB.
const BLOCKS: usize = 128;
/// Threads of the tree.
pub const THREADS: usize = 4;
/// Bytes of the tree's memory under checksum.
pub const BYTES: u64 = (THREADS * BLOCKS * BLOCK * 8) as u64;
/// Bytes of a journal's line.
pub const LINE: usize = 62;
/// Instead of a step's number, from root to child: check everything and end.
const LAST: u64 = u64::MAX;

/// The living tree of the demo.
#[derive(Debug, Args)]
pub struct DemoWorker {
    /// Be the child, which speaks through its standard input and output
    #[arg(long)]
    child: bool,
    /// The directory of the journal; a file `stop` in it ends the tree
    #[arg(required_unless_present = "child")]
    directory: Option<PathBuf>,
}

impl DemoWorker {
    /// Lives.
    ///
    /// # Errors
    /// None: what goes wrong is written into the journal, and told by the exit code.
    pub fn run(self) -> Result<Exit, Ending> {
        let lived = match &self.directory {
            Some(directory) => Root::start(directory.clone()).and_then(Root::live),
            None => be_child(),
        };
        if let (Err(e), Some(directory)) = (&lived, &self.directory) {
            let _ = std::fs::write(directory.join("broken"), e.to_string());
        }
        Ok(Exit::Code(if lived.is_ok() { 0 } else { 1 }))
    }
}

/// One line of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Which step, from 0.
    pub step: u64,
    /// The root's checksum after it.
    pub root: u64,
    /// The child's.
    pub child: u64,
    /// The root's pid, as it sees itself.
    pub root_pid: i32,
    /// The child's, as the root saw it at first.
    pub child_pid: i32,
}

impl Entry {
    fn line(&self) -> String {
        let Entry { step, root, child, root_pid, child_pid } = self;
        format!("{step:10} {root:016x} {child:016x} {root_pid:8} {child_pid:7}\n")
    }

    /// Reads a line; none if it isn't one.
    pub fn parse(line: &str) -> Option<Entry> {
        let mut words = line.split_whitespace();
        let mut next = || words.next();
        let entry = Entry {
            step: next()?.parse().ok()?,
            root: u64::from_str_radix(next()?, 16).ok()?,
            child: u64::from_str_radix(next()?, 16).ok()?,
            root_pid: next()?.parse().ok()?,
            child_pid: next()?.parse().ok()?,
        };
        (next().is_none() && entry.line().trim_end() == line).then_some(entry)
    }
}

/// A thread's memory: blocks, and the sum of each block's checksum.
struct Memory {
    words: Vec<u64>,
    sums: Vec<u64>,
    total: u64,
}

impl Memory {
    fn new(seed: u64) -> Memory {
        let mut state = seed;
        let words: Vec<u64> = (0..BLOCK * BLOCKS).map(|_| scramble(&mut state)).collect();
        let sums: Vec<u64> = words.chunks(BLOCK).map(checksum).collect();
        let total = sums.iter().fold(0, |all, sum| sum.wrapping_add(all));
        Memory { words, sums, total }
    }

    /// Changes one block; the new checksum of all memory.
    fn step(&mut self, step: u64, input: u64) -> u64 {
        let at = (step % BLOCKS as u64) as usize;
        let block = &mut self.words[at * BLOCK..][..BLOCK];
        let mut state = input ^ step;
        for word in block.iter_mut() {
            *word = word.rotate_left(5) ^ scramble(&mut state);
        }
        let sum = checksum(block);
        self.total = self.total.wrapping_sub(self.sums[at]).wrapping_add(sum);
        self.sums[at] = sum;
        self.total
    }

    /// Whether every word in memory is what the checksums say.
    fn whole(&self) -> bool {
        let sums: Vec<u64> = self.words.chunks(BLOCK).map(checksum).collect();
        sums == self.sums && sums.iter().fold(0, |all, sum| sum.wrapping_add(all)) == self.total
    }
}

/// splitmix64: fills memory with what doesn't compress.
fn scramble(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn checksum(words: &[u64]) -> u64 {
    words.iter().fold(0xcbf2_9ce4_8422_2325, |sum: u64, word| {
        (sum ^ word).wrapping_mul(0x100_0000_01b3).rotate_left(23)
    })
}

fn combine(a: u64, b: u64) -> u64 {
    a.rotate_left(1) ^ b
}

/// What an undisturbed tree computes, without processes, threads or pipes.
pub struct Model {
    memories: [Memory; THREADS],
    child: u64,
    step: u64,
}

impl Model {
    /// A tree before its first step.
    pub fn new() -> Model {
        Model { memories: [1, 2, 3, 4].map(Memory::new), child: 0, step: 0 }
    }

    /// The next step's checksums: the root's and the child's.
    pub fn step(&mut self) -> (u64, u64) {
        let [a, b, c, d] = &mut self.memories;
        let root = combine(a.step(self.step, self.child), b.step(self.step, self.child));
        self.child = combine(c.step(self.step, root), d.step(self.step, root));
        self.step += 1;
        (root, self.child)
    }
}

/// A process's two threads: the caller and another, each with its memory.
struct Pair {
    mine: Memory,
    tid: i32,
    ask: Sender<(u64, u64)>,
    answer: Receiver<io::Result<u64>>,
    other: JoinHandle<bool>,
}

impl Pair {
    fn new(seed: u64) -> io::Result<Pair> {
        let (ask, asked) = channel::<(u64, u64)>();
        let (answers, answer) = channel();
        let other = std::thread::Builder::new().name("second".into()).spawn(move || {
            let tid = gettid().as_raw_pid();
            let mut memory = Memory::new(seed + 1);
            for (step, input) in asked {
                if answers.send(same_tid(tid).map(|()| memory.step(step, input))).is_err() {
                    break;
                }
            }
            memory.whole()
        })?;
        Ok(Pair { mine: Memory::new(seed), tid: gettid().as_raw_pid(), ask, answer, other })
    }

    fn step(&mut self, step: u64, input: u64) -> io::Result<u64> {
        let gone = |_| io::Error::other("the second thread is gone");
        self.ask.send((step, input)).map_err(|_| io::Error::other("the second thread is gone"))?;
        same_tid(self.tid)?;
        let mine = self.mine.step(step, input);
        Ok(combine(mine, self.answer.recv().map_err(gone)??))
    }

    /// Ends the second thread; whether all memory of both is what the checksums say.
    fn whole(self) -> bool {
        drop(self.ask);
        self.other.join().unwrap_or(false) && self.mine.whole()
    }
}

fn same_tid(tid: i32) -> io::Result<()> {
    let now = gettid().as_raw_pid();
    if now == tid { Ok(()) } else { Err(io::Error::other(format!("thread {tid} became {now}"))) }
}

struct Root {
    directory: PathBuf,
    journal: File,
    child: std::process::Child,
    pair: Pair,
}

impl Root {
    fn start(directory: PathBuf) -> io::Result<Root> {
        // A session of its own: no terminal, and Ctrl-C goes to the demo alone.
        setsid()?;
        let journal = OpenOptions::new().write(true).create_new(true).open(directory.join("journal"))?;
        let child = Command::new(std::env::current_exe()?)
            .args(["demo-worker", "--child"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Root { directory, journal, child, pair: Pair::new(1)? })
    }

    fn live(mut self) -> io::Result<()> {
        let no_pipe = || io::Error::other("no pipe to the child");
        let mut to_child = self.child.stdin.take().ok_or_else(no_pipe)?;
        let mut from_child = self.child.stdout.take().ok_or_else(no_pipe)?;
        let pid = getpid().as_raw_pid();
        let child_pid = i32::try_from(self.child.id()).map_err(io::Error::other)?;
        let stop = self.directory.join("stop");
        let mut child = 0;
        let mut step = 0u64;
        while !stop.exists() {
            let root = self.pair.step(step, child)?;
            say(&mut to_child, step, root)?;
            let (its_step, sum) = hear(&mut from_child)?;
            child = sum;
            let now = getpid().as_raw_pid();
            let at = self.journal.stream_position()?;
            if its_step != step || now != pid || at != step * LINE as u64 {
                let why = format!(
                    "step {step}: the child is at {its_step}, the journal at {at}, pid {pid} is {now}"
                );
                return Err(io::Error::other(why));
            }
            let entry = Entry { step, root, child, root_pid: pid, child_pid };
            self.journal.write_all(entry.line().as_bytes())?;
            step += 1;
        }
        say(&mut to_child, LAST, 0)?;
        let (_, child_whole) = hear(&mut from_child)?;
        let status: ExitStatus = self.child.wait()?;
        if !self.pair.whole() || child_whole != 1 || !status.success() {
            return Err(io::Error::other(format!("memory isn't what its checksum says (child: {status})")));
        }
        Ok(())
    }
}

fn be_child() -> io::Result<()> {
    let mut input = io::stdin().lock();
    let mut output = io::stdout().lock();
    let mut pair = Pair::new(3)?;
    loop {
        // The root's end closes our input, and ends us.
        let (step, root) = hear(&mut input)?;
        if step == LAST {
            return say(&mut output, LAST, u64::from(pair.whole()));
        }
        let sum = pair.step(step, root)?;
        say(&mut output, step, sum)?;
    }
}

fn say(to: &mut impl Write, step: u64, sum: u64) -> io::Result<()> {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&step.to_le_bytes());
    bytes[8..].copy_from_slice(&sum.to_le_bytes());
    to.write_all(&bytes)?;
    to.flush()
}

fn hear(from: &mut impl Read) -> io::Result<(u64, u64)> {
    let mut words = [[0; 8]; 2];
    for word in &mut words {
        from.read_exact(word)?;
    }
    Ok((u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lines_length_is_fixed() {
        let entry = Entry { step: 7, root: 1, child: u64::MAX, root_pid: 4_194_304, child_pid: 4_194_304 };
        assert_eq!(entry.line().len(), LINE);
        assert_eq!(Entry::parse(entry.line().trim_end_matches('\n')), Some(entry));
        assert_eq!(Entry::parse("7 1 2 3"), None);
        assert_eq!(Entry::parse(&entry.line().replace("       7", "      7")), None);
    }

    #[test]
    fn memory_knows_itself() {
        let mut memory = Memory::new(1);
        assert!(memory.whole());
        let before = memory.total;
        assert_ne!(memory.step(5, 6), before);
        assert!(memory.whole());
        memory.words[77] ^= 1;
        assert!(!memory.whole());
    }

    /// Two threads with channels compute what the model computes in a loop.
    #[test]
    fn the_model_is_the_tree() {
        let mut model = Model::new();
        let (mut root, mut child) = (Pair::new(1).expect("threads"), Pair::new(3).expect("threads"));
        let mut last = 0;
        for step in 0..300 {
            let r = root.step(step, last).expect("root");
            last = child.step(step, r).expect("child");
            assert_eq!(model.step(), (r, last), "step {step}");
        }
        assert!(root.whole() && child.whole());
    }
}
