//! Process groups, put together once every process exists (setpgid(2)).

use bardo_kernel::Sysno;
use bardo_kernel::shelf::CloneArgs;
use bardo_kernel::stub::{Arg, Batch};

use super::Tree;
use crate::error::{Doing, Result};
use crate::family::Group;
use crate::plan::Member;

impl Tree<'_> {
    /// Process groups: those who lead make theirs, then the others join; for a dead leader a stand-in lives meanwhile.
    pub(super) fn group(&mut self) -> Result<()> {
        let zero = Arg::Value(0);
        for member in &self.plan.members {
            let birth = &self.plan.births[member.index];
            if birth.group == Group::Lead || birth.leads_others {
                let mut batch = Batch::new();
                batch.call(Sysno::setpgid, [zero, zero]);
                self.run_leader(member, &mut batch, "making a process group")?;
            }
        }
        for stand_in in &self.plan.stand_ins {
            let parent = &self.plan.members[stand_in.parent];
            let mut batch = Batch::new();
            let clone = CloneArgs { flags: 0, exit_signal: 0, set_tid: vec![stand_in.group] };
            let born = (batch.clone3(&clone, self.shelf.open(stand_in.slot)), stand_in.group);
            let at = (parent.slot, self.pids[parent.index]);
            let doing = "making a stand-in for a dead group leader";
            self.bear(at, &mut batch, &[born], doing, &self.who(parent))?;
            let mut batch = Batch::new();
            batch.call(Sysno::setpgid, [zero, zero]);
            let alive = || Ok(());
            self.shelf.run(stand_in.slot, &mut batch, alive).doing("making a process group", None)?;
        }
        // Those who lead a group that they aren't in themselves go last: it must not be empty before.
        let mut members: Vec<&Member> = self.plan.members.iter().collect();
        members.sort_by_key(|member| self.plan.births[member.index].leads_others);
        for member in members {
            let birth = &self.plan.births[member.index];
            let joins = matches!(birth.group, Group::Join(_) | Group::Revive(_)) || birth.leads_others;
            if joins {
                let group = self.plan.processes[member.index].group;
                let mut batch = Batch::new();
                batch.call(Sysno::setpgid, [zero, Arg::Value(group as u64)]);
                self.run_leader(member, &mut batch, "joining a process group")?;
            }
        }
        for stand_in in &self.plan.stand_ins {
            let mut batch = Batch::new();
            batch.call(Sysno::exit_group, [zero]);
            self.shelf.post(stand_in.slot, &batch).doing("ending a stand-in", None)?;
            let parent = &self.plan.members[stand_in.parent];
            let mut batch = Batch::new();
            // A child without an exit signal is only seen with __WALL.
            let all = Arg::Value(libc::__WALL as u64);
            batch.call(Sysno::wait4, [Arg::Value(stand_in.group as u64), zero, all, zero]);
            self.run_leader(parent, &mut batch, "ending a stand-in")?;
        }
        Ok(())
    }
}
