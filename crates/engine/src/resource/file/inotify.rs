//! Watches of files and directories, and the events that they gather (man 7 inotify).
//!
//! **In the kernel**: watches, each an inode with a mask and a number; and a queue of events, each with the number of its watch.
//! A number isn't given again before all have been given once (2^31 − 1 of them). Once a watched inode is gone, or a watch with
//! IN_ONESHOT has fired, the watch goes too, and says so (IN_IGNORED).
//!
//! **In the image**: `file/inotify`: status flags, and the number that the next watch gets. `file/inotify_watches`, after all tables:
//! number, mask, and the file: a path, or an open file of the tree that has none.
//!
//! **Taken how**: the `inotify` lines of fdinfo; [`super::watched`] finds the paths. FIONREAD says whether events wait.
//!
//! **Put back how**: the watches are made as the very last, since all else that a restart does to files would be told to the program;
//! INOTIFY_IOC_SETNEXTWD chooses each one's number.
//!
//! **Not saved**: events that wait. The kernel shows them to none but the reader, who takes them away, and the tree would miss
//! them; nor could they be put into a queue again. A checkpoint lets the tree run on for a moment and tries again, a few times;
//! then it refuses (`file/inotify-unread`). What becomes of watched files while the tree isn't there is told to nobody.
//! Which number comes next isn't shown: it is [`ROOM`] above the highest, so that those of watches that were removed aren't
//! given again. A watched file that no path is known of is refused.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use bardo_image::Record;
use bardo_kernel::{Failed, inotify, pipe, procfs};
use serde::{Deserialize, Serialize};

use super::nameless::{self, STATUS};
use super::path::{Place, Reach, type_name};
use super::pool::{Making, Pool};
use super::scene::{Scene, Seen};
use super::survey::Collected;
use super::{FilesImage, Hindrance, Kind, Rules, Saved, image};
use crate::error::{Doing, Error, Result};
use crate::restart;
use crate::support::Support;

/// The kind.
#[derive(Debug, Clone, Copy)]
pub struct Inotify;

/// The record's name.
pub const NAME: &str = "file/inotify";
/// The name of the records of its watches.
pub const WATCHES: &str = "file/inotify_watches";
/// The code of the refusal of one with events that wait: another moment may do.
pub const UNREAD: &str = "file/inotify-unread";

/// How many numbers are left out, for watches that were made and removed again.
const ROOM: i32 = 1 << 20;

/// Watches in one record. An image's record has at most 2^20 items, and a watch is some twenty.
const WATCHES_MAX: usize = 1 << 15;

/// The record of an inotify.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OpenInotify {
    /// Access mode and status flags (fdinfo, `flags`).
    pub flags: i32,
    /// The number from which the next watch's is looked for.
    pub next: i32,
}

/// The record of an inotify's watches, or of a part of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Watches {
    /// The id of the inotify's record.
    pub inotify: u64,
    /// The watches, by ascending numbers.
    pub watches: Vec<Watch>,
}

/// A watch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Watch {
    /// Its number (fdinfo, `wd`).
    pub number: i32,
    /// Events, IN_EXCL_UNLINK, IN_ONESHOT (fdinfo, `mask`).
    pub mask: u32,
    /// What is watched.
    pub target: Target,
}

/// What is watched.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// What a path leads to.
    Place(Place),
    /// What an open file is an opening of: the id of its record.
    File(u64),
}

/// An inotify as an image has it.
#[derive(Debug)]
pub struct Watching {
    next: i32,
    watches: Vec<Watch>,
}

/// An inode, as watches show it: the device is that of the file system itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Inode {
    /// Its number.
    pub ino: u64,
    /// The device.
    pub dev: u64,
}

/// An `inotify` line of fdinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The watch's number.
    pub number: i32,
    /// What it watches.
    pub inode: Inode,
    /// The mask.
    pub mask: u32,
    /// The inode's handle, type and bytes, where the file system gives such.
    pub handle: Option<(i32, Vec<u8>)>,
}

/// Whether it is one.
pub(super) fn is(file: &Seen) -> bool {
    nameless::is(file, "anon_inode:inotify")
}

/// Its watches, by ascending numbers.
pub(super) fn lines(told: &[(String, String)]) -> bardo_kernel::Result<Vec<Line>> {
    let lines = told.iter().filter(|(key, _)| key == "inotify wd");
    let lines = lines
        .map(|(_, text)| parse(text).ok_or_else(|| Failed::unexpected(format!("fdinfo, inotify: `{text}`"))));
    let mut lines: Vec<Line> = lines.collect::<bardo_kernel::Result<_>>()?;
    lines.sort_by_key(|line| line.number);
    Ok(lines)
}

/// `4d ino:992041 sdev:fe00000 mask:2 ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:41209900785f5f8c`.
fn parse(text: &str) -> Option<Line> {
    let mut words = text.split_whitespace();
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let number = i32::try_from(hex(words.next()?)?).ok().filter(|number| *number > 0)?;
    let fields: BTreeMap<&str, &str> = words.filter_map(|word| word.split_once(':')).collect();
    let device = hex(fields.get("sdev")?)?;
    let handle = match (fields.get("fhandle-type"), fields.get("f_handle")) {
        (Some(kind), Some(bytes)) if bytes.is_ascii() && bytes.len() % 2 == 0 => {
            let bytes: Option<Vec<u8>> = (0..bytes.len() / 2)
                .map(|at| u8::from_str_radix(&bytes[2 * at..2 * at + 2], 16).ok())
                .collect();
            Some((i32::try_from(hex(kind)?).ok()?, bytes?))
        }
        _ => None,
    };
    Some(Line {
        number,
        // The kernel's own encoding: twelve bits and twenty.
        inode: Inode {
            dev: libc::makedev((device >> 20) as u32, (device & 0xf_ffff) as u32),
            ino: hex(fields.get("ino")?)?,
        },
        mask: u32::try_from(hex(fields.get("mask")?)?).ok()?,
        handle,
    })
}

impl Kind for Inotify {
    fn support(&self) -> Support {
        Support {
            kind: NAME,
            kept: "watches with their numbers and masks (IN_EXCL_UNLINK, IN_ONESHOT), of files and directories, also of files \
                   without a name that are open; status flags",
            not_kept: "events that wait, which can't be seen without taking them away: refused if they aren't read within a \
                       moment; a watched file that isn't found: refused; what happens between checkpoint and restart",
            privilege: "CAP_DAC_READ_SEARCH finds what is watched wherever it is; without it, only near to what the tree uses",
            workload: "file/inotify",
        }
    }

    fn records(&self) -> &'static [&'static str] {
        &[NAME, WATCHES]
    }

    fn claims(&self, file: &Seen, _: &Scene<'_>) -> bool {
        is(file)
    }

    fn collect(&self, file: &Seen, scene: &Scene<'_>, out: &mut Collected) -> Result<()> {
        if !nameless::is_ours(file, scene, "inotify", libc::O_RDONLY, out)? {
            return Ok(());
        }
        // The watches were read before: a watch that went since then has left an event.
        let doing = "looking at an inotify";
        let unread = pipe::readable(scene.duplicate(file)?.as_fd()).doing(doing, Some(scene.who(file)))?;
        if unread > 0 {
            let what = format!("inotify with {unread} bytes of events that it hasn't read");
            let why = "the kernel shows them to none but the reader, who takes them away";
            let remedy = "try again once it has read them; a program that is stopped doesn't";
            out.refuse(scene, file, UNREAD, what, why, remedy);
            return Ok(());
        }
        let lines = lines(&file.told).doing(doing, Some(scene.who(file)))?;
        let mut watches = Vec::with_capacity(lines.len());
        for line in &lines {
            let unknown = line.mask & !inotify::LASTING;
            if unknown != 0 {
                let what = format!("inotify with a watch of mask {:#x}", line.mask);
                let why = "this version doesn't know what it means";
                out.refuse(scene, file, NAME, what, why, "use a newer bardo");
                return Ok(());
            }
            let Some(target) = target(line, scene)? else {
                let Inode { ino, dev } = line.inode;
                let (major, minor) = (libc::major(dev), libc::minor(dev));
                let what = format!(
                    "inotify that watches inode {ino} on device {major}:{minor} (watch {})",
                    line.number
                );
                let why = "no path that leads to it was found, nor has the tree that file open";
                let remedy = "give bardo CAP_DAC_READ_SEARCH, which finds any file that has a path here";
                out.refuse(scene, file, NAME, what, why, remedy);
                return Ok(());
            };
            watches.push(Watch { number: line.number, mask: line.mask, target });
        }
        let last = watches.last().map_or(0, |watch| watch.number);
        let next = last.checked_add(ROOM).unwrap_or(i32::MAX);
        out.record(NAME, file.id, &OpenInotify { flags: file.flags, next })?;
        for part in watches.chunks(WATCHES_MAX) {
            out.record_late(WATCHES, &Watches { inotify: file.id, watches: part.to_vec() })?;
        }
        Ok(())
    }

    fn take(&self, record: &Record, image: &mut FilesImage) -> Result<()> {
        if record.kind == NAME {
            let file: OpenInotify = image::read(record)?;
            if file.flags & !STATUS != 0 || file.next < 1 {
                let why = format!("an inotify with the flags {:#o}, and {} next", file.flags, file.next);
                return Err(image::wrong(record, why));
            }
            image.inotifies.insert(record.id, Watching { next: file.next, watches: Vec::new() });
            return image.add(record, Box::new(file));
        }
        let part: Watches = image::read(record)?;
        for watch in &part.watches {
            match &watch.target {
                Target::Place(place) => place.validate(0, None).map_err(|why| image::wrong(record, why))?,
                Target::File(id) if image.is_opened_once(*id) => {}
                Target::File(id) => return Err(image::wrong(record, format!("there is no open file {id}"))),
            }
        }
        let has = image.inotifies.get_mut(&part.inotify);
        let has = has.ok_or_else(|| image::wrong(record, format!("there is no inotify {}", part.inotify)))?;
        for watch in part.watches {
            let last = has.watches.last().map_or(0, |last| last.number);
            if watch.number <= last || watch.mask & !inotify::LASTING != 0 {
                let why = format!("watch {} after {last}, with the mask {:#x}", watch.number, watch.mask);
                return Err(image::wrong(record, why));
            }
            has.watches.push(watch);
        }
        Ok(())
    }
}

/// What a watch is of, by its path; where it has none any more, by an open file of the tree.
fn target(line: &Line, scene: &Scene<'_>) -> Result<Option<Target>> {
    if let Some((path, stat)) = scene.watched()?.find(line.inode) {
        return Ok(Some(Target::Place(Place::of(path, 0, stat))));
    }
    let is_it = |file: &&Seen| {
        let has_one = matches!(file.stat.kind(), libc::S_IFREG | libc::S_IFDIR | libc::S_IFIFO);
        has_one
            && file.reach != Reach::Same
            && (file.stat.dev, file.stat.ino) == (line.inode.dev, line.inode.ino)
    };
    Ok(scene.files.iter().find(is_it).map(|file| Target::File(file.id)))
}

impl Watch {
    fn make(&self, fd: BorrowedFd<'_>, path: &Path, how: u32) -> bardo_kernel::Result<()> {
        inotify::set_next(fd, self.number)?;
        let got = inotify::watch(fd, path, self.mask | inotify::MUST_CREATE | how)?;
        if got == self.number {
            return Ok(());
        }
        Err(Failed::unexpected(format!("inotify_add_watch({path:?}): number {got}, not {}", self.number)))
    }
}

impl Saved for OpenInotify {
    fn what(&self) -> String {
        "inotify".into()
    }

    fn check(&self, _: &Rules<'_>) -> Vec<Hindrance> {
        Vec::new()
    }

    fn open(&self, _: u64, _: &mut Making<'_>) -> Result<OwnedFd> {
        let make = || {
            let fd = inotify::make(libc::IN_NONBLOCK)?;
            nameless::set_status(&fd, self.flags)?;
            Ok(fd)
        };
        make().doing("making an inotify", None)
    }
}

/// What keeps this host from having the watches of an image: each is made once, by an inotify of our own.
pub(super) fn check(inotifies: &BTreeMap<u64, Watching>, rules: &Rules<'_>) -> Vec<Hindrance> {
    let mut hindrances = Vec::new();
    for Watching { watches, .. } in inotifies.values() {
        let denied = |what: String, why: String, remedy: &str| Hindrance {
            code: "file/denied",
            what,
            why,
            remedy: remedy.into(),
        };
        let trial = match inotify::make(libc::IN_NONBLOCK) {
            Ok(trial) => trial,
            Err(e) => {
                let remedy = "raise fs.inotify.max_user_instances";
                hindrances.push(denied("an inotify".into(), format!("it can't be made: {e}"), remedy));
                continue;
            }
        };
        for watch in watches {
            let Target::Place(place) = &watch.target else { continue };
            let what = format!(
                "{} {}, which an inotify watches",
                type_name(place.mode & libc::S_IFMT),
                place.show()
            );
            let now = match place.find("a watched file,") {
                Ok(now) => now,
                Err(hindrance) => {
                    hindrances.push(Hindrance { what, ..hindrance });
                    continue;
                }
            };
            if now.dev == place.dev && now.ino != place.ino && rules.files == restart::Files::MustMatch {
                hindrances.push(Hindrance {
                    code: "file/changed",
                    what: format!("{what}, changed since: inode {} → {}", place.ino, now.ino),
                    why: "another file has its name, and that isn't the one that was watched".into(),
                    remedy:
                        "put back the file, or   --files ignore-changes   to watch the one that is there now"
                            .into(),
                });
                continue;
            }
            if let Err(e) = watch.make(trial.as_fd(), &place.path(), libc::IN_DONT_FOLLOW) {
                let remedy =
                    "restart as a user who may read it, with fs.inotify.max_user_watches high enough";
                hindrances.push(denied(what, format!("it can't be watched: {e}"), remedy));
            }
        }
    }
    hindrances
}

/// Makes all watches: what is done to watched files from here on is told to the program.
///
/// # Errors
/// Where this host said no.
pub(super) fn start(inotifies: &BTreeMap<u64, Watching>, pool: &Pool) -> Result<()> {
    let fd_of = |id: u64| pool.borrow(id).ok_or_else(|| Error::Bug(format!("file {id} isn't open")));
    let by_fd =
        |fd: BorrowedFd<'_>| procfs::path(std::process::id() as i32, &format!("fd/{}", fd.as_raw_fd()));
    for (id, Watching { next, watches }) in inotifies {
        let fd = fd_of(*id)?;
        for watch in watches {
            let (path, how): (PathBuf, u32) = match &watch.target {
                Target::Place(place) => (place.path(), libc::IN_DONT_FOLLOW),
                Target::File(file) => (by_fd(fd_of(*file)?), 0),
            };
            watch.make(fd, &path, how).doing("watching files again", None)?;
        }
        inotify::set_next(fd, *next).doing("watching files again", None)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_nonsense_is_refused() {
        let text = "4d ino:992041 sdev:fe00001 mask:84000fff ignored_mask:0 fhandle-bytes:2 fhandle-type:1 f_handle:4120";
        let line = parse(text).unwrap();
        assert_eq!((line.number, line.mask), (0x4d, 0x8400_0fff));
        assert_eq!(line.inode, Inode { dev: libc::makedev(254, 1), ino: 0x99_2041 });
        assert_eq!(line.handle, Some((1, vec![0x41, 0x20])));
        assert_eq!(parse("1 ino:2 sdev:3 mask:4 ignored_mask:0").unwrap().handle, None);
        for wrong in [
            "",
            "0 ino:1 sdev:1 mask:1",
            "1 ino:1 sdev:1",
            "1 ino:x sdev:1 mask:1",
            "80000000 ino:1 sdev:1 mask:1",
            "1 ino:1 sdev:1 mask:1 fhandle-type:1 f_handle:zz",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
