//! How a caller follows long work: stages, bytes, notes. The CLI draws bars from it; tests count.

/// A stage of a checkpoint or a restart, in the order of the flow files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// What this kernel and these privileges allow.
    Probe,
    /// Stopping every thread of the tree.
    Freeze,
    /// Looking at everything, writing nothing.
    Survey,
    /// Writing what isn't memory.
    Collect,
    /// Taking the pages.
    Pages,
    /// Letting the tree go on (or ending it).
    Release,
    /// Writing index and seal, making the image durable.
    Seal,
    /// Reading the image's records.
    Open,
    /// Making the processes.
    Processes,
    /// Putting files in place.
    Files,
    /// Putting memory back.
    Memory,
    /// The last steps, then go.
    Go,
}

/// Follows an operation. Every method may be called often and must return quickly.
pub trait Watch: Sync {
    /// A stage begins.
    fn stage(&self, _stage: Stage) {}
    /// Bytes done of a total, where the total is known.
    fn bytes(&self, _done: u64, _total: Option<u64>) {}
    /// Something a user who asked for `--verbose` wants to read.
    fn note(&self, _text: &str) {}
    /// One step that will run, or ran, inside a process: for `--steps`.
    fn step(&self, _pid: i32, _text: &str) {}
    /// Whether steps are wanted at all.
    fn wants_steps(&self) -> bool {
        false
    }
    /// Whether the user asked to stop (Ctrl-C): asked between stages, and often while pages are moved.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;
impl Watch for Silent {}
