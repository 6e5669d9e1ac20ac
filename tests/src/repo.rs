//! A git repository on disk, in the remote's place.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A bare repository with one commit on `main`.
#[derive(Debug)]
pub struct Repo {
    path: PathBuf,
}

impl Repo {
    /// Makes one at `path`, with a `README.md` on `main`.
    ///
    /// # Panics
    /// When git fails.
    pub fn create(path: PathBuf) -> Self {
        std::fs::create_dir_all(&path).expect("the folder of the repository");
        let repo = Self { path };
        repo.git(&["init", "--quiet", "--bare", "--initial-branch=main", "."]);
        repo.commit("main", "README.md", "a readme\n");
        repo
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("file://{}", self.path.display())
    }

    /// Its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Commits one file to a branch, which begins at `main` where it is new, and returns the commit.
    ///
    /// # Panics
    /// When git fails.
    pub fn commit(&self, branch: &str, file: &str, text: &str) -> String {
        self.change(branch, &format!("add {file}"), |at| {
            let target = at.join(file);
            std::fs::create_dir_all(target.parent().unwrap_or(at)).expect("the folder of the file");
            std::fs::write(target, text).expect("the file is written");
        })
    }

    /// Commits another repository to `main` as the submodule `path`.
    ///
    /// # Panics
    /// When git fails.
    pub fn add_submodule(&self, path: &str, other: &Self) {
        self.change("main", "add a submodule", |at| {
            let allow = "protocol.file.allow=always";
            let url = other.url();
            run(
                at,
                &["-c", allow, "submodule", "--quiet", "add", &url, path],
            );
        });
    }

    /// Makes a change in a clone, commits it to a branch, and returns the commit.
    fn change(&self, branch: &str, message: &str, change: impl FnOnce(&Path)) -> String {
        let work = tempfile::tempdir().expect("a work folder");
        let at = work.path();
        run(at, &["clone", "--quiet", &self.url(), "."]);
        run(at, &["config", "user.name", "Tests"]);
        run(at, &["config", "user.email", "tests@localhost"]);
        if run_maybe(at, &["checkout", "--quiet", branch]).is_none() {
            run(at, &["checkout", "--quiet", "-b", branch]);
        }
        change(at);
        run(at, &["add", "--all"]);
        run(at, &["commit", "--quiet", "--message", message]);
        run(
            at,
            &["push", "--quiet", "origin", &format!("HEAD:{branch}")],
        );
        run(at, &["rev-parse", "HEAD"]).trim().to_owned()
    }

    /// Runs git in it and returns what it printed.
    ///
    /// # Panics
    /// When git fails.
    pub fn git(&self, arguments: &[&str]) -> String {
        run(&self.path, arguments)
    }
}

fn run(at: &Path, arguments: &[&str]) -> String {
    run_maybe(at, arguments)
        .unwrap_or_else(|| panic!("git {arguments:?} failed in {}", at.display()))
}

/// Runs git without the machine's configuration; none when it fails.
fn run_maybe(at: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(at)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .stdin(Stdio::null())
        .output()
        .expect("git starts");
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
