//! **finish**: records how the attempt ended and releases what it held, whatever happened before. Its event is `end`, which the
//! queue adds with the record.

use super::reporter::persist;
use super::{Attempt, Halt, Interrupt};
use crate::job::{Outcome, Requeue};
use crate::queue::QueueError;
use crate::telemetry::metrics;

impl Attempt<'_> {
    /// Returns whether the job went back to the queue.
    pub(super) async fn finish(self, ended: Result<(), Halt>) -> bool {
        let outcome = match ended {
            Ok(()) => Some(Outcome::Succeeded),
            Err(Halt::Failed(failure)) => Some(Outcome::Failed(failure)),
            Err(Halt::Interrupted(Interrupt::Cancelled)) => Some(Outcome::Cancelled),
            Err(Halt::Interrupted(Interrupt::HandOff)) => None,
            Err(Halt::Interrupted(Interrupt::Lost)) => {
                tracing::warn!("the lease of this job is lost; nothing more is written");
                metrics::lease_lost();
                return false;
            }
        };
        let last = self.reporter.close().await;
        let (queue, lease, run) = (&self.pod.queue, &self.lease, &self.job.run);
        let recorded = match &outcome {
            Some(outcome) => {
                persist("record the end", || {
                    queue.finish(lease, run, outcome.clone(), last.clone())
                })
                .await
            }
            None => {
                persist("hand the job off", || {
                    queue.requeue(lease, run, Requeue::HandOff, last.clone())
                })
                .await
            }
        };
        match recorded {
            Ok(record) => {
                // The number of the attempt stands on the span.
                tracing::info!(status = %record.status, "the attempt is over");
                return !record.status.is_ended();
            }
            Err(QueueError::LostClaim(_)) => {
                tracing::warn!("the lease of this job was lost before its end was recorded");
                metrics::lease_lost();
            }
            Err(error) => tracing::error!(%error, "the end of this job could not be recorded"),
        }
        false
    }
}
