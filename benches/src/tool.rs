//! Running bardo and CRIU, as a user does: a command line, timed from before it is started until it has ended.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};

use crate::Result;

/// A program that checkpoints and restarts.
#[derive(Debug, Clone)]
pub enum Tool {
    /// Ours.
    Bardo(PathBuf),
    /// Theirs.
    Criu(PathBuf),
}

/// What a run of a tool cost.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// When it was started, in nanoseconds of CLOCK_MONOTONIC.
    pub begun_ns: u64,
    /// From its start to its end.
    pub took_ns: u64,
    /// What it says of the pause, where it says something.
    pub pause_ns: Option<u64>,
}

/// The tools there are, bardo first; and why those that aren't, aren't.
pub fn all() -> Result<(Vec<Tool>, Vec<String>)> {
    let mut tools = vec![Tool::Bardo(bardo()?)];
    let mut absent = Vec::new();
    let criu = std::env::var_os("CRIU").map(PathBuf::from).unwrap_or_else(|| "criu".into());
    match Command::new(&criu).arg("check").stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => tools.push(Tool::Criu(criu)),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let error = said.lines().find(|line| line.contains("Error") && !line.contains("exited, status"));
            let version = version(&criu);
            absent.push(format!(
                "{version} is there but can't work on this kernel; `criu check` says: {}",
                error.unwrap_or("nothing")
            ));
        }
        Err(_) => absent.push("No CRIU on the PATH or in $CRIU.".into()),
    }
    Ok((tools, absent))
}

fn version(criu: &Path) -> String {
    let output = Command::new(criu).arg("--version").output();
    let said = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    said.lines().next().map_or("CRIU".into(), |line| line.replace("Version:", "CRIU"))
}

/// `$BARDO`, or the workspace's own, built as this program was.
fn bardo() -> Result<PathBuf> {
    if let Some(program) = std::env::var_os("BARDO") {
        return Ok(program.into());
    }
    let own = std::env::current_exe()?;
    let profile = own.parent().ok_or("this program has no directory")?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", "bardo", "--bin", "bardo", "--manifest-path"]);
    cargo.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"));
    cargo.arg("--target-dir").arg(profile.parent().ok_or("not in target/")?);
    if profile.ends_with("release") {
        cargo.arg("--release");
    } else {
        eprintln!("bardo-bench: this is not a release build; the figures mean nothing");
    }
    if !cargo.status()?.success() {
        return Err("bardo couldn't be built".into());
    }
    Ok(profile.join("bardo"))
}

/// CLOCK_MONOTONIC, which is everybody's on this host.
pub fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

impl Tool {
    /// Its name in the tables.
    pub fn name(&self) -> &'static str {
        match self {
            Tool::Bardo(_) => "bardo",
            Tool::Criu(_) => "criu",
        }
    }

    /// Writes an image; the tree runs on, or ends.
    pub fn checkpoint(&self, pid: i32, image: &Path, kill: bool) -> Result<Run> {
        let mut command = match self {
            Tool::Bardo(program) => {
                let mut command = Command::new(program);
                command.args(["checkpoint", "--json", "-o"]).arg(image);
                command.args(kill.then_some("--kill")).arg(pid.to_string());
                command
            }
            Tool::Criu(program) => {
                std::fs::create_dir(image)?;
                let mut command = Command::new(program);
                command.args(["dump", "-t"]).arg(pid.to_string()).arg("-D").arg(image);
                command.args((!kill).then_some("--leave-running"));
                command
            }
        };
        run(&mut command)
    }

    /// Brings the tree back; it runs on without the tool.
    pub fn restart(&self, image: &Path) -> Result<Run> {
        let mut command = match self {
            Tool::Bardo(program) => {
                let mut command = Command::new(program);
                command.args(["restart", "--json", "--detach"]).arg(image);
                command
            }
            Tool::Criu(program) => {
                let mut command = Command::new(program);
                command.args(["restore", "-d", "-D"]).arg(image);
                command
            }
        };
        run(&mut command)
    }

    /// How large an image is.
    pub fn size(&self, image: &Path) -> Result<u64> {
        if !image.is_dir() {
            return Ok(std::fs::metadata(image)?.len());
        }
        let files = std::fs::read_dir(image)?;
        let sizes = files.map(|file| Ok(file?.metadata()?.len())).collect::<std::io::Result<Vec<u64>>>();
        Ok(sizes?.into_iter().sum())
    }
}

fn run(command: &mut Command) -> Result<Run> {
    let outputs = [tempfile()?, tempfile()?];
    command.stdin(Stdio::null()).env_remove("BARDO_GATE");
    // Files, not pipes: a restarted tree may keep them, and must not be waited for.
    command.stdout(outputs[0].try_clone()?).stderr(outputs[1].try_clone()?);
    let begun = Instant::now();
    let begun_ns = now_ns();
    let status = command.status().map_err(|e| format!("{command:?}: {e}"))?;
    let took_ns = begun.elapsed().as_nanos() as u64;
    let [stdout, stderr] = outputs.map(read_again);
    if !status.success() {
        return Err(format!("{command:?}: {status}\n{}", stderr?).into());
    }
    let report: Option<serde_json::Value> = serde_json::from_str(&stdout?).ok();
    let pause_us = report.and_then(|r| r.get("pause_us")?.as_u64());
    Ok(Run { begun_ns, took_ns, pause_ns: pause_us.map(|us| us.saturating_mul(1000)) })
}

/// A file without a name.
fn tempfile() -> Result<std::fs::File> {
    use rustix::fs::{Mode, OFlags, open};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(open(std::env::temp_dir(), flags, Mode::RUSR | Mode::WUSR)?.into())
}

fn read_again(mut file: std::fs::File) -> Result<String> {
    use std::io::{Read, Seek};
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    Ok(text)
}
