//! What the tests of this family share: sleeping processes with chosen descriptors, their survey, its way through an image, and
//! new processes whose tables are made from it by real steps.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use bardo_image::{Frame, Header, Reader, Value, Writer};
use bardo_kernel::mmap::find_hole;
use bardo_kernel::procfs::syscall::{self, Syscall};
use bardo_kernel::procfs::{self, maps, stat, status};
use bardo_kernel::shelf::{CloneArgs, Layout, Shelf};
use bardo_kernel::{fcntl, pidfd, ptrace};

use super::*;
use crate::error::{Refusal, Who};
use crate::resource::memory::{MappedFiles, Shared};
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
        door: pid,
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
        Sleeper::run(Command::new("sh"), redirections, stdio)
    }

    /// The same as the leader of a session, without a terminal.
    pub fn leader(redirections: &str) -> Sleeper {
        let mut command = Command::new("setsid");
        command.arg("sh");
        Sleeper::run(command, redirections, [Stdio::null(), Stdio::null(), Stdio::null()])
    }

    fn run(mut shell: Command, redirections: &str, stdio: [Stdio; 3]) -> Sleeper {
        let [stdin, stdout, stderr] = stdio;
        let script = format!("{redirections}\nexec sleep 100000");
        let child = shell.args(["-c", &script]).stdin(stdin).stdout(stdout).stderr(stderr).spawn().unwrap();
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
pub(super) struct Dir(pub PathBuf);

impl Dir {
    pub fn new() -> Dir {
        let name = |number: u32| format!("bardo-files-{}-{number}", std::process::id());
        let mut paths = (0..1000).map(|number| std::env::temp_dir().join(name(number)));
        let path = paths.find(|path| std::fs::create_dir(path).is_ok()).unwrap();
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
    let files = survey(subjects, &vouched, &mut Shared::new().unwrap(), &mut refusals).unwrap();
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
        let hole = find_hole(&taken, layout.len() as u64, 1 << 16, 1 << 46).unwrap();
        let shelf = Shelf::build(hole, layout).unwrap();
        let pool =
            image.open_all(&external, &MappedFiles::default(), 500.max(image.highest_fd() + 1)).unwrap();
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
