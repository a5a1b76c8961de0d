//! `bardo restart` with a real tree: it stands in for the root in the foreground, or leaves the tree to itself.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, getpid, pidfd_open, pidfd_send_signal, waitid,
};
use tempfile::TempDir;

/// Waits for something that must come; a minute without it is a failure.
#[track_caller]
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A shell that was checkpointed and killed; it marks each signal that it has a trap for in the file `marks`.
struct Saved {
    directory: TempDir,
}

impl Saved {
    /// Begins to run `script`, checkpoints it once it has created the file `ready`, and kills it.
    fn new(script: &str) -> Saved {
        Saved::with_stdin(Stdio::null(), script)
    }

    /// The same with a standard input of the outside.
    fn with_stdin(stdin: impl Into<Stdio>, script: &str) -> Saved {
        // What this test inherited would belong to the outside of the tree.
        bardo_kernel::fcntl::set_cloexec_range(3, u32::MAX).expect("close_range");
        let saved = Saved { directory: tempfile::tempdir().expect("a directory") };
        let mut shell = Command::new("sh")
            .args(["-c", &format!("{script}\n: >ready; while :; do :; done")])
            .current_dir(saved.directory.path())
            .stdin(stdin)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        until("the shell is ready", || saved.path("ready").exists());
        let output = bardo(&["checkpoint", "--kill", "-o"])
            .arg(saved.path("image"))
            .arg(shell.id().to_string())
            .output()
            .expect("bardo starts");
        if !output.status.success() {
            let _ = shell.kill();
        }
        let status = shell.wait().expect("wait");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(status.signal(), Some(9));
        saved
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The restarted root, once the pid file names it.
    fn root(&self) -> OwnedFd {
        let mut pid = None;
        until("the pid file", || {
            pid = fs::read_to_string(self.path("pid")).ok().and_then(|s| s.trim().parse().ok());
            pid.is_some()
        });
        pidfd_open(Pid::from_raw(pid.expect("a pid")).expect("a pid"), PidfdFlags::empty()).expect("it lives")
    }

    fn restart(&self, options: &[&str]) -> Command {
        let mut command = bardo(&["restart", "--pidfile"]);
        command.arg(self.path("pid")).args(options).arg(self.path("image"));
        command
    }

    fn marks(&self) -> String {
        fs::read_to_string(self.path("marks")).unwrap_or_default()
    }
}

fn bardo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bardo"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn pidfd(child: &Child) -> OwnedFd {
    pidfd_open(Pid::from_child(child), PidfdFlags::empty()).expect("it lives")
}

#[test]
fn signals_are_passed_on_and_the_exit_code_is_the_roots() {
    let saved = Saved::new("trap 'echo usr1 >>marks' USR1; trap 'exit 9' TERM");
    let restart = saved.restart(&["--json"]).spawn().expect("bardo starts");
    drop(saved.root());
    let pidfd = pidfd(&restart);
    pidfd_send_signal(&pidfd, Signal::USR1).expect("sent");
    until("the signal has arrived", || saved.marks() == "usr1\n");
    pidfd_send_signal(&pidfd, Signal::TERM).expect("sent");
    let output = restart.wait_with_output().expect("wait");
    assert_eq!(output.status.code(), Some(9), "{output:?}");
    // In the foreground standard output is the tree's.
    assert!(output.stdout.is_empty());
    let report: serde_json::Value = serde_json::from_slice(&output.stderr).expect("JSON");
    let pid = fs::read_to_string(saved.path("pid")).expect("the pid file");
    assert_eq!(format!("{}\n", report["pid"]), pid);
}

#[test]
fn bardo_dies_of_the_signal_that_killed_the_root_and_leaves_no_core() {
    for signal in [Signal::TERM, Signal::QUIT, Signal::SEGV, Signal::KILL] {
        let saved = Saved::new("");
        let restart = saved.restart(&[]).spawn().expect("bardo starts");
        pidfd_send_signal(saved.root(), signal).expect("sent");
        let output = restart.wait_with_output().expect("wait");
        assert_eq!(output.status.signal(), Some(signal.as_raw()), "{output:?}");
        assert!(!output.status.core_dumped());
    }
}

#[test]
fn detached_it_prints_the_pid_and_returns() {
    // The tree's new parent once bardo is gone, so that it can be waited for.
    rustix::process::set_child_subreaper(Some(getpid())).expect("prctl");
    let saved = Saved::new("trap 'exit 3' TERM");
    let output = saved.restart(&["--detach"]).output().expect("bardo starts");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let pid = fs::read_to_string(saved.path("pid")).expect("the pid file");
    assert_eq!(String::from_utf8_lossy(&output.stdout), pid);
    let root = saved.root();
    pidfd_send_signal(&root, Signal::TERM).expect("sent");
    let pid = Pid::from_raw(pid.trim().parse().expect("a number")).expect("a pid");
    let status = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED).expect("our child").expect("its end");
    assert_eq!(status.exit_status(), Some(3));
}

#[test]
fn stopped_it_waits_for_sigcont() {
    let saved = Saved::new("trap 'echo usr1 >>marks' USR1; trap 'exit 4' TERM");
    let restart = saved.restart(&["--stopped"]).spawn().expect("bardo starts");
    let root = saved.root();
    let pid = fs::read_to_string(saved.path("pid")).expect("the pid file");
    assert_eq!(state(pid.trim()), Some('T'));
    pidfd_send_signal(&root, Signal::USR1).expect("sent");
    assert_eq!(saved.marks(), "");
    // Through bardo, as a shell would.
    pidfd_send_signal(pidfd(&restart), Signal::CONT).expect("sent");
    until("it goes on", || saved.marks() == "usr1\n");
    pidfd_send_signal(&root, Signal::TERM).expect("sent");
    assert_eq!(restart.wait_with_output().expect("wait").status.code(), Some(4));
}

/// What brings the image isn't the tree's standard input.
#[test]
fn an_image_by_standard_input_leaves_none_to_the_tree() {
    let script = "trap 'read line && echo \"$line\" >>marks || echo end >>marks' USR1; trap 'exit 6' TERM";
    for (external, heard) in [(&[][..], "end\n"), (&["--external", "stdin=line"], "hello\n")] {
        let (theirs, ours) = std::io::pipe().expect("a pipe");
        let saved = Saved::with_stdin(theirs, script);
        drop(ours);
        fs::write(saved.path("line"), "hello\n").expect("written");
        let mut restart = bardo(&["restart", "--pidfile", "pid", "-"]);
        restart.args(external).current_dir(saved.directory.path());
        restart.stdin(File::open(saved.path("image")).expect("the image"));
        let restart = restart.spawn().expect("bardo starts");
        let root = saved.root();
        let pid = fs::read_to_string(saved.path("pid")).expect("the pid file");
        let stdin = fs::read_link(format!("/proc/{}/fd/0", pid.trim())).expect("its standard input");
        assert_eq!(stdin == Path::new("/dev/null"), external.is_empty(), "{stdin:?}");
        pidfd_send_signal(&root, Signal::USR1).expect("sent");
        until("it has read", || saved.marks().ends_with('\n'));
        assert_eq!(saved.marks(), heard);
        pidfd_send_signal(&root, Signal::TERM).expect("sent");
        assert_eq!(restart.wait_with_output().expect("wait").status.code(), Some(6));
    }
}

/// A process's state, as a letter (proc(5)).
fn state(pid: &str) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// A shell on a terminal, with job control, and what it has printed so far.
struct Session {
    terminal: File,
    shell: Child,
    seen: String,
}

impl Session {
    fn new() -> Session {
        let flags = rustix::pty::OpenptFlags::RDWR
            | rustix::pty::OpenptFlags::NOCTTY
            | rustix::pty::OpenptFlags::CLOEXEC;
        let ours = rustix::pty::openpt(flags).expect("a pseudoterminal");
        rustix::pty::grantpt(&ours).and_then(|()| rustix::pty::unlockpt(&ours)).expect("unlocked");
        let name = rustix::pty::ptsname(&ours, Vec::new()).expect("its name");
        let theirs =
            File::options().read(true).write(true).open(name.to_str().expect("UTF-8")).expect("opened");
        let dup = || theirs.try_clone().expect("dup");
        // setsid(1) makes the terminal the controlling one.
        let shell = Command::new("setsid")
            .args(["--ctty", "bash", "--norc", "--noprofile", "-i"])
            .env("PS1", "$ ")
            .stdin(dup())
            .stdout(dup())
            .stderr(dup())
            .spawn()
            .expect("a shell");
        Session { terminal: File::from(ours), shell, seen: String::new() }
    }

    fn type_in(&mut self, text: &str) {
        self.terminal.write_all(text.as_bytes()).expect("the terminal takes it");
    }

    /// Reads until this was printed, and forgets what came up to it.
    #[track_caller]
    fn expect(&mut self, text: &str) {
        let began = Instant::now();
        loop {
            if let Some(at) = self.seen.find(text) {
                self.seen.drain(..at + text.len());
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "no {text:?} in {:?}", self.seen);
            let mut ready = [rustix::event::PollFd::new(&self.terminal, rustix::event::PollFlags::IN)];
            let second = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
            if rustix::event::poll(&mut ready, Some(&second)).expect("poll") == 0 {
                continue;
            }
            let mut bytes = [0; 4096];
            let n = self.terminal.read(&mut bytes).unwrap_or_else(|e| panic!("{e} after {:?}", self.seen));
            self.seen.push_str(&String::from_utf8_lossy(&bytes[..n]));
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

#[test]
fn job_control_works_as_for_any_program() {
    for own_pids in [false, true] {
        let traps = "trap 'echo int >>marks' INT; trap 'exit 5' TERM";
        let saved = Saved::new(traps);
        let mut session = Session::new();
        let bardo = env!("CARGO_BIN_EXE_bardo");
        let directory = saved.directory.path().display();
        // In a namespace of its own the root is no child of bardo's, which so isn't told that it stopped.
        let space = if own_pids { "new" } else { "auto" };
        session.type_in(&format!(
            "cd {directory}; {bardo} restart --quiet --pid-space {space} --pidfile pid image; echo end=$?\n"
        ));
        let root = saved.root();
        let pid = fs::read_to_string(saved.path("pid")).expect("the pid file");
        let pid = pid.trim();

        session.type_in("\u{1a}");
        session.expect("Stopped");
        // SIGSTOP: bardo catches SIGTSTP, to pass it on.
        session.expect("end=147");
        until("the root stopped too", || state(pid) == Some('T'));

        session.type_in("fg; echo end=$?\n");
        until("the root goes on", || state(pid) == Some('R'));
        session.type_in("\u{3}");
        until("Ctrl-C has arrived", || saved.marks().starts_with("int\n"));
        pidfd_send_signal(&root, Signal::TERM).expect("sent");
        session.expect("end=5");
        // Once, and not once from the terminal and once from bardo.
        assert_eq!(saved.marks(), "int\n");
    }
}
