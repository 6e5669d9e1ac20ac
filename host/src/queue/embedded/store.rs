//! What the operations on the store do, each from its beginning to its end.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::index::{Entry, Holder, Index, Live};
use super::journal::Journal;
use super::unwritten::{Unwritten, Writer};
use crate::job::{
    EventBody, Fence, Job, JobId, PodName, Record, Requeue, Run, State, Status, Transition,
};
use crate::queue::event_log::EventLog;
use crate::queue::feed::Feed;
use crate::queue::{Claim, Filter, Lease, Page, QueueError, end_event, files, guard, status_event};
use crate::telemetry;

/// The store of one process.
pub(super) struct Store {
    pub(super) dir: PathBuf,
    journal: Journal,
    /// Records whose files are not written yet; the journal holds them.
    unwritten: Unwritten,
    pub(super) index: Mutex<Index>,
    /// Told whenever a job joins the queue.
    pub(super) queued: Notify,
    pub(super) feed: Feed,
    /// Why the last change could not be stored; none: it was.
    refused: Mutex<Option<String>>,
    /// Before the lock: what is left to write is written while nobody else can use the directory.
    _writer: Writer,
    /// Held, not read: dropping it lets another process in.
    _lock: std::fs::File,
    /// After all others: whoever waits for it finds that nothing of the store is at work any more.
    closed: Closed,
}

/// Tells that a store is gone.
#[derive(Default)]
struct Closed(CancellationToken);

impl Drop for Closed {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Store {
    /// Cancelled once the store is gone.
    pub(super) fn closed(&self) -> CancellationToken {
        self.closed.0.clone()
    }

    /// Does `work`, which changes something, and remembers whether the disk took it.
    pub(super) fn change<T>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, QueueError>,
    ) -> Result<T, QueueError> {
        let done = work(self);
        match &done {
            Ok(_) => *guard(&self.refused) = None,
            Err(error) if error.is_storage() => *guard(&self.refused) = Some(error.to_string()),
            // A change that is not allowed says nothing about the disk.
            Err(_) => {}
        }
        done
    }

    /// Why the last change could not be stored; none: it was.
    pub(super) fn refused(&self) -> Option<String> {
        guard(&self.refused).clone()
    }

    /// Opens the directory; nobody else can from then on.
    pub(super) fn open(dir: &Path) -> Result<Self, QueueError> {
        let lock = files::lock_dir(dir)?;
        files::remove_temporaries(dir)?;
        let unwritten = Unwritten::new(dir);
        let journal = Journal::open(dir, unwritten.clone())?;
        let writer = unwritten.start().map_err(files::failed("write in", dir))?;
        let store = Self {
            dir: dir.to_owned(),
            unwritten,
            _writer: writer,
            journal,
            index: Mutex::default(),
            queued: Notify::new(),
            feed: Feed::default(),
            refused: Mutex::default(),
            _lock: lock,
            closed: Closed::default(),
        };
        store.load()?;
        Ok(store)
    }

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

    pub(super) fn submit(&self, job: Job) -> Result<Record, QueueError> {
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

    pub(super) fn try_claim(&self, pod: &PodName) -> Result<Option<Claim>, QueueError> {
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
            has_told: false,
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
    pub(super) fn give_back(&self, claim: &Claim) {
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

    pub(super) fn enqueue_front(&self, id: JobId) {
        guard(&self.index).queue.push_front(id);
        self.queued.notify_one();
    }

    pub(super) fn cancel(&self, id: JobId) -> Result<Record, QueueError> {
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
    pub(super) fn move_job(
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

    pub(super) fn write(&self, job: &Job) -> Result<Record, QueueError> {
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

    pub(super) fn append(
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

    /// Stores the last events of a run before what ends it; once, however often that is tried.
    pub(super) fn append_last(
        &self,
        entry: &Entry,
        live: &mut Live,
        last: Vec<EventBody>,
    ) -> Result<(), QueueError> {
        let has_told = live.holder.as_ref().is_some_and(|holder| holder.has_told);
        if last.is_empty() || has_told {
            return Ok(());
        }
        self.append(entry, live, last)?;
        if let Some(holder) = &mut live.holder {
            holder.has_told = true;
        }
        Ok(())
    }

    /// The number of a job's last event; opens the stream of a job that ended in an earlier life of the process.
    pub(super) fn last_event(&self, entry: &Entry) -> Result<u64, QueueError> {
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

    pub(super) fn entry(&self, id: JobId) -> Result<Arc<Entry>, QueueError> {
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

    pub(super) fn record(&self, entry: &Entry) -> Result<Record, QueueError> {
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

    pub(super) fn list(&self, filter: &Filter) -> Result<Page, QueueError> {
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

    pub(super) fn sweep(&self, now: Timestamp) -> Result<Vec<Record>, QueueError> {
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
