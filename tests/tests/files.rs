//! What a restart finds in place of the tree's files: what others have done with them since, and what it says of it.

use std::fs::File;

use bardo_tests::{Workload, bardo};

/// A lock that somebody else has taken meanwhile keeps the restart from starting, and says who has it.
#[test]
fn a_lock_that_is_taken_is_reported() {
    let mut workload = Workload::start("file/locks", &[]);
    workload.wait_progress();
    workload.on(workload.checkpoint("image").arg("--kill")).ok();
    workload.wait_gone();
    let file = File::open(workload.place().join("data/whole")).expect("the locked file");
    file.lock().expect("a lock that nobody has");
    let me = format!("pid {}", std::process::id());
    let restart = || bardo(["restart", "--quiet", "--detach"]).arg(workload.place().join("image"));
    restart().run().expect(6).says(&["flock", &me, "file/lock-taken"]);
    file.unlock().expect("the lock");
    workload.reset_progress();
    workload.restart_in_foreground("image", &[]);
    workload.wait_progress();
    workload.finish();
}
