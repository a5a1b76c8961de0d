//! `bardo demo`: a small tree is started, checkpointed, killed and restarted, and every figure is checked. What lives is
//! in [`demo_worker`](super::demo_worker).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bardo_engine::checkpoint::{After, Report, Request, Sink, checkpoint};
use bardo_engine::restart::{self, Files, PidSpace, Restarted, Source, restart};
use bardo_engine::{Error, Failure};
use clap::Args;
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, getpid, kill_process, set_child_subreaper, waitid,
};
use serde::Serialize;
use tempfile::TempDir;

use crate::arguments::EXIT_CODES;
use crate::commands::demo_worker::{BYTES, Entry, LINE, Model};
use crate::ending::{Ending, Exit, ended};
use crate::follow::Follow;
use crate::interrupt::Interrupt;
use crate::session::{Channel, Session, failed};
use crate::wording::{During, bytes, micros};

const EXAMPLES: &str = "\
Examples:
  bardo demo
  bardo demo --steps 2>steps.txt    and what runs inside the processes meanwhile

The tree has two processes with two threads each, pipes between them, an open file, and 32 MiB of
memory whose checksum changes with every step. Each step depends on all before it, so bardo can
compute what an undisturbed tree would have written, and compares every line.

Privileges:
  None. An ordinary user's tree comes back in a pid namespace of its own.";

/// Steps before the checkpoint, and after the restart, at the least.
const STEPS: u64 = 300;
/// A tree that makes no step for so long is stuck; it makes thousands a second.
const STUCK: Duration = Duration::from_secs(60);

/// Checkpoint, kill and restart a small tree of bardo's own, and check that it went on.
///
/// Exits with 0 only if the tree went on from the very step it had reached, with the same pids and the right checksums.
#[derive(Debug, Args)]
#[command(after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct Demo {}

#[derive(Serialize)]
struct DemoReport {
    root_pid: i32,
    child_pid: i32,
    seen_pid: i32,
    memory_bytes: u64,
    pause_us: u64,
    checkpoint_us: u64,
    image_bytes: u64,
    restart_us: u64,
    step_before: u64,
    step_after: u64,
    last_step: u64,
    checksum_before: String,
    checksum_after: String,
    checksums_agree: bool,
}

impl Demo {
    /// Does it.
    ///
    /// # Errors
    /// Checkpoint or restart end badly, or the tree didn't go on as it should.
    pub fn run(self, session: &Session) -> Result<Exit, Ending> {
        let interrupt = Interrupt::catch()?;
        // Whose parent is killed becomes our child, so that its pid is free as soon as we have waited for it.
        set_child_subreaper(Some(getpid()))
            .map_err(|e| failed("becoming a subreaper", "prctl()", &e.into()))?;
        let directory = tempfile::Builder::new().prefix("bardo-demo-").tempdir();
        let directory = directory.map_err(|e| failed("making a directory", "mkdir()", &e))?;
        let tell = |word: &str, text: String| match session.common.json || session.common.quiet {
            true => Ok(()),
            false => session.data(format!("{word:12}{text}\n")),
        };

        let mut tree = Tree::start(directory, &interrupt)?;
        let first = tree.wait_for_step(STEPS)?;
        let (root_pid, child_pid) = (first.root_pid, first.child_pid);
        tell(
            "started",
            format!(
                "pid {root_pid} and its child {child_pid}: 2 threads each, 2 pipes, 1 open file, {} under checksum",
                bytes(BYTES)
            ),
        )?;

        let report = tree.checkpoint(session, &interrupt)?;
        tree.reap(child_pid)?;
        let before = tree.last_entry()?;
        tell(
            "checkpoint",
            format!(
                "pause {}, image {} in {}",
                micros(report.pause_us),
                bytes(report.image_bytes),
                micros(report.total_us)
            ),
        )?;
        tell(
            "killed",
            format!(
                "pid {root_pid} and {child_pid}, at step {}, checksum {:016x}",
                before.step, before.child
            ),
        )?;

        let restarted = tree.restart(session, &interrupt)?;
        tree.wait_for_step(before.step + STEPS)?;
        tree.stop()?;
        let entries = tree.entries()?;
        let after = *entries
            .get(before.step as usize + 1)
            .ok_or_else(|| wrong("the journal has no new line".into()))?;
        let space = if restarted.root == root_pid {
            String::new()
        } else {
            format!(" (a pid namespace of its own; from here, pid {})", restarted.root)
        };
        tell(
            "restart",
            format!(
                "pid {} and {} again, in {}{space}",
                after.root_pid,
                after.child_pid,
                micros(restarted.total_us)
            ),
        )?;
        tell("went on", format!("with step {}, checksum {:016x}", after.step, after.child))?;

        compare(&entries, root_pid, child_pid)?;
        let last = entries.len() as u64 - 1;
        tell("checked", format!("all steps to {last}: each checksum is that of an undisturbed run"))?;
        let report = DemoReport {
            root_pid,
            child_pid,
            seen_pid: restarted.root,
            memory_bytes: BYTES,
            pause_us: report.pause_us,
            checkpoint_us: report.total_us,
            image_bytes: report.image_bytes,
            restart_us: restarted.total_us,
            step_before: before.step,
            step_after: after.step,
            last_step: last,
            checksum_before: format!("{:016x}", before.child),
            checksum_after: format!("{:016x}", after.child),
            checksums_agree: true,
        };
        session.result(&report, Channel::Output)?;
        Ok(Exit::Done)
    }
}

/// Every line is the one that an undisturbed tree would have written.
fn compare(entries: &[Entry], root_pid: i32, child_pid: i32) -> Result<(), Ending> {
    let mut model = Model::new();
    for (step, entry) in (0..).zip(entries) {
        let (root, child) = model.step();
        let right = Entry { step, root, child, root_pid, child_pid };
        if *entry != right {
            return Err(wrong(format!("line {step} of the journal is {entry:?}, and should be {right:?}")));
        }
    }
    Ok(())
}

/// The demo's verdict that something isn't as it was: that can only be our mistake.
fn wrong(what: String) -> Ending {
    Ending::Engine {
        error: Error::Bug(format!("the tree didn't go on as it should: {what}")),
        during: During::Reading,
        image: None,
    }
}

/// The living tree, its directory, and whom to wait for. Ends with the demo, however that ends.
struct Tree<'a> {
    directory: TempDir,
    interrupt: &'a Interrupt,
    child: Option<Child>,
    /// The restarted tree: its root, or its namespace's init.
    restarted: Option<Pid>,
}

impl<'a> Tree<'a> {
    fn start(directory: TempDir, interrupt: &'a Interrupt) -> Result<Tree<'a>, Ending> {
        // What bardo itself inherited from its caller would belong to the tree too, and be refused.
        bardo_kernel::fcntl::set_cloexec_range(3, u32::MAX)
            .map_err(|e| failed("starting the demo's tree", "close_range()", &e.into()))?;
        let start = || {
            Command::new(std::env::current_exe()?)
                .arg("demo-worker")
                .arg(directory.path())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
        };
        let child = start().map_err(|e| failed("starting the demo's tree", "execve(/proc/self/exe)", &e))?;
        Ok(Tree { directory, interrupt, child: Some(child), restarted: None })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn pid(&self) -> i32 {
        // A pid fits: the kernel's type is int.
        self.child.as_ref().map_or(0, |child| child.id() as i32)
    }

    /// Every line of the journal that is complete.
    fn entries(&self) -> Result<Vec<Entry>, Ending> {
        let text = read(&self.path("journal"))?;
        text.as_bytes()
            .chunks_exact(LINE)
            .map(|line| {
                let line = String::from_utf8_lossy(line);
                let entry = line.strip_suffix('\n').and_then(Entry::parse);
                entry.ok_or_else(|| wrong(format!("the journal has the line {line:?}")))
            })
            .collect()
    }

    fn last_entry(&self) -> Result<Entry, Ending> {
        self.entries()?.last().copied().ok_or_else(|| wrong("the journal is empty".into()))
    }

    /// Waits until the journal has this step's line.
    fn wait_for_step(&mut self, step: u64) -> Result<Entry, Ending> {
        let mut size = 0;
        let mut moved = Instant::now();
        loop {
            let now = fs::metadata(self.path("journal")).map_or(0, |m| m.len());
            if now >= (step + 1) * LINE as u64 {
                return self.last_entry();
            }
            if now != size {
                (size, moved) = (now, Instant::now());
            }
            if self.interrupt.signal().is_some() {
                return Err(interrupted());
            }
            if let Some(how) = self.ended()? {
                return Err(self.died(&how));
            }
            if moved.elapsed() > STUCK {
                return Err(wrong(format!("no step for {} s", STUCK.as_secs())));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// How the tree ended, if it did.
    fn ended(&mut self) -> Result<Option<String>, Ending> {
        if let Some(child) = &mut self.child {
            let status = child.try_wait().map_err(|e| failed("waiting for the tree", "waitpid()", &e))?;
            return Ok(status.map(|s| s.to_string()));
        }
        let Some(pid) = self.restarted else { return Ok(None) };
        // NOWAIT: it stays ours to wait for, so that its number can't be another's when we signal it.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let status = waitid(WaitId::Pid(pid), options);
        Ok(status.map_err(|e| failed("waiting for the tree", "waitid()", &e.into()))?.map(told))
    }

    fn died(&self, how: &str) -> Ending {
        let why = fs::read_to_string(self.path("broken")).unwrap_or_default();
        wrong(format!("it ended ({how}) {why}"))
    }

    fn checkpoint(&self, session: &Session, interrupt: &Interrupt) -> Result<Report, Ending> {
        let follow = Follow::checkpoint(session, interrupt.flag());
        let request = Request {
            pid: self.pid(),
            sink: Sink::File { path: self.path("demo.img"), force: false },
            after: After::Kill,
            external: Vec::new(),
            compress: None,
        };
        // A tracer is a thread (ptrace(2)), and a killed thread stays a zombie until its tracer has waited for it or has
        // ended. A command's end does that; the demo goes on, so a thread of its own ends instead.
        let result = std::thread::scope(|scope| scope.spawn(|| checkpoint(request, &follow)).join());
        match result {
            Ok(result) => result.map_err(ended(During::Checkpoint, None)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Waits for the killed processes: a zombie keeps its pid.
    fn reap(&mut self, child_pid: i32) -> Result<(), Ending> {
        if let Some(mut child) = self.child.take() {
            child.wait().map_err(|e| failed("waiting for the killed tree", "waitpid()", &e))?;
        }
        let Some(pid) = Pid::from_raw(child_pid) else { return Ok(()) };
        match waitid(WaitId::Pid(pid), WaitIdOptions::EXITED) {
            // Not ours, so somebody else has waited for it.
            Ok(_) | Err(Errno::CHILD) => Ok(()),
            Err(e) => Err(failed("waiting for the killed tree", "waitid()", &e.into())),
        }
    }

    fn restart(&mut self, session: &Session, interrupt: &Interrupt) -> Result<Restarted, Ending> {
        let follow = Follow::restart(session, interrupt.flag());
        let request = restart::Request {
            source: Source::File(self.path("demo.img")),
            stopped: false,
            external: Vec::new(),
            files: Files::MustMatch,
            pid_space: PidSpace::Auto,
            clocks: restart::Clocks::Auto,
            detach: false,
        };
        let restarted = restart(request, &follow).map_err(ended(During::Restart, None))?;
        self.restarted = Pid::from_raw(restarted.wait_for);
        Ok(restarted)
    }

    /// Lets the tree check all its memory and end.
    fn stop(&mut self) -> Result<(), Ending> {
        let path = self.path("stop");
        fs::write(&path, "").map_err(|e| failed("stopping the tree", &format!("open({path:?})"), &e))?;
        let began = Instant::now();
        loop {
            if let Some(how) = self.ended()? {
                return if how == told_code(0) { Ok(()) } else { Err(self.died(&how)) };
            }
            if self.interrupt.signal().is_some() {
                return Err(interrupted());
            }
            if began.elapsed() > STUCK {
                return Err(wrong(format!("it didn't end within {} s", STUCK.as_secs())));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Tree<'_> {
    fn drop(&mut self) {
        // Its child ends when the pipe to it closes, or with its namespace.
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(pid) = self.restarted {
            let _ = kill_process(pid, Signal::KILL);
            let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED);
        }
    }
}

fn told(status: WaitIdStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => told_code(code),
        (_, Some(signal)) => format!("signal: {signal}"),
        _ => "in an unknown way".into(),
    }
}

fn told_code(code: i32) -> String {
    format!("exit status: {code}")
}

fn interrupted() -> Ending {
    let failure = Failure {
        doing: "the demo was interrupted".into(),
        who: None,
        call: None,
        left: "its tree is ended".into(),
        remedy: None,
    };
    Ending::Engine { error: Error::Failed(failure), during: During::Reading, image: None }
}

fn read(path: &Path) -> Result<String, Ending> {
    fs::read_to_string(path)
        .map_err(|e: io::Error| failed("reading the journal", &format!("open({path:?})"), &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_that_differs_is_found() {
        let mut model = Model::new();
        let mut entries: Vec<Entry> = (0..200)
            .map(|step| {
                let (root, child) = model.step();
                Entry { step, root, child, root_pid: 7, child_pid: 8 }
            })
            .collect();
        assert!(compare(&entries, 7, 8).is_ok());
        assert!(compare(&entries, 7, 9).is_err());
        entries[199].child ^= 1;
        assert!(compare(&entries, 7, 8).is_err());
        entries[199].child ^= 1;
        entries.remove(100);
        assert!(compare(&entries, 7, 8).is_err());
    }
}
