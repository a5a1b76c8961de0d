//! Making children that come to a parent that didn't make them ([`crate::family::adoption`] says which, and why so).

use bardo_kernel::Sysno;
use bardo_kernel::procfs::{children, status};
use bardo_kernel::shelf::CloneArgs;
use bardo_kernel::stub::{Arg, Batch};

use super::Tree;
use crate::error::{Doing, Result};
use crate::plan::Member;

const ZERO: Arg = Arg::Value(0);

impl Tree<'_> {
    /// Has a process made that isn't its parent's work, and those that share its fate, unless that was done for another.
    pub(super) fn adopt(&mut self, member: &Member) -> Result<()> {
        let Some((adoption, slot)) = member.adopted.and_then(|number| self.plan.adoptions.get(number)) else {
            return Ok(());
        };
        if self.pids[member.index] != 0 {
            return Ok(());
        }
        let maker = &self.plan.members[adoption.maker];
        let parent = &self.plan.members[adoption.parent];
        let who = self.who(maker);
        self.adopt_orphans(parent, true)?;

        // Where its pid is none that the session knows, the kernel chooses one: it may be that of somebody to come, and is
        // free again by then.
        let set_tid = if adoption.revives { vec![adoption.session] } else { Vec::new() };
        let mut batch = Batch::new();
        let clone = CloneArgs { flags: 0, exit_signal: 0, set_tid };
        let born = batch.clone3(&clone, self.shelf.open(*slot));
        let at = (maker.slot, self.pids[maker.index]);
        let births: &[_] = if adoption.revives { &[(born, adoption.session)] } else { &[] };
        self.bear(at, &mut batch, births, "making a stand-in for a dead parent", &who)?;
        let own_pid = batch.result(born).doing("making a stand-in for a dead parent", Some(&who))? as i32;
        let pid = self.seen_child(maker, own_pid)?;

        let mut batch = Batch::new();
        if adoption.revives {
            batch.call(Sysno::setsid, []);
        }
        self.run(*slot, pid, &mut batch, "making the session of a dead leader", &who)?;
        let children: Vec<&Member> =
            adoption.children.iter().map(|child| &self.plan.members[*child]).collect();
        for some in children.chunks(100) {
            let (mut batch, mut births) = (Batch::new(), Vec::with_capacity(some.len()));
            for child in some {
                let clone = CloneArgs { flags: 0, exit_signal: child.exit_signal, set_tid: vec![child.pid] };
                births.push((batch.clone3(&clone, self.shelf.open(child.slot)), child.pid));
            }
            self.bear((*slot, pid), &mut batch, &births, "making the children of a dead parent", &who)?;
        }

        let mut batch = Batch::new();
        batch.call(Sysno::exit_group, [ZERO]);
        self.shelf.post(*slot, &batch).doing("ending a stand-in", Some(&who))?;
        let mut batch = Batch::new();
        // A child without an exit signal is only seen with __WALL. Its children have another parent before it is seen to
        // have ended.
        let all = Arg::Value(libc::__WALL as u64);
        batch.call_for(Sysno::wait4, [Arg::Value(own_pid as u64), ZERO, all, ZERO], own_pid as u64);
        self.run_leader(maker, &mut batch, "ending a stand-in")?;
        self.adopt_orphans(parent, false)?;
        self.find_children(adoption.parent, &children)
    }

    fn adopt_orphans(&self, parent: &Member, whether: bool) -> Result<()> {
        let mut batch = Batch::new();
        let whether = Arg::Value(u64::from(whether));
        batch.call(Sysno::prctl, [Arg::Value(libc::PR_SET_CHILD_SUBREAPER as u64), whether]);
        self.run_leader(parent, &mut batch, "adopting orphans")
    }

    /// A child's pid as we see it.
    fn seen_child(&self, parent: &Member, own_pid: i32) -> Result<i32> {
        if self.pids[0] == self.plan.members[0].pid {
            return Ok(own_pid);
        }
        let who = self.who(parent);
        for seen in children::read(self.pids[parent.index]).doing("listing children", Some(&who))? {
            let status = status::read(seen).doing("reading a child's status", Some(&who))?;
            if status.ns_pid.last() == Some(&own_pid) {
                return Ok(seen);
            }
        }
        Err(crate::error::Error::Bug(format!("the stand-in {own_pid} isn't there")))
    }
}
