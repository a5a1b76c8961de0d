//! `/proc/PID/smaps`: the lines of `maps`, each followed by what the kernel knows of the area (man 5 proc_pid_smaps).
//!
//! The last line of an area, `VmFlags`, is the one place where the kernel shows how an area was advised (madvise(2),
//! mlock(2), …). Codes that [`VmFlag`] doesn't list are kept as they are: an area with one has a property that we don't
//! know how to restore.
//!
//! Privilege: PTRACE_MODE_READ_FSCREDS. Kernel: any with CONFIG_PROC_PAGE_MONITOR. Cost: the kernel walks the page tables,
//! some ten times what `maps` takes.

use super::maps::{self, Area};
use super::text::{self, malformed, missing};
use crate::error::Result;

const FILE: &str = "smaps";

macro_rules! vm_flags {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// A property of an area, with the kernel's two-letter code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum VmFlag {
            $($(#[$doc])* #[doc = concat!(" (`", $code, "`)")] $name,)*
        }

        impl VmFlag {
            /// All of them.
            pub const ALL: &[VmFlag] = &[$(VmFlag::$name,)*];

            /// The kernel's code.
            pub fn code(self) -> &'static str {
                match self {
                    $(VmFlag::$name => $code,)*
                }
            }
        }
    };
}

vm_flags! {
    /// Readable.
    Read = "rd",
    /// Writable.
    Write = "wr",
    /// Executable.
    Exec = "ex",
    /// Shared.
    Shared = "sh",
    /// May be made readable.
    MayRead = "mr",
    /// May be made writable.
    MayWrite = "mw",
    /// May be made executable.
    MayExec = "me",
    /// May be shared: a MAP_SHARED mapping of any kind.
    MayShare = "ms",
    /// A stack that grows downwards: MAP_GROWSDOWN.
    GrowsDown = "gd",
    /// Page frames without `struct page`: device memory.
    PfnMap = "pf",
    /// Writes to the file are denied.
    DenyWrite = "dw",
    /// Locked in memory: mlock(2).
    Locked = "lo",
    /// Locked as pages come in: MLOCK_ONFAULT.
    LockOnFault = "lf",
    /// Memory-mapped I/O.
    Io = "io",
    /// MADV_SEQUENTIAL.
    SequentialRead = "sr",
    /// MADV_RANDOM.
    RandomRead = "rr",
    /// MADV_DONTFORK, and what drivers don't want copied.
    DontCopy = "dc",
    /// Can't be expanded by mremap(2).
    DontExpand = "de",
    /// Counted as committed memory.
    Account = "ac",
    /// No swap space reserved: MAP_NORESERVE.
    NoReserve = "nr",
    /// Huge pages of hugetlbfs.
    HugeTlb = "ht",
    /// Synchronous page faults: MAP_SYNC.
    Sync = "sf",
    /// Of an architecture: on arm64, and others.
    Arch1 = "ar",
    /// MADV_WIPEONFORK.
    WipeOnFork = "wf",
    /// MADV_DONTDUMP.
    DontDump = "dd",
    /// Soft-dirty: new or changed since the last `clear_refs`; says nothing where the kernel has no such bits.
    SoftDirty = "sd",
    /// Page frames and `struct page` mixed: device memory.
    MixedMap = "mm",
    /// MADV_HUGEPAGE.
    HugePage = "hg",
    /// MADV_NOHUGEPAGE.
    NoHugePage = "nh",
    /// MADV_MERGEABLE.
    Mergeable = "mg",
    /// A userfaultfd gets its missing pages.
    UffdMissing = "um",
    /// A userfaultfd write-protects its pages.
    UffdWp = "uw",
    /// A userfaultfd gets its minor faults.
    UffdMinor = "ui",
    /// A shadow stack.
    ShadowStack = "ss",
    /// Sealed: mseal(2).
    Sealed = "sl",
    /// Dropped under memory pressure: MAP_DROPPABLE.
    Droppable = "dp",
    /// Not linear (old kernels).
    NonLinear = "nl",
    /// Memory tagging, arm64.
    MemoryTags = "mt",
    /// Guarded pages of branch targets, arm64.
    BranchTargets = "bt",
    /// Holds or held guard regions: MADV_GUARD_INSTALL.
    MaybeGuard = "gu",
}

/// The codes of a `VmFlags` line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VmFlags {
    known: u64,
    /// Codes that [`VmFlag`] doesn't have, as written.
    pub unknown: Vec<String>,
}

impl VmFlags {
    /// Reads `rd wr mr mw me ac`.
    pub fn parse(text: &[u8]) -> VmFlags {
        let mut flags = VmFlags::default();
        for code in text::fields(text) {
            match VmFlag::ALL.iter().find(|f| f.code().as_bytes() == code) {
                Some(flag) => flags.insert(*flag),
                None => flags.unknown.push(text::words(code)),
            }
        }
        flags
    }

    /// Whether the area has this property.
    pub fn has(&self, flag: VmFlag) -> bool {
        self.known & (1 << flag as u8) != 0
    }

    /// Adds a property.
    pub fn insert(&mut self, flag: VmFlag) {
        self.known |= 1 << flag as u8;
    }

    /// Takes a property away.
    pub fn remove(&mut self, flag: VmFlag) {
        self.known &= !(1 << flag as u8);
    }

    /// The properties known here, in the order of [`VmFlag::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = VmFlag> {
        VmFlag::ALL.iter().copied().filter(|f| self.has(*f))
    }

    /// All codes, the known ones first.
    pub fn codes(&self) -> Vec<&str> {
        let known = self.iter().map(|flag| flag.code());
        known.chain(self.unknown.iter().map(String::as_str)).collect()
    }
}

/// An area and its counts, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The line as in `maps`.
    pub area: Area,
    /// The size of its pages as the kernel manages them: larger than usual for hugetlbfs.
    pub kernel_page_size: u64,
    /// Resident.
    pub rss: u64,
    /// Resident and not of a file (pages copied from a private file mapping included).
    pub anonymous: u64,
    /// Swapped out.
    pub swap: u64,
    /// Locked.
    pub locked: u64,
    /// Of hugetlbfs, mapped by others too.
    pub shared_hugetlb: u64,
    /// Of hugetlbfs, mapped here alone.
    pub private_hugetlb: u64,
    /// Its protection key; absent without hardware support.
    pub protection_key: Option<u32>,
    /// Its properties.
    pub vm_flags: VmFlags,
}

/// The keyed lines of one area, as far as they came.
#[derive(Default)]
struct Counts {
    kernel_page_size: Option<u64>,
    rss: Option<u64>,
    anonymous: Option<u64>,
    swap: Option<u64>,
    locked: Option<u64>,
    shared_hugetlb: u64,
    private_hugetlb: u64,
    protection_key: Option<u32>,
    vm_flags: Option<VmFlags>,
}

impl Counts {
    fn take(&mut self, line: &[u8]) -> Result<()> {
        let (key, value) = text::key_value(line).ok_or_else(|| malformed(FILE, "a line", line))?;
        let bytes = |name: &str| text::kilobytes(FILE, name, value);
        match key {
            b"KernelPageSize" => self.kernel_page_size = Some(bytes("KernelPageSize")?),
            b"Rss" => self.rss = Some(bytes("Rss")?),
            b"Anonymous" => self.anonymous = Some(bytes("Anonymous")?),
            b"Swap" => self.swap = Some(bytes("Swap")?),
            b"Locked" => self.locked = Some(bytes("Locked")?),
            b"Shared_Hugetlb" => self.shared_hugetlb = bytes("Shared_Hugetlb")?,
            b"Private_Hugetlb" => self.private_hugetlb = bytes("Private_Hugetlb")?,
            b"ProtectionKey" => self.protection_key = Some(text::number(FILE, "ProtectionKey", value)?),
            b"VmFlags" => self.vm_flags = Some(VmFlags::parse(value)),
            _ => {}
        }
        Ok(())
    }

    fn finish(self, area: Area) -> Result<Entry> {
        let no = |key: &str| missing(FILE, &format!("{key} line at {:x}-{:x}", area.start, area.end));
        Ok(Entry {
            kernel_page_size: self.kernel_page_size.ok_or_else(|| no("KernelPageSize"))?,
            rss: self.rss.ok_or_else(|| no("Rss"))?,
            anonymous: self.anonymous.ok_or_else(|| no("Anonymous"))?,
            swap: self.swap.ok_or_else(|| no("Swap"))?,
            locked: self.locked.ok_or_else(|| no("Locked"))?,
            shared_hugetlb: self.shared_hugetlb,
            private_hugetlb: self.private_hugetlb,
            protection_key: self.protection_key,
            vm_flags: self.vm_flags.ok_or_else(|| no("VmFlags"))?,
            area,
        })
    }
}

/// Whether a line opens an area. No key has a `-` between two hexadecimal numbers.
fn is_head(line: &[u8]) -> bool {
    text::fields(line).next().and_then(maps::range).is_some()
}

/// Reads the text.
///
/// # Errors
/// EPROTO with the line, or with the line an area lacks.
pub fn parse(text: &[u8]) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut open: Option<(Area, Counts)> = None;
    for line in text::lines(text) {
        if is_head(line) {
            if let Some((area, counts)) = open.take() {
                entries.push(counts.finish(area)?);
            }
            let area = maps::parse_line(line).map_err(|e| {
                let call = e.call.replacen("maps", FILE, 1);
                e.of(call)
            })?;
            open = Some((area, Counts::default()));
        } else {
            open.as_mut().ok_or_else(|| malformed(FILE, "the first line", line))?.1.take(line)?;
        }
    }
    if let Some((area, counts)) = open {
        entries.push(counts.finish(area)?);
    }
    Ok(entries)
}

/// How much is asked for at once. The kernel gathers areas in a buffer of one page (seq_file) until there are as many bytes
/// as were asked for. An area that doesn't fit any more is thrown away and made again at the next call, and to make one is
/// to walk its page tables: 13 ms for a GiB. Asked for less than a page by somewhat more than an area takes (some 700 bytes),
/// it stops before that.
const PIECE: usize = 3 << 10;

/// The areas of a process with their counts.
pub fn read(pid: i32) -> Result<Vec<Entry>> {
    text::read_in_pieces(&super::path(pid, FILE), PIECE, parse)
}
