//! The command line from outside: exit codes, what goes to which stream, JSON, help. Only what needs no checkpoint.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn bardo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bardo"));
    command.args(arguments).stdin(Stdio::null()).env_remove("NO_COLOR");
    command
}

fn run(arguments: &[&str]) -> Output {
    bardo(arguments).output().expect("bardo starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// The one JSON object that is all of this stream.
fn json(bytes: &[u8]) -> Value {
    let text = text(bytes);
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn golden() -> PathBuf {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../image/tests/golden");
    let mut all: Vec<PathBuf> = fs::read_dir(&directory)
        .expect("the golden images")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "bardo"))
        .collect();
    all.sort();
    all.pop().expect("a golden image")
}

#[test]
fn no_command_teaches_and_is_a_usage_error() {
    let output = run(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("Usage: bardo"));
    assert!(output.stdout.is_empty());
}

#[test]
fn usage_errors_exit_with_2() {
    for line in
        [&["checkpoint"][..], &["checkpoint", "0"], &["restart"], &["nonsense"], &["show", "--nonsense", "x"]]
    {
        let output = run(line);
        assert_eq!(output.status.code(), Some(2), "{line:?}");
        assert!(output.stdout.is_empty(), "{line:?}");
        assert!(text(&output.stderr).starts_with("error: "), "{line:?}");
    }
}

#[test]
fn usage_errors_are_json_if_asked() {
    for line in [&["--json", "checkpoint", "x"][..], &["checkpoint", "x", "--json"]] {
        let output = run(line);
        assert_eq!(output.status.code(), Some(2));
        let error = json(&output.stderr);
        assert_eq!(error["error"]["kind"], "usage");
        assert_eq!(error["error"]["exit_code"], 2);
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    for line in [&["--help"][..], &["--version"], &["restart", "--help"]] {
        let output = run(line);
        assert_eq!(output.status.code(), Some(0), "{line:?}");
        assert!(output.stderr.is_empty() && !output.stdout.is_empty(), "{line:?}");
    }
}

/// What `--help` says is kept in `tests/help`, so that a change of it is seen in review.
/// `BARDO_UPDATE=1 cargo test -p bardo` writes it anew.
#[test]
fn help_is_as_recorded() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help");
    for command in ["", "checkpoint", "restart", "show", "verify", "doctor", "demo", "completions", "man"] {
        let mut line = vec!["--help"];
        if !command.is_empty() {
            line.insert(0, command);
        }
        let said = text(&run(&line).stdout);
        let path = directory.join(format!("{}.txt", if command.is_empty() { "bardo" } else { command }));
        if std::env::var_os("BARDO_UPDATE").is_some() {
            fs::write(&path, &said).expect("written");
        }
        let recorded = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        assert_eq!(said, recorded, "bardo {command} --help");
        let wide = said.lines().find(|line| line.chars().count() > 110);
        assert_eq!(wide, None, "bardo {command} --help has a line too wide");
    }
}

#[test]
fn a_missing_image_is_a_failure() {
    let output = run(&["verify", "/nonexistent/x.img"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert_eq!(
        said,
        "failed: opening the image\n\n    call  open(\"/nonexistent/x.img\"): ENOENT (No such file or directory)\n    \
         left  nothing was changed\n"
    );
    let output = run(&["--json", "show", "/nonexistent/x.img"]);
    assert_eq!(output.status.code(), Some(1));
    let error = &json(&output.stderr)["error"];
    assert_eq!(error["kind"], "failed");
    assert_eq!(error["errno_name"], "ENOENT");
    assert!(output.stdout.is_empty());
}

#[test]
fn a_forbidden_image_names_what_is_missing() {
    // A directory can be opened to read, but not read: EISDIR, for root too.
    let output = run(&["verify", "/"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
}

#[test]
fn what_is_no_image_exits_with_5() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(&[7; 4096]).expect("written");
    let path = file.path().to_str().expect("UTF-8");
    for command in ["show", "verify"] {
        let output = run(&[command, path]);
        assert_eq!(output.status.code(), Some(5), "{command}: {}", text(&output.stderr));
        let said = text(&output.stderr);
        assert!(said.starts_with(&format!("image unusable: {path}: ")), "{said}");
        assert!(output.stdout.is_empty());
        let output = run(&["--json", command, path]);
        assert_eq!(output.status.code(), Some(5));
        assert_eq!(json(&output.stderr)["error"]["kind"], "image");
        assert_eq!(json(&output.stderr)["error"]["image"], path);
    }
}

#[test]
fn the_golden_image_is_whole_from_a_file_and_from_a_stream() {
    let golden = golden();
    let path = golden.to_str().expect("UTF-8");
    let output = run(&["verify", path]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).starts_with(&format!("{path}: whole: ")));

    let stream = fs::File::open(&golden).expect("opened");
    let output = bardo(&["verify", "--json", "-"]).stdin(stream).output().expect("bardo starts");
    assert_eq!(output.status.code(), Some(0));
    let report = json(&output.stdout);
    assert_eq!(report["whole"], true);
    assert_eq!(report["summary"]["bytes"], fs::metadata(&golden).expect("stat").len());

    let output = run(&["show", path]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).starts_with("image "));
    let outline = json(&run(&["show", "--json", path]).stdout);
    assert_eq!(outline["format"], 1);
    assert_eq!(outline["trouble"], Value::Null);
}

#[test]
fn a_truncated_image_is_shown_as_far_as_it_goes() {
    let bytes = fs::read(golden()).expect("read");
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(&bytes[..bytes.len() - 50]).expect("written");
    let path = file.path().to_str().expect("UTF-8");
    let output = run(&["show", "--json", path]);
    assert_eq!(output.status.code(), Some(5));
    assert_eq!(json(&output.stdout)["trouble"]["kind"], "truncated");
    assert_eq!(json(&output.stderr)["error"]["exit_code"], 5);
    assert_eq!(run(&["verify", path]).status.code(), Some(5));
}

#[test]
fn a_closed_standard_output_is_an_error_and_no_death() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = bardo(&["man"]).stdout(writer).stderr(Stdio::piped()).output().expect("bardo starts");
    assert_eq!(output.status.code(), Some(1), "{:?}", output.status);
    assert!(text(&output.stderr).contains("EPIPE"));
}

#[test]
fn a_full_standard_output_is_an_error() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    let output =
        bardo(&["completions", "bash"]).stdout(full).stderr(Stdio::piped()).output().expect("bardo starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("ENOSPC"));
}

/// A terminal for a process's standard streams.
fn terminal() -> (std::os::fd::OwnedFd, fs::File) {
    let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
    let ours = rustix::pty::openpt(flags).expect("a pseudoterminal");
    rustix::pty::grantpt(&ours).and_then(|()| rustix::pty::unlockpt(&ours)).expect("unlocked");
    let name = rustix::pty::ptsname(&ours, Vec::new()).expect("its name");
    let theirs =
        fs::OpenOptions::new().read(true).write(true).open(name.to_str().expect("UTF-8")).expect("opened");
    (ours, theirs)
}

#[test]
fn an_image_is_neither_written_to_a_terminal_nor_read_from_one() {
    let (_ours, theirs) = terminal();
    let pid = std::process::id().to_string();
    let mut command = bardo(&["checkpoint", "-o", "-", &pid]);
    let output = command
        .stdout(theirs.try_clone().expect("dup"))
        .stderr(Stdio::piped())
        .output()
        .expect("bardo starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).starts_with("usage: standard output is a terminal"),
        "{}",
        text(&output.stderr)
    );
    for command in ["show", "verify", "restart"] {
        let output =
            bardo(&[command, "-"]).stdin(theirs.try_clone().expect("dup")).output().expect("bardo starts");
        assert_eq!(output.status.code(), Some(2), "{command}");
    }
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    for (no_color, coloured) in [(None, true), (Some("1"), false)] {
        let (ours, theirs) = terminal();
        let mut command = bardo(&["verify", "/nonexistent"]);
        command.stderr(theirs).env("TERM", "xterm");
        if let Some(value) = no_color {
            command.env("NO_COLOR", value);
        }
        assert_eq!(command.status().expect("bardo starts").code(), Some(1));
        // The last writer to the terminal must be gone, or reading would wait for more; then EIO ends it.
        drop(command);
        let mut said = Vec::new();
        let _ = std::io::Read::read_to_end(&mut fs::File::from(ours), &mut said);
        assert_eq!(text(&said).contains("\u{1b}["), coloured, "{:?}", text(&said));
        assert!(text(&said).contains("failed:"));
    }
}

#[test]
fn manual_pages_and_completions_cover_every_command() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_str().expect("UTF-8");
    assert_eq!(run(&["man", path]).status.code(), Some(0));
    for page in ["bardo.1", "bardo-checkpoint.1", "bardo-restart.1", "bardo-doctor.1", "bardo-demo.1"] {
        let page = fs::read_to_string(directory.path().join(page)).expect(page);
        assert!(page.contains("EXTRA") && page.contains("Exit codes"), "{page}");
    }
    assert!(!directory.path().join("bardo-demo-worker.1").exists());
    for shell in ["bash", "zsh", "fish"] {
        let script = text(&run(&["completions", shell]).stdout);
        assert!(script.contains("checkpoint") && script.contains("pid-space"), "{shell}");
    }
}

#[test]
fn the_log_has_what_was_done() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("log");
    let path = log.to_str().expect("UTF-8");
    let golden = golden();
    assert_eq!(run(&["verify", "--log", path, golden.to_str().expect("UTF-8")]).status.code(), Some(0));
    assert!(fs::read_to_string(&log).expect("the log").contains("stage open"));
    assert_eq!(run(&["verify", "--log", "/nonexistent/log", "x"]).status.code(), Some(1));
}

/// The demo's tree lives, keeps its own invariants and ends by itself, with no bardo around it.
#[test]
fn the_demos_tree_lives_without_bardo() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_str().expect("UTF-8");
    let mut tree = bardo(&["demo-worker", path]).spawn().expect("bardo starts");
    let journal = directory.path().join("journal");
    while fs::metadata(&journal).map_or(0, |m| m.len()) < 62 * 200 {
        assert_eq!(
            tree.try_wait().expect("wait"),
            None,
            "it ended: {:?}",
            fs::read_to_string(directory.path().join("broken"))
        );
        std::thread::yield_now();
    }
    fs::write(directory.path().join("stop"), "").expect("written");
    assert!(tree.wait().expect("wait").success());
    assert!(!directory.path().join("broken").exists());
    let lines = fs::read_to_string(&journal).expect("the journal");
    assert!(lines.len().is_multiple_of(62) && lines.lines().count() >= 200);
    for (step, line) in lines.lines().enumerate() {
        assert!(line.trim_start().starts_with(&format!("{step} ")), "{line}");
    }
}
