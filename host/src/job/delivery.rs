//! How a job's work leaves the host: the words and wishes of a pull request, and what became of it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Failure;

/// What the agent's run came to, kept until the job is over: an attempt that finds it does not run the agent again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Verdict {
    /// Why it failed; none: it succeeded.
    pub failure: Option<Failure>,
}

/// What post hooks want of the pull request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Wishes {
    /// Another title.
    pub title: Option<String>,
    /// Another body.
    pub body: Option<String>,
    /// Why there must be none.
    pub veto: Option<String>,
}

/// What became of a job's pull request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PullRequest {
    /// What became of it.
    pub state: PullRequestState,
    /// Its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Its number in the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// Why there is none, or what else is to be known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why it failed, of class `pull_request`. The job's own result stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// The states of [`PullRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PullRequestState {
    /// This job opened it.
    Opened,
    /// There was one for the job's branch, such as from an attempt that was cut short right after it opened it.
    Existing,
    /// There is nothing to open, or nowhere to open it.
    Skipped,
    /// It could not be opened.
    Failed,
}

impl PullRequestState {
    /// The word for it in records and events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Existing => "existing",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
        }
    }
}

impl PullRequest {
    /// There is none, for this reason.
    pub fn skipped(reason: impl Into<String>) -> Self {
        Self {
            state: PullRequestState::Skipped,
            url: None,
            number: None,
            reason: Some(reason.into()),
            failure: None,
        }
    }

    /// It failed.
    #[must_use]
    pub fn failed(failure: Failure) -> Self {
        Self {
            state: PullRequestState::Failed,
            url: None,
            number: None,
            reason: None,
            failure: Some(failure),
        }
    }
}
