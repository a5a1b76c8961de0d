//! The loops over every fault: bardo's Nth kernel call fails, or bardo is killed at it, for N = 1, 2, 3, … until a run
//! meets no fault. After each, the tree goes on and its own checks hold, the image is whole or absent, and nothing of
//! bardo is left (`crates/kernel/src/gate.rs` has the other side).
//!
//! Here a sample of the calls is tried; `BARDO_TEST_FULL=1` tries every one.

use std::path::Path;

use bardo_tests::{
    Output, Residue, Workload, bardo, descendants, exists, full, reap_orphans, until, until_some,
};

/// How many faults of a kind a sample has.
const SAMPLE: usize = 24;

/// What happens at the Nth call.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    Fail,
    Kill,
    KillAfter,
}

impl Fault {
    fn gate(self, n: usize) -> String {
        let word = match self {
            Fault::Fail => "fail",
            Fault::Kill => "kill",
            Fault::KillAfter => "kill-after",
        };
        format!("{word}={n}")
    }

    /// Whether a run with this fault at call N has met it for sure: a killed one shows it, a failed call need not.
    fn was_met(self, n: usize, output: &Output, calls: usize) -> bool {
        if self == Fault::Fail { n <= calls } else { output.status == 128 + 9 }
    }
}

/// The calls to try, of a run that was seen to make this many: all of them, or the first, the last, and some between.
fn chosen(calls: usize) -> Vec<usize> {
    if full() || calls <= SAMPLE {
        return (1..=calls).collect();
    }
    let ends = SAMPLE / 4;
    let between = SAMPLE - 2 * ends;
    let middle = (0..between).map(|i| ends + 1 + (calls - 2 * ends) * i / between);
    let mut all: Vec<usize> = (1..=ends).chain(middle).chain(calls - ends + 1..=calls).collect();
    all.dedup();
    all
}

/// How many calls a traced run made.
fn count_calls(trace: &Path) -> usize {
    let count = std::fs::read_to_string(trace).map_or(0, |t| t.lines().count());
    assert!(count > 0, "the gate has traced nothing: BARDO_GATE=trace isn't honoured");
    count
}

/// The names in the workload's directory that aren't the workload's own.
fn strange_names(workload: &Workload) -> Vec<String> {
    let own = ["ready", "out", "err", "bardo.out", "bardo.err", "data", "trace", "verdict", "finish"];
    let names = workload.place().names().into_iter();
    names.filter(|n| !own.contains(&n.as_str()) && !n.starts_with("progress")).collect()
}

/// The image is whole or absent, whatever became of the bardo that wrote it. Takes it away.
#[track_caller]
fn expect_whole_or_absent(workload: &Workload, output: &Output) {
    let image = workload.place().join("image");
    if image.exists() {
        bardo(["verify", "--quiet"]).arg(&image).run().ok();
        std::fs::remove_file(&image).expect("the image");
    } else {
        assert_ne!(output.status, 0, "no image, but: {output}");
    }
}

fn checkpoint_loop(name: &'static str, fault: Fault, exact: bool) {
    // Killed between a thread's stop and the moment it is put right, bardo can't hide the EINTR that the kernel gave some calls
    // (the workload tells which): one answer of one call is accepted where bardo is killed, and only there.
    let arguments: &[&str] = if name == "loop/busy" && fault != Fault::Fail { &["interrupted"] } else { &[] };
    let mut workload = Workload::start(name, arguments);
    workload.wait_progress();
    let residue = if exact { Residue::exactly_of(workload.pid()) } else { Residue::of(workload.pid()) };
    let trace = workload.place().join("trace");
    let gate = format!("trace={}", trace.display());
    workload.on(workload.checkpoint("image").gate(&gate)).ok();
    std::fs::remove_file(workload.place().join("image")).expect("the image");
    let calls = count_calls(&trace);
    let mut met = 0;
    let mut faults = chosen(calls);
    while let Some(n) = (!faults.is_empty()).then(|| faults.remove(0)) {
        let output = workload.on(workload.checkpoint("image").gate(&fault.gate(n)));
        eprintln!("{}: {}", fault.gate(n), output.status);
        let was_met = fault.was_met(n, &output, calls);
        met += usize::from(was_met);
        if fault == Fault::Fail {
            output.clone().honest();
        }
        expect_whole_or_absent(&workload, &output);
        workload.wait_progress();
        // What is left is at most what the next bardo takes away: the call that failed may have been the one to clean up.
        let next = workload.on(workload.checkpoint("image"));
        expect_whole_or_absent(&workload, &next);
        next.ok();
        output_left_nothing(&output, &workload);
        workload.wait_progress();
        residue.expect_nothing_new();
        if faults.is_empty() && was_met && full() {
            faults.push(n + 1); // until a run meets no fault
        }
    }
    assert!(met > 0, "no fault was met");
    workload.finish();
}

#[track_caller]
fn output_left_nothing(output: &Output, workload: &Workload) {
    output.clone().nothing_left();
    let strange = strange_names(workload);
    assert!(strange.is_empty(), "left behind: {strange:?} by {output}");
}

fn restart_loop(name: &'static str, fault: Fault) {
    let mut workload = Workload::start(name, &[]);
    workload.wait_progress();
    let pids = descendants(workload.pid());
    workload.tree();
    workload.on(workload.checkpoint("image").arg("--kill")).ok();
    workload.wait_gone();
    let restart = |workload: &Workload, gate: &str| {
        until_some("the restart's pids are free", || {
            let command =
                bardo(["restart", "--quiet", "--detach"]).gate(gate).arg(workload.place().join("image"));
            let stdio = ["bardo.out", "bardo.err"].map(|n| workload.place().join(n));
            let output = command.stdio(&stdio[0], &stdio[1]).run();
            (!workload.make_way(&output)).then_some(output)
        })
    };
    let trace = workload.place().join("trace");
    restart(&workload, &format!("trace={}", trace.display())).ok();
    workload.wait_progress();
    workload.kill();
    let calls = count_calls(&trace);
    let mut met = 0;
    let mut faults = chosen(calls);
    while let Some(n) = (!faults.is_empty()).then(|| faults.remove(0)) {
        workload.reset_progress();
        let output = restart(&workload, &fault.gate(n));
        eprintln!("{}: {}", fault.gate(n), output.status);
        let was_met = fault.was_met(n, &output, calls);
        met += usize::from(was_met);
        let output = if output.status == 128 + 9 { output } else { output.honest() };
        output.clone().nothing_left();
        if output.status == 0 {
            workload.wait_progress();
        } else {
            // Nothing of it, or (killed when all was done) all of it: never a part.
            until("nothing is left of a restart that was killed, or all of it runs", || {
                reap_orphans(pids.iter().copied()); // of a bardo that couldn't do it
                pids.iter().all(|p| !exists(*p)) || workload.has_progress()
            });
            assert!(output.status != 1 || !exists(workload.pid()), "it failed, and yet it runs: {output}");
        }
        workload.kill();
        bardo(["verify", "--quiet"]).arg(workload.place().join("image")).run().ok();
        if faults.is_empty() && was_met && full() {
            faults.push(n + 1);
        }
    }
    assert!(met > 0, "no fault was met");
    workload.reset_progress();
    workload.restart_detached("image", &[]);
    workload.wait_progress();
    workload.finish();
}

/// The loops of each kind of fault for each workload. `exact`: its memory map stays as it is.
macro_rules! loops {
    ($($test:ident: $name:literal, $exact:literal;)*) => {$(
        mod $test {
            use super::*;

            #[test]
            fn checkpoint_survives_failing_calls() {
                checkpoint_loop($name, Fault::Fail, $exact);
            }

            #[test]
            fn checkpoint_survives_being_killed() {
                checkpoint_loop($name, Fault::Kill, $exact);
            }

            #[test]
            fn checkpoint_survives_being_killed_afterwards() {
                checkpoint_loop($name, Fault::KillAfter, $exact);
            }

            #[test]
            fn restart_survives_failing_calls() {
                restart_loop($name, Fault::Fail);
            }

            #[test]
            fn restart_survives_being_killed() {
                restart_loop($name, Fault::Kill);
            }

            #[test]
            fn restart_survives_being_killed_afterwards() {
                restart_loop($name, Fault::KillAfter);
            }
        }
    )*};
}

loops! {
    busy: "loop/busy", false;
    family: "loop/family", true;
    pipeful: "loop/pipeful", true;
    seccomp: "task/seccomp", false;
}

/// Ctrl-C at many moments of a checkpoint: the tree goes on, the image is whole or absent.
#[test]
fn an_interrupted_checkpoint_leaves_nothing() {
    let mut workload = Workload::start("loop/family", &[]);
    workload.wait_progress();
    let residue = Residue::exactly_of(workload.pid());
    let trace = workload.place().join("trace");
    let gate = format!("trace={}", trace.display());
    workload.on(workload.checkpoint("image").gate(&gate)).ok();
    std::fs::remove_file(workload.place().join("image")).expect("the image");
    for n in chosen(count_calls(&trace)) {
        std::fs::remove_file(&trace).expect("the trace");
        let started = workload.checkpoint("image").arg(workload.pid().to_string()).gate(&gate).start();
        until("bardo has come far enough to be interrupted", || {
            let seen = std::fs::read_to_string(&trace).map_or(0, |t| t.lines().count());
            seen >= n || started.has_ended()
        });
        started.interrupt();
        let output = started.end();
        assert!(output.status == 128 + 2 || output.status == 0 || output.status == 1, "{output}");
        expect_whole_or_absent(&workload, &output);
        output_left_nothing(&output, &workload);
        workload.wait_progress();
        residue.expect_nothing_new();
    }
    workload.finish();
}

/// Ctrl-C at many moments of a restart, before the tree runs: nothing is left. Later it is the tree's own signal.
#[test]
fn an_interrupted_restart_leaves_nothing() {
    let mut workload = Workload::start("loop/family", &[]);
    workload.wait_progress();
    let pids = descendants(workload.pid());
    workload.tree();
    workload.on(workload.checkpoint("image").arg("--kill")).ok();
    workload.wait_gone();
    let trace = workload.place().join("trace");
    let restart = |workload: &Workload| {
        let command = bardo(["restart", "--quiet", "--detach"]).gate(&format!("trace={}", trace.display()));
        let command = command.arg(workload.place().join("image"));
        command.stdio(&workload.place().join("bardo.out"), &workload.place().join("bardo.err"))
    };
    restart(&workload).run().ok();
    workload.wait_progress();
    workload.kill();
    for n in chosen(count_calls(&trace)) {
        std::fs::remove_file(&trace).expect("the trace");
        workload.reset_progress();
        let started = restart(&workload).start();
        until("bardo has come far enough to be interrupted", || {
            let seen = std::fs::read_to_string(&trace).map_or(0, |t| t.lines().count());
            seen >= n || started.has_ended()
        });
        started.interrupt();
        let output = started.end().nothing_left();
        if output.status == 0 {
            workload.wait_progress();
        } else {
            until("nothing is left of an interrupted restart", || {
                reap_orphans(pids.iter().copied()); // of a bardo that couldn't do it
                pids.iter().all(|p| !exists(*p))
            });
        }
        workload.kill();
    }
}
