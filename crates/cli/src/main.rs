//! `bardo`: checkpoint and restart of running Linux process trees. Everything that decides anything is in
//! [`bardo_engine`]; here are the words: what is asked for (`arguments`, one file per command in `commands`), how it is
//! followed (`follow`), and how its end is told (`wording`, `ending`).

#![forbid(unsafe_code)]

mod arguments;
mod commands;
mod ending;
mod follow;
mod foreground;
mod interrupt;
mod report;
mod session;
mod wording;

use std::process::ExitCode;

fn main() -> ExitCode {
    // It would be a crash in the middle of a write; so it is a failure that is told. That this fails is no reason to stop.
    let _ = bardo_kernel::rlimit::file_size_is_an_error();
    let arguments: Vec<_> = std::env::args_os().collect();
    ending::run(arguments)
}
