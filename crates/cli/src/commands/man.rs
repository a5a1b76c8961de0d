//! `bardo man`: the manual pages, made from the same description as `--help`.

use std::path::PathBuf;

use clap::{Args, CommandFactory};

use crate::arguments::{Arguments, EXIT_CODES};
use crate::ending::{Ending, Exit};
use crate::session::{Session, failed};

const EXAMPLES: &str = "\
Examples:
  bardo man | man -l -               read it
  bardo man ~/.local/share/man/man1  one page for bardo and one for each command";

/// Print the manual page, or write all of them into a directory.
#[derive(Debug, Args)]
#[command(after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct Man {
    /// The directory; it must exist
    #[arg(value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

impl Man {
    /// Does it.
    ///
    /// # Errors
    /// The pages can't be written.
    pub fn run(self, session: &Session) -> Result<Exit, Ending> {
        match self.directory {
            Some(directory) => {
                clap_mangen::generate_to(Arguments::command(), &directory)
                    .map_err(|e| failed("writing the manual pages", &format!("open({directory:?})"), &e))?;
            }
            None => {
                let mut page = Vec::new();
                clap_mangen::Man::new(Arguments::command())
                    .render(&mut page)
                    .map_err(|e| failed("making the manual page", "write()", &e))?;
                session.data(page)?;
            }
        }
        Ok(Exit::Done)
    }
}
