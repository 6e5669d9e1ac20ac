//! One pod's loop: permit, claim, run; and how it stops.
//!
//! A permit is taken before a job is claimed, so a pod never holds a job that it cannot run. Every run is a task of the loop's own
//! set; a run that panics is recorded as failed and the loop goes on.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::Instrument;

use crate::drain::{Drain, Running};
use crate::job::{Failure, FailureClass, JobId, Outcome};
use crate::pipeline;
use crate::pod::Pod;
use crate::queue::{Claim, QueueError};
use crate::telemetry::{metrics, trace};

/// How long the loop waits after the store failed.
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(1);

/// Claims and runs jobs, except while the pod drains, until `drain` is closed; then waits for the jobs that run.
pub async fn run(pod: Arc<Pod>, drain: Drain) {
    let permits = Arc::new(Semaphore::new(pod.config.max_parallel_jobs));
    let mut runs = JoinSet::new();
    let mut attempts = Attempts::default();
    while drain.serving().await.is_some() {
        let permit = tokio::select! {
            biased;
            () = drain.begun() => continue,
            permit = permits.clone().acquire_owned() => permit,
        };
        let Some(claiming) = drain.claiming() else {
            continue;
        };
        let claimed = tokio::select! {
            biased;
            () = drain.begun() => continue,
            claimed = pod.queue.claim(&pod.config.pod_name) => claimed,
        };
        match claimed {
            Ok(claim) => {
                let span = trace::job_span(&claim.job, pod.config.pod_name.as_str());
                let turn = attempts.next(claim.job.id);
                let run = run_one(pod.clone(), claim, claiming.run());
                runs.spawn(
                    async move {
                        let _over = turn.await;
                        run.await;
                        drop(permit);
                    }
                    .instrument(span),
                );
            }
            Err(error) => {
                tracing::error!(%error, "cannot claim a job; trying again");
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
            }
        }
        while runs.try_join_next().is_some() {}
    }
    while runs.join_next().await.is_some() {}
}

/// Sees to it that this pod runs one attempt of a job at a time. A pod that lost a job's claim may be given the job again while it
/// still kills the attempt before, and killing takes every process of the job, whichever attempt it is of.
#[derive(Default)]
struct Attempts {
    /// The last attempt of each job here; cancelled when it is over.
    last: HashMap<JobId, CancellationToken>,
}

impl Attempts {
    /// Comes back when the attempt before is over; the next one waits until what it gives back is dropped.
    fn next(&mut self, job: JobId) -> impl Future<Output = DropGuard> + use<> {
        self.last.retain(|_, over| !over.is_cancelled());
        let over = CancellationToken::new();
        let before = self.last.insert(job, over.clone());
        // Made here, so that also one that never had its turn lets the next begin.
        let guard = over.drop_guard();
        async move {
            if let Some(before) = before {
                before.cancelled().await;
            }
            guard
        }
    }
}

async fn run_one(pod: Arc<Pod>, claim: Claim, running: Running) {
    let (lease, run) = (claim.lease.clone(), claim.job.run.clone());
    let ended = AssertUnwindSafe(pipeline::run(&pod, claim, running.hand_off.clone()))
        .catch_unwind()
        .await;
    if let Ok(true) = ended {
        running.handed_off();
    }
    if ended.is_err() {
        tracing::error!("the run of this job panicked");
        let failure = Failure::new(
            FailureClass::Host,
            "the server met a defect of its own while it ran this job",
            "report it with the server's log; the job can be submitted again",
        );
        let recorded = pod
            .queue
            .finish(&lease, &run, Outcome::Failed(failure), Vec::new())
            .await;
        if let Err(QueueError::LostClaim(_)) = recorded {
            metrics::lease_lost();
        } else if let Err(error) = recorded {
            tracing::error!(%error, "and its end could not be recorded; it is run again when the server starts anew");
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn an_attempt_waits_for_the_one_before_and_for_no_other_job() {
        let (one, other) = (JobId::random(), JobId::random());
        let mut attempts = Attempts::default();
        let first = attempts.next(one).await;
        let second = attempts.next(one);
        let third = attempts.next(one);
        tokio::pin!(second, third);
        assert!((&mut second).now_or_never().is_none());
        drop(attempts.next(other).await);
        drop(first);
        let second = second.await;
        assert!((&mut third).now_or_never().is_none());
        drop(second);
        third.await;
        assert_eq!(attempts.last.len(), 2, "the one is over, and told so next");
        drop(attempts.next(other));
        assert_eq!(attempts.last.len(), 1, "what is over is forgotten");
    }
}
