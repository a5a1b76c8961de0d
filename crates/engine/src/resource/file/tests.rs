//! Descriptors of living processes, surveyed, written into an image, read back, and put into a new process by real steps;
//! then the new process is surveyed as the old one was, and both must say the same.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use bardo_image::{Frame, Header, Reader, Record, Value, Writer};
use bardo_kernel::mmap::find_hole;
use bardo_kernel::procfs::syscall::{self, Syscall};
use bardo_kernel::procfs::{self, maps, stat, status};
use bardo_kernel::shelf::{CloneArgs, Layout, Shelf};
use bardo_kernel::{fcntl, fs, pidfd, pipe, ptrace};

use super::*;
use crate::error::{Error, Refusal, Who};
use crate::subject::Subject;

/// Whether this is a process that runs this one test and nothing else. If not, it is run in one: what other tests of this
/// program fork would hold our pipes and files open.
pub(super) fn is_alone() -> bool {
    const ALONE: &str = "BARDO_TEST_ALONE";
    let thread = std::thread::current();
    let name = thread.name().expect("a test's thread has its name");
    // With --test-threads=1 tests run in the main thread, one after the other.
    if std::env::var_os(ALONE).is_some() || name == "main" {
        // Whatever started the tests may have left us descriptors of its own, which are no part of them.
        fcntl::set_cloexec_range(3, u32::MAX).unwrap();
        return true;
    }
    let program = std::env::current_exe().unwrap();
    let run = Command::new(program).args(["--exact", name, "--nocapture"]).env(ALONE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}{}", String::from_utf8_lossy(&run.stderr));
    assert!(said.contains("1 passed"), "{name} wasn't run: {said}");
    false
}

/// A process as the freeze would hand it over.
pub(super) fn subject(pid: i32) -> Subject {
    let status = status::read(pid).unwrap();
    Subject {
        who: Who { pid, name: status.name.to_string_lossy().into_owned() },
        own_pid: *status.ns_pid.last().unwrap(),
        pidfd: pidfd::open(pid).unwrap(),
        mem: None,
        stat: stat::read(pid).unwrap(),
        tids: procfs::threads(pid).unwrap(),
        zombie: false,
        status,
    }
}

/// A child that sleeps with the descriptors that a shell gave it.
pub(super) struct Sleeper {
    child: std::process::Child,
    pub subject: Subject,
}

impl Sleeper {
    /// Runs redirections (`exec 5<file 6>&5`) in a shell that inherits these, and then only sleeps.
    pub fn new(redirections: &str, stdio: [Stdio; 3]) -> Sleeper {
        let [stdin, stdout, stderr] = stdio;
        let script = format!("{redirections}\nexec sleep 100000");
        let child = Command::new("sh")
            .args(["-c", &script])
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .unwrap();
        let pid = child.id() as i32;
        // Once it sleeps, the loader has closed all that it opened.
        let sleeps = |nr: u64| [libc::SYS_nanosleep, libc::SYS_clock_nanosleep].contains(&(nr as i64));
        while !matches!(syscall::read(pid), Ok(Syscall::Inside { nr, .. }) if sleeps(nr)) {
            assert_ne!(
                stat::read(pid).unwrap().state,
                stat::State::Zombie,
                "the shell failed: {redirections}"
            );
            std::thread::yield_now();
        }
        Sleeper { child, subject: subject(pid) }
    }

    /// With null as its stdio.
    pub fn quiet(redirections: &str) -> Sleeper {
        Sleeper::new(redirections, [Stdio::null(), Stdio::null(), Stdio::null()])
    }

    pub fn pid(&self) -> i32 {
        self.subject.pid()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory that goes with the test.
pub(super) struct Dir(PathBuf);

impl Dir {
    pub fn new() -> Dir {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("bardo-files-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Dir(path.canonicalize().unwrap())
    }

    pub fn file(&self, name: &str, content: &[u8]) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a survey of these processes says.
pub(super) fn look(subjects: &[&Subject], vouched: &[&str]) -> (Files, Vec<Refusal>) {
    let vouched: Vec<String> = vouched.iter().map(|v| (*v).to_owned()).collect();
    let mut refusals = Vec::new();
    let files = survey(subjects, &vouched, &mut refusals).unwrap();
    (files, refusals)
}

pub(super) fn accepted(subjects: &[&Subject]) -> Files {
    let (files, refusals) = look(subjects, &[]);
    assert_eq!(refusals, []);
    files
}

/// The codes of the refusals for one process, each with its descriptor.
pub(super) fn codes(sleeper: &Sleeper) -> Vec<(i32, &'static str)> {
    let (_, refusals) = look(&[&sleeper.subject], &[]);
    assert!(refusals.iter().all(|r| r.who.as_ref().is_some_and(|who| who.pid == sleeper.pid())));
    refusals.iter().map(|r| (r.fd.unwrap(), r.code)).collect()
}

/// Through an image and back.
pub(super) fn through_an_image(files: &Files) -> FilesImage {
    let mut writer = Writer::begin(Vec::new(), &Header::new("test").unwrap()).unwrap();
    files.write(&mut writer).unwrap();
    let (bytes, _) = writer.seal().unwrap();
    let mut reader = Reader::open(&bytes[..]).unwrap();
    let mut image = FilesImage::default();
    while let Some(frame) = reader.next().unwrap() {
        let Frame::Record(record) = frame else { panic!("pages among files") };
        assert!(image.take(&record).unwrap(), "{}", record.kind);
    }
    image
}

/// A new process with a table out of an image.
pub(super) struct Revived {
    shelf: Shelf,
    pub pids: Vec<i32>,
}

impl Revived {
    /// Puts the files of these processes into new ones.
    pub fn new(image: &FilesImage, pids: &[i32], external: &[&str]) -> Revived {
        let external: Vec<String> = external.iter().map(|e| (*e).to_owned()).collect();
        assert_eq!(image.check(restart::Files::MustMatch, &external), []);
        let layout = Layout { slots: pids.len(), arena: 4096 };
        let ours = maps::read(std::process::id() as i32).unwrap();
        let taken: Vec<(u64, u64)> =
            ours.iter().map(|a| (a.start, a.end)).filter(|(s, _)| *s < 1 << 47).collect();
        // Tests run at once, each with a shelf of its own: each looks for its hole somewhere else.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let ceiling = (1 << 46) - (u64::from(NUMBER.fetch_add(1, Ordering::Relaxed)) << 32);
        let hole = find_hole(&taken, layout.len() as u64, 1 << 16, ceiling).unwrap();
        let shelf = Shelf::build(hole, layout).unwrap();
        let pool = image.open_all(&external, 500.max(image.highest_fd() + 1)).unwrap();
        let mut revived = Revived { shelf, pids: Vec::new() };
        for (slot, pid) in pids.iter().enumerate() {
            let fork = CloneArgs { exit_signal: libc::SIGCHLD as u64, ..CloneArgs::default() };
            revived.pids.push(revived.shelf.seed(slot, &fork).unwrap());
            for mut batch in image.steps(*pid, &pool, revived.shelf.room()) {
                assert!(batch.room() <= revived.shelf.room());
                revived.shelf.run(slot, &mut batch, || Ok(())).unwrap();
            }
        }
        revived
    }

    pub fn subjects(&self) -> Vec<Subject> {
        self.pids.iter().map(|pid| subject(*pid)).collect()
    }
}

impl Drop for Revived {
    fn drop(&mut self) {
        self.shelf.abandon();
        for pid in &self.pids {
            let _ = ptrace::kill(*pid, libc::SIGKILL);
            let _ = ptrace::reap(*pid, 0);
        }
    }
}

/// What a survey says, with pids as positions and pipes by their order.
pub(super) fn said(files: &Files) -> Vec<(&'static str, u64, Value)> {
    let mut all = files.records().to_vec();
    for (kind, id, body) in &mut all {
        let Value::Map(fields) = body else { panic!("a record that isn't a map") };
        if *kind == table::NAME {
            fields[0].1 = Value::from(*id);
        }
    }
    all
}

/// Surveys, restores, surveys again.
pub(super) fn assert_same_after_restart(subjects: &[&Subject]) -> Revived {
    let before = accepted(subjects);
    let image = through_an_image(&before);
    let pids: Vec<i32> = subjects.iter().map(|s| s.own_pid).collect();
    let revived = Revived::new(&image, &pids, &[]);
    let others = revived.subjects();
    let after = accepted(&others.iter().collect::<Vec<_>>());
    assert_eq!(said(&before), said(&after));
    revived
}

#[test]
fn files_of_every_kind_come_back_in_every_place() {
    if !is_alone() {
        return;
    }
    let dir = Dir::new();
    let (one, two) = (dir.file("one", b"0123456789"), dir.file("two words", b""));
    let home = dir.0.to_str().unwrap();
    let sleeper = Sleeper::quiet(&format!(
        "exec 3<{one} 4<>{one} 5>>'{two}' 6<{home} 7<&3 8</dev/zero 9>/dev/full; read -r x <&4 || true; exec 2>&4"
    ));
    let files = accepted(&[&sleeper.subject]);
    assert_eq!((files.descriptors(), files.open_files()), (10, 8));
    assert_eq!(files.externals(), &[] as &[String]);
    let stat = fs::stat(&one).unwrap();
    assert_eq!(files.holds(stat.dev, stat.ino).unwrap().0.pid, sleeper.pid());
    assert_eq!(files.holds(stat.dev, u64::MAX), None);
    let revived = assert_same_after_restart(&[&sleeper.subject]);
    // The offset that `read` left, and that 2 shares with 4.
    let pidfd = pidfd::open(revived.pids[0]).unwrap();
    let mut four = File::from(pidfd::getfd(pidfd.as_fd(), 4).unwrap());
    assert_eq!(four.stream_position().unwrap(), 10);
    four.seek(SeekFrom::Start(3)).unwrap();
    let mut two = File::from(pidfd::getfd(pidfd.as_fd(), 2).unwrap());
    assert_eq!(two.stream_position().unwrap(), 3);
}

#[test]
fn what_relatives_share_they_share_again() {
    if !is_alone() {
        return;
    }
    let dir = Dir::new();
    let shared = File::open(dir.file("shared", b"content")).unwrap();
    let end = || Stdio::from(shared.try_clone().unwrap());
    let own = format!("exec 5<{}", dir.0.join("shared").display());
    let one = Sleeper::new(&own, [end(), Stdio::null(), Stdio::null()]);
    let two = Sleeper::new(&own, [Stdio::null(), end(), end()]);
    let subjects = [&one.subject, &two.subject];
    assert_eq!(accepted(&subjects).open_files(), 1 + 2 * 2 + 1);
    assert_same_after_restart(&subjects);
}

#[test]
fn a_process_without_descriptors_and_one_with_many() {
    if !is_alone() {
        return;
    }
    let dir = Dir::new();
    let path = dir.file("many", b"x");
    let none = Sleeper::quiet("exec <&- >&- 2>&-");
    let mut redirections = String::new();
    for fd in 3..10 {
        redirections += &format!("exec {fd}<{path}\n");
    }
    let many = Sleeper::quiet(&redirections);
    assert_same_after_restart(&[&none.subject, &many.subject]);
}

#[test]
fn steps_fit_and_leave_nothing_else_open() {
    if !is_alone() {
        return;
    }
    let dir = Dir::new();
    let sleeper = Sleeper::quiet(&format!("exec 4<{} 9<&4", dir.file("x", b"")));
    let image = through_an_image(&accepted(&[&sleeper.subject]));
    let pool = image.open_all(&[], 100).unwrap();
    assert!(image.open_all(&[], 9).is_err(), "a base within the tables");
    let lines: Vec<String> = image.steps(sleeper.subject.own_pid, &pool, 4096)[0].lines().collect();
    let closes: Vec<&str> =
        lines.iter().map(String::as_str).filter(|l| l.starts_with("close_range")).collect();
    assert_eq!(closes, ["close_range(3, 3)", "close_range(5, 8)", "close_range(10, 0xffffffff)"]);
    let lines: Vec<String> = image.steps(0, &pool, 4096)[0].lines().collect();
    assert_eq!(lines, ["close_range(0, 0xffffffff)"]);
    let small = image.steps(sleeper.subject.own_pid, &pool, 300);
    assert!(small.len() > 2 && small.iter().all(|batch| batch.room() <= 300));
    assert!(pool.len() == image.open_files() && !pool.is_empty());
}

#[test]
fn changes_since_are_reported_before_anything_is_made() {
    if !is_alone() {
        return;
    }
    let dir = Dir::new();
    let (path, other, gone) = (dir.file("path", b"1"), dir.file("other", b"2"), dir.file("gone", b"3"));
    let sleeper = Sleeper::quiet(&format!("exec 3<{path} 4>>{other} 5<{gone} 6<{}", dir.0.display()));
    let image = through_an_image(&accepted(&[&sleeper.subject]));
    File::options().append(true).open(&path).unwrap().write_all(b"more").unwrap();
    std::fs::rename(dir.file("new", b"2"), &other).unwrap();
    std::fs::remove_file(&gone).unwrap();
    let codes = |policy| -> Vec<(i32, &'static str)> {
        image.check(policy, &[]).iter().map(|r| (r.fd.unwrap(), r.code)).collect()
    };
    let all = [(3, "file/changed"), (4, "file/changed"), (5, "file/missing")];
    assert_eq!(codes(restart::Files::MustMatch), all);
    assert_eq!(codes(restart::Files::IgnoreChanges), all[2..]);
    let what = &image.check(restart::Files::MustMatch, &[])[0].what;
    assert!(what.contains("size 1 → 5") && what.contains("descriptor 3 of process"), "{what}");
    std::fs::create_dir(&gone).unwrap();
    assert_eq!(codes(restart::Files::IgnoreChanges), all[2..], "a directory in a file's place");
}

#[test]
fn what_cannot_be_saved_is_refused_by_name() {
    if !is_alone() {
        return;
    }
    let dir = Dir::new();
    let (gone, path) = (dir.file("gone", b"x"), dir.file("path", b"x"));
    let fifo = dir.0.join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let sleeper = Sleeper::quiet(&format!(
        "exec 3<{gone} 4</proc/self/status 5<>{} 6<>/dev/ptmx 7</proc/self; rm {gone}",
        fifo.display()
    ));
    let expected =
        [(3, "file/deleted"), (4, "file/proc"), (5, "file/fifo"), (6, "terminal/master"), (7, "file/proc")];
    assert_eq!(codes(&sleeper), expected);

    // What a shell can't open comes as stdio that isn't the root's.
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let socket = Sleeper::new("", [Stdio::from(OwnedFd::from(ours)), Stdio::null(), Stdio::null()]);
    let root = Sleeper::quiet("");
    let (_, refusals) = look(&[&root.subject, &socket.subject], &[]);
    assert_eq!(refusals.len(), 1);
    assert_eq!((refusals[0].code, refusals[0].fd), ("socket/unix", Some(0)));
    assert!(refusals[0].what.starts_with("Unix stream socket (socket:["), "{}", refusals[0].what);

    let locked = File::open(&path).unwrap();
    locked.lock().unwrap();
    let sleeper = Sleeper::new("", [Stdio::from(locked.try_clone().unwrap()), Stdio::null(), Stdio::null()]);
    assert_eq!(codes(&sleeper), [(0, "file/lock")]);
    locked.unlock().unwrap();
    assert_eq!(codes(&sleeper), []);
    fcntl::set_signal(locked.as_fd(), libc::SIGUSR1).unwrap();
    assert_eq!(codes(&sleeper), [(0, "file/owner")]);
    fcntl::set_signal(locked.as_fd(), 0).unwrap();
    fcntl::set_owner(locked.as_fd(), fcntl::Owner::Process(sleeper.pid())).unwrap();
    assert_eq!(codes(&sleeper), [(0, "file/owner")]);
}

#[test]
fn a_file_whose_name_looks_deleted_is_none() {
    if !is_alone() {
        return;
    }
    let dir = Dir::new();
    let path = dir.file("here (deleted)", b"x");
    let sleeper = Sleeper::quiet(&format!("exec 3<'{path}'"));
    assert_same_after_restart(&[&sleeper.subject]);
    // Another file has the name: the one that is open has none.
    std::fs::rename(dir.file("new", b"x"), &path).unwrap();
    assert_eq!(codes(&sleeper), [(3, "file/deleted")]);
    let hard = dir.file("hard", b"x");
    let sleeper = Sleeper::quiet(&format!("exec 3<'{hard}'; ln {hard} {hard}er; rm {hard}"));
    assert_eq!(codes(&sleeper), [(3, "file/deleted")], "another name of it is left");
}

#[test]
fn every_code_of_the_table_is_there_once() {
    let all = support();
    let mut names: Vec<&str> = all.iter().map(|line| line.kind).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all.len());
    assert!(all.iter().all(|line| line.kept.is_empty() == line.workload.is_empty()));
}

fn record(kind: &str, id: u64, body: &[(&str, Value)]) -> Record {
    let fields = body.iter().map(|(name, value)| (Value::from(*name), value.clone())).collect();
    let body = Value::Map(fields);
    Record { kind: kind.into(), id, body, extra: Default::default(), at: 0, frame: 0 }
}

fn entry(fd: i64, file: u64) -> Value {
    Value::Map(vec![("fd".into(), fd.into()), ("file".into(), file.into())])
}

#[test]
fn records_that_say_what_cannot_be_are_errors() {
    let place = |path: &str, flags: i32, mode: u32| {
        let number = |name: &'static str| (name, Value::from(0));
        let path = ("path", Value::Bytes(path.as_bytes().to_vec()));
        let mut all = vec![path, ("flags", flags.into()), ("mode", mode.into())];
        all.extend([number("dev"), number("ino"), number("size"), number("mtime_ns"), number("offset")]);
        all
    };
    let with = |mut fields: Vec<(&'static str, Value)>, name: &'static str, value: Value| {
        fields.retain(|(n, _)| *n != name);
        fields.push((name, value));
        fields
    };
    let regular = place("/x", 0, libc::S_IFREG);
    let device = with(place("/dev/null", 0, libc::S_IFCHR), "major", 1.into());
    let external = |names: &[&str], stdio: &[i64]| {
        vec![
            ("names", Value::Array(names.iter().map(|n| Value::from(*n)).collect())),
            ("was", "pipe".into()),
            ("stdio", Value::Array(stdio.iter().map(|n| Value::from(*n)).collect())),
            ("flags", 0.into()),
        ]
    };
    let table = |pid: i64, entries: Vec<Value>| {
        record("file/table", 1, &[("pid", pid.into()), ("entries", Value::Array(entries))])
    };
    let wrong = [
        record("file/regular", 2, &place("x", 0, libc::S_IFREG)),
        record("file/regular", 2, &place("/x\0y", 0, libc::S_IFREG)),
        record("file/regular", 2, &place(&"/x".repeat(3000), 0, libc::S_IFREG)),
        record("file/regular", 2, &place("/x", libc::O_TRUNC, libc::S_IFREG)),
        record("file/regular", 2, &place("/x", libc::O_CREAT, libc::S_IFREG)),
        record("file/regular", 2, &place("/x", 0, libc::S_IFIFO)),
        record("file/regular", 2, &with(regular.clone(), "offset", (-1).into())),
        record("file/regular", 2, &regular[1..]),
        record("file/regular", 1, &regular),
        record("file/directory", 2, &regular),
        record("file/path-only", 2, &regular),
        record("file/device", 2, &with(device.clone(), "minor", 1.into())),
        record("file/external", 2, &external(&[], &[])),
        record("file/external", 2, &external(&[""], &[])),
        record("file/external", 2, &external(&["x"], &[3])),
        record("file/external", 2, &external(&["x"], &[0, 0])),
        record("file/pipe-end", 2, &[("pipe", 1.into()), ("flags", 0.into())]),
        table(0, vec![]),
        table(1, vec![entry(-1, 1)]),
        table(1, vec![entry(1 << 30, 1)]),
        table(1, vec![entry(3, 1), entry(3, 1)]),
        table(1, vec![entry(3, 7)]),
        record("file/table", 1, &[("pid", 1.into())]),
    ];
    for record in wrong {
        let mut image = FilesImage::default();
        image.take(&self::record("file/regular", 1, &regular)).unwrap();
        let failed = image.take(&record);
        assert!(matches!(failed, Err(Error::Image(_))), "{record:?}: {failed:?}");
    }
    let mut image = FilesImage::default();
    assert!(image.take(&record("file/regular", 1, &regular)).unwrap());
    assert!(image.take(&record("file/device", 2, &with(device, "minor", 3.into()))).unwrap());
    assert!(image.take(&table(1, vec![entry(0, 1), entry(70_000, 2)])).unwrap());
    assert!(image.take(&table(1, vec![entry(70_001, 2)])).unwrap(), "a table in two records");
    assert!(
        matches!(image.take(&table(1, vec![entry(5, 2)])), Err(Error::Image(_))),
        "a second part that goes back"
    );
    assert!(!image.take(&record("memory/space", 1, &[])).unwrap());
    assert_eq!((image.highest_fd(), image.open_files(), image.descriptors()), (70_001, 2, 3));
}

#[test]
fn a_limit_that_is_too_low_is_found_before() {
    if !is_alone() {
        return;
    }
    let mut image = FilesImage::default();
    let null = File::open("/dev/null").unwrap();
    let sleeper = Sleeper::new("", [Stdio::from(null), Stdio::null(), Stdio::null()]);
    for (kind, id, body) in accepted(&[&sleeper.subject]).records() {
        let kind = (*kind).to_owned();
        let record = Record { kind, id: *id, body: body.clone(), extra: Default::default(), at: 0, frame: 0 };
        image.take(&record).unwrap();
    }
    let high = Value::Array(vec![entry(table::FD_MAX.into(), 1)]);
    image.take(&record("file/table", 9, &[("pid", 77.into()), ("entries", high)])).unwrap();
    let codes: Vec<&str> = image.check(restart::Files::MustMatch, &[]).iter().map(|r| r.code).collect();
    assert_eq!(codes, ["file/limit"]);
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
    let leads = |fd: i32| fs::read_link(procfs::path(revived.pids[0], &format!("fd/{fd}"))).unwrap();
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
    // As a shell does for a here-document: nobody else has it, its content would be lost.
    let sleeper = Sleeper::new("", [Stdio::from(ours.try_clone().unwrap()), Stdio::null(), Stdio::null()]);
    drop(ours);
    assert_eq!(codes(&sleeper), [(0, "file/deleted")]);
    let holder = Sleeper::quiet(&format!("exec 3</proc/{}/fd/0", sleeper.pid()));
    assert_eq!(accepted(&[&sleeper.subject]).externals().len(), 1);
    drop(holder);
}

#[test]
fn a_merge_sort_joins_what_is_equal() {
    let members: Vec<usize> = (0..1000).collect();
    let classes = scene::unite(members, &|a, b| Ok((a * 7 % 13).cmp(&(b * 7 % 13)))).unwrap();
    assert_eq!(classes.len(), 13);
    let mut of: BTreeMap<usize, usize> = BTreeMap::new();
    for (number, class) in classes.iter().enumerate() {
        assert!(class.is_sorted());
        of.extend(class.iter().map(|member| (*member, number)));
    }
    assert!((0..1000).all(|member| of[&member] == of[&(member % 13)]));
    assert!(scene::unite(vec![1, 2], &|_, _| Err(Error::Bug("x".into()))).is_err());
    assert_eq!(scene::unite(vec![], &|_, _| Err(Error::Bug("x".into()))).unwrap().len(), 0);
}
