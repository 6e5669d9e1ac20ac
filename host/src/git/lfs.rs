//! Files in LFS ([git-lfs](https://git-lfs.com)), where a profile wants them: fetched into a new worktree, kept as pointers in what
//! is committed there, and pushed before the commits that name them.
//!
//! Their bytes are kept once for each clone, below `repo/lfs`.

use tokio_util::sync::CancellationToken;

use super::cache::RepoCache;
use super::command::{Git, Stop};
use super::error::GitError;
use super::guard;
use super::url::RepoUrl;
use super::worktree::{Place, Worktree};

/// What turns files into pointers as they are added, and back as they are checked out; as `git lfs install` writes it.
const FILTER: [(&str, &str); 4] = [
    ("filter.lfs.clean", "git-lfs clean -- %f"),
    ("filter.lfs.smudge", "git-lfs smudge -- %f"),
    ("filter.lfs.process", "git-lfs filter-process"),
    ("filter.lfs.required", "true"),
];

impl Place<'_> {
    /// Puts the files of the commit that is checked out in the place of their pointers. The worktree keeps the filter, so that the
    /// agent's own git turns what it adds into pointers.
    ///
    /// # Errors
    /// [`GitError::NoLfs`], [`GitError`].
    pub(super) async fn fetch_lfs(&self, url: &RepoUrl, stop: Stop<'_>) -> Result<(), GitError> {
        let version = self.inside("asking for the version of LFS", stop);
        if version.args(["lfs", "version"]).maybe().await?.is_none() {
            return Err(GitError::NoLfs);
        }
        for (name, value) in FILTER {
            self.inside("setting LFS up", stop)
                .args(["config", "--worktree", name, value])
                .run()
                .await?;
        }
        let pull = self
            .inside("fetching the files in LFS", stop)
            .remotes_of(url);
        // By the address: an agent may have changed what the clone calls its remote.
        pull.args(["lfs", "pull", url.as_str()]).run().await?;
        Ok(())
    }
}

impl RepoCache {
    /// Gives the remote the files in LFS that the worktree's branch names, as far as it does not have them. It refuses a branch
    /// whose files it lacks, so this comes before [`RepoCache::push`].
    ///
    /// # Errors
    /// [`GitError`].
    pub async fn push_lfs(
        &self,
        url: &RepoUrl,
        worktree: &Worktree,
        cancel: &CancellationToken,
    ) -> Result<(), GitError> {
        let (git, repo): (&Git, _) = (self.git(), self.repo(url));
        let stop = Stop { cancel, lock: None };
        guard::clean(git, &repo, stop).await?;
        let push = git
            .call(format!("pushing files in LFS to {url}"), &repo, stop)
            .git_dir(&repo)
            .remotes_of(url);
        let branch = format!("refs/heads/{}", worktree.branch);
        push.args(["lfs", "push", url.as_str(), &branch])
            .run()
            .await?;
        Ok(())
    }
}
