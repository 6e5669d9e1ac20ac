//! What a pod says of itself, with every renewal of its lease.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a pod says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PodFacts {
    /// Its name.
    pub pod: String,
    /// Its place in the StatefulSet, where its name ends in one.
    pub ordinal: Option<u32>,
    /// The version of its binary.
    pub version: String,
    /// How many jobs it can run at once.
    pub slots: usize,
    /// How many it runs.
    pub running: usize,
    /// Whether it takes no more jobs.
    pub draining: bool,
    /// Since when it serves.
    pub started_at: Timestamp,
    /// When it last said so.
    pub seen_at: Timestamp,
}

/// A pod as the fleet knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PodInfo {
    /// The life of the pod: its name, and what tells it from earlier lives.
    pub life: String,
    /// What it says of itself.
    #[serde(flatten)]
    pub facts: PodFacts,
    /// Whether its lease is over: its jobs are being taken back.
    pub expired: bool,
}

/// The number at the end of a StatefulSet pod's name.
#[must_use]
pub fn ordinal(pod: &str) -> Option<u32> {
    pod.rsplit_once('-')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::ordinal;

    #[test]
    fn a_pod_of_a_stateful_set_has_an_ordinal() {
        assert_eq!(ordinal("agenticore-12"), Some(12));
        assert_eq!(ordinal("laptop"), None);
        assert_eq!(ordinal("a-b"), None);
    }
}
