//! A memory area as an image describes it: one line of `/proc/PID/smaps`, without what changes by itself.
//!
//! What one line shows and this type leaves out: counts of pages (rss, swap, …); flags that follow from the rest
//! (`mr mw me ms sh`, `sd`), since mmap(2) computes them anew; the device and inode, which are in the table of files.

use std::fmt;
use std::path::{Path, PathBuf};

use bardo_image::Blob;
use bardo_kernel::procfs::smaps::{VmFlag, VmFlags};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Bytes of a page.
pub const PAGE: u64 = bardo_image::PAGE as u64;
/// The lowest address an image may ask for: the usual vm.mmap_min_addr.
pub const USER_MIN: u64 = 0x10000;
/// The end of the address space that mmap(2) gives without being asked for more (four-level page tables).
pub const USER_MAX: u64 = 0x7fff_ffff_f000;

/// A stretch of addresses: first, and the one behind the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Span {
    /// The first address.
    pub start: u64,
    /// The address behind the last.
    pub end: u64,
}

impl Span {
    /// Its length in bytes.
    pub fn len(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether it has no length.
    pub fn is_empty(self) -> bool {
        self.end <= self.start
    }

    /// What both have in common; empty if nothing.
    pub fn cut(self, other: Span) -> Span {
        let start = self.start.max(other.start);
        Span { start, end: self.end.min(other.end).max(start) }
    }

    /// Whether they share an address.
    pub fn meets(self, other: Span) -> bool {
        !self.cut(other).is_empty()
    }

    /// Whether all of `other` lies in it.
    pub fn holds(self, other: Span) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// Whether it is made of whole pages of user space, at least one.
    pub fn is_sound(self) -> bool {
        self.start < self.end
            && self.start.is_multiple_of(PAGE)
            && self.end.is_multiple_of(PAGE)
            && self.start >= USER_MIN
            && self.end <= USER_MAX
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.start, self.end)
    }
}

/// The properties of an area that a restart sets, by the kernel's two-letter codes (`gd nr wf`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags(VmFlags);

impl Flags {
    /// Those that are kept.
    pub const KEPT: &[VmFlag] = &[
        VmFlag::GrowsDown,
        VmFlag::Locked,
        VmFlag::LockOnFault,
        VmFlag::SequentialRead,
        VmFlag::RandomRead,
        VmFlag::DontCopy,
        VmFlag::Account,
        VmFlag::NoReserve,
        VmFlag::WipeOnFork,
        VmFlag::DontDump,
        VmFlag::HugePage,
        VmFlag::NoHugePage,
        VmFlag::Mergeable,
        VmFlag::Sealed,
        VmFlag::Droppable,
    ];

    /// Those among an area's properties that are kept.
    pub fn of(flags: &VmFlags) -> Flags {
        let mut kept = VmFlags::default();
        for flag in Self::KEPT.iter().filter(|f| flags.has(**f)) {
            kept.insert(*flag);
        }
        Flags(kept)
    }

    /// Whether the area has this property.
    pub fn has(&self, flag: VmFlag) -> bool {
        self.0.has(flag)
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.0 == VmFlags::default()
    }
}

impl Serialize for Flags {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.codes().join(" "))
    }
}

impl<'de> Deserialize<'de> for Flags {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Flags, D::Error> {
        let text = String::deserialize(deserializer)?;
        let flags = VmFlags::parse(text.as_bytes());
        let kept = Flags::of(&flags);
        if kept.0 == flags {
            Ok(kept)
        } else {
            Err(de::Error::custom(format!("area flags {text:?}, not all of which a restart can set")))
        }
    }
}

/// A path: text where it is UTF-8, bytes where not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilePath(pub PathBuf);

impl AsRef<Path> for FilePath {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Serialize for FilePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use std::os::unix::ffi::OsStrExt;
        match self.0.to_str() {
            Some(text) => serializer.serialize_str(text),
            None => Blob::from(self.0.as_os_str().as_bytes()).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for FilePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<FilePath, D::Error> {
        use std::os::unix::ffi::OsStringExt;
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = FilePath;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a path as text or bytes")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<FilePath, E> {
                Ok(FilePath(PathBuf::from(text)))
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<FilePath, E> {
                Ok(FilePath(PathBuf::from(std::ffi::OsString::from_vec(bytes.to_vec()))))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// What lies behind an area.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backing {
    /// Nothing: private anonymous memory, the heap, stacks.
    Anonymous,
    /// A file of the space's table.
    File {
        /// Which one.
        file: u32,
        /// Where in it the area begins, in bytes.
        offset: u64,
        /// For a shared mapping, whether it may be made writable: it was made from a descriptor open to write.
        #[serde(default, skip_serializing_if = "is_default")]
        writable: bool,
    },
    /// An inode that has no name (`memory/inode`).
    Inode {
        /// Its id.
        inode: u64,
        /// Where in it the area begins, in bytes.
        offset: u64,
        /// As for a file.
        #[serde(default, skip_serializing_if = "is_default")]
        writable: bool,
    },
    /// A shared anonymous object.
    Object {
        /// Its id.
        object: u64,
        /// Where in it the area begins, in bytes.
        offset: u64,
    },
    /// The kernel's code in user space.
    Vdso,
    /// Its data.
    Vvar,
    /// Its clock pages.
    VvarVclock,
}

impl Backing {
    /// Whether the kernel made it: vdso and its data.
    pub fn is_kernels(&self) -> bool {
        matches!(self, Backing::Vdso | Backing::Vvar | Backing::VvarVclock)
    }

    /// Whether a file lies behind it that a private page hides.
    pub fn is_file(&self) -> bool {
        matches!(self, Backing::File { .. } | Backing::Inode { .. })
    }
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// One area.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Area {
    /// Its first address.
    pub start: u64,
    /// The address behind its last.
    pub end: u64,
    /// PROT_ bits of mmap(2).
    pub prot: u32,
    /// MAP_SHARED.
    #[serde(default, skip_serializing_if = "is_default")]
    pub shared: bool,
    /// Its properties.
    #[serde(default, skip_serializing_if = "Flags::is_empty")]
    pub flags: Flags,
    /// What lies behind it.
    pub backing: Backing,
    /// Its name, where it is anonymous and was given one (PR_SET_VMA_ANON_NAME).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<FilePath>,
}

impl Area {
    /// Where it is.
    pub fn span(&self) -> Span {
        Span { start: self.start, end: self.end }
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.span().len()
    }

    /// Whether it has no length; no sound area has.
    pub fn is_empty(&self) -> bool {
        self.span().is_empty()
    }

    /// Whether its pages can differ from what lies behind it, so that an image must hold them.
    pub fn has_own_pages(&self) -> bool {
        // What may vanish at any time has vanished.
        !self.shared && !self.backing.is_kernels() && !self.flags.has(VmFlag::Droppable)
    }

    /// The protection while pages are put into it.
    ///
    /// Memory that was ever writable counts as committed (`ac`), and stays so when it is made read-only; memory that never
    /// was doesn't. So the area is made writable first exactly where it was, and what is to be filled and isn't writable
    /// goes through `/proc/PID/mem`.
    pub fn fill_prot(&self) -> u32 {
        let was_writable = self.flags.has(VmFlag::Account) && !self.shared;
        match self.backing {
            // The mapping it is a duplicate of can be written.
            Backing::Object { .. } => (libc::PROT_READ | libc::PROT_WRITE) as u32,
            _ if was_writable => self.prot | libc::PROT_WRITE as u32,
            _ => self.prot,
        }
    }

    /// The first rule that it breaks, as no area of a real process does.
    pub fn fault(&self, files: usize) -> Option<String> {
        let span = self.span();
        let known = (libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC) as u32;
        let end_of = |offset: u64| {
            offset.is_multiple_of(PAGE)
                && offset.checked_add(self.len()).is_some_and(|e| e <= i64::MAX as u64)
        };
        if !span.is_sound() {
            return Some(format!("the area {span} isn't made of pages of user space"));
        }
        if self.prot & !known != 0 {
            return Some(format!("the area {span} has the protection {:#x}", self.prot));
        }
        let shared_stack = self.shared && self.flags.has(VmFlag::GrowsDown);
        match self.backing {
            _ if shared_stack => Some(format!("the area {span} is a stack, and shared")),
            Backing::Anonymous if !self.shared => None,
            _ if self.flags.has(VmFlag::Droppable) => {
                Some(format!("the area {span} may be dropped, and isn't private and anonymous"))
            }
            Backing::File { file, .. } if file as usize >= files => {
                Some(format!("the area {span} is of file {file}, and there are {files}"))
            }
            Backing::File { offset, .. } | Backing::Inode { offset, .. } | Backing::Object { offset, .. }
                if !end_of(offset) =>
            {
                Some(format!("the area {span} begins at {offset:#x} of its file"))
            }
            Backing::File { writable: true, .. } | Backing::Inode { writable: true, .. } if !self.shared => {
                Some(format!("the area {span} is private, and writes to its file"))
            }
            Backing::File { writable: false, .. } | Backing::Inode { writable: false, .. }
                if self.shared && self.prot & libc::PROT_WRITE as u32 != 0 =>
            {
                Some(format!("the area {span} writes to a file that may only be read"))
            }
            Backing::Anonymous if self.shared => {
                Some(format!("the area {span} is anonymous and shared, without an object"))
            }
            Backing::Object { .. } if !self.shared => {
                Some(format!("the area {span} is private, of a shared object"))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(backing: Backing, shared: bool) -> Area {
        Area { start: 0x10000, end: 0x12000, prot: 3, shared, flags: Flags::default(), backing, name: None }
    }

    #[test]
    fn only_what_a_process_can_have_is_sound() {
        assert_eq!(area(Backing::Anonymous, false).fault(0), None);
        assert!(area(Backing::Anonymous, true).fault(0).is_some());
        let file = |writable| Backing::File { file: 0, offset: 0x1000, writable };
        assert_eq!(area(file(true), true).fault(1), None);
        assert!(area(file(true), true).fault(0).is_some(), "no such file");
        assert!(area(file(false), true).fault(1).is_some(), "writes to a file open to read");
        assert!(area(file(true), false).fault(1).is_some());
        let past = Backing::File { file: 0, offset: u64::MAX - 0xfff, writable: false };
        assert!(area(past, false).fault(1).is_some());
        let odd = Backing::File { file: 0, offset: 5, writable: false };
        assert!(area(odd, false).fault(1).is_some());
        for (start, end) in [(0x10001, 0x12000), (0x12000, 0x10000), (0, 0x1000), (0x10000, !0xfff)] {
            assert!(
                Area { start, end, ..area(Backing::Anonymous, false) }.fault(0).is_some(),
                "{start:x}-{end:x}"
            );
        }
        assert!(Area { prot: 8, ..area(Backing::Anonymous, false) }.fault(0).is_some());
    }

    #[test]
    fn flags_are_read_only_if_all_can_be_set() {
        let read = |text: &str| bardo_image::Value::Text(text.into()).deserialized::<Flags>();
        let flags = read("gd ac nr").unwrap();
        assert!(flags.has(VmFlag::GrowsDown) && flags.has(VmFlag::NoReserve) && !flags.has(VmFlag::Locked));
        assert!(read("gd zz").is_err());
        assert!(read("ht").is_err(), "known, but no restart can set it");
    }
}
