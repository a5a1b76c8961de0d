//! Starting what is checkpointed, listening to it, and ending it.
//!
//! This process is a child subreaper (man 2 prctl): a restarted tree's root, and whatever loses its parent, becomes its child
//! and is waited for. Otherwise a pid stays taken by a zombie, and a restart can't have it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, wait};

use crate::place::Place;
use crate::{Result, reference};

/// How long anything here may take before the run is given up.
const GIVE_UP: Duration = Duration::from_secs(120);

/// Makes this process the parent of its orphaned descendants.
pub fn adopt_orphans() -> Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// Asks until there is an answer.
fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        if begun.elapsed() > GIVE_UP {
            return Err(format!("waited in vain: {what}").into());
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// What `subject clock` says, in nanoseconds of CLOCK_MONOTONIC.
#[derive(Debug)]
pub struct Gaps {
    /// How long it took to touch every page.
    pub touched_ns: u64,
    /// From one reading of its clock to the next, where that took long.
    gaps: Vec<(u64, u64)>,
}

impl Gaps {
    /// The longest one that has a part in this span of time. It may begin before: who is stopped while it waits for a
    /// processor has read its clock some time ago.
    pub fn longest_ns(&self, from_ns: u64, to_ns: u64) -> Result<u64> {
        let within = self.gaps.iter().filter(|(start, end)| *start <= to_ns && *end >= from_ns);
        within.map(|(start, end)| end - start).max().ok_or_else(|| "the target noticed no pause".into())
    }

    /// The end of the one that goes across this moment: the first instruction of a restarted program.
    pub fn end_ns(&self, moment_ns: u64) -> Result<u64> {
        let across = self.gaps.iter().find(|(start, end)| (*start..*end).contains(&moment_ns));
        across.map(|(_, end)| *end).ok_or_else(|| "the target noticed no restart".into())
    }
}

/// A tree that runs. Dropped, it is ended and waited for.
#[derive(Debug)]
pub struct Subject {
    root: i32,
    /// Its processes: none of the roles makes any once it is ready.
    members: BTreeSet<i32>,
    report: PathBuf,
    /// How long it took to make what it consists of.
    pub made_ns: u64,
}

impl Subject {
    /// Starts one of `subject.c`'s roles and waits until it is ready.
    pub fn start(role: &str, count: u64, place: &Place) -> Result<Subject> {
        let report = place.fresh(&format!("{role}.report"))?;
        let mut command = Command::new(reference::program("subject"));
        command.arg(role).arg(&report).arg(count.to_string());
        let mut subject = Subject::spawn(&mut command, report)?;
        let words = subject.listen()?;
        subject.members = descendants(subject.root);
        subject.made_ns = match &words[..] {
            [ready, ns] if ready == "ready" => ns.parse()?,
            _ => return Err(format!("{role} said {words:?}").into()),
        };
        Ok(subject)
    }

    /// Starts a program that somebody else wrote, and waits until it sleeps.
    pub fn idle(words: &[&str], place: &Place) -> Result<Subject> {
        let mut command = Command::new(reference::program("subject"));
        command.arg("exec").args(words);
        let subject = Subject::spawn(&mut command, place.fresh("no.report")?)?;
        until(&format!("{words:?} sleeps"), || is_asleep(subject.root).then_some(()))?;
        Ok(subject)
    }

    /// All children are waited for together, whoever's they were.
    fn spawn(command: &mut Command, report: PathBuf) -> Result<Subject> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let root = child.map_err(|e| format!("{command:?}: {e}"))?.id() as i32;
        Ok(Subject { root, members: BTreeSet::from([root]), report, made_ns: 0 })
    }

    /// The root's pid.
    pub fn root(&self) -> i32 {
        self.root
    }

    fn listen(&self) -> Result<Vec<String>> {
        let said =
            until(&format!("pid {} reports", self.root), || std::fs::read_to_string(&self.report).ok())?;
        std::fs::remove_file(&self.report)?;
        Ok(said.split_whitespace().map(str::to_owned).collect())
    }

    /// Asks for the gaps since the last report.
    pub fn gaps(&self) -> Result<Gaps> {
        kill_process(pid(self.root)?, Signal::USR1)?;
        let words = self.listen()?;
        let numbers: Vec<u64> = words.iter().map(|w| w.parse()).collect::<std::result::Result<_, _>>()?;
        let [touched_ns, intact, gaps @ ..] = &numbers[..] else { return Err("not a report".into()) };
        if *intact != 1 {
            return Err(format!("the memory of pid {} isn't what it was", self.root).into());
        }
        let (pairs, _) = gaps.as_chunks();
        let gaps = pairs.iter().map(|[start, end]| (*start, *end)).collect();
        Ok(Gaps { touched_ns: *touched_ns, gaps })
    }

    /// Waits until a tree that was killed is gone, so that its pids are free.
    pub fn wait_gone(&self) -> Result<()> {
        until("the pids are free", || {
            while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
            let taken = |pid: &i32| Path::new(&format!("/proc/{pid}")).exists();
            (!self.members.iter().any(taken)).then_some(())
        })
    }

    /// Ends the tree.
    pub fn end(&self) -> Result<()> {
        for member in descendants(self.root) {
            // ESRCH: it ended by itself.
            let _ = pid(member).map(|pid| kill_process(pid, Signal::KILL));
        }
        self.wait_gone()
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("ending pid {}: {error}", self.root);
        }
    }
}

fn pid(raw: i32) -> Result<Pid> {
    Pid::from_raw(raw).ok_or_else(|| "not a pid".into())
}

/// Whether it is in a call that only sleeps: not in the middle of its start.
fn is_asleep(pid: i32) -> bool {
    let nanosleep = if cfg!(target_arch = "x86_64") { "230 " } else { "115 " };
    std::fs::read_to_string(format!("/proc/{pid}/syscall")).is_ok_and(|call| call.starts_with(nanosleep))
}

fn children(pid: i32) -> Vec<i32> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = threads.filter_map(|t| std::fs::read_to_string(t.ok()?.path().join("children")).ok());
    lists.flat_map(|l| l.split_whitespace().filter_map(|p| p.parse().ok()).collect::<Vec<i32>>()).collect()
}

fn descendants(root: i32) -> BTreeSet<i32> {
    let mut all = BTreeSet::new();
    let mut next = vec![root];
    while let Some(pid) = next.pop() {
        if all.insert(pid) {
            next.extend(children(pid));
        }
    }
    all
}
