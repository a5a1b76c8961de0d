//! The machine-readable form of results and errors: what `--json` prints. Field names are stable; new ones may come.

use bardo_engine::checkpoint::Report;
use bardo_engine::restart::Restarted;
use bardo_engine::{Error, Failure, Refusal};
use serde::Serialize;

use crate::ending::Ending;
use crate::wording::{self, During};

/// `{"error": …}`.
#[derive(Debug, Serialize)]
pub struct ErrorReport {
    error: ErrorBody,
}

#[derive(Debug, Default, Serialize)]
struct ErrorBody {
    /// `refused`, `failed`, `permission`, `image`, `unfit`, `conflict`, `bug` or `usage`.
    kind: &'static str,
    exit_code: u8,
    /// One sentence for people.
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    call: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno_name: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    needs: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusals: Option<Vec<RefusalReport>>,
}

/// One refusal, in the words of [`Refusal`].
#[derive(Debug, Serialize)]
pub struct RefusalReport {
    pid: Option<i32>,
    name: Option<String>,
    fd: Option<i32>,
    what: String,
    code: &'static str,
    why: String,
    remedy: String,
}

impl From<&Refusal> for RefusalReport {
    fn from(r: &Refusal) -> Self {
        RefusalReport {
            pid: r.who.as_ref().map(|w| w.pid),
            name: r.who.as_ref().map(|w| w.name.clone()),
            fd: r.fd,
            what: r.what.clone(),
            code: r.code,
            why: r.why.clone(),
            remedy: r.remedy.clone(),
        }
    }
}

impl ErrorReport {
    /// A usage error.
    pub fn usage(message: &str) -> ErrorReport {
        let error = ErrorBody { kind: "usage", exit_code: 2, message: message.into(), ..Default::default() };
        ErrorReport { error }
    }

    /// Any bad end.
    pub fn of(ending: &Ending) -> ErrorReport {
        let (error, during, image) = match ending {
            Ending::Usage(text) => return ErrorReport::usage(text),
            Ending::Engine { error, during, image } => (error, *during, image),
        };
        let mut body = ErrorBody {
            kind: kind(error),
            exit_code: error.exit_code(),
            message: wording::headline(error, during, image.as_deref()),
            image: image.clone(),
            ..Default::default()
        };
        match error {
            Error::Refused(all) | Error::Unfit(all) | Error::Conflict(all) => {
                body.refusals = Some(all.iter().map(RefusalReport::from).collect());
            }
            Error::Failed(failure) => body.fill(failure, during),
            Error::Permission(failure) => {
                body.fill(failure, during);
                body.needs = Some(wording::missing(failure, during));
            }
            Error::Image(_) | Error::Bug(_) => {}
        }
        ErrorReport { error: body }
    }
}

impl ErrorBody {
    fn fill(&mut self, failure: &Failure, during: During) {
        self.pid = failure.who.as_ref().map(|w| w.pid);
        self.name = failure.who.as_ref().map(|w| w.name.clone());
        self.call = failure.call.as_ref().map(|c| c.call.clone());
        self.errno = failure.call.as_ref().map(|c| c.errno.0);
        self.errno_name = failure.call.as_ref().map(|c| c.errno.name());
        self.left = Some(wording::left(failure, during).to_owned());
        self.remedy = failure.remedy.clone();
    }
}

fn kind(error: &Error) -> &'static str {
    match error {
        Error::Refused(_) => "refused",
        Error::Failed(_) => "failed",
        Error::Permission(_) => "permission",
        Error::Image(_) => "image",
        Error::Unfit(_) => "unfit",
        Error::Conflict(_) => "conflict",
        Error::Bug(_) => "bug",
    }
}

/// What a checkpoint did.
#[derive(Debug, Serialize)]
pub struct CheckpointReport<'a> {
    pid: i32,
    image: Option<&'a str>,
    identity: &'a str,
    after: &'static str,
    processes: u64,
    threads: u64,
    areas: u64,
    descriptors: u64,
    page_bytes: u64,
    zero_bytes: u64,
    image_bytes: u64,
    pause_us: u64,
    total_us: u64,
    externals: &'a [String],
    cleaned: &'a [String],
}

impl<'a> CheckpointReport<'a> {
    /// Of the tree under `pid`; `image` is the file's name, none where it went to standard output.
    pub fn of(pid: i32, image: Option<&'a str>, after: &'static str, r: &'a Report) -> Self {
        CheckpointReport {
            pid,
            image,
            identity: &r.identity,
            after,
            processes: r.processes,
            threads: r.threads,
            areas: r.areas,
            descriptors: r.descriptors,
            page_bytes: r.page_bytes,
            zero_bytes: r.zero_bytes,
            image_bytes: r.image_bytes,
            pause_us: r.pause_us,
            total_us: r.total_us,
            externals: &r.externals,
            cleaned: &r.cleaned,
        }
    }
}

/// What a restart did.
#[derive(Debug, Serialize)]
pub struct RestartReport<'a> {
    pid: i32,
    wait_for: i32,
    processes: u64,
    threads: u64,
    page_bytes: u64,
    lessened: &'a [String],
    total_us: u64,
}

impl<'a> From<&'a Restarted> for RestartReport<'a> {
    fn from(r: &'a Restarted) -> Self {
        RestartReport {
            pid: r.root,
            wait_for: r.wait_for,
            processes: r.processes,
            threads: r.threads,
            page_bytes: r.page_bytes,
            lessened: &r.lessened,
            total_us: r.total_us,
        }
    }
}

/// The answer of a rehearsal, or of `doctor PID`.
#[derive(Debug, Serialize)]
pub struct RehearsalReport {
    pid: i32,
    possible: bool,
    refusals: Vec<RefusalReport>,
}

impl RehearsalReport {
    /// Of the tree under `pid`.
    pub fn of(pid: i32, refusals: &[Refusal]) -> Self {
        let refusals: Vec<_> = refusals.iter().map(RefusalReport::from).collect();
        RehearsalReport { pid, possible: refusals.is_empty(), refusals }
    }
}

#[cfg(test)]
mod tests {
    use bardo_engine::Who;
    use bardo_kernel::{Errno, Failed};

    use super::*;
    use crate::session::json_line;

    #[test]
    fn a_permission_as_json() {
        let error = Error::Permission(Failure {
            doing: "stopping the tree".into(),
            who: Some(Who { pid: 1, name: "init".into() }),
            call: Some(Failed { call: "ptrace(PTRACE_SEIZE, 1)".into(), errno: Errno(1) }),
            left: String::new(),
            remedy: None,
        });
        let ending = Ending::Engine { error, during: During::Checkpoint, image: None };
        let expected = concat!(
            r#"{"error":{"kind":"permission","exit_code":4,"message":"stopping the tree","pid":1,"name":"init","#,
            r#""call":"ptrace(PTRACE_SEIZE, 1)","errno":1,"errno_name":"EPERM","#,
            r#""needs":"to be the same user as the process, or CAP_SYS_PTRACE (and kernel.yama.ptrace_scope below 2)","#,
            r#""left":"the tree runs on, untouched; nothing was written"}}"#,
            "\n"
        );
        assert_eq!(json_line(&ErrorReport::of(&ending)), expected);
    }

    #[test]
    fn a_refusal_as_json() {
        let refusal = Refusal {
            who: None,
            fd: Some(3),
            what: "eventpoll".into(),
            code: "epoll",
            why: "w".into(),
            remedy: "r".into(),
        };
        let ending =
            Ending::Engine { error: Error::Refused(vec![refusal]), during: During::Checkpoint, image: None };
        let expected = concat!(
            r#"{"error":{"kind":"refused","exit_code":3,"message":"1 resource of this tree can't be checkpointed. "#,
            r#"It runs on, untouched; nothing was written.","refusals":[{"pid":null,"name":null,"fd":3,"#,
            r#""what":"eventpoll","code":"epoll","why":"w","remedy":"r"}]}}"#,
            "\n"
        );
        assert_eq!(json_line(&ErrorReport::of(&ending)), expected);
    }
}
