//! The state machine of a job: states, transitions, and the one function that connects them.
//!
//! ```text
//!            claim                     finish
//!  Queued ───────────► Running ───────────────────► Ended
//!    │  ▲                 │  ╲ cancel (noted)          ▲
//!    │  └─────────────────┘   ╲─► Running, cancelling ─┤ finish
//!    │      requeue                                    │
//!    └─────────────────────────────────────────────────┘
//!                    cancel, expire, lose
//! ```
//!
//! Stores compare versions and leases; they know nothing of this table.

use jiff::Timestamp;

use super::{Fence, Outcome, PodName};

/// Where a job stands.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// It waits for a pod.
    Queued {
        /// Since when.
        since: Timestamp,
    },
    /// A pod runs it.
    Running {
        /// Which pod.
        pod: PodName,
        /// The fence of the claim; every write of the run names it.
        fence: Fence,
        /// When this attempt was claimed.
        started_at: Timestamp,
        /// When somebody asked to cancel it, if anybody did.
        cancel_requested: Option<Timestamp>,
    },
    /// It is over.
    Ended {
        /// When the last attempt was claimed; none if it never ran.
        started_at: Option<Timestamp>,
        /// When it ended.
        at: Timestamp,
        /// How it ended.
        outcome: Outcome,
    },
}

/// Why a running job goes back to the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requeue {
    /// The pod drains and hands the job to another.
    HandOff,
    /// The pod died, or lost its lease.
    Reclaimed,
}

impl Requeue {
    /// The word for it in events and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HandOff => "hand_off",
            Self::Reclaimed => "reclaimed",
        }
    }
}

/// Something that happens to a job.
#[derive(Debug, Clone, PartialEq)]
pub enum Transition {
    /// A pod takes it.
    Claim {
        /// The pod.
        pod: PodName,
        /// A fence newer than any before.
        fence: Fence,
        /// When.
        at: Timestamp,
    },
    /// It goes back to the queue.
    Requeue {
        /// The fence of the claim that ends.
        fence: Fence,
        /// Why.
        why: Requeue,
        /// When.
        at: Timestamp,
    },
    /// The run came to its end.
    Finish {
        /// The fence of the claim that ends.
        fence: Fence,
        /// How.
        outcome: Outcome,
        /// When.
        at: Timestamp,
    },
    /// Somebody cancels it.
    Cancel {
        /// When.
        at: Timestamp,
    },
    /// It waited too long.
    Expire {
        /// When.
        at: Timestamp,
    },
}

impl Transition {
    fn name(&self) -> &'static str {
        match self {
            Self::Claim { .. } => "claim",
            Self::Requeue { .. } => "requeue",
            Self::Finish { .. } => "finish",
            Self::Cancel { .. } => "cancel",
            Self::Expire { .. } => "expire",
        }
    }
}

/// A transition that its state does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a job that is {state} cannot {transition}{detail}")]
pub struct IllegalTransition {
    state: &'static str,
    transition: &'static str,
    detail: &'static str,
}

impl State {
    /// The word for it in errors.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Queued { .. } => "queued",
            Self::Running { .. } => "running",
            Self::Ended { .. } => "ended",
        }
    }

    /// The fence of the claim that runs the job, if one does.
    #[must_use]
    pub fn fence(&self) -> Option<Fence> {
        match self {
            Self::Running { fence, .. } => Some(*fence),
            _ => None,
        }
    }

    /// Whether the job is over.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        matches!(self, Self::Ended { .. })
    }

    /// Whether it runs and somebody wants it to be cancelled.
    #[must_use]
    pub fn is_to_be_cancelled(&self) -> bool {
        matches!(
            self,
            Self::Running {
                cancel_requested: Some(_),
                ..
            }
        )
    }

    /// The state after `transition`.
    ///
    /// Cancelling a running job only notes the wish: the pod that runs it stops the agent and finishes the job. A second
    /// cancel keeps the first wish's time.
    ///
    /// # Errors
    /// [`IllegalTransition`] for every pair that the drawing does not show, and for a fence that is not the running claim's.
    pub fn apply(&self, transition: &Transition) -> Result<Self, IllegalTransition> {
        use Transition as T;
        let illegal = |detail| IllegalTransition {
            state: self.name(),
            transition: transition.name(),
            detail,
        };
        match (self, transition) {
            (Self::Queued { .. }, T::Claim { pod, fence, at }) => Ok(Self::Running {
                pod: pod.clone(),
                fence: *fence,
                started_at: *at,
                cancel_requested: None,
            }),
            (Self::Queued { .. }, T::Cancel { at }) => Ok(Self::Ended {
                started_at: None,
                at: *at,
                outcome: Outcome::Cancelled,
            }),
            (Self::Queued { .. }, T::Expire { at }) => Ok(Self::Ended {
                started_at: None,
                at: *at,
                outcome: Outcome::Expired,
            }),
            (
                Self::Running { fence, .. },
                T::Requeue { fence: given, .. } | T::Finish { fence: given, .. },
            ) if fence != given => Err(illegal(": the fence is not the one of its claim")),
            (
                Self::Running {
                    cancel_requested: Some(_),
                    started_at,
                    ..
                },
                T::Requeue { at, .. },
            ) => {
                // Whoever cancelled it must not see it run again.
                Ok(Self::Ended {
                    started_at: Some(*started_at),
                    at: *at,
                    outcome: Outcome::Cancelled,
                })
            }
            (Self::Running { .. }, T::Requeue { at, .. }) => Ok(Self::Queued { since: *at }),
            (Self::Running { started_at, .. }, T::Finish { outcome, at, .. }) => Ok(Self::Ended {
                started_at: Some(*started_at),
                at: *at,
                outcome: outcome.clone(),
            }),
            (
                Self::Running {
                    pod,
                    fence,
                    started_at,
                    cancel_requested,
                },
                T::Cancel { at },
            ) => Ok(Self::Running {
                pod: pod.clone(),
                fence: *fence,
                started_at: *started_at,
                cancel_requested: Some(cancel_requested.unwrap_or(*at)),
            }),
            _ => Err(illegal("")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn states() -> Vec<State> {
        let running = |cancel_requested| State::Running {
            pod: "pod-0".parse().unwrap(),
            fence: Fence(7),
            started_at: at(1),
            cancel_requested,
        };
        vec![
            State::Queued { since: at(0) },
            running(None),
            running(Some(at(2))),
            State::Ended {
                started_at: None,
                at: at(3),
                outcome: Outcome::Cancelled,
            },
        ]
    }

    fn transitions(fence: u64) -> Vec<Transition> {
        let fence = Fence(fence);
        vec![
            Transition::Claim {
                pod: "pod-1".parse().unwrap(),
                fence,
                at: at(9),
            },
            Transition::Requeue {
                fence,
                why: Requeue::Reclaimed,
                at: at(9),
            },
            Transition::Finish {
                fence,
                outcome: Outcome::Succeeded,
                at: at(9),
            },
            Transition::Cancel { at: at(9) },
            Transition::Expire { at: at(9) },
        ]
    }

    /// Every pair, legal or not: rows are states, columns the transitions in the order of `transitions`.
    #[test]
    fn the_table_is_the_drawing() {
        let table = |fence| -> Vec<Vec<&'static str>> {
            states()
                .iter()
                .map(|s| {
                    transitions(fence)
                        .iter()
                        .map(|t| s.apply(t).map_or("-", |n| n.name()))
                        .collect()
                })
                .collect()
        };
        let own = vec![
            vec!["running", "-", "-", "ended", "ended"],
            vec!["-", "queued", "ended", "running", "-"],
            vec!["-", "ended", "ended", "running", "-"],
            vec!["-", "-", "-", "-", "-"],
        ];
        assert_eq!(table(7), own);
        let stale = vec![
            vec!["running", "-", "-", "ended", "ended"],
            vec!["-", "-", "-", "running", "-"],
            vec!["-", "-", "-", "running", "-"],
            vec!["-", "-", "-", "-", "-"],
        ];
        assert_eq!(table(6), stale);
    }

    #[test]
    fn a_cancelled_job_is_not_run_again() {
        let state = states()[2].apply(&transitions(7)[1]).unwrap();
        assert!(matches!(
            state,
            State::Ended {
                outcome: Outcome::Cancelled,
                ..
            }
        ));
    }

    #[test]
    fn the_error_names_both_sides() {
        let error = states()[3].apply(&transitions(7)[0]).unwrap_err();
        assert_eq!(error.to_string(), "a job that is ended cannot claim");
    }

    proptest! {
        /// Whatever happens in whatever order, a job ends at most once and nothing moves it afterwards.
        #[test]
        fn an_end_is_final(steps in prop::collection::vec((0usize..5, 6u64..9), 0..40)) {
            let mut state = State::Queued { since: at(0) };
            let mut ends = 0;
            for (which, fence) in steps {
                if let Ok(next) = state.apply(&transitions(fence)[which]) {
                    prop_assert!(!state.is_ended());
                    ends += usize::from(next.is_ended());
                    state = next;
                }
            }
            prop_assert!(ends <= 1);
        }
    }
}
