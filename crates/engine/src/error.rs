//! Refusals and failures as data. The wording of what a person reads is in the CLI; here are the facts.

use std::fmt;

use bardo_kernel::Failed;

/// A process as a message names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Who {
    /// The pid as bardo's caller sees it.
    pub pid: i32,
    /// Its name (`/proc/PID/comm`).
    pub name: String,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {} ({})", self.pid, self.name)
    }
}

/// One thing that stands in the way: who has it, what it is, why that matters, what to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    /// The process that has it; none where it is a property of the host or of the image.
    pub who: Option<Who>,
    /// The descriptor's number, where it is one.
    pub fd: Option<i32>,
    /// What it is: `tcp 10.0.0.5:443 to 10.0.0.9:51244, established`.
    pub what: String,
    /// The kind's code, stable: `tcp/established`.
    pub code: &'static str,
    /// Why it can't be done.
    pub why: String,
    /// What the user can do about it.
    pub remedy: String,
}

/// Something the world said no to.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What was being done: `reading the memory map`.
    pub doing: String,
    /// To whom.
    pub who: Option<Who>,
    /// The kernel call that failed.
    pub call: Option<Failed>,
    /// In which state everything was left: `the tree runs on, nothing was written`.
    pub left: String,
    /// What to do next, where we know.
    pub remedy: Option<String>,
}

/// How a checkpoint or a restart ends when it doesn't succeed. The numbers are the exit codes.
#[derive(Debug)]
pub enum Error {
    /// 3: the tree can't be saved, or not all of it; nothing was written.
    Refused(Vec<Refusal>),
    /// 1: the world said no; nothing was harmed.
    Failed(Failure),
    /// 4: the caller lacks a permission or a capability.
    Permission(Failure),
    /// 5: the image can't be used.
    Image(bardo_image::Error),
    /// 6: this host can't run it.
    Unfit(Vec<Refusal>),
    /// 7: a pid or an output file is taken.
    Conflict(Vec<Refusal>),
    /// 70: we are wrong.
    Bug(String),
}

impl Error {
    /// The exit code of DESIGN, section 5.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Failed(_) => 1,
            Error::Refused(_) => 3,
            Error::Permission(_) => 4,
            Error::Image(_) => 5,
            Error::Unfit(_) => 6,
            Error::Conflict(_) => 7,
            Error::Bug(_) => 70,
        }
    }
}

/// The result of an engine operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Adds to a kernel call's failure what was being done, and to whom.
pub trait Doing<T> {
    /// `reading the memory map`, of `who`.
    ///
    /// # Errors
    /// [`Error::Permission`] for EPERM and EACCES, [`Error::Failed`] for the rest.
    fn doing(self, doing: impl Into<String>, who: Option<&Who>) -> Result<T>;
}

impl<T> Doing<T> for bardo_kernel::Result<T> {
    fn doing(self, doing: impl Into<String>, who: Option<&Who>) -> Result<T> {
        self.map_err(|failed| {
            let denied = failed.is(libc::EPERM) || failed.is(libc::EACCES);
            let failure = Failure {
                doing: doing.into(),
                who: who.cloned(),
                call: Some(failed),
                left: String::new(),
                remedy: None,
            };
            if denied { Error::Permission(failure) } else { Error::Failed(failure) }
        })
    }
}

/// One line that names an error, for an image that has to say why it ends.
pub fn headline(error: &Error) -> String {
    match error {
        Error::Failed(failure) | Error::Permission(failure) => match &failure.call {
            Some(call) => format!("{}: {call}", failure.doing),
            None => failure.doing.clone(),
        },
        Error::Refused(refusals) | Error::Unfit(refusals) | Error::Conflict(refusals) => {
            refusals.first().map_or_else(String::new, |refusal| refusal.what.clone())
        }
        Error::Image(error) => error.to_string(),
        Error::Bug(text) => text.clone(),
    }
}
