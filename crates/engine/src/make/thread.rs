//! Threads, and the working directories of their own that some have ([`crate::resource::task::own_directory`]).

use bardo_kernel::shelf::CloneArgs;
use bardo_kernel::stub::Batch;

use super::Tree;
use crate::error::Result;
use crate::plan::Member;

/// The flags with which libc makes a thread, as far as they share things.
const THREAD: u64 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM) as u64;

impl Tree<'_> {
    /// Makes a process's threads, all but the leader.
    pub(super) fn make_threads(&self, member: &Member) -> Result<()> {
        // Each with the slot of its maker: the leader's, or that of a thread with whom it shares a working directory.
        let mut others: Vec<_> = member
            .threads
            .iter()
            .filter(|thread| thread.slot != member.slot)
            .map(|thread| match &self.plan.threads[thread.record].directory {
                None => (member.slot, THREAD, thread),
                Some(own) if own.with == thread.tid => {
                    (member.slot, THREAD & !(libc::CLONE_FS as u64), thread)
                }
                Some(own) => (slot_of(member, own.with), THREAD, thread),
            })
            .collect();
        others.sort_by_key(|(maker, _, _)| (*maker != member.slot, *maker));
        for same in others.chunk_by(|a, b| a.0 == b.0) {
            for some in same.chunks(100) {
                let (mut batch, mut births) = (Batch::new(), Vec::with_capacity(some.len()));
                for (_, flags, thread) in some {
                    let clone = CloneArgs { flags: *flags, exit_signal: 0, set_tid: vec![thread.tid] };
                    births.push((batch.clone3(&clone, self.shelf.open(thread.slot)), thread.tid));
                }
                let at = (some[0].0, self.pids[member.index]);
                self.bear(at, &mut batch, &births, "making threads", &self.who(member))?;
            }
        }
        Ok(())
    }

    /// Threads go to working directories of their own.
    pub(super) fn put_own_directories(&self, member: &Member) -> Result<()> {
        for thread in &member.threads {
            let own = self.plan.threads[thread.record].directory.as_ref();
            let Some(own) = own.filter(|own| own.with == thread.tid) else { continue };
            let mut batch = Batch::new();
            own.put(&mut batch);
            let (pid, who) = (self.pids[member.index], self.who(member));
            self.run(thread.slot, pid, &mut batch, "putting a thread's directory back", &who)?;
        }
        Ok(())
    }
}

/// The slot of a thread, by its tid; the leader's where there is none.
pub(super) fn slot_of(member: &Member, tid: i32) -> usize {
    member.threads.iter().find(|thread| thread.tid == tid).map_or(member.slot, |thread| thread.slot)
}
