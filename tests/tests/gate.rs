//! The loops over every fault: bardo's Nth kernel call fails, or bardo is killed at it, for N = 1, 2, 3, … until a run
//! meets no fault. After each, the tree goes on and its own checks hold, the image is whole or absent, and nothing of
//! bardo is left (`crates/kernel/src/gate.rs` has the other side).
//!
//! Here a sample of the calls is tried; `BARDO_TEST_FULL=1` tries every one.

use bardo_tests::{
    Case, Fault, Residue, Sample, Workload, bardo, checkpoint_survives, count_calls, descendants, exists,
    expect_whole_or_absent, output_left_nothing, reap_orphans, restart_survives, until,
};

/// The calls that are tried of each loop.
const SAMPLE: Sample = Sample::Spread(24);

/// The loops of each kind of fault for each workload. `exact`: its memory map stays as it is. `killed`: its arguments where bardo
/// is killed. Between a thread's stop and the moment it is put right, a bardo that is killed can't hide the EINTR that the
/// kernel gave some calls (the workload tells which): one answer of one call is accepted there, and only there.
macro_rules! loops {
    ($($test:ident: $name:literal, $exact:literal, $killed:expr;)*) => {$(
        mod $test {
            use super::*;

            fn case(arguments: &'static [&'static str]) -> Case {
                Case { name: $name, arguments, allowed: &[] }
            }

            #[test]
            fn checkpoint_survives_failing_calls() {
                checkpoint_survives(case(&[]), Fault::Fail, SAMPLE, $exact);
            }

            #[test]
            fn checkpoint_survives_being_killed() {
                checkpoint_survives(case($killed), Fault::Kill, SAMPLE, $exact);
            }

            #[test]
            fn checkpoint_survives_being_killed_afterwards() {
                checkpoint_survives(case($killed), Fault::KillAfter, SAMPLE, $exact);
            }

            #[test]
            fn restart_survives_failing_calls() {
                restart_survives(case(&[]), Fault::Fail, SAMPLE);
            }

            #[test]
            fn restart_survives_being_killed() {
                restart_survives(case(&[]), Fault::Kill, SAMPLE);
            }

            #[test]
            fn restart_survives_being_killed_afterwards() {
                restart_survives(case(&[]), Fault::KillAfter, SAMPLE);
            }
        }
    )*};
}

loops! {
    busy: "loop/busy", false, &["interrupted"];
    family: "loop/family", true, &[];
    pipeful: "loop/pipeful", true, &[];
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
    for n in SAMPLE.of(count_calls(&trace)) {
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
    for n in SAMPLE.of(count_calls(&trace)) {
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
