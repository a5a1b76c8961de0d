//! Leaders that have ended while other threads live on.
//!
//! The kernel keeps such a leader as a zombie that nobody can wait for, since its pid is the process's. It has no memory and
//! no files any more, and `/proc` shows nothing of what it shared; so it does all that is done for the whole process first,
//! and ends last, while the others wait.

use bardo_kernel::Sysno;
use bardo_kernel::stub::{Arg, Batch};

use super::Tree;
use crate::error::{Doing, Result};
use crate::plan::Member;
use crate::resource::task::thread::Born;

impl Tree<'_> {
    /// Gives a leader that is to end its name, and the credentials of the first thread that lives on, by which the kernel
    /// says who may send the process a signal.
    pub(super) fn prepare_end_of_leader(&self, member: &Member, born: &Born) -> Result<()> {
        if member.leader_ended.is_none() {
            return Ok(());
        }
        let mut batch = Batch::new();
        let name = batch.text(&self.plan.processes[member.index].name);
        batch.call(Sysno::prctl, [Arg::Value(libc::PR_SET_NAME as u64), name]);
        self.plan.threads[member.threads[0].record].credentials.put(born.credentials(), &mut batch);
        self.run_leader(member, &mut batch, "preparing the end of a first thread")
    }

    /// Ends it.
    pub(super) fn end_leader(&self, member: &Member) -> Result<()> {
        let Some(status) = member.leader_ended else { return Ok(()) };
        let mut batch = Batch::new();
        batch.call(Sysno::exit, [Arg::Value(libc::WEXITSTATUS(status) as u64)]);
        self.shelf.post(member.slot, &batch).doing("ending a first thread", Some(&self.who(member)))?;
        self.wait_for_zombie(member)
    }
}
