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
    let arguments: Vec<_> = std::env::args_os().collect();
    ending::run(arguments)
}
