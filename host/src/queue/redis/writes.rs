//! Everything that changes a job, whoever does it.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::Timestamp;

use super::change::{self, Change, Next};
use super::held::{Held, HeldState};
use super::scripts::{self, Commit, Committed, Expect, Kind, Outstanding, Place};
use super::{Inner, reads};
use crate::job::{Idempotency, Job, JobId, Record, State, Transition};
use crate::queue::{Lease, QueueError, files, status_event};

/// How many jobs one sweep looks at.
const SWEEP: isize = 500;

/// What a change by the holder came to.
#[derive(Debug)]
pub(super) struct Done {
    /// The number of the last event that Redis has.
    pub(super) seq: u64,
    /// The record after the change.
    pub(super) record: Record,
}

/// Why a change was not made.
#[derive(Debug)]
enum Refusal {
    /// Redis cannot be reached, or was emptied: try again later.
    Outage(QueueError),
    /// Not by this caller.
    Final(QueueError),
}

/// Stores a job; into the spool where Redis is not there.
pub(super) async fn submit(inner: &Inner, job: Job) -> Result<Record, QueueError> {
    let record = change::record(&job, 0);
    copy_new(inner, &job, &record).await;
    match commit_new(inner, &job, &record).await {
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
            spool_submission(inner, job.id, &record).await?;
            inner.spooled.store(true, Ordering::Relaxed);
            Ok(record)
        }
    }
}

/// Writes the copy of a job before Redis is asked: nobody else can know the job yet, so nobody else can write it, and what is accepted
/// is on the volume whatever becomes of Redis.
async fn copy_new(inner: &Inner, job: &Job, record: &Record) {
    let id = job.id;
    let json = serde_json::to_string(record).unwrap_or_default();
    let line = change::numbered(1, &first_event(job));
    let copied = inner
        .blocking(move |mirror| {
            mirror.write(id, &json)?;
            mirror.append(id, &[line])
        })
        .await
        .and_then(|copied| copied);
    if let Err(error) = copied {
        tracing::warn!(job = %id, %error, "the job has no copy on the volume");
    }
}

/// The same whenever it is asked for, so that the copy and the store agree.
fn first_event(job: &Job) -> String {
    change::unnumbered(job.created_at, status_event(job, None))
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
        Ok(record) => Ok(Some(record)),
        Err(QueueError::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Gives Redis a new job; some: its key stands for another one.
async fn commit_new(
    inner: &Inner,
    job: &Job,
    record: &Record,
) -> Result<Option<Idempotency>, Refusal> {
    let commit = Commit {
        id: job.id,
        score: change::score(job),
        name: String::new(),
        expect: Expect::New,
        fence: None,
        record: Some(change::stored(job, record).map_err(Refusal::Final)?),
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
        events: &[first_event(job)],
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
        Ok(_) => Err(Refusal::Outage(emptied(inner))),
        Err(error) => Err(Refusal::Outage(error)),
    }
}

async fn spool_submission(inner: &Inner, id: JobId, record: &Record) -> Result<(), QueueError> {
    let path = submission_path(inner, id);
    let bytes = serde_json::to_vec(record).map_err(|e| files::failed("write", &path)(e.into()))?;
    inner
        .blocking(move |mirror| {
            let dir = mirror.dir().join("spool/submit");
            let write = || -> std::io::Result<()> {
                let mut file = tempfile::Builder::new().prefix(".tmp-").tempfile_in(&dir)?;
                std::io::Write::write_all(&mut file, &bytes)?;
                file.as_file().sync_all()?;
                file.persist(&path)?;
                files::sync_dir(&dir)
            };
            write().map_err(files::failed("keep the job in", &path))
        })
        .await?
}

fn submission_path(inner: &Inner, id: JobId) -> PathBuf {
    inner
        .mirror
        .dir()
        .join("spool/submit")
        .join(format!("{id}.json"))
}

/// Gives Redis the submissions that were accepted while it was away, each once, whoever accepted them.
pub(super) async fn tell_submissions(inner: &Inner) {
    let dir = inner.mirror.dir().join("spool/submit");
    let Ok(Ok(mut ids)) = inner.blocking(move |_| files::job_ids(&dir)).await else {
        return;
    };
    ids.sort_by_key(|id| id.uuid());
    let mut jobs = Vec::new();
    for id in ids {
        let path = submission_path(inner, id);
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
        match commit_new(inner, &job, &change::record(&job, 0)).await {
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
        drop(fs::remove_file(submission_path(inner, job.id)));
    }
}

/// Makes a change under a lease: in Redis, or in the spool where Redis is not there.
pub(super) async fn by_holder(
    inner: &Inner,
    lease: &Lease,
    change: Change,
) -> Result<Done, QueueError> {
    let held = inner
        .held
        .get(lease.id, lease.fence)
        .ok_or(QueueError::LostClaim(lease.id))?;
    let mut state = held.state.lock().await;
    if held.lost.is_cancelled() || state.over {
        return Err(QueueError::LostClaim(lease.id));
    }
    state.changes += 1;
    let name = format!("{}/{}/{}", inner.life, held.fence.0, state.changes);
    if state.spool.is_empty() {
        match tell(inner, &held, &mut state, &name, &change).await {
            Err(Refusal::Outage(error)) => {
                tracing::debug!(job = %held.id, %error, "spooled");
            }
            Err(Refusal::Final(error)) => return Err(error),
            Ok(done) => return Ok(done),
        }
    }
    keep(inner, &held, &mut state, name, change).await
}

/// Keeps a change for later.
async fn keep(
    inner: &Inner,
    held: &Arc<Held>,
    state: &mut HeldState,
    name: String,
    change: Change,
) -> Result<Done, QueueError> {
    let before = state.ahead.as_ref().unwrap_or(&state.job);
    let next = change.apply(before, state.version)?;
    let path = inner.spool_path(&inner.life, held.id);
    let over = change.ends_claim();
    state
        .spool
        .push(&path, name, held.fence, change, &next.job)?;
    let record = change::record(&next.job, state.version);
    state.ahead = Some(next.job);
    if over {
        state.over = true;
        let (id, json) = (held.id, serde_json::to_string(&record).unwrap_or_default());
        // What can be read meanwhile must say how it ended.
        drop(inner.blocking(move |mirror| mirror.write(id, &json)).await);
    }
    Ok(Done {
        seq: state.mirrored,
        record,
    })
}

/// Tells Redis what was kept, in its order. Stops at the first change that cannot be told.
pub(super) async fn tell_spooled(inner: &Inner) {
    for held in inner.held.all() {
        let mut state = held.state.lock().await;
        while let Some((name, change)) = state.spool.front().cloned() {
            match tell(inner, &held, &mut state, &name, &change).await {
                Ok(_) => {
                    state.spool.pop();
                    if state.spool.is_empty() {
                        state.ahead = None;
                    }
                }
                Err(Refusal::Outage(_)) => return,
                Err(Refusal::Final(error)) => {
                    tracing::warn!(job = %held.id, %error, "what this pod kept of the job is not wanted any more");
                    state.spool.clear();
                }
            }
        }
    }
}

/// Makes a holder's change in Redis. What Redis says of the job is the truth; what the holder knows is brought up to it.
async fn tell(
    inner: &Inner,
    held: &Arc<Held>,
    state: &mut HeldState,
    name: &str,
    change: &Change,
) -> Result<Done, Refusal> {
    loop {
        let next = change
            .apply(&state.job, state.version)
            .map_err(|_| lost(inner, held, state))?;
        let made = commit_next(inner, &next, state.version, name, Some(held)).await?;
        match made {
            Committed::Ok { version, seq } => {
                change.count(&state.job, &next.job);
                state.version = version;
                state.job = next.job;
                let json = next
                    .record
                    .as_ref()
                    .and_then(|r| serde_json::to_string(r).ok());
                match copy_to(inner, held.id, json, next.events, seq, state.mirrored).await {
                    Ok(()) => state.mirrored = state.mirrored.max(seq),
                    Err(error) => {
                        tracing::warn!(job = %held.id, %error, "the copy of the job on the volume is behind");
                    }
                }
                let record = next
                    .record
                    .unwrap_or_else(|| change::record(&state.job, version.saturating_sub(1)));
                inner.hub.tell(held.id, seq);
                if change.ends_claim() {
                    state.over = true;
                    inner.held.remove(held);
                }
                return Ok(Done { seq, record });
            }
            // Somebody else changed the job, such as a wish to cancel it.
            Committed::Version => match reads::load(inner, held.id).await {
                Ok((job, version)) if job.state.fence() == Some(held.fence) => {
                    (state.job, state.version) = (job, version);
                }
                Ok(_) | Err(QueueError::NotFound(_)) => return Err(lost(inner, held, state)),
                Err(error) => return Err(Refusal::Outage(error)),
            },
            Committed::Fence | Committed::Missing | Committed::Exists | Committed::Used => {
                return Err(lost(inner, held, state));
            }
            Committed::Emptied => return Err(Refusal::Outage(emptied(inner))),
        }
    }
}

fn lost(inner: &Inner, held: &Arc<Held>, state: &mut HeldState) -> Refusal {
    state.over = true;
    inner.held.remove(held);
    Refusal::Final(QueueError::LostClaim(held.id))
}

async fn commit_next(
    inner: &Inner,
    next: &Next,
    version: u64,
    name: &str,
    held: Option<&Arc<Held>>,
) -> Result<Committed, Refusal> {
    let record = match &next.record {
        Some(record) => Some(change::stored(&next.job, record).map_err(Refusal::Final)?),
        None => None,
    };
    let commit = Commit {
        id: next.job.id,
        score: change::score(&next.job),
        name: name.to_owned(),
        expect: if record.is_some() {
            Expect::Version(version)
        } else {
            Expect::Any
        },
        fence: held.map(|held| held.fence.0),
        record,
        place: next.place,
        life: held
            .map(|_| (inner.life.as_str(), inner.ordinal))
            .filter(|_| next.drop_claim),
        drop_claim: next.drop_claim,
        kind: next.kind,
        outstanding: next.outstanding,
        key: None,
        events: &next.events,
    };
    inner
        .link
        .call("change a job", async |c| commit.run(&inner.keys, c).await)
        .await
        .map_err(Refusal::Outage)
}

/// Writes a record, if there is one, and the events up to `seq` of which `mirrored` are there.
async fn copy_to(
    inner: &Inner,
    id: JobId,
    json: Option<String>,
    events: Vec<String>,
    seq: u64,
    mirrored: u64,
) -> Result<(), QueueError> {
    let count = events.len() as u64;
    let mut lines: Vec<String> = Vec::new();
    if seq > mirrored {
        let first = (seq + 1).saturating_sub(count);
        if first > mirrored + 1 {
            // Others told something in between.
            lines.extend(reads::lines(inner, id, mirrored + 1, first - 1).await?);
        }
        lines.extend(
            events
                .iter()
                .zip(first..)
                .filter(|(_, n)| *n > mirrored)
                .map(|(rest, n)| change::numbered(n, rest)),
        );
    }
    inner
        .blocking(move |mirror| {
            if !lines.is_empty() {
                mirror.append(id, &lines)?;
            }
            match json {
                Some(json) => mirror.write(id, &json),
                None => Ok(()),
            }
        })
        .await?
}

/// Makes a change of a job that somebody else may run, or nobody.
pub(super) async fn by_anybody(
    inner: &Inner,
    id: JobId,
    change: &Change,
) -> Result<Record, QueueError> {
    loop {
        let (job, version) = reads::load(inner, id).await?;
        if job.state.is_ended() && matches!(change, Change::Move(Transition::Cancel { .. }, ..)) {
            return Ok(change::record(&job, version - 1));
        }
        let next = change.apply(&job, version)?;
        match commit_next(inner, &next, version, "", None).await {
            Ok(Committed::Ok { version, seq }) => {
                change.count(&job, &next.job);
                let mut record = next
                    .record
                    .unwrap_or_else(|| change::record(&next.job, version - 1));
                record.version = version;
                inner.hub.tell(id, seq);
                // While a job runs, its holder alone writes the copy.
                if !matches!(next.job.state, State::Running { .. }) {
                    settle(inner, id, &record, next.events, seq).await;
                }
                return Ok(record);
            }
            Ok(Committed::Missing) => return Err(QueueError::NotFound(id)),
            Ok(Committed::Emptied) => return Err(emptied(inner)),
            Ok(_) => {}
            Err(Refusal::Outage(error) | Refusal::Final(error)) => return Err(error),
        }
    }
}

/// Writes the copy of a job that nobody runs.
async fn settle(inner: &Inner, id: JobId, record: &Record, events: Vec<String>, seq: u64) {
    let copied = async {
        let mirrored = inner
            .blocking(move |mirror| mirror.last_event(id))
            .await??;
        let json = serde_json::to_string(record).ok();
        copy_to(inner, id, json, events, seq, mirrored).await
    };
    if let Err(error) = copied.await {
        tracing::warn!(job = %id, %error, "the copy of the job on the volume is behind");
    }
}

/// Puts a job of a dead life back to the front of the queue, after what the life could not tell.
///
/// # Errors
/// [`QueueError::Redis`]; the job stays on the life's list then.
pub(super) async fn reclaim(
    inner: &Inner,
    id: JobId,
    life: &str,
    ordinal: Option<u32>,
) -> Result<bool, QueueError> {
    let path = inner.spool_path(life, id);
    let mut told: std::collections::VecDeque<_> = {
        let path = path.clone();
        inner
            .blocking(move |_| super::held::Spool::read(&path))
            .await?
            .into()
    };
    let mut mirrored = inner
        .blocking(move |mirror| mirror.last_event(id))
        .await?
        .unwrap_or(0);
    loop {
        let (job, version) = match reads::load(inner, id).await {
            Ok(found) => found,
            Err(QueueError::NotFound(_)) => return Ok(false),
            Err(error) => return Err(error),
        };
        let State::Running { fence, .. } = job.state.clone() else {
            return Ok(false);
        };
        if job.run.life.as_deref() != Some(life) {
            return Ok(false);
        }
        let line = told.pop_front().filter(|line| line.fence == fence.0);
        let (name, change) = match line {
            Some(line) => match (line.name.clone(), line.change()) {
                (name, Ok(change)) => (name, change),
                (_, Err(problem)) => {
                    tracing::error!(job = %id, problem, "a change that a dead pod kept cannot be read");
                    continue;
                }
            },
            None => (
                format!("reclaim/{life}/{}", fence.0),
                Change::requeue(fence, None, crate::job::Requeue::Reclaimed),
            ),
        };
        let over = change.ends_claim();
        let next = change.apply(&job, version)?;
        let record = match &next.record {
            Some(record) => Some(change::stored(&next.job, record)?),
            None => None,
        };
        let commit = Commit {
            id,
            score: change::score(&next.job),
            name,
            expect: if record.is_some() {
                Expect::Version(version)
            } else {
                Expect::Any
            },
            fence: Some(fence.0),
            record,
            place: next.place,
            life: next.drop_claim.then_some((life, ordinal)),
            drop_claim: next.drop_claim,
            kind: next.kind,
            outstanding: next.outstanding,
            key: None,
            events: &next.events,
        };
        let made = inner
            .link
            .call("take a job back", async |c| {
                commit.run(&inner.keys, c).await
            })
            .await?;
        match made {
            Committed::Ok { seq, version } => {
                change.count(&job, &next.job);
                inner.hub.tell(id, seq);
                let json = next.record.map(|mut record| {
                    record.version = version;
                    serde_json::to_string(&record).unwrap_or_default()
                });
                match copy_to(inner, id, json, next.events, seq, mirrored).await {
                    Ok(()) => mirrored = mirrored.max(seq),
                    Err(error) => {
                        tracing::warn!(job = %id, %error, "the copy of the job on the volume is behind");
                    }
                }
                if over {
                    drop(fs::remove_file(&path));
                    return Ok(true);
                }
            }
            // Somebody else is at it.
            Committed::Fence | Committed::Missing | Committed::Exists | Committed::Used => {
                return Ok(false);
            }
            Committed::Version => {}
            Committed::Emptied => return Err(emptied(inner)),
        }
    }
}

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
                let expire = Change::Move(Transition::Expire { at: now }, None, None);
                match by_anybody(inner, id, &expire).await {
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

/// What is said while an emptied store is rebuilt.
pub(super) fn emptied(inner: &Inner) -> QueueError {
    QueueError::Redis {
        doing: "use the store",
        address: inner.settings.address.shown(),
        detail: "it was emptied; the pods are putting the jobs back".to_owned(),
    }
}

/// Brings the copy of a job up to what Redis says of it.
pub(super) async fn copy_again(inner: &Inner, id: JobId) -> Result<(), QueueError> {
    let (job, version) = reads::load(inner, id).await?;
    let json = serde_json::to_string(&change::record(&job, version - 1)).ok();
    let seq: u64 = inner
        .link
        .call("look at a job", async |c| {
            redis::cmd("HGET")
                .arg(inner.keys.job(id))
                .arg("seq")
                .query_async(c)
                .await
        })
        .await?;
    let mirrored = inner
        .blocking(move |mirror| mirror.last_event(id))
        .await??;
    copy_to(inner, id, json, Vec::new(), seq, mirrored).await
}
