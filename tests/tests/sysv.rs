//! System V objects that live beside a tree: refused, or vouched for and expected to be there.

use std::process::Command;

use bardo_tests::{Residue, Workload, bardo};

/// The workload, and what it has made: removed in the end, whatever happens.
struct Sysv {
    workload: Option<Workload>,
    objects: Vec<String>,
}

impl Sysv {
    fn start() -> Sysv {
        let workload = Workload::start("shared/sysv", &[]);
        let objects = workload.place().read("data/ids").split_whitespace().map(str::to_owned).collect();
        Sysv { workload: Some(workload), objects }
    }

    fn workload(&mut self) -> &mut Workload {
        self.workload.as_mut().expect("it hasn't finished")
    }

    fn finish(mut self) {
        self.workload.take().expect("it hasn't finished").finish();
    }

    fn vouched(&self) -> Vec<&str> {
        self.objects.iter().flat_map(|object| ["--external", object.as_str()]).collect()
    }
}

fn remove(object: &str) {
    let (sort, id) = object.split_once(':').expect("a sort and an id");
    let option = match sort {
        "sem" => "-s",
        "msg" => "-q",
        _ => "-m",
    };
    // Most often it is gone already.
    let _ = Command::new("ipcrm").args([option, id]).output();
}

impl Drop for Sysv {
    fn drop(&mut self) {
        drop(self.workload.take());
        self.objects.iter().for_each(|object| remove(object));
    }
}

#[test]
fn what_the_tree_has_used_is_refused_by_name() {
    let mut sysv = Sysv::start();
    sysv.workload().wait_progress();
    let residue = Residue::of(sysv.workload().pid());
    let workload = sysv.workload();
    let output = workload.on(workload.checkpoint("image")).expect(3).nothing_left();
    let output = output.says(&[
        "refused",
        "waits for it",
        "message queue",
        "semaphore set",
        "isn't attached",
        "shared/sysv",
    ]);
    let objects = sysv.objects.clone();
    output.says(&objects.iter().map(String::as_str).collect::<Vec<_>>());
    residue.expect_nothing_new();
    // One that isn't vouched for is enough.
    let workload = sysv.workload();
    let some = workload.checkpoint("image").arg("--external").arg(&objects[0]);
    workload.on(some).expect(3).nothing_left().says(&[&objects[1]]);
    workload.wait_progress();
    sysv.finish();
}

#[test]
fn what_is_vouched_for_stays_where_it_is() {
    let mut sysv = Sysv::start();
    for _ in 0..3 {
        let vouched: Vec<String> = sysv.vouched().into_iter().map(str::to_owned).collect();
        let workload = sysv.workload();
        workload.tree();
        let mut command = workload.checkpoint("image").arg("--force").arg("--kill");
        for word in vouched {
            command = command.arg(word);
        }
        workload.on(command).ok();
        let workload = sysv.workload();
        workload.wait_gone();
        workload.reset_progress();
        workload.restart_detached("image", &[]);
        workload.wait_progress();
    }
    sysv.finish();
}

#[test]
fn what_is_gone_is_reported_before_anything_is_made() {
    let mut sysv = Sysv::start();
    let vouched: Vec<String> = sysv.vouched().into_iter().map(str::to_owned).collect();
    let workload = sysv.workload();
    workload.tree();
    let mut command = workload.checkpoint("image").arg("--kill");
    for word in vouched {
        command = command.arg(word);
    }
    workload.on(command).ok();
    let workload = sysv.workload();
    workload.wait_gone();
    let image = workload.place().join("image");
    sysv.objects.iter().for_each(|object| remove(object));
    let output = bardo(["restart", "--detach"]).arg(image).run().expect(6).nothing_left();
    output.says(&["semaphore set", "message queue", "isn't here", "the same host"]);
}
