//! A tree whose clocks are ahead of the host's, as those of an image that was made on a machine that has been up for longer: a
//! time namespace stands in for that machine. What the programs see is checked by `workloads/task/clocks.c`.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use bardo_tests::{Place, Workload, bardo, launch, until, workload_program};

/// Two years.
const AHEAD: &str = "63072000";

/// Such a tree; none where we may make none.
fn from_a_machine_that_is_ahead(name: &str) -> Option<Workload> {
    let place = Place::new(name);
    let mut command = Command::new(workload_program("in_time"));
    command.arg(AHEAD).arg(launch()).arg(workload_program(name)).arg(place.path());
    if !may_make_time_namespaces() {
        eprintln!("no time namespace can be made here");
        return None;
    }
    let workload = Workload::start_command(command, place);
    workload.wait_progress();
    Some(workload)
}

fn may_make_time_namespaces() -> bool {
    let status = Command::new(workload_program("in_time")).args([AHEAD, "true"]).status().expect("a program");
    assert!([Some(0), Some(77)].contains(&status.code()), "{status}");
    status.success()
}

fn time_namespace(pid: &str) -> PathBuf {
    std::fs::read_link(format!("/proc/{pid}/ns/time")).expect("a kernel with time namespaces")
}

fn has_own_time(workload: &Workload) -> bool {
    time_namespace(&workload.pid().to_string()) != time_namespace("self")
}

/// Again and again, from the checkpoint of the one before: it gets a namespace each time, and in the end the clocks have
/// gone on from where they were.
#[test]
fn clocks_go_on_where_the_host_is_behind() {
    let Some(mut workload) = from_a_machine_that_is_ahead("task/clocks") else { return };
    for _ in 0..20 {
        assert!(has_own_time(&workload), "the tree goes by the host's clocks");
        workload.tree();
        workload.on(workload.checkpoint("image").arg("--force").arg("--kill")).ok();
        workload.wait_gone();
        workload.reset_progress();
        workload.restart_detached("image", &[]);
        workload.wait_progress();
    }
    workload.finish();
}

/// In the foreground the tree is a child of bardo's, whose end is bardo's own, as without a time namespace.
#[test]
fn a_tree_in_a_time_namespace_runs_in_the_foreground() {
    let Some(mut workload) = from_a_machine_that_is_ahead("task/clocks") else { return };
    workload.tree();
    workload.on(workload.checkpoint("image").arg("--kill")).ok();
    workload.wait_gone();
    workload.reset_progress();
    workload.restart_in_foreground("image", &[]);
    workload.wait_progress();
    assert!(has_own_time(&workload), "the tree goes by the host's clocks");
    workload.finish();
}

/// Where the clocks are right, they are the host's, but for who wants otherwise.
#[test]
fn clocks_go_on_by_themselves_where_that_is_wanted() {
    if !may_make_time_namespaces() {
        eprintln!("no time namespace can be made here");
        return;
    }
    let mut workload = Workload::start("task/clocks", &[]);
    workload.wait_progress();
    for (options, own) in [(&[][..], false), (&["--clocks", "continue"], true), (&[], true)] {
        workload.tree();
        workload.on(workload.checkpoint("image").arg("--force").arg("--kill")).ok();
        workload.wait_gone();
        workload.reset_progress();
        workload.restart_detached("image", options);
        workload.wait_progress();
        assert_eq!(has_own_time(&workload), own, "{options:?}");
    }
    workload.finish();
}

/// Clocks that go back are what `--clocks host` asks for; what waits for a while waits for that.
#[test]
fn clocks_may_be_the_hosts() {
    let Some(mut workload) = from_a_machine_that_is_ahead("loop/family") else { return };
    workload.tree();
    workload.on(workload.checkpoint("image").arg("--kill")).ok();
    workload.wait_gone();
    workload.reset_progress();
    workload.restart_detached("image", &["--clocks", "host"]);
    workload.wait_progress();
    assert!(!has_own_time(&workload), "{:?}", time_namespace("self"));
    workload.finish();
}

/// Who may not set clocks is told so before anything is made, and what to do; in a pid namespace of its own, with a user
/// namespace, the tree comes back all the same.
#[test]
fn who_may_make_no_time_namespace_is_told_what_to_do() {
    let Some(mut workload) = from_a_machine_that_is_ahead("task/clocks") else { return };
    workload.tree();
    workload.on(workload.checkpoint("image").arg("--kill")).ok();
    workload.wait_gone();
    workload.reset_progress();
    let without = "exec setpriv --inh-caps=-sys_time --bounding-set=-sys_time \"$@\"";
    let image = workload.place().join("image");
    let output = bardo(["restart", "--detach"]).arg(&image).through(without).run().expect(6).nothing_left();
    output.says(&["CLOCK_MONOTONIC would go back by", "CAP_SYS_TIME", "--pid-space new", "--clocks host"]);
    runs_in_a_namespace_of_its_own(&workload, without, &["--pid-space", "new"], None);
}

/// An ordinary user needs no right for it: with the pid namespace and the user namespace comes one of time.
#[test]
fn an_ordinary_users_clocks_go_on_too() {
    let place = Place::new("user-clocks");
    let mode = |path: PathBuf, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("chmod");
    };
    mode(place.path().to_path_buf(), 0o777);
    let copy = |from: PathBuf, name: &str| {
        let to = place.join(name);
        std::fs::copy(from, &to).expect("a copy of a program");
        mode(to.clone(), 0o755);
        to
    };
    let programs = [copy(launch(), "launch"), copy(bardo_tests::program(), "bardo")];
    let clocks = copy(workload_program("task/clocks"), "clocks");
    let as_user = match rustix::process::geteuid().is_root() {
        true => {
            "exec setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --bounding-set=-all \"$@\""
        }
        false => "exec \"$@\"",
    };
    let mut command = Command::new("sh");
    command.args(["-c", as_user, "sh"]).arg(&programs[0]).arg(clocks).arg(place.path());
    let mut workload = Workload::start_command(command, place);
    for name in ["out", "err"] {
        mode(workload.place().join(name), 0o666);
    }
    workload.wait_progress();
    workload.tree();
    let command = workload.checkpoint("image").arg("--kill").arg(workload.pid().to_string());
    command.program(&programs).through(as_user).run().ok();
    workload.wait_gone();
    workload.reset_progress();
    runs_in_a_namespace_of_its_own(&workload, as_user, &["--clocks", "continue"], Some(&programs));
}

/// Restarts it in one, through this shell command, and lets it finish there.
fn runs_in_a_namespace_of_its_own(
    workload: &Workload,
    through: &str,
    options: &[&str],
    programs: Option<&[PathBuf; 2]>,
) {
    let command = options.iter().fold(bardo(["restart", "--quiet"]), |command, option| command.arg(option));
    let command = command.arg(workload.place().join("image"));
    let command = match programs {
        Some(programs) => command.program(programs),
        None => command,
    };
    let command = command.through(through);
    let started =
        command.stdio(&workload.place().join("bardo.out"), &workload.place().join("bardo.err")).start();
    until("the restarted tree shows progress", || {
        assert!(!started.has_ended(), "{}", started.so_far(0));
        workload.has_progress()
    });
    let tree = bardo_tests::descendants(started.process().pid());
    let own = tree.iter().any(|pid| time_namespace(&pid.to_string()) != time_namespace("self"));
    assert!(own, "the tree goes by the host's clocks");
    std::fs::File::create(workload.place().join("finish")).expect("the finish file");
    assert_eq!(started.end().nothing_left().status, 0, "{}", workload.place().read("verdict"));
    assert_eq!(workload.place().read("verdict"), "ok\n");
}
