//! Births under a pid that was free when it was looked for ([`crate::plan::Plan::taken_pids`]), and is taken when it is needed.

use bardo_kernel::stub::{Batch, StepId};

use super::Tree;
use crate::error::{Error, Refusal, Result, Who};
use crate::plan::{taken, taken_as_number};

impl Tree<'_> {
    /// Has the thread of a slot make processes or threads: a batch of births, each with the pid that it is for.
    pub(super) fn bear(
        &self,
        (slot, pid): (usize, i32),
        batch: &mut Batch,
        births: &[(StepId, i32)],
        doing: &str,
        who: &Who,
    ) -> Result<()> {
        let made = self.run(slot, pid, batch, doing, who);
        made.map_err(|error| match births.iter().rfind(|(birth, _)| batch.was_reached(*birth)) {
            Some((_, pid)) => self.taken_since(error, *pid),
            None => error,
        })
    }

    /// The error of a birth under this pid, by what it means.
    pub(super) fn taken_since(&self, error: Error, pid: i32) -> Error {
        match &error {
            // In a namespace of the tree's own, nobody else takes pids.
            Error::Failed(failure)
                if !self.space.is_new()
                    && failure.call.as_ref().is_some_and(|call| call.is(libc::EEXIST)) =>
            {
                Error::Conflict(vec![taken(pid).or_else(|| taken_as_number(pid)).unwrap_or_else(|| {
                    Refusal {
                        who: None,
                        fd: None,
                        what: format!("pid {pid} was taken for a moment, by a process that is gone again"),
                        code: "task/pid-taken",
                        why: "processes know their own pids and each other's: they must be the same again"
                            .into(),
                        remedy: "try again".into(),
                    }
                })])
            }
            _ => error,
        }
    }
}
