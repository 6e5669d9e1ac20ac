//! Taking back the jobs of a dead life.

use std::collections::VecDeque;
use std::fs;
use std::time::Instant;

use super::change::{self, Change};
use super::held::Spool;
use super::scripts::Committed;
use super::writes::{self, By};
use super::{Inner, claims, copy, lease, reads};
use crate::job::{JobId, Requeue, State};
use crate::queue::QueueError;

/// How often a job is looked at again before it is left for the next renewal.
const LOOKS: u32 = 3;

/// Puts every job of a life whose lease is over back into the queue.
///
/// # Errors
/// [`QueueError::Redis`]; what was not put back stays on the life's list then.
pub(super) async fn life(
    inner: &Inner,
    life: &str,
    ordinal: Option<u32>,
) -> Result<(), QueueError> {
    if !lease::condemn(inner, life).await? {
        return Ok(());
    }
    let ids = claims::listed(inner, life).await?;
    if !ids.is_empty() {
        tracing::warn!(
            life,
            jobs = ids.len(),
            "a pod is dead: its jobs go back to the queue"
        );
    }
    for id in ids {
        for _ in 0..LOOKS {
            // What does not run under this life waits still, is over, or is another's; or its claim came in this moment.
            if job(inner, id, life, ordinal).await? || claims::unlist(inner, id, life, true).await?
            {
                break;
            }
        }
    }
    lease::bury(inner, life).await;
    Ok(())
}

/// Puts a job of a dead life back to the front of the queue, after what the life could not tell.
///
/// # Errors
/// [`QueueError::Redis`]; the job stays on the life's list then.
pub(super) async fn job(
    inner: &Inner,
    id: JobId,
    life: &str,
    ordinal: Option<u32>,
) -> Result<bool, QueueError> {
    let path = inner.spool_path(life, id);
    let spool = path.clone();
    let mut told: VecDeque<_> = inner.blocking(move |_| Spool::read(&spool)).await?.into();
    loop {
        let (job, version) = match reads::load(inner, id).await {
            Ok(found) => found,
            Err(QueueError::NotFound(_)) => return Ok(false),
            Err(error) => return Err(error),
        };
        let State::Running { fence, .. } = job.state else {
            return Ok(false);
        };
        if change::life_of(&job) != life {
            return Ok(false);
        }
        // Those of an earlier claim were told, or are not wanted any more.
        told.retain(|line| line.fence == fence.0);
        let line = told.front().cloned();
        let (name, change) = match line {
            Some(line) => match (line.name.clone(), line.change()) {
                (name, Ok(change)) => (name, change),
                (_, Err(problem)) => {
                    tracing::error!(job = %id, problem, "a change that a dead pod kept cannot be read");
                    told.pop_front();
                    continue;
                }
            },
            None => (
                format!("reclaim/{life}/{}", fence.0),
                Change::requeue(fence, None, Requeue::Reclaimed, Vec::new()),
            ),
        };
        let mut next = change.apply(&job, version)?;
        let by = By {
            name: &name,
            fence: Some((fence, life)),
            life: next.drop_claim.then_some((life, ordinal)),
        };
        let asked = Instant::now();
        match writes::commit(inner, &next, version, by).await? {
            Committed::Ok { seq, before } => {
                told.pop_front();
                if !before {
                    change.count(&job, &next.job);
                }
                next.forget_numbers(before);
                inner.hub.tell(id, seq);
                copy::settle(inner, &next, seq, None, asked).await;
                if change.ends_claim() {
                    drop(fs::remove_file(&path));
                    return Ok(true);
                }
            }
            // Somebody changed the job, and what was kept is still to be told.
            Committed::Version => {}
            // Somebody else is at it.
            _ => return Ok(false),
        }
    }
}
