//! The commands as a user meets them: their answers for people and for programs, and their exit codes.

use bardo_tests::{Place, Workload, bardo};
use serde_json::Value;

/// The last line that is JSON, wherever it was printed.
#[track_caller]
fn json(output: &bardo_tests::Output) -> Value {
    let lines = output.stdout.lines().chain(output.stderr.lines());
    let values: Vec<Value> = lines.filter_map(|l| serde_json::from_str(l).ok()).collect();
    values.into_iter().next_back().unwrap_or_else(|| panic!("no JSON: {output}"))
}

#[test]
fn usage_errors_have_their_own_exit_code() {
    for line in [&["checkpoint"][..], &["checkpoint", "not-a-pid"], &["restart"], &["unheard-of"], &[]] {
        bardo(line).run().expect(2);
    }
    bardo(["--help"]).run().ok().says(&["checkpoint", "restart"]);
    bardo(["--version"]).run().ok().says(&["bardo"]);
}

#[test]
fn show_tells_of_the_tree() {
    let mut workload = Workload::start("loop/family", &[]);
    workload.wait_progress();
    workload.on(workload.checkpoint("image")).ok();
    let image = workload.place().join("image");
    let pid = workload.pid().to_string();
    bardo(["show"]).arg(&image).run().ok().says(&[&pid, "family"]);
    let output = bardo(["show", "--json"]).arg(&image).run().ok();
    let whole: Value = serde_json::from_str(output.stdout.trim()).unwrap_or_else(|e| panic!("{e}: {output}"));
    assert!(whole.to_string().contains(&pid), "{whole}");
    let output = bardo(["show", "-"]).stdin(std::fs::File::open(&image).expect("the image")).run();
    output.ok().says(&[&pid]);
    workload.finish();
}

#[test]
fn a_checkpoint_reports_figures() {
    let mut workload = Workload::start("task/threads", &[]);
    workload.wait_progress();
    let output = workload.on(bardo(["checkpoint", "--json", "-o"]).arg(workload.place().join("image"))).ok();
    let report = json(&output);
    assert_eq!(report["processes"], 1, "{report}");
    assert_eq!(report["threads"], 17, "{report}");
    workload.finish();
}

#[test]
fn a_refusal_is_machine_readable() {
    let mut workload = Workload::start("refused", &["userfaultfd"]);
    workload.wait_progress();
    let output =
        workload.on(bardo(["checkpoint", "--json", "-o"]).arg(workload.place().join("image"))).expect(3);
    let text = json(&output).to_string();
    assert!(text.contains("userfaultfd") && text.contains(&workload.pid().to_string()), "{text}");
    workload.finish();
}

#[test]
fn what_is_no_image_is_said_to_be_none() {
    let place = Place::new("none");
    std::fs::write(place.join("text"), "this is not an image").expect("a file");
    for command in ["verify", "show", "restart"] {
        bardo([command]).arg(place.join("text")).run().expect(5).says(&["text"]);
        let output = bardo([command]).arg(place.join("absent")).run().honest().says(&["absent"]);
        assert_ne!(output.status, 0);
        bardo([command, "-"]).run().expect(5);
    }
}

#[test]
fn doctor_looks_at_the_host_and_at_a_tree() {
    bardo(["doctor"]).run().ok();
    let output = bardo(["doctor", "--json"]).run().ok();
    json(&output);
    let mut workload = Workload::start("refused", &["userfaultfd"]);
    workload.wait_progress();
    let output = bardo(["doctor"]).arg(workload.pid().to_string()).run().honest();
    output.says(&["userfaultfd"]);
    workload.wait_progress();
    workload.finish();
}

#[test]
fn the_demo_works() {
    let output = bardo(["demo"]).run().ok().nothing_left();
    assert!(!output.stdout.is_empty(), "{output}");
}

#[test]
fn steps_are_printed() {
    let mut workload = Workload::start("task/signals", &[]);
    workload.wait_progress();
    let command = bardo(["checkpoint", "--steps", "-o"]).arg(workload.place().join("image"));
    workload.on(command).ok().says(&["rt_sigaction"]);
    workload.finish();
}
