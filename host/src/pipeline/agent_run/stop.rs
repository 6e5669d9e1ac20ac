//! Waiting for the agent's end, and bringing it about.

use std::io;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::pipeline::{Interrupt, Interrupts};
use crate::plugin::StopFile;
use crate::plugin::types::StopPlan;
use crate::process::{Child, Ended, Signal};

/// How long an agent that is told to end may take before it is killed.
const TERMINATE_GRACE: Duration = Duration::from_secs(5);
/// How long an agent may take to reach its next tool boundary when it is asked to stop there.
const GENTLE_GRACE: Duration = Duration::from_secs(15);

/// Why the agent was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopped {
    By(Interrupt),
    /// Handed off, and the agent did not come to a tool boundary in time: it was terminated in the middle of something, and what
    /// it concludes from that is not to be trusted.
    CutOff,
    TimeLimit,
    Budget,
}

/// When an agent that nobody interrupts is stopped all the same.
pub(super) struct Limits<'a> {
    pub(super) time: Duration,
    /// Cancelled when the job has spent more than its budget.
    pub(super) over_budget: &'a CancellationToken,
}

/// Waits for the child's end, and brings it about when told to.
pub(super) async fn control(
    child: &mut Child,
    interrupts: &Interrupts,
    limits: Limits<'_>,
    stop: &StopPlan,
    stop_file: Option<StopFile>,
) -> (Ended, Option<Stopped>) {
    let why = tokio::select! {
        biased;
        ended = child.wait() => return (ended, None),
        why = interrupts.next() => Stopped::By(why),
        () = tokio::time::sleep(limits.time) => Stopped::TimeLimit,
        () = limits.over_budget.cancelled() => Stopped::Budget,
    };
    match why {
        Stopped::By(Interrupt::Lost) => (child.kill_tree().await, Some(why)),
        Stopped::By(Interrupt::HandOff) => match stop_gently(child, stop, stop_file).await {
            Some(ended) => (ended, Some(why)),
            None => (terminate(child).await, Some(Stopped::CutOff)),
        },
        Stopped::Budget => match stop_gently(child, stop, stop_file).await {
            Some(ended) => (ended, Some(why)),
            None => (terminate(child).await, Some(why)),
        },
        _ => (terminate(child).await, Some(why)),
    }
}

/// Lets the agent come to its next tool boundary; none: it did not, or cannot be asked to.
async fn stop_gently(
    child: &mut Child,
    stop: &StopPlan,
    stop_file: Option<StopFile>,
) -> Option<Ended> {
    let asked = match (stop, stop_file) {
        (StopPlan::CreateFile(_), Some(file)) => tokio::task::spawn_blocking(move || file.create())
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error))),
        (StopPlan::Interrupt, _) => child.stop(Signal::Interrupt),
        _ => return None,
    };
    if let Err(error) = asked {
        tracing::warn!(%error, "the agent cannot be asked to stop; it is terminated");
        return None;
    }
    tokio::time::timeout(GENTLE_GRACE, child.wait()).await.ok()
}

async fn terminate(child: &mut Child) -> Ended {
    if let Err(error) = child.stop(Signal::Terminate) {
        tracing::warn!(%error, "the agent cannot be signalled; it is killed");
        return child.kill_tree().await;
    }
    match tokio::time::timeout(TERMINATE_GRACE, child.wait()).await {
        Ok(ended) => ended,
        Err(_) => child.kill_tree().await,
    }
}
