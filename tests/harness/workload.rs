//! A workload that runs: its directory, its control files, its tree. See `workloads/workload.h` for the other side.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::bardo::{Bardo, Output, Started, bardo};
use crate::place::Place;
use crate::process::{Process, Tree, adopt_orphans, exists, reap_orphans};
use crate::wait::{until, until_some};

/// The program of a workload: `task/threads`.
pub fn workload_program(name: &str) -> PathBuf {
    Path::new(env!("BARDO_WORKLOADS")).join(name)
}

/// The program that starts another with nothing inherited but stdin, stdout and stderr.
pub fn launch() -> PathBuf {
    workload_program("launch")
}

/// bardo's exit code when a pid is taken.
const CONFLICT: i32 = 7;

/// A workload, and the directory that it and its images are in.
#[derive(Debug)]
pub struct Workload {
    // Dropped in this order: the tree before its directory.
    tree: Tree,
    /// A bardo in whose foreground the tree runs, after [`Workload::restart_in_foreground`].
    foreground: Option<Started>,
    place: Place,
    pid: i32,
}

impl Workload {
    /// Starts a workload and waits until it is ready.
    ///
    /// # Panics
    /// When it can't be started or fails.
    pub fn start(name: &str, arguments: &[&str]) -> Workload {
        Workload::start_if_possible(name, arguments).expect("this kernel has what the workload needs")
    }

    /// The same; none if the workload says, by exit code 77, that this kernel doesn't have what it needs.
    ///
    /// # Panics
    /// When it can't be started or fails.
    pub fn start_if_possible(name: &str, arguments: &[&str]) -> Option<Workload> {
        let place = Place::new(name);
        let mut command = Command::new(launch());
        command.arg(workload_program(name)).arg(place.path()).args(arguments);
        Workload::start_unless(command, place, Some(77))
    }

    /// Starts any program that follows the workloads' protocol, in this directory.
    ///
    /// # Panics
    /// When it can't be started or fails.
    pub fn start_command(command: Command, place: Place) -> Workload {
        Workload::start_unless(command, place, None).expect("no exit code was to be passed over")
    }

    fn start_unless(mut command: Command, place: Place, passed_over: Option<i32>) -> Option<Workload> {
        adopt_orphans();
        let output = |name: &str| {
            File::options().create(true).append(true).open(place.join(name)).expect("a file for the output")
        };
        command.stdin(Stdio::null()).stdout(output("out")).stderr(output("err"));
        // The tree holds it from here on: dropped, and not released, this hold of it would end it.
        let process = Process::spawn(&mut command);
        let pid = process.pid();
        let mut workload = Workload { tree: Tree::of(pid), foreground: None, place, pid };
        let ready = until_some("the workload is ready", || {
            if passed_over.is_some() && process.ended().is_some() && workload.place.read("verdict").is_empty()
            {
                assert_eq!(process.reap(), passed_over, "{}", workload.place.read("err"));
                return Some(false);
            }
            workload.check();
            workload.place.join("ready").exists().then_some(true)
        });
        process.release();
        workload.tree.update();
        ready.then_some(workload)
    }

    /// Its directory.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Its root's pid.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// All its processes.
    pub fn tree(&mut self) -> &mut Tree {
        self.tree.update();
        &mut self.tree
    }

    /// Says that the tree to look at is that of another pid (a child of what was started).
    pub fn look_at(&mut self, pid: i32) {
        self.pid = pid;
    }

    /// Fails with its verdict if it has found something, or if it ended without one.
    #[track_caller]
    fn check(&self) {
        let verdict = self.place.read("verdict");
        assert!(verdict.is_empty() || verdict == "ok\n", "{verdict}{}", self.place.read("err"));
        if let Some(output) = self.foreground.as_ref().and_then(Started::ended) {
            panic!("bardo ended before its tree was told to finish: {output}");
        }
        if let (Some(status), "") = (self.tree.root_ended(), self.place.read("verdict").as_str()) {
            panic!("pid {} ended with {status} and no verdict: {}", self.pid, self.place.read("err"));
        }
    }

    fn progress_files(&self) -> Vec<PathBuf> {
        let names = self.place.names().into_iter().filter(|n| n.starts_with("progress"));
        names.map(|n| self.place.join(n)).collect()
    }

    /// Sets the progress files to zero.
    ///
    /// # Panics
    /// When they can't be written.
    pub fn reset_progress(&self) {
        for path in self.progress_files() {
            let file = File::options().write(true).open(&path).expect("a progress file");
            file.set_len(0).expect("a progress file");
        }
    }

    /// Whether every process that shows progress has shown some since [`Workload::reset_progress`].
    pub fn has_progress(&self) -> bool {
        self.progress_files().iter().all(|p| std::fs::metadata(p).is_ok_and(|m| m.len() > 0))
    }

    /// Waits until every process that shows progress has shown some, twice.
    #[track_caller]
    pub fn wait_progress(&self) {
        for _ in 0..2 {
            self.reset_progress();
            until(&format!("there is progress in {}", self.place.path().display()), || {
                self.check();
                self.has_progress()
            });
        }
    }

    /// Lets it make its final checks and end, and judges it by them and by its exit status. No process may be left.
    #[track_caller]
    pub fn finish(&mut self) {
        self.tree.update();
        File::create(self.place.join("finish")).expect("the finish file");
        let status = match self.foreground.take() {
            Some(bardo) => {
                let output = bardo.end();
                assert_eq!(output.status, 0, "{output}{}", self.place.read("verdict"));
                0
            }
            None => self.tree.wait_root(),
        };
        let verdict = self.place.read("verdict");
        assert!(
            verdict == "ok\n" && status == 0,
            "status {status}, verdict: {verdict}{}",
            self.place.read("err")
        );
        self.tree.wait_gone();
    }

    /// Ends the whole tree and waits until its pids are free.
    pub fn kill(&mut self) {
        self.tree.kill();
        self.wait_gone();
    }

    /// Waits until its pids are free: after a checkpoint with `--kill`.
    pub fn wait_gone(&mut self) {
        self.tree.wait_gone();
        self.foreground = None;
    }

    /// Takes away what the tree has said at its end, and sets its files back to what they held, for a second end.
    ///
    /// # Panics
    /// When the files can't be written.
    pub fn set_back(&self, kept: &Kept) {
        for name in ["finish", "verdict"] {
            let path = self.place.join(name);
            if path.exists() {
                std::fs::remove_file(&path).expect("a control file");
            }
        }
        for (path, bytes) in &kept.files {
            std::fs::write(path, bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
        self.reset_progress();
    }

    /// What its own files hold.
    pub fn keep(&self) -> Kept {
        let mut files = Vec::new();
        keep_below(&self.place.join("data"), &mut files);
        Kept { files }
    }

    /// `bardo checkpoint --quiet -o IMAGE …`, to be completed with options and run by [`Workload::on`].
    pub fn checkpoint(&self, image: &str) -> Bardo {
        bardo(["checkpoint", "--quiet", "-o"]).arg(self.place.join(image))
    }

    /// Completes a command line with the tree's pid and runs it.
    pub fn on(&self, bardo: Bardo) -> Output {
        bardo.arg(self.pid.to_string()).run()
    }

    fn restart(&self, image: &str, options: &[&str]) -> Bardo {
        let mut command = bardo(["restart", "--quiet"]);
        for option in options {
            command = command.arg(option);
        }
        command
            .arg(self.place.join(image))
            .stdio(&self.place.join("bardo.out"), &self.place.join("bardo.err"))
    }

    /// Makes way for a restart that found a pid taken: by a child of the tree that died with it, and that this process
    /// has adopted without knowing; or by another test's process, for a moment. bardo says so, and has started nothing.
    pub fn make_way(&self, output: &Output) -> bool {
        let numbers = output.stderr.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok());
        reap_orphans(numbers);
        output.status == CONFLICT
    }

    /// Restarts an image with `--detach`.
    #[track_caller]
    pub fn restart_detached(&mut self, image: &str, options: &[&str]) {
        let options: Vec<&str> = options.iter().copied().chain(["--detach"]).collect();
        let output = until_some("the restart's pids are free", || {
            let output = self.restart(image, &options).run();
            (!self.make_way(&output)).then_some(output)
        });
        output.ok();
        assert!(exists(self.pid), "bardo says that the tree runs, and it doesn't");
        self.tree.update();
    }

    /// Restarts an image in the foreground, and waits until its root is there.
    #[track_caller]
    pub fn restart_in_foreground(&mut self, image: &str, options: &[&str]) {
        let started = until_some("the restart's pids are free", || {
            let started = self.restart(image, options).start();
            let failed = until_some("the restarted root is there", || match started.ended() {
                Some(output) => Some(Some(output)),
                None => exists(self.pid).then_some(None),
            });
            match failed {
                None => Some(started),
                Some(output) => {
                    assert!(self.make_way(&output), "{output}");
                    None
                }
            }
        });
        self.foreground = Some(started);
        self.tree.update();
    }

    /// The bardo in whose foreground it runs.
    ///
    /// # Panics
    /// When there is none.
    pub fn foreground(&self) -> &Started {
        self.foreground.as_ref().expect("restarted in the foreground")
    }

    /// The same, to wait for its end.
    ///
    /// # Panics
    /// When there is none.
    pub fn take_foreground(&mut self) -> Started {
        self.foreground.take().expect("restarted in the foreground")
    }
}

/// What a workload's own files held at some moment.
#[derive(Debug)]
pub struct Kept {
    files: Vec<(PathBuf, Vec<u8>)>,
}

fn keep_below(directory: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.filter_map(Result::ok) {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => keep_below(&entry.path(), files),
            Ok(kind) if kind.is_file() => {
                files.push((entry.path(), std::fs::read(entry.path()).expect("a file of the workload's")));
            }
            _ => {}
        }
    }
}
