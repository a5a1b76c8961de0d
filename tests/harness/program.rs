//! Programs that nobody here wrote, checkpointed in the middle of their work and judged by their own result.
//!
//! What each works on is a script under `programs/`. All do rounds of the same work and compare each with the first, until
//! they are told to finish: so they are in mid-work at every checkpoint, however fast or slow the machine. The result must
//! be the one that they come to natively.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::place::Place;
use crate::wait::until;
use crate::workload::{Workload, launch};

/// A real program at work.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// The interpreter and its options.
    pub interpreter: &'static [&'static str],
    /// The script under `programs/`.
    pub script: &'static str,
    /// What follows the directory on its command line.
    pub arguments: &'static [&'static str],
    /// What makes that which it works on, in its directory.
    pub prepare: Option<fn(&Place)>,
    /// How many processes it has in mid-work, at least.
    pub processes: usize,
    /// The program of a large package that it needs. Without `BARDO_TEST_LARGE=1` such a test is left out, and says so.
    pub large: Option<&'static str>,
    /// Codes of refusals that pass by themselves: the next checkpoint, a moment later, isn't refused for them.
    pub passing: &'static [&'static str],
}

impl Program {
    /// A script, run by an interpreter.
    pub const fn script(
        interpreter: &'static [&'static str],
        script: &'static str,
        arguments: &'static [&'static str],
    ) -> Program {
        Program {
            interpreter,
            script,
            arguments,
            prepare: None,
            processes: 1,
            large: None,
            passing: &["file/proc"],
        }
    }

    /// The same, with at least so many processes.
    pub const fn of(self, processes: usize) -> Program {
        Program { processes, ..self }
    }

    /// The same, prepared by this.
    pub const fn prepared(self, prepare: fn(&Place)) -> Program {
        Program { prepare: Some(prepare), ..self }
    }

    /// The same, with a program of a large package.
    pub const fn needs_large(self, program: &'static str) -> Program {
        Program { large: Some(program), ..self }
    }

    /// Whether it is left out here: it needs a large package, and those weren't asked for.
    fn is_left_out(&self) -> bool {
        let Some(program) = self.large else { return false };
        if std::env::var_os("BARDO_TEST_LARGE").is_some_and(|v| v == "1") {
            return false;
        }
        // Not by eprintln, which the test harness keeps to itself.
        let _ = writeln!(
            std::io::stderr(),
            "left out without BARDO_TEST_LARGE=1: {} {}, which needs {program}",
            self.script,
            self.arguments.join(" ")
        );
        true
    }

    fn start(&self) -> Workload {
        let place = Place::new(self.script);
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs");
        if let Some(prepare) = self.prepare {
            prepare(&place);
        }
        let mut command = Command::new(launch());
        command.args(self.interpreter.iter().map(|word| in_place(word, &place)));
        if !self.script.is_empty() {
            command.arg(scripts.join(self.script));
        }
        command.arg(place.path()).args(self.arguments);
        Workload::start_command(command, place)
    }

    /// Starts it and waits until it is in the middle of its work.
    fn start_working(&self) -> Workload {
        let mut workload = self.start();
        until("all of the program's processes are there", || workload.tree().pids().len() >= self.processes);
        workload
    }

    /// Checkpoints it, at a moment at which nothing of it is refused that passes by itself.
    #[track_caller]
    fn checkpoint(&self, workload: &Workload, options: &[&str]) {
        until("a checkpoint isn't refused", || {
            let output = workload.on(options.iter().fold(workload.checkpoint("image"), |b, o| b.arg(o)));
            let codes: Vec<&str> = output.stderr.lines().filter_map(code).collect();
            if output.status == 3 && !codes.is_empty() && codes.iter().all(|c| self.passing.contains(c)) {
                return false;
            }
            output.ok();
            true
        });
    }

    fn result_natively(&self) -> String {
        let mut workload = self.start();
        workload.finish();
        result(&workload)
    }

    /// With no checkpoint at all.
    ///
    /// # Panics
    /// When it has no result.
    pub fn runs_natively(&self) {
        if !self.is_left_out() {
            assert!(!self.result_natively().is_empty());
        }
    }

    /// Checkpointed once and ended; restarted to its result.
    ///
    /// # Panics
    /// When that isn't the right one.
    pub fn is_ended_and_restarted(&self) {
        if self.is_left_out() {
            return;
        }
        let expected = self.result_natively();
        let mut workload = self.start_working();
        self.checkpoint(&workload, &["--kill"]);
        workload.wait_gone();
        workload.restart_in_foreground("image", &[]);
        workload.finish();
        assert_eq!(result(&workload), expected);
    }

    /// The original and the restarted one come to the same result. The original is stopped for a moment after its
    /// checkpoint, so that its files can be kept as they were then.
    ///
    /// # Panics
    /// When either doesn't.
    pub fn is_left_running(&self) {
        if self.is_left_out() {
            return;
        }
        let expected = self.result_natively();
        let mut workload = self.start_working();
        self.checkpoint(&workload, &["--stop"]);
        let kept = Place::new("kept");
        copy_below(workload.place().path(), kept.path());
        workload.tree().go_on();
        workload.finish();
        assert_eq!(result(&workload), expected, "the original");
        put_back(workload.place().path(), kept.path());
        workload.restart_in_foreground("image", &["--files", "ignore-changes"]);
        workload.finish();
        assert_eq!(result(&workload), expected, "the restarted one");
    }

    /// Checkpointed fifty times while it runs on.
    ///
    /// # Panics
    /// When its result isn't the right one.
    pub fn is_checkpointed_fifty_times(&self) {
        if self.is_left_out() {
            return;
        }
        let expected = self.result_natively();
        let mut workload = self.start_working();
        for _ in 0..50 {
            self.checkpoint(&workload, &["--force"]);
        }
        workload.finish();
        assert_eq!(result(&workload), expected);
    }

    /// Checkpointed, ended and restarted in its own place, again and again. Every fourth generation ends a round of its
    /// work and comes to a second; the others are checkpointed wherever they have come to.
    ///
    /// # Panics
    /// When its result isn't the right one.
    pub fn lives_for(&self, generations: usize) {
        if self.is_left_out() {
            return;
        }
        let expected = self.result_natively();
        let mut workload = self.start_working();
        for generation in 0..generations {
            self.checkpoint(&workload, &["--force", "--kill"]);
            workload.wait_gone();
            workload.restart_detached("image", &[]);
            if generation % 4 == 3 {
                workload.wait_progress();
            }
        }
        workload.finish();
        assert_eq!(result(&workload), expected);
    }
}

/// A word of a command line that means a file in the program's directory: `./program`.
fn in_place(word: &str, place: &Place) -> OsString {
    match word.strip_prefix("./") {
        Some(name) => place.join(name).into_os_string(),
        None => word.into(),
    }
}

/// The code at the end of a refusal's first line.
fn code(line: &str) -> Option<&str> {
    let (_, code) = line.strip_suffix(']')?.rsplit_once("   [")?;
    Some(code)
}

fn result(workload: &Workload) -> String {
    workload.place().read("result")
}

/// What stays in a workload's directory as it is: the image, and inputs that don't change.
fn is_kept(name: &Path) -> bool {
    !["image", "input"].iter().any(|other| name == Path::new(other))
}

fn names_of(directory: &Path) -> BTreeSet<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    entries.map(|e| PathBuf::from(e.expect("an entry").file_name())).filter(|n| is_kept(n)).collect()
}

/// Copies every file and directory but those that stay as they are.
fn copy_below(from: &Path, to: &Path) {
    for name in names_of(from) {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() {
            std::fs::create_dir_all(&to).expect("a copy of a directory");
            copy_below(&from, &to);
        } else {
            std::fs::copy(&from, &to).expect("a copy of a file");
        }
    }
}

/// Makes the directory as it was: what has come since goes, what was there holds what it held.
fn put_back(place: &Path, kept: &Path) {
    let names = names_of(kept);
    for name in names_of(place).difference(&names) {
        let path = place.join(name);
        let gone = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        gone.expect("what came later");
    }
    for name in names {
        let (to, from) = (place.join(&name), kept.join(&name));
        if from.is_dir() {
            std::fs::create_dir_all(&to).expect("a directory put back");
            put_back(&to, &from);
            continue;
        }
        let before = std::fs::read(&to).ok();
        let bytes = std::fs::read(&from).expect("a kept file");
        // A file that wasn't changed is let alone: it may be one that can't be written to.
        if before.as_ref() != Some(&bytes) {
            std::fs::write(&to, bytes).expect("a file put back");
            let mode = std::fs::metadata(&from).expect("a kept file").permissions();
            std::fs::set_permissions(&to, mode).expect("a file put back");
        }
    }
}
