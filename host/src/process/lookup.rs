//! Finds the program to start, so that a missing one is named instead of a bare "no such file".

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::error::SpawnError;

/// The program's path. A name with a slash is a path, from `cwd` if it is relative; another is looked for in `path`, the child's
/// `PATH`. Relative entries of `PATH` are passed over: they would find programs in the repository a job works in.
///
/// # Errors
/// [`SpawnError::NotFound`], [`SpawnError::NoFile`] or [`SpawnError::NotExecutable`].
pub(super) fn program(
    name: &OsStr,
    path: Option<&OsStr>,
    cwd: &Path,
) -> Result<PathBuf, SpawnError> {
    let missing = || SpawnError::NotFound {
        program: name.to_string_lossy().into_owned(),
        path: path.unwrap_or_default().to_string_lossy().into_owned(),
    };
    if name.is_empty() {
        return Err(missing());
    }
    if name.as_encoded_bytes().contains(&b'/') {
        let file = cwd.join(name);
        return match (file.is_file(), is_executable(&file)) {
            (true, true) => Ok(file),
            (false, _) if !file.exists() => Err(SpawnError::NoFile(file)),
            _ => Err(SpawnError::NotExecutable(file)),
        };
    }
    let candidates: Vec<PathBuf> = std::env::split_paths(path.unwrap_or_default())
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .filter(|file| file.is_file())
        .collect();
    match candidates.iter().find(|file| is_executable(file)) {
        Some(file) => Ok(file.clone()),
        None => Err(candidates
            .into_iter()
            .next()
            .map_or_else(missing, SpawnError::NotExecutable)),
    }
}

fn is_executable(file: &Path) -> bool {
    accessat(CWD, file, Access::EXEC_OK, AtFlags::EACCESS).is_ok()
}
