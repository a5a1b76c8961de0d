//! What processes outside the tree have open of what the tree has: pipes, FIFOs, and open files without a path.
//!
//! `/proc` is looked through once, and only where the tree has something of that sort. Other users' processes may be closed to
//! us, and any may end while we look: what can't be seen of those is taken for nothing. Where a look fails for another reason,
//! so does the checkpoint: what wasn't seen may be there.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;

use bardo_kernel::kcmp::{self, What};
use bardo_kernel::procfs::descriptors::Descriptors;
use bardo_kernel::{Failed, fs, procfs};

use super::path::Reach;
use super::scene::{Scene, Seen, unite};
use crate::error::{Doing, Result, Who};

/// A descriptor of a process outside.
#[derive(Debug, Clone, Copy)]
pub struct Foreign {
    /// The process.
    pub pid: i32,
    /// The number.
    pub fd: i32,
}

impl Foreign {
    /// The process as a message names it.
    pub fn who(&self) -> Who {
        let name = procfs::comm(self.pid).map(|name| name.to_string_lossy().into_owned());
        Who { pid: self.pid, name: name.unwrap_or_default() }
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Outside {
    links: BTreeMap<Vec<u8>, Vec<Foreign>>,
    /// FIFOs, and files that are no longer where their names lead, by device and inode.
    inodes: BTreeMap<(u64, u64), Foreign>,
    /// The open files without a path that are held outside too, by id.
    held: BTreeMap<u64, Foreign>,
}

/// The inode that a descriptor leads to. A file system that doesn't answer says so every time, and is none of ours.
fn inode(pid: i32, fd: i32) -> Option<(u64, u64)> {
    let look = || fs::stat(procfs::path(pid, &format!("fd/{fd}")));
    look().or_else(|_| look()).ok().map(|stat| (stat.dev, stat.ino))
}

/// A process other than ours that has a FIFO open, as far as we may see.
///
/// # Errors
/// Where that can't be looked for.
pub(super) fn who_has(key: (u64, u64)) -> bardo_kernel::Result<Option<Foreign>> {
    let own = std::process::id() as i32;
    for pid in procfs::processes()?.into_iter().filter(|pid| *pid != own) {
        let all = procfs::if_visible(procfs::descriptors(pid))?.unwrap_or_default();
        if let Some(fd) = all.into_iter().find(|fd| inode(pid, *fd) == Some(key)) {
            return Ok(Some(Foreign { pid, fd }));
        }
    }
    Ok(None)
}

/// Whether it matters who else has this very inode: a FIFO, or a file of the root's stdio that its name doesn't lead to.
fn matters_by_inode(file: &Seen, scene: &Scene<'_>) -> bool {
    match file.stat.kind() {
        libc::S_IFIFO => !file.is_pipe(),
        libc::S_IFREG => file.reach != Reach::Same && scene.is_roots_stdio(file),
        _ => false,
    }
}

/// Whether the kernel gave it this name because it has no path.
fn is_nameless(link: &[u8]) -> bool {
    link.starts_with(b"anon_inode:") || link.starts_with(b"pidfd:")
}

impl Outside {
    /// Looks at all other processes.
    ///
    /// # Errors
    /// Where the other processes can't be looked at, or the tree's own open files can't be compared.
    pub fn look(scene: &Scene<'_>) -> Result<Outside> {
        let wanted = |link: &[u8]| link.starts_with(b"pipe:[") || is_nameless(link);
        let ours: BTreeSet<&[u8]> =
            scene.files.iter().map(|file| file.link.as_os_str().as_bytes()).filter(|l| wanted(l)).collect();
        let mut outside = Outside::default();
        let inodes: BTreeSet<(u64, u64)> = scene
            .files
            .iter()
            .filter(|file| matters_by_inode(file, scene))
            .map(|file| (file.stat.dev, file.stat.ino))
            .collect();
        if ours.is_empty() && inodes.is_empty() {
            return Ok(outside);
        }
        let tree: BTreeSet<i32> = scene.subjects.iter().map(|s| s.pid()).collect();
        let own = std::process::id() as i32;
        let looking = "looking at what other processes have open";
        for pid in procfs::processes().doing("listing all processes", None)? {
            if pid == own || tree.contains(&pid) {
                continue;
            }
            let table = procfs::if_visible(Descriptors::open(pid)).doing(looking, None)?;
            let Some(table) = table else { continue };
            let all = procfs::if_visible(procfs::descriptors(pid)).doing(looking, None)?;
            for fd in all.unwrap_or_default() {
                let link = procfs::if_visible(table.link(fd)).doing(looking, None)?;
                let Some(link) = link else { continue };
                if !inodes.is_empty()
                    && link.is_absolute()
                    && let Some(key) = inode(pid, fd)
                    && inodes.contains(&key)
                {
                    outside.inodes.entry(key).or_insert(Foreign { pid, fd });
                }
                let link = link.as_os_str().as_bytes();
                if ours.contains(link) {
                    outside.links.entry(link.to_vec()).or_default().push(Foreign { pid, fd });
                }
            }
        }
        outside.compare(scene)?;
        Ok(outside)
    }

    /// Who else has something that the kernel gave this name.
    pub fn with_link(&self, link: &[u8]) -> Option<Foreign> {
        self.links.get(link).and_then(|all| all.first()).copied()
    }

    /// Who else has this inode open, of those that it matters of.
    pub fn with_inode(&self, key: (u64, u64)) -> Option<Foreign> {
        self.inodes.get(&key).copied()
    }

    /// Who else has this very open file, which has no path.
    pub fn holder(&self, file: &Seen) -> Option<(Who, i32)> {
        self.held.get(&file.id).map(|foreign| (foreign.who(), foreign.fd))
    }

    /// Finds which of the open files without a path are held outside. All of one kind have one name and mostly one inode, so
    /// only kcmp(2) tells: ours are sorted by its order, and each of theirs is looked up.
    fn compare(&mut self, scene: &Scene<'_>) -> Result<()> {
        for (link, theirs) in self.links.iter().filter(|(link, _)| is_nameless(link)) {
            let ours = (0..scene.files.len())
                .filter(|at| scene.files[*at].link.as_os_str().as_bytes() == link.as_slice())
                .collect();
            let at = |file: usize| {
                let holder = scene.files[file].holders[0];
                (scene.subjects[holder.subject].pid(), holder.fd)
            };
            let sorted = unite(ours, &|a, b| {
                let ((one, fd1), (other, fd2)) = (at(a), at(b));
                let order = kcmp::compare(one, other, What::File { fd1, fd2 });
                order
                    .and_then(|o| {
                        o.ordering().ok_or_else(|| Failed::unexpected("kcmp: no order among files"))
                    })
                    .doing("comparing open files", Some(scene.who(&scene.files[a])))
            })?;
            for foreign in theirs {
                let (mut low, mut high) = (0, sorted.len());
                while low < high {
                    let middle = (low + high) / 2;
                    let (pid, fd1) = at(sorted[middle][0]);
                    let order = kcmp::compare(pid, foreign.pid, What::File { fd1, fd2: foreign.fd });
                    match order.ok().and_then(|order| order.ordering()) {
                        Some(std::cmp::Ordering::Less) => low = middle + 1,
                        Some(std::cmp::Ordering::Greater) => high = middle,
                        Some(std::cmp::Ordering::Equal) => {
                            self.held.insert(scene.files[sorted[middle][0]].id, *foreign);
                            break;
                        }
                        None => break,
                    }
                }
            }
        }
        Ok(())
    }
}
