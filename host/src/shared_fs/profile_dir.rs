//! One profile's folder on the shared file system: what is there, and how it is put there whole.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::{InitError, Source, TEMPORARY, io_error, sync_folder};

/// What is at a profile's place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing, or an empty folder.
    Absent,
    /// A folder of plain files with this digest.
    Folder(String),
    /// Something we never make: a file, a link, or a folder with links or the like in it.
    Foreign,
}

/// How a try to put a folder in place ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// It is in place.
    Done,
    /// Something else got there meanwhile; nothing was changed.
    Raced,
}

/// The digest of a profile: SHA-256 over the sorted paths and contents, hexadecimal. Modes do not count, because some shared file
/// systems cannot store them.
pub(super) fn digest<'a>(files: impl Iterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut files: Vec<_> = files.collect();
    files.sort_unstable();
    let mut hash = Sha256::new();
    for (path, bytes) in files {
        hash.update((path.len() as u64).to_le_bytes());
        hash.update(path);
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    }
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// Looks at what is there.
pub(super) fn state(target: &Path) -> Result<State, InitError> {
    let metadata = match fs::symlink_metadata(target) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(State::Absent),
        Err(e) => return Err(io_error("look at", target)(e)),
    };
    if !metadata.is_dir() {
        return Ok(State::Foreign);
    }
    // Through one handle: the folder may be exchanged meanwhile, and files of two versions would look like an edited one.
    let mut files = Vec::new();
    let read = Dir::open_ambient_dir(target, ambient_authority())
        .and_then(|folder| collect(&folder, "", &mut files));
    let plain = match read {
        Ok(plain) => plain,
        // It was replaced while we read it: the caller decides by what is there now, so read that.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return state(target),
        Err(e) => return Err(io_error("read the profile", target)(e)),
    };
    Ok(match (plain, files.is_empty()) {
        (false, _) => State::Foreign,
        (true, true) => State::Absent,
        (true, false) => State::Folder(digest(
            files
                .iter()
                .map(|(path, bytes)| (path.as_str(), bytes.as_slice())),
        )),
    })
}

/// Reads every file below `folder`; false: there is something that is neither file nor folder, or has no UTF-8 name.
fn collect(folder: &Dir, prefix: &str, files: &mut Vec<(String, Vec<u8>)>) -> io::Result<bool> {
    for entry in folder.entries()? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            return Ok(false);
        };
        let path = format!("{prefix}{name}");
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if !collect(&entry.open_dir()?, &format!("{path}/"), files)? {
                return Ok(false);
            }
        } else if kind.is_file() {
            files.push((path, folder.read(&name)?));
        } else {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Puts the profile where nothing was.
pub(super) fn create(target: &Path, files: &[Source<'_>]) -> Result<Put, InitError> {
    let temporary = write(target, files)?;
    // A rename onto a folder that holds anything fails, on every file system.
    match fs::rename(temporary.path(), target) {
        Ok(()) => {
            forget(temporary);
            sync_parent(target)?;
            Ok(Put::Done)
        }
        Err(e) if is_taken(&e) => Ok(Put::Raced),
        Err(e) => Err(io_error("put in place", target)(e)),
    }
}

/// Replaces the profile that has the digest `old`; one that was changed since is put back.
pub(super) fn replace(target: &Path, files: &[Source<'_>], old: &str) -> Result<Put, InitError> {
    let temporary = write(target, files)?;
    let swap = || renameat_with(CWD, temporary.path(), CWD, target, RenameFlags::EXCHANGE);
    match swap() {
        Ok(()) => {}
        Err(Errno::NOENT) => return Ok(Put::Raced),
        // NFS and some others cannot exchange.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            return replace_in_two_steps(target, temporary, old);
        }
        Err(e) => return Err(io_error("put in place", target)(e.into())),
    }
    if state(temporary.path())? != State::Folder(old.to_owned()) {
        swap().map_err(|e| io_error("put back", target)(e.into()))?;
        return Ok(Put::Raced);
    }
    sync_parent(target)?;
    Ok(Put::Done)
}

/// Moves the old folder away and the new one in. Killed in between, the profile is absent and the next run copies it.
fn replace_in_two_steps(target: &Path, temporary: TempDir, old: &str) -> Result<Put, InitError> {
    let aside = empty_beside(target)?;
    match fs::rename(target, aside.path()) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Put::Raced),
        Err(e) => return Err(io_error("move away", target)(e)),
    }
    if state(aside.path())? != State::Folder(old.to_owned()) {
        // Whatever happens, this is somebody's work and no longer ours to remove.
        let aside = aside.keep();
        fs::rename(&aside, target).map_err(io_error("put back", target))?;
        return Ok(Put::Raced);
    }
    match fs::rename(temporary.path(), target) {
        Ok(()) => {}
        Err(e) if is_taken(&e) => return Ok(Put::Raced),
        Err(e) => return Err(io_error("put in place", target)(e)),
    }
    forget(temporary);
    sync_parent(target)?;
    Ok(Put::Done)
}

fn is_taken(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::AlreadyExists
            | io::ErrorKind::DirectoryNotEmpty
            | io::ErrorKind::NotADirectory
    )
}

/// A temporary's folder was moved into place: there is nothing left to remove.
fn forget(temporary: TempDir) {
    let _ = temporary.keep();
}

/// Writes the files to a folder beside the target, down to the disk.
fn write(target: &Path, files: &[Source<'_>]) -> Result<TempDir, InitError> {
    let temporary = empty_beside(target)?;
    let root = temporary.path();
    let mut folders = vec![root.to_owned()];
    for file in files {
        let path = root.join(file.path);
        if let Some(folder) = path.parent().filter(|f| !f.is_dir()) {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(folder)
                .map_err(io_error("create the folder", folder))?;
            folders.extend(
                folder
                    .ancestors()
                    .take_while(|f| *f != root)
                    .map(Path::to_owned),
            );
        }
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(if file.executable { 0o755 } else { 0o644 })
            .open(&path)
            .and_then(|mut out| {
                out.write_all(file.bytes)?;
                out.sync_all()
            })
            .map_err(io_error("write", &path))?;
    }
    for folder in folders {
        sync_folder(&folder)?;
    }
    Ok(temporary)
}

fn empty_beside(target: &Path) -> Result<TempDir, InitError> {
    let parent = target.parent().unwrap_or(target);
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    tempfile::Builder::new()
        .prefix(&format!(".{name}."))
        .suffix(TEMPORARY)
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir_in(parent)
        .map_err(io_error("create a temporary folder in", parent))
}

fn sync_parent(target: &Path) -> Result<(), InitError> {
    sync_folder(target.parent().unwrap_or(target))
}
