//! The life of one claimed job: clone, materialize, pre hook, agent run, post hook, pull request, finish.
//!
//! Each step takes what the step before returned. A step that fails ends the job with a [`Failure`]; something from outside (a
//! cancel, a hand-off, a lost lease) ends it with an [`Interrupt`]. Whatever happened, [`finish`] records it and releases what the
//! job held.

mod agent_run;
mod clone;
mod finish;
mod hook;
mod materialize;
mod pull_request;
mod redact;
mod reporter;
mod session;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::job::{EventBody, Failure, FailureClass, Job, Stage, StageState};
use crate::plugin::types;
use crate::pod::Pod;
use crate::profile::{OnInterrupt, Profile};
use crate::queue::{Claim, Lease};
use crate::telemetry::trace;

use self::reporter::Reporter;

/// Why a job's steps ended before their end.
#[derive(Debug)]
enum Halt {
    /// A step failed.
    Failed(Failure),
    /// Something from outside.
    Interrupted(Interrupt),
}

impl From<Failure> for Halt {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// What can end a run from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interrupt {
    /// Somebody cancelled the job.
    Cancelled,
    /// The pod stops and hands the job to another.
    HandOff,
    /// The lease is lost; another pod may run the job already.
    Lost,
}

/// Where interrupts come from.
#[derive(Debug, Clone)]
struct Interrupts {
    lease: Lease,
    hand_off: CancellationToken,
}

impl Interrupts {
    /// Waits for the first interrupt. Cancel-safe; an interrupt that has come stays.
    async fn next(&self) -> Interrupt {
        tokio::select! {
            biased;
            () = self.lease.lost.cancelled() => Interrupt::Lost,
            () = self.lease.cancelled.cancelled() => Interrupt::Cancelled,
            () = self.hand_off.cancelled() => Interrupt::HandOff,
        }
    }
}

/// One attempt of a job on its way through the steps.
struct Attempt<'a> {
    pod: &'a Pod,
    job: Job,
    lease: Lease,
    interrupts: Interrupts,
    reporter: Reporter,
    /// The branch, tag or commit that the work starts from, once the repository was looked at.
    base: Option<String>,
}

/// Runs a claimed job to its end, whatever that is, and records it. Returns whether it went back to the queue.
pub(crate) async fn run(pod: &Pod, claim: Claim, hand_off: CancellationToken) -> bool {
    let Claim { job, lease } = claim;
    let interrupts = Interrupts {
        lease: lease.clone(),
        hand_off,
    };
    let reporter = Reporter::start(pod.queue.clone(), lease.clone(), pod.config.max_event_bytes);
    let mut attempt = Attempt {
        pod,
        job,
        lease,
        interrupts,
        reporter,
        base: None,
    };
    let ended = attempt.steps().await;
    attempt.finish(ended).await
}

impl Attempt<'_> {
    async fn steps(&mut self) -> Result<(), Halt> {
        let profile = self.profile()?;
        let checkout = self.clone_repository(&profile).await?;
        let verdict = match self.job.run.verdict.clone() {
            // An earlier attempt got as far, so only what comes after is left.
            Some(verdict) => verdict,
            None => {
                let launch = self.materialize(&profile, &checkout).await?;
                let launch = self.pre_hook(&profile, launch).await?;
                let ended = self.agent_run(launch).await;
                let verdict = self.redact_result(&profile, ended).await?;
                self.job.run.verdict = Some(verdict.clone());
                self.checkpoint("record what the agent came to").await?;
                verdict
            }
        };
        if self.job.run.wishes.is_none() {
            let mut wishes = self.post_hook(&profile, &checkout, &verdict).await;
            self.redact_review(&profile, &mut wishes).await;
            self.job.run.wishes = Some(wishes);
            self.checkpoint("record what the hooks said").await?;
        }
        match verdict.failure {
            Some(failure) => Err(Halt::Failed(failure)),
            None => self.pull_request(&profile, &checkout).await,
        }
    }

    /// The profile, unless the job was interrupted more often than it allows.
    fn profile(&self) -> Result<Arc<Profile>, Halt> {
        let profile = self
            .pod
            .profiles
            .load(self.job.request.profile.as_str())
            .map_err(|error| {
                Failure::new(
                    FailureClass::Profile,
                    error.full_message(),
                    "correct the profile and submit the job again",
                )
            })?;
        let interruptions = self.job.run.interruptions;
        let resumable = self.job.run.transcript.is_some();
        if self.job.run.verdict.is_some() {
            // The agent's work is done and must not be lost; the steps that are left are bounded by themselves.
            return Ok(profile);
        }
        let refused = profile.on_interrupt == OnInterrupt::Fail && !resumable && interruptions > 0;
        if refused || interruptions >= profile.max_attempts {
            let limit = if refused {
                "its profile says `on_interrupt: fail`".to_owned()
            } else {
                format!(
                    "its profile allows {} attempts (`max_attempts`)",
                    profile.max_attempts
                )
            };
            let times = if interruptions == 1 {
                "once".to_owned()
            } else {
                format!("{interruptions} times")
            };
            return Err(Halt::Failed(Failure::new(
                FailureClass::Lost,
                format!("the server died {times} while it ran this job, and {limit}"),
                "look at the server's log for what stopped it, then submit the job again",
            )));
        }
        Ok(profile)
    }

    /// Runs one step, tells of its beginning and end, and ends it early on an interrupt.
    async fn stage<T>(
        &self,
        stage: Stage,
        step: impl Future<Output = Result<T, Halt>>,
    ) -> Result<T, Halt> {
        self.tell(stage, StageState::Started, None).await;
        let result = tokio::select! {
            biased;
            why = self.interrupts.next() => Err(Halt::Interrupted(why)),
            result = step.instrument(trace::stage_span(stage)) => result,
        };
        match &result {
            Ok(_) => self.tell(stage, StageState::Done, None).await,
            Err(Halt::Failed(failure)) => {
                self.tell(stage, StageState::Failed, Some(failure.message.clone()))
                    .await
            }
            Err(Halt::Interrupted(_)) => {}
        }
        result
    }

    async fn tell(&self, stage: Stage, state: StageState, detail: Option<String>) {
        tracing::debug!(stage = stage.as_str(), ?state, "stage");
        self.reporter
            .send(EventBody::Stage {
                stage,
                state,
                detail,
            })
            .await;
    }

    /// The job as plugins see it.
    fn for_plugins(&self) -> types::Job {
        let request = &self.job.request;
        let asked_for = request.base_ref.as_ref().map(ToString::to_string);
        types::Job {
            id: self.job.id.to_string(),
            attempt: self.job.attempt,
            task: request.task.clone(),
            repo_url: request.repo_url.as_ref().map(ToString::to_string),
            base_ref: self.base.clone().or(asked_for),
            branch: self.job.run.branch.clone(),
            profile: request.profile.to_string(),
        }
    }
}
