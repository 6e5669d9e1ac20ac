//! Everything that is asked of the store: from Redis, or from the copies on the volume where Redis is not there.

use redis::FromRedisValue;
use redis::streams::StreamRangeReply;
use tokio::sync::watch;

use super::{Inner, change, submit};
use crate::job::{Event, Idempotency, Job, JobId, Record};
use crate::queue::{Cursor, Depth, Filter, Page, QueueError, guard};

/// How many entries of a stream are read at once; each holds up to sixteen events.
const PAGE_ENTRIES: usize = 64;
/// About how many bytes of events one answer holds.
const PAGE_BYTES: usize = 256 * 1_024;
/// How many jobs one look at the index passes.
const STEP: usize = 200;

pub(super) fn parse(id: &str, json: &str) -> Result<Job, QueueError> {
    Job::try_from(change::unpack(id, json)?).map_err(|problem| QueueError::Damaged {
        path: id.into(),
        problem,
    })
}

/// A job and its version.
pub(super) async fn load(inner: &Inner, id: JobId) -> Result<(Job, u64), QueueError> {
    let (json, version): (Option<String>, Option<u64>) = inner
        .link
        .call("read a job", async |c| {
            redis::cmd("HMGET")
                .arg(inner.keys.job(id))
                .arg("record")
                .arg("version")
                .query_async(c)
                .await
        })
        .await?;
    match (json, version) {
        (Some(json), Some(version)) => Ok((parse(&id.to_string(), &json)?, version)),
        _ => Err(QueueError::NotFound(id)),
    }
}

pub(super) async fn get(inner: &Inner, id: JobId) -> Result<Record, QueueError> {
    let read: Result<(Option<String>, Option<String>), _> = inner
        .link
        .call("read a job", async |c| {
            redis::pipe()
                .hget(inner.keys.job(id), "record")
                .get(inner.keys.schema())
                .query_async(c)
                .await
        })
        .await;
    match read {
        Ok((Some(json), _)) => change::unpack(&id.to_string(), &json),
        Ok((None, Some(_))) => match submitted(inner, id).await {
            true => copy(inner, id).await,
            false => Err(QueueError::NotFound(id)),
        },
        // It was emptied, or it is gone.
        Ok((None, None)) | Err(_) => copy(inner, id).await,
    }
}

/// Whether the job was accepted and is not in Redis yet.
async fn submitted(inner: &Inner, id: JobId) -> bool {
    inner
        .blocking(move |mirror| submit::spooled(mirror, id).exists())
        .await
        .unwrap_or(false)
}

async fn copy(inner: &Inner, id: JobId) -> Result<Record, QueueError> {
    inner.blocking(move |mirror| mirror.read(id)).await?
}

pub(super) async fn find(
    inner: &Inner,
    prefix: &str,
    limit: usize,
) -> Result<Vec<JobId>, QueueError> {
    let prefix = prefix.to_ascii_lowercase();
    let fits = |id: &JobId| id.to_string().starts_with(&prefix);
    if let Ok(id) = prefix.parse::<JobId>() {
        return Ok(get(inner, id)
            .await
            .is_ok()
            .then_some(id)
            .into_iter()
            .collect());
    }
    let ids = match whole(inner, newest(inner, 0, isize::MAX)).await {
        Ok(Some(ids)) => ids,
        Ok(None) | Err(_) => copies(inner, &Filter::default())
            .await?
            .into_iter()
            .filter_map(|r| r.id.parse().ok())
            .collect(),
    };
    Ok(ids.into_iter().filter(fits).take(limit).collect())
}

/// Ids by their arrival, the newest first.
async fn newest(inner: &Inner, from: usize, to: isize) -> Result<Vec<JobId>, QueueError> {
    ids_of(inner, inner.keys.index(), from, to).await
}

async fn ids_of(
    inner: &Inner,
    key: &str,
    from: usize,
    to: isize,
) -> Result<Vec<JobId>, QueueError> {
    let ids: Vec<String> = inner
        .link
        .call("list jobs", async |c| {
            redis::cmd("ZREVRANGE")
                .arg(key)
                .arg(from)
                .arg(to)
                .query_async(c)
                .await
        })
        .await?;
    Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
}

pub(super) async fn list(inner: &Inner, filter: &Filter) -> Result<Page, QueueError> {
    let limit = filter.limit.max(1);
    match whole(inner, list_in_redis(inner, filter, limit)).await {
        Ok(Some(page)) => Ok(page),
        Ok(None) | Err(QueueError::Redis { .. }) => {
            let mut jobs = copies(inner, filter).await?;
            if let Some(after) = filter.after {
                let after = after.to_string();
                let at = jobs
                    .iter()
                    .position(|r| r.id == after)
                    .map_or(jobs.len(), |at| at + 1);
                jobs.drain(..at);
            }
            Ok(page(jobs, limit))
        }
        Err(error) => Err(error),
    }
}

/// What `read` finds in Redis; none where that may be a part, because the store was emptied and is put back, or is emptied meanwhile.
async fn whole<T>(
    inner: &Inner,
    read: impl Future<Output = Result<T, QueueError>>,
) -> Result<Option<T>, QueueError> {
    let before = epoch(inner).await?;
    let found = read.await?;
    let is_whole = before.is_some() && before == epoch(inner).await?;
    Ok(is_whole.then_some(found))
}

/// Which store this is; none: it was emptied, and not all of it is back.
async fn epoch(inner: &Inner) -> Result<Option<String>, QueueError> {
    inner
        .link
        .call("look at the store", async |c| {
            redis::cmd("GET")
                .arg(inner.keys.schema())
                .query_async(c)
                .await
        })
        .await
}

fn page(mut jobs: Vec<Record>, limit: usize) -> Page {
    let more = jobs.len() > limit;
    jobs.truncate(limit);
    Page {
        next: jobs.last().filter(|_| more).and_then(|r| r.id.parse().ok()),
        jobs,
    }
}

async fn list_in_redis(inner: &Inner, filter: &Filter, limit: usize) -> Result<Page, QueueError> {
    let key = match &filter.session {
        Some(session) => inner.keys.session(session.as_str()),
        None => inner.keys.index().to_owned(),
    };
    let mut from = match filter.after {
        None => 0,
        Some(after) => match rank(inner, &key, after).await? {
            Some(rank) => rank + 1,
            // A page whose last job has been forgotten ends the list.
            None => return Ok(Page::default()),
        },
    };
    let plain = Filter {
        limit: 0,
        after: None,
        session: None,
        ..filter.clone()
    };
    let step = if is_plain(&plain) { limit + 1 } else { STEP };
    let mut found = Vec::new();
    loop {
        let to = isize::try_from(from + step - 1).unwrap_or(isize::MAX);
        let ids = ids_of(inner, &key, from, to).await?;
        let all = ids.len() < step;
        from += ids.len();
        for record in records(inner, &ids).await? {
            if filter
                .since
                .is_some_and(|since| record.created_at.is_some_and(|at| at < since))
            {
                return Ok(page(found, limit));
            }
            if passes(&record, filter) {
                found.push(record);
            }
        }
        if found.len() > limit || all {
            return Ok(page(found, limit));
        }
    }
}

fn is_plain(filter: &Filter) -> bool {
    filter.statuses.is_empty()
        && filter.profile.is_none()
        && filter.repo.is_none()
        && filter.pod.is_none()
        && filter.text.is_none()
}

fn passes(record: &Record, filter: &Filter) -> bool {
    let is = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|w| w == value);
    (filter.statuses.is_empty() || filter.statuses.contains(&record.status))
        && is(&filter.profile, &record.profile)
        && is(&filter.repo, &record.repo_url)
        && is(&filter.pod, &record.pod_name)
        && filter
            .session
            .as_ref()
            .is_none_or(|s| record.session_id.as_deref() == Some(s.as_str()))
        && filter
            .text
            .as_ref()
            .is_none_or(|text| record.task.contains(text.as_str()))
        && filter
            .since
            .is_none_or(|since| record.created_at.is_some_and(|at| at >= since))
}

async fn rank(inner: &Inner, key: &str, id: JobId) -> Result<Option<usize>, QueueError> {
    inner
        .link
        .call("list jobs", async |c| {
            redis::cmd("ZREVRANK")
                .arg(key)
                .arg(id.to_string())
                .query_async(c)
                .await
        })
        .await
}

async fn records(inner: &Inner, ids: &[JobId]) -> Result<Vec<Record>, QueueError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let jsons: Vec<Option<String>> = inner
        .link
        .call("list jobs", async |c| {
            let mut pipe = redis::pipe();
            for id in ids {
                pipe.hget(inner.keys.job(*id), "record");
            }
            pipe.query_async(c).await
        })
        .await?;
    let found = ids.iter().zip(&jsons);
    let parsed =
        found.filter_map(|(id, json)| change::unpack(&id.to_string(), json.as_ref()?).ok());
    Ok(parsed.collect())
}

/// The copies that pass the filter, the newest first.
async fn copies(inner: &Inner, filter: &Filter) -> Result<Vec<Record>, QueueError> {
    let filter = filter.clone();
    inner
        .blocking(move |mirror| {
            let mut records: Vec<Record> = mirror
                .ids()?
                .into_iter()
                .filter_map(|id| mirror.read(id).ok())
                .filter(|record| passes(record, &filter))
                .collect();
            records.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
            Ok(records)
        })
        .await?
}

/// The job that was accepted under a key before this one, by the copies on the volume.
pub(super) async fn copy_under_key(
    inner: &Inner,
    key: &Idempotency,
    this: &Record,
) -> Result<Option<Record>, QueueError> {
    let is_spooled = |id: &str| {
        let id = id.parse::<JobId>();
        id.is_ok_and(|id| submit::spooled(&inner.mirror, id).exists())
    };
    let earlier = |record: &Record| {
        let its = record
            .idempotency
            .as_ref()
            .is_some_and(|its| its.key == key.key);
        // Clocks of pods differ; what waits in the spool was accepted before, whatever they say.
        its && ((record.created_at, &record.id) < (this.created_at, &this.id)
            || is_spooled(&record.id))
    };
    let found = copies(inner, &Filter::default())
        .await?
        .into_iter()
        .find(earlier);
    match found {
        Some(record) if record.idempotency.as_ref() != Some(key) => match record.id.parse() {
            Ok(id) => Err(QueueError::KeyReused(id)),
            Err(_) => Ok(None),
        },
        found => Ok(found),
    }
}

pub(super) async fn events(
    inner: &Inner,
    id: JobId,
    cursor: Cursor,
) -> Result<(Vec<Event>, Cursor), QueueError> {
    match range(inner, id, cursor.seq + 1, u64::MAX).await {
        Ok(found) if found.first().is_some_and(|(seq, _)| *seq == cursor.seq + 1) => {
            page_of(id, found)
        }
        Ok(found) => {
            // What Redis let go of is on the volume, if this pod sees it.
            let (events, next) = inner
                .blocking(move |mirror| mirror.events(id, cursor))
                .await??;
            if !events.is_empty() && (!found.is_empty() || exists(inner, id).await) {
                return Ok((events, next));
            }
            if found.is_empty() && !exists(inner, id).await {
                return Err(QueueError::NotFound(id));
            }
            page_of(id, found).map(|(events, next)| {
                let next = if events.is_empty() { cursor } else { next };
                (events, next)
            })
        }
        Err(_) => {
            copy(inner, id).await?;
            inner
                .blocking(move |mirror| mirror.events(id, cursor))
                .await?
        }
    }
}

async fn exists(inner: &Inner, id: JobId) -> bool {
    get(inner, id).await.is_ok()
}

fn page_of(id: JobId, found: Vec<(u64, String)>) -> Result<(Vec<Event>, Cursor), QueueError> {
    let (mut events, mut bytes, mut last) = (Vec::new(), 0, 0);
    for (seq, rest) in found {
        if bytes > PAGE_BYTES {
            break;
        }
        bytes += rest.len();
        last = seq;
        let line = change::numbered(seq, &rest);
        events.push(
            serde_json::from_str(&line).map_err(|e| QueueError::Damaged {
                path: id.to_string().into(),
                problem: e.to_string(),
            })?,
        );
    }
    Ok((events, Cursor::after(last)))
}

/// Numbers and texts of events that Redis has, or that follow from the record there.
async fn range(
    inner: &Inner,
    id: JobId,
    from: u64,
    to: u64,
) -> Result<Vec<(u64, String)>, QueueError> {
    let found = stored(inner, id, from, to).await?;
    if from > 1 || !found.is_empty() {
        return Ok(found);
    }
    match load(inner, id).await {
        Ok((job, change::FIRST)) => Ok(vec![(1, change::first_event(&job))]),
        // It may have got its stream in this moment.
        Ok(_) => stored(inner, id, from, to).await,
        Err(QueueError::NotFound(_)) => Ok(found),
        Err(error) => Err(error),
    }
}

/// Numbers and texts of events in a job's stream.
async fn stored(
    inner: &Inner,
    id: JobId,
    from: u64,
    to: u64,
) -> Result<Vec<(u64, String)>, QueueError> {
    // The id of an entry is the number of the last of its events.
    let reply: StreamRangeReply = inner
        .link
        .call("read events", async |c| {
            let (key, from) = (inner.keys.events(id), format!("{from}-0"));
            redis::Cmd::xrange_count(key, from, "+", PAGE_ENTRIES)
                .query_async(c)
                .await
        })
        .await?;
    let events = reply.ids.into_iter().flat_map(|entry| entry.map);
    let numbered = events.filter_map(|(seq, text)| {
        let seq = seq.parse().ok()?;
        let wanted = (from..=to).contains(&seq);
        wanted.then(|| Some((seq, String::from_redis_value(text).ok()?)))?
    });
    let mut found: Vec<(u64, String)> = numbered.collect();
    found.sort_unstable_by_key(|(seq, _)| *seq);
    Ok(found)
}

/// The lines of the events from number `from` to number `to`.
pub(super) async fn lines(
    inner: &Inner,
    id: JobId,
    from: u64,
    to: u64,
) -> Result<Vec<String>, QueueError> {
    let mut lines = Vec::new();
    let mut next = from;
    while next <= to {
        let found = range(inner, id, next, to).await?;
        let Some((last, _)) = found.last() else {
            break;
        };
        next = last + 1;
        lines.extend(
            found
                .into_iter()
                .map(|(seq, rest)| change::numbered(seq, &rest)),
        );
    }
    Ok(lines)
}

/// The number of a job's last event; none: there is no such job.
pub(super) async fn seq(inner: &Inner, id: JobId) -> Result<Option<u64>, QueueError> {
    let seq = field(inner, id, "seq").await?;
    // The first event is not stored before the second.
    Ok(seq.map(|seq| seq.unwrap_or(1)))
}

/// Whose a job is: its fence, empty where nobody runs it; none: there is no such job.
pub(super) async fn holder(inner: &Inner, id: JobId) -> Result<Option<String>, QueueError> {
    let fence = field::<String>(inner, id, "fence").await?;
    Ok(fence.map(Option::unwrap_or_default))
}

/// A field of a job, where it has it; none: there is no such job.
async fn field<T: FromRedisValue>(
    inner: &Inner,
    id: JobId,
    name: &str,
) -> Result<Option<Option<T>>, QueueError> {
    let (version, value): (Option<u64>, Option<T>) = inner
        .link
        .call("read a job", async |c| {
            redis::cmd("HMGET")
                .arg(inner.keys.job(id))
                .arg("version")
                .arg(name)
                .query_async(c)
                .await
        })
        .await?;
    Ok(version.map(|_| value))
}

/// The fence of a job, empty where nobody runs it or there is no such job; none: the store was emptied.
pub(super) async fn fence(inner: &Inner, id: JobId) -> Result<Option<String>, QueueError> {
    // In this order: a store that is whole after the look was whole before.
    let (fence, schema): (Option<String>, Option<String>) = inner
        .link
        .call("read a job", async |c| {
            redis::pipe()
                .hget(inner.keys.job(id), "fence")
                .get(inner.keys.schema())
                .query_async(c)
                .await
        })
        .await?;
    Ok(schema.map(|_| fence.unwrap_or_default()))
}

pub(super) async fn watch(inner: &Inner, id: JobId) -> Result<watch::Receiver<u64>, QueueError> {
    let receiver = inner.hub.watch(id);
    match seq(inner, id).await {
        Ok(Some(seq)) => inner.hub.tell(id, seq),
        Ok(None) | Err(_) => {
            get(inner, id).await?;
            let last = inner
                .blocking(move |mirror| mirror.last_event(id))
                .await??;
            inner.hub.tell(id, last.max(1));
        }
    }
    Ok(receiver)
}

pub(super) async fn depth(inner: &Inner) -> Depth {
    type Counted = (usize, usize, Vec<String>);
    let counted: Result<Counted, _> = inner
        .link
        .call("count jobs", async |c| {
            redis::pipe()
                .llen(inner.keys.queue())
                .scard(inner.keys.outstanding())
                .lrange(inner.keys.queue(), 0, 3)
                .query_async(c)
                .await
        })
        .await;
    let Ok((queued, outstanding, head)) = counted else {
        return *guard(&inner.depth);
    };
    let head: Vec<JobId> = head.iter().filter_map(|id| id.parse().ok()).collect();
    // Jobs that were put back in front joined later than those behind them.
    let oldest = records(inner, &head)
        .await
        .unwrap_or_default()
        .into_iter()
        .filter_map(|record| record.queued_at)
        .min();
    let depth = Depth {
        queued,
        running: outstanding.saturating_sub(queued),
        oldest,
    };
    *guard(&inner.depth) = depth;
    depth
}
