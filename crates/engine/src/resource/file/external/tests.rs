//! Stdio that belongs to the outside: what counts as such, under which names, and where it is connected again.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Stdio;

use bardo_kernel::{pipe, procfs, tty};

use super::*;
use crate::resource::file::rig::{Dir, Revived, Sleeper, accepted, codes, is_alone, look, through_an_image};
use crate::restart;

fn link(pid: i32, fd: i32) -> PathBuf {
    fs::read_link(procfs::path(pid, &format!("fd/{fd}"))).unwrap()
}

#[test]
fn stdio_of_the_outside_is_connected_by_role_or_by_name() {
    if !is_alone() {
        return;
    }
    let dir = Dir::new();
    let (stdin, stdout) = (pipe::make(0).unwrap(), pipe::make(0).unwrap());
    let shared = stdout.write.try_clone().unwrap();
    let stdio = [Stdio::from(stdin.read), Stdio::from(stdout.write), Stdio::from(shared)];
    let sleeper = Sleeper::new("exec 5>&1", stdio);
    let files = accepted(&[&sleeper.subject]);
    let ino = fs::fstat(stdout.read.as_fd()).unwrap().ino;
    assert_eq!(files.externals().len(), 2);
    assert_eq!(files.externals()[1], format!("stdout (pipe:[{ino}])"));
    let image = through_an_image(&files);

    let (input, output) = (dir.file("in", b"input"), dir.0.join("out"));
    let errors = pipe::make(0).unwrap();
    let given = [
        format!("stdin={input}"),
        format!("stdout={}", output.display()),
        format!("stderr=fd:{}", errors.write.as_raw_fd()),
    ];
    let given: Vec<&str> = given.iter().map(String::as_str).collect();
    let revived = Revived::new(&image, &[sleeper.subject.own_pid], &given);
    let leads = |fd: i32| link(revived.pids[0], fd);
    assert_eq!((leads(0), leads(1), leads(5)), (PathBuf::from(&input), output.clone(), output));
    let errors = fs::fstat(errors.write.as_fd()).unwrap().ino;
    assert_eq!(leads(2), Path::new(&format!("pipe:[{errors}]")));

    let codes = |given: &[&str]| -> Vec<(Option<i32>, &'static str)> {
        let given: Vec<String> = given.iter().map(|g| (*g).to_owned()).collect();
        image.check(restart::Files::MustMatch, &given).iter().map(|r| (r.fd, r.code)).collect()
    };
    assert_eq!(codes(&["stdin=/no/such/file"]), [(Some(0), "external/unconnected")]);
    assert_eq!(codes(&["stdout=/no/such/file"]), [(Some(1), "external/unconnected")]);
    assert_eq!(codes(&["stdout=fd:x", "stdin=fd:999999"]).len(), 2);
    assert_eq!(codes(&["stdoud=/dev/null"]), [(None, "external/unknown")]);
    assert_eq!(codes(&["stdout=/dev/null"]), []);
    assert_eq!(codes(&[&format!("pipe:[{ino}]=/dev/null")]), []);
}

#[test]
fn a_socket_as_the_roots_stdio_and_a_vouched_one_are_external() {
    if !is_alone() {
        return;
    }
    let (ours, theirs) = UnixStream::pair().unwrap();
    let sleeper = Sleeper::new("", [Stdio::from(OwnedFd::from(ours)), Stdio::null(), Stdio::null()]);
    assert_eq!(accepted(&[&sleeper.subject]).externals().len(), 1);
    let root = Sleeper::quiet("");
    let name = format!("fd:{}:0", sleeper.pid());
    let (files, refusals) = look(&[&root.subject, &sleeper.subject], &[&name]);
    assert_eq!(refusals, []);
    assert!(files.externals()[0].starts_with("socket:["));
    drop(theirs);
}

#[test]
fn a_file_without_a_name_on_stdio_is_external_only_if_the_outside_has_it() {
    if !is_alone() {
        return;
    }
    let dir = Dir::new();
    let path = dir.file("gone", b"here document");
    let ours = File::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    // As a shell does for a here-document: nobody else has it, so its content is kept.
    let sleeper = Sleeper::new("", [Stdio::from(ours.try_clone().unwrap()), Stdio::null(), Stdio::null()]);
    drop(ours);
    assert!(accepted(&[&sleeper.subject]).externals().is_empty());
    let holder = Sleeper::quiet(&format!("exec 3</proc/{}/fd/0", sleeper.pid()));
    assert_eq!(accepted(&[&sleeper.subject]).externals().len(), 1);
    drop(holder);
}

#[test]
fn a_terminal_of_somebodys_stdio_is_external_in_all_its_open_files() {
    if !is_alone() {
        return;
    }
    let pair = tty::make().unwrap();
    let path = link(std::process::id() as i32, pair.terminal.as_raw_fd());
    let end = || Stdio::from(pair.terminal.try_clone().unwrap());
    let open = format!("exec 9<>{}", path.display());
    let sleeper = Sleeper::new(&open, [end(), Stdio::null(), end()]);
    let files = accepted(&[&sleeper.subject]);
    assert_eq!(files.externals(), [format!("stdin ({})", path.display())]);
    let image = through_an_image(&files);
    let dir = Dir::new();
    let (errors, named) = (dir.file("errors", b""), dir.file("named", b""));
    let by_role = [format!("stdin={named}"), format!("stderr={errors}")];
    let revived = Revived::new(&image, &[sleeper.subject.own_pid], &by_role.each_ref().map(String::as_str));
    let leads = |fd| link(revived.pids[0], fd);
    assert_eq!(
        (leads(0), leads(1), leads(2), leads(9)),
        (named.clone().into(), "/dev/null".into(), errors.into(), named.clone().into())
    );
    let by_link = format!("{}={named}", path.display());
    let revived = Revived::new(&image, &[sleeper.subject.own_pid], &[&by_link]);
    assert_eq!(link(revived.pids[0], 2), PathBuf::from(&named));

    // Nobody's stdio, nobody's controlling terminal.
    let sleeper = Sleeper::quiet(&open);
    assert_eq!(codes(&sleeper), [(9, "terminal/other")]);
    let (files, refusals) = look(&[&sleeper.subject], &[path.to_str().unwrap()]);
    assert_eq!((refusals, files.externals()), (vec![], &[path.to_str().unwrap().to_owned()][..]));
}

#[test]
fn the_controlling_terminal_is_external_under_both_its_names() {
    if !is_alone() {
        return;
    }
    let pair = tty::make().unwrap();
    let path = link(std::process::id() as i32, pair.terminal.as_raw_fd());
    // The first terminal that a session's leader opens becomes its own.
    let sleeper = Sleeper::leader(&format!("exec 3<>{} 4<>/dev/tty", path.display()));
    let files = accepted(&[&sleeper.subject]);
    assert_eq!(files.externals(), [path.to_str().unwrap(), "/dev/tty"]);
    let image = through_an_image(&files);
    let given = [format!("{}=/dev/null", path.display()), "/dev/tty=/dev/zero".to_owned()];
    let revived = Revived::new(&image, &[sleeper.subject.own_pid], &given.each_ref().map(String::as_str));
    assert_eq!(
        (link(revived.pids[0], 3), link(revived.pids[0], 4)),
        ("/dev/null".into(), "/dev/zero".into())
    );
}

#[test]
fn a_fifo_as_stdio_is_external_if_the_tree_has_one_side_only() {
    if !is_alone() {
        return;
    }
    let dir = Dir::new();
    let fifo = dir.0.join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let both = File::options().read(true).write(true).open(&fifo).unwrap();
    let end = Stdio::from(File::open(&fifo).unwrap());
    let reader = Sleeper::new("", [end, Stdio::null(), Stdio::null()]);
    assert_eq!(accepted(&[&reader.subject]).externals(), [format!("stdin ({})", fifo.display())]);
    let writer = Sleeper::quiet(&format!("exec 3>{}", fifo.display()));
    assert!(accepted(&[&reader.subject, &writer.subject]).externals().is_empty());
    drop(both);
}
