//! What can go wrong with a repository.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::lock::LockError;
use super::ref_name::BaseRef;
use super::url::{InvalidUrl, RepoUrl};
use crate::process::{Exit, SpawnError};

/// An operation on a repository that failed. No message holds a credential.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// The git program could not be started.
    #[error("git could not be started: {0}")]
    Spawn(#[from] SpawnError),
    /// The server does not allow this kind of remote.
    #[error(transparent)]
    Url(#[from] InvalidUrl),
    /// Git said no.
    #[error("{what} failed ({}): {stderr}", words(*.exit))]
    Failed {
        /// What git was asked to do, in words.
        what: String,
        /// How it ended.
        exit: Exit,
        /// The end of what it wrote to its standard error, without credentials and control characters.
        stderr: String,
    },
    /// The profile wants files in LFS, and the server has no git-lfs.
    #[error(
        "git-lfs is missing: install it beside git on the server, or set `repository.lfs: false` in the profile"
    )]
    NoLfs,
    /// The remote did not answer.
    #[error(
        "{url} cannot be reached: {detail}; check the address, the network and the proxy settings of the server"
    )]
    Unreachable {
        /// The remote.
        url: RepoUrl,
        /// What git said.
        detail: String,
    },
    /// The remote wants credentials, or other ones.
    #[error(
        "{url} refused access: {detail}; give the server a token that may read and write it (GITHUB_TOKEN), or an ssh key"
    )]
    Denied {
        /// The remote.
        url: RepoUrl,
        /// What git said.
        detail: String,
    },
    /// The remote has no such repository, or does not show it to us.
    #[error(
        "{url} was not found: check the address; a private repository also looks like this without a token (GITHUB_TOKEN)"
    )]
    NotFound {
        /// The remote.
        url: RepoUrl,
    },
    /// The remote has no commit at all.
    #[error("{url} is empty: push a first commit to it")]
    Empty {
        /// The remote.
        url: RepoUrl,
    },
    /// The remote's `HEAD` names no branch that exists.
    #[error("{url} has no default branch: name one with base_ref{}", listed(.existing))]
    NoDefaultBranch {
        /// The remote.
        url: RepoUrl,
        /// Some branches that exist.
        existing: Vec<String>,
    },
    /// The remote has no branch, tag or commit of that name.
    #[error("base_ref {base_ref} does not exist in {url}{}", listed(.existing))]
    MissingRef {
        /// The remote.
        url: RepoUrl,
        /// The name.
        base_ref: BaseRef,
        /// Some branches that exist, the newest first.
        existing: Vec<String>,
    },
    /// The repository itself tracks files where the host keeps its own.
    #[error(
        "the repository tracks files below {path}, where the server keeps its own: remove them from the repository"
    )]
    ReservedPath {
        /// The path in the repository.
        path: String,
    },
    /// Someone else pushed to the branch, or a rule of the remote refused the push.
    #[error("{url} did not take the branch {branch}: {detail}")]
    PushRejected {
        /// The remote.
        url: RepoUrl,
        /// The branch.
        branch: String,
        /// What git said.
        detail: String,
    },
    /// It was cancelled.
    #[error("{what} was cancelled")]
    Cancelled {
        /// What git was doing.
        what: String,
    },
    /// It took too long.
    #[error("{what} took longer than {} s and was stopped", .limit.as_secs())]
    TimedOut {
        /// What git was doing.
        what: String,
        /// The limit.
        limit: Duration,
    },
    /// The lock on the clone could not be had, or was lost.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// An id that cannot be the name of a folder.
    #[error("{0:?} cannot be a job's id: it must be 1 to 64 letters, digits or dashes")]
    JobId(String),
    /// A file operation failed.
    #[error("could not {what} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl GitError {
    /// For `map_err` of a file operation.
    pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            what,
            path: path.to_owned(),
            source,
        }
    }

    /// Whether a lock file of git is in the way.
    pub(super) fn is_locked(&self) -> bool {
        matches!(self, Self::Failed { stderr, .. } if stderr.contains(".lock': File exists"))
    }

    /// Whether the clone in the cache is damaged, so that it must be made again.
    pub(super) fn means_damage(&self) -> bool {
        const SIGNS: [&str; 14] = [
            "not a git repository",
            "bad object",
            "missing blob",
            "missing tree",
            "missing commit",
            "not a tree object",
            "could not parse",
            "unable to read tree",
            "unable to read sha1",
            "is corrupt",
            "object file",
            "bad tree object",
            "did not send all necessary objects",
            "bad config line",
        ];
        match self {
            Self::Failed { stderr, .. } => SIGNS.iter().any(|sign| stderr.contains(sign)),
            _ => false,
        }
    }
}

fn words(exit: Exit) -> String {
    match (exit.code, exit.signal) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "no exit code".to_owned(),
    }
}

fn listed(existing: &[String]) -> String {
    if existing.is_empty() {
        String::new()
    } else {
        format!("; branches that exist: {}", existing.join(", "))
    }
}
