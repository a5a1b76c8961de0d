//! What a restarted tree has to do with the outside: its stdio, its signals, its exit status, time, and its user.

use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read, Write, pipe};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bardo_tests::{Place, Process, Tree, Workload, adopt_orphans, bardo, launch, until, workload_program};

/// A program's three ends of stdio, held by this test.
struct Ends {
    stdin: PipeWriter,
    stdout: BufReader<PipeReader>,
    stderr: PipeReader,
}

/// New pipes: our ends, and the program's.
fn pipes() -> (Ends, [Stdio; 3]) {
    let (their_in, stdin) = pipe().expect("a pipe");
    let (stdout, their_out) = pipe().expect("a pipe");
    let (stderr, their_err) = pipe().expect("a pipe");
    let ends = Ends { stdin, stdout: BufReader::new(stdout), stderr };
    (ends, [their_in.into(), their_out.into(), their_err.into()])
}

impl Ends {
    fn send(&mut self, text: &str) {
        self.stdin.write_all(text.as_bytes()).expect("the program's stdin");
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("the program's stdout");
        line
    }
}

/// Pipes to the outside are named external, and connected to the caller's stdio by the restart. What was under way in
/// them stays where it was: in the old pipes.
#[test]
fn pipes_to_the_outside_are_connected_anew() {
    adopt_orphans();
    let place = Place::new("stdio");
    let (mut ends, [stdin, stdout, stderr]) = pipes();
    let mut command = Command::new(launch());
    command.arg(workload_program("file/stdio")).arg(place.path()).stdin(stdin).stdout(stdout).stderr(stderr);
    let mut tree = Tree::of(Process::spawn(&mut command).release());
    drop(command);
    ends.send("first\nhalf a ");
    assert_eq!(ends.line(), "1: first\n");
    until("the half line was read", || {
        std::fs::metadata(place.join("progress")).is_ok_and(|m| m.len() == 13)
    });

    let root = tree.root().to_string();
    let output = bardo(["checkpoint", "--kill", "-o"]).arg(place.join("image")).arg(root).run().ok();
    output.says(&["pipe:["]);
    tree.wait_gone();

    let (mut ends, [stdin, stdout, stderr]) = pipes();
    let started = {
        let command = bardo(["restart", "--quiet"]).arg(place.join("image")).stdin(stdin).stdout(stdout);
        command.stderr(stderr).start()
    };
    ends.send("line\nend\n");
    assert_eq!(ends.line(), "2: half a line\n");
    assert_eq!(ends.line(), "3: end\n");
    assert_eq!(started.end().status, 0);
    let mut last = String::new();
    ends.stderr.read_to_string(&mut last).expect("the program's stderr");
    assert_eq!(last, "ended after 3\n");
    assert_eq!(place.read("verdict"), "ok\n");
}

/// `--external` sends the tree's stdout elsewhere than bardo's own.
#[test]
fn external_resources_go_where_the_user_says() {
    adopt_orphans();
    let place = Place::new("external");
    let (mut ends, [stdin, stdout, stderr]) = pipes();
    let mut command = Command::new(launch());
    command.arg(workload_program("file/stdio")).arg(place.path()).stdin(stdin).stdout(stdout).stderr(stderr);
    let mut tree = Tree::of(Process::spawn(&mut command).release());
    drop(command);
    ends.send("first\n");
    assert_eq!(ends.line(), "1: first\n");
    let root = tree.root().to_string();
    bardo(["checkpoint", "--quiet", "--kill", "-o"]).arg(place.join("image")).arg(root).run().ok();
    tree.wait_gone();
    std::fs::write(place.join("answers"), "").expect("a file for the answers");
    let (mut ends, [stdin, stdout, stderr]) = pipes();
    let external = format!("stdout={}", place.join("answers").display());
    let command = bardo(["restart", "--quiet", "--external"]).arg(external).arg(place.join("image"));
    let started = command.stdin(stdin).stdout(stdout).stderr(stderr).start();
    ends.send("end\n");
    assert_eq!(started.end().status, 0);
    assert_eq!(place.read("answers"), "2: end\n");
    assert_eq!(ends.line(), "");
}

/// A program that exits with 42 at SIGTERM, running in the foreground of a restart.
fn restarted_in_foreground() -> Workload {
    let mut workload = Workload::start("hostile", &["exits"]);
    workload.wait_progress();
    workload.on(workload.checkpoint("image").arg("--kill")).ok();
    workload.wait_gone();
    workload.reset_progress();
    workload.restart_in_foreground("image", &[]);
    workload.wait_progress();
    workload
}

#[test]
fn a_foreground_restart_passes_signals_on_and_exits_as_the_root_does() {
    let mut workload = restarted_in_foreground();
    workload.foreground().process().signal(rustix::process::Signal::USR1);
    until("the handler has run", || workload.place().join("seen").exists());
    workload.foreground().process().signal(rustix::process::Signal::TERM);
    assert_eq!(workload.take_foreground().end().status, 42);
    workload.wait_gone();
}

#[test]
fn a_foreground_restart_says_by_which_signal_the_root_died() {
    let mut workload = restarted_in_foreground();
    Process::open(workload.pid()).expect("the program").signal(rustix::process::Signal::KILL);
    assert_eq!(workload.take_foreground().end().status, 128 + 9);
    workload.wait_gone();
}

/// A tree that was stopped by its checkpoint or its restart goes on at SIGCONT.
#[test]
fn a_stopped_tree_goes_on() {
    let mut workload = Workload::start("task/threads", &[]);
    workload.wait_progress();
    workload.on(workload.checkpoint("image").arg("--stop")).ok();
    assert_eq!(bardo_tests::state(workload.pid()), Some('T'));
    workload.tree().go_on();
    workload.wait_progress();
    workload.kill();
    workload.restart_detached("image", &["--stopped"]);
    assert_eq!(bardo_tests::state(workload.pid()), Some('T'));
    workload.tree().go_on();
    workload.wait_progress();
    workload.finish();
}

/// What remained of a time-out at the checkpoint is still waited for after the restart, although the time that the tree
/// was away was longer.
#[test]
fn time_outs_wait_for_what_remained() {
    let whole = Duration::from_millis(3000);
    let start = Instant::now();
    let mut workload = Workload::start("task/timeouts", &["3000"]);
    workload.wait_progress();
    workload.tree();
    workload.on(workload.checkpoint("image").arg("--kill")).ok();
    let waited_before_at_most = start.elapsed();
    workload.wait_gone();
    // Away until the time-outs, counted from their start, would have been over.
    until("the time has passed", || start.elapsed() > whole + Duration::from_millis(200));
    let restart = Instant::now();
    workload.restart_in_foreground("image", &[]);
    workload.finish();
    // The absolute ones are over at once, all others wait: the workload ends with the last of them.
    let remained_at_least = whole.saturating_sub(waited_before_at_most);
    assert!(
        restart.elapsed() >= remained_at_least,
        "{:?} instead of {remained_at_least:?}",
        restart.elapsed()
    );
}

/// An image goes through pipes both ways: `bardo checkpoint -o - PID | … | bardo restart -`.
#[test]
fn an_image_goes_through_pipes() {
    let mut workload = Workload::start("loop/family", &[]);
    workload.wait_progress();
    workload.tree();
    let image = workload.place().join("image");
    let command = bardo(["checkpoint", "--quiet", "--kill", "-o", "-"]).arg(workload.pid().to_string());
    command.through(&format!("\"$@\" | cat >{}", image.display())).run().ok();
    workload.wait_gone();
    bardo(["verify", "--quiet", "-"]).stdin(File::open(&image).expect("the image")).run().ok();
    workload.reset_progress();
    let command = bardo(["restart", "--quiet", "--detach", "-"]);
    let command = command.through(&format!("cat {} | \"$@\"", image.display()));
    command.stdio(&workload.place().join("bardo.out"), &workload.place().join("bardo.err")).run().ok();
    workload.wait_progress();
    workload.finish();
}

/// An ordinary user checkpoints their own tree, and restarts it: in an own user and pid namespace, for want of the right
/// to choose pids.
#[test]
fn an_ordinary_user_checkpoints_and_restarts_their_own() {
    use std::os::unix::fs::PermissionsExt;
    if !rustix::process::geteuid().is_root() {
        return; // then all other tests are this one
    }
    let place = Place::new("user");
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o777)).expect("chmod");
    let copy = |from: std::path::PathBuf, name: &str| {
        let to = place.join(name);
        std::fs::copy(from, &to).expect("a copy of a program");
        std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o755)).expect("chmod");
        to
    };
    let programs = [copy(launch(), "launch"), copy(bardo_tests::program(), "bardo")];
    let as_user =
        "exec setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --bounding-set=-all \"$@\"";
    let workload_copy = copy(workload_program("loop/family"), "family");
    let mut command = Command::new("sh");
    command.args(["-c", as_user, "sh"]).arg(&programs[0]).arg(workload_copy).arg(place.path());
    let mut workload = Workload::start_command(command, place);
    for name in ["out", "err"] {
        let everybodys = std::fs::Permissions::from_mode(0o666);
        std::fs::set_permissions(workload.place().join(name), everybodys).expect("chmod");
    }
    workload.wait_progress();
    workload.tree();
    let command = workload.checkpoint("image").arg("--kill").arg(workload.pid().to_string());
    command.program(&programs).through(as_user).run().ok();
    workload.wait_gone();
    workload.reset_progress();
    // Hard limits are only lowered; that they are lower is said once for all processes.
    let limited = format!("ulimit -n 200; {as_user}");
    let command = bardo(["restart"]).arg(workload.place().join("image"));
    let command = command.program(&programs).through(&limited);
    let started =
        command.stdio(&workload.place().join("bardo.out"), &workload.place().join("bardo.err")).start();
    until("the restarted tree shows progress", || {
        assert!(!started.has_ended(), "{}", started.so_far(0));
        workload.has_progress()
    });
    File::create(workload.place().join("finish")).expect("the finish file");
    assert_eq!(started.end().nothing_left().status, 0);
    assert_eq!(workload.place().read("verdict"), "ok\n");
    let said = workload.place().read("bardo.err");
    assert_eq!(said.matches("the hard limit of Max open files is 200 and was").count(), 1, "{said}");
}
