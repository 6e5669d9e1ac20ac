//! Reads what is stored under one profile's name: a folder, a single file, or files of the binary.
//!
//! A folder is opened through `cap-std`, so nothing outside of it is ever read, whatever its links say.

use std::ffi::OsStr;
use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cap_std::fs::{Dir, File, OpenOptions, OpenOptionsExt as _};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

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

/// What the file system says of a profile without its files being read. Where a place still is as a settled mark says, nothing has
/// changed there: files by their own stamps, and what there is by those of the folders.
#[derive(Debug, Clone, Default)]
pub(super) struct Mark {
    files: Vec<FileMark>,
    folders: Vec<FileMark>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct FileMark {
    path: String,
    /// Whether the way to it goes over links.
    linked: bool,
    is_folder: bool,
    size: u64,
    executable: bool,
    inode: (u64, u64),
    /// Seconds and nanoseconds of the last change of content or mode.
    changed: (i64, i64),
}

impl FileMark {
    fn of(path: String, linked: bool, stat: &Stat) -> Self {
        Self {
            path,
            linked,
            is_folder: FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            executable: stat.st_mode & 0o100 != 0,
            inode: (stat.st_dev, stat.st_ino),
            changed: (
                stat.st_ctime,
                i64::try_from(stat.st_ctime_nsec).unwrap_or_default(),
            ),
        }
    }

    /// Whether the same is there as when the mark was taken.
    fn holds(&self, dir: &Dir) -> bool {
        let stat = match self.linked {
            // Where links lead now, they must lead inside.
            true => dir
                .open_with(&self.path, &only_looked_at())
                .map_err(drop)
                .and_then(|file| rustix::fs::fstat(&file).map_err(drop)),
            false => rustix::fs::statat(dir, &self.path, AtFlags::SYMLINK_NOFOLLOW).map_err(drop),
        };
        stat.is_ok_and(|stat| Self::of(self.path.clone(), self.linked, &stat) == *self)
    }
}

impl Mark {
    /// Whether every file and folder has been left alone for long enough before `now`.
    pub(super) fn settled(&self, now: SystemTime) -> bool {
        let now = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let newest = self
            .files
            .iter()
            .chain(&self.folders)
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
        let mut mark = match self {
            Self::Bundled(_) => Mark::default(),
            Self::Folder(dir, path) => {
                let mut walk = Walk {
                    dir,
                    shown: path,
                    mark: Mark::default(),
                    seen: 0,
                };
                let here = open_folder(dir, ".").map_err(|source| ProfileError::Io {
                    path: path.clone(),
                    source: source.into(),
                })?;
                walk.descend(here, ".", false, 1)?;
                walk.mark
            }
            Self::SingleFile(dir, name, path) => Mark {
                files: vec![linked_mark(dir, name, path)?],
                folders: Vec::new(),
            },
        };
        if mark.files.iter().any(|file| file.is_folder) {
            return Err(not_regular(&self.shown()));
        }
        mark.files.sort_by(|a, b| a.path.cmp(&b.path));
        if mark.files.iter().map(|file| file.size).sum::<u64>() > MAX_BYTES {
            return Err(self.too_large());
        }
        Ok(mark)
    }

    /// Whether everything is as when this mark was taken. Every job of a profile asks, so it costs one call of the system for each
    /// file and folder, and three where a link leads there.
    pub(super) fn is_as(&self, mark: &Mark) -> bool {
        match self {
            Self::Bundled(_) => true,
            Self::Folder(dir, _) | Self::SingleFile(dir, ..) => {
                let mut all = mark.folders.iter().chain(&mark.files);
                all.all(|mark| mark.holds(dir))
            }
        }
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
    mark: Mark,
    /// Entries seen so far. Links can make a small folder look like an endless one.
    seen: usize,
}

impl Walk<'_> {
    /// Collects what is below `folder`, which is open as `here`, following links that stay inside; `linked`: one led there.
    ///
    /// Passed over are components, which are no part of a layer; version control; and names that begin with `..`, which is how
    /// Kubernetes keeps the real files of a ConfigMap volume beside the links to them, and how every folder names the one above.
    fn descend(
        &mut self,
        here: OwnedFd,
        folder: &str,
        linked: bool,
        depth: usize,
    ) -> Result<(), ProfileError> {
        let shown = match folder {
            "." => self.shown.to_owned(),
            folder => self.shown.join(folder),
        };
        if depth > MAX_DEPTH {
            return Err(ProfileError::Limit {
                path: shown,
                what: "the profile's folders are nested too deeply",
                limit: format!("{MAX_DEPTH} levels"),
            });
        }
        let io = |source: Errno| ProfileError::Io {
            path: shown.clone(),
            source: source.into(),
        };
        let stat = rustix::fs::fstat(&here).map_err(io)?;
        let mark = FileMark::of(folder.to_owned(), linked, &stat);
        self.mark.folders.push(mark);
        let mut entries = rustix::fs::Dir::new(here).map_err(io)?;
        while let Some(entry) = entries.read() {
            let entry = entry.map_err(io)?;
            let Ok(name) = entry.file_name().to_str() else {
                return Err(ProfileError::Entry {
                    path: shown.join(OsStr::from_bytes(entry.file_name().to_bytes())),
                    problem: "the name is not UTF-8".to_owned(),
                });
            };
            if name == "." || name.starts_with("..") {
                continue;
            }
            self.count()?;
            if !matches!(name, ".git" | ".DS_Store") {
                let path = match folder {
                    "." => name.to_owned(),
                    folder => format!("{folder}/{name}"),
                };
                let fd = entries.fd().map_err(io)?;
                self.visit(fd, name, path, linked, depth)?;
            }
        }
        Ok(())
    }

    fn visit(
        &mut self,
        here: BorrowedFd<'_>,
        name: &str,
        path: String,
        linked: bool,
        depth: usize,
    ) -> Result<(), ProfileError> {
        let shown = self.shown.join(&path);
        let io = |source: Errno| ProfileError::Io {
            path: shown.clone(),
            source: source.into(),
        };
        let stat = rustix::fs::statat(here, name, AtFlags::SYMLINK_NOFOLLOW).map_err(io)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let folder = open_folder(here, name).map_err(io)?;
                self.descend(folder, &path, linked, depth + 1)
            }
            FileType::Symlink => self.follow(path, depth),
            FileType::RegularFile => {
                self.add(FileMark::of(path, linked, &stat));
                Ok(())
            }
            _ => Err(not_regular(&shown)),
        }
    }

    /// What a link leads to, if that is inside the folder.
    fn follow(&mut self, path: String, depth: usize) -> Result<(), ProfileError> {
        let mark = linked_mark(self.dir, &path, &self.shown.join(&path))?;
        if !mark.is_folder {
            self.add(mark);
            return Ok(());
        }
        let folder = self
            .dir
            .open_dir(&path)
            .map_err(|source| unreadable(self.dir, &path, &self.shown.join(&path), source))?;
        let here = open_folder(&folder, ".").map_err(|source| ProfileError::Io {
            path: self.shown.join(&path),
            source: source.into(),
        })?;
        self.descend(here, &path, true, depth + 1)
    }

    fn add(&mut self, file: FileMark) {
        if !file.path.ends_with(".wasm") {
            self.mark.files.push(file);
        }
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

/// Opens a folder by its name in another one, and never what a link of that name leads to.
fn open_folder(parent: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

fn not_regular(shown: &Path) -> ProfileError {
    ProfileError::Entry {
        path: shown.to_owned(),
        problem: "only regular files and folders may be in a profile".to_owned(),
    }
}

/// The mark of a file or folder that links may lead to, inside `dir`.
fn linked_mark(dir: &Dir, path: &str, shown: &Path) -> Result<FileMark, ProfileError> {
    let unreadable = |source| unreadable(dir, path, shown, source);
    let file = dir.open_with(path, &only_looked_at()).map_err(unreadable)?;
    let stat = rustix::fs::fstat(&file).map_err(|source| unreadable(source.into()))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile | FileType::Directory => {
            Ok(FileMark::of(path.to_owned(), true, &stat))
        }
        _ => Err(not_regular(shown)),
    }
}

/// Opens what there is without reading it or waiting for it.
fn only_looked_at() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .custom_flags(OFlags::PATH.bits().cast_signed());
    options
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
