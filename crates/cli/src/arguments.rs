//! The command line: the options that every command knows, and the list of commands. Each command's own options stand in
//! its file under `commands`.

use std::path::PathBuf;

use clap::{Args, Parser};

use crate::commands::Command;

/// Checkpoint a running tree of Linux processes, and restart it later.
///
/// bardo writes everything that makes up a running process tree (memory, threads, open files, signals, timers, ids) into
/// one image, while it runs. From the image the tree can be restarted: after a crash, after a reboot, as often as you like.
/// The programs need no preparation. A tree that can't be saved completely is refused, with every reason at once, and
/// runs on untouched.
#[derive(Debug, Parser)]
#[command(
    name = "bardo",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}\n\n{OUTPUT}"),
)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Options of all commands.
    #[command(flatten)]
    pub common: Common,
}

/// Options of all commands.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Everywhere")]
pub struct Common {
    /// Print a machine-readable result, and a machine-readable error
    ///
    /// One JSON object on one line. Results go to standard output; they go to standard error where standard output is
    /// taken: by the image (checkpoint -o -) or by the restarted tree (restart in the foreground). Errors, and what --verbose and
    /// --steps print, always go to standard error, one object a line.
    #[arg(long, global = true)]
    pub json: bool,
    /// Say nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say what is being done
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// Print every step that runs inside a process of the tree
    #[arg(long, global = true)]
    pub steps: bool,
    /// Append everything that is done, with times, to this file
    #[arg(long, global = true, value_name = "FILE")]
    pub log: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  bardo demo                            see it work, on a tree of its own
  bardo checkpoint 4127                 into bardo-4127.img; the tree runs on
  bardo checkpoint --kill -o job.img 4127
  bardo restart job.img                 wait for it, and exit as it does
  bardo show job.img                    what is inside
  bardo doctor                          what this kernel and your privileges allow

Privileges:
  Whoever may trace a process (ptrace(2)) may checkpoint it: your own processes need no privilege.
  A restart with the old pids needs CAP_CHECKPOINT_RESTORE; without it the tree comes back in a pid
  namespace of its own, where it sees the pids it had.";

/// What the exit codes mean: DESIGN has them in one place, and so has every long help.
pub const EXIT_CODES: &str = "\
Exit codes:
   0  done
   1  failed; nothing was harmed
   2  the command line was wrong
   3  refused: the tree can't be saved completely
   4  a permission or a capability is missing
   5  the image can't be used
   6  this host can't run the image
   7  conflict: a pid or an output file is taken
  70  a mistake in bardo";

const OUTPUT: &str = "\
Data goes to standard output, everything else to standard error. Progress bars appear only on a
terminal. NO_COLOR is honoured.";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn clap_finds_no_contradiction() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn common_options_stand_before_and_after_the_command() {
        for line in [["bardo", "--json", "doctor"], ["bardo", "doctor", "--json"]] {
            assert!(Arguments::try_parse_from(line).expect("a correct line").common.json);
        }
        assert!(Arguments::try_parse_from(["bardo", "doctor", "-q", "-v"]).is_err());
    }

    /// Every command teaches: what it is for, an example, its exit codes.
    #[test]
    fn every_long_help_has_examples_and_exit_codes() {
        let mut all = Arguments::command();
        all.build();
        for command in all.get_subcommands_mut().filter(|c| !c.is_hide_set()) {
            let name = command.get_name().to_owned();
            let help = command.render_long_help().to_string();
            assert!(help.contains("Example"), "{name}: no example in\n{help}");
            assert!(help.contains("Exit code"), "{name}: no exit codes in\n{help}");
            assert!(help.contains(&format!("bardo {name}")), "{name}: no example of itself in\n{help}");
        }
    }
}
