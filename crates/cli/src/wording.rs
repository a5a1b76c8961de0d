//! Every sentence that tells a person how a command ended badly. The engine gives the facts as data (a [`Refusal`], a
//! [`Failure`]); this one file turns them into the layout of all messages:
//!
//! ```text
//! refused: 1 resource of this tree can't be checkpointed. It runs on, untouched; nothing was written.
//!
//!   pid 4127 (nginx)  fd 9  tcp 10.0.0.5:443 to 10.0.0.9:51244, established   [tcp/established]
//!     why  its peer would wait for it for as long as it is stopped
//!     do   --tcp keep   to save it, or   --tcp close   to restart it closed
//! ```
//!
//! The first word is the kind of end, and each kind has its exit code. Names of processes, files and images come from
//! strangers, so control characters are printed as `\x1b`, never sent to a terminal.

use std::fmt::Write as _;

use bardo_engine::{Error, Failure, Refusal, Who};

/// Which operation ended, since what was left behind depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum During {
    /// A checkpoint, or a rehearsal of one: the tree ran before and runs on.
    Checkpoint,
    /// A restart: nothing ran before and nothing runs now.
    Restart,
    /// Anything that only reads.
    Reading,
}

impl During {
    /// The state everything is in after a bad end, where the engine doesn't say it more exactly.
    fn left(self) -> &'static str {
        match self {
            During::Checkpoint => "the tree runs on, untouched; nothing was written",
            During::Restart => "nothing was started",
            During::Reading => "nothing was changed",
        }
    }

    /// The same as a sentence after a headline.
    fn left_sentence(self) -> &'static str {
        match self {
            During::Checkpoint => "It runs on, untouched; nothing was written.",
            During::Restart => "Nothing was started.",
            During::Reading => "Nothing was changed.",
        }
    }
}

/// The kind of a bad end: the first word of a message, and `kind` in JSON.
pub fn kind(error: &Error) -> &'static str {
    match error {
        Error::Refused(_) => "refused",
        Error::Failed(_) => "failed",
        Error::Permission(_) => "no permission",
        Error::Image(_) => "image unusable",
        Error::Unfit(_) => "unfit",
        Error::Conflict(_) => "conflict",
        Error::Bug(_) => "bug",
    }
}

/// The first line without its first word: what happened, in one sentence.
pub fn headline(error: &Error, during: During, image: Option<&str>) -> String {
    match error {
        Error::Refused(all) => match during {
            During::Restart => {
                let things = count(all.len(), "resource of this image", "resources of this image");
                format!("{things} can't be restarted. {}", during.left_sentence())
            }
            _ => {
                let things = count(all.len(), "resource of this tree", "resources of this tree");
                format!("{things} can't be checkpointed. {}", During::Checkpoint.left_sentence())
            }
        },
        Error::Unfit(all) => {
            let reasons = count(all.len(), "reason", "reasons");
            match during {
                During::Checkpoint => format!(
                    "this host can't checkpoint this tree, for {reasons}. {}",
                    During::Checkpoint.left_sentence()
                ),
                _ => format!("this host can't run this image, for {reasons}. {}", during.left_sentence()),
            }
        }
        Error::Conflict(all) => {
            let taken = if all.len() == 1 { "is taken" } else { "are taken" };
            let things = count(all.len(), "thing", "things");
            match during {
                During::Checkpoint => {
                    format!(
                        "{things} that this checkpoint needs {taken}. The tree runs on, untouched; nothing was written."
                    )
                }
                _ => format!("{things} that this image needs {taken}. {}", during.left_sentence()),
            }
        }
        Error::Failed(failure) | Error::Permission(failure) => inline(&failure.doing),
        Error::Image(why) => match image {
            Some(image) => format!("{}: {}", inline(image), inline(&why.to_string())),
            None => inline(&why.to_string()),
        },
        Error::Bug(text) => inline(text),
    }
}

/// The whole message of an engine's error, several lines with the last one ended.
pub fn message(error: &Error, during: During, image: Option<&str>) -> String {
    let mut text = format!("{}: {}\n", kind(error), headline(error, during, image));
    match error {
        Error::Refused(all) | Error::Unfit(all) | Error::Conflict(all) => refusals(&mut text, all),
        Error::Failed(failure) => {
            let remedy = failure.remedy.as_deref();
            details(&mut text, failure, &[("left", Some(left(failure, during))), ("do", remedy)]);
        }
        Error::Permission(failure) => {
            let needs = missing(failure, during);
            let rows = [
                ("needs", Some(needs)),
                ("left", Some(left(failure, during))),
                ("do", failure.remedy.as_deref()),
            ];
            details(&mut text, failure, &rows);
        }
        Error::Image(_) => rows(&mut text, &[("left", Some(during.left()))]),
        Error::Bug(_) => {
            let left = match during {
                During::Checkpoint => "the tree runs on, untouched",
                other => other.left(),
            };
            rows(&mut text, &[("left", Some(left)), ("do", Some(REPORT))]);
        }
    }
    text
}

/// What we ask of someone who met a bug.
const REPORT: &str = "this is a mistake in bardo, not yours. Please report it, with this text and what these print:\n\
                      bardo --version;  uname -srm;  bardo doctor";

/// A usage error found after clap accepted the arguments.
pub fn usage(text: &str) -> String {
    format!("usage: {text}\n\n    do  bardo --help\n")
}

/// The state that a failure left, as the engine says it or as the operation promises it.
pub fn left(failure: &Failure, during: During) -> &str {
    if failure.left.is_empty() { during.left() } else { &failure.left }
}

/// The capability or right whose absence made this call fail, guessed from the call (capabilities(7)); the engine's own
/// remedy says it more exactly where it knows.
pub fn missing(failure: &Failure, during: During) -> &'static str {
    let call = failure.call.as_ref().map_or("", |failed| failed.call.as_str());
    let name = call.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next().unwrap_or("");
    const LOOK: &str =
        "to be the same user as the process, or CAP_SYS_PTRACE (and kernel.yama.ptrace_scope below 2)";
    match name {
        "ptrace" | "process_vm_readv" | "process_vm_writev" | "pidfd_getfd" | "kcmp" | "process_madvise"
        | "get_robust_list" => LOOK,
        "clone3" | "clone" => {
            "CAP_CHECKPOINT_RESTORE to choose pids here, or an own pid namespace: --pid-space new"
        }
        "unshare" | "setns" | "mount" | "pivot_root" | "umount2" => {
            "CAP_SYS_ADMIN, or user namespaces that are allowed"
        }
        "kill" | "tgkill" | "tkill" | "pidfd_send_signal" | "rt_sigqueueinfo" => {
            "to be the same user as the process, or CAP_KILL"
        }
        "setuid" | "setresuid" | "setreuid" => "CAP_SETUID",
        "setgid" | "setresgid" | "setregid" | "setgroups" => "CAP_SETGID",
        "capset" => "the capabilities that the tree had, or --pid-space new",
        "prlimit64" | "setrlimit" | "prlimit" => "CAP_SYS_RESOURCE",
        "setpriority" | "sched_setattr" | "sched_setscheduler" | "sched_setaffinity" | "ioprio_set" => {
            "CAP_SYS_NICE"
        }
        "userfaultfd" => "CAP_SYS_PTRACE, or vm.unprivileged_userfaultfd = 1",
        "chroot" => "CAP_SYS_CHROOT",
        "bpf" | "seccomp" => "CAP_SYS_ADMIN",
        _ if call.contains("/proc/") => LOOK,
        _ => match during {
            During::Checkpoint => {
                "the file's permissions, or to be the same user as the tree (or CAP_SYS_PTRACE)"
            }
            During::Restart => "the rights that the tree had, or CAP_CHECKPOINT_RESTORE",
            During::Reading => "the file's permissions",
        },
    }
}

/// All refusals, each with its reason and remedy; the columns before `what` are aligned.
fn refusals(text: &mut String, all: &[Refusal]) {
    let who_of = |r: &Refusal| r.who.as_ref().map_or(String::new(), who);
    let fd_of = |r: &Refusal| r.fd.map_or(String::new(), |fd| format!("fd {fd}"));
    let who_width = all.iter().map(|r| who_of(r).chars().count()).max().unwrap_or(0);
    let fd_width = all.iter().map(|r| fd_of(r).len()).max().unwrap_or(0);
    for refusal in all {
        text.push_str("\n  ");
        // What belongs to no process begins at the margin.
        let placed = refusal.who.is_some() || refusal.fd.is_some();
        for (column, width) in [(who_of(refusal), who_width), (fd_of(refusal), fd_width)] {
            if width > 0 && placed {
                let _ = write!(text, "{column:width$}  ");
            }
        }
        let _ = writeln!(text, "{}   [{}]", inline(&refusal.what), refusal.code);
        table(text, &[("why", Some(&refusal.why)), ("do", Some(&refusal.remedy))]);
    }
}

/// A failure's subject, call and further rows.
fn details(text: &mut String, failure: &Failure, more: &[(&str, Option<&str>)]) {
    let call = failure.call.as_ref().map(ToString::to_string);
    text.push('\n');
    if let Some(subject) = &failure.who {
        let _ = writeln!(text, "  {}", who(subject));
    }
    let mut all = vec![("call", call.as_deref())];
    all.extend_from_slice(more);
    table(text, &all);
}

fn rows(text: &mut String, all: &[(&str, Option<&str>)]) {
    text.push('\n');
    table(text, all);
}

/// Rows of a short word and a text; a row without text is left out, a text's further lines stand under its first.
fn table(text: &mut String, all: &[(&str, Option<&str>)]) {
    let present =
        || all.iter().filter_map(|(word, value)| value.filter(|v| !v.is_empty()).map(|v| (*word, v)));
    let width = present().map(|(word, _)| word.len()).max().unwrap_or(0);
    for (word, value) in present() {
        for (i, line) in value.lines().enumerate() {
            let word = if i == 0 { word } else { "" };
            let _ = writeln!(text, "    {word:width$}  {}", inline(line));
        }
    }
}

/// A process as every message names it.
pub fn who(who: &Who) -> String {
    format!("pid {} ({})", who.pid, inline(&who.name))
}

/// Text of unknown origin on one line, with nothing in it that a terminal would obey.
pub fn inline(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => clean.push_str("\\n"),
            '\t' => clean.push_str("\\t"),
            // C0, DEL and C1 controls; and the marks that reorder text (Unicode TR 36).
            c if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                let _ = write!(clean, "{}", c.escape_unicode());
            }
            c => clean.push(c),
        }
    }
    clean
}

/// `1 process`, `2 processes`.
pub fn count(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// Bytes as a person reads them: `17 B`, `34.2 MiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Microseconds as a person reads them: `850 µs`, `3.21 ms`, `1.50 s`.
pub fn micros(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{:.2} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests;
