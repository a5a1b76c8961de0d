//! What the tables of kinds say about each kind: `docs/support.md` and `bardo doctor` come from it.

/// One line of a family's table.
#[derive(Debug, Clone, Copy)]
pub struct Support {
    /// The kind's name, stable: `file/pipe`. Records and refusal codes begin with it.
    pub kind: &'static str,
    /// What is kept.
    pub kept: &'static str,
    /// What isn't, and why.
    pub not_kept: &'static str,
    /// Which privilege it needs beyond ptrace access; empty: none.
    pub privilege: &'static str,
    /// The workload that proves it.
    pub workload: &'static str,
}
