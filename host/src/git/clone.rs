//! One clone in the cache: made beside its place and renamed into it, brought up to date, and made again when it is damaged.
//!
//! It is a bare repository. The remote's branches are under `refs/remotes/origin/`, as in any clone; the branches of jobs under
//! `refs/heads/`, where no fetch touches them.

use std::fs;
use std::path::{Path, PathBuf};

use super::command::{Call, Git, Stop};
use super::error::GitError;
use super::files;
use super::guard;
use super::ref_name::BaseRef;
use super::url::RepoUrl;

/// Written into a clone when it is whole; holds the address it is of.
const MARKER: &str = "agenticore-clone";

/// The refs that a fetch brings.
const BRANCHES: &str = "+refs/heads/*:refs/remotes/origin/*";

/// How many branches an error names.
const NAMED_BRANCHES: usize = 10;

/// A clone, worked on under its lock.
pub(super) struct Clone<'a> {
    pub(super) git: &'a Git,
    pub(super) url: &'a RepoUrl,
    /// `ROOT/KEY`.
    pub(super) home: &'a Path,
    /// `ROOT/KEY/repo`.
    pub(super) repo: &'a Path,
    pub(super) excludes: &'a [String],
    pub(super) stop: Stop<'a>,
}

/// What work starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base {
    /// The branch, tag or commit, as it was asked for or found.
    pub(super) name: String,
    pub(super) commit: String,
}

/// What the remote says of itself.
#[derive(Debug)]
struct Remote {
    /// The branch that its `HEAD` names.
    branch: Option<String>,
    sha256: bool,
}

impl Clone<'_> {
    /// Brings the clone up to date, or makes it, and finds the commit to start from.
    pub(super) async fn update(&self, base: Option<&BaseRef>) -> Result<Base, GitError> {
        if !self.is_whole().await? {
            return self.start_over(base).await;
        }
        match self.fetch(self.repo).await {
            Err(error) if error.means_damage() => self.start_over(base).await,
            fetched => {
                fetched?;
                self.tidy().await;
                self.resolve(base, None).await
            }
        }
    }

    /// Makes the clone, in place of one that may be there. The branches and worktrees of jobs are carried over where they can be.
    pub(super) async fn start_over(&self, base: Option<&BaseRef>) -> Result<Base, GitError> {
        let remote = self.ask_remote().await?;
        let fresh = files::beside(self.repo);
        let made = self.make(&fresh, &remote).await;
        if made.is_err() {
            files::discard(&fresh).await;
        }
        made?;
        if self.repo.exists() {
            tracing::warn!(clone = %self.repo.display(), "the clone is damaged and was made again");
            self.salvage(&fresh).await;
        }
        files::replace(&fresh, self.repo).await?;
        self.resolve(base, Some(remote)).await
    }

    /// Whether there is a whole clone of this address, all of whose refs can be read. This costs one look at each ref, not at
    /// the history: damage that is deeper shows when it is met, and then the clone is made again as well.
    async fn is_whole(&self) -> Result<bool, GitError> {
        if fs::read_to_string(self.repo.join(MARKER)).is_ok_and(|url| url == self.url.as_str()) {
            let refs = self.call("reading the refs of the clone", self.repo);
            return Ok(refs
                .args(["for-each-ref", "--format=%(objecttype)"])
                .maybe()
                .await?
                .is_some());
        }
        Ok(false)
    }

    async fn make(&self, at: &Path, remote: &Remote) -> Result<(), GitError> {
        let format = if remote.sha256 { "sha256" } else { "sha1" };
        let what = format!("making a clone of {}", self.url);
        let init = self.git.call(what.clone(), self.home, self.stop).args([
            "init",
            "--quiet",
            "--bare",
            "--template=",
        ]);
        init.arg(format!("--object-format={format}"))
            .arg("--")
            .arg(at)
            .run()
            .await?;
        for (name, value) in [
            ("core.logAllRefUpdates", "true"),
            ("remote.origin.url", self.url.as_str()),
            ("remote.origin.fetch", BRANCHES),
            // Nothing is packed or pruned while agents work, but only by `tidy`.
            ("gc.auto", "0"),
            ("maintenance.auto", "false"),
            ("extensions.worktreeConfig", "true"),
        ] {
            self.call(what.clone(), at)
                .args(["config", "--local", name, value])
                .run()
                .await?;
        }
        // With configuration per worktree, `bare` must be said of the clone alone (git-worktree(1)).
        self.call(what.clone(), at)
            .args(["config", "--worktree", "core.bare", "true"])
            .run()
            .await?;
        self.call(what, at)
            .args(["config", "--local", "--unset", "core.bare"])
            .maybe()
            .await?;
        self.fetch(at).await?;
        let marker = at.join(MARKER);
        fs::write(&marker, self.url.as_str()).map_err(GitError::io("write", &marker))
    }

    async fn fetch(&self, into: &Path) -> Result<(), GitError> {
        guard::clean(self.git, into, self.stop).await?;
        self.exclude(into)?;
        let fetch = || {
            let call = self
                .call(format!("fetching {}", self.url), into)
                .remote(self.url);
            let call = call.args([
                "fetch",
                "--quiet",
                "--prune",
                "--tags",
                "--force",
                "--no-write-fetch-head",
                "--no-auto-maintenance",
            ]);
            call.args([
                "--no-recurse-submodules",
                "--no-show-forced-updates",
                "--",
                self.url.as_str(),
                BRANCHES,
            ])
            .run()
        };
        match fetch().await {
            Err(error) if error.is_locked() && files::remove_stale_locks(into) => {
                fetch().await.map(drop)
            }
            done => done.map(drop),
        }
    }

    /// Packs what has piled up, if it is much. Only under the lock, and never a reason to fail.
    async fn tidy(&self) {
        let call = self.call("packing the clone", self.repo).slow().args([
            "-c",
            "gc.auto=6700",
            "gc",
            "--auto",
            "--quiet",
        ]);
        if let Err(error) = call.run().await {
            tracing::warn!(%error, "the clone could not be packed");
        }
    }

    /// What the remote's `HEAD` is. Asked outside of any repository, so that no configuration of one has a say.
    async fn ask_remote(&self) -> Result<Remote, GitError> {
        let call = self
            .git
            .call(
                format!("asking {} for its branches", self.url),
                self.home,
                self.stop,
            )
            .remote(self.url);
        let answer = call
            .args(["ls-remote", "--symref", "--", self.url.as_str(), "HEAD"])
            .text()
            .await?;
        let target = |line: &str| {
            Some(
                line.strip_prefix("ref: refs/heads/")?
                    .strip_suffix("\tHEAD")?
                    .to_owned(),
            )
        };
        let id = answer.lines().find_map(|line| {
            line.strip_suffix("\tHEAD")
                .filter(|id| !id.starts_with("ref: "))
        });
        Ok(Remote {
            branch: answer.lines().find_map(target),
            sha256: id.is_some_and(|id| id.len() == 64),
        })
    }

    /// The commit to start from.
    async fn resolve(
        &self,
        base: Option<&BaseRef>,
        remote: Option<Remote>,
    ) -> Result<Base, GitError> {
        let Some(base) = base.filter(|base| !base.is_head()) else {
            let remote = match remote {
                Some(remote) => remote,
                None => self.ask_remote().await?,
            };
            return self.resolve_default(remote).await;
        };
        let name = base.as_str();
        let branch = name.strip_prefix("refs/heads/").unwrap_or(name);
        for full in [
            format!("refs/remotes/origin/{branch}"),
            format!("refs/tags/{name}"),
            name.to_owned(),
        ] {
            if (full.starts_with("refs/") || base.may_be_commit())
                && let Some(commit) = self.commit(&full).await?
            {
                return Ok(Base {
                    name: name.to_owned(),
                    commit,
                });
            }
        }
        // A commit that no branch holds can still be there, as the head of a pull request is.
        if base.may_be_commit() && matches!(name.len(), 40 | 64) {
            let fetch = self
                .call(format!("fetching {name}"), self.repo)
                .remote(self.url);
            let fetched = fetch
                .args([
                    "fetch",
                    "--quiet",
                    "--no-tags",
                    "--no-write-fetch-head",
                    "--",
                    self.url.as_str(),
                    name,
                ])
                .run();
            if fetched.await.is_ok()
                && let Some(commit) = self.commit(name).await?
            {
                return Ok(Base {
                    name: name.to_owned(),
                    commit,
                });
            }
        }
        Err(GitError::MissingRef {
            url: self.url.clone(),
            base_ref: base.clone(),
            existing: self.branches().await?,
        })
    }

    async fn resolve_default(&self, remote: Remote) -> Result<Base, GitError> {
        let url = self.url.clone();
        if let Some(name) = remote.branch
            && let Some(commit) = self.commit(&format!("refs/remotes/origin/{name}")).await?
        {
            let target = format!("refs/remotes/origin/{name}");
            let call = self.call("noting the default branch", self.repo);
            call.args(["symbolic-ref", "refs/remotes/origin/HEAD", &target])
                .maybe()
                .await?;
            return Ok(Base { name, commit });
        }
        let existing = self.branches().await?;
        Err(if existing.is_empty() {
            GitError::Empty { url }
        } else {
            GitError::NoDefaultBranch { url, existing }
        })
    }

    async fn commit(&self, name: &str) -> Result<Option<String>, GitError> {
        let call = self.call("looking up a commit", self.repo).args([
            "rev-parse",
            "--quiet",
            "--verify",
            "--end-of-options",
        ]);
        call.arg(format!("{name}^{{commit}}")).maybe().await
    }

    /// Some branches of the remote, the newest first.
    async fn branches(&self) -> Result<Vec<String>, GitError> {
        let call = self
            .call("listing the branches", self.repo)
            .args(["for-each-ref", "--sort=-committerdate"]);
        let text = call
            .args(["--format=%(refname:lstrip=3)", "refs/remotes/origin/"])
            .text()
            .await?;
        Ok(text
            .lines()
            .filter(|name| *name != "HEAD")
            .take(NAMED_BRANCHES)
            .map(str::to_owned)
            .collect())
    }

    /// What the host keeps in a worktree must not get into a commit, not even by `git add --all`.
    fn exclude(&self, repo: &Path) -> Result<(), GitError> {
        let file = repo.join("info/exclude");
        let now = fs::read_to_string(&file).unwrap_or_default();
        let missing: Vec<&str> = self
            .excludes
            .iter()
            .map(String::as_str)
            .filter(|line| !now.lines().any(|there| there == *line))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        fs::create_dir_all(repo.join("info")).map_err(GitError::io("create", &file))?;
        let separator = if now.is_empty() || now.ends_with('\n') {
            ""
        } else {
            "\n"
        };
        fs::write(&file, format!("{now}{separator}{}\n", missing.join("\n")))
            .map_err(GitError::io("write", &file))
    }

    /// Carries the branches and worktrees of jobs over from a damaged clone, as far as they can be read.
    async fn salvage(&self, fresh: &Path) {
        let call = self.call("listing the branches of jobs", self.repo).args([
            "for-each-ref",
            "--format=%(refname)",
            "refs/heads/",
        ]);
        let listed = call.text().await.unwrap_or_default();
        for name in listed.lines() {
            let call = self
                .call(format!("saving {name}"), fresh)
                .slow()
                .local_transport();
            let from = format!("file://{}", self.repo.display());
            let saved = call.args([
                "fetch",
                "--quiet",
                "--no-tags",
                "--no-write-fetch-head",
                "--",
                &from,
                &format!("{name}:{name}"),
            ]);
            if let Err(error) = saved.run().await {
                tracing::warn!(%error, branch = name, "a job's branch could not be saved from the damaged clone");
            }
        }
        // Files in LFS that jobs have committed are nowhere else before they are pushed.
        let _ = fs::rename(self.repo.join("lfs"), fresh.join("lfs"));
        let (from, to): (PathBuf, PathBuf) = (self.repo.join("worktrees"), fresh.join("worktrees"));
        if from.exists()
            && let Err(error) = files::copy_tree(from, to).await
        {
            tracing::warn!(%error, "the worktrees of jobs could not be saved from the damaged clone");
        }
    }

    fn call<'b>(&'b self, what: impl Into<String>, repo: &'b Path) -> Call<'b> {
        self.git.call(what, repo, self.stop).git_dir(repo)
    }
}
