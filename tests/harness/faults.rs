//! The loops over every fault: bardo's Nth kernel call fails, or bardo is killed at it, for N = 1, 2, 3, … until a run
//! meets no fault. After each, the tree goes on and its own checks hold, the image is whole or absent, and nothing of
//! bardo is left (`crates/kernel/src/gate.rs` has the other side).
//!
//! Here a sample of the calls is tried; `BARDO_TEST_FULL=1` tries every one.

use std::path::Path;

use crate::bardo::{Output, bardo};
use crate::full;
use crate::modes::Case;
use crate::process::{descendants, exists, reap_orphans};
use crate::residue::Residue;
use crate::wait::{until, until_some};
use crate::workload::Workload;

/// What happens at the Nth call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails, and bardo has to cope.
    Fail,
    /// bardo is killed before it.
    Kill,
    /// bardo is killed after it.
    KillAfter,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 3] = [Fault::Fail, Fault::Kill, Fault::KillAfter];

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

/// Which calls are tried, where not every one is.
#[derive(Debug, Clone, Copy)]
pub enum Sample {
    /// So many: the first, the last, and some between.
    Spread(usize),
    /// So many, somewhere: other calls for each name, so that many workloads meet many of them.
    Scattered(usize, &'static str),
}

impl Sample {
    /// The calls to try, of a run that was seen to make this many.
    pub fn of(self, calls: usize) -> Vec<usize> {
        match self {
            Sample::Spread(size) if calls > size && !full() => {
                let ends = size / 4;
                let between = size - 2 * ends;
                let middle = (0..between).map(|i| ends + 1 + (calls - 2 * ends) * i / between);
                let mut all: Vec<usize> = (1..=ends).chain(middle).chain(calls - ends + 1..=calls).collect();
                all.dedup();
                all
            }
            Sample::Scattered(size, name) if calls > size => {
                let begin =
                    name.bytes().fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
                let mut all: Vec<usize> = (0..size).map(|i| 1 + (begin + calls * i / size) % calls).collect();
                all.sort_unstable();
                all
            }
            _ => (1..=calls).collect(),
        }
    }
}

/// How many calls a traced run made.
///
/// # Panics
/// When it has traced none.
pub fn count_calls(trace: &Path) -> usize {
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
///
/// # Panics
/// When it is neither.
#[track_caller]
pub fn expect_whole_or_absent(workload: &Workload, output: &Output) {
    let image = workload.place().join("image");
    if image.exists() {
        bardo(["verify", "--quiet"]).arg(&image).run().ok();
        std::fs::remove_file(&image).expect("the image");
    } else {
        assert_ne!(output.status, 0, "no image, but: {output}");
    }
}

/// The checkpoint's loop. `exact`: the workload's memory map stays as it is.
///
/// # Panics
/// When anything is lost, harmed or left.
pub fn checkpoint_survives(case: Case, fault: Fault, sample: Sample, exact: bool) {
    let mut workload = case.start();
    let residue = if exact { Residue::exactly_of(workload.pid()) } else { Residue::of(workload.pid()) };
    let trace = workload.place().join("trace");
    let gate = format!("trace={}", trace.display());
    workload.on(workload.checkpoint("image").gate(&gate)).ok();
    std::fs::remove_file(workload.place().join("image")).expect("the image");
    let calls = count_calls(&trace);
    let mut met = 0;
    let mut faults = sample.of(calls);
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

/// Nothing of a run is left, neither a process nor a file.
///
/// # Panics
/// When something is.
#[track_caller]
pub fn output_left_nothing(output: &Output, workload: &Workload) {
    output.clone().nothing_left();
    let strange = strange_names(workload);
    assert!(strange.is_empty(), "left behind: {strange:?} by {output}");
}

/// The restart's loop.
///
/// # Panics
/// When a part of a tree runs, or anything is left.
pub fn restart_survives(case: Case, fault: Fault, sample: Sample) {
    let mut workload = case.start();
    let pids = descendants(workload.pid());
    workload.tree();
    workload.on(workload.checkpoint("image").arg("--kill")).ok();
    workload.wait_gone();
    let kept = workload.keep();
    let restart = |workload: &Workload, gate: &str| {
        workload.set_back(&kept);
        until_some("the restart's pids are free", || {
            let command = bardo(["restart", "--quiet", "--detach", "--files", "ignore-changes"]).gate(gate);
            let command = command.arg(workload.place().join("image"));
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
    let mut faults = sample.of(calls);
    while let Some(n) = (!faults.is_empty()).then(|| faults.remove(0)) {
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
    workload.set_back(&kept);
    workload.restart_detached("image", &["--files", "ignore-changes"]);
    workload.wait_progress();
    workload.finish();
}
