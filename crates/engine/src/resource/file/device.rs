//! Devices that hold no state: null, zero, full, random, urandom (man 4 null, full, random).
//!
//! **In the kernel**: character devices of major number 1. What they do depends on nothing but the number.
//!
//! **In the image**: `file/device`: path, flags, the device's number.
//!
//! **Taken how**: the link, stat and fdinfo of `/proc/PID/fd/N`.
//!
//! **Put back how**: open(2) by the path, or in `/dev` by the device's name where the path isn't there (a container's
//! private `/dev`); the device found must have the old number.
//!
//! **Not saved**: every other device has state that isn't in a file: refused, `device/unknown`. Terminals belong to the
//! outside ([`super::external`]) or are refused.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use bardo_image::Record;
use bardo_kernel::{Failed, fs};
use serde::{Deserialize, Serialize};

use super::path::{Place, REOPEN};
use super::pool::Making;
use super::scene::{Scene, Seen};
use super::survey::Collected;
use super::{FilesImage, Hindrance, Kind, Rules, Saved, image};
use crate::error::{Doing, Result};
use crate::support::Support;

/// The kind.
#[derive(Debug, Clone, Copy)]
pub struct Device;

/// The record's name.
pub const NAME: &str = "file/device";

/// Minor numbers of major number 1, and their names in `/dev`.
const STATELESS: [(u32, &str); 5] = [(3, "null"), (5, "zero"), (7, "full"), (8, "random"), (9, "urandom")];

/// The record of an open device.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OpenDevice {
    /// Where it is, and how it was open.
    #[serde(flatten)]
    pub place: Place,
    /// Its major number (stat, `st_rdev`).
    pub major: u32,
    /// Its minor number.
    pub minor: u32,
}

/// Whether it is the master side of a pseudo terminal.
pub(super) fn is_master(file: &Seen) -> bool {
    let (major, minor) = (libc::major(file.stat.rdev), libc::minor(file.stat.rdev));
    (major, minor) == (5, 2) || major == 2
}

fn name(major: u32, minor: u32) -> Option<&'static str> {
    STATELESS.iter().find(|(number, _)| major == 1 && minor == *number).map(|(_, name)| *name)
}

impl Kind for Device {
    fn support(&self) -> Support {
        Support {
            kind: NAME,
            kept: "null, zero, full, random, urandom: path and flags",
            not_kept: "all other devices: refused",
            privilege: "",
            workload: "file/devices",
        }
    }

    fn records(&self) -> &'static [&'static str] {
        &[NAME]
    }

    fn claims(&self, file: &Seen, _: &Scene<'_>) -> bool {
        file.flags & libc::O_PATH == 0
            && file.stat.kind() == libc::S_IFCHR
            && name(libc::major(file.stat.rdev), libc::minor(file.stat.rdev)).is_some()
            && file.link.is_absolute()
    }

    fn collect(&self, file: &Seen, scene: &Scene<'_>, out: &mut Collected) -> Result<()> {
        if !scene.is_plain(file, out)? {
            return Ok(());
        }
        let (major, minor) = (libc::major(file.stat.rdev), libc::minor(file.stat.rdev));
        let place = Place::of(&file.link, file.flags & REOPEN, &file.stat);
        out.record(NAME, file.id, &OpenDevice { place, major, minor })
    }

    fn take(&self, record: &Record, image: &mut FilesImage) -> Result<()> {
        let file: OpenDevice = image::read(record)?;
        file.place.validate(REOPEN, Some(libc::S_IFCHR)).map_err(|why| image::wrong(record, why))?;
        if name(file.major, file.minor).is_none() {
            return Err(image::wrong(record, format!("the device {}:{}", file.major, file.minor)));
        }
        image.add(record, Box::new(file))
    }
}

impl OpenDevice {
    /// Where the device is here.
    fn find(&self) -> Option<PathBuf> {
        let name = name(self.major, self.minor)?;
        let rdev = libc::makedev(self.major, self.minor);
        let is = |path: &Path| fs::lstat(path).is_ok_and(|s| s.kind() == libc::S_IFCHR && s.rdev == rdev);
        [self.place.path(), Path::new("/dev").join(name)].into_iter().find(|path| is(path))
    }

    fn open_at(&self, path: &Path) -> bardo_kernel::Result<OwnedFd> {
        let fd = fs::open(path, self.place.flags | libc::O_NOCTTY, 0)?;
        let stat = fs::fstat(fd.as_fd())?;
        if stat.rdev == libc::makedev(self.major, self.minor) {
            return Ok(fd);
        }
        Err(Failed::unexpected(format!("open({path:?}): it isn't device {}:{} now", self.major, self.minor)))
    }
}

impl Saved for OpenDevice {
    fn what(&self) -> String {
        format!("device {} ({}:{})", self.place.show(), self.major, self.minor)
    }

    fn check(&self, _: &Rules<'_>) -> Vec<Hindrance> {
        let hindrance = |code, why: String| {
            let remedy = "restart where the device is, and may be opened".into();
            vec![Hindrance { code, what: self.what(), why, remedy }]
        };
        match self.find() {
            None => hindrance("file/missing", "there is no such device, neither there nor in /dev".into()),
            Some(path) => match self.open_at(&path) {
                Ok(_) => Vec::new(),
                Err(e) => {
                    hindrance("file/denied", format!("it can't be opened as the tree had it open: {e}"))
                }
            },
        }
    }

    fn open(&self, _: u64, _: &mut Making<'_>) -> Result<OwnedFd> {
        let path = self.find().unwrap_or_else(|| self.place.path());
        self.open_at(&path).doing(format!("opening {}", self.what()), None)
    }
}
