//! `/proc/PID/limits`: the sixteen resource limits (man 2 getrlimit, man 5 proc_pid_limits).
//!
//! Privilege: none. Kernel: any. prlimit(2) gives the same numbers, but needs CAP_SYS_RESOURCE or the same ids.

use super::text::{self, malformed, missing};
use crate::error::Result;

const FILE: &str = "limits";

/// RLIM_INFINITY: no limit.
pub const UNLIMITED: u64 = u64::MAX;

/// A limit's two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// What holds now.
    pub soft: u64,
    /// How far the process may raise it.
    pub hard: u64,
}

macro_rules! resources {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $line:literal;)*) => {
        /// What is limited. The number is RLIMIT_…, the same on all architectures bardo knows.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum Resource {
            $($(#[$doc])* $name = $number,)*
        }

        impl Resource {
            /// All of them, by number.
            pub const ALL: [Resource; 16] = [$(Resource::$name,)*];

            /// How the kernel calls it in this file.
            pub fn line(self) -> &'static str {
                match self {
                    $(Resource::$name => $line,)*
                }
            }
        }
    };
}

resources! {
    /// RLIMIT_CPU, in seconds.
    Cpu = 0, "Max cpu time";
    /// RLIMIT_FSIZE, in bytes.
    FileSize = 1, "Max file size";
    /// RLIMIT_DATA, in bytes.
    Data = 2, "Max data size";
    /// RLIMIT_STACK, in bytes.
    Stack = 3, "Max stack size";
    /// RLIMIT_CORE, in bytes.
    Core = 4, "Max core file size";
    /// RLIMIT_RSS, in bytes.
    Resident = 5, "Max resident set";
    /// RLIMIT_NPROC.
    Processes = 6, "Max processes";
    /// RLIMIT_NOFILE.
    OpenFiles = 7, "Max open files";
    /// RLIMIT_MEMLOCK, in bytes.
    Locked = 8, "Max locked memory";
    /// RLIMIT_AS, in bytes.
    AddressSpace = 9, "Max address space";
    /// RLIMIT_LOCKS.
    Locks = 10, "Max file locks";
    /// RLIMIT_SIGPENDING.
    PendingSignals = 11, "Max pending signals";
    /// RLIMIT_MSGQUEUE, in bytes.
    MessageQueues = 12, "Max msgqueue size";
    /// RLIMIT_NICE: 20 − the lowest nice value.
    Nice = 13, "Max nice priority";
    /// RLIMIT_RTPRIO.
    RealTimePriority = 14, "Max realtime priority";
    /// RLIMIT_RTTIME, in microseconds.
    RealTimeTime = 15, "Max realtime timeout";
}

/// All limits of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits(pub [Limit; 16]);

impl Limits {
    /// One of them.
    pub fn get(&self, resource: Resource) -> Limit {
        self.0[resource as usize]
    }

    /// Each with its resource.
    pub fn iter(&self) -> impl Iterator<Item = (Resource, Limit)> {
        Resource::ALL.into_iter().map(|r| (r, self.get(r)))
    }
}

/// Reads the text.
///
/// # Errors
/// EPROTO with the resource's line.
pub fn parse(text: &[u8]) -> Result<Limits> {
    let mut limits = [Limit { soft: 0, hard: 0 }; 16];
    for resource in Resource::ALL {
        let name = resource.line();
        let rest = text::lines(text)
            .find_map(|line| line.strip_prefix(name.as_bytes()).filter(|rest| rest.first() == Some(&b' ')))
            .ok_or_else(|| missing(FILE, &format!("\"{name}\" line")))?;
        let mut words = text::fields(rest);
        let mut value = || match words.next() {
            Some(b"unlimited") => Ok(UNLIMITED),
            Some(word) => text::number(FILE, name, word),
            None => Err(malformed(FILE, name, rest)),
        };
        limits[resource as usize] = Limit { soft: value()?, hard: value()? };
    }
    Ok(Limits(limits))
}

/// The limits of a process.
pub fn read(pid: i32) -> Result<Limits> {
    text::read(&super::path(pid, FILE), parse)
}
