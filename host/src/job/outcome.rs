//! Every way a job can end, and why.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The agent did what it was asked.
    Succeeded,
    /// Something failed.
    Failed(Failure),
    /// Somebody cancelled it.
    Cancelled,
    /// It waited in the queue for longer than its time to live.
    Expired,
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    /// The kind, which programs can decide by.
    pub class: FailureClass,
    /// A finer code where there is one, such as `plugin.memory`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What happened, in a sentence.
    pub message: String,
    /// What the user can do next.
    pub remedy: String,
}

impl Failure {
    /// A failure of `class` without a finer code.
    pub fn new(class: FailureClass, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            class,
            code: None,
            message: message.into(),
            remedy: remedy.into(),
        }
    }
}

/// Whose failure it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// The agent itself: an error, a crash, a non-zero exit.
    Agent,
    /// The model's service.
    Api,
    /// A budget of turns or money is used up.
    Budget,
    /// The job ran longer than its time limit.
    TimeLimit,
    /// The profile could not be loaded.
    Profile,
    /// A plugin: refused plan, trap, limit.
    Plugin,
    /// A hook rejected the job, or a required hook failed.
    Hook,
    /// The repository could not be cloned, fetched or checked out.
    Clone,
    /// The branch could not be pushed or the pull request not be opened.
    PullRequest,
    /// The host that ran it died, more often than it may be run again.
    Lost,
    /// The host could not do its part, such as a full disk or a missing program.
    Host,
}

impl FailureClass {
    /// Every class, in the order of the documentation.
    pub const ALL: [Self; 11] = [
        Self::Agent,
        Self::Api,
        Self::Budget,
        Self::TimeLimit,
        Self::Profile,
        Self::Plugin,
        Self::Hook,
        Self::Clone,
        Self::PullRequest,
        Self::Lost,
        Self::Host,
    ];

    /// The word for it in records, events and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Api => "api",
            Self::Budget => "budget",
            Self::TimeLimit => "time_limit",
            Self::Profile => "profile",
            Self::Plugin => "plugin",
            Self::Hook => "hook",
            Self::Clone => "clone",
            Self::PullRequest => "pull_request",
            Self::Lost => "lost",
            Self::Host => "host",
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_word_of_a_class_is_its_json() {
        for class in FailureClass::ALL {
            assert_eq!(serde_json::to_value(class).unwrap(), class.as_str());
        }
    }
}
