//! Bringing the copy of a job on the volume up to what Redis has.
//!
//! Whoever runs a job alone writes its copy. Others may be overtaken: who gives a job away, by whoever takes it, and a pod that slept, by
//! anybody. They leave a record that is newer as it is, and look at Redis again after they wrote, until both say the same.

use std::time::{Duration, Instant};

use super::change::{self, Next};
use super::mirror::Mirror;
use super::{Inner, reads};
use crate::job::{JobId, State};
use crate::queue::QueueError;

/// What the copy of a job may not have yet.
struct News {
    id: JobId,
    /// The record as JSON and its version, if it changed.
    record: Option<(String, u64)>,
    /// The last events, without their numbers.
    events: Vec<String>,
    /// The number of the last one.
    seq: u64,
    /// Whether a record on the volume that is not older stays.
    yields: bool,
}

impl News {
    fn yielding(self) -> Self {
        Self {
            yields: true,
            ..self
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
        match &self.record {
            Some((json, version)) if self.yields => mirror.write_newer(self.id, *version, json)?,
            Some((json, _)) => mirror.write(self.id, json)?,
            None => {}
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
    let record = next.record.as_ref();
    let news = News {
        id,
        record: record.map(|record| (next.json.clone(), record.version)),
        events: next.events.clone(),
        seq,
        yields: false,
    };
    let in_time = Some((asked, inner.patience()));
    let copied = match next.job.state {
        State::Queued { .. } => give_away(inner, news.yielding(), in_time).await,
        _ => keep_up(inner, news, before, in_time).await,
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

/// When Redis was asked, and how long what it said counts; none: until it is asked again.
type InTime = Option<(Instant, Duration)>;

fn is_late(in_time: InTime) -> bool {
    in_time.is_some_and(|(asked, counts)| asked.elapsed() >= counts)
}

async fn keep_up(
    inner: &Inner,
    news: News,
    before: Option<u64>,
    in_time: InTime,
) -> Result<u64, QueueError> {
    let id = news.id;
    match bring(inner, news, before, in_time).await? {
        Some(last) if !is_late(in_time) => Ok(last),
        _ => agree(inner, id, None).await,
    }
}

async fn give_away(inner: &Inner, news: News, in_time: InTime) -> Result<u64, QueueError> {
    let (id, version) = (news.id, news.record.as_ref().map(|(_, version)| *version));
    match bring(inner, news, None, in_time).await? {
        // Without an answer nobody can say that it was overtaken.
        Some(last) => agree(inner, id, version).await.or(Ok(last)),
        None => agree(inner, id, None).await,
    }
}

/// Brings the copy up to what Redis says of the job, until that is what was `written` last.
pub(super) async fn agree(
    inner: &Inner,
    id: JobId,
    mut written: Option<u64>,
) -> Result<u64, QueueError> {
    loop {
        let (news, version) = ask(inner, id).await?;
        if written == Some(version) {
            return Ok(news.seq);
        }
        bring(inner, news.yielding(), None, None).await?;
        written = Some(version);
    }
}

/// Brings the copy of a job up to what Redis says of it, whatever the copy says.
pub(super) async fn again(inner: &Inner, id: JobId) -> Result<(), QueueError> {
    let (news, _) = ask(inner, id).await?;
    bring(inner, news, None, None).await.map(drop)
}

/// What Redis says of a job, and the version of its record.
async fn ask(inner: &Inner, id: JobId) -> Result<(News, u64), QueueError> {
    let (job, version) = reads::load(inner, id).await?;
    let json = change::json(&change::record(&job, version - 1))?;
    // The events of a job that runs are written by whoever runs it: two that append to one file may write into each other.
    let is_others =
        matches!(job.state, State::Running { .. }) && job.run.life.as_deref() != Some(&inner.life);
    let seq = match is_others {
        true => 0,
        false => reads::seq(inner, id).await?.unwrap_or(0),
    };
    let news = News {
        id,
        record: Some((json, version)),
        events: Vec::new(),
        seq,
        yields: false,
    };
    Ok((news, version))
}

/// Brings the copy up to the news; none: they are late, and nothing was written.
async fn bring(
    inner: &Inner,
    news: News,
    before: Option<u64>,
    in_time: InTime,
) -> Result<Option<u64>, QueueError> {
    // One visit to the volume where others told nothing in between.
    let visited = inner.blocking(move |mirror| {
        if is_late(in_time) {
            return Ok(Ok(None));
        }
        let before = match before {
            Some(before) => before,
            None => mirror.last_event(news.id)?,
        };
        if news.first() > before + 1 {
            return Ok(Err((news, before)));
        }
        news.write(mirror, before, Vec::new())
            .map(|last| Ok(Some(last)))
    });
    match visited.await?? {
        Ok(brought) => Ok(brought),
        Err((news, before)) => {
            let between = reads::lines(inner, news.id, before + 1, news.first() - 1).await?;
            inner
                .blocking(move |mirror| {
                    if is_late(in_time) {
                        return Ok(None);
                    }
                    news.write(mirror, before, between).map(Some)
                })
                .await?
        }
    }
}
