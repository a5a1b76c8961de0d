//! The family of files: what descriptors lead to. One file per kind of open file, and [`KINDS`], the table of them.
//!
//! A *descriptor* is a number in a process's table, with one flag (close-on-exec). It leads to an *open file*, which has
//! an offset and status flags, and which dup(2), fork(2) and SCM_RIGHTS share. That in turn is one opening of an *inode*.
//! The image follows this: a record for every open file, and for every process a table that says which number leads to
//! which of them. What two descriptors shared they share again, within a process and across the tree.
//!
//! A checkpoint: [`survey`] finds the tables and who shares what ([`scene`]), then asks each kind in the order of the
//! table whether an open file is of its kind, and what the image needs to know of it. All of that is looking. A restart:
//! [`FilesImage`] reads the records back, checks them against this host, opens everything once in one process
//! ([`pool`]), and gives the steps by which each process, having inherited all of it, moves what is its own into place.
//!
//! To add a kind: a file here, a line in [`KINDS`], a workload.

pub mod device;
pub mod directory;
pub mod epoll;
pub mod eventfd;
pub mod external;
pub mod gone;
pub mod image;
pub mod inotify;
pub mod kept;
pub mod lock;
pub mod memfd;
pub mod nameless;
pub mod outside;
pub mod owner;
pub mod path;
pub mod path_only;
pub mod pidfd;
pub mod pipe;
pub mod pool;
pub mod proc;
pub mod refused;
pub mod regular;
pub mod scene;
pub mod signalfd;
pub mod survey;
pub mod table;
pub mod timerfd;
pub mod unlinked;
pub mod watched;

#[cfg(test)]
mod rig;
#[cfg(test)]
mod tests;

use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};

use bardo_image::Record;

use crate::error::Result;
use crate::resource::task::clock::Ahead;
use crate::restart;
use crate::support::Support;

pub use image::FilesImage;
pub use pool::Pool;
pub use scene::unite;
pub use survey::{Files, survey};

use pool::Making;
use scene::{Scene, Seen};
use survey::Collected;

/// A kind of open file. Every kind's file has the same order: how it works, its record, how it is collected, how it is
/// restored, tests.
pub trait Kind: Sync {
    /// Its line in the documentation.
    fn support(&self) -> Support;
    /// The kinds of records that are its own.
    fn records(&self) -> &'static [&'static str];
    /// Whether this open file is one. The first kind of the table that claims it has it.
    fn claims(&self, file: &Seen, scene: &Scene<'_>) -> bool;
    /// What the image needs to know of it, or what stands in the way. Looks, changes nothing.
    ///
    /// # Errors
    /// Where looking failed.
    fn collect(&self, file: &Seen, scene: &Scene<'_>, out: &mut Collected) -> Result<()>;
    /// Takes a record of its own from an image.
    ///
    /// # Errors
    /// [`crate::Error::Image`] where the record isn't what this kind writes.
    fn take(&self, record: &Record, image: &mut FilesImage) -> Result<()>;
}

/// An open file as an image has it.
pub trait Saved: fmt::Debug {
    /// What a message calls it.
    fn what(&self) -> String;
    /// The names under which the outside can be connected to it, for what belongs to the outside.
    fn names(&self) -> &[String] {
        &[]
    }
    /// Everything that keeps it from being opened here; found without changing anything.
    fn check(&self, rules: &Rules<'_>) -> Vec<Hindrance>;
    /// Opens it.
    ///
    /// # Errors
    /// Where this host said no.
    fn open(&self, id: u64, making: &mut Making<'_>) -> Result<OwnedFd>;
    /// Makes it ready for a moment, where it isn't ready for anything: whether that can be done. Nobody has it yet but us.
    ///
    /// # Errors
    /// Where this host said no.
    fn rouse(&self, _fd: BorrowedFd<'_>) -> bardo_kernel::Result<bool> {
        Ok(false)
    }
    /// Takes that back.
    ///
    /// # Errors
    /// Where this host said no.
    fn calm(&self, _fd: BorrowedFd<'_>) -> bardo_kernel::Result<()> {
        Ok(())
    }
    /// Sets it in motion: the last thing before the tree goes. `ahead`: the tree's clocks.
    ///
    /// # Errors
    /// Where this host said no.
    fn start(&self, _id: u64, _pool: &Pool, _ahead: Ahead) -> Result<()> {
        Ok(())
    }
}

/// What a restart was told about files.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// What to do about files that changed.
    pub files: restart::Files,
    /// What the outside connects to: `NAME=TARGET`.
    pub external: &'a [String],
}

/// Why an open file can't be opened here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hindrance {
    /// The code of the refusal it becomes.
    pub code: &'static str,
    /// What it is.
    pub what: String,
    /// Why that matters.
    pub why: String,
    /// What to do.
    pub remedy: String,
}

/// The table. Order matters where two kinds could claim a file: what belongs to the outside comes before pipes and
/// files, and what is refused comes last.
pub const KINDS: &[&dyn Kind] = &[
    &path_only::PathOnly,
    &external::External,
    &device::Device,
    &pipe::Pipe,
    &proc::Proc,
    &regular::Regular,
    &directory::Directory,
    &gone::Gone,
    &memfd::Memfd,
    &unlinked::Unlinked,
    &eventfd::Eventfd,
    &timerfd::Timerfd,
    &epoll::Epoll,
    &signalfd::Signalfd,
    &inotify::Inotify,
    &pidfd::Pidfd,
    &lock::Locks,
    &owner::Owners,
    &refused::Refused,
];

/// The table as documentation: what is kept, and what is refused.
pub fn support() -> Vec<Support> {
    let kept = KINDS.iter().map(|kind| kind.support()).filter(|line| line.kind != refused::NAME);
    kept.chain([table::SUPPORT]).chain(refused::support()).collect()
}
