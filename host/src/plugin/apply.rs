//! Writes a checked tree: beside the target, synced, then put in place with one rename.
//!
//! Whoever looks at the target sees no directory, the old one or the whole new one, also after a crash at any point. What
//! a crash leaves behind is a temporary beside the target; [`apply`] removes those of its own target, [`collect_stale`]
//! those of targets that are never written again. All access goes through directory handles, and nothing follows links.
//!
//! These functions block; call them on a blocking thread.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use cap_std::ambient_authority;
use cap_std::fs::{
    Dir, DirBuilder, DirBuilderExt as _, DirEntry, OpenOptions, OpenOptionsExt as _,
};
use rustix::fs::RenameFlags;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::error::{Code, PluginError};
use super::tree::{CheckedTree, TreeFile};
use super::types::FileMode;

/// Starts the name of a temporary; the target's name and an id follow.
const TEMPORARY: &str = ".agenticore-tmp.";

/// How deep kept directories may nest, against trees that were made to exhaust the stack.
const MAX_KEPT_DEPTH: usize = 64;

/// Whether to wait until the disk has everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sync {
    /// Every file and directory is synced before the rename, and the parent after it.
    Full,
    /// Nothing is; for benchmarks, and for directories that do not outlive the machine.
    None,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Files of the tree.
    pub files: u64,
    /// Files and directories carried over from the directory that was there before.
    pub kept: u64,
    /// Links, devices and the like that were found below kept paths and left out.
    pub skipped: u64,
}

/// An operation that failed, with the path it was about.
struct Failure {
    doing: &'static str,
    path: String,
    source: io::Error,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}` failed: {}", self.doing, self.path, self.source)
    }
}

trait During<T> {
    fn during(self, doing: &'static str, path: &str) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> During<T> for Result<T, E> {
    fn during(self, doing: &'static str, path: &str) -> Result<T, Failure> {
        self.map_err(|source| Failure {
            doing,
            path: path.to_owned(),
            source: source.into(),
        })
    }
}

/// Writes `tree` as the directory `target`, whose parent must exist. If `target` is there already, the paths in `keep` are
/// carried over and the rest of it is removed. Only one caller at a time may write the same target.
///
/// # Errors
///
/// [`Code::Write`] naming the operation and the path. The target is as it was then.
pub fn apply(
    tree: &CheckedTree,
    target: &Path,
    keep: &[String],
    sync: Sync,
) -> Result<Applied, PluginError> {
    let place = Place::open(target)?;
    let done = place
        .remove_temporaries()
        .and_then(|()| place.replace(tree, keep, sync));
    done.map_err(|failure| place.explain(&failure))
}

/// Removes temporaries in `parent` that nobody has touched for `older_than`. Returns how many were removed.
///
/// # Errors
///
/// [`Code::Write`] if the directory cannot be listed; a temporary that cannot be removed is left for the next time.
pub fn collect_stale(parent: &Path, older_than: Duration) -> Result<u64, PluginError> {
    let wrong = |error: io::Error| {
        PluginError::new(
            Code::Write,
            format!("listing {} failed: {error}", parent.display()),
        )
    };
    let dir = Dir::open_ambient_dir(parent, ambient_authority()).map_err(wrong)?;
    let mut removed = 0;
    for entry in dir.entries().map_err(wrong)? {
        let entry = entry.map_err(wrong)?;
        let name = entry.file_name();
        if !name.to_string_lossy().starts_with(TEMPORARY) || !is_older(&entry, older_than) {
            continue;
        }
        match dir.remove_dir_all(&name) {
            Ok(()) => removed += 1,
            Err(error) => {
                tracing::warn!(name = %name.to_string_lossy(), %error, "a stale temporary stays")
            }
        }
    }
    Ok(removed)
}

fn is_older(entry: &DirEntry, than: Duration) -> bool {
    let modified = entry
        .metadata()
        .and_then(|metadata| metadata.modified())
        .map(|time| time.into_std());
    modified.is_ok_and(|time: SystemTime| time.elapsed().is_ok_and(|age| age >= than))
}

/// A target as its open parent and its name.
struct Place {
    parent: Dir,
    name: String,
    shown: String,
}

impl Place {
    fn open(target: &Path) -> Result<Self, PluginError> {
        let shown = target.display().to_string();
        let wrong =
            |what: String| PluginError::new(Code::Write, format!("writing {shown} failed: {what}"));
        let name = target.file_name().and_then(|name| name.to_str());
        let name = name
            .ok_or_else(|| wrong("it has no name".to_owned()))?
            .to_owned();
        let parent = target
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let parent = Dir::open_ambient_dir(parent.unwrap_or(Path::new(".")), ambient_authority())
            .map_err(|error| wrong(format!("its parent cannot be opened: {error}")))?;
        Ok(Self {
            parent,
            name,
            shown,
        })
    }

    fn explain(&self, failure: &Failure) -> PluginError {
        PluginError::new(
            Code::Write,
            format!("writing {} failed: {failure}", self.shown),
        )
    }

    fn temporary_prefix(&self) -> String {
        format!("{TEMPORARY}{}.", self.name)
    }

    fn remove_temporaries(&self) -> Result<(), Failure> {
        let prefix = self.temporary_prefix();
        for entry in self.parent.entries().during("listing", ".")? {
            let name = entry.during("listing", ".")?.file_name();
            if name.to_string_lossy().starts_with(&prefix) {
                self.parent
                    .remove_dir_all(&name)
                    .during("removing", &name.to_string_lossy())?;
            }
        }
        Ok(())
    }

    fn replace(&self, tree: &CheckedTree, keep: &[String], sync: Sync) -> Result<Applied, Failure> {
        let temporary = format!(
            "{}{}",
            self.temporary_prefix(),
            uuid::Uuid::new_v4().simple()
        );
        let replaced = self.fill_and_rename(&temporary, tree, keep, sync);
        if replaced.is_err() {
            // The error says more than a second one about the cleaning up; the next apply tries again.
            drop(self.parent.remove_dir_all(&temporary));
        }
        replaced
    }

    fn fill_and_rename(
        &self,
        temporary: &str,
        tree: &CheckedTree,
        keep: &[String],
        sync: Sync,
    ) -> Result<Applied, Failure> {
        let mut private = DirBuilder::new();
        private.mode(0o700);
        self.parent
            .create_dir_with(temporary, &private)
            .during("creating", temporary)?;
        let dir = open_dir(&self.parent, temporary).during("opening", temporary)?;
        let mut writer = Writer {
            sync,
            applied: Applied::default(),
        };
        writer.write(&dir, tree.files())?;
        let old = self.old()?;
        if let Some(old) = &old {
            for path in keep {
                writer.keep(old, &dir, path)?;
            }
        }
        writer.sync_dir(&dir, ".")?;
        if old.is_some() {
            self.exchange(temporary)?;
        } else {
            self.parent
                .rename(temporary, &self.parent, &self.name)
                .during("renaming", temporary)?;
        }
        writer.sync_dir(&self.parent, "..")?;
        if old.is_some() {
            self.parent
                .remove_dir_all(temporary)
                .during("removing", temporary)?;
        }
        Ok(writer.applied)
    }

    /// The directory that is there now.
    fn old(&self) -> Result<Option<Dir>, Failure> {
        match open_dir(&self.parent, &self.name) {
            Ok(dir) => Ok(Some(dir)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).during("opening", &self.name),
        }
    }

    /// Swaps the temporary and the target in one step. File systems that cannot do so get two steps, between which
    /// there is no directory at the target, which is also a state that a restart knows.
    fn exchange(&self, temporary: &str) -> Result<(), Failure> {
        let flags = RenameFlags::EXCHANGE;
        let swapped =
            rustix::fs::renameat_with(&self.parent, temporary, &self.parent, &self.name, flags);
        match swapped {
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                self.exchange_in_two_steps(temporary)
            }
            other => other.during("exchanging", temporary),
        }
    }

    fn exchange_in_two_steps(&self, temporary: &str) -> Result<(), Failure> {
        let aside = format!("{temporary}-old");
        self.parent
            .rename(&self.name, &self.parent, &aside)
            .during("renaming", &self.name)?;
        if let Err(error) = self.parent.rename(temporary, &self.parent, &self.name) {
            drop(self.parent.rename(&aside, &self.parent, &self.name));
            return Err(error).during("renaming", temporary);
        }
        self.parent
            .rename(&aside, &self.parent, temporary)
            .during("renaming", &aside)
    }
}

struct Writer {
    sync: Sync,
    applied: Applied,
}

impl Writer {
    /// Writes files that are sorted by path; each directory is made and opened once.
    fn write(&mut self, root: &Dir, files: &[TreeFile]) -> Result<(), Failure> {
        let mut open: Vec<(String, Dir)> = Vec::new();
        for file in files {
            let (parent, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
            while open.last().is_some_and(|(path, _)| !contains(path, parent)) {
                self.close(open.pop())?;
            }
            self.descend(root, &mut open, parent)?;
            let dir = open.last().map_or(root, |(_, dir)| dir);
            self.write_file(dir, name, file)?;
        }
        while let Some(last) = open.pop() {
            self.close(Some(last))?;
        }
        Ok(())
    }

    /// Makes and opens what is missing on the way to `parent`.
    fn descend(
        &self,
        root: &Dir,
        open: &mut Vec<(String, Dir)>,
        parent: &str,
    ) -> Result<(), Failure> {
        loop {
            let (at, dir) = open
                .last()
                .map_or(("", root), |(path, dir)| (path.as_str(), dir));
            let rest = parent
                .strip_prefix(at)
                .unwrap_or(parent)
                .trim_start_matches('/');
            let name = rest.split('/').next().unwrap_or_default();
            if name.is_empty() {
                return Ok(());
            }
            let path = if at.is_empty() {
                name.to_owned()
            } else {
                format!("{at}/{name}")
            };
            dir.create_dir(name).during("creating", &path)?;
            let next = open_dir(dir, name).during("opening", &path)?;
            open.push((path, next));
        }
    }

    fn close(&self, dir: Option<(String, Dir)>) -> Result<(), Failure> {
        dir.map_or(Ok(()), |(path, dir)| self.sync_dir(&dir, &path))
    }

    fn write_file(&mut self, dir: &Dir, name: &str, file: &TreeFile) -> Result<(), Failure> {
        use io::Write as _;
        let mode = match file.mode {
            FileMode::Regular => 0o644,
            FileMode::Executable => 0o755,
        };
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(mode);
        let mut written = dir
            .open_with(name, &options)
            .during("creating", &file.path)?;
        written
            .write_all(&file.bytes)
            .during("writing", &file.path)?;
        if self.sync == Sync::Full {
            written.sync_all().during("syncing", &file.path)?;
        }
        self.applied.files += 1;
        Ok(())
    }

    fn sync_dir(&self, dir: &Dir, path: &str) -> Result<(), Failure> {
        if self.sync == Sync::None {
            return Ok(());
        }
        // A handle may be one that only names its directory; the system does not sync such.
        open_dir(dir, ".")
            .and_then(|dir| Ok(rustix::fs::fsync(dir)?))
            .during("syncing", path)
    }

    /// Carries one kept path over, if it is there.
    fn keep(&mut self, old: &Dir, new: &Dir, path: &str) -> Result<(), Failure> {
        let mut from = old.try_clone().during("opening", path)?;
        let mut to = new.try_clone().during("opening", path)?;
        let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
        for parent in parents.split('/').filter(|parent| !parent.is_empty()) {
            from = match open_dir(&from, parent) {
                Ok(dir) => dir,
                Err(_) => return Ok(()),
            };
            match to.create_dir(parent) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).during("creating", path),
            }
            to = open_dir(&to, parent).during("opening", path)?;
        }
        self.copy(&from, &to, name, path, 0)?;
        self.sync_dir(&to, path)
    }

    fn copy(
        &mut self,
        from: &Dir,
        to: &Dir,
        name: &str,
        path: &str,
        depth: usize,
    ) -> Result<(), Failure> {
        let metadata = match from.symlink_metadata(name) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).during("reading", path),
        };
        if metadata.is_dir() && depth < MAX_KEPT_DEPTH {
            self.copy_dir(from, to, name, path, depth)
        } else if metadata.is_file() {
            self.copy_file(from, to, name, path)
        } else {
            // The agent may have left links, pipes or devices; none of them is followed or made again.
            self.applied.skipped += 1;
            Ok(())
        }
    }

    fn copy_dir(
        &mut self,
        from: &Dir,
        to: &Dir,
        name: &str,
        path: &str,
        depth: usize,
    ) -> Result<(), Failure> {
        let from = open_dir(from, name).during("opening", path)?;
        to.create_dir(name).during("creating", path)?;
        let to = open_dir(to, name).during("opening", path)?;
        self.applied.kept += 1;
        for entry in from.entries().during("listing", path)? {
            let name = entry.during("listing", path)?.file_name();
            let Some(name) = name.to_str() else {
                self.applied.skipped += 1;
                continue;
            };
            self.copy(&from, &to, name, &format!("{path}/{name}"), depth + 1)?;
        }
        self.sync_dir(&to, path)
    }

    fn copy_file(&mut self, from: &Dir, to: &Dir, name: &str, path: &str) -> Result<(), Failure> {
        let mut read = OpenOptions::new();
        read.read(true).custom_flags(flag(
            rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK,
        ));
        let mut source = from.open_with(name, &read).during("reading", path)?;
        let metadata = source.metadata().during("reading", path)?;
        if !metadata.is_file() {
            self.applied.skipped += 1;
            return Ok(());
        }
        let executable = cap_std::fs::MetadataExt::mode(&metadata) & 0o100 != 0;
        let mut write = OpenOptions::new();
        write
            .write(true)
            .create_new(true)
            .mode(if executable { 0o755 } else { 0o644 });
        let mut copy = to.open_with(name, &write).during("creating", path)?;
        io::copy(&mut source, &mut copy).during("copying", path)?;
        if self.sync == Sync::Full {
            copy.sync_all().during("syncing", path)?;
        }
        self.applied.kept += 1;
        Ok(())
    }
}

/// Opens a directory by its name in `dir`, and never what a link there points to.
fn open_dir(dir: &Dir, name: &str) -> io::Result<Dir> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    Ok(Dir::from_std_file(opened.into()))
}

fn flag(flags: rustix::fs::OFlags) -> i32 {
    flags.bits().cast_signed()
}

/// Whether `path` is `dir` or below it.
fn contains(dir: &str, path: &str) -> bool {
    path.strip_prefix(dir)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
