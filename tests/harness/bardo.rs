//! Running the bardo program: found or built, with its answers in files, and never for ever.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use crate::place::Place;
use crate::process::{Process, Status, reap_orphans_of_bardo};
use crate::wait::until;

/// Where the test programs lie: `target/PROFILE`.
fn profile_directory() -> PathBuf {
    let own = std::env::current_exe().expect("the test program's path");
    let deps = own.parent().expect("a file has a directory");
    deps.parent().expect("deps/ lies in the profile's directory").to_path_buf()
}

fn newest(directory: &Path) -> SystemTime {
    let Ok(entries) = std::fs::read_dir(directory) else { return SystemTime::UNIX_EPOCH };
    let times = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        if entry.file_type().ok()?.is_dir() {
            return Some(newest(&entry.path()));
        }
        entry.metadata().ok()?.modified().ok()
    });
    times.max().unwrap_or(SystemTime::UNIX_EPOCH)
}

/// The bardo program to test: `$BARDO`, or the workspace's own in the profile of this test, built if a source is newer.
///
/// # Panics
/// When it can't be built.
pub fn program() -> PathBuf {
    if let Some(program) = std::env::var_os("BARDO") {
        return PathBuf::from(program);
    }
    let profile = profile_directory();
    let program = profile.join("bardo");
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let stamp = profile.join("bardo.built-by-tests");
    let lock = File::options().create(true).truncate(false).write(true).open(profile.join("bardo.lock"));
    let lock = lock.expect("the lock of the build");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("the lock of the build");
    let built = std::fs::metadata(&stamp).and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    if program.exists() && newest(&workspace.join("crates")) < built {
        return program;
    }
    let started = File::create(profile.join("bardo.build-started")).expect("a file beside the programs");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace).args(["build", "--quiet", "--workspace", "--all-targets"]);
    cargo.arg("--target-dir").arg(profile.parent().expect("target/"));
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.status().expect("running cargo");
    assert!(status.success(), "building bardo: {status}");
    drop(started);
    std::fs::rename(profile.join("bardo.build-started"), &stamp).expect("a stamp beside the programs");
    program
}

/// What a run of bardo said.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// Its exit code; 128 and the signal if one ended it.
    pub status: Status,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    run: String,
}

impl Output {
    /// Passes on what succeeded.
    ///
    /// # Panics
    /// When it didn't.
    #[track_caller]
    pub fn ok(self) -> Output {
        self.expect(0)
    }

    /// Waits until no process that this run made is left (but those that became the restarted tree).
    #[track_caller]
    pub fn nothing_left(self) -> Output {
        until(&format!("nothing is left of `{}`", self.command), || processes_of(&self.run).is_empty());
        reap_orphans_of_bardo();
        self
    }

    /// Fails if bardo itself is to blame: a panic, a signal that nobody sent, an exit code that it doesn't have.
    ///
    /// # Panics
    /// When it is.
    #[track_caller]
    pub fn honest(self) -> Output {
        assert!([0, 1, 2, 3, 4, 5, 6, 7].contains(&self.status), "{self}");
        assert!(!self.stderr.contains("panicked"), "{self}");
        self
    }

    /// Passes on what says all of these words.
    ///
    /// # Panics
    /// When it doesn't.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Output {
        for word in words {
            assert!(self.stderr.contains(word) || self.stdout.contains(word), "nothing of {word:?}: {self}");
        }
        self
    }

    /// Passes on what ended with this exit code.
    ///
    /// # Panics
    /// When it ended with another.
    #[track_caller]
    pub fn expect(self, status: Status) -> Output {
        assert_eq!(self.status, status, "{self}");
        self
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "`{}` ended with {}\n{}\n{}",
            self.command,
            self.status,
            self.stdout.trim_end(),
            self.stderr.trim_end()
        )
    }
}

/// A command line of bardo.
#[derive(Debug)]
pub struct Bardo {
    command: Command,
    words: String,
    stdio: Option<[PathBuf; 2]>,
    stdout: Option<Stdio>,
    stderr: Option<Stdio>,
    outputs: Option<Place>,
    run: String,
}

/// Starts a command line: `bardo(["show", "--json"])`.
pub fn bardo<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Bardo {
    let mut command = Command::new(crate::launch());
    command.arg(program()).stdin(Stdio::null());
    command.env_remove("BARDO_GATE").env("NO_COLOR", "1");
    let run = unique();
    command.env(RUN, &run);
    let mut bardo =
        Bardo { command, words: "bardo".into(), stdio: None, stdout: None, stderr: None, outputs: None, run };
    for argument in arguments {
        bardo = bardo.arg(argument);
    }
    bardo
}

impl Bardo {
    /// Adds an argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Bardo {
        self.words.push(' ');
        self.words.push_str(&argument.as_ref().to_string_lossy());
        self.command.arg(argument);
        self
    }

    /// Sets the gate: `kill=3`.
    pub fn gate(mut self, mode: &str) -> Bardo {
        self.words = format!("BARDO_GATE={mode} {}", self.words);
        self.command.env("BARDO_GATE", mode);
        self
    }

    /// Takes standard input from here.
    pub fn stdin(mut self, from: impl Into<Stdio>) -> Bardo {
        self.command.stdin(from);
        self
    }

    /// Appends standard output and error to these files, instead of catching them: for a restart, whose tree inherits
    /// them.
    pub fn stdio(mut self, stdout: &Path, stderr: &Path) -> Bardo {
        self.stdio = Some([stdout.to_path_buf(), stderr.to_path_buf()]);
        self
    }

    /// Runs these copies of the launcher and of bardo.
    pub fn program(mut self, [launch, program]: &[PathBuf; 2]) -> Bardo {
        let mut command = Command::new(launch);
        command.arg(program).args(self.command.get_args().skip(1)).stdin(Stdio::null());
        for (name, value) in self.command.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        self.command = command;
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: &str, value: &str) -> Bardo {
        self.command.env(name, value);
        self
    }

    /// Sends standard output here.
    pub fn stdout(mut self, to: impl Into<Stdio>) -> Bardo {
        self.stdout = Some(to.into());
        self
    }

    /// Sends standard error here.
    pub fn stderr(mut self, to: impl Into<Stdio>) -> Bardo {
        self.stderr = Some(to.into());
        self
    }

    /// Runs it as `sh -c "SCRIPT" sh LAUNCH BARDO ARGUMENTS…`, the script ending in `exec "$@"`.
    pub fn through(mut self, script: &str) -> Bardo {
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh"]).arg(self.command.get_program()).args(self.command.get_args());
        shell.stdin(Stdio::null()).env_remove("BARDO_GATE").env("NO_COLOR", "1").env(RUN, &self.run);
        self.words = format!("sh -c '{script}' {}", self.words);
        self.command = shell;
        self
    }

    /// Starts it.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn start(mut self) -> Started {
        let [stdout, stderr] = match &self.stdio {
            Some(paths) => paths.clone(),
            None => {
                let place = Place::new(&format!("output-{}", self.run));
                let paths = [place.join("stdout"), place.join("stderr")];
                self.outputs = Some(place);
                paths
            }
        };
        let open = |path: &Path| {
            File::options().create(true).append(true).open(path).expect("a file for the output")
        };
        let skip = [&stdout, &stderr].map(|p| std::fs::metadata(p).map_or(0, |m| m.len() as usize));
        self.command
            .stdout(self.stdout.take().unwrap_or_else(|| open(&stdout).into()))
            .stderr(self.stderr.take().unwrap_or_else(|| open(&stderr).into()));
        let process = Process::spawn(&mut self.command);
        Started {
            process,
            words: self.words,
            files: [stdout, stderr],
            skip,
            run: self.run,
            _outputs: self.outputs,
        }
    }

    /// Runs it to its end.
    pub fn run(self) -> Output {
        self.start().end()
    }
}

/// The variable by which the processes that a run of bardo leaves behind are found.
const RUN: &str = "BARDO_TEST_RUN";

/// Tells this run from all others on this machine.
fn unique() -> String {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    format!("{}-{:?}-{time:x}", std::process::id(), std::thread::current().id()).replace(['(', ')'], "")
}

/// The processes that descend from a run of bardo and haven't become another program: their environment says so.
fn processes_of(run: &str) -> Vec<i32> {
    let mark = format!("{RUN}={run}");
    let pids =
        std::fs::read_dir("/proc").expect("/proc").filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok());
    let marked = |pid: &i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|b| *b == 0).any(|v| v == mark.as_bytes())
    };
    pids.filter(marked).collect()
}

/// A bardo that runs. Dropped, it is killed.
#[derive(Debug)]
pub struct Started {
    process: Process,
    words: String,
    files: [PathBuf; 2],
    skip: [usize; 2],
    run: String,
    _outputs: Option<Place>,
}

impl Started {
    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Whether it has ended; [`Started::end`] still says how.
    pub fn has_ended(&self) -> bool {
        matches!(crate::process::state(self.process.pid()), None | Some('Z'))
    }

    /// Interrupts it, as Ctrl-C does.
    pub fn interrupt(&self) {
        self.process.signal(rustix::process::Signal::INT);
    }

    /// Its output so far.
    pub fn so_far(&self, status: Status) -> Output {
        let read = |i: usize| {
            let bytes = std::fs::read(&self.files[i]).unwrap_or_default();
            String::from_utf8_lossy(bytes.get(self.skip[i]..).unwrap_or_default()).into_owned()
        };
        Output {
            command: self.words.clone(),
            status,
            stdout: read(0),
            stderr: read(1),
            run: self.run.clone(),
        }
    }

    /// Its output, if it has ended.
    pub fn ended(&self) -> Option<Output> {
        self.process.reap().map(|status| self.so_far(status))
    }

    /// Waits for its end.
    pub fn end(self) -> Output {
        let status = self.process.wait();
        self.so_far(status)
    }
}
