//! What every command speaks through: data to standard output, talk to standard error, and both as JSON if asked.
//!
//! Rust ignores SIGPIPE, so a closed standard output is an error of `write` here, not a death; it ends as a failure
//! like any other.

use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;

use bardo_engine::{Error, Failure};
use bardo_kernel::{Errno, Failed};
use serde::Serialize;

use crate::arguments::Common;
use crate::ending::Ending;
use crate::wording::During;

/// The common options, at work.
#[derive(Debug, Clone)]
pub struct Session {
    /// What was asked for on the command line.
    pub common: Common,
}

/// Where a machine-readable result goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// Standard output, as a rule.
    Output,
    /// Standard error, where standard output carries an image or belongs to the restarted tree.
    Error,
}

impl Session {
    /// Begins to speak; opens the log where one is wanted.
    ///
    /// # Errors
    /// The log file can't be opened.
    pub fn begin(common: Common) -> Result<Session, Ending> {
        if let Some(path) = &common.log {
            let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
            let file = file.map_err(|e| failed("opening the log", &format!("open({path:?})"), &e))?;
            let subscriber = tracing_subscriber::fmt()
                .with_writer(Mutex::new(file))
                .with_ansi(false)
                .with_max_level(tracing::Level::TRACE)
                .finish();
            // Only a second subscriber could make this fail, and there is none.
            let _ = tracing::subscriber::set_global_default(subscriber);
        }
        Ok(Session { common })
    }

    /// Tells a person something; a machine reads the result instead.
    pub fn say(&self, text: &str) {
        tracing::info!("{text}");
        if !self.common.quiet && !self.common.json {
            talk(text);
        }
    }

    /// Prints data.
    ///
    /// # Errors
    /// Standard output is closed or full.
    pub fn data(&self, bytes: impl AsRef<[u8]>) -> Result<(), Ending> {
        let mut out = io::stdout().lock();
        out.write_all(bytes.as_ref())
            .and_then(|()| out.flush())
            .map_err(|e| failed("writing to standard output", "write(1)", &e))
    }

    /// Prints a machine-readable result, if one is wanted.
    ///
    /// # Errors
    /// As [`Session::data`].
    pub fn result(&self, result: &impl Serialize, channel: Channel) -> Result<(), Ending> {
        if !self.common.json {
            return Ok(());
        }
        let line = json_line(result);
        match channel {
            Channel::Output => self.data(line),
            Channel::Error => {
                talk_raw(&line);
                Ok(())
            }
        }
    }
}

/// One line of JSON, ended.
pub fn json_line(value: &impl Serialize) -> String {
    // Nothing here has a map whose keys aren't strings, the one thing that JSON can't say.
    let mut line =
        serde_json::to_string(value).unwrap_or_else(|e| format!("{{\"error\":{:?}}}", e.to_string()));
    line.push('\n');
    line
}

/// Writes to standard error, a line end added. Nobody can be told if that fails.
pub fn talk(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Writes to standard error as it is.
pub fn talk_raw(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Whether messages may be coloured: a terminal reads them, and NO_COLOR (no-color.org) is unset or empty.
pub fn colours() -> bool {
    io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
        && std::env::var_os("TERM").is_none_or(|v| v != "dumb")
}

/// A failure of the command line's own work, in the form of all failures.
pub fn failed(doing: &str, call: &str, error: &io::Error) -> Ending {
    failed_during(During::Reading, doing, call, error)
}

/// A failure of the command line's own work before or in an operation.
pub fn failed_during(during: During, doing: &str, call: &str, error: &io::Error) -> Ending {
    // An io::Error without an errno is one of the standard library's own making; EIO is the nearest word.
    let errno = Errno(error.raw_os_error().unwrap_or(rustix::io::Errno::IO.raw_os_error()));
    let failure = Failure {
        doing: doing.to_owned(),
        who: None,
        call: Some(Failed { call: call.to_owned(), errno }),
        left: String::new(),
        remedy: None,
    };
    let error = match error.kind() {
        io::ErrorKind::PermissionDenied => Error::Permission(failure),
        _ => Error::Failed(failure),
    };
    Ending::Engine { error, during, image: None }
}
