//! The cache of clones and the work folders of jobs.
//!
//! ```text
//! ROOT/KEY/.lock               the flock, where that lock is used
//! ROOT/KEY/repo/               the clone, bare
//! ROOT/KEY/worktrees/JOB/      where a job works
//! ROOT/KEY/worktrees/JOB.json  what its worktree started from
//! ROOT/local/JOB/              where a job without a repository works
//! ```
//! `KEY` is [`RepoUrl::key`].

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::clone::Clone as Repository;
use super::command::{Git, Stop};
use super::error::GitError;
use super::files;
use super::lock::{CloneLock, LockGuard, OnWait};
use super::ref_name::BaseRef;
use super::url::RepoUrl;
use super::worktree::{New, Place, Worktree};

/// What a job needs.
#[derive(Debug, Clone, Copy)]
pub struct Checkout<'a> {
    /// The repository.
    pub url: &'a RepoUrl,
    /// Where to start; none for the remote's default branch.
    pub base_ref: Option<&'a BaseRef>,
    /// The job's id.
    pub job: &'a str,
    /// The task, for the branch's name.
    pub task: &'a str,
    /// Whether its submodules are checked out, too.
    pub submodules: bool,
    /// Whether its files in LFS are fetched, too.
    pub lfs: bool,
}

/// How a caller steers a long operation.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Ends it; git's processes are killed.
    pub cancel: &'a CancellationToken,
    /// Told while a lock is waited for.
    pub on_wait: OnWait<'a>,
}

impl Watch<'_> {
    /// Waits in silence.
    #[must_use]
    pub fn quiet(cancel: &CancellationToken) -> Watch<'_> {
        Watch {
            cancel,
            on_wait: &|_| {},
        }
    }
}

/// The clones of repositories and the worktrees of jobs.
#[derive(Debug, Clone)]
pub struct RepoCache {
    root: PathBuf,
    git: Git,
    lock: Arc<dyn CloneLock>,
    excludes: Vec<String>,
}

impl RepoCache {
    /// The cache at `root`, an absolute path. `excludes` are folders at the top of a worktree that the host uses itself, such as
    /// `/.agenticore/`: they never get into a commit.
    #[must_use]
    pub fn new(
        root: impl Into<PathBuf>,
        git: Git,
        lock: Arc<dyn CloneLock>,
        excludes: &[&str],
    ) -> Self {
        Self {
            root: root.into(),
            git,
            lock,
            excludes: excludes.iter().map(|&path| path.to_owned()).collect(),
        }
    }

    /// Gives a job its worktree: the one it has, if it is whole, else a new one from an up-to-date clone.
    ///
    /// Dropping the future, as cancelling, kills git and gives the lock up; the next call repairs what was left half done.
    ///
    /// # Errors
    /// [`GitError`].
    pub async fn checkout(
        &self,
        request: Checkout<'_>,
        watch: Watch<'_>,
    ) -> Result<Worktree, GitError> {
        let Checkout {
            url,
            base_ref,
            task,
            ..
        } = request;
        let job = job_name(request.job)?;
        let (home, repo) = self.paths(&url.key());
        let place = Place::new(&self.git, &home, &repo, job);
        if let Some(worktree) = place
            .reuse(Stop {
                cancel: watch.cancel,
                lock: None,
            })
            .await?
        {
            return Ok(worktree);
        }
        let key = url.key();
        let guard = self.locked(&key, watch).await?;
        self.touch(&key);
        let stop = Stop {
            cancel: watch.cancel,
            lock: Some((&guard, &key)),
        };
        // The clone may just have been replaced when we looked.
        if let Some(worktree) = place.reuse(stop).await? {
            return Ok(worktree);
        }
        let clone = Repository {
            git: &self.git,
            url,
            home: &home,
            repo: &repo,
            excludes: &self.excludes,
            stop,
        };
        let base = clone.update(base_ref).await?;
        let new = New {
            task,
            reserved: &self.excludes,
            url,
            submodules: request.submodules,
            lfs: request.lfs,
        };
        match place.add(base, &new, stop).await {
            Err(error) if error.means_damage() => {
                let base = clone.start_over(base_ref).await?;
                place.add(base, &new, stop).await
            }
            added => added,
        }
    }

    /// Removes a job's worktree and its branch.
    ///
    /// # Errors
    /// [`GitError`].
    pub async fn remove(&self, url: &RepoUrl, job: &str, watch: Watch<'_>) -> Result<(), GitError> {
        self.remove_in(&url.key(), job_name(job)?, watch).await
    }

    /// Where a job without a repository works.
    pub(crate) fn scratch_path(&self, job: &str) -> PathBuf {
        self.root.join("local").join(job)
    }

    /// Makes the folder for a job without a repository; one that is there is kept.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn scratch(&self, job: &str) -> Result<PathBuf, GitError> {
        let path = self.scratch_path(job_name(job)?);
        fs::create_dir_all(&path).map_err(GitError::io("create", &path))?;
        Ok(path)
    }

    /// Removes the folder of a job without a repository.
    ///
    /// # Errors
    /// [`GitError`].
    pub async fn remove_scratch(&self, job: &str) -> Result<(), GitError> {
        files::remove(&self.scratch_path(job_name(job)?)).await
    }

    /// Removes the worktrees, branches and folders of the jobs in `dead`, and what operations that were cut short left. Gives back the
    /// ids of the jobs whose folders were removed. The dead are named, and not the living: a job may begin while it is looked.
    ///
    /// # Errors
    /// [`GitError`]; what was removed before stays removed.
    pub async fn prune(
        &self,
        dead: &BTreeSet<String>,
        watch: Watch<'_>,
    ) -> Result<Vec<String>, GitError> {
        let mut removed = BTreeSet::new();
        for key in self.keys() {
            let (home, repo) = self.paths(&key);
            let worktrees = names(&home.join("worktrees"));
            let jobs = worktrees
                .iter()
                .map(|name| name.strip_suffix(".json").unwrap_or(name));
            let here: BTreeSet<&str> = jobs
                .filter(|job| job_name(job).is_ok() && dead.contains(*job))
                .collect();
            for job in here {
                self.remove_in(&key, job, watch).await?;
                removed.insert(job.to_owned());
            }
            let halves = |folder: &Path| {
                names(folder)
                    .into_iter()
                    .any(|name| name.starts_with(files::TEMPORARY))
            };
            if [
                home.as_path(),
                &home.join("worktrees"),
                &repo.join("worktrees"),
            ]
            .into_iter()
            .any(halves)
            {
                let _guard = self.locked(&key, watch).await?;
                for folder in [home.clone(), home.join("worktrees"), repo.join("worktrees")] {
                    discard_halves(&folder).await;
                }
            }
        }
        let local = self.root.join("local");
        for job in names(&local)
            .into_iter()
            .filter(|job| job_name(job).is_ok() && dead.contains(job))
        {
            files::remove(&local.join(&job)).await?;
            removed.insert(job);
        }
        discard_halves(&local).await;
        Ok(removed.into_iter().collect())
    }

    async fn remove_in(&self, key: &str, job: &str, watch: Watch<'_>) -> Result<(), GitError> {
        let (home, repo) = self.paths(key);
        let guard = self.locked(key, watch).await?;
        let stop = Stop {
            cancel: watch.cancel,
            lock: Some((&guard, key)),
        };
        Place::new(&self.git, &home, &repo, job).remove(stop).await
    }

    /// The worktree that a job has, if it is whole.
    pub(super) async fn existing(
        &self,
        url: &RepoUrl,
        job: &str,
        stop: Stop<'_>,
    ) -> Result<Option<Worktree>, GitError> {
        let (home, repo) = self.paths(&url.key());
        Place::new(&self.git, &home, &repo, job_name(job)?)
            .reuse(stop)
            .await
    }

    /// The keys of all clones.
    pub(super) fn keys(&self) -> Vec<String> {
        let is_key =
            |name: &String| name.len() == 12 && name.bytes().all(|b| b.is_ascii_hexdigit());
        names(&self.root).into_iter().filter(is_key).collect()
    }

    /// A folder at the top of the cache.
    pub(super) fn home(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(super) async fn locked(&self, key: &str, watch: Watch<'_>) -> Result<LockGuard, GitError> {
        let home = self.root.join(key);
        fs::create_dir_all(&home).map_err(GitError::io("create", &home))?;
        Ok(self.lock.acquire(key, watch.on_wait, watch.cancel).await?)
    }

    fn paths(&self, key: &str) -> (PathBuf, PathBuf) {
        let home = self.root.join(key);
        let repo = home.join("repo");
        (home, repo)
    }

    pub(super) fn git(&self) -> &Git {
        &self.git
    }

    pub(super) fn repo(&self, url: &RepoUrl) -> PathBuf {
        self.paths(&url.key()).1
    }

    pub(super) fn excludes(&self) -> &[String] {
        &self.excludes
    }
}

/// A job's id as the name of a folder and a part of a branch's name.
fn job_name(job: &str) -> Result<&str, GitError> {
    let plain = !job.is_empty()
        && job.len() <= 64
        && job.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if plain && !job.starts_with('-') {
        Ok(job)
    } else {
        Err(GitError::JobId(job.chars().take(80).collect()))
    }
}

pub(super) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

async fn discard_halves(folder: &Path) {
    for name in names(folder)
        .into_iter()
        .filter(|name| name.starts_with(files::TEMPORARY))
    {
        files::discard(&folder.join(name)).await;
    }
}
