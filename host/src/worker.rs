//! One pod's loop: permit, claim, run; and how it stops.
//!
//! A permit is taken before a job is claimed, so a pod never holds a job that it cannot run. Every run is a task of the loop's own
//! set; a run that panics is recorded as failed and the loop goes on.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::Instrument;

use crate::drain::{Drain, Running};
use crate::job::{Failure, FailureClass, Outcome};
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
                let run = run_one(pod.clone(), claim, claiming.run());
                runs.spawn(
                    async move {
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
            .finish(&lease, &run, Outcome::Failed(failure))
            .await;
        if let Err(QueueError::LostClaim(_)) = recorded {
            metrics::lease_lost();
        } else if let Err(error) = recorded {
            tracing::error!(%error, "and its end could not be recorded; it is run again when the server starts anew");
        }
    }
}
