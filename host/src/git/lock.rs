//! One writer at a time for each clone in the cache.

use std::any::Any;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use rustix::fs::{FlockOperation, flock};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

/// The pauses between two tries, from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// How often a waiter is told that it still waits.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The waiter gave up.
    #[error("waiting for the lock on the clone {key} was cancelled")]
    Cancelled {
        /// The clone's folder.
        key: String,
    },
    /// The lock was held and is held no more, so the work under it was stopped.
    #[error(
        "the lock on the clone {key} was lost while it was in use: another pod may have it now"
    )]
    Lost {
        /// The clone's folder.
        key: String,
    },
    /// The lock itself does not work.
    #[error("the lock on the clone {key} cannot be used: {detail}")]
    Broken {
        /// The clone's folder.
        key: String,
        /// What happened.
        detail: String,
    },
}

/// A lock that is held. Dropping it gives it up, once the processes that work under it are gone.
pub struct LockGuard {
    lost: CancellationToken,
    held: Arc<dyn Any + Send + Sync>,
}

impl LockGuard {
    /// A lock that is given up by dropping `held`. `lost` is cancelled when it is no longer ours; a lock that cannot be lost
    /// takes a fresh token.
    #[must_use]
    pub fn new(lost: CancellationToken, held: impl Send + Sync + 'static) -> Self {
        Self {
            lost,
            held: Arc::new(held),
        }
    }

    /// Keeps the lock beyond the guard, for a process that works under it and may outlive whoever started it.
    pub(super) fn keep(&self) -> Arc<dyn Any + Send + Sync> {
        Arc::clone(&self.held)
    }

    /// Cancelled when the lock is lost: whoever works under it must stop at once.
    #[must_use]
    pub fn lost(&self) -> &CancellationToken {
        &self.lost
    }
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard")
            .field("lost", &self.lost.is_cancelled())
            .finish_non_exhaustive()
    }
}

/// Told while a lock is waited for: how long so far. The first call comes when the first try fails, later ones every few seconds.
pub type OnWait<'a> = &'a (dyn Fn(Duration) + Send + Sync);

/// Keeps writers of one clone apart. It is waited for as long as it takes: there is no time-out after which work goes on unlocked.
pub trait CloneLock: Send + Sync + fmt::Debug {
    /// Waits for the lock on the clone `key`. Dropping the future gives up.
    ///
    /// # Errors
    /// [`LockError::Cancelled`] when `cancel` fires first, [`LockError::Broken`] where locking does not work.
    fn acquire<'a>(
        &'a self,
        key: &'a str,
        on_wait: OnWait<'a>,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<LockGuard, LockError>>;
}

/// Waiting for a lock between two tries, visibly and with ever longer pauses.
pub(crate) struct Waiting<'a> {
    key: &'a str,
    on_wait: OnWait<'a>,
    cancel: &'a CancellationToken,
    start: Instant,
    pause: Duration,
    told: Option<Instant>,
}

impl<'a> Waiting<'a> {
    /// Begins to wait for the lock on the clone `key`.
    pub(crate) fn new(key: &'a str, on_wait: OnWait<'a>, cancel: &'a CancellationToken) -> Self {
        Self {
            key,
            on_wait,
            cancel,
            start: Instant::now(),
            pause: FIRST_PAUSE,
            told: None,
        }
    }

    /// Waits until it is time for another try.
    ///
    /// # Errors
    /// [`LockError::Cancelled`].
    pub(crate) async fn pause(&mut self) -> Result<(), LockError> {
        if self.told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            (self.on_wait)(self.start.elapsed());
            self.told = Some(Instant::now());
        }
        tokio::select! {
            () = self.cancel.cancelled() => Err(LockError::Cancelled { key: self.key.to_owned() }),
            () = tokio::time::sleep(self.pause) => {
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                Ok(())
            }
        }
    }
}

/// Locks `ROOT/KEY/.lock` with flock(2): for a cache on a disk of one machine, where all writers see each other. The system gives
/// the lock up when its holder dies. On a volume that several machines share it is not safe.
#[derive(Debug, Clone)]
pub struct FlockLock {
    root: PathBuf,
}

impl FlockLock {
    /// Locks for the cache at `root`.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    async fn wait(
        &self,
        key: &str,
        on_wait: OnWait<'_>,
        cancel: &CancellationToken,
    ) -> Result<LockGuard, LockError> {
        let broken = |error: io::Error| LockError::Broken {
            key: key.to_owned(),
            detail: error.to_string(),
        };
        let path = self.root.join(key).join(".lock");
        let mut waiting = Waiting::new(key, on_wait, cancel);
        loop {
            let file = path.clone();
            let tried = spawn_blocking(move || try_lock(&file))
                .await
                .map_err(|error| broken(error.into()))?;
            if let Some(file) = tried.map_err(broken)? {
                return Ok(LockGuard::new(CancellationToken::new(), file));
            }
            waiting.pause().await?;
        }
    }
}

impl CloneLock for FlockLock {
    fn acquire<'a>(
        &'a self,
        key: &'a str,
        on_wait: OnWait<'a>,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<LockGuard, LockError>> {
        Box::pin(self.wait(key, on_wait, cancel))
    }
}

/// A locked file. It is unlocked by name and not just closed: a child that is being started at that moment has a copy of every
/// open file until its program runs, and the lock would live on in it.
struct Held(File);

impl Drop for Held {
    fn drop(&mut self) {
        // Closing it does the same, a moment later at worst.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// The locked file, or none if another holds it.
fn try_lock(path: &Path) -> io::Result<Option<Held>> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    // Whoever removed the file between our two steps made room for another one, which others lock.
    let ours = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => Ok(Some(Held(file))),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_lock_that_is_given_up_is_free_though_a_starting_child_has_a_copy_of_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".lock");
        let held = try_lock(&path).unwrap().unwrap();
        let copy = held.0.try_clone().unwrap();
        assert!(try_lock(&path).unwrap().is_none());
        drop(held);
        assert!(try_lock(&path).unwrap().is_some());
        drop(copy);
    }
}
