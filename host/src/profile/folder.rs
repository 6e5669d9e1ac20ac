//! Reads what is stored under one profile's name: a folder, a single file, or files of the binary.
//!
//! A folder is opened through `cap-std`, so nothing outside of it is ever read, whatever its links say.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cap_std::fs::{Dir, File, MetadataExt as _, OpenOptions, OpenOptionsExt as _};
use rustix::fs::OFlags;

use super::root::{Form, ProfileRoot};
use super::{LayerFile, ProfileError, ProfileName};
use crate::bundled;

/// The name of the document in a profile folder.
pub(super) const DOCUMENT: &str = "profile.yml";
/// Limits of one folder: as many entries and bytes as a plan may write, and as deep.
const MAX_FILES: usize = 2_000;
const MAX_BYTES: u64 = 32 * 1024 * 1024;
const MAX_DEPTH: usize = 8;
/// A file that was changed this shortly before it was read may change again without a trace in its time stamps.
const SETTLED: Duration = Duration::from_secs(2);

/// The bytes under a profile's name.
#[derive(Debug)]
pub(super) struct Stored {
    /// The document's path, for messages.
    pub(super) file: PathBuf,
    /// The document.
    pub(super) document: Vec<u8>,
    /// The other files, sorted by path.
    pub(super) files: Vec<LayerFile>,
}

/// What the file system says of a profile without its files being read. Two equal marks mean nothing has changed, if the first of
/// them is settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    files: Vec<FileMark>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct FileMark {
    path: String,
    size: u64,
    executable: bool,
    inode: (u64, u64),
    /// Seconds and nanoseconds of the last change of content or mode.
    changed: (i64, i64),
}

impl Mark {
    /// Whether every file has been left alone for long enough before `now`.
    pub(super) fn settled(&self, now: SystemTime) -> bool {
        let now = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let newest = self
            .files
            .iter()
            .map(|file| u64::try_from(file.changed.0).unwrap_or(0))
            .max()
            .unwrap_or(0);
        Duration::from_secs(newest) + SETTLED < now
    }
}

/// A profile's place, opened.
#[derive(Debug)]
pub(super) enum Place {
    /// Files of the binary.
    Bundled(ProfileName),
    /// A folder, and its path for messages.
    Folder(Dir, PathBuf),
    /// A single file in an opened root, and its path for messages.
    SingleFile(Dir, String, PathBuf),
}

impl Place {
    /// Opens the place that [`ProfileRoot::find`] found.
    pub(super) fn open(
        root: &ProfileRoot,
        name: &ProfileName,
        form: Form,
    ) -> Result<Self, ProfileError> {
        let Some(dir) = root.open()? else {
            return Ok(Self::Bundled(name.clone()));
        };
        if form == Form::SingleFile {
            let file = format!("{name}.yml");
            let path = root.shown().join(&file);
            return Ok(Self::SingleFile(dir, file, path));
        }
        let path = root.shown().join(name.as_str());
        let folder = dir
            .open_dir(name.as_str())
            .map_err(|source| unreadable(&dir, name.as_str(), &path, source))?;
        Ok(Self::Folder(folder, path))
    }

    /// Looks at the files without reading them. Bundled files never change and have an empty mark.
    pub(super) fn mark(&self) -> Result<Mark, ProfileError> {
        let mut files = match self {
            Self::Bundled(_) => Vec::new(),
            Self::Folder(dir, path) => {
                let mut walk = Walk {
                    dir,
                    shown: path,
                    files: Vec::new(),
                    seen: 0,
                };
                walk.descend("", 1)?;
                walk.files
            }
            Self::SingleFile(dir, name, path) => vec![file_mark(dir, name, path)?],
        };
        files.sort_by(|a, b| a.path.cmp(&b.path));
        if files.iter().map(|file| file.size).sum::<u64>() > MAX_BYTES {
            return Err(self.too_large());
        }
        Ok(Mark { files })
    }

    /// Reads the files that a mark lists.
    pub(super) fn read(&self, mark: &Mark) -> Result<Stored, ProfileError> {
        match self {
            Self::Bundled(name) => self.read_bundled(name),
            Self::Folder(dir, _) => self.read_folder(dir, mark),
            Self::SingleFile(dir, name, path) => Ok(Stored {
                file: path.clone(),
                document: read_file(dir, name, path)?,
                files: Vec::new(),
            }),
        }
    }

    /// The component of that relative path, if it is a regular file inside the folder.
    pub(super) fn component(&self, relative: &str) -> Option<PathBuf> {
        let Self::Folder(dir, path) = self else {
            return None;
        };
        dir.metadata(relative)
            .ok()?
            .is_file()
            .then(|| path.join(relative))
    }

    fn shown(&self) -> PathBuf {
        match self {
            Self::Bundled(name) => Path::new("(bundled)").join(name.as_str()),
            Self::Folder(_, path) | Self::SingleFile(_, _, path) => path.clone(),
        }
    }

    fn read_bundled(&self, name: &ProfileName) -> Result<Stored, ProfileError> {
        let mut stored = Stored {
            file: self.shown().join(DOCUMENT),
            document: Vec::new(),
            files: Vec::new(),
        };
        for file in bundled::profiles() {
            match file.path.split_once('/') {
                Some((folder, DOCUMENT)) if folder == name.as_str() => {
                    file.bytes.clone_into(&mut stored.document)
                }
                Some((folder, path)) if folder == name.as_str() => stored.files.push(LayerFile {
                    path: path.to_owned(),
                    size: file.bytes.len() as u64,
                    executable: file.executable,
                    bytes: file.bytes.into(),
                }),
                _ => {}
            }
        }
        Ok(stored)
    }

    fn read_folder(&self, dir: &Dir, mark: &Mark) -> Result<Stored, ProfileError> {
        let shown = self.shown();
        let mut stored = Stored {
            file: shown.join(DOCUMENT),
            document: Vec::new(),
            files: Vec::new(),
        };
        if !mark.files.iter().any(|file| file.path == DOCUMENT) {
            return Err(ProfileError::Entry {
                path: shown,
                problem: format!("the folder has no `{DOCUMENT}`; add one, an empty one will do"),
            });
        }
        let mut left = MAX_BYTES;
        for file in &mark.files {
            let bytes = read_file(dir, &file.path, &shown.join(&file.path))?;
            left = left
                .checked_sub(bytes.len() as u64)
                .ok_or_else(|| self.too_large())?;
            if file.path == DOCUMENT {
                stored.document = bytes;
                continue;
            }
            stored.files.push(LayerFile {
                path: file.path.clone(),
                size: bytes.len() as u64,
                executable: file.executable,
                bytes: bytes.into(),
            });
        }
        Ok(stored)
    }

    fn too_large(&self) -> ProfileError {
        ProfileError::Limit {
            path: self.shown(),
            what: "the profile's files are too large together",
            limit: format!("{} MiB", MAX_BYTES / 1024 / 1024),
        }
    }
}

/// One pass over a folder's entries.
struct Walk<'a> {
    dir: &'a Dir,
    /// The folder's path, for messages.
    shown: &'a Path,
    files: Vec<FileMark>,
    /// Entries seen so far. Links can make a small folder look like an endless one.
    seen: usize,
}

impl Walk<'_> {
    /// Collects the files below `folder`, following links that stay inside.
    ///
    /// Passed over are components, which are no part of a layer; version control; and names that begin with `..`, which is how
    /// Kubernetes keeps the real files of a ConfigMap volume beside the links to them.
    fn descend(&mut self, folder: &str, depth: usize) -> Result<(), ProfileError> {
        let here = self.shown.join(folder);
        if depth > MAX_DEPTH {
            return Err(ProfileError::Limit {
                path: here,
                what: "the profile's folders are nested too deeply",
                limit: format!("{MAX_DEPTH} levels"),
            });
        }
        let io = |source| ProfileError::Io {
            path: here.clone(),
            source,
        };
        let entries = if folder.is_empty() {
            self.dir.entries()
        } else {
            self.dir.read_dir(folder)
        };
        for entry in entries.map_err(io)? {
            self.count()?;
            let name = entry.map_err(io)?.file_name();
            let Some(name) = name.to_str() else {
                return Err(ProfileError::Entry {
                    path: here.join(&name),
                    problem: "the name is not UTF-8".to_owned(),
                });
            };
            if !name.starts_with("..") && !matches!(name, ".git" | ".DS_Store") {
                let path = if folder.is_empty() {
                    name.to_owned()
                } else {
                    format!("{folder}/{name}")
                };
                self.visit(path, depth)?;
            }
        }
        Ok(())
    }

    fn visit(&mut self, path: String, depth: usize) -> Result<(), ProfileError> {
        let shown = self.shown.join(&path);
        let metadata = self
            .dir
            .metadata(&path)
            .map_err(|source| unreadable(self.dir, &path, &shown, source))?;
        if metadata.is_dir() {
            return self.descend(&path, depth + 1);
        }
        if !path.ends_with(".wasm") {
            self.files.push(file_mark(self.dir, &path, &shown)?);
        }
        Ok(())
    }

    fn count(&mut self) -> Result<(), ProfileError> {
        self.seen += 1;
        if self.seen <= MAX_FILES {
            return Ok(());
        }
        Err(ProfileError::Limit {
            path: self.shown.to_owned(),
            what: "the profile has too many files and folders",
            limit: MAX_FILES.to_string(),
        })
    }
}

fn file_mark(dir: &Dir, path: &str, shown: &Path) -> Result<FileMark, ProfileError> {
    let metadata = dir
        .metadata(path)
        .map_err(|source| unreadable(dir, path, shown, source))?;
    if !metadata.is_file() {
        return Err(ProfileError::Entry {
            path: shown.to_owned(),
            problem: "only regular files and folders may be in a profile".to_owned(),
        });
    }
    Ok(FileMark {
        path: path.to_owned(),
        size: metadata.size(),
        executable: metadata.mode() & 0o100 != 0,
        inode: (metadata.dev(), metadata.ino()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

/// Reads a file that was a regular one when it was looked at; it is checked again, and opening it never waits.
fn read_file(dir: &Dir, path: &str, shown: &Path) -> Result<Vec<u8>, ProfileError> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let file = dir
        .open_with(path, &options)
        .map_err(|source| unreadable(dir, path, shown, source))?;
    let io = |source| ProfileError::Io {
        path: shown.to_owned(),
        source,
    };
    if !file.metadata().map_err(io)?.is_file() {
        return Err(ProfileError::Entry {
            path: shown.to_owned(),
            problem: "it is no regular file".to_owned(),
        });
    }
    let mut bytes = Vec::new();
    File::take(file, MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    Ok(bytes)
}

/// An error at `path`, explained where it is a link that must not or cannot be followed.
fn unreadable(dir: &Dir, path: &str, shown: &Path, source: std::io::Error) -> ProfileError {
    if dir
        .symlink_metadata(path)
        .is_ok_and(|metadata| metadata.is_symlink())
    {
        return ProfileError::Entry {
            path: shown.to_owned(),
            problem: "the link leads nowhere or out of the folder it is in, and is not followed; put the file itself there".to_owned(),
        };
    }
    ProfileError::Io {
        path: shown.to_owned(),
        source,
    }
}
