//! `bardo checkpoint`: a running tree into an image.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use bardo_engine::checkpoint::{After, Report, Request, Sink, checkpoint, rehearse};
use bardo_engine::{Error, Refusal};
use clap::Args;

use crate::arguments::EXIT_CODES;
use crate::ending::{Ending, Exit, ended};
use crate::follow::Follow;
use crate::interrupt::Interrupt;
use crate::report::{CheckpointReport, RehearsalReport};
use crate::session::{Channel, Session, failed_during};
use crate::wording::{During, bytes, count, inline, micros};

const EXAMPLES: &str = "\
Examples:
  bardo checkpoint 4127                     into bardo-4127.img; the tree runs on
  bardo checkpoint --kill -o job.img 4127   end the tree once its image is safe on disk
  bardo checkpoint -o - 4127 | ssh host 'cat > job.img'
  bardo checkpoint --dry-run 4127           say what stands in the way; write nothing

The tree is the process and all its descendants. If anything in it can't be saved, nothing is
written, and every reason is printed at once. Ctrl-C lets the tree go and leaves no file. The image
appears under its name only when it is complete.

What belongs to the outside, such as a pipe whose other end another program holds, must be vouched
for: --external, in the name that the refusal gives. Standard input, output and error need not be.

Privileges:
  None for your own processes; CAP_SYS_PTRACE for those of others, for set-user-ID programs, and
  where kernel.yama.ptrace_scope forbids tracing.";

/// Write an image of a running tree.
///
/// The tree stands still only while its state is taken. It then runs on, unless --kill or --stop says otherwise.
#[derive(Debug, Args)]
#[command(after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct Checkpoint {
    /// The root of the tree
    #[arg(value_parser = clap::value_parser!(i32).range(1..))]
    pub pid: i32,
    /// The image to write; - is standard output [default: bardo-PID.img]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// End the tree, once its image is complete and on disk
    #[arg(long, conflicts_with = "stop")]
    pub kill: bool,
    /// Leave the tree stopped, once its image is complete and on disk
    #[arg(long)]
    pub stop: bool,
    /// Something outside of the tree that you vouch for, such as pipe:[4711]; may be repeated
    #[arg(long, value_name = "NAME")]
    pub external: Vec<String>,
    /// Compress memory with zstd
    #[arg(
        long,
        value_name = "LEVEL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "3",
        value_parser = clap::value_parser!(i32).range(1..=19)
    )]
    pub compress: Option<i32>,
    /// Replace an image that is there
    #[arg(long)]
    pub force: bool,
    /// Only say what stands in the way
    #[arg(long, conflicts_with_all = ["output", "kill", "stop", "compress", "force"])]
    pub dry_run: bool,
}

impl Checkpoint {
    /// Does it.
    ///
    /// # Errors
    /// However a checkpoint ends badly; the tree runs on.
    pub fn run(self, session: &Session) -> Result<Exit, Ending> {
        if self.dry_run {
            let refusals = look(self.pid, &self.external, session)?;
            if refusals.is_empty() {
                session.result(&RehearsalReport::of(self.pid, &refusals), Channel::Output)?;
            }
            return judge(self.pid, refusals, session);
        }
        let path = self.output.clone().unwrap_or_else(|| PathBuf::from(format!("bardo-{}.img", self.pid)));
        let (sink, name) = sink(&path, self.force)?;
        let (after, word) = match (self.kill, self.stop) {
            (true, _) => (After::Kill, "kill"),
            (_, true) => (After::Stop, "stop"),
            _ => (After::Run, "run"),
        };
        let interrupt = Interrupt::catch()?;
        let follow = Follow::checkpoint(session, interrupt.flag());
        let request =
            Request { pid: self.pid, sink, after, external: self.external, compress: self.compress };
        let result = checkpoint(request, &follow);
        // What the thread still has to say comes before the result.
        drop(follow);
        let report = result.map_err(ended(During::Checkpoint, name.clone()))?;
        session.say(&told(self.pid, after, name.as_deref(), &report));
        let channel = if name.is_some() { Channel::Output } else { Channel::Error };
        session.result(&CheckpointReport::of(self.pid, name.as_deref(), word, &report), channel)?;
        Ok(Exit::Done)
    }
}

/// Where the image goes, and its name if it is a file.
fn sink(path: &Path, force: bool) -> Result<(Sink, Option<String>), Ending> {
    if path != Path::new("-") {
        return Ok((Sink::File { path: path.to_owned(), force }, Some(path.display().to_string())));
    }
    let stdout = io::stdout();
    if stdout.is_terminal() {
        return Err(Ending::Usage(
            "standard output is a terminal; an image is binary: -o FILE, or a pipe".into(),
        ));
    }
    let fd = stdout.as_fd().try_clone_to_owned();
    let fd = fd.map_err(|e| failed_during(During::Checkpoint, "writing to standard output", "dup(1)", &e))?;
    Ok((Sink::Stream(fd), None))
}

/// Everything that stands in the way of a checkpoint of this tree.
///
/// # Errors
/// The tree can't be looked at.
pub fn look(pid: i32, external: &[String], session: &Session) -> Result<Vec<Refusal>, Ending> {
    let interrupt = Interrupt::catch()?;
    let follow = Follow::checkpoint(session, interrupt.flag());
    rehearse(pid, external, &follow).map_err(ended(During::Checkpoint, None))
}

/// What stands in the way is the command's end, as it would be a checkpoint's.
///
/// # Errors
/// The refusals, if there are any.
pub fn judge(pid: i32, refusals: Vec<Refusal>, session: &Session) -> Result<Exit, Ending> {
    if !refusals.is_empty() {
        return Err(ended(During::Checkpoint, None)(Error::Refused(refusals)));
    }
    if !session.common.json {
        session.data(format!("pid {pid} can be checkpointed\n"))?;
    }
    Ok(Exit::Done)
}

/// A checkpoint's report for people.
fn told(pid: i32, after: After, image: Option<&str>, report: &Report) -> String {
    let n = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let mut text = format!(
        "checkpointed pid {pid}: {}, {}, {}, {}\n",
        count(n(report.processes), "process", "processes"),
        count(n(report.threads), "thread", "threads"),
        count(n(report.areas), "memory area", "memory areas"),
        count(n(report.descriptors), "descriptor", "descriptors"),
    );
    let mut row = |word: &str, value: String| text.push_str(&format!("  {word:8} {value}\n"));
    row(
        "image",
        format!("{}, {}", image.map_or("standard output".into(), inline), bytes(report.image_bytes)),
    );
    row(
        "memory",
        format!("{}, and {} of zeros that take no room", bytes(report.page_bytes), bytes(report.zero_bytes)),
    );
    row("pause", micros(report.pause_us));
    row("total", micros(report.total_us));
    row(
        "tree",
        match after {
            After::Run => "runs on".into(),
            After::Kill => "ended".into(),
            After::Stop => "stopped; it goes on at SIGCONT".into(),
        },
    );
    for external in &report.externals {
        row("outside", inline(external));
    }
    for cleaned in &report.cleaned {
        row("cleaned", inline(cleaned));
    }
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::Arguments;
    use crate::commands::Command;

    fn parse(line: &str) -> Result<Checkpoint, clap::Error> {
        let arguments =
            Arguments::try_parse_from(["bardo", "checkpoint"].into_iter().chain(line.split_whitespace()))?;
        match arguments.command {
            Command::Checkpoint(checkpoint) => Ok(checkpoint),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options() {
        let c = parse("4127").expect("a pid is enough");
        assert!(!c.kill && !c.stop && !c.force && !c.dry_run && c.output.is_none() && c.compress.is_none());
        assert_eq!(parse("--compress 4127").expect("default level").compress, Some(3));
        assert_eq!(parse("--compress=19 4127").expect("a level").compress, Some(19));
        assert_eq!(
            parse("--external a --external pipe:[1] 4127").expect("externals").external,
            ["a", "pipe:[1]"]
        );
        assert_eq!(parse("-o - 4127").expect("a stream").output, Some("-".into()));
        for wrong in [
            "",
            "0",
            "-1",
            "x",
            "99999999999",
            "--kill --stop 1",
            "--compress=20 1",
            "--compress=0 1",
            "1 2",
            "--dry-run -o x 1",
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?} was accepted");
        }
    }

    #[test]
    fn a_report_for_people() {
        let report = Report {
            processes: 2,
            threads: 4,
            areas: 60,
            descriptors: 1,
            page_bytes: 34 << 20,
            zero_bytes: 4096,
            image_bytes: 35 << 20,
            pause_us: 3210,
            total_us: 41_000,
            externals: vec!["stdout: /dev/pts/3".into()],
            ..Report::default()
        };
        assert_eq!(
            told(4127, After::Kill, Some("job.img"), &report),
            "\
checkpointed pid 4127: 2 processes, 4 threads, 60 memory areas, 1 descriptor
  image    job.img, 35.0 MiB
  memory   34.0 MiB, and 4.0 KiB of zeros that take no room
  pause    3.21 ms
  total    41.00 ms
  tree     ended
  outside  stdout: /dev/pts/3"
        );
    }
}
