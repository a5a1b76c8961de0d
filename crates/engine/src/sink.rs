//! Where an image goes: a file that appears whole or not at all, or a stream.
//!
//! A file is written under a temporary name in its directory, made durable (fsync(2)), and only then given its name: by
//! renameat2(2), which fails if something is there unless `--force` allows it. Killed in
//! between, a temporary file `.NAME.bardo-PID` stays behind; the next checkpoint to the same name removes it.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use bardo_kernel::{Failed, fs, ptrace};

use crate::checkpoint::Sink;
use crate::error::{Doing, Error, Refusal, Result};

/// An open sink.
#[derive(Debug)]
pub struct Output {
    stream: fs::Stream,
    file: Option<Unfinished>,
}

#[derive(Debug)]
struct Unfinished {
    temporary: PathBuf,
    name: PathBuf,
    force: bool,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = fs::unlink(&self.temporary);
    }
}

impl Output {
    /// Opens it. For a file, says what an earlier bardo that died left there, and removes it.
    pub fn open(sink: Sink, cleaned: &mut Vec<String>) -> Result<Output> {
        let (path, force) = match sink {
            Sink::Stream(fd) => return Ok(Output { stream: fs::Stream(fd), file: None }),
            Sink::File { path, force } => (path, force),
        };
        if !force && fs::lstat(&path).is_ok() {
            return Err(taken(&path));
        }
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let prefix = format!(".{name}.bardo-");
        for entry in fs::list(&directory).doing(format!("looking into {directory:?}"), None)? {
            let left = entry.to_string_lossy().strip_prefix(&prefix).and_then(|pid| pid.parse::<i32>().ok());
            if left.is_some_and(|pid| ptrace::kill_would(pid).is_err()) {
                let _ = fs::unlink(&directory.join(&entry));
                cleaned.push(format!("{}: an unfinished image", directory.join(&entry).display()));
            }
        }
        let temporary = directory.join(format!("{prefix}{}", std::process::id()));
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
        let fd = fs::open(&temporary, flags, 0o600).doing("making the image's file", None)?;
        Ok(Output { stream: fs::Stream(fd), file: Some(Unfinished { temporary, name: path, force }) })
    }

    /// The descriptor that is written to.
    pub fn fd(&self) -> &OwnedFd {
        &self.stream.0
    }

    /// The image is sealed: makes it durable and gives it its name.
    pub fn finish(self) -> Result<()> {
        let Some(file) = self.file else { return Ok(()) };
        fs::sync(self.stream.0.as_fd()).doing("making the image durable", None)?;
        if file.force {
            fs::rename(&file.temporary, &file.name).doing("giving the image its name", None)?;
        } else {
            match fs::rename_new(&file.temporary, &file.name) {
                Err(e) if e.is(libc::EEXIST) => return Err(taken(&file.name)),
                other => other.doing("giving the image its name", None)?,
            }
        }
        let directory = file.name.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let directory = fs::open(directory, libc::O_RDONLY | libc::O_DIRECTORY, 0);
        // Without the directory's own sync, a power cut may lose the name; not every file system can.
        let _ = directory.and_then(|fd| fs::sync(fd.as_fd()));
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn taken(path: &Path) -> Error {
    Error::Conflict(vec![Refusal {
        who: None,
        fd: None,
        what: format!("{} is there already", path.display()),
        code: "image/exists",
        why: "an image is never overwritten unasked".into(),
        remedy: "name another file with -o, or add --force".into(),
    }])
}

/// A failed write as a kernel failure: which call, and what to do where the disk is full.
pub fn write_failed(error: &io::Error) -> Error {
    let errno = error.get_ref().and_then(|inner| inner.downcast_ref::<Failed>()).cloned();
    let call = errno.unwrap_or_else(|| Failed {
        call: format!("write: {error}"),
        errno: bardo_kernel::Errno(error.raw_os_error().unwrap_or(libc::EIO)),
    });
    let remedy = match call.errno.0 {
        libc::ENOSPC | libc::EDQUOT => Some("make room, or write the image elsewhere with -o".to_owned()),
        libc::EPIPE => Some("whoever reads the stream has gone: look at its own errors".to_owned()),
        _ => None,
    };
    Error::Failed(crate::error::Failure {
        doing: "writing the image".into(),
        who: None,
        call: Some(call),
        left: "the tree runs on, untouched; the unfinished image was removed".into(),
        remedy,
    })
}
