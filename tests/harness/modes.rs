//! The ways in which every workload runs: natively, stopped and restarted, left running, twenty times over, and under faults.

use crate::bardo::bardo;
use crate::compare::{Allowed, compare};
use crate::faults::{Fault, Sample, checkpoint_survives, restart_survives};
use crate::full;
use crate::residue::Residue;
use crate::snapshot::Snapshot;
use crate::workload::Workload;

/// A workload and its arguments.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// The program: `task/threads`.
    pub name: &'static str,
    /// What follows the directory on its command line.
    pub arguments: &'static [&'static str],
    /// Differences in `/proc` that are allowed for this one, beside [`crate::ALLOWED`].
    pub allowed: &'static [Allowed],
}

impl Case {
    /// Starts it, and waits until it makes progress.
    pub fn start(&self) -> Workload {
        let workload = Workload::start(self.name, self.arguments);
        workload.wait_progress();
        workload
    }
}

/// With no checkpoint at all: the workload itself must be right.
pub fn natively(case: Case) {
    case.start().finish();
}

/// Checkpointed and stopped, looked at, ended; restarted stopped and looked at again; restarted to its end.
///
/// # Panics
/// When anything differs that may not.
#[track_caller]
pub fn stopped_and_restarted(case: Case) {
    let mut workload = case.start();
    workload.tree();
    workload.on(workload.checkpoint("image").arg("--stop")).ok();
    let before = Snapshot::of_stopped(workload.pid());
    workload.kill();
    bardo(["verify", "--quiet"]).arg(workload.place().join("image")).run().ok();

    workload.restart_detached("image", &["--stopped"]);
    let after = Snapshot::of_stopped(workload.pid());
    let differences = compare(&before, &after, case.allowed);
    assert!(differences.is_empty(), "/proc shows these differences after the restart:\n{differences}");
    workload.kill();

    workload.reset_progress();
    workload.restart_in_foreground("image", &[]);
    workload.wait_progress();
    workload.finish();
}

/// Checkpointed while it runs on: the original comes to its right end, and so does the restarted one.
///
/// # Panics
/// When either doesn't.
#[track_caller]
pub fn left_running(case: Case) {
    let mut workload = case.start();
    let before = Residue::of(workload.pid());
    workload.on(workload.checkpoint("image")).ok();
    workload.wait_progress();
    before.expect_nothing_new();
    let kept = workload.keep();
    workload.finish();
    workload.set_back(&kept);
    workload.restart_in_foreground("image", &["--files", "ignore-changes"]);
    workload.wait_progress();
    workload.finish();
}

/// Checkpointed, ended and restarted twenty times, each time from the checkpoint of the one before.
///
/// # Panics
/// When any of them fails.
#[track_caller]
pub fn twenty_times(case: Case) {
    let mut workload = case.start();
    for _ in 0..20 {
        workload.tree();
        workload.on(workload.checkpoint("image").arg("--force").arg("--kill")).ok();
        workload.wait_gone();
        workload.reset_progress();
        workload.restart_detached("image", &[]);
        workload.wait_progress();
    }
    workload.finish();
}

/// Checkpointed and restarted while calls fail and bardo is killed, at a few calls of each workload: with `BARDO_TEST_FULL=1`,
/// since it takes long (`tests/gate.rs` has loops for every run). Otherwise it runs natively.
///
/// # Panics
/// When anything is lost, harmed or left.
#[track_caller]
pub fn in_faults(case: Case) {
    if !full() {
        return natively(case);
    }
    let sample = Sample::Scattered(8, case.name);
    for fault in Fault::ALL {
        // `workload.h` says why.
        let arguments: &[&str] = if fault == Fault::Fail { case.arguments } else { &["interrupted"] };
        checkpoint_survives(Case { arguments, ..case }, fault, sample, false);
        restart_survives(case, fault, sample);
    }
}
