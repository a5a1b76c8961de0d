//! `bardo restart`: a tree from its image, in the foreground or left to itself.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bardo_engine::restart::{Clocks, Files, PidSpace, Request, Source, restart};
use clap::{Args, ValueEnum};
use tempfile::NamedTempFile;

use crate::arguments::EXIT_CODES;
use crate::commands::open_image;
use crate::ending::{Ending, Exit, ended};
use crate::follow::Follow;
use crate::foreground::Foreground;
use crate::interrupt::Interrupt;
use crate::report::RestartReport;
use crate::session::{Channel, Session, failed_during};
use crate::wording::{During, count, inline, micros};

const EXAMPLES: &str = "\
Examples:
  bardo restart job.img                     wait for the tree, and exit as its root does
  bardo restart --detach --pidfile p job.img
  ssh host 'cat job.img' | bardo restart -
  bardo restart --external stdout=out.txt job.img
  bardo restart --stopped job.img           to look at it with a debugger first

In the foreground bardo stands in for the tree's root: it passes signals on, and when the root ends
it exits with the same status, or dies of the same signal. With --detach it prints the root's pid
and returns once the tree runs; the tree keeps the standard output and error it is given.

An image that comes by standard input leaves none for the tree: it gets /dev/null there, or what
--external stdin=… says.

Files must be as they were at the checkpoint; --files ignore-changes goes on with what they are now.

Privileges:
  The old pids, beside other programs, need CAP_CHECKPOINT_RESTORE (or CAP_SYS_ADMIN). Without it
  the tree comes back in a pid namespace of its own, where it has them. A restart gives a tree no
  right that you don't have.

  Clocks that must not go back need a time namespace: with the old pids beside other programs, that
  takes CAP_SYS_ADMIN and CAP_SYS_TIME; in a pid namespace of the tree's own, nothing.";

/// Until the tree runs, an exit code is bardo's own; from then on it is the tree's.
const CODES: &str = "\
From the moment the tree runs, the exit code in the foreground is that of its root.";

/// Bring a tree back from its image.
///
/// Everything comes back, or nothing: what stands in the way (a pid that is taken, a file that changed) is reported before any
/// process is made.
#[derive(Debug, Args)]
#[command(after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}\n\n{CODES}"))]
pub struct Restart {
    /// The image; - is standard input
    #[arg(value_name = "FILE")]
    pub image: PathBuf,
    /// Print the root's pid and return once the tree runs
    #[arg(long)]
    pub detach: bool,
    /// Write the root's pid into this file
    #[arg(long, value_name = "FILE")]
    pub pidfile: Option<PathBuf>,
    /// Leave every process stopped; SIGCONT lets it go
    #[arg(long)]
    pub stopped: bool,
    /// What takes the place of something outside, such as stdout=FILE or pipe:[4711]=fd:5; may be repeated
    #[arg(long, value_name = "NAME=TARGET", value_parser = connection)]
    pub external: Vec<String>,
    /// What to do about files that changed since the checkpoint
    #[arg(long, value_name = "WHAT", default_value = "must-match")]
    pub files: FilesChoice,
    /// Where the old pids are sought
    #[arg(long, value_name = "WHERE", default_value = "auto")]
    pub pid_space: PidSpaceChoice,
    /// By which clocks the tree goes on, of those that count since a boot (CLOCK_MONOTONIC, CLOCK_BOOTTIME)
    #[arg(long, value_name = "WHICH", default_value = "auto")]
    pub clocks: ClocksChoice,
}

/// What to do about changed files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FilesChoice {
    /// Report them and start nothing
    MustMatch,
    /// Go on with the files as they are now
    IgnoreChanges,
}

/// Where the old pids are sought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PidSpaceChoice {
    /// Among the caller's processes if the kernel lets us, else in a new namespace
    Auto,
    /// Among the caller's processes
    Callers,
    /// In a pid namespace of the tree's own
    New,
}

/// By which clocks the tree goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ClocksChoice {
    /// The host's; in a time namespace where those are behind, as after a reboot, or where the tree had one
    Auto,
    /// Its own, from where they were, in a time namespace
    Continue,
    /// The host's, even where they are behind what the programs have seen
    Host,
}

fn connection(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((name, target)) if !name.is_empty() && !target.is_empty() => Ok(text.to_owned()),
        _ => Err("expected NAME=TARGET, such as stdout=out.txt".into()),
    }
}

impl Restart {
    /// Does it.
    ///
    /// # Errors
    /// However a restart ends badly; nothing runs then.
    pub fn run(self, session: &Session) -> Result<Exit, Ending> {
        let (source, name) = match self.image.to_str() {
            Some("-") => {
                let (fd, name) = open_image(&self.image, During::Restart)?;
                give_up_stdin()?;
                (Source::Stream(fd), name)
            }
            _ => (Source::File(self.image.clone()), self.image.display().to_string()),
        };
        let pidfile = self.pidfile.as_deref().map(PidFile::prepare).transpose()?;
        let interrupt = Interrupt::catch()?;
        let catching = |e| failed_during(During::Restart, "catching signals", "sigaction()", &e);
        let foreground = if self.detach { None } else { Some(Foreground::begin().map_err(catching)?) };
        let follow = Follow::restart(session, interrupt.flag());
        let request = Request {
            source,
            stopped: self.stopped,
            external: self.external,
            files: match self.files {
                FilesChoice::MustMatch => Files::MustMatch,
                FilesChoice::IgnoreChanges => Files::IgnoreChanges,
            },
            pid_space: match self.pid_space {
                PidSpaceChoice::Auto => PidSpace::Auto,
                PidSpaceChoice::Callers => PidSpace::Callers,
                PidSpaceChoice::New => PidSpace::New,
            },
            clocks: match self.clocks {
                ClocksChoice::Auto => Clocks::Auto,
                ClocksChoice::Continue => Clocks::Continue,
                ClocksChoice::Host => Clocks::Host,
            },
            detach: self.detach,
        };
        let result = restart(request, &follow);
        drop(follow);
        let tree = result.map_err(ended(During::Restart, Some(name)))?;

        let written = pidfile.map_or(Ok(()), |file| file.write(tree.root));
        let n = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        session.say(&format!(
            "restarted pid {}: {}, {}, in {}",
            tree.root,
            count(n(tree.processes), "process", "processes"),
            count(n(tree.threads), "thread", "threads"),
            micros(tree.total_us),
        ));
        for less in &tree.lessened {
            session.say(&format!("  not as it was: {}", inline(less)));
        }
        let channel = if self.detach { Channel::Output } else { Channel::Error };
        session.result(&RestartReport::from(&tree), channel)?;
        let Some(foreground) = foreground else {
            if !session.common.json {
                session.data(format!("{}\n", tree.root))?;
            }
            return written.map(|()| Exit::Done);
        };
        // The tree runs and is ours to wait for; a pid file that couldn't be written is told, and changes nothing.
        if let Err(ending) = written {
            ending.tell(session.common.json);
        }
        foreground.accompany(&tree, interrupt).map_err(|e| {
            let left = format!("the tree runs as pid {}", tree.root);
            failed_during(During::Restart, "waiting for the tree", "waitid()", &e).leaving(left)
        })
    }
}

/// Standard input carries the image, so it is none for the tree, which would get what is left of it; `--external stdin=…`
/// gives it another.
fn give_up_stdin() -> Result<(), Ending> {
    let null = File::open("/dev/null");
    let put = null.and_then(|null| rustix::stdio::dup2_stdin(null).map_err(io::Error::from));
    put.map_err(|e| {
        failed_during(During::Restart, "taking the image off standard input", "dup2(/dev/null, 0)", &e)
    })
}

/// A pid file: complete under its name, or not there. Its place is tried before the tree runs, so that a wrong path is told
/// while nothing has happened.
struct PidFile {
    file: NamedTempFile,
    path: PathBuf,
}

impl PidFile {
    fn prepare(path: &Path) -> Result<PidFile, Ending> {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let mut builder = tempfile::Builder::new();
        builder.prefix(".bardo-").suffix(".pid").permissions(Permissions::from_mode(0o644));
        let file = builder.tempfile_in(directory).map_err(|e| {
            failed_during(During::Restart, "preparing the pid file", &format!("open({directory:?})"), &e)
        })?;
        Ok(PidFile { file, path: path.to_owned() })
    }

    fn write(mut self, pid: i32) -> Result<(), Ending> {
        let path = self.path;
        let result = writeln!(self.file, "{pid}")
            .and_then(|()| self.file.as_file().sync_all())
            .and_then(|()| self.file.persist(&path).map(drop).map_err(|e| e.error));
        result.map_err(|e| {
            failed_during(During::Restart, "writing the pid file", &format!("rename({path:?})"), &e)
                .leaving(format!("the tree runs as pid {pid}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::Arguments;
    use crate::commands::Command;

    fn parse(line: &str) -> Result<Restart, clap::Error> {
        let arguments =
            Arguments::try_parse_from(["bardo", "restart"].into_iter().chain(line.split_whitespace()))?;
        match arguments.command {
            Command::Restart(restart) => Ok(restart),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options() {
        let r = parse("job.img").expect("an image is enough");
        assert_eq!(
            (r.files, r.pid_space, r.clocks, r.detach, r.stopped),
            (FilesChoice::MustMatch, PidSpaceChoice::Auto, ClocksChoice::Auto, false, false)
        );
        let r = parse("--files ignore-changes --pid-space new --clocks continue --external stdout=a=b -");
        let r = r.expect("all options");
        assert_eq!((r.files, r.pid_space), (FilesChoice::IgnoreChanges, PidSpaceChoice::New));
        assert_eq!(r.clocks, ClocksChoice::Continue);
        assert_eq!(r.external, ["stdout=a=b"]);
        for wrong in [
            "",
            "--external stdout x",
            "--external =a x",
            "--external a= x",
            "--files maybe x",
            "--pid-space x x",
            "--clocks x x",
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?} was accepted");
        }
    }

    #[test]
    fn a_pid_file_is_whole_or_absent() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("pid");
        let prepared = PidFile::prepare(&path).expect("a place");
        assert!(!path.exists());
        drop(prepared);
        assert_eq!(std::fs::read_dir(directory.path()).expect("list").count(), 0);
        PidFile::prepare(&path).expect("a place").write(4127).expect("written");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "4127\n");
        assert_eq!(std::fs::read_dir(directory.path()).expect("list").count(), 1);
        assert!(PidFile::prepare(&directory.path().join("no/such/pid")).is_err());
    }
}
