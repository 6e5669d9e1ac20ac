//! The places where profiles are looked for.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use serde::{Deserialize, Serialize};

use super::{ProfileError, ProfileName};
use crate::bundled;

/// The folder of a root that holds components which several profiles share.
pub const SHARED_COMPONENTS: &str = "_plugins";

/// What kind of place a profile was found in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Part of the binary.
    Bundled,
    /// The folder `profiles` of an `agentihooks` checkout.
    AgentiHooks,
    /// The user's own folder.
    User,
    /// The shared file system of a fleet.
    Shared,
}

/// A place where profiles are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileRoot {
    pub(super) source: Source,
    /// None: the tables of the binary.
    pub(super) folder: Option<PathBuf>,
}

/// What a root has under one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Form {
    /// A folder with a `profile.yml`.
    Folder,
    /// A single file `NAME.yml`.
    SingleFile,
}

impl ProfileRoot {
    /// The profiles that are part of the binary.
    #[must_use]
    pub fn bundled() -> Self {
        Self {
            source: Source::Bundled,
            folder: None,
        }
    }

    /// The profiles below a folder. It need not exist, now or ever.
    #[must_use]
    pub fn folder(source: Source, path: impl Into<PathBuf>) -> Self {
        Self {
            source,
            folder: Some(path.into()),
        }
    }

    /// The root as a path for messages.
    pub(super) fn shown(&self) -> &Path {
        self.folder.as_deref().unwrap_or(Path::new("(bundled)"))
    }

    /// Where the profile called `name` is, if this root has one.
    pub(super) fn find(&self, name: &ProfileName) -> Result<Option<Form>, ProfileError> {
        let Some(folder) = &self.folder else {
            return Ok(bundled_names()
                .contains(name.as_str())
                .then_some(Form::Folder));
        };
        // Looked at without following links: whether a link leads somewhere allowed is settled when it is opened.
        for (path, form) in [
            (folder.join(name.as_str()), Form::Folder),
            (folder.join(format!("{name}.yml")), Form::SingleFile),
        ] {
            match std::fs::symlink_metadata(&path) {
                Ok(metadata) if form == Form::Folder && metadata.is_file() => {}
                Ok(_) => return Ok(Some(form)),
                Err(error) if absent(&error) => {}
                Err(source) => return Err(ProfileError::Io { path, source }),
            }
        }
        Ok(None)
    }

    /// The names of everything here that is, or should be, a profile. Names that begin with `.` or `_` are for other uses.
    pub(super) fn names(&self) -> io::Result<BTreeSet<String>> {
        let Some(folder) = &self.folder else {
            return Ok(bundled_names().into_iter().map(str::to_owned).collect());
        };
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if absent(&error) => return Ok(BTreeSet::new()),
            Err(error) => return Err(error),
        };
        let mut names = BTreeSet::new();
        for entry in entries {
            let entry = entry?;
            let file = entry.file_name();
            if file.as_encoded_bytes().starts_with(b".")
                || file.as_encoded_bytes().starts_with(b"_")
            {
                continue;
            }
            // A profile folder may be a link inside its root, and then it counts as what it leads to.
            let is_file = std::fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_file());
            names.extend(profile_name(file, is_file));
        }
        Ok(names)
    }

    /// Opens the root, none for the bundled one.
    pub(super) fn open(&self) -> Result<Option<Dir>, ProfileError> {
        let Some(folder) = &self.folder else {
            return Ok(None);
        };
        match Dir::open_ambient_dir(folder, ambient_authority()) {
            Ok(dir) => Ok(Some(dir)),
            Err(source) => Err(ProfileError::Io {
                path: folder.clone(),
                source,
            }),
        }
    }

    /// The shared component of that relative path, if this root has it as a regular file inside its folder for them.
    pub(super) fn shared_component(&self, path: &str) -> Option<PathBuf> {
        let folder = self.folder.as_ref()?.join(SHARED_COMPONENTS);
        let dir = Dir::open_ambient_dir(&folder, ambient_authority()).ok()?;
        dir.metadata(path)
            .ok()?
            .is_file()
            .then(|| folder.join(path))
    }
}

fn profile_name(file: OsString, is_file: bool) -> Option<String> {
    let name = file.to_string_lossy().into_owned();
    if is_file {
        name.strip_suffix(".yml").map(str::to_owned)
    } else {
        Some(name)
    }
}

fn bundled_names() -> BTreeSet<&'static str> {
    bundled::profiles()
        .iter()
        .filter_map(|file| file.path.split_once('/').map(|(name, _)| name))
        .collect()
}

fn absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
