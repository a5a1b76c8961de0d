//! A directory of this run on one file system, removed at the end.

use std::path::{Path, PathBuf};

use crate::Result;

/// The directory.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    kind: String,
}

impl Place {
    /// Makes one below `parent`.
    pub fn new(parent: &Path) -> Result<Place> {
        let parent = parent.canonicalize().map_err(|e| format!("{}: {e}", parent.display()))?;
        let path = parent.join(format!("bardo-bench-{}", std::process::id()));
        let path = if path.exists() { path.with_extension("2") } else { path };
        std::fs::create_dir(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let kind = file_system(&path).unwrap_or_else(|| "an unknown file system".into());
        Ok(Place { path, kind })
    }

    /// The name of a file that isn't there: what was is removed. Outside of what is timed, for freeing pages takes time too.
    pub fn fresh(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        remove(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(path)
    }

    /// The file system's name.
    pub fn kind(&self) -> &str {
        &self.kind
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    removed.or_else(|e| if e.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
}

/// The type of the last mount over the longest prefix of the path, as `/proc/self/mounts` has it.
fn file_system(path: &Path) -> Option<String> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (at, kind) = (words.nth(1)?, words.next()?);
        path.starts_with(at).then(|| (at.len(), kind.to_owned()))
    });
    mounts.max_by_key(|(len, _)| *len).map(|(_, kind)| kind)
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_dir_all(&self.path) {
            eprintln!("{} can't be removed: {e}", self.path.display());
        }
    }
}
