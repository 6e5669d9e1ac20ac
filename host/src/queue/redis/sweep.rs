//! Ending what waited too long, and forgetting what is long over.

use jiff::Timestamp;

use super::change::{self, Change};
use super::{Inner, reads, scripts, writes};
use crate::job::{Job, JobId, Record, State, Transition};
use crate::queue::QueueError;

/// How many jobs one sweep looks at.
const SWEEP: isize = 500;

/// Ends what waited too long and forgets what is long over.
pub(super) async fn sweep(inner: &Inner, now: Timestamp) -> Result<Vec<Record>, QueueError> {
    let due: Vec<String> = inner
        .link
        .call("look for jobs whose time is over", async |c| {
            redis::cmd("ZRANGE")
                .arg(inner.keys.due())
                .arg("-inf")
                .arg(now.as_millisecond())
                .arg("BYSCORE")
                .arg("LIMIT")
                .arg(0)
                .arg(SWEEP)
                .query_async(c)
                .await
        })
        .await?;
    let mut forgotten = Vec::new();
    for id in due.iter().filter_map(|id| id.parse::<JobId>().ok()) {
        match reads::load(inner, id).await {
            Ok((job, version)) if job.state.is_ended() => {
                if forget(inner, &job, version).await? {
                    forgotten.push(change::record(&job, version - 1));
                }
            }
            Ok((job, _)) if matches!(job.state, State::Queued { .. }) => {
                let expire = Change::transition(Transition::Expire { at: now }, None);
                match writes::by_anybody(inner, id, &expire).await {
                    // It was claimed meanwhile.
                    Err(QueueError::Illegal(_) | QueueError::NotFound(_)) | Ok(_) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(_) => {}
            Err(QueueError::NotFound(_)) => drop_leftover(inner, id).await?,
            Err(error) => return Err(error),
        }
    }
    Ok(forgotten)
}

async fn forget(inner: &Inner, job: &Job, version: u64) -> Result<bool, QueueError> {
    let id = job.id;
    let session = job.run.session_id.as_ref().map(ToString::to_string);
    let gone: u8 = inner
        .link
        .call("forget a job", async |c| {
            scripts::FORGET
                .key(inner.keys.job(id))
                .key(inner.keys.index())
                .key(inner.keys.due())
                .key(inner.keys.outstanding())
                .key(inner.keys.events(id))
                .key(inner.keys.session(session.as_deref().unwrap_or("-")))
                .arg(id.to_string())
                .arg(version)
                .invoke_async(c)
                .await
        })
        .await?;
    if gone == 1 {
        inner.hub.forget(id);
        inner.blocking(move |mirror| mirror.remove(id)).await?;
    }
    Ok(gone == 1)
}

/// A job whose keys expired before anybody forgot it.
async fn drop_leftover(inner: &Inner, id: JobId) -> Result<(), QueueError> {
    let keys = &inner.keys;
    let () = inner
        .link
        .call("forget a job", async |c| {
            redis::pipe()
                .zrem(keys.due(), id.to_string())
                .ignore()
                .zrem(keys.index(), id.to_string())
                .ignore()
                .srem(keys.outstanding(), id.to_string())
                .ignore()
                .query_async(c)
                .await
        })
        .await?;
    inner.blocking(move |mirror| mirror.remove(id)).await
}
