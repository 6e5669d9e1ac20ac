//! The worktree of one job: added, taken up again by a later attempt, rebuilt when it is broken, removed.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;

use super::clone::Base;
use super::command::{Call, Git, Stop};
use super::error::GitError;
use super::files;
use super::url::RepoUrl;

/// Written into git's folder for a worktree when it is whole.
const READY: &str = "agenticore-ready";

/// The longest slug of a task in a branch's name, in characters.
const MAX_SLUG: usize = 40;

/// Where a job works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worktree {
    /// The directory.
    pub path: PathBuf,
    /// Its branch, `agenticore/ID-TASK`.
    pub branch: String,
    /// The branch, tag or commit it started from, such as `main`.
    pub base_ref: String,
    /// The commit it started from.
    pub base_commit: String,
    /// Whether an earlier attempt of the job had made it, so that it may hold work.
    pub reused: bool,
    /// Git's own folder for it.
    pub(super) git_dir: PathBuf,
}

/// What is kept beside a worktree, for as long as the job may run again.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    branch: String,
    base_ref: String,
    base_commit: String,
}

/// What a new worktree is to be like.
#[derive(Debug)]
pub(super) struct New<'a> {
    /// The task, for the branch's name.
    pub(super) task: &'a str,
    /// Paths that a repository may not have.
    pub(super) reserved: &'a [String],
    /// The remote, whose credentials go with what else is fetched from its host.
    pub(super) url: &'a RepoUrl,
    /// Whether its submodules are wanted.
    pub(super) submodules: bool,
    /// Whether its files in LFS are wanted.
    pub(super) lfs: bool,
}

/// The paths of one job in the cache.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) git: &'a Git,
    /// `ROOT/KEY/repo`.
    pub(super) repo: &'a Path,
    /// `ROOT/KEY/worktrees/JOB`.
    pub(super) path: PathBuf,
    /// `ROOT/KEY/repo/worktrees/JOB`: git names it after the last part of the path.
    pub(super) git_dir: PathBuf,
    record: PathBuf,
    job: &'a str,
}

impl<'a> Place<'a> {
    pub(super) fn new(git: &'a Git, home: &Path, repo: &'a Path, job: &'a str) -> Self {
        let folder = home.join("worktrees");
        let (path, record) = (folder.join(job), folder.join(format!("{job}.json")));
        Self {
            git,
            repo,
            path,
            git_dir: repo.join("worktrees").join(job),
            record,
            job,
        }
    }

    /// The worktree that an earlier attempt left, if it is whole. Its files are not touched; only locks that a killed git left are
    /// removed. The job's processes must be gone.
    pub(super) async fn reuse(&self, stop: Stop<'_>) -> Result<Option<Worktree>, GitError> {
        let Some(record) = self.record() else {
            return Ok(None);
        };
        if !self.path.is_dir() || !self.git_dir.join(READY).exists() {
            return Ok(None);
        }
        for lock in
            ["index.lock", "HEAD.lock", "config.worktree.lock"].map(|name| self.git_dir.join(name))
        {
            // Mostly there is none.
            let _ = fs::remove_file(lock);
        }
        let _ = fs::remove_file(self.repo.join(format!("refs/heads/{}.lock", record.branch)));
        self.link()?;
        let head = self.inside("looking up the worktree's commit", stop).args([
            "rev-parse",
            "--quiet",
            "--verify",
            "HEAD^{commit}",
        ]);
        if head.maybe().await?.is_none() {
            return Ok(None);
        }
        // Reads the index and prints nothing. A torn one is made anew from the commit; the files stay as they are.
        let index = self.inside("reading the worktree's index", stop).args([
            "ls-files",
            "--",
            ":(top,literal).agenticore-none",
        ]);
        if index.maybe().await?.is_none() {
            let _ = fs::remove_file(self.git_dir.join("index"));
            self.inside("making the worktree's index anew", stop)
                .args(["read-tree", "HEAD"])
                .run()
                .await?;
        }
        Ok(Some(self.worktree(record, true)))
    }

    /// Makes the worktree. Work of an earlier attempt that was committed is kept: its branch is taken up again.
    pub(super) async fn add(
        &self,
        base: Base,
        new: &New<'_>,
        stop: Stop<'_>,
    ) -> Result<Worktree, GitError> {
        files::remove(&self.path).await?;
        files::remove(&self.git_dir).await?;
        let earlier = self.record();
        let record = match earlier {
            Some(record) if self.exists(&record.base_commit, stop).await? => record,
            _ => Record {
                branch: branch_name(self.job, new.task),
                base_ref: base.name,
                base_commit: base.commit,
            },
        };
        self.refuse_reserved(&record.base_commit, new.reserved, stop)
            .await?;
        let branch = format!("refs/heads/{}", record.branch);
        // Without a record no agent has run, so the branch is the rest of an attempt that was cut short.
        let kept = self.record.exists() && self.exists(&branch, stop).await?;
        let parent = self.path.parent().unwrap_or(self.repo);
        fs::create_dir_all(parent).map_err(GitError::io("create", parent))?;
        let add = self
            .outside("making the worktree", stop)
            .slow()
            .args(["worktree", "add", "--quiet", "--force"]);
        let (add, start) = if kept {
            (add, &record.branch)
        } else {
            (
                add.args(["--no-track", "-B", &record.branch]),
                &record.base_commit,
            )
        };
        add.arg("--").arg(&self.path).arg(start).run().await?;
        self.identify(stop).await?;
        if new.submodules {
            self.add_submodules(new.url, stop).await?;
        }
        if new.lfs {
            self.fetch_lfs(new.url, stop).await?;
        }
        self.write(
            &self.record,
            &serde_json::to_vec(&record).unwrap_or_default(),
        )?;
        self.write(&self.git_dir.join(READY), b"")?;
        Ok(self.worktree(record, kept))
    }

    /// Removes the worktree, its branch and what was noted of it.
    pub(super) async fn remove(&self, stop: Stop<'_>) -> Result<(), GitError> {
        files::remove(&self.path).await?;
        files::remove(&self.git_dir).await?;
        if let Some(record) = self.record() {
            let delete = self.outside("deleting the job's branch", stop);
            delete
                .args(["update-ref", "-d", &format!("refs/heads/{}", record.branch)])
                .maybe()
                .await?;
        }
        files::remove(&self.record).await
    }

    fn record(&self) -> Option<Record> {
        serde_json::from_slice(&fs::read(&self.record).ok()?).ok()
    }

    fn worktree(&self, record: Record, reused: bool) -> Worktree {
        let Record {
            branch,
            base_ref,
            base_commit,
        } = record;
        Worktree {
            path: self.path.clone(),
            branch,
            base_ref,
            base_commit,
            reused,
            git_dir: self.git_dir.clone(),
        }
    }

    /// Points the worktree at git's folder for it, should it not do so any more.
    fn link(&self) -> Result<(), GitError> {
        let (file, text) = (
            self.path.join(".git"),
            format!("gitdir: {}\n", self.git_dir.display()),
        );
        if file.is_dir() || fs::read_to_string(&file).is_ok_and(|now| now == text) {
            return Ok(());
        }
        self.write(&file, text.as_bytes())
    }

    async fn exists(&self, name: &str, stop: Stop<'_>) -> Result<bool, GitError> {
        let call = self.outside("looking up a commit", stop).args([
            "rev-parse",
            "--quiet",
            "--verify",
            "--end-of-options",
        ]);
        Ok(call
            .arg(format!("{name}^{{commit}}"))
            .maybe()
            .await?
            .is_some())
    }

    async fn refuse_reserved(
        &self,
        commit: &str,
        reserved: &[String],
        stop: Stop<'_>,
    ) -> Result<(), GitError> {
        for path in reserved.iter().map(|path| path.trim_matches('/')) {
            let call = self.outside("looking for reserved paths", stop).args([
                "ls-tree",
                "--name-only",
                "--full-tree",
                commit,
                "--",
                path,
            ]);
            if !call.text().await?.is_empty() {
                return Err(GitError::ReservedPath {
                    path: path.to_owned(),
                });
            }
        }
        Ok(())
    }

    /// Sets who commits, unless the clone says so.
    async fn identify(&self, stop: Stop<'_>) -> Result<(), GitError> {
        let identity = self.git.identity();
        for (name, value) in [
            ("user.name", &identity.name),
            ("user.email", &identity.email),
        ] {
            if self
                .inside("reading who commits", stop)
                .args(["config", "--get", name])
                .maybe()
                .await?
                .is_none()
            {
                self.inside("setting who commits", stop)
                    .args(["config", "--worktree", name, value])
                    .run()
                    .await?;
            }
        }
        Ok(())
    }

    /// Checks the submodules out, and theirs. They are cloned into git's folder for the worktree, so they go with it. They come over
    /// the protocols that repositories may come over, and the remote's credentials go to its own host alone.
    async fn add_submodules(&self, url: &RepoUrl, stop: Stop<'_>) -> Result<(), GitError> {
        let update = self
            .inside("checking out the submodules", stop)
            .remotes_of(url);
        update
            .args(["submodule", "--quiet", "update", "--init", "--recursive"])
            .run()
            .await?;
        Ok(())
    }

    /// Writes a file in one step.
    fn write(&self, file: &Path, bytes: &[u8]) -> Result<(), GitError> {
        let fresh = files::beside(file);
        fs::write(&fresh, bytes)
            .and_then(|()| fs::rename(&fresh, file))
            .map_err(GitError::io("write", file))
    }

    fn outside<'b>(&'b self, what: &str, stop: Stop<'b>) -> Call<'b> {
        self.git.call(what, self.repo, stop).git_dir(self.repo)
    }

    pub(super) fn inside<'b>(&'b self, what: &str, stop: Stop<'b>) -> Call<'b> {
        self.git
            .call(what, &self.path, stop)
            .git_dir(&self.git_dir)
            .work_tree(&self.path)
    }
}

/// `agenticore/ID-TASK`, with eight characters of the id and a few words of the task.
fn branch_name(job: &str, task: &str) -> String {
    let id: String = job
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(8)
        .collect();
    format!("agenticore/{id}-{}", slug(task))
}

/// The first words of a text in lower-case letters and digits, accents taken off.
fn slug(text: &str) -> String {
    let mut slug = String::new();
    for c in text.chars().take(400).nfkd() {
        if slug.len() >= MAX_SLUG {
            break;
        }
        match c {
            c if c.is_ascii_alphanumeric() => slug.push(c.to_ascii_lowercase()),
            // An accent that stood on the letter before.
            c if !c.is_ascii() && !c.is_alphanumeric() && !c.is_whitespace() => {}
            _ if slug.is_empty() || slug.ends_with('-') => {}
            _ => slug.push('-'),
        }
    }
    match slug.trim_end_matches('-') {
        "" => "task".to_owned(),
        slug => slug.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_are_named_after_job_and_task() {
        let name = |task| branch_name("0b6ad2a4-6d0a-4f0e-9a49-3d7f4b8f2c11", task);
        assert_eq!(
            name("Fix the *login* page!"),
            "agenticore/0b6ad2a4-fix-the-login-page"
        );
        assert_eq!(
            name("Überprüfe Café №5 …"),
            "agenticore/0b6ad2a4-uberprufe-cafe-no5"
        );
        assert_eq!(name("../..//--x.lock"), "agenticore/0b6ad2a4-x-lock");
        assert_eq!(name("日本語"), "agenticore/0b6ad2a4-task");
        assert_eq!(name(""), "agenticore/0b6ad2a4-task");
        assert!(branch_name("0b6ad2a4", &"word ".repeat(100)).len() <= 20 + MAX_SLUG);
        for task in ["a b", "../x", "-x", "a.lock", "@{", "a..b", "~^:?*["] {
            assert!(name(task).parse::<crate::git::BaseRef>().is_ok(), "{task}");
        }
    }
}
