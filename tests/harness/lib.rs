//! What the tests are made of: workloads, the bardo program, and what `/proc` shows.
//!
//! A test starts a [`Workload`] (a C program under `workloads/` that checks itself) or a real program, lets [`bardo`]
//! checkpoint and restart it, and asks the program for its own verdict. Nothing here uses bardo's crates: the tests see
//! what a user sees, and what `/proc` shows of the tree before and after ([`Snapshot`], [`compare`]).
//!
//! Nothing waits for a time to pass; [`wait`] waits for events, with a limit only so that a hang becomes a failure.
//! Every process that is started has a guard that ends it, however the test ends ([`Process`], [`Tree`]).
//!
//! Environment: `BARDO` names a bardo program to test instead of the workspace's own; `BARDO_TEST_FULL=1` runs the fault
//! loops over every call instead of a sample, and what is many at its whole number; `BARDO_TEST_LARGE=1` adds the programs of
//! large packages; `BARDO_TEST_KEEP=1` keeps the tests' directories.

#![forbid(unsafe_code)]

mod bardo;
mod compare;
mod faults;
mod modes;
mod place;
mod process;
mod program;
mod residue;
mod snapshot;
mod wait;
mod workload;

pub use bardo::{Bardo, Output, Started, bardo, program};
pub use compare::{ALLOWED, Allowed, compare};
pub use faults::{
    Fault, Sample, checkpoint_survives, count_calls, expect_whole_or_absent, output_left_nothing,
    restart_survives,
};
pub use modes::{Case, in_faults, left_running, natively, stopped_and_restarted, twenty_times};
pub use place::Place;
pub use process::{Process, Tree, adopt_orphans, descendants, exists, reap_orphans, state};
pub use program::Program;
pub use residue::Residue;
pub use snapshot::Snapshot;
pub use wait::{until, until_some};
pub use workload::{Workload, launch, workload_program};

/// Whether the fault loops are to run over every call, and everything else at its whole size.
pub fn full() -> bool {
    std::env::var_os("BARDO_TEST_FULL").is_some_and(|v| v == "1")
}
