//! `bardo completions`: a completion script, made from the same description as `--help`.

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use crate::arguments::{Arguments, EXIT_CODES};
use crate::ending::{Ending, Exit};
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  bardo completions bash > ~/.local/share/bash-completion/completions/bardo
  bardo completions zsh > ~/.zfunc/_bardo
  bardo completions fish > ~/.config/fish/completions/bardo.fish";

/// Print a completion script for a shell.
#[derive(Debug, Args)]
#[command(after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct Completions {
    /// The shell
    pub shell: Shell,
}

impl Completions {
    /// Does it.
    ///
    /// # Errors
    /// Standard output is closed or full.
    pub fn run(self, session: &Session) -> Result<Exit, Ending> {
        let mut script = Vec::new();
        generate(self.shell, &mut Arguments::command(), "bardo", &mut script);
        session.data(script)?;
        Ok(Exit::Done)
    }
}
