//! What the kernel said no to: which call, with which arguments, and the errno.

use std::fmt;

use syscalls::Sysno;

/// An error number of the kernel (errno(3)).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl Errno {
    /// The name as the headers spell it, `EPERM`; `E?` for a number this list doesn't know.
    pub fn name(self) -> &'static str {
        syscalls::Errno::new(self.0).name().unwrap_or("E?")
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name())
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = syscalls::Errno::new(self.0).description().unwrap_or("unknown error");
        write!(f, "{} ({text})", self.name())
    }
}

/// A call that failed.
#[derive(Clone, thiserror::Error)]
#[error("{call}: {errno}")]
pub struct Failed {
    /// The call as a person reads it: `openat("/proc/4127/maps", O_RDONLY)`.
    pub call: String,
    /// Its error number.
    pub errno: Errno,
}

impl fmt::Debug for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Failed {
    /// A failed call with its arguments in hexadecimal; wrappers that know better replace the text by [`Failed::of`].
    pub fn new(nr: Sysno, args: [usize; 6], errno: Errno) -> Failed {
        let used = args.iter().rposition(|a| *a != 0).map_or(0, |i| i + 1);
        let args: Vec<String> = args[..used].iter().map(|a| format!("{a:#x}")).collect();
        Failed { call: format!("{}({})", nr.name(), args.join(", ")), errno }
    }

    /// The same failure with the call written out.
    #[must_use]
    pub fn of(self, call: impl Into<String>) -> Failed {
        Failed { call: call.into(), errno: self.errno }
    }

    /// A failure of our own reading: the kernel answered, but not in the form we know.
    pub fn unexpected(what: impl Into<String>) -> Failed {
        Failed { call: what.into(), errno: Errno(libc::EPROTO) }
    }

    /// Whether it failed with this errno.
    pub fn is(&self, errno: i32) -> bool {
        self.errno.0 == errno
    }
}

impl From<Failed> for std::io::Error {
    fn from(failed: Failed) -> Self {
        std::io::Error::new(std::io::Error::from_raw_os_error(failed.errno.0).kind(), failed)
    }
}

/// The result of a kernel call.
pub type Result<T> = std::result::Result<T, Failed>;
