//! Waiting for an event: asked for again and again, in small steps.
//!
//! The limit is no part of any test's claim; it turns a hang into a failure that says what was waited for.

use std::time::{Duration, Instant};

use crate::descendants;

const LIMIT: Duration = Duration::from_secs(300);
const STEP: Duration = Duration::from_millis(1);

/// Waits until the question is answered with a value.
///
/// # Panics
/// When the limit passes first.
pub fn until_some<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        if start.elapsed() >= LIMIT {
            show_processes();
            panic!("waited {LIMIT:?} in vain until {what}");
        }
        std::thread::sleep(STEP);
    }
}

/// What every thread below this process is doing, for whoever looks into a hang.
fn show_processes() {
    for pid in descendants(std::process::id() as i32) {
        for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let read = |name| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
            let [stat, wchan, syscall] = ["stat", "wchan", "syscall"].map(read);
            eprintln!("{pid}: {} | {wchan} | {}", stat.trim(), syscall.trim());
        }
    }
}

/// Waits until the question is answered with yes.
///
/// # Panics
/// When the limit passes first.
pub fn until(what: &str, mut ask: impl FnMut() -> bool) {
    until_some(what, || ask().then_some(()))
}
