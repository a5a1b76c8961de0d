//! Programs that nobody here wrote, checkpointed in the middle of their work and judged by their own result: it must be
//! the one that they come to natively.
//!
//! What each works on is a script under `programs/`. All do rounds of the same work and compare each with the first,
//! until they are told to finish: so they are in mid-work at every checkpoint, however fast or slow the machine.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;

use bardo_tests::{Place, Workload, launch, until};

/// A real program at work.
#[derive(Clone, Copy)]
struct Program {
    /// The interpreter and its options.
    interpreter: &'static [&'static str],
    /// The script under `programs/`.
    script: &'static str,
    /// What follows the directory on its command line.
    arguments: &'static [&'static str],
    /// Whether it reads 200 MB.
    input: bool,
    /// How many processes it has in mid-work, at least.
    processes: usize,
}

/// Two hundred megabytes of lines in no order, always the same.
fn write_input(path: &Path) {
    let mut file = BufWriter::new(std::fs::File::create(path).expect("the input"));
    let mut x = 1u64;
    for _ in 0..6_400_000 {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        writeln!(file, "{x:016x} {:x} line", x >> 33).expect("the input");
    }
    file.flush().expect("the input");
}

impl Program {
    fn start(&self) -> Workload {
        let place = Place::new(self.script);
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs");
        let mut command = Command::new(launch());
        command.args(self.interpreter).arg(scripts.join(self.script)).arg(place.path()).args(self.arguments);
        if self.input {
            write_input(&place.join("input"));
        }
        Workload::start_command(command, place)
    }

    /// Starts it and waits until it is in the middle of its work.
    fn start_working(&self) -> Workload {
        let mut workload = self.start();
        until("all of the program's processes are there", || workload.tree().pids().len() >= self.processes);
        workload
    }

    /// Checkpoints it, at a moment at which none of its processes reads a file of proc: `sed` and others do when they
    /// start, and that is refused for now. Nothing else is.
    #[track_caller]
    fn checkpoint(workload: &Workload, options: &[&str]) {
        until("a checkpoint isn't refused", || {
            let output = workload.on(options.iter().fold(workload.checkpoint("image"), |b, o| b.arg(o)));
            let mut codes = output.stderr.lines().filter(|l| l.contains("   [") && l.ends_with(']'));
            if output.status == 3 && codes.all(|l| l.ends_with("[file/proc]")) {
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

    fn runs_natively(&self) {
        assert!(!self.result_natively().is_empty());
    }

    fn is_ended_and_restarted(&self) {
        let expected = self.result_natively();
        let mut workload = self.start_working();
        Self::checkpoint(&workload, &["--kill"]);
        workload.wait_gone();
        workload.restart_in_foreground("image", &[]);
        workload.finish();
        assert_eq!(result(&workload), expected);
    }

    /// The original and the restarted one come to the same result. The original is stopped for a moment after its
    /// checkpoint, so that its files can be kept as they were then.
    fn is_left_running(&self) {
        let expected = self.result_natively();
        let mut workload = self.start_working();
        Self::checkpoint(&workload, &["--stop"]);
        let kept = copy_of(workload.place());
        workload.tree().go_on();
        workload.finish();
        assert_eq!(result(&workload), expected, "the original");
        put_back(workload.place(), &kept);
        workload.restart_in_foreground("image", &["--files", "ignore-changes"]);
        workload.finish();
        assert_eq!(result(&workload), expected, "the restarted one");
    }

    fn is_checkpointed_fifty_times(&self) {
        let expected = self.result_natively();
        let mut workload = self.start_working();
        for _ in 0..50 {
            Self::checkpoint(&workload, &["--force"]);
        }
        workload.finish();
        assert_eq!(result(&workload), expected);
    }
}

fn result(workload: &Workload) -> String {
    workload.place().read("result")
}

/// Everything in a workload's directory but its image and its input, which doesn't change.
fn copy_of(place: &Place) -> Place {
    let kept = Place::new("kept");
    for name in place.names().iter().filter(|n| !["image", "input"].contains(&n.as_str())) {
        std::fs::copy(place.join(name), kept.join(name)).expect("a copy of a file");
    }
    kept
}

/// Makes the directory as it was: what has come since goes, what was there holds what it held.
fn put_back(place: &Place, kept: &Place) {
    let names = kept.names();
    for name in
        place.names().iter().filter(|n| !["image", "input"].contains(&n.as_str()) && !names.contains(n))
    {
        std::fs::remove_file(place.join(name)).expect("a file that came later");
    }
    for name in names {
        let bytes = std::fs::read(kept.join(&name)).expect("a kept file");
        std::fs::write(place.join(&name), bytes).expect("a file put back");
    }
}

/// The four tests of a program.
macro_rules! programs {
    ($($test:ident: $program:expr;)*) => {$(
        mod $test {
            use super::*;
            const PROGRAM: Program = $program;

            #[test]
            fn runs_natively() {
                PROGRAM.runs_natively();
            }

            #[test]
            fn is_ended_and_restarted() {
                PROGRAM.is_ended_and_restarted();
            }

            #[test]
            fn is_left_running() {
                PROGRAM.is_left_running();
            }

            #[test]
            fn is_checkpointed_fifty_times() {
                PROGRAM.is_checkpointed_fifty_times();
            }
        }
    )*};
}

const fn script(interpreter: &'static [&'static str], script: &'static str, processes: usize) -> Program {
    Program { interpreter, script, arguments: &[], input: false, processes }
}

const fn pipeline(what: &'static [&'static str], processes: usize) -> Program {
    Program { interpreter: &["sh"], script: "pipeline.sh", arguments: what, input: true, processes }
}

programs! {
    bash: script(&["bash"], "jobs.bash", 2);
    python: script(&["python3"], "heap.py", 1);
    perl: script(&["perl"], "tables.pl", 1);
    awk: script(&["awk", "-f"], "words.awk", 1);
    sort: pipeline(&["sort"], 4);
    gzip: pipeline(&["gzip"], 6);
    tar: pipeline(&["tar"], 8);
}
