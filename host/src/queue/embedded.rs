//! The store that needs nothing installed: files in one directory, one process at a time.
//!
//! `journal-*.jsonl` makes each change of a record durable, many with one sync; `{id}.json` is the job's record, replaced atomically a
//! moment later; `{id}.events.jsonl` holds its events, one line each, appended. Events are not synced: after a power cut the end of a stream
//! may be missing, and what the record proves is added to it again. The order of the queue is not stored: it is rebuilt from the records when the store opens,
//! with interrupted jobs in front. `.lock` holds the flock that keeps a second process out.
//!
//! Every operation on a job runs on a blocking thread to its end, whether or not somebody still waits for it, so a dropped future
//! never leaves half an operation behind. The record is written before the event that tells of it; [`Embedded::open`] and the first
//! read of an ended job's events add what a crash between the two left out.

mod index;
mod journal;
mod unwritten;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::{Notify, broadcast, oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::index::{Entry, Holder, Index, Live};
use self::journal::Journal;
use self::unwritten::{Unwritten, Writer};
use super::event_log::{self, EventLog};
use super::feed::{Changed, Feed};
use super::{
    Claim, Cursor, Depth, Filter, Lease, Page, Queue, QueueError, end_event, files, guard,
    status_event,
};
use crate::job::{
    Event, EventBody, Fence, Idempotency, Job, JobId, Outcome, PodName, Record, Requeue, Run,
    State, Status, Transition,
};
use crate::telemetry;

/// The embedded store.
#[derive(Clone)]
pub struct Embedded {
    store: Arc<Store>,
}

struct Store {
    dir: PathBuf,
    journal: Journal,
    /// Records whose files are not written yet; the journal holds them.
    unwritten: Unwritten,
    index: Mutex<Index>,
    /// Told whenever a job joins the queue.
    queued: Notify,
    feed: Feed,
    /// Before the lock: what is left to write is written while nobody else can use the directory.
    _writer: Writer,
    /// Held, not read: dropping it lets another process in.
    _lock: std::fs::File,
}

impl Embedded {
    /// Opens the store in `dir`, which is made if it does not exist, and puts jobs that were running when the last process
    /// ended back into the queue, in front.
    ///
    /// # Errors
    /// [`QueueError::Storage`] when the directory cannot be used or another process uses it.
    pub fn open(dir: &Path) -> Result<Self, QueueError> {
        let lock = files::lock_dir(dir)?;
        files::remove_temporaries(dir)?;
        let unwritten = Unwritten::new(dir);
        let journal = Journal::open(dir, unwritten.clone())?;
        let writer = unwritten.start().map_err(files::failed("write in", dir))?;
        let store = Store {
            dir: dir.to_owned(),
            unwritten,
            _writer: writer,
            journal,
            index: Mutex::default(),
            queued: Notify::new(),
            feed: Feed::default(),
            _lock: lock,
        };
        store.load()?;
        Ok(Self {
            store: Arc::new(store),
        })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, QueueError> + Send + 'static,
    ) -> Result<T, QueueError> {
        let store = self.store.clone();
        match tokio::task::spawn_blocking(move || work(&store)).await {
            Ok(result) => result,
            Err(e) => Err(QueueError::Storage {
                doing: "work in",
                path: self.store.dir.clone(),
                source: std::io::Error::other(e),
            }),
        }
    }

    async fn with_lease<T: Send + 'static>(
        &self,
        lease: &Lease,
        work: impl FnOnce(&Store, &Entry, &mut Live) -> Result<T, QueueError> + Send + 'static,
    ) -> Result<T, QueueError> {
        let (id, fence) = (lease.id, lease.fence);
        self.blocking(move |store| {
            let entry = store.entry(id)?;
            let mut live = guard(&entry.live);
            let holds = live
                .job
                .as_ref()
                .is_some_and(|job| job.state.fence() == Some(fence));
            if !holds {
                return Err(QueueError::LostClaim(id));
            }
            work(store, &entry, &mut live)
        })
        .await
    }
}

#[async_trait]
impl Queue for Embedded {
    async fn submit(&self, job: Job) -> Result<Record, QueueError> {
        self.blocking(move |store| store.submit(job)).await
    }

    async fn submitted(&self, key: &Idempotency) -> Result<Option<Record>, QueueError> {
        let key = key.clone();
        self.blocking(move |store| {
            let entry = guard(&store.index).used_key(&key, Timestamp::now())?;
            entry.map(|entry| store.record(&entry)).transpose()
        })
        .await
    }

    async fn claim(&self, pod: &PodName) -> Result<Claim, QueueError> {
        loop {
            // Armed before the look, so that no job that joins in between is missed.
            let queued = self.store.queued.notified();
            let (answer, claimed) = oneshot::channel();
            let pod = pod.clone();
            self.blocking(move |store| {
                if let Err(Ok(Some(claim))) = answer.send(store.try_claim(&pod)) {
                    store.give_back(&claim);
                }
                Ok(())
            })
            .await?;
            match claimed.await {
                Ok(Ok(Some(claim))) => return Ok(claim),
                Ok(Err(error)) => return Err(error),
                Ok(Ok(None)) | Err(_) => queued.await,
            }
        }
    }

    async fn update(&self, lease: &Lease, run: &Run) -> Result<(), QueueError> {
        let run = run.clone();
        self.with_lease(lease, move |store, entry, live| {
            let Some(mut job) = live.job.clone() else {
                return Err(QueueError::LostClaim(entry.id));
            };
            job.run = run;
            store.write(&job)?;
            entry.summarize(&job);
            live.job = Some(job);
            Ok(())
        })
        .await
    }

    async fn append(&self, lease: &Lease, events: Vec<EventBody>) -> Result<u64, QueueError> {
        self.with_lease(lease, move |store, entry, live| {
            store.append(entry, live, events)
        })
        .await
    }

    async fn finish(
        &self,
        lease: &Lease,
        run: &Run,
        outcome: Outcome,
    ) -> Result<Record, QueueError> {
        let (fence, run) = (lease.fence, run.clone());
        let transition = Transition::Finish {
            fence,
            outcome,
            at: Timestamp::now(),
        };
        self.with_lease(lease, move |store, entry, live| {
            store.move_job(entry, live, Some(run), &transition, None)
        })
        .await
    }

    async fn requeue(&self, lease: &Lease, run: &Run, why: Requeue) -> Result<Record, QueueError> {
        let (fence, run) = (lease.fence, run.clone());
        let transition = Transition::Requeue {
            fence,
            why,
            at: Timestamp::now(),
        };
        self.with_lease(lease, move |store, entry, live| {
            let record = store.move_job(entry, live, Some(run), &transition, Some(why.as_str()))?;
            if !record.status.is_ended() {
                store.enqueue_front(entry.id);
            }
            Ok(record)
        })
        .await
    }

    async fn cancel(&self, id: JobId) -> Result<Record, QueueError> {
        self.blocking(move |store| store.cancel(id)).await
    }

    async fn get(&self, id: JobId) -> Result<Record, QueueError> {
        self.blocking(move |store| store.record(&*store.entry(id)?))
            .await
    }

    async fn find(&self, prefix: &str, limit: usize) -> Result<Vec<JobId>, QueueError> {
        Ok(guard(&self.store.index).find(prefix, limit))
    }

    async fn list(&self, filter: &Filter) -> Result<Page, QueueError> {
        let filter = filter.clone();
        self.blocking(move |store| store.list(&filter)).await
    }

    async fn events(&self, id: JobId, cursor: Cursor) -> Result<(Vec<Event>, Cursor), QueueError> {
        self.blocking(move |store| {
            let entry = store.entry(id)?;
            let last = store.last_event(&entry)?;
            if cursor.seq >= last {
                return Ok((Vec::new(), cursor));
            }
            event_log::read(&files::events_path(&store.dir, id), cursor, last)
        })
        .await
    }

    async fn watch(&self, id: JobId) -> Result<watch::Receiver<u64>, QueueError> {
        self.blocking(move |store| {
            let entry = store.entry(id)?;
            store.last_event(&entry)?;
            Ok(entry.seq.subscribe())
        })
        .await
    }

    fn changes(&self) -> broadcast::Receiver<Changed> {
        self.store.feed.all()
    }

    async fn changes_after(&self, at: &str) -> Result<Option<Vec<Changed>>, QueueError> {
        Ok(self.store.feed.after(at))
    }

    async fn depth(&self) -> Depth {
        guard(&self.store.index).depth()
    }

    async fn sweep(&self, now: Timestamp) -> Result<Vec<Record>, QueueError> {
        self.blocking(move |store| store.sweep(now)).await
    }
}

impl Store {
    fn load(&self) -> Result<(), QueueError> {
        let mut waiting = Vec::new();
        for id in files::job_ids(&self.dir)? {
            match files::read_job(&self.dir, id) {
                Ok(job) => {
                    let interrupted = matches!(job.state, State::Running { .. });
                    let entry = guard(&self.index).insert(job, Timestamp::now());
                    self.recover(&entry)?;
                    let live = guard(&entry.live);
                    if let Some(Job {
                        state: State::Queued { since },
                        ..
                    }) = live.job
                    {
                        waiting.push((!interrupted, since, id));
                    }
                }
                Err(QueueError::Damaged { path, problem }) => {
                    tracing::error!(path = %path.display(), problem, "a job record is damaged and left out; its file is kept");
                    guard(&self.index).damaged.insert(id, problem);
                }
                Err(other) => return Err(other),
            }
        }
        waiting.sort_unstable();
        guard(&self.index)
            .queue
            .extend(waiting.into_iter().map(|(_, _, id)| id));
        Ok(())
    }

    /// Brings a job's stream up to its record, and a job that was running back into the queue.
    fn recover(&self, entry: &Entry) -> Result<(), QueueError> {
        let mut live = guard(&entry.live);
        let Some(job) = live.job.clone() else {
            return Ok(());
        };
        let last = self.log(entry, &mut live)?.last_event()?;
        let told = matches!(&last.map(|e| e.body), Some(EventBody::Status { status, attempt, .. })
            if *status == Status::from(&job.state) && *attempt == job.attempt);
        match &job.state {
            State::Running { fence, .. } => {
                let why = Requeue::Reclaimed;
                let transition = Transition::Requeue {
                    fence: *fence,
                    why,
                    at: Timestamp::now(),
                };
                self.move_job(entry, &mut live, None, &transition, Some(why.as_str()))?;
            }
            State::Queued { .. } if !told => {
                self.append(entry, &mut live, vec![status_event(&job, None)])?;
            }
            _ => {}
        }
        Ok(())
    }

    fn submit(&self, job: Job) -> Result<Record, QueueError> {
        let Some(key) = job.origin.idempotency.clone() else {
            return self.submit_new(job);
        };
        let (id, now) = (job.id, Timestamp::now());
        let earlier = guard(&self.index).take_key(&key, now)?;
        if let Some(entry) = earlier {
            return self.record(&entry);
        }
        let stored = self.submit_new(job);
        guard(&self.index).settle_key(&key, stored.is_ok().then_some(id));
        stored
    }

    fn submit_new(&self, job: Job) -> Result<Record, QueueError> {
        let id = job.id;
        let entry = Arc::new(Entry::new(job.clone()));
        let stored = self.write(&job).and_then(|record| {
            let told = vec![status_event(&job, None)];
            let mut live = guard(&entry.live);
            live.log = Some(EventLog::create(files::events_path(&self.dir, id))?);
            self.append(&entry, &mut live, told)?;
            Ok(record)
        });
        let record = match stored {
            Ok(record) => record,
            Err(error) => {
                self.take_back(id);
                return Err(error);
            }
        };
        let mut index = guard(&self.index);
        index.add(entry);
        index.moved(id, None, Some(&job.state));
        index.queue.push_back(id);
        drop(index);
        self.queued.notify_one();
        Ok(record)
    }

    /// Leaves nothing of a job that could not be accepted.
    fn take_back(&self, id: JobId) {
        if let Err(error) = self.journal.forget(id) {
            tracing::warn!(job = %id, %error, "a job that was refused may come back with the next start");
        }
        self.unwritten.remove(id);
    }

    fn try_claim(&self, pod: &PodName) -> Result<Option<Claim>, QueueError> {
        loop {
            let Some(id) = guard(&self.index).queue.pop_front() else {
                return Ok(None);
            };
            match self.claim_one(id, pod) {
                Ok(Some(claim)) => {
                    // One notification wakes one waiter; with more jobs waiting, wake the next.
                    if !guard(&self.index).queue.is_empty() {
                        self.queued.notify_one();
                    }
                    return Ok(Some(claim));
                }
                Ok(None) => {}
                Err(error) => {
                    self.enqueue_front(id);
                    return Err(error);
                }
            }
        }
    }

    fn claim_one(&self, id: JobId, pod: &PodName) -> Result<Option<Claim>, QueueError> {
        let Ok(entry) = self.entry(id) else {
            return Ok(None);
        };
        let mut live = guard(&entry.live);
        let Some(job) = &live.job else {
            return Ok(None);
        };
        if !matches!(job.state, State::Queued { .. }) {
            return Ok(None);
        }
        // The attempts of one job are counted, so their number is a fence.
        let fence = Fence(u64::from(job.attempt) + 1);
        let transition = Transition::Claim {
            pod: pod.clone(),
            fence,
            at: Timestamp::now(),
        };
        self.move_job(&entry, &mut live, None, &transition, None)?;
        let holder = Holder {
            cancelled: CancellationToken::new(),
            lost: CancellationToken::new(),
        };
        let lease = Lease {
            id,
            fence,
            cancelled: holder.cancelled.clone(),
            lost: holder.lost.clone(),
        };
        live.holder = Some(holder);
        Ok(live.job.clone().map(|job| Claim { job, lease }))
    }

    /// Whoever asked for this claim has gone.
    fn give_back(&self, claim: &Claim) {
        let why = Requeue::HandOff;
        let transition = Transition::Requeue {
            fence: claim.lease.fence,
            why,
            at: Timestamp::now(),
        };
        let given = self.entry(claim.job.id).and_then(|entry| {
            self.move_job(
                &entry,
                &mut guard(&entry.live),
                None,
                &transition,
                Some(why.as_str()),
            )
        });
        match given {
            Ok(_) => self.enqueue_front(claim.job.id),
            Err(error) => {
                tracing::error!(job = %claim.job.id, %error, "a claimed job could not be given back; the next start will")
            }
        }
    }

    fn enqueue_front(&self, id: JobId) {
        guard(&self.index).queue.push_front(id);
        self.queued.notify_one();
    }

    fn cancel(&self, id: JobId) -> Result<Record, QueueError> {
        let entry = self.entry(id)?;
        let mut live = guard(&entry.live);
        if live.job.is_none() {
            drop(live);
            return self.record(&entry);
        }
        let record = self.move_job(
            &entry,
            &mut live,
            None,
            &Transition::Cancel {
                at: Timestamp::now(),
            },
            Some("cancel_requested"),
        )?;
        if record.status.is_ended() {
            guard(&self.index).queue.retain(|queued| *queued != id);
        } else if let Some(holder) = &live.holder {
            holder.cancelled.cancel();
        }
        Ok(record)
    }

    /// Carries out a transition: first the record, then the events that tell of it, then memory.
    fn move_job(
        &self,
        entry: &Entry,
        live: &mut Live,
        run: Option<Run>,
        transition: &Transition,
        reason: Option<&str>,
    ) -> Result<Record, QueueError> {
        let Some(mut job) = live.job.clone() else {
            return Err(QueueError::LostClaim(entry.id));
        };
        if let Some(run) = run {
            job.run = run;
        }
        job.apply(transition)?;
        let record = self.write(&job)?;
        let ended = job.state.is_ended();
        let mut told = vec![status_event(&job, reason.filter(|_| !ended))];
        if ended {
            told.push(end_event(&record));
        }
        self.append(entry, live, told)?;
        entry.summarize(&job);
        if let Some(before) = &live.job {
            guard(&self.index).moved(entry.id, Some(&before.state), Some(&job.state));
            telemetry::moved(&before.state, transition, &job);
        }
        if !matches!(job.state, State::Running { .. }) {
            live.holder = None;
        }
        live.job = (!ended).then_some(job);
        if ended {
            live.log = None;
        }
        Ok(record)
    }

    fn write(&self, job: &Job) -> Result<Record, QueueError> {
        let record = Record::from(job);
        let raw = files::to_raw(&self.dir, job.id, &record)?;
        // In this order: what is not durable must not take the place of what is.
        self.journal.write(job.id, &raw)?;
        self.unwritten.put(job.id, raw);
        Ok(record)
    }

    fn log<'a>(&self, entry: &Entry, live: &'a mut Live) -> Result<&'a mut EventLog, QueueError> {
        if live.log.is_none() {
            let log = EventLog::open(files::events_path(&self.dir, entry.id))?;
            entry.seq.send_replace(log.last());
            live.log = Some(log);
        }
        live.log.as_mut().ok_or(QueueError::NotFound(entry.id))
    }

    fn append(
        &self,
        entry: &Entry,
        live: &mut Live,
        events: Vec<EventBody>,
    ) -> Result<u64, QueueError> {
        let log = self.log(entry, live)?;
        let last = log.append(events.clone())?;
        // Published only now that it is stored: nobody sees an event that a crash could take back.
        entry.seq.send_replace(last);
        self.feed.tell(entry.id, last, &events);
        Ok(last)
    }

    /// The number of a job's last event; opens the stream of a job that ended in an earlier life of the process.
    fn last_event(&self, entry: &Entry) -> Result<u64, QueueError> {
        let known = *entry.seq.borrow();
        if known > 0 {
            return Ok(known);
        }
        let mut live = guard(&entry.live);
        let ended = live.job.is_none();
        let log = self.log(entry, &mut live)?;
        let last = log.last_event()?;
        if ended && !matches!(last.map(|e| e.body), Some(EventBody::End { .. })) {
            let record = self.stored(entry.id)?;
            self.append(entry, &mut live, vec![end_event(&record)])?;
        }
        if ended {
            live.log = None;
        }
        Ok(*entry.seq.borrow())
    }

    fn entry(&self, id: JobId) -> Result<Arc<Entry>, QueueError> {
        let index = guard(&self.index);
        match (index.get(id), index.damaged.get(&id)) {
            (Some(entry), _) => Ok(entry),
            (None, Some(problem)) => Err(QueueError::Damaged {
                path: files::record_path(&self.dir, id),
                problem: problem.clone(),
            }),
            (None, None) => Err(QueueError::NotFound(id)),
        }
    }

    fn record(&self, entry: &Entry) -> Result<Record, QueueError> {
        if let Some(job) = &guard(&entry.live).job {
            return Ok(Record::from(job));
        }
        self.stored(entry.id)
    }

    /// The record as it was stored last.
    fn stored(&self, id: JobId) -> Result<Record, QueueError> {
        match self.unwritten.get(id) {
            Some(raw) => files::parse_record(&self.dir, id, raw.get().as_bytes()),
            None => files::read_record(&self.dir, id),
        }
    }

    fn list(&self, filter: &Filter) -> Result<Page, QueueError> {
        let limit = filter.limit.max(1);
        let mut page = Page::default();
        let mut after = filter.after;
        loop {
            // In steps, so that a long list never holds the index for long.
            let (entries, next) = guard(&self.index).step(after, filter, limit + 1);
            for entry in entries {
                let record = match self.record(&entry) {
                    Ok(record) => record,
                    // Its time was over while we looked.
                    Err(QueueError::NotFound(_)) => continue,
                    Err(other) => return Err(other),
                };
                if filter
                    .text
                    .as_ref()
                    .is_some_and(|text| !record.task.contains(text.as_str()))
                {
                    continue;
                }
                if page.jobs.len() == limit {
                    page.next = page.jobs.last().and_then(|r| r.id.parse().ok());
                    return Ok(page);
                }
                page.jobs.push(record);
            }
            match next {
                Some(next) => after = Some(next),
                None => return Ok(page),
            }
        }
    }

    fn sweep(&self, now: Timestamp) -> Result<Vec<Record>, QueueError> {
        let mut forgotten = Vec::new();
        let overdue = guard(&self.index).overdue(now);
        for entry in overdue {
            let mut live = guard(&entry.live);
            match &live.job {
                Some(Job {
                    state: State::Queued { .. },
                    ..
                }) => {
                    self.move_job(
                        &entry,
                        &mut live,
                        None,
                        &Transition::Expire { at: now },
                        None,
                    )?;
                    guard(&self.index).queue.retain(|id| *id != entry.id);
                }
                None => {
                    let record = self.stored(entry.id);
                    self.journal.forget(entry.id)?;
                    guard(&self.index).remove(&entry);
                    self.unwritten.remove(entry.id);
                    forgotten.extend(record.ok());
                }
                Some(_) => {}
            }
        }
        guard(&self.index).forget_keys(now);
        Ok(forgotten)
    }
}

#[cfg(test)]
mod tests;
