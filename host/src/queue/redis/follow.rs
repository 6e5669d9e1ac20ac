//! Following the fleet's stream of changes.

use std::sync::Arc;
use std::time::Duration;

use redis::streams::{StreamId, StreamRangeReply, StreamReadReply};

use super::{Inner, reads};
use crate::queue::{Changed, QueueError};

/// How many changes are read at once.
const CHANGES: usize = 1_000;
/// How long one wait for changes lasts.
const WAIT: Duration = Duration::from_secs(5);
/// How much longer than that an answer may take.
const LATE: Duration = Duration::from_secs(3);
/// How long a Redis that failed is left in peace.
const PEACE: Duration = Duration::from_millis(500);
/// How long changes gather after some were read: a busy fleet's pods read hundreds at once instead of one at a time.
const GATHER: Duration = Duration::from_millis(5);

/// Follows the stream of changes and tells whoever waits. Never ends.
pub(super) async fn run(inner: Arc<Inner>) {
    let wire = inner.link.wire();
    let mut after: Option<String> = None;
    loop {
        let Some(place) = after.clone() else {
            after = newest_change(&inner).await;
            match after {
                // Whatever came before is asked for.
                Some(_) => refresh(&inner).await,
                None => tokio::time::sleep(PEACE).await,
            }
            continue;
        };
        let waiting = inner.link.call_on(&wire, "follow changes", async |c| {
            redis::cmd("XREAD")
                .arg("COUNT")
                .arg(CHANGES)
                .arg("BLOCK")
                .arg(WAIT.as_millis() as u64)
                .arg("STREAMS")
                .arg(inner.keys.changes())
                .arg(&place)
                .query_async::<Option<StreamReadReply>>(c)
                .await
        });
        match tokio::time::timeout(WAIT + LATE, waiting).await {
            Ok(Ok(reply)) => {
                let Some(reply) = reply else { continue };
                for entry in reply.keys.into_iter().flat_map(|key| key.ids) {
                    after = Some(entry.id.clone());
                    if let Some(changed) = parse_change(&entry) {
                        react(&inner, &changed).await;
                        inner.hub.publish(changed);
                    }
                }
                tokio::time::sleep(GATHER).await;
            }
            Ok(Err(_)) | Err(_) => {
                wire.reset().await;
                after = None;
                tokio::time::sleep(PEACE).await;
            }
        }
    }
}

/// The changes after this place; none: the stream does not reach back to it any more.
pub(super) async fn changes_after(
    inner: &Inner,
    at: &str,
) -> Result<Option<Vec<Changed>>, QueueError> {
    let is_place = at
        .split_once('-')
        .is_some_and(|(ms, n)| ms.parse::<u64>().is_ok() && n.parse::<u64>().is_ok());
    if !is_place {
        return Ok(None);
    }
    let reply: StreamRangeReply = inner
        .link
        .call("read changes", async |c| {
            redis::cmd("XRANGE")
                .arg(inner.keys.changes())
                .arg(at)
                .arg("+")
                .arg("COUNT")
                .arg(CHANGES)
                .query_async(c)
                .await
        })
        .await?;
    let mut entries = reply.ids.iter();
    if entries.next().is_none_or(|first| first.id != at) {
        return Ok(None);
    }
    Ok(Some(entries.filter_map(parse_change).collect()))
}

/// An entry has one field: the job, the number of its last event, and what happened to it.
fn parse_change(entry: &StreamId) -> Option<Changed> {
    let text = entry.get::<String>("c")?;
    let (job, rest) = text.split_once(' ')?;
    let (seq, kind) = rest.split_once(' ')?;
    Some(Changed {
        at: entry.id.clone(),
        job: job.parse().ok()?,
        seq: seq.parse().ok()?,
        kind: kind.to_owned(),
    })
}

/// A wish to cancel reaches the pod that runs the job.
async fn react(inner: &Inner, changed: &Changed) {
    if changed.kind == "cancel" {
        inner.cancel_here(changed.job);
    }
}

async fn newest_change(inner: &Inner) -> Option<String> {
    let reply: StreamRangeReply = inner
        .link
        .call("follow changes", async |c| {
            redis::cmd("XREVRANGE")
                .arg(inner.keys.changes())
                .arg("+")
                .arg("-")
                .arg("COUNT")
                .arg(1)
                .query_async(c)
                .await
        })
        .await
        .ok()?;
    Some(
        reply
            .ids
            .first()
            .map_or("0-0".to_owned(), |entry| entry.id.clone()),
    )
}

/// Asks for everything that may have been missed.
async fn refresh(inner: &Inner) {
    inner.hub.queued.notify_waiters();
    for id in inner.hub.watched() {
        if let Ok(Some(seq)) = reads::seq(inner, id).await {
            inner.hub.tell(id, seq);
        }
    }
    for held in inner.held.all() {
        if let Ok((job, _)) = reads::load(inner, held.id).await
            && job.state.is_to_be_cancelled()
            && job.state.fence() == Some(held.fence)
        {
            held.cancelled.cancel();
        }
    }
}
