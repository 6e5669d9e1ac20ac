//! What a job has done to its worktree, and how it reaches the remote.
//!
//! Git is told where the repository and the worktree are: an agent may have changed the worktree's own `.git`.

use std::collections::BTreeSet;

use tokio_util::sync::CancellationToken;

use super::cache::RepoCache;
use super::command::{Call, Stop};
use super::error::GitError;
use super::guard;
use super::url::RepoUrl;
use super::worktree::Worktree;

impl RepoCache {
    /// The paths below the worktree that differ from the commit it started from: committed, staged, changed or new. Sorted; what
    /// is ignored is not among them. Names that are not UTF-8 have their bytes replaced.
    ///
    /// # Errors
    /// [`GitError`].
    pub async fn changed_files(
        &self,
        worktree: &Worktree,
        cancel: &CancellationToken,
    ) -> Result<Vec<String>, GitError> {
        let diff = self.inside("listing changed files", worktree, cancel);
        let diff = diff.args([
            "diff",
            "--name-only",
            "--no-renames",
            "--no-ext-diff",
            "--no-textconv",
            "--ignore-submodules=dirty",
            "-z",
        ]);
        let changed = diff
            .args(["--end-of-options", &worktree.base_commit, "--", "."])
            .args(self.but_ours())
            .run()
            .await?;
        let new = self.inside("listing new files", worktree, cancel).args([
            "ls-files",
            "--others",
            "--exclude-standard",
            "-z",
            "--",
            ".",
        ]);
        let new = new.args(self.but_ours()).run().await?;
        let names = |bytes: &[u8]| -> Vec<String> {
            bytes
                .split(|byte| *byte == 0)
                .filter(|name| !name.is_empty())
                .map(|name| String::from_utf8_lossy(name).into_owned())
                .collect()
        };
        let all: BTreeSet<String> = names(&changed).into_iter().chain(names(&new)).collect();
        Ok(all.into_iter().collect())
    }

    /// Whether the worktree's commit holds anything that the commit it started from does not.
    ///
    /// # Errors
    /// [`GitError`].
    pub async fn has_commits(
        &self,
        worktree: &Worktree,
        cancel: &CancellationToken,
    ) -> Result<bool, GitError> {
        let call = self.inside("counting commits", worktree, cancel).args([
            "rev-list",
            "--count",
            "--max-count=1",
            "--end-of-options",
        ]);
        Ok(call
            .arg(format!("{}..HEAD", worktree.base_commit))
            .text()
            .await?
            != "0")
    }

    /// Whether there is work that is not committed, new files among it.
    ///
    /// # Errors
    /// [`GitError`].
    pub async fn is_dirty(
        &self,
        worktree: &Worktree,
        cancel: &CancellationToken,
    ) -> Result<bool, GitError> {
        let call = self.inside("looking for uncommitted work", worktree, cancel);
        let call = call.args([
            "status",
            "--porcelain",
            "--untracked-files=normal",
            "--ignore-submodules=dirty",
            "--",
            ".",
        ]);
        Ok(!call.args(self.but_ours()).run().await?.is_empty())
    }

    /// Commits all work that is not committed. Does nothing, and says so, if there is none.
    ///
    /// # Errors
    /// [`GitError`].
    pub async fn commit_all(
        &self,
        worktree: &Worktree,
        message: &str,
        cancel: &CancellationToken,
    ) -> Result<bool, GitError> {
        if !self.is_dirty(worktree, cancel).await? {
            return Ok(false);
        }
        self.inside("staging the work", worktree, cancel)
            .slow()
            .args(["add", "--all", "--", "."])
            .run()
            .await?;
        // Not left out of the command before: git fails when it is told of a path that is ignored, if only to leave it out.
        let ours = self.excludes().iter();
        self.inside("taking our own files out", worktree, cancel)
            .args(["rm", "-r", "--cached", "--quiet", "--ignore-unmatch", "--"])
            .args(ours.map(|path| format!(":(top){}", path.trim_matches('/'))))
            .run()
            .await?;
        let staged = self.inside("looking for staged work", worktree, cancel);
        if staged
            .args(["diff", "--cached", "--quiet", "--no-ext-diff"])
            .maybe()
            .await?
            .is_some()
        {
            return Ok(false);
        }
        let commit = self.inside("committing the work", worktree, cancel).args([
            "commit",
            "--quiet",
            "--no-verify",
            "--cleanup=strip",
        ]);
        commit.arg(format!("--message={message}")).run().await?;
        Ok(true)
    }

    /// Pushes the worktree's commit to its branch on the remote; the same again does nothing. Commits that others pushed to the
    /// branch are never overwritten. Gives back the commit.
    ///
    /// # Errors
    /// [`GitError::PushRejected`] where the remote does not take it; [`GitError`].
    pub async fn push(
        &self,
        url: &RepoUrl,
        worktree: &Worktree,
        cancel: &CancellationToken,
    ) -> Result<String, GitError> {
        let stop = Stop { cancel, lock: None };
        let head = self.inside("looking up the worktree's commit", worktree, cancel);
        let head = head
            .args(["rev-parse", "--verify", "HEAD^{commit}"])
            .text()
            .await?;
        // From the clone and by the address, so that neither the worktree nor a configured remote has a say.
        let repo = self.repo(url);
        guard::clean(self.git(), &repo, stop).await?;
        let push = self
            .git()
            .call(format!("pushing to {url}"), &repo, stop)
            .git_dir(&repo)
            .remote(url);
        let push = push.args([
            "push",
            "--quiet",
            "--no-verify",
            "--no-follow-tags",
            "--recurse-submodules=no",
            "--",
            url.as_str(),
        ]);
        match push
            .arg(format!("{head}:refs/heads/{}", worktree.branch))
            .run()
            .await
        {
            Ok(_) => Ok(head),
            Err(GitError::Failed { stderr, .. })
                if stderr.contains("rejected") || stderr.contains("declined") =>
            {
                Err(GitError::PushRejected {
                    url: url.clone(),
                    branch: worktree.branch.clone(),
                    detail: stderr,
                })
            }
            Err(error) => Err(error),
        }
    }

    fn inside<'a>(
        &'a self,
        what: &str,
        worktree: &'a Worktree,
        cancel: &'a CancellationToken,
    ) -> Call<'a> {
        let call = self
            .git()
            .call(what, &worktree.path, Stop { cancel, lock: None });
        call.git_dir(&worktree.git_dir).work_tree(&worktree.path)
    }

    /// Leaves the host's own folders out, even where the agent took them off the list of ignored ones.
    fn but_ours(&self) -> Vec<String> {
        self.excludes()
            .iter()
            .map(|path| format!(":(top,exclude,literal){}", path.trim_matches('/')))
            .collect()
    }
}
