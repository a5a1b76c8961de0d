//! Handing batches to a stub: the control block seen from our side.

use crate::error::{Errno, Failed, Result};
use crate::mmap::SharedPages;
use crate::stub::{Batch, STEP, control};

/// One slot's control block and the room for its steps, in pages shared with its target.
#[derive(Debug, Clone, Copy)]
pub struct Mailbox {
    /// Offset of the control block in our pages.
    control: usize,
    /// Offset of the room for steps in our pages.
    arena: usize,
    arena_len: usize,
    /// What to add to an offset to get the target's address.
    target: u64,
}

impl Mailbox {
    /// A mailbox at these offsets of pages that the target sees at `target`.
    pub fn new(control: usize, arena: usize, arena_len: usize, target: u64) -> Mailbox {
        Mailbox { control, arena, arena_len, target }
    }

    /// The control block's address in the target.
    pub fn target_control(&self) -> u64 {
        self.target + self.control as u64
    }

    /// How large a batch may be ([`Batch::room`]).
    pub fn room(&self) -> usize {
        self.arena_len
    }

    /// Readies the block: nothing posted, nothing done; `word` is the lifeline's address in the target.
    pub fn prepare(&self, pages: &SharedPages, word: u64) {
        let at = self.control;
        pages.write(at, &[0; control::SIZE]);
        // struct futex_waitv {u64 val; u64 uaddr; u32 flags; u32 reserved}; flag 2: a u32, shared.
        const FUTEX2_SIZE_U32: u64 = 2;
        pages.store64(at + control::WAITV + 8, self.target_control() + control::POSTED as u64);
        pages.store64(at + control::WAITV + 16, FUTEX2_SIZE_U32);
        pages.store64(at + control::WAITV + 32, word);
        pages.store64(at + control::WAITV + 40, FUTEX2_SIZE_U32);
    }

    /// Marks the area as used by another thread of the target, so that an orphan doesn't unmap it.
    pub fn set_busy(&self, pages: &SharedPages, busy: bool) {
        pages.store(self.control + control::BUSY, u32::from(busy));
    }

    /// Where the busy mark is in the target.
    pub fn target_busy(&self) -> u64 {
        self.target_control() + control::BUSY as u64
    }

    /// Posts a batch; [`Mailbox::finish`] takes its results.
    pub fn post(&self, pages: &SharedPages, batch: &Batch) -> Result<()> {
        let bytes = batch.encode(self.target + self.arena as u64);
        if bytes.len() > self.arena_len {
            return Err(Failed {
                call: format!("a batch of {} bytes for an arena of {}", bytes.len(), self.arena_len),
                errno: Errno(libc::E2BIG),
            });
        }
        pages.write(self.arena, &bytes);
        pages.store64(self.control + control::STEPS, self.target + self.arena as u64);
        pages.store64(self.control + control::COUNT, batch.len() as u64);
        let posted = pages.load(self.control + control::DONE).wrapping_add(1);
        pages.store(self.control + control::POSTED, posted);
        pages.wake(self.control + control::POSTED, 1);
        Ok(())
    }

    /// Has a posted batch end without its steps, where the thread was taken out of the one that it was in.
    pub fn cancel(&self, pages: &SharedPages) {
        pages.store64(self.control + control::COUNT, 0);
    }

    /// Whether the posted batch is done.
    pub fn is_done(&self, pages: &SharedPages) -> bool {
        pages.load(self.control + control::DONE) == pages.load(self.control + control::POSTED)
    }

    /// Waits until the posted batch is done, then takes its results. `idle` is called whenever nothing was heard for a
    /// while: it looks after the target, and its error ends the wait.
    pub fn finish(
        &self,
        pages: &SharedPages,
        batch: &mut Batch,
        mut idle: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        const PATIENCE_NS: u64 = 5_000_000;
        let posted = pages.load(self.control + control::POSTED);
        loop {
            let done = pages.load(self.control + control::DONE);
            if done == posted {
                break;
            }
            pages.wait(self.control + control::DONE, done, PATIENCE_NS);
            if pages.load(self.control + control::DONE) != posted {
                // A wake is never lost for good: who sleeps in spite of it is woken again.
                pages.wake(self.control + control::POSTED, 1);
                idle()?;
            }
        }
        let mut bytes = vec![0; batch.encode(0).len()];
        debug_assert!(bytes.len() >= batch.len() * STEP);
        pages.read(self.arena, &mut bytes);
        batch.decode(&bytes, pages.load64(self.control + control::COUNT));
        match batch.stumble() {
            Some(failed) if !batch.is_empty() => Err(failed),
            _ => Ok(()),
        }
    }
}
