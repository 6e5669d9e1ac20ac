//! A gate that holds a job in the middle of its run until the test opens it.

use std::fs;
use std::path::PathBuf;

/// A gate; it is closed at first.
#[derive(Debug, Clone)]
pub struct Gate {
    path: PathBuf,
}

impl Gate {
    /// A gate that opens when this file is there.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Shell commands that wait at the gate.
    #[must_use]
    pub fn wait(&self) -> String {
        format!(
            "until [ -e '{}' ]; do sleep 0.02; done",
            self.path.display()
        )
    }

    /// Opens it, for good.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn open(&self) {
        fs::write(&self.path, "").expect("the gate opens");
    }
}
