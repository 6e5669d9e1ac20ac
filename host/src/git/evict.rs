//! What the cache holds, and how it is kept small: clones that nobody has used for long, or that are too many together, are removed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::cache::{RepoCache, Watch, names};
use super::command::Stop;
use super::error::GitError;
use super::files;
use super::url::RepoUrl;

/// Its time of change says when the clone was used last.
const USED: &str = ".used";

/// A job's folder in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFolder {
    /// The job's id.
    pub job: String,
    /// Whether it is a worktree; else it is the folder of a job without a repository.
    pub is_worktree: bool,
    /// How long ago it was made or changed at its top.
    pub age: Duration,
}

/// How much the cache may hold.
#[derive(Debug, Clone, Copy)]
pub struct CacheBounds {
    /// Clones that were not used for this long go.
    pub age: Duration,
    /// Beyond this many bytes the clones that were not used for longest go; 0: no bound.
    pub bytes: u64,
}

/// A clone that no job uses.
#[derive(Debug)]
struct Idle {
    key: String,
    unused: Duration,
    bytes: u64,
}

impl RepoCache {
    /// The folders of all jobs.
    #[must_use]
    pub fn job_folders(&self) -> Vec<JobFolder> {
        let mut found = Vec::new();
        for key in self.keys() {
            found.extend(folders(&self.home(&key).join("worktrees"), true));
        }
        found.extend(folders(&self.home("local"), false));
        found
    }

    /// Whether a job's worktree holds nothing but what it began with.
    ///
    /// # Errors
    /// [`GitError`].
    pub async fn is_untouched(&self, url: &RepoUrl, job: &str) -> Result<bool, GitError> {
        let cancel = CancellationToken::new();
        let stop = Stop {
            cancel: &cancel,
            lock: None,
        };
        let Some(worktree) = self.existing(url, job, stop).await? else {
            return Ok(false);
        };
        Ok(!self.has_commits(&worktree, &cancel).await?
            && !self.is_dirty(&worktree, &cancel).await?)
    }

    /// Removes clones beyond the bounds, the longest unused first, and never one that has worktrees. Gives back their keys.
    ///
    /// # Errors
    /// [`GitError`]; what was removed before stays removed.
    pub async fn evict(
        &self,
        bounds: CacheBounds,
        watch: Watch<'_>,
    ) -> Result<Vec<String>, GitError> {
        let (homes, keys) = (self.clone(), self.keys());
        let looked = spawn_blocking(move || {
            let idle = keys.into_iter().filter_map(|key| homes.idle(key));
            idle.collect::<Vec<_>>()
        });
        let mut idle = looked.await.unwrap_or_default();
        idle.sort_by_key(|clone| std::cmp::Reverse(clone.unused));
        let mut bytes: u64 = idle.iter().map(|clone| clone.bytes).sum();
        let mut removed = Vec::new();
        for clone in idle {
            let too_many = bounds.bytes > 0 && bytes > bounds.bytes;
            if clone.unused < bounds.age && !too_many {
                continue;
            }
            if self.evict_one(&clone.key, watch).await? {
                bytes = bytes.saturating_sub(clone.bytes);
                removed.push(clone.key);
            }
        }
        Ok(removed)
    }

    /// Notes that a clone is used now.
    pub(super) fn touch(&self, key: &str) {
        // It only says which clone goes first.
        let _ = fs::write(self.home(key).join(USED), b"");
    }

    async fn evict_one(&self, key: &str, watch: Watch<'_>) -> Result<bool, GitError> {
        let _guard = self.locked(key, watch).await?;
        // A job may have come before we had the lock.
        if self.has_jobs(key) {
            return Ok(false);
        }
        tracing::info!(key, "a clone that no job has used for long is removed");
        files::remove(&self.home(key).join("repo")).await?;
        files::remove(&self.home(key).join(USED)).await?;
        Ok(true)
    }

    fn idle(&self, key: String) -> Option<Idle> {
        let repo = self.home(&key).join("repo");
        if self.has_jobs(&key) || !repo.is_dir() {
            return None;
        }
        let used = self.home(&key).join(USED);
        Some(Idle {
            unused: age(&used).or_else(|| age(&repo)).unwrap_or_default(),
            bytes: size(&repo),
            key,
        })
    }

    fn has_jobs(&self, key: &str) -> bool {
        !names(&self.home(key).join("worktrees")).is_empty()
    }
}

/// The jobs that have a folder in `parent`, or only the note that stands beside a worktree, which an interrupted removal may leave.
fn folders(parent: &Path, is_worktree: bool) -> Vec<JobFolder> {
    let named = |name: String| match name.strip_suffix(".json") {
        Some(job) => job.to_owned(),
        None => name,
    };
    let jobs: BTreeSet<String> = names(parent).into_iter().map(named).collect();
    let jobs = jobs.into_iter().filter(|job| !job.starts_with('.'));
    jobs.map(|job| JobFolder {
        age: age(&parent.join(&job))
            .or_else(|| age(&parent.join(format!("{job}.json"))))
            .unwrap_or_default(),
        job,
        is_worktree,
    })
    .collect()
}

fn age(path: &Path) -> Option<Duration> {
    let changed = fs::symlink_metadata(path).ok()?.modified().ok()?;
    SystemTime::now().duration_since(changed).ok()
}

/// The bytes of all files below a folder.
fn size(folder: &Path) -> u64 {
    let mut bytes = 0;
    let mut left: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => left.push(entry.path()),
                Ok(metadata) => bytes += metadata.len(),
                Err(_) => {}
            }
        }
    }
    bytes
}
