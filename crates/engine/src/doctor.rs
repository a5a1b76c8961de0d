//! What this kernel and these privileges allow, found by trying.

/// One line of the doctor's answer.
#[derive(Debug, Clone)]
pub struct Finding {
    /// What was tried: `choose the pid of a new process`.
    pub what: String,
    /// The interface: `clone3 set_tid`.
    pub interface: String,
    /// Whether it works.
    pub works: bool,
    /// What follows where it doesn't, and what would give it: `CAP_CHECKPOINT_RESTORE, or an own pid namespace`.
    pub note: String,
}

/// Tries every interface that checkpoint and restart rest on.
pub fn findings() -> Vec<Finding> {
    Vec::new()
}
