//! Every open file of the tree, opened once in the restarting process, from where all processes inherit it.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::external::Connections;
use super::gone::{Directories, GoneDirectory};
use super::image::lift;
use super::pipe::{OpenPipe, SavedPipe};
use crate::error::{Error, Result};
use crate::resource::memory::MappedFiles;

/// The open files, by id.
#[derive(Debug)]
pub struct Pool {
    files: BTreeMap<u64, OwnedFd>,
    /// Where an open file of the outside stood for several of 0, 1 and 2, each may be connected elsewhere now.
    roles: BTreeMap<(u64, i32), OwnedFd>,
    /// Removed directories, which somebody may work in.
    gone: Directories,
}

impl Pool {
    #[cfg(test)]
    pub(super) fn of(id: u64, fd: OwnedFd) -> Pool {
        Pool { files: BTreeMap::from([(id, fd)]), roles: BTreeMap::new(), gone: Directories::default() }
    }

    /// Our descriptor of an open file; `target` is the number that it is to have in a process.
    pub fn fd(&self, id: u64, target: i32) -> Option<RawFd> {
        self.roles.get(&(id, target)).or_else(|| self.files.get(&id)).map(AsRawFd::as_raw_fd)
    }

    /// Our descriptor of an open file, whatever number it is to have.
    pub fn borrow(&self, id: u64) -> Option<BorrowedFd<'_>> {
        self.files.get(&id).map(AsFd::as_fd)
    }

    /// Our descriptor of an open file; `target` is the number that it has, or had, in a process.
    pub(super) fn borrow_as(&self, id: u64, target: i32) -> Option<BorrowedFd<'_>> {
        self.roles.get(&(id, target)).or_else(|| self.files.get(&id)).map(AsFd::as_fd)
    }

    /// Our descriptor of a removed directory, by its number in the image.
    pub(super) fn gone(&self, number: u64) -> Option<BorrowedFd<'_>> {
        self.gone.get(number)
    }

    /// How many open files there are.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

/// A pool that is being filled.
#[derive(Debug)]
pub struct Making<'a> {
    base: i32,
    /// What the outside connects to.
    pub(super) connections: Connections<'a>,
    /// Inodes whose content comes from the image.
    pub inodes: &'a MappedFiles,
    saved_gone: &'a BTreeMap<u64, GoneDirectory>,
    saved_pipes: &'a BTreeMap<u64, SavedPipe>,
    pipes: BTreeMap<u64, OpenPipe>,
    pool: Pool,
}

impl<'a> Making<'a> {
    pub(super) fn new(
        base: i32,
        connections: Connections<'a>,
        saved_pipes: &'a BTreeMap<u64, SavedPipe>,
        saved_gone: &'a BTreeMap<u64, GoneDirectory>,
        inodes: &'a MappedFiles,
    ) -> Making<'a> {
        let pool = Pool { files: BTreeMap::new(), roles: BTreeMap::new(), gone: Directories::default() };
        Making { saved_gone, base, connections, inodes, saved_pipes, pipes: BTreeMap::new(), pool }
    }

    /// A removed directory of the image, made when it is first asked for.
    pub(super) fn directory(&mut self, number: u64) -> Result<BorrowedFd<'_>> {
        self.pool.gone.make(number, self.saved_gone, self.base)
    }

    /// A pipe of the image, made and filled when it is first asked for.
    pub(super) fn pipe(&mut self, id: u64) -> Result<&mut OpenPipe> {
        use std::collections::btree_map::Entry;
        match self.pipes.entry(id) {
            Entry::Occupied(pipe) => Ok(pipe.into_mut()),
            Entry::Vacant(place) => {
                let saved = self.saved_pipes.get(&id);
                let saved = saved.ok_or_else(|| Error::Bug(format!("an end of the unknown pipe {id}")))?;
                Ok(place.insert(OpenPipe::make(saved)?))
            }
        }
    }

    pub(super) fn put(&mut self, id: u64, fd: OwnedFd) -> Result<()> {
        self.pool.files.insert(id, lift(fd, self.base)?);
        Ok(())
    }

    pub(super) fn put_role(&mut self, id: u64, role: i32, fd: OwnedFd) -> Result<()> {
        self.pool.roles.insert((id, role), lift(fd, self.base)?);
        Ok(())
    }

    /// Ends of pipes that nobody has are closed here.
    pub(super) fn finish(self) -> Pool {
        self.pool
    }
}
