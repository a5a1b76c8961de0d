//! Open files that belong to the outside: stdin, stdout and stderr as they were inherited.
//!
//! **In the kernel**: nothing special. A terminal, an end of a pipe, a socket, a file without a name, whose other side is a
//! process that isn't part of the tree.
//!
//! **In the image**: `file/external`: its names, what it was, as which of 0, 1 and 2 it was held.
//!
//! **Taken how**: what counts is who else has it. A terminal that is somebody's stdio or the tree's controlling terminal is
//! external in all its open files; a pipe is if its other end is outside and one of its open files is 0, 1 or 2 somewhere in
//! the tree; a FIFO, if all of the tree's open files of it go one way; a socket and a file without a name only as the
//! root's stdio, and such a file only if somebody outside has it too. Whatever the user vouches for by `--external` is.
//!
//! **Put back how**: by a duplicate of what the restarter itself has as 0, 1 or 2, or by what `--external NAME=TARGET` says:
//! NAME is `stdin`, `stdout` or `stderr` for the root's stdio, and always the link's text (`/dev/pts/3`, `pipe:[4711]`);
//! TARGET is `fd:N`, a descriptor of the restarter's, or a path, which is made if it isn't there and appended to. One
//! open file that was 0, 1 and 2 at once is connected to all three of the restarter's, each to its own.
//!
//! **Not saved**: what is in it, its state and settings (a terminal's modes), its flags: after a restart it is the
//! restarter's own open file, shared with it.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use bardo_image::Record;
use bardo_kernel::{fs, pidfd};
use serde::{Deserialize, Serialize};

use super::owner;
use super::path::{REOPEN, Reach};
use super::pool::Making;
use super::scene::{Scene, Seen};
use super::survey::Collected;
use super::{FilesImage, Hindrance, Kind, Rules, Saved, device, image, lock};
use crate::error::{Doing, Error, Failure, Result};
use crate::support::Support;

/// The kind.
#[derive(Debug, Clone, Copy)]
pub struct External;

/// The record's name.
pub const NAME: &str = "file/external";

/// The names of 0, 1 and 2.
const ROLES: [&str; 3] = ["stdin", "stdout", "stderr"];
/// More names than this no record has.
const NAMES_MAX: usize = 8;

/// The record of an open file of the outside.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OpenExternal {
    /// How `--external` may name it, the first being the name that messages use.
    pub names: Vec<String>,
    /// What it was: `terminal`, `pipe`, `socket`, …
    pub was: String,
    /// As which of 0, 1 and 2 the root held the same thing, or anybody, if the root didn't.
    pub stdio: Vec<i32>,
    /// Access mode and status flags (fdinfo, `flags`).
    pub flags: i32,
}

impl Kind for External {
    fn support(&self) -> Support {
        Support {
            kind: NAME,
            kept: "inherited stdio: terminals, pipes, sockets of the outside are connected to the restarter's own, or to \
                   what --external says",
            not_kept: "what is in them, terminal settings, status flags",
            privilege: "",
            workload: "file/stdio",
        }
    }

    fn records(&self) -> &'static [&'static str] {
        &[NAME]
    }

    fn claims(&self, file: &Seen, scene: &Scene<'_>) -> bool {
        if file.flags & libc::O_PATH != 0 {
            return false;
        }
        let kind = file.stat.kind();
        if file.is_pipe() {
            return scene.pipes.is_external(file);
        }
        if !matches!(kind, libc::S_IFCHR | libc::S_IFBLK | libc::S_IFIFO | libc::S_IFSOCK | libc::S_IFREG) {
            return false;
        }
        if scene.is_vouched(file) {
            return true;
        }
        if file.terminal {
            return !device::is_master(file) && scene.terminals.contains(&file.stat.rdev);
        }
        match kind {
            libc::S_IFIFO => file.is_stdio() && goes_one_way(file, scene),
            libc::S_IFSOCK => scene.is_roots_stdio(file),
            libc::S_IFREG => {
                file.reach != Reach::Same
                    && scene.is_roots_stdio(file)
                    // Where nobody can tell, `collect` fails.
                    && scene.outside().map_or(true, |all| all.with_inode((file.stat.dev, file.stat.ino)).is_some())
            }
            _ => false,
        }
    }

    fn collect(&self, file: &Seen, scene: &Scene<'_>, out: &mut Collected) -> Result<()> {
        if file.stat.kind() == libc::S_IFREG && !scene.is_vouched(file) {
            scene.outside()?;
        }
        if scene.signals_the_tree(file) {
            owner::refuse(file, scene, "what it is connected to at the restart is another file", out);
            return Ok(());
        }
        if let Some((holder, lock)) = file.locks.first() {
            let what = format!("{}, of the outside, with {}", file.show(), lock::show(lock));
            let why = "what it is connected to at the restart is another file";
            out.refuse_at(scene, *holder, "file/lock", what, why, "release it before the checkpoint");
            return Ok(());
        }
        let stdio = scene.roles(file);
        let mut names = Vec::new();
        if scene.is_roots_stdio(file) {
            names.extend(stdio.iter().map(|role| ROLES[*role as usize].to_owned()));
        }
        names.push(file.show());
        let was = if file.terminal { "terminal" } else { was(file) };
        let name = &names[0];
        out.external(if names.len() > 1 { format!("{name} ({})", file.show()) } else { name.clone() });
        out.record(NAME, file.id, &OpenExternal { was: was.into(), stdio, flags: file.flags & REOPEN, names })
    }

    fn take(&self, record: &Record, image: &mut FilesImage) -> Result<()> {
        let file: OpenExternal = image::read(record)?;
        if file.names.is_empty() || file.names.len() > NAMES_MAX || file.names.iter().any(String::is_empty) {
            return Err(image::wrong(record, format!("{} names, or an empty one", file.names.len())));
        }
        let unique: BTreeSet<i32> = file.stdio.iter().copied().collect();
        if unique.len() != file.stdio.len() || unique.iter().any(|role| !(0..=2).contains(role)) {
            return Err(image::wrong(
                record,
                format!("stdio {:?}, where 0, 1 and 2 are, each once", file.stdio),
            ));
        }
        image.add(record, Box::new(file))
    }
}

fn was(file: &Seen) -> &'static str {
    match file.stat.kind() {
        libc::S_IFIFO if file.is_pipe() => "pipe",
        libc::S_IFIFO => "FIFO",
        libc::S_IFSOCK => "socket",
        libc::S_IFREG => "file",
        _ => "device",
    }
}

/// Whether all open files of the tree for this inode only read, or all only write.
fn goes_one_way(file: &Seen, scene: &Scene<'_>) -> bool {
    let object = scene.object(file);
    let mut all = scene.files.iter().filter(|other| scene.object(other) == object);
    file.reads() != file.writes()
        && all.all(|other| (other.reads(), other.writes()) == (file.reads(), file.writes()))
}

/// What the outside connects to, as the user gave it.
#[derive(Debug, Clone, Copy)]
pub struct Connections<'a>(&'a [String]);

/// Where an open file of the outside is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target<'a> {
    /// A descriptor of ours.
    Fd(i32),
    /// A path.
    Path(&'a str),
    /// `--external` says what can't be.
    Nonsense(&'a str),
}

impl<'a> Connections<'a> {
    pub(super) fn new(given: &'a [String]) -> Connections<'a> {
        Connections(given)
    }

    fn find(&self, name: &str) -> Option<Target<'a>> {
        // A name may have a `=` in it: it's the whole name that must match.
        let target = self.0.iter().rev().find_map(|one| one.strip_prefix(name)?.strip_prefix('='))?;
        Some(match target.strip_prefix("fd:").map(str::parse) {
            Some(Ok(fd)) if fd >= 0 => Target::Fd(fd),
            Some(_) => Target::Nonsense(target),
            None if target.is_empty() => Target::Nonsense(target),
            None => Target::Path(target),
        })
    }
}

/// What `--external` names that isn't in the image.
pub(super) fn unknown<'a>(given: &'a [String], names: &'a [&str]) -> impl Iterator<Item = Hindrance> + 'a {
    let known = |one: &&String| {
        !names.iter().any(|name| one.strip_prefix(name).is_some_and(|rest| rest.starts_with('=')))
    };
    given.iter().filter(known).map(|one| Hindrance {
        code: "external/unknown",
        what: format!("--external {one}"),
        why: "nothing of the outside has that name in this image".into(),
        remedy: if names.is_empty() {
            "leave it out: this image needs nothing of the outside".into()
        } else {
            format!("name one of   {}   as NAME=FILE or NAME=fd:N", names.join("   "))
        },
    })
}

impl OpenExternal {
    /// Where it goes: for one of 0, 1 and 2, or for all other numbers.
    fn target<'a>(&self, role: Option<i32>, connections: Connections<'a>) -> Option<Target<'a>> {
        let role = role.or_else(|| self.role());
        let named = role.map(|role| ROLES[role as usize]).filter(|name| self.names.iter().any(|n| n == name));
        named
            .and_then(|name| connections.find(name))
            .or_else(|| {
                self.names.iter().filter(|n| !ROLES.contains(&n.as_str())).find_map(|n| connections.find(n))
            })
            .or(role.map(Target::Fd))
            .or((self.was == "terminal").then_some(Target::Path("/dev/tty")))
    }

    /// The one of 0, 1 and 2 that suits its access mode best.
    fn role(&self) -> Option<i32> {
        let writes_only = self.flags & libc::O_ACCMODE == libc::O_WRONLY;
        let suits = |role: &&i32| (**role != 0) == writes_only;
        self.stdio.iter().find(suits).or(self.stdio.first()).copied()
    }

    fn open_flags(&self) -> i32 {
        let mode = self.flags & libc::O_ACCMODE;
        libc::O_NOCTTY | if mode == libc::O_RDONLY { mode } else { mode | libc::O_APPEND }
    }

    fn connect(&self, target: Option<Target<'_>>) -> Result<OwnedFd> {
        let doing = format!("connecting {}", self.names[0]);
        match target {
            Some(Target::Fd(fd)) => own(fd).doing(doing, None),
            Some(Target::Path(path)) => {
                let create = if self.flags & libc::O_ACCMODE == libc::O_RDONLY { 0 } else { libc::O_CREAT };
                fs::open(Path::new(path), self.open_flags() | create, 0o666).doing(doing, None)
            }
            Some(Target::Nonsense(_)) | None => Err(Error::Failed(Failure {
                doing,
                who: None,
                call: None,
                left: String::new(),
                remedy: Some(format!("--external '{}=FILE'", self.names[0])),
            })),
        }
    }

    fn hindrance(&self, target: Option<Target<'_>>) -> Option<Hindrance> {
        let why = match target {
            None => "it belonged to the outside, and nothing is connected to it".into(),
            Some(Target::Nonsense(text)) => format!("`{text}` is neither a file nor fd:N"),
            Some(Target::Fd(fd)) => match own(fd) {
                Ok(_) => return None,
                Err(e) => format!("our own descriptor {fd} can't take its place: {}", e.errno),
            },
            Some(Target::Path(path)) => {
                let path = Path::new(path);
                let tried = match fs::stat(path) {
                    // Opening a FIFO waits for the other side, and may wake it.
                    Ok(stat) if stat.kind() == libc::S_IFIFO => return None,
                    Ok(_) => fs::open(path, self.open_flags() | libc::O_NONBLOCK, 0).map(drop),
                    Err(e) if e.is(libc::ENOENT) && self.flags & libc::O_ACCMODE != libc::O_RDONLY => {
                        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                        fs::stat(parent.unwrap_or(Path::new("."))).map(drop)
                    }
                    Err(e) => Err(e),
                };
                match tried {
                    Ok(()) => return None,
                    Err(e) => format!("{} can't take its place: {}", path.display(), e.errno),
                }
            }
        };
        Some(Hindrance {
            code: "external/unconnected",
            what: self.what(),
            why,
            remedy: format!("--external '{0}=FILE'   or   --external '{0}=fd:N'", self.names[0]),
        })
    }
}

/// A duplicate of a descriptor of ours, known by its number alone.
fn own(fd: i32) -> bardo_kernel::Result<OwnedFd> {
    let own = pidfd::open(std::process::id() as i32)?;
    pidfd::getfd(own.as_fd(), fd)
}

impl Saved for OpenExternal {
    fn what(&self) -> String {
        format!("{} of the outside, {}", self.was, self.names.join(", "))
    }

    fn names(&self) -> &[String] {
        &self.names
    }

    fn check(&self, rules: &Rules<'_>) -> Vec<Hindrance> {
        let connections = Connections::new(rules.external);
        let roles = self.stdio.iter().map(|role| Some(*role)).chain([None]);
        let mut all: Vec<Hindrance> =
            roles.filter_map(|role| self.hindrance(self.target(role, connections))).collect();
        all.dedup();
        all
    }

    fn open(&self, id: u64, making: &mut Making<'_>) -> Result<OwnedFd> {
        for role in &self.stdio {
            let target = self.target(Some(*role), making.connections);
            making.put_role(id, *role, self.connect(target)?)?;
        }
        self.connect(self.target(None, making.connections))
    }
}

#[cfg(test)]
mod tests;
