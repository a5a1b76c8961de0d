//! A test's own directory, removed when the test is over (unless it failed, or `BARDO_TEST_KEEP=1`).

use std::path::{Path, PathBuf};

/// A directory of one test.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
}

impl Place {
    /// Makes a new directory, named after the test and this process.
    ///
    /// # Panics
    /// When it can't be made.
    pub fn new(name: &str) -> Place {
        let name = name.replace(['/', ' ', ':'], "-");
        let parent = std::env::temp_dir().canonicalize().expect("the temporary directory");
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("main").replace("::", "-");
        let path = parent.join(format!("bardo-test-{}-{test}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Place { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// What a file in it holds; nothing if there is none.
    pub fn read(&self, name: &str) -> String {
        String::from_utf8_lossy(&std::fs::read(self.join(name)).unwrap_or_default()).into_owned()
    }

    /// The names in it.
    ///
    /// # Panics
    /// When it can't be listed.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.path).expect("the test's directory");
        let mut names: Vec<_> =
            entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() || std::env::var_os("BARDO_TEST_KEEP").is_some() {
            eprintln!("left for a look: {}", self.path.display());
        } else if let Err(e) = std::fs::remove_dir_all(&self.path) {
            eprintln!("{} can't be removed: {e}", self.path.display());
        }
    }
}
