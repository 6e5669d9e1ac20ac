//! Putting back what an emptied Redis lost, from the copies on the volume.
//!
//! A missing schema key says that the store was emptied: no job comes in or is taken then, so nobody works on half a store. One pod at a
//! time holds the lock and puts back each job that is not there: what waited waits again in its old order, what runs is on the list of
//! the life that runs it, with a fresh lease in which that life can show that it lives. Pods that do not share a volume each put back
//! their own.

use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::InfoDict;

use super::facts::ordinal;
use super::keys::SCHEMA;
use super::{Inner, Mirror, behind, change, reads, scripts, untold};
use crate::job::{Event, Job, JobId, Record, State};
use crate::queue::{KEY_LIFETIME, QueueError, guard};

/// How long a pod that rebuilds may be silent.
const LOCK: Duration = Duration::from_secs(30);
/// How long whoever writes a record after its events has for it.
const PAUSE: Duration = Duration::from_millis(200);
/// How many events of a job are put back; older ones are read from the volume.
const EVENTS: u64 = 1_000;

/// A job as its copy has it.
struct Copy {
    job: Job,
    version: u64,
    /// The last of its events.
    events: Vec<Event>,
    /// Whether they told more than the record, and were believed.
    is_ahead: bool,
    /// Whether the record is not what was read.
    is_mended: bool,
}

/// Rebuilds the store and says that it is whole, unless another pod is at it. Returns whether it did.
pub(super) async fn run(inner: &Inner) -> bool {
    match locked(inner, true).await {
        Ok(Some(jobs)) => {
            tracing::warn!(jobs, "Redis was empty: what the volume knows is put back");
            return true;
        }
        Ok(None) => {}
        Err(error) => tracing::warn!(%error, "Redis was empty and is not rebuilt yet"),
    }
    false
}

/// Adds what the copies know to the store, whoever asks for it, and says that it is whole if it was emptied.
pub(super) async fn put_back_now(inner: &Inner) -> Result<(), QueueError> {
    locked(inner, true).await.map(drop)
}

/// Adds what this pod's copies know to a store that another pod rebuilt.
pub(super) async fn check(inner: &Inner, epoch: &str) {
    let known = guard(&inner.epoch).replace(epoch.to_owned());
    let newer = epoch
        .split(':')
        .next()
        .and_then(|version| version.parse::<u32>().ok())
        .is_some_and(|version| version > SCHEMA);
    if newer && !inner.outdated.swap(newer, Ordering::Relaxed) {
        tracing::error!(
            epoch,
            "the store was written by a newer version: this pod takes no jobs until it is upgraded"
        );
    }
    if known.as_deref() == Some(epoch) || inner.settings.shared && known.is_none() {
        return;
    }
    match locked(inner, false).await {
        Ok(Some(_)) => {}
        // Another pod is at it, which may have begun before the last of this pod's copies was written.
        Ok(None) => *guard(&inner.epoch) = known,
        Err(error) => {
            tracing::warn!(%error, "this pod's copies are not in the store yet");
            *guard(&inner.epoch) = known;
        }
    }
}

/// Puts back what a server lost that started anew, or that took another's place: one that loses its power, and a replica that is promoted,
/// forget what they had not on their disk, jobs that were accepted among it. One pod of a fleet does it for each run of a server. Returns
/// whether that is done.
pub(super) async fn check_server(inner: &Inner) -> bool {
    // A copy that others do not see may be one of a job that they ended long ago.
    if !inner.settings.shared {
        return true;
    }
    let Ok(Some(run)) = run_of_server(inner).await else {
        // Where it may not be asked, `fsck` is left.
        return true;
    };
    let key = inner.keys.server();
    let known: Result<Option<String>, _> = inner
        .link
        .call("look whether jobs were lost", async |c| {
            redis::cmd("GET").arg(key).query_async(c).await
        })
        .await;
    match known {
        Ok(known) if known.as_deref() == Some(run.as_str()) => return true,
        Ok(_) => {}
        Err(_) => return false,
    }
    match locked(inner, false).await {
        Ok(Some(jobs)) => {
            if jobs > 0 {
                tracing::warn!(
                    jobs,
                    "Redis lost jobs when it started anew: the volume had them"
                );
            }
            let noted: Result<(), _> = inner
                .link
                .call("note that no job is lost", async |c| {
                    redis::cmd("SET").arg(key).arg(&run).query_async(c).await
                })
                .await;
            noted.is_ok()
        }
        Ok(None) => false,
        Err(error) => {
            tracing::warn!(%error, "it is not known yet whether Redis lost jobs when it started anew");
            false
        }
    }
}

/// What tells this run of the server from others.
async fn run_of_server(inner: &Inner) -> Result<Option<String>, QueueError> {
    let info: InfoDict = inner
        .link
        .call("ask which Redis this is", async |c| {
            redis::cmd("INFO").arg("server").query_async(c).await
        })
        .await?;
    Ok(info.get("run_id"))
}

/// Puts jobs back under the lock; none: another pod has it.
async fn locked(inner: &Inner, seal: bool) -> Result<Option<usize>, QueueError> {
    let lock = inner.keys.rebuild();
    let token = format!("{}/{}", inner.life, uuid::Uuid::new_v4());
    let got: Option<String> = inner
        .link
        .call("lock the store", async |c| {
            redis::cmd("SET")
                .arg(lock)
                .arg(&token)
                .arg("NX")
                .arg("PX")
                .arg(LOCK.as_millis() as u64)
                .query_async(c)
                .await
        })
        .await?;
    if got.is_none() {
        return Ok(None);
    }
    let put_back = tokio::select! {
        put_back = put_back(inner, &token) => put_back,
        gone = keep_lock(inner, lock, &token) => Err(gone),
    };
    if seal && put_back.is_ok() {
        let epoch = format!("{SCHEMA}:{}", uuid::Uuid::new_v4().simple());
        let _: Option<String> = inner
            .link
            .call("finish the store", async |c| {
                redis::cmd("SET")
                    .arg(inner.keys.schema())
                    .arg(&epoch)
                    .arg("NX")
                    .query_async(c)
                    .await
            })
            .await?;
        *guard(&inner.epoch) = Some(epoch);
    }
    let _: u8 = unlock(inner, lock, &token, 0).await?;
    put_back.map(Some)
}

/// Keeps the lock for as long as the work takes; comes back when it is another pod's.
async fn keep_lock(inner: &Inner, lock: &str, token: &str) -> QueueError {
    loop {
        tokio::time::sleep(LOCK / 3).await;
        // Where Redis is away, each job that is put back looks at the lock itself.
        if let Ok(0) = unlock(inner, lock, token, LOCK.as_millis() as u64).await {
            return inner.cannot("put jobs back", "another pod took over");
        }
    }
}

async fn unlock(inner: &Inner, lock: &str, token: &str, ms: u64) -> Result<u8, QueueError> {
    inner
        .link
        .call("unlock the store", async |c| {
            scripts::UNLOCK
                .key(lock)
                .arg(token)
                .arg(ms)
                .invoke_async(c)
                .await
        })
        .await
}

async fn put_back(inner: &Inner, token: &str) -> Result<usize, QueueError> {
    inner.scans.fetch_add(1, Ordering::Relaxed);
    let mut copies = inner
        .blocking(|mirror| -> Result<Vec<Copy>, QueueError> {
            let mut copies = Vec::new();
            for id in mirror.ids()? {
                match read(mirror, id) {
                    Ok(copy) => copies.push(copy),
                    Err(error) => {
                        tracing::error!(job = %id, %error, "a copy cannot be read and is left out; its file is kept");
                    }
                }
            }
            Ok(copies)
        })
        .await??;
    // What was put back into the queue by a pod stood in front.
    copies.sort_by_key(|copy| match &copy.job.state {
        State::Queued { since } => (copy.job.attempt == 0, *since),
        _ => (false, copy.job.created_at),
    });
    let mut count = 0;
    for copy in copies {
        let id = copy.job.id;
        // Whoever ended it, or gave it back, tells a store that has the job.
        if reads::seq(inner, id).await?.is_some() {
            continue;
        }
        // Read again: there may be thousands before it, and whoever runs it goes on meanwhile.
        let copy = match inner.blocking(move |mirror| read_whole(mirror, id)).await? {
            Ok(copy) if copy.is_ahead => {
                // Whoever writes both may be between the one and the other.
                tokio::time::sleep(PAUSE).await;
                inner
                    .blocking(move |mirror| read_whole(mirror, id))
                    .await?
                    .unwrap_or(copy)
            }
            Ok(copy) => copy,
            // Forgotten meanwhile.
            Err(QueueError::NotFound(_)) => continue,
            Err(error) => {
                tracing::error!(job = %id, %error, "a copy cannot be read and is left out; its files are kept");
                continue;
            }
        };
        if copy.is_ahead {
            tracing::warn!(job = %id, is = %copy.job.state.name(), "the record of a job was behind its events, which are believed");
        }
        match restore(inner, token, &copy).await {
            Ok(1) => {
                count += 1;
                if copy.is_mended
                    && let Err(error) = mend(inner, &copy).await
                {
                    tracing::warn!(job = %id, %error, "the copy of the job on the volume is behind");
                }
            }
            Ok(0) => {}
            Ok(_) => {
                return Err(inner.cannot("put jobs back", "another pod took over"));
            }
            Err(error @ (QueueError::Storage { .. } | QueueError::Damaged { .. })) => {
                tracing::error!(job = %id, %error, "a copy cannot be used and is left out; its files are kept");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// The job as its record has it.
fn read(mirror: &Mirror, id: JobId) -> Result<Copy, QueueError> {
    parse(id, mirror.read(id)?)
}

/// The job as its record and its stream have it.
fn read_whole(mirror: &Mirror, id: JobId) -> Result<Copy, QueueError> {
    let record = mirror.read(id)?;
    let last = mirror.last_event(id)?;
    let told = behind::caught_up(&record, &mirror.tail(id, EVENTS)?);
    let is_ahead = told.is_some();
    let mended = told.or_else(|| behind::counted(&record, last));
    let copy = Copy {
        is_ahead,
        is_mended: mended.is_some(),
        ..parse(id, mended.unwrap_or(record))?
    };
    if last == 0 && copy.version > change::FIRST {
        // Something happened to it, and none of it was written: what comes is numbered after its first event.
        mirror.append(id, &[change::numbered(1, &change::first_event(&copy.job))])?;
    }
    Ok(Copy {
        events: mirror.tail(id, EVENTS)?,
        ..copy
    })
}

fn parse(id: JobId, record: Record) -> Result<Copy, QueueError> {
    let version = record.version.max(1);
    let job = Job::try_from(record).map_err(|problem| QueueError::Damaged {
        path: id.to_string().into(),
        problem,
    })?;
    Ok(Copy {
        job,
        version,
        events: Vec::new(),
        is_ahead: false,
        is_mended: false,
    })
}

/// Brings a record that was behind its stream up to what was put back.
async fn mend(inner: &Inner, copy: &Copy) -> Result<(), QueueError> {
    let (id, version) = (copy.job.id, copy.version);
    let record = change::record(&copy.job, version - 1);
    let json = serde_json::to_string(&record).unwrap_or_default();
    inner
        .blocking(move |mirror| mirror.write_newer(id, version, &json))
        .await?
}

async fn restore(inner: &Inner, token: &str, copy: &Copy) -> Result<i8, QueueError> {
    let (job, id) = (&copy.job, copy.job.id);
    let record = change::record(job, copy.version - 1);
    let stored = change::stored(job, &record, &change::json(&record)?)?;
    let over = job.state.is_ended();
    let runs = matches!(job.state, State::Running { .. });
    let kept = (!runs && job.attempt > 0).then(|| inner.spool_path(change::life_of(job), id));
    let (last, events) = inner
        .blocking({
            let (job, record) = (job.clone(), record.clone());
            let mut events = copy.events.clone();
            move |mirror| -> Result<_, QueueError> {
                let added = match &kept {
                    Some(path) => untold::settle(mirror, &job, &record, path, &events)?,
                    None => false,
                };
                if added {
                    events = mirror.tail(id, EVENTS)?;
                } else if over {
                    // Nobody follows a job that is over for long; what is asked for is read from the volume.
                    events.clear();
                }
                Ok((mirror.last_event(id)?, events))
            }
        })
        .await??;
    let life = match &job.state {
        State::Running { .. } => Some(change::life_of(job)),
        _ => None,
    };
    let pod_ordinal = job.run.pod.as_ref().and_then(|pod| ordinal(pod.as_str()));
    let key = job.origin.idempotency.as_ref();
    let age = jiff::Timestamp::now()
        .duration_since(job.created_at)
        .unsigned_abs();
    // Pods that share no volume may each have accepted a job of one key while Redis was away.
    let one_of_a_key = inner.settings.shared && key.is_some() && job.attempt == 0 && !over;
    let keys = &inner.keys;
    let text = |value: Option<String>| value.unwrap_or_default();
    let mut call = scripts::RESTORE.prepare_invoke();
    call.key(keys.rebuild())
        .key(keys.job(id))
        .key(keys.queue())
        .key(keys.index())
        .key(keys.due())
        .key(keys.outstanding())
        .key(keys.events(id))
        .key(keys.claimed(life.unwrap_or("-")))
        .key(keys.pods())
        .key(keys.busy())
        .key(keys.session(stored.session.as_deref().unwrap_or("-")))
        .key(keys.floor())
        .key(keys.submission(key.map_or("-", |key| &key.key)))
        .key(keys.schema())
        .key(keys.changes());
    call.arg(token)
        .arg(id.to_string())
        .arg(&stored.json)
        .arg(stored.status)
        .arg(copy.version)
        .arg(text(stored.fence))
        .arg(text(
            (copy.version > change::FIRST).then(|| last.to_string()),
        ))
        .arg(if matches!(job.state, State::Queued { .. }) {
            "1"
        } else {
            ""
        })
        .arg(life.unwrap_or_default())
        .arg(inner.settings.lease.as_millis() as u64)
        .arg(text(life.and(pod_ordinal).map(|o| o.to_string())))
        .arg(text(stored.due.map(|d| d.to_string())))
        .arg(change::score(job))
        .arg(text(stored.expires.map(|e| e.to_string())))
        .arg(if over { "" } else { "1" })
        .arg(if stored.session.is_some() { "1" } else { "" })
        .arg(text(key.map(|key| format!("{id} {}", key.request))))
        .arg(if one_of_a_key { keys.jobs() } else { "" })
        .arg(KEY_LIFETIME.saturating_sub(age).as_secs().max(1))
        // Nobody renews the lease of a life that is not known, and whoever has the job needs the time of one to hear that it is not its own.
        .arg(if life == Some(change::NO_LIFE) {
            "GT"
        } else {
            "NX"
        });
    for event in events {
        call.arg(event.seq)
            .arg(change::unnumbered(event.ts, event.body));
    }
    inner
        .link
        .call("put a job back", async |c| call.invoke_async(c).await)
        .await
}
