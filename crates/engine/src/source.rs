//! Where an image is read from.
//!
//! A file says at its end whether it is whole: it is asked before anything is made. A stream says so when it has been read; until
//! then nothing that was made runs.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use bardo_image::{RandomAccess, ReadAt, Reader, verify};
use bardo_kernel::{fcntl, fs};

use crate::error::{Doing, Error, Result};

/// Where the image comes from.
#[derive(Debug)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// A stream that is already open.
    Stream(OwnedFd),
}

/// A source under way.
pub type Input = Reader<io::BufReader<fs::Stream>>;

impl Source {
    /// Opens it and reads the image's header.
    ///
    /// # Errors
    /// [`Error::Image`]: it is none, or a file without its end.
    pub fn open(&self) -> Result<Input> {
        let stream = match self {
            Source::File(path) => fs::open_read(path).doing(format!("opening {}", path.display()), None)?,
            Source::Stream(fd) => fcntl::duplicate(fd.as_fd(), 3).doing("taking the stream", None)?,
        };
        if let Source::File(_) = self {
            expect_whole(stream.as_fd())?;
        }
        Reader::open(io::BufReader::with_capacity(1 << 16, fs::Stream(stream))).map_err(Error::Image)
    }
}

fn expect_whole(file: BorrowedFd<'_>) -> Result<()> {
    let stat = fs::fstat(file).doing("looking at the image's file", None)?;
    if stat.kind() != libc::S_IFREG {
        return Ok(());
    }
    let whole = RandomAccess::open(Regular { file, size: stat.size }).map(drop);
    whole.map_err(|unsealed| {
        // Why it ends early may be told in it.
        let stream = FromStart { file, at: 0 };
        let read = verify(io::BufReader::with_capacity(1 << 16, stream), |_| {});
        Error::Image(read.err().unwrap_or(unsealed))
    })
}

struct Regular<'a> {
    file: BorrowedFd<'a>,
    size: u64,
}

impl ReadAt for Regular<'_> {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        Ok(fs::pread(self.file, into, at)?)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.size)
    }
}

/// A file from its start, whose own offset stays where it is.
struct FromStart<'a> {
    file: BorrowedFd<'a>,
    at: u64,
}

impl io::Read for FromStart<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = fs::pread(self.file, into, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}
