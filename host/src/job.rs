//! The job: what a submitter asked for, where it stands, and how it ends. No I/O in this folder.
//!
//! [`Request`] is what is asked, [`State`] where it stands (moved only by [`State::apply`]), [`Outcome`] how it ended,
//! [`Run`] what is known of its attempts, [`Event`] what its watchers see, and [`Record`] the flat JSON view that users and
//! files have of all of it.

mod delivery;
mod event;
mod ids;
mod origin;
mod outcome;
mod plugins;
mod record;
mod request;
mod run;
mod state;
mod status;
mod trace;

pub use delivery::{PullRequest, PullRequestState, Verdict, Wishes};
pub use event::{AgentEvent, Event, EventBody, LogStream, Stage, StageState};
pub use ids::{Fence, InvalidName, JobId, PodName, ProfileName, SessionId};
pub use origin::{Idempotency, InvalidKey, Origin};
pub use outcome::{Failure, FailureClass, Outcome};
pub use plugins::{Admitted, Denial, FileUse, HookUse, PluginPlace, PluginUse};
pub use record::Record;
pub use request::{BadRequest, Mode, Request, RequestBody, RequestPolicy};
pub use run::{Run, Transcript, Usage};
pub use state::{IllegalTransition, Requeue, State, Transition};
pub use status::Status;
pub use trace::{InvalidTraceparent, TraceContext};

use jiff::Timestamp;

/// A job and everything known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// What was asked for.
    pub request: Request,
    /// Where it came from.
    pub origin: Origin,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// Where it stands.
    pub state: State,
    /// How many times it has been claimed.
    pub attempt: u32,
    /// What is known of its attempts.
    pub run: Run,
}

impl Job {
    /// A queued job for `request`, accepted at `now`.
    #[must_use]
    pub fn new(id: JobId, request: Request, now: Timestamp) -> Self {
        Self {
            id,
            request,
            origin: Origin::default(),
            created_at: now,
            state: State::Queued { since: now },
            attempt: 0,
            run: Run::default(),
        }
    }

    /// Moves the job along one transition and counts attempts and interruptions.
    ///
    /// # Errors
    /// [`IllegalTransition`], which names both sides; the job is unchanged then.
    pub fn apply(&mut self, transition: &Transition) -> Result<(), IllegalTransition> {
        self.state = self.state.apply(transition)?;
        match transition {
            Transition::Claim { pod, .. } => {
                self.attempt += 1;
                self.run.pod = Some(pod.clone());
            }
            Transition::Requeue { why, .. } => {
                self.run.pid = None;
                self.run.interruptions += u32::from(*why == Requeue::Reclaimed);
            }
            Transition::Finish { .. } => self.run.pid = None,
            Transition::Cancel { .. } | Transition::Expire { .. } => {}
        }
        Ok(())
    }
}
