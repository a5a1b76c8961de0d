//! Recorded and made-up texts for each parser, the kernel's own for living processes, and arbitrary ones for all.
//!
//! `fixtures/6.18-*` were recorded; `fixtures/6.1-*` have the shape of the oldest kernel we support.

mod live;
mod recorded;
mod wild;

use std::io::{Read, Write};
use std::process::{Command, Stdio};

/// A child that has long begun to run its program, and waits. It ends with its guard.
///
/// `spawn` returns as soon as the child has left our address space: its own isn't complete yet. So it is asked for an
/// echo first.
pub(crate) struct Child(pub(crate) std::process::Child);

impl Child {
    /// Runs `cat`, prepared by the function.
    pub(crate) fn start_with(prepare: impl FnOnce(&mut Command)) -> Child {
        let mut command = Command::new("cat");
        prepare(&mut command);
        let mut child =
            Child(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("cat can be run"));
        child.echo();
        child
    }

    /// Runs `cat`.
    pub(crate) fn start() -> Child {
        Child::start_with(|_| {})
    }

    /// Sends a byte there and waits until it is back.
    fn echo(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        let mut byte = [0];
        self.0.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }

    pub(crate) fn pid(&self) -> i32 {
        self.0.id() as i32
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
