//! Files and folders of the cache: replaced in one step, removed even where an agent took its own rights away.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use tokio::task::spawn_blocking;
use uuid::Uuid;

use super::error::GitError;

/// What temporary folders beside a clone or a worktree begin with.
pub(super) const TEMPORARY: &str = ".tmp-";

/// A lock file of git that is older than this was left by a git that was killed.
const STALE_LOCK: Duration = Duration::from_mins(10);

/// A new temporary path in the folder of `path`.
pub(super) fn beside(path: &Path) -> PathBuf {
    path.with_file_name(format!("{TEMPORARY}{}", Uuid::new_v4().simple()))
}

/// Puts `fresh` in the place of `target` and removes what was there.
pub(super) async fn replace(fresh: &Path, target: &Path) -> Result<(), GitError> {
    if !target.exists() {
        return fs::rename(fresh, target).map_err(GitError::io("rename into place", target));
    }
    if renameat_with(CWD, fresh, CWD, target, RenameFlags::EXCHANGE).is_ok() {
        discard(fresh).await;
        return Ok(());
    }
    // Some network file systems cannot exchange two folders; in between there is none, which the next user notices.
    let old = beside(target);
    fs::rename(target, &old).map_err(GitError::io("rename away", target))?;
    fs::rename(fresh, target).map_err(GitError::io("rename into place", target))?;
    discard(&old).await;
    Ok(())
}

/// Takes a folder or file out of its place at once, then removes it.
pub(super) async fn remove(path: &Path) -> Result<(), GitError> {
    let away = beside(path);
    match fs::rename(path, &away) {
        Ok(()) => discard(&away).await,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(GitError::io("remove", path)(error)),
    }
    Ok(())
}

/// Removes a folder or file that nobody uses any more. What cannot be removed now is found by a later sweep.
pub(super) async fn discard(path: &Path) {
    let owned = path.to_owned();
    if let Ok(Err(error)) = spawn_blocking(move || remove_tree(&owned)).await {
        tracing::warn!(path = %path.display(), %error, "could not remove a folder of the cache");
    }
}

/// Removes a tree, and gives folders that may not be written the right to be first: module caches are often read-only.
fn remove_tree(path: &Path) -> io::Result<()> {
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    if !fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir()) {
        return gone(fs::remove_file(path));
    }
    match gone(fs::remove_dir_all(path)) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path);
            gone(fs::remove_dir_all(path))
        }
        other => other,
    }
}

fn open_up(folder: &Path) {
    // Best effort: what still cannot be removed is reported by the second try.
    let _ = fs::set_permissions(folder, Permissions::from_mode(0o700));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

/// Copies a small tree of folders, files and links.
pub(super) async fn copy_tree(from: PathBuf, to: PathBuf) -> io::Result<()> {
    spawn_blocking(move || copy(&from, &to)).await?
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let kind = fs::symlink_metadata(from)?.file_type();
    if kind.is_symlink() {
        return symlink(fs::read_link(from)?, to);
    }
    if !kind.is_dir() {
        return fs::copy(from, to).map(drop);
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Removes lock files that a git which was killed left in a clone. Says whether there were any.
pub(super) fn remove_stale_locks(repo: &Path) -> bool {
    let top = [
        "packed-refs.lock",
        "config.lock",
        "config.worktree.lock",
        "HEAD.lock",
        "shallow.lock",
    ]
    .map(|name| repo.join(name));
    let mut found = false;
    for lock in top.into_iter().chain(locks_below(&repo.join("refs"))) {
        let age = fs::metadata(&lock)
            .and_then(|meta| meta.modified())
            .ok()
            .and_then(|at| SystemTime::now().duration_since(at).ok());
        // Only the host writes the remote's branches, and it holds the lock on the clone: no live git can own these.
        let ours = lock
            .strip_prefix(repo)
            .is_ok_and(|path| path.starts_with("refs/remotes"));
        if age.is_some_and(|age| ours || age > STALE_LOCK) && fs::remove_file(&lock).is_ok() {
            tracing::warn!(lock = %lock.display(), "a lock file that a killed git had left was removed");
            found = true;
        }
    }
    found
}

fn locks_below(folder: &Path) -> Vec<PathBuf> {
    let mut locks = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            locks.extend(locks_below(&path));
        } else if path
            .extension()
            .is_some_and(|extension| extension == "lock")
        {
            locks.push(path);
        }
    }
    locks
}
