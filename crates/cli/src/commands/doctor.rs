//! `bardo doctor`: what can be done here, found by trying.

use bardo_engine::doctor::{Finding, findings};
use clap::Args;
use serde::Serialize;

use crate::arguments::EXIT_CODES;
use crate::commands::checkpoint;
use crate::ending::{Ending, Exit};
use crate::report::RehearsalReport;
use crate::session::{Channel, Session};
use crate::wording::inline;

const EXAMPLES: &str = "\
Examples:
  bardo doctor               what this kernel and your privileges allow
  bardo doctor 4127          and whether this tree can be checkpointed now
  bardo doctor --json

Each interface is tried, not guessed from a version. With a pid, the tree is stopped for a moment,
looked at, and runs on; the exit code is 3 if it can't be checkpointed, with every reason.

Privileges:
  None; what yours don't allow is what you read here. A line that says no names the capability, or
  the way around it.";

/// Say what this kernel, your privileges and, given a pid, a tree allow.
#[derive(Debug, Args)]
#[command(after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct Doctor {
    /// The root of a tree to look at
    #[arg(value_parser = clap::value_parser!(i32).range(1..))]
    pub pid: Option<i32>,
}

#[derive(Serialize)]
struct DoctorReport<'a> {
    findings: Vec<FindingReport<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tree: Option<RehearsalReport>,
}

#[derive(Serialize)]
struct FindingReport<'a> {
    what: &'a str,
    interface: &'a str,
    works: bool,
    note: &'a str,
}

impl Doctor {
    /// Does it.
    ///
    /// # Errors
    /// The tree can't be looked at, or can't be checkpointed.
    pub fn run(self, session: &Session) -> Result<Exit, Ending> {
        let all = findings();
        if !session.common.json {
            session.data(table(&all))?;
        }
        let looked = self.pid.map(|pid| checkpoint::look(pid, &[], session).map(|r| (pid, r))).transpose()?;
        let report = DoctorReport {
            findings: all
                .iter()
                .map(|f| FindingReport {
                    what: &f.what,
                    interface: &f.interface,
                    works: f.works,
                    note: &f.note,
                })
                .collect(),
            tree: looked.as_ref().map(|(pid, refusals)| RehearsalReport::of(*pid, refusals)),
        };
        session.result(&report, Channel::Output)?;
        match looked {
            Some((pid, refusals)) => checkpoint::judge(pid, refusals, session),
            None => Ok(Exit::Done),
        }
    }
}

/// The findings as aligned lines; what follows from a no stands under it.
fn table(all: &[Finding]) -> String {
    let width = all.iter().map(|f| f.what.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for f in all {
        let works = if f.works { "yes" } else { "no" };
        text.push_str(&format!("{works:3}  {:width$}  {}\n", inline(&f.what), inline(&f.interface)));
        if !f.note.is_empty() {
            text.push_str(&format!("     {}\n", inline(&f.note)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table() {
        let finding = |what: &str, works, note: &str| Finding {
            what: what.into(),
            interface: "clone3 set_tid".into(),
            works,
            note: note.into(),
        };
        assert_eq!(
            table(&[finding("choose a pid", false, "CAP_CHECKPOINT_RESTORE"), finding("trace", true, "")]),
            "\
no   choose a pid  clone3 set_tid
     CAP_CHECKPOINT_RESTORE
yes  trace         clone3 set_tid
"
        );
    }
}
