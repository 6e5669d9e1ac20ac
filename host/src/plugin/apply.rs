//! Writes a checked tree: beside the target, synced, then put in place with one rename.
//!
//! Whoever looks at the target sees no directory, the old one or the whole new one, also after a crash at any point. What
//! a crash leaves behind is a temporary beside the target, which [`collect_stale`] removes later: to look for it each time would cost
//! a look at every target beside. All access goes through directory handles, and nothing follows links.
//!
//! These functions block; call them on a blocking thread.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, DirBuilder, DirBuilderExt as _, DirEntry};
use rustix::fs::RenameFlags;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use self::writer::{Writer, open_dir};
use super::error::{Code, PluginError};
use super::tree::{CheckedTree, TreeFile};

mod writer;

/// How long nobody has touched a temporary before it counts as left behind. Writing one takes milliseconds.
pub const ABANDONED: Duration = Duration::from_secs(3_600);

/// Starts the name of a temporary; the target's name and an id follow.
const TEMPORARY: &str = ".agenticore-tmp.";

/// Whether to wait until the disk has everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sync {
    /// Every file and directory is synced before the rename, and the parent after it.
    Full,
    /// Only what is carried over is, with the directories on the way to it. For a job's directory: every attempt writes it anew, so
    /// one that a power cut left half written is never used, but what the agent recorded in it is there once.
    Kept,
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
    let done = place.replace(tree, keep, sync);
    done.map_err(|failure| place.explain(&failure))
}

/// Makes `target` a directory with copies of the paths in `keep` that are in the directory `from`, and nothing else. If `target` is
/// there already, nothing is done. Its parent must exist.
///
/// # Errors
///
/// [`Code::Write`] naming the operation and the path; there is no target then.
pub fn bring(from: &Path, target: &Path, keep: &[String]) -> Result<Applied, PluginError> {
    let (source, place) = (Place::open(from)?, Place::open(target)?);
    let done = || {
        if place.old()?.is_some() {
            return Ok(Applied::default());
        }
        let kept = source.old()?;
        place.fresh(|temporary| {
            place.fill_and_rename(temporary, &[], kept.as_ref(), keep, Sync::Full)
        })
    };
    done().map_err(|failure| place.explain(&failure))
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

    fn replace(&self, tree: &CheckedTree, keep: &[String], sync: Sync) -> Result<Applied, Failure> {
        let old = self.old()?;
        self.fresh(|temporary| {
            self.fill_and_rename(temporary, tree.files(), old.as_ref(), keep, sync)
        })
    }

    /// Does `work` with the name of a temporary, which is gone after a failure.
    fn fresh(
        &self,
        work: impl FnOnce(&str) -> Result<Applied, Failure>,
    ) -> Result<Applied, Failure> {
        let unique = uuid::Uuid::new_v4().simple();
        let temporary = format!("{TEMPORARY}{}.{unique}", self.name);
        let done = work(&temporary);
        if done.is_err() {
            // The error says more than a second one about the cleaning up; the next apply tries again.
            drop(self.parent.remove_dir_all(&temporary));
        }
        done
    }

    fn fill_and_rename(
        &self,
        temporary: &str,
        files: &[TreeFile],
        kept: Option<&Dir>,
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
        writer.write(&dir, files)?;
        if let Some(kept) = kept {
            for path in keep {
                writer.keep(kept, &dir, path)?;
            }
        }
        writer.sync_dir(&dir, ".")?;
        let replaces = self.old()?.is_some();
        if replaces {
            self.exchange(temporary)?;
        } else {
            self.parent
                .rename(temporary, &self.parent, &self.name)
                .during("renaming", temporary)?;
        }
        writer.sync_dir(&self.parent, "..")?;
        if replaces {
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
