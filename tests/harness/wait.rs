//! Waiting for an event: asked for again and again, in small steps.
//!
//! The limit is no part of any test's claim; it turns a hang into a failure that says what was waited for.

use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(100);
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
        assert!(start.elapsed() < LIMIT, "waited {LIMIT:?} in vain until {what}");
        std::thread::sleep(STEP);
    }
}

/// Waits until the question is answered with yes.
///
/// # Panics
/// When the limit passes first.
pub fn until(what: &str, mut ask: impl FnMut() -> bool) {
    until_some(what, || ask().then_some(()))
}
