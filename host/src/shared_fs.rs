//! The layout of the shared file system: its folders, and the bundled profiles in it.
//!
//! [`init`] may run as often as one likes, on several machines at once, and may be killed anywhere: a profile's folder is either
//! absent or whole. What it did before is kept in [`LAYOUT_FILE`], so that a profile the operator edited is told from one that an
//! older version copied. What profiles mean belongs to [`crate::profile`].

mod layout;
mod profile_dir;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::{self, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use self::layout::{Known, Layout, Version};
use self::profile_dir::{Put, State};
use crate::bundled;

/// Below the root: which layout this is, and the digests of the profiles that were copied.
pub const LAYOUT_FILE: &str = ".agenticore-layout.json";

/// The folders of the layout: profiles, clones, configuration of jobs, records of jobs.
pub const FOLDERS: [&str; 4] = ["profiles", "repos", "jobs", "job-state"];

/// Below the root: held by the run at work, where the file system can lock.
const LOCK_FILE: &str = ".agenticore-layout.lock";

/// How long to wait for another run, and how often to look.
const LOCK_WAIT: Duration = Duration::from_secs(60);
const LOCK_POLL: Duration = Duration::from_millis(20);

/// How the names of temporary files and folders end.
const TEMPORARY: &str = ".agenticore-tmp";

/// A temporary that was not touched for this long belongs to a run that is dead.
const STALE: Duration = Duration::from_secs(3600);

/// What [`init`] did. The JSON form is stable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The root.
    pub root: PathBuf,
    /// The version of the layout.
    pub layout: u32,
    /// The folders that did not exist before.
    pub created: Vec<PathBuf>,
    /// Each bundled profile, sorted by name.
    pub profiles: Vec<ProfileReport>,
    /// How many temporaries of dead runs were removed.
    pub temporaries_removed: usize,
}

/// What became of one bundled profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProfileReport {
    /// Its name.
    pub name: String,
    /// What was done.
    pub action: Action,
}

/// What was done with a bundled profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It was not there and is now.
    Copied,
    /// It was there already.
    Current,
    /// An unedited copy of another version was replaced.
    Upgraded,
    /// Somebody edited it, so it was left alone.
    KeptEdited,
    /// A newer version of agenticore copied it, so it was left alone.
    KeptNewer,
}

impl Action {
    /// The word for it, for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Copied => "copied",
            Self::Current => "up to date",
            Self::Upgraded => "upgraded",
            Self::KeptEdited => "left alone: it was edited here",
            Self::KeptNewer => "left alone: a newer version of agenticore copied it",
        }
    }
}

/// Why the layout could not be made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The file system did not do what it was asked.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// A newer version made this layout.
    #[error(
        "{} is of layout {found}, and this version of agenticore knows layouts up to {known}: use the newer version; nothing was \
         changed",
        path.display()
    )]
    Newer {
        /// The layout file.
        path: PathBuf,
        /// The layout found.
        found: u32,
        /// The newest layout this version knows.
        known: u32,
    },
    /// The layout file cannot be understood.
    #[error("{} is damaged: {problem}; if no agenticore runs on it, remove the file and run this again", path.display())]
    Damaged {
        /// The layout file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Another run is at work.
    #[error("another run holds {} for more than {} seconds: wait for its end and run this again", .0.display(), LOCK_WAIT.as_secs())]
    Busy(PathBuf),
    /// This binary holds no profiles.
    #[error(
        "this binary was built without profiles, so there is nothing to copy: build it from a whole checkout"
    )]
    NoProfiles,
}

/// One file of a bundled profile.
#[derive(Debug, Clone)]
struct Source<'a> {
    path: &'a str,
    executable: bool,
    bytes: &'a [u8],
}

/// The bundled profiles: files by profile, each with its path below the profile's folder.
type Sources<'a> = BTreeMap<&'a str, Vec<Source<'a>>>;

/// Makes the layout below `root` and copies the bundled profiles to `{root}/profiles/{name}/`. Blocks on file I/O.
///
/// Success means that every bundled profile is there: copied now, copied before, or edited by the operator (the report says which).
///
/// # Errors
/// [`InitError`]. What was done until then stays and is whole; a later run goes on from it.
pub fn init(root: &Path) -> Result<Report, InitError> {
    let mut sources = Sources::new();
    for file in bundled::profiles() {
        if let Some((name, path)) = file.path.split_once('/') {
            sources.entry(name).or_default().push(Source {
                path,
                executable: file.executable,
                bytes: file.bytes,
            });
        }
    }
    init_with(root, &sources, Version::own())
}

fn init_with(root: &Path, sources: &Sources<'_>, version: Version) -> Result<Report, InitError> {
    if sources.is_empty() {
        return Err(InitError::NoProfiles);
    }
    // Nothing at all is written to a layout that is not ours.
    layout::read(root)?;
    let created = make_folders(root)?;
    let _lock = lock(root)?;
    Ok(Report {
        created,
        ..copy(root, sources, version)?
    })
}

/// Waits for other runs on this root. Where the file system cannot lock, runs go side by side: that is safe too, and at worst a run
/// takes the copy that another version makes at this moment for an edited one and leaves it to the next run.
fn lock(root: &Path) -> Result<Option<fs::File>, InitError> {
    let path = root.join(LOCK_FILE);
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(io_error("open", &path))?;
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(LOCK_POLL),
            Err(TryLockError::WouldBlock) => return Err(InitError::Busy(path)),
            Err(TryLockError::Error(e)) => {
                tracing::debug!("{} cannot be locked: {e}", path.display());
                return Ok(None);
            }
        }
    }
}

fn copy(root: &Path, sources: &Sources<'_>, version: Version) -> Result<Report, InitError> {
    let profiles = root.join("profiles");
    let temporaries_removed = remove_stale(root)? + remove_stale(&profiles)?;

    // Noted first: a copy that a killed run left unnoted would look like one that somebody edited.
    let own: Layout = sources
        .iter()
        .map(|(name, files)| {
            let digest = profile_dir::digest(files.iter().map(|f| (f.path, f.bytes)));
            ((*name).to_owned(), Known { digest, version })
        })
        .collect();
    layout::note(root, &own)?;
    let mut reports = Vec::new();
    for (name, files) in sources {
        let action = put(root, name, files, version)?;
        let name = (*name).to_owned();
        reports.push(ProfileReport { name, action });
    }
    // Again: a run of another version may have written the file from what it read before.
    layout::note(root, &own)?;
    Ok(Report {
        root: root.to_owned(),
        layout: layout::VERSION,
        created: Vec::new(),
        profiles: reports,
        temporaries_removed,
    })
}

/// Brings one profile's folder up to date. Another run may do the same at the same time, so a lost race means looking again.
fn put(
    root: &Path,
    name: &str,
    files: &[Source<'_>],
    version: Version,
) -> Result<Action, InitError> {
    let target = &root.join("profiles").join(name);
    let own = profile_dir::digest(files.iter().map(|f| (f.path, f.bytes)));
    let mut copied = false;
    loop {
        let digest = match profile_dir::state(target)? {
            State::Absent => {
                copied |= profile_dir::create(target, files)? == Put::Done;
                continue;
            }
            State::Folder(digest) => digest,
            State::Foreign => return Ok(Action::KeptEdited),
        };
        if digest == own {
            return Ok(if copied {
                Action::Copied
            } else {
                Action::Current
            });
        }
        // Read anew each time: what is there now may be the work of a run that noted it just before.
        match layout::read(root)?.version_of(name, &digest) {
            None => return Ok(Action::KeptEdited),
            Some(of) if of > version => return Ok(Action::KeptNewer),
            Some(_) => {}
        }
        if profile_dir::replace(target, files, &digest)? == Put::Done {
            return Ok(Action::Upgraded);
        }
    }
}

fn make_folders(root: &Path) -> Result<Vec<PathBuf>, InitError> {
    let mut created = Vec::new();
    for name in FOLDERS {
        let path = root.join(name);
        if !path.is_dir() {
            fs::create_dir_all(&path).map_err(io_error("create the folder", &path))?;
            created.push(path);
        }
    }
    sync_folder(root)?;
    Ok(created)
}

/// Removes what runs left behind that were killed a while ago; younger temporaries may belong to a run at work.
fn remove_stale(folder: &Path) -> Result<usize, InitError> {
    let mut removed = 0;
    let entries = fs::read_dir(folder).map_err(io_error("read the folder", folder))?;
    for entry in entries {
        let entry = entry.map_err(io_error("read the folder", folder))?;
        let name = entry.file_name();
        if !name.to_string_lossy().ends_with(TEMPORARY) {
            continue;
        }
        // A run that ends just now removes its own: what is gone is no error.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        let age = metadata
            .modified()
            .ok()
            .and_then(|at| SystemTime::now().duration_since(at).ok());
        if age.is_none_or(|age| age < STALE) {
            continue;
        }
        let path = entry.path();
        let result = if metadata.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        match result {
            Ok(()) => removed += 1,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(io_error("remove", &path)(e)),
        }
    }
    Ok(removed)
}

fn sync_folder(path: &Path) -> Result<(), InitError> {
    fs::File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(io_error("sync the folder", path))
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InitError + use<> {
    let path = path.to_owned();
    move |source| InitError::Io {
        doing,
        path,
        source,
    }
}
