//! Jobs that come in: given to Redis, or kept on the volume until it is back.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::scripts::{Commit, Committed, Expect, Kind, Outstanding, Place};
use super::writes::Refusal;
use super::{Inner, Mirror, change, reads};
use crate::job::{Idempotency, Job, JobId, Record};
use crate::queue::{QueueError, files};

/// How long nobody can have put back what an emptied Redis lost.
const COPIED: Duration = Duration::from_millis(100);
/// Where accepted jobs wait for Redis, in the jobs directory.
pub(super) const SPOOL: &str = "spool/submit";

/// Stores a job; into the spool where Redis is not there.
pub(super) async fn submit(inner: &Inner, job: Job) -> Result<Record, QueueError> {
    let record = change::record(&job, change::FIRST - 1);
    let json = change::json(&record)?;
    let store = || {
        (
            inner.scans.load(Ordering::Relaxed),
            inner.link.connections(),
        )
    };
    let (before, asked) = (store(), Instant::now());
    let copied = copy_new(inner, job.id, &json);
    let (mut made, ()) = tokio::join!(commit_new(inner, &job, &record, &json), copied);
    if store() != before || asked.elapsed() > COPIED {
        // Whoever put back what Redis lost meanwhile may not have seen the copy yet.
        made = commit_new(inner, &job, &record, &json).await;
    }
    match made {
        Ok(None) => Ok(record),
        Ok(Some(key)) => {
            let id = job.id;
            inner.blocking(move |mirror| mirror.remove(id)).await?;
            submitted(inner, &key).await?.ok_or(QueueError::KeyInUse)
        }
        Err(Refusal::Final(error)) => Err(error),
        Err(Refusal::Outage(error)) => {
            if let Some(key) = &job.origin.idempotency
                && let Some(earlier) = reads::copy_under_key(inner, key, &record).await?
            {
                let id = job.id;
                inner.blocking(move |mirror| mirror.remove(id)).await?;
                return Ok(earlier);
            }
            tracing::warn!(job = %job.id, %error, "the job is kept on the volume and joins the queue when Redis is back");
            spool_submission(inner, job.id, json).await?;
            inner.spooled.store(true, Ordering::Relaxed);
            Ok(record)
        }
    }
}

/// Writes the copy of a job, so that what is accepted is on the volume whatever becomes of Redis; one that is there is of a pod that has
/// claimed the job already, and newer.
async fn copy_new(inner: &Inner, id: JobId, json: &str) {
    let json = json.to_owned();
    let copied = inner
        .blocking(move |mirror| mirror.write_first(id, &json))
        .await
        .and_then(|copied| copied);
    if let Err(error) = copied {
        tracing::warn!(job = %id, %error, "the job has no copy on the volume");
    }
}

/// What a key stands for, as Redis keeps it.
fn submission(id: JobId, key: &Idempotency) -> String {
    format!("{id} {}", key.request)
}

/// The job that was submitted under a key.
pub(super) async fn submitted(
    inner: &Inner,
    key: &Idempotency,
) -> Result<Option<Record>, QueueError> {
    let found: Option<String> = match inner
        .link
        .call("look for a submission", async |c| {
            redis::cmd("GET")
                .arg(inner.keys.submission(&key.key))
                .query_async(c)
                .await
        })
        .await
    {
        Ok(found) => found,
        // Whatever was accepted has a copy.
        Err(_) => return Ok(None),
    };
    let Some((id, request)) = found.as_deref().and_then(|text| text.split_once(' ')) else {
        return Ok(None);
    };
    let Ok(id) = id.parse::<JobId>() else {
        return Ok(None);
    };
    match reads::get(inner, id).await {
        Ok(_) if request != key.request => Err(QueueError::KeyReused(id)),
        Ok(record) => {
            // Who accepted it may have died before its copy was written.
            if record.version == change::FIRST {
                copy_new(inner, id, &change::json(&record)?).await;
            }
            Ok(Some(record))
        }
        Err(QueueError::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Gives Redis a new job; some: its key stands for another one.
async fn commit_new(
    inner: &Inner,
    job: &Job,
    record: &Record,
    json: &str,
) -> Result<Option<Idempotency>, Refusal> {
    let commit = Commit {
        id: job.id,
        score: change::score(job),
        name: String::new(),
        expect: Expect::New,
        fence: None,
        record: Some(change::stored(job, record, json).map_err(Refusal::Final)?),
        place: Place::Back,
        life: None,
        drop_claim: false,
        kind: Kind::Queued,
        outstanding: Outstanding::In,
        key: job
            .origin
            .idempotency
            .as_ref()
            .map(|key| (key.key.as_str(), submission(job.id, key))),
        events: &[],
    };
    let made = inner
        .link
        .call("submit a job", async |c| commit.run(&inner.keys, c).await)
        .await;
    match made {
        Ok(Committed::Ok { seq, .. }) => {
            inner.hub.tell(job.id, seq);
            Ok(None)
        }
        // It was made before, and the answer was lost.
        Ok(Committed::Exists) => Ok(None),
        Ok(Committed::Used) => Ok(job.origin.idempotency.clone()),
        Ok(_) => Err(Refusal::Outage(inner.emptied())),
        Err(error) => Err(Refusal::Outage(error)),
    }
}

async fn spool_submission(inner: &Inner, id: JobId, json: String) -> Result<(), QueueError> {
    let path = spooled(&inner.mirror, id);
    inner
        .blocking(move |mirror| {
            let dir = mirror.dir().join(SPOOL);
            let write = || -> std::io::Result<()> {
                let mut file = tempfile::Builder::new().prefix(".tmp-").tempfile_in(&dir)?;
                std::io::Write::write_all(&mut file, json.as_bytes())?;
                file.as_file().sync_all()?;
                file.persist(&path)?;
                files::sync_dir(&dir)
            };
            write().map_err(files::failed("keep the job in", &path))
        })
        .await?
}

/// Where an accepted job waits for Redis.
pub(super) fn spooled(mirror: &Mirror, id: JobId) -> PathBuf {
    mirror.dir().join(SPOOL).join(format!("{id}.json"))
}

/// Gives Redis the submissions that were accepted while it was away, each once, whoever accepted them.
pub(super) async fn tell(inner: &Inner) {
    let dir = inner.mirror.dir().join(SPOOL);
    let Ok(Ok(mut ids)) = inner.blocking(move |_| files::job_ids(&dir)).await else {
        return;
    };
    ids.sort_by_key(|id| id.uuid());
    let mut jobs = Vec::new();
    for id in ids {
        let path = spooled(&inner.mirror, id);
        let Ok(bytes) = fs::read(&path) else {
            continue; // Another pod was faster.
        };
        match serde_json::from_slice::<Record>(&bytes)
            .map_err(|e| e.to_string())
            .and_then(Job::try_from)
        {
            Ok(job) => jobs.push(job),
            Err(problem) => {
                tracing::error!(path = %path.display(), problem, "an accepted job cannot be read; its file is kept");
            }
        }
    }
    jobs.sort_by_key(change::score);
    for job in jobs {
        let record = change::record(&job, change::FIRST - 1);
        let Ok(json) = change::json(&record) else {
            continue;
        };
        match commit_new(inner, &job, &record, &json).await {
            Ok(None) => {}
            Ok(Some(_)) => {
                tracing::error!(job = %job.id, "an accepted job is dropped: its Idempotency-Key stands for another one");
                let id = job.id;
                drop(inner.blocking(move |mirror| mirror.remove(id)).await);
            }
            Err(Refusal::Outage(_) | Refusal::Final(_)) => {
                inner.spooled.store(true, Ordering::Relaxed);
                return;
            }
        }
        tracing::info!(job = %job.id, "an accepted job joined the queue");
        drop(fs::remove_file(spooled(&inner.mirror, job.id)));
    }
}
