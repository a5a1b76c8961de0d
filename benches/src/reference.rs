//! The references: the least that has to be done, measured by itself (`programs/reference.c`).

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::Result;

/// A program of `programs/`.
pub fn program(name: &str) -> PathBuf {
    Path::new(env!("BARDO_BENCH_PROGRAMS")).join(name)
}

fn run(arguments: &[&str], path: Option<&Path>, bytes: u64) -> Result<u64> {
    let mut command = Command::new(program("reference"));
    command.args(arguments).args(path).arg(bytes.to_string()).stdin(Stdio::null());
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().parse()?)
}

/// write(2) into a new file, and fsync(2).
pub fn write(file: &Path, bytes: u64) -> Result<u64> {
    run(&["write"], Some(file), bytes)
}

/// MADV_POPULATE_WRITE, and read(2) of a file's first bytes.
pub fn read(file: &Path, bytes: u64) -> Result<u64> {
    run(&["read"], Some(file), bytes)
}

/// memcpy(3) between memory that is there.
pub fn copy(bytes: u64) -> Result<u64> {
    run(&["copy"], None, bytes)
}

/// Touches memory, for the host to give it.
pub fn warm(bytes: u64) -> Result<u64> {
    run(&["warm"], None, bytes)
}

/// Starts a program that does nothing, and waits for it: what any command costs.
pub fn spawn() -> Result<u64> {
    let begun = Instant::now();
    if !Command::new("true").stdin(Stdio::null()).status()?.success() {
        return Err("true: failed".into());
    }
    Ok(begun.elapsed().as_nanos() as u64)
}
