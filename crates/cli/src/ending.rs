//! From the first argument to the exit code: parse, run, and tell the end, a panic's included.
//!
//! A panic unwinds, so every guard of the engine drops on the way and a frozen tree thaws; what remains is to say that we
//! were wrong, in the words of any other end, and to exit with 70.

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use bardo_engine::Error;
use clap::Parser;

use crate::arguments::Arguments;
use crate::report::ErrorReport;
use crate::session::{Session, colours, json_line, talk_raw};
use crate::wording::{self, During};

/// How a command ends well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0.
    Done,
    /// With a code of somebody else's choosing: a restarted tree's own.
    Code(u8),
    /// As the restarted tree died: of this signal.
    Signal(i32),
}

/// How a command ends badly.
#[derive(Debug)]
pub enum Ending {
    /// An error of the engine, or one of ours in its form.
    Engine {
        /// What it is.
        error: Error,
        /// What was going on.
        during: During,
        /// Which image it is about.
        image: Option<String>,
    },
    /// The command line asks for something that makes no sense.
    Usage(String),
}

/// Turns an engine's error into an ending.
pub fn ended(during: During, image: Option<String>) -> impl FnOnce(Error) -> Ending {
    move |error| Ending::Engine { error, during, image }
}

impl Ending {
    /// The exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Ending::Engine { error, .. } => error.exit_code(),
            Ending::Usage(_) => 2,
        }
    }

    /// The same, with the state that everything was left in.
    pub fn leaving(mut self, left: String) -> Ending {
        if let Ending::Engine { error: Error::Failed(failure) | Error::Permission(failure), .. } = &mut self {
            failure.left = left;
        }
        self
    }

    /// Tells it on standard error.
    pub fn tell(&self, json: bool) {
        if json {
            talk_raw(&json_line(&ErrorReport::of(self)));
            return;
        }
        let text = match self {
            Ending::Engine { error, during, image } => wording::message(error, *during, image.as_deref()),
            Ending::Usage(text) => wording::usage(text),
        };
        talk_raw(&coloured(&text));
    }
}

/// The first word in bold red, on a terminal that wants colours.
fn coloured(text: &str) -> String {
    match text.split_once(':') {
        Some((word, rest)) if colours() => format!("\u{1b}[1;31m{word}:\u{1b}[0m{rest}"),
        _ => text.to_owned(),
    }
}

/// Runs the command that these arguments ask for.
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    let words = arguments.iter().skip(1).take_while(|a| *a != "--");
    let json = words.into_iter().any(|a| a == "--json");
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        // --help and --version come this way too.
        Err(e) if !e.use_stderr() => {
            let _ = e.print();
            return ExitCode::SUCCESS;
        }
        Err(e) => {
            match json {
                true => talk_raw(&json_line(&ErrorReport::usage(e.render().to_string().trim_end()))),
                false => drop(e.print()),
            }
            return ExitCode::from(2);
        }
    };

    let during = arguments.command.during();
    let result = catching_panics(during, || {
        let session = Session::begin(arguments.common)?;
        arguments.command.run(&session)
    });
    match result {
        Ok(Exit::Done) => ExitCode::SUCCESS,
        Ok(Exit::Code(code)) => ExitCode::from(code),
        Ok(Exit::Signal(signal)) => crate::foreground::die_of(signal),
        Err(ending) => {
            ending.tell(json);
            ExitCode::from(ending.exit_code())
        }
    }
}

/// Does it; a panic becomes a bug's ending. Its words are kept for the end instead of printed on the spot, where a progress
/// bar may stand.
fn catching_panics(during: During, run: impl FnOnce() -> Result<Exit, Ending>) -> Result<Exit, Ending> {
    let words = Arc::new(Mutex::new(None));
    let slot = Arc::clone(&words);
    std::panic::set_hook(Box::new(move |info| {
        let place = info.location().map_or(String::new(), |l| format!("{}:{}: ", l.file(), l.line()));
        let payload = info.payload();
        let what = payload.downcast_ref::<&str>().copied();
        let what =
            what.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("panicked");
        tracing::error!("panic at {place}{what}");
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        slot.get_or_insert_with(|| format!("{place}{what}"));
    }));
    let result = catch_unwind(AssertUnwindSafe(run));
    drop(std::panic::take_hook());
    result.unwrap_or_else(|_| {
        let text = words.lock().unwrap_or_else(PoisonError::into_inner).take();
        let error = Error::Bug(text.unwrap_or_else(|| "a panic without words".into()));
        Err(Ending::Engine { error, during, image: None })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_bug() {
        let number = "seven";
        let ending = catching_panics(During::Checkpoint, || panic!("no {number}")).expect_err("a bad end");
        assert_eq!(ending.exit_code(), 70);
        let Ending::Engine { error: Error::Bug(text), .. } = ending else { panic!("{ending:?}") };
        assert!(text.contains("ending.rs:") && text.ends_with("no seven"), "{text}");
        assert!(catching_panics(During::Checkpoint, || Ok(Exit::Code(3))).is_ok());
    }

    #[test]
    fn what_is_left_can_be_said_more_exactly() {
        let error = std::io::Error::from_raw_os_error(28);
        let ending =
            crate::session::failed_during(During::Restart, "writing the pid file", "write()", &error);
        assert_eq!(ending.exit_code(), 1);
        let text = match ending.leaving("the tree runs as pid 7".into()) {
            Ending::Engine { error, during, image } => wording::message(&error, during, image.as_deref()),
            other => panic!("{other:?}"),
        };
        assert!(text.contains("ENOSPC") && text.contains("left  the tree runs as pid 7\n"), "{text}");
    }
}
