//! Bringing the copy of a job on the volume up to what Redis has.

use std::time::Instant;

use super::change::{self, Next};
use super::mirror::Mirror;
use super::{Inner, reads};
use crate::job::{JobId, Record, State};
use crate::queue::QueueError;

/// What the copy of a job may not have yet.
struct News {
    id: JobId,
    /// The record as JSON, if it changed.
    record: Option<String>,
    /// The last events, without their numbers.
    events: Vec<String>,
    /// The number of the last one.
    seq: u64,
}

impl News {
    fn new(id: JobId, record: Option<&Record>, events: &[String], seq: u64) -> Self {
        Self {
            id,
            record: record.and_then(|record| serde_json::to_string(record).ok()),
            events: events.to_vec(),
            seq,
        }
    }

    /// The number of the first of its events.
    fn first(&self) -> u64 {
        (self.seq + 1).saturating_sub(self.events.len() as u64)
    }

    /// Adds it to a copy that has the events up to number `before`, and gives the number of the last one it has then. `between` are the
    /// lines from there to its own events.
    fn write(&self, mirror: &Mirror, before: u64, between: Vec<String>) -> Result<u64, QueueError> {
        let own = self.events.iter().zip(self.first()..);
        let mut lines = between;
        lines.extend(
            own.filter(|(_, n)| *n > before)
                .map(|(rest, n)| change::numbered(n, rest)),
        );
        if !lines.is_empty() {
            mirror.append(self.id, &lines)?;
        }
        if let Some(json) = &self.record {
            mirror.write(self.id, json)?;
        }
        Ok(before.max(self.seq))
    }
}

/// Brings the copy of a job up to a change that Redis has, and gives the number of the last event that is there then. `before` is that
/// number by now, where it is known, and `asked` when Redis was asked for the change. A copy that cannot be written is behind until the
/// next change.
pub(super) async fn settle(
    inner: &Inner,
    next: &Next,
    seq: u64,
    before: Option<u64>,
    asked: Instant,
) -> u64 {
    let id = next.job.id;
    // A pod that slept since then may be overtaken: whoever runs a job alone writes its copy.
    let copied = if asked.elapsed() < inner.patience() {
        let news = News::new(id, next.record.as_ref(), &next.events, seq);
        bring(inner, news, before).await
    } else if runs_elsewhere(inner, id).await {
        Err(inner.cannot("copy a job", "it is another pod's now"))
    } else {
        again(inner, id).await
    };
    match copied {
        Ok(last) => last,
        Err(error) => {
            tracing::warn!(job = %id, %error, "the copy of the job on the volume is behind");
            // The events may be there, and the record not.
            let last = inner.blocking(move |mirror| mirror.last_event(id)).await;
            last.and_then(|last| last).unwrap_or(before.unwrap_or(0))
        }
    }
}

async fn runs_elsewhere(inner: &Inner, id: JobId) -> bool {
    let job = reads::load(inner, id).await.map(|(job, _)| job);
    job.is_ok_and(|job| {
        matches!(job.state, State::Running { .. }) && job.run.life.as_deref() != Some(&inner.life)
    })
}

/// Brings the copy of a job up to what Redis says of it, and gives the number of its last event.
pub(super) async fn again(inner: &Inner, id: JobId) -> Result<u64, QueueError> {
    let (job, version) = reads::load(inner, id).await?;
    let record = change::record(&job, version - 1);
    let seq = reads::seq(inner, id).await?.unwrap_or(0);
    bring(inner, News::new(id, Some(&record), &[], seq), None).await
}

async fn bring(inner: &Inner, news: News, before: Option<u64>) -> Result<u64, QueueError> {
    // One visit to the volume where others told nothing in between.
    let visited = inner.blocking(move |mirror| {
        let before = match before {
            Some(before) => before,
            None => mirror.last_event(news.id)?,
        };
        if news.first() > before + 1 {
            return Ok(Err((news, before)));
        }
        news.write(mirror, before, Vec::new()).map(Ok)
    });
    match visited.await?? {
        Ok(last) => Ok(last),
        Err((news, before)) => {
            let between = reads::lines(inner, news.id, before + 1, news.first() - 1).await?;
            inner
                .blocking(move |mirror| news.write(mirror, before, between))
                .await?
        }
    }
}
