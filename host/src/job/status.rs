//! The words for what state a job is in.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Outcome, State};

/// The status words of the record.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Default,
    Serialize,
    Deserialize,
    ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It waits for a pod.
    #[default]
    Queued,
    /// A pod runs it.
    Running,
    /// It ended well.
    Succeeded,
    /// It failed.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
    /// It waited too long.
    Expired,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 6] = [
        Self::Queued,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::Expired,
    ];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }

    /// Whether the job is over.
    #[must_use]
    pub fn is_ended(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for Status {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|s| s.as_str() == text)
            .ok_or_else(|| {
                let known = Self::ALL.map(Self::as_str).join(", ");
                format!("unknown status {text:?}; known are: {known}")
            })
    }
}

impl From<&State> for Status {
    fn from(state: &State) -> Self {
        match state {
            State::Queued { .. } => Self::Queued,
            State::Running { .. } => Self::Running,
            State::Ended {
                outcome: Outcome::Succeeded,
                ..
            } => Self::Succeeded,
            State::Ended {
                outcome: Outcome::Failed(_),
                ..
            } => Self::Failed,
            State::Ended {
                outcome: Outcome::Cancelled,
                ..
            } => Self::Cancelled,
            State::Ended {
                outcome: Outcome::Expired,
                ..
            } => Self::Expired,
        }
    }
}
