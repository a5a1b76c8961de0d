//! Moments that are bad for a checkpoint or a restart: a clear answer, and the tree unharmed.

use std::fs::File;

use bardo_tests::{
    Place, Process, Residue, Workload, bardo, descendants, exists, launch, program, until, workload_program,
};

/// A small workload in the middle of its work.
fn some_workload() -> Workload {
    let workload = Workload::start("loop/family", &[]);
    workload.wait_progress();
    workload
}

/// No image, no temporary file, nothing in the tree, and the tree goes on to its right end.
#[track_caller]
fn expect_unharmed(mut workload: Workload, residue: &Residue) {
    let names = workload.place().names();
    assert!(!names.iter().any(|n| n.contains("image")), "{names:?}");
    residue.expect_nothing_new();
    workload.wait_progress();
    workload.finish();
}

/// Checkpoints a restless tree twenty times: each is done or says why not, and the tree goes on. One of the images is
/// restarted.
fn restless(what: &'static str) {
    let mut workload = Workload::start("hostile", &[what]);
    workload.wait_progress();
    let residue = Residue::of(workload.pid());
    let mut done = 0;
    for _ in 0..20 {
        let output = workload.on(workload.checkpoint("image").arg("--force")).honest().nothing_left();
        done += usize::from(output.status == 0);
        assert!(output.status == 0 || !output.stderr.is_empty(), "no word of why: {output}");
        workload.wait_progress();
    }
    assert!(done > 0, "not one checkpoint of twenty came about");
    bardo(["verify", "--quiet"]).arg(workload.place().join("image")).run().ok();
    residue.expect_nothing_new();
    workload.finish();
    let kept = workload.keep();
    workload.set_back(&kept);
    workload.restart_in_foreground("image", &[]);
    workload.wait_progress();
    workload.finish();
}

#[test]
fn a_tree_that_forks() {
    restless("forks");
}

#[test]
fn a_tree_that_execs() {
    restless("execs");
}

#[test]
fn a_tree_that_spawns_threads() {
    restless("threads");
}

#[test]
fn a_tree_whose_threads_exec() {
    restless("thread-execs");
}

/// Trees that die after 1, 2, 3, … ms, so that one dies at every stage of its checkpoint.
#[test]
fn a_tree_that_dies() {
    for ms in 1..=40 {
        let place = Place::new(&format!("dies-{ms}"));
        let mut command = std::process::Command::new(launch());
        command.arg(workload_program("hostile")).arg(place.path()).arg("dies").arg(ms.to_string());
        command.stdin(std::process::Stdio::null());
        bardo_tests::adopt_orphans();
        let process = Process::spawn(&mut command);
        until("the tree is ready", || place.join("ready").exists());
        let pid = process.pid().to_string();
        let output = bardo(["checkpoint", "--quiet", "-o"]).arg(place.join("image")).arg(pid).run();
        let output = output.honest().nothing_left();
        if output.status == 0 {
            bardo(["verify", "--quiet"]).arg(place.join("image")).run().ok();
        } else {
            assert!(!place.names().iter().any(|n| n.contains("image")), "{:?}, {output}", place.names());
            assert!(!output.stderr.is_empty(), "no word of why: {output}");
        }
        // It died its own death, with its own exit code.
        assert_eq!(process.wait(), 17, "{output}");
    }
}

#[test]
fn a_tree_under_a_debugger() {
    let workload = some_workload();
    let mut command = std::process::Command::new(launch());
    command.arg(workload_program("tracer")).arg(workload.place().path()).arg(workload.pid().to_string());
    let tracer = Process::spawn(&mut command);
    until("the tracer traces", || workload.place().join("tracing").exists());
    let output = workload.on(workload.checkpoint("image")).expect(3).nothing_left();
    output.says(&["tracer", &tracer.pid().to_string()]);
    File::create(workload.place().join("tracer-finish")).expect("the tracer's finish file");
    assert_eq!(tracer.wait(), 0);
    let residue = Residue::exactly_of(workload.pid());
    expect_unharmed(workload, &residue);
}

/// The words that make `sh` run bardo as user and group 65534, without any other right.
const AS_NOBODY: &str =
    "exec setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --bounding-set=-all \"$@\"";

#[test]
fn a_tree_of_another_user() {
    let workload = some_workload();
    let residue = Residue::exactly_of(workload.pid());
    let place = Place::new("nobody");
    open_to_all(&place);
    let command =
        bardo(["checkpoint", "--quiet", "-o"]).arg(place.join("image")).arg(workload.pid().to_string());
    let output = command.program(&copy_for_all(&place)).through(AS_NOBODY).run().expect(4).nothing_left();
    output.says(&[&workload.pid().to_string()]);
    assert!(!place.join("image").exists());
    expect_unharmed(workload, &residue);
}

fn open_to_all(place: &Place) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o777)).expect("chmod");
}

/// bardo and its launcher, where anybody may run them.
fn copy_for_all(place: &Place) -> [std::path::PathBuf; 2] {
    use std::os::unix::fs::PermissionsExt;
    [(launch(), "launch"), (program(), "bardo")].map(|(from, name)| {
        let to = place.join(name);
        std::fs::copy(from, &to).expect("a copy of a program");
        std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o755)).expect("chmod");
        to
    })
}

#[test]
fn the_init_process() {
    // In an own pid namespace: were it not refused, it would be the machine's that suffers.
    let place = Place::new("init");
    let script = "exec unshare --pid --fork --kill-child --mount-proc sh -c '\"$@\"; exit $?' sh \"$@\"";
    let command = bardo(["checkpoint", "--quiet", "-o"]).arg(place.join("image")).arg("1");
    command.through(script).run().expect(3).nothing_left().says(&["1"]);
    assert!(!place.join("image").exists());
}

#[test]
fn bardo_itself() {
    let place = Place::new("itself");
    let command = bardo(["checkpoint", "--quiet", "-o"]).arg(place.join("image"));
    command.through("exec \"$@\" $$").run().expect(3).nothing_left().says(&["bardo"]);
    assert!(place.names().is_empty(), "{:?}", place.names());
}

#[test]
fn the_tree_that_bardo_is_in() {
    let place = Place::new("ancestor");
    let command = bardo(["checkpoint", "--quiet", "-o"]).arg(place.join("image"));
    command.through("\"$@\" $$; exit $?").run().expect(3).nothing_left().says(&["bardo"]);
    assert!(place.names().is_empty(), "{:?}", place.names());
}

#[test]
fn nothing_of_that_pid() {
    let place = Place::new("nobody-there");
    // pid_max is above every pid, and its own value is never one.
    let most = std::fs::read_to_string("/proc/sys/kernel/pid_max").expect("pid_max");
    let command = bardo(["checkpoint", "--quiet", "-o"]).arg(place.join("image")).arg(most.trim());
    let output = command.run().honest().says(&[most.trim()]);
    assert_ne!(output.status, 0);
    assert!(place.names().is_empty(), "{:?}", place.names());
}

#[test]
fn a_full_disk() {
    let workload = some_workload();
    let residue = Residue::exactly_of(workload.pid());
    let small = Mounted::new(&["-t", "tmpfs", "-o", "size=64k", "none"]);
    let image = small.0.join("image");
    let command = bardo(["checkpoint", "--quiet", "-o"]).arg(&image).arg(workload.pid().to_string());
    command.run().expect(1).nothing_left().says(&["ENOSPC"]);
    assert!(small.0.names().is_empty(), "left on the full disk: {:?}", small.0.names());
    expect_unharmed(workload, &residue);
}

/// A file system mounted for a test, in the test's own mount namespace: bardo has to be in that of the tree.
struct Mounted(Place);

impl Mounted {
    fn new(arguments: &[&str]) -> Mounted {
        let place = Place::new("mounted");
        let status = std::process::Command::new("mount").args(arguments).arg(place.path()).status();
        assert!(status.expect("running mount").success());
        Mounted(place)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let status = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
        if !status.is_ok_and(|s| s.success()) {
            eprintln!("{} can't be unmounted", self.0.path().display());
        }
    }
}

#[test]
fn a_file_size_limit() {
    let workload = some_workload();
    let residue = Residue::exactly_of(workload.pid());
    let command = workload.checkpoint("image").arg(workload.pid().to_string());
    command.through("ulimit -f 8; exec \"$@\"").run().expect(1).nothing_left().says(&["EFBIG"]);
    expect_unharmed(workload, &residue);
}

#[test]
fn a_full_device() {
    let workload = some_workload();
    let residue = Residue::exactly_of(workload.pid());
    let full = File::options().write(true).open("/dev/full").expect("/dev/full");
    let command = bardo(["checkpoint", "--quiet", "-o", "-"]).arg(workload.pid().to_string()).stdout(full);
    command.run().expect(1).nothing_left().says(&["ENOSPC"]);
    expect_unharmed(workload, &residue);
}

#[test]
fn a_closed_pipe() {
    let workload = some_workload();
    let residue = Residue::exactly_of(workload.pid());
    let place = Place::new("status");
    let script =
        format!("{{ \"$@\"; echo $? >{}; }} | head -c 100 >/dev/null", place.join("status").display());
    let command = bardo(["checkpoint", "--quiet", "-o", "-"]).arg(workload.pid().to_string());
    command.through(&script).run().nothing_left().says(&["EPIPE"]);
    assert_eq!(place.read("status"), "1\n");
    expect_unharmed(workload, &residue);
}

#[test]
fn an_image_piped_to_the_tree_itself() {
    let mut workload = Workload::start("loop/busy", &[]);
    workload.wait_progress();
    let residue = Residue::of(workload.pid());
    // The writing end of a pipe whose reader is in the tree. In busy it is fd 4.
    let end = File::options().write(true).open(format!("/proc/{}/fd/4", workload.pid())).expect("the pipe");
    let command = bardo(["checkpoint", "--quiet", "-o", "-"]).arg(workload.pid().to_string()).stdout(end);
    command.run().expect(3).nothing_left().says(&["pipe"]);
    residue.expect_nothing_new();
    workload.wait_progress();
    workload.finish();
}

#[test]
fn an_output_that_is_there() {
    let mut workload = some_workload();
    std::fs::write(workload.place().join("image"), "precious").expect("a file");
    workload.on(workload.checkpoint("image")).expect(7).says(&["image", "--force"]);
    assert_eq!(workload.place().read("image"), "precious");
    workload.on(workload.checkpoint("image").arg("--force")).ok();
    bardo(["verify", "--quiet"]).arg(workload.place().join("image")).run().ok();
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(workload.place().join("image")).expect("the image").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    workload.finish();
}

#[test]
fn pids_that_are_taken() {
    let mut workload = some_workload();
    workload.on(workload.checkpoint("image")).ok();
    let before = descendants(workload.pid());
    let output = bardo(["restart", "--quiet", "--detach"]).arg(workload.place().join("image")).run();
    output.expect(7).nothing_left().says(&[&workload.pid().to_string(), "family"]);
    assert_eq!(descendants(workload.pid()), before);
    workload.wait_progress();
    workload.finish();
}

/// The number of a group or session of others is no process's pid: that is found out before anything is made, or by the birth
/// that fails. Once they are gone, the tree comes back.
fn outlived(what: &'static str) {
    let mut workload = Workload::start("hostile", &["outlived", what]);
    workload.wait_progress();
    let pids = descendants(workload.pid());
    workload.tree();
    workload.on(workload.checkpoint("image").arg("--kill")).ok();
    workload.wait_gone();
    let outsider = workload.place().read("outsider");
    let (leader, outsider) = outsider.split_once(' ').expect("two pids");
    let held = Process::open(outsider.parse().expect("a pid")).expect("who has outlived the tree");
    let restart = || bardo(["restart", "--quiet", "--detach"]).arg(workload.place().join("image")).run();
    restart().expect(7).nothing_left().says(&[&format!("pid {leader} is taken"), outsider, what]);
    assert!(pids.iter().all(|pid| !exists(*pid)), "a part of the tree is there");
    held.signal(rustix::process::Signal::KILL);
    until("the outsider is gone", || held.reap().is_some());
    workload.restart_detached("image", &[]);
    workload.wait_progress();
    workload.finish();
}

#[test]
fn a_pid_that_is_the_number_of_a_group() {
    outlived("group");
}

#[test]
fn a_pid_that_is_the_number_of_a_session() {
    outlived("session");
}

/// A pid that is taken when its turn comes, and free again when we look who has it.
#[test]
fn a_pid_that_was_taken_for_a_moment() {
    let mut workload = some_workload();
    workload.tree();
    workload.on(workload.checkpoint("image").arg("--kill")).ok();
    workload.wait_gone();
    let [image, trace, out, err] =
        ["image", "trace", "bardo.out", "bardo.err"].map(|name| workload.place().join(name));
    let restart =
        |gate: &str| bardo(["restart", "--quiet", "--detach"]).gate(gate).arg(&image).stdio(&out, &err).run();
    restart(&format!("trace={}", trace.display())).ok();
    workload.wait_progress();
    workload.kill();
    let calls = std::fs::read_to_string(&trace).expect("the trace");
    // As the parent sees them; the keeper's comes first. A run of another gate makes some calls more or less before.
    let births = calls.lines().filter(|line| line.contains("clone3(") && !line.ends_with("= 0x0"));
    let numbers = births.take(2).map(|line| line.split(' ').next().and_then(|n| n.parse().ok()));
    let last: usize = numbers.last().flatten().expect("the number of the first process's birth");
    const EEXIST: i32 = 17;
    let mut conflicts = 0;
    for number in last.saturating_sub(8)..last + 8 {
        let output = restart(&format!("fail={number}:{EEXIST}")).honest().nothing_left();
        match output.status {
            0 => workload.kill(),
            7 => {
                conflicts += 1;
                output.says(&[&format!("pid {} was taken", workload.pid()), "try again"]);
            }
            _ => {}
        }
        assert!(!exists(workload.pid()), "a restart that failed left it");
    }
    assert_eq!(conflicts, 1, "the first process is born once");
}

#[test]
fn a_truncated_image() {
    let mut workload = some_workload();
    let pids = descendants(workload.pid());
    workload.tree();
    workload.on(workload.checkpoint("image").arg("--kill")).ok();
    workload.wait_gone();
    let whole = std::fs::read(workload.place().join("image")).expect("the image");
    for part in [0, 1, 7, 100, 4096, whole.len() / 2, whole.len() - 100, whole.len() - 1] {
        std::fs::write(workload.place().join("cut"), &whole[..part]).expect("a part of the image");
        bardo(["verify", "--quiet"]).arg(workload.place().join("cut")).run().expect(5);
        let trace = workload.place().join("trace");
        let restart = bardo(["restart", "--quiet", "--detach"]).gate(&format!("trace={}", trace.display()));
        restart.arg(workload.place().join("cut")).run().expect(5).nothing_left();
        assert!(pids.iter().all(|p| !exists(*p)));
        let calls = std::fs::read_to_string(&trace).expect("the trace");
        assert!(calls.contains("pread64(") && !calls.contains("clone3("), "a process was made of a part");
        std::fs::remove_file(&trace).expect("the trace");
    }
    // Through a pipe too: the seal comes last, and nothing runs before it has come.
    let cut = workload.place().join("cut");
    let command = bardo(["restart", "--quiet", "--detach", "-"]);
    command.through(&format!("cat {} | \"$@\"", cut.display())).run().expect(5).nothing_left();
    assert!(!exists(workload.pid()));
}

#[test]
fn a_file_that_changed() {
    let mut workload = Workload::start("file/regular", &[]);
    workload.wait_progress();
    workload.tree();
    workload.on(workload.checkpoint("image").arg("--kill")).ok();
    workload.wait_gone();
    let plain = workload.place().join("data/plain");
    let log = workload.place().join("data/log");
    let kept = std::fs::read(&log).expect("the log");
    std::fs::write(&log, "something else, and longer\n").expect("the log");
    let output = bardo(["restart", "--quiet", "--detach"]).arg(workload.place().join("image")).run();
    assert_ne!(output.status, 0);
    output.honest().nothing_left().says(&["data/log"]);
    assert!(!exists(workload.pid()), "it runs though a file changed");
    let away = workload.place().join("data/away");
    std::fs::rename(&plain, &away).expect("the file put away");
    let output = bardo(["restart", "--quiet", "--detach"]).arg(workload.place().join("image")).run();
    assert_ne!(output.status, 0);
    output.honest().nothing_left().says(&["data/plain", "data/log"]);
    assert!(!exists(workload.pid()), "it runs though a file is gone");
    std::fs::rename(&away, &plain).expect("the file brought back");
    std::fs::write(&log, kept).expect("the log");
    workload.reset_progress();
    workload.restart_in_foreground("image", &["--files", "ignore-changes"]);
    workload.wait_progress();
    workload.finish();
}
