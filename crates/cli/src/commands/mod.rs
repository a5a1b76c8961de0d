//! The commands, one file each: what it accepts, what it teaches, what it does.

pub mod checkpoint;
pub mod completions;
pub mod demo;
pub mod demo_worker;
pub mod doctor;
pub mod man;
pub mod restart;
pub mod show;
pub mod verify;

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use clap::Subcommand;

use crate::ending::{Ending, Exit};
use crate::session::{Session, failed_during};
use crate::wording::During;

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write an image of a running tree
    Checkpoint(checkpoint::Checkpoint),
    /// Bring a tree back from its image
    Restart(restart::Restart),
    /// Print what is in an image
    Show(show::Show),
    /// Check an image from its first byte to its seal
    Verify(verify::Verify),
    /// Say what this kernel, your privileges and, given a pid, a tree allow
    Doctor(doctor::Doctor),
    /// Checkpoint, kill and restart a small tree of bardo's own, and check that it went on
    Demo(demo::Demo),
    /// Print a completion script for a shell
    Completions(completions::Completions),
    /// Print the manual page, or write all of them into a directory
    Man(man::Man),
    /// The living tree of the demo.
    #[command(hide = true)]
    DemoWorker(demo_worker::DemoWorker),
}

impl Command {
    /// Runs it.
    ///
    /// # Errors
    /// However the command ends badly.
    pub fn run(self, session: &Session) -> Result<Exit, Ending> {
        match self {
            Command::Checkpoint(command) => command.run(session),
            Command::Restart(command) => command.run(session),
            Command::Show(command) => command.run(session),
            Command::Verify(command) => command.run(session),
            Command::Doctor(command) => command.run(session),
            Command::Demo(command) => command.run(session),
            Command::Completions(command) => command.run(session),
            Command::Man(command) => command.run(session),
            Command::DemoWorker(command) => command.run(),
        }
    }

    /// What is going on while it runs: an error's words depend on it.
    pub fn during(&self) -> During {
        match self {
            Command::Checkpoint(_) => During::Checkpoint,
            Command::Restart(_) => During::Restart,
            _ => During::Reading,
        }
    }
}

/// The image on a command line: a file, or `-` for standard input. The second value is its name in messages.
fn open_image(path: &Path, during: During) -> Result<(OwnedFd, String), Ending> {
    if path == Path::new("-") {
        let stdin = io::stdin();
        if stdin.is_terminal() {
            return Err(Ending::Usage("standard input is a terminal; an image is expected there".into()));
        }
        let fd = stdin.as_fd().try_clone_to_owned();
        let fd = fd.map_err(|e| failed_during(during, "reading standard input", "dup(0)", &e))?;
        return Ok((fd, "standard input".into()));
    }
    let name = path.display().to_string();
    let file = File::open(path)
        .map_err(|e| failed_during(during, "opening the image", &format!("open({path:?})"), &e))?;
    Ok((file.into(), name))
}
