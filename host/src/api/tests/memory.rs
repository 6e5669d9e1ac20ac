//! A queue in memory that keeps the contract of [`Queue`].

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::job::{
    Event, EventBody, Fence, Idempotency, Job, JobId, Outcome, PodName, Record, Requeue, Run,
    Status, Transition,
};
use crate::queue::{Claim, Cursor, Depth, Filter, Lease, Page, Queue, QueueError};

/// Few, so that every test reads more than one batch.
const BATCH: usize = 2;

struct Entry {
    job: Job,
    events: Vec<Event>,
    last: watch::Sender<u64>,
    cancelled: CancellationToken,
}

#[derive(Default)]
pub(super) struct Memory {
    /// In the order of their arrival.
    jobs: Mutex<Vec<Entry>>,
    arrived: Notify,
    clock: AtomicI64,
    /// What the next operation fails with.
    failure: Mutex<Option<io::ErrorKind>>,
}

impl Memory {
    /// The time, a second later whenever it is asked for.
    pub(super) fn now(&self) -> Timestamp {
        let second = self.clock.fetch_add(1, Ordering::Relaxed);
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    /// Makes the next operation fail.
    pub(super) fn fail(&self, kind: io::ErrorKind) {
        *self.failure.lock().unwrap() = Some(kind);
    }

    /// Forgets the first `count` events of a job, as a store that trims does.
    pub(super) fn trim(&self, id: JobId, count: usize) {
        let trimmed = self.with(id, |entry| {
            entry.events.drain(..count);
            Ok(())
        });
        trimmed.unwrap();
    }

    /// Forgets a job.
    pub(super) fn forget(&self, id: JobId) {
        self.jobs.lock().unwrap().retain(|e| e.job.id != id);
    }

    fn check(&self) -> Result<(), QueueError> {
        match self.failure.lock().unwrap().take() {
            None => Ok(()),
            Some(kind) => Err(QueueError::Storage {
                doing: "write",
                path: "/state/x.json".into(),
                source: kind.into(),
            }),
        }
    }

    fn with<T>(
        &self,
        id: JobId,
        act: impl FnOnce(&mut Entry) -> Result<T, QueueError>,
    ) -> Result<T, QueueError> {
        self.check()?;
        let mut jobs = self.jobs.lock().unwrap();
        let found = jobs.iter_mut().find(|e| e.job.id == id);
        act(found.ok_or(QueueError::NotFound(id))?)
    }

    fn held<T>(
        &self,
        lease: &Lease,
        act: impl FnOnce(&mut Entry) -> Result<T, QueueError>,
    ) -> Result<T, QueueError> {
        self.with(lease.id, |entry| {
            if entry.job.state.fence() != Some(lease.fence) {
                return Err(QueueError::LostClaim(lease.id));
            }
            act(entry)
        })
    }

    fn step(&self, entry: &mut Entry, transition: &Transition) -> Result<Record, QueueError> {
        entry.job.apply(transition)?;
        let record = Record::from(&entry.job);
        let body = if record.status.is_ended() {
            EventBody::End {
                status: record.status,
                exit_code: record.exit_code,
                failure: record.failure.clone(),
                attempt: record.attempt,
                cost_usd: record.cost_usd,
                pr_url: None,
            }
        } else {
            EventBody::Status {
                status: record.status,
                attempt: record.attempt,
                pod: Some(record.pod_name.clone()).filter(|p| !p.is_empty()),
                reason: None,
            }
        };
        self.push(entry, vec![body]);
        Ok(record)
    }

    fn push(&self, entry: &mut Entry, bodies: Vec<EventBody>) -> u64 {
        for body in bodies {
            let seq = entry.events.last().map_or(0, |e| e.seq) + 1;
            let ts = self.now();
            entry.events.push(Event { seq, ts, body });
        }
        let last = entry.events.last().map_or(0, |e| e.seq);
        entry.last.send_replace(last);
        last
    }
}

#[async_trait]
impl Queue for Memory {
    async fn submit(&self, job: Job) -> Result<Record, QueueError> {
        self.check()?;
        if let Some(key) = &job.origin.idempotency
            && let Some(record) = self.submitted(key).await?
        {
            return Ok(record);
        }
        let record = Record::from(&job);
        let mut entry = Entry {
            job,
            events: Vec::new(),
            last: watch::Sender::new(0),
            cancelled: CancellationToken::new(),
        };
        let queued = EventBody::Status {
            status: Status::Queued,
            attempt: 0,
            pod: None,
            reason: None,
        };
        self.push(&mut entry, vec![queued]);
        self.jobs.lock().unwrap().push(entry);
        self.arrived.notify_one();
        Ok(record)
    }

    async fn submitted(&self, key: &Idempotency) -> Result<Option<Record>, QueueError> {
        let jobs = self.jobs.lock().unwrap();
        let under = |e: &&Entry| {
            let used = e.job.origin.idempotency.as_ref();
            used.is_some_and(|used| used.key == key.key)
        };
        match jobs.iter().find(under) {
            Some(e) if e.job.origin.idempotency.as_ref() != Some(key) => {
                Err(QueueError::KeyReused(e.job.id))
            }
            found => Ok(found.map(|e| Record::from(&e.job))),
        }
    }

    async fn claim(&self, pod: &PodName) -> Result<Claim, QueueError> {
        loop {
            self.check()?;
            if let Some(claim) = self.take(pod)? {
                return Ok(claim);
            }
            self.arrived.notified().await;
        }
    }

    async fn confirm(&self, _lease: &Lease) -> Result<(), QueueError> {
        Ok(())
    }

    async fn update(&self, lease: &Lease, run: &Run) -> Result<(), QueueError> {
        self.held(lease, |entry| {
            entry.job.run = run.clone();
            Ok(())
        })
    }

    async fn append(&self, lease: &Lease, events: Vec<EventBody>) -> Result<u64, QueueError> {
        self.held(lease, |entry| Ok(self.push(entry, events)))
    }

    async fn finish(
        &self,
        lease: &Lease,
        run: &Run,
        outcome: Outcome,
        last: Vec<EventBody>,
    ) -> Result<Record, QueueError> {
        self.held(lease, |entry| {
            entry.job.run = run.clone();
            self.push(entry, last);
            let (fence, at) = (lease.fence, self.now());
            self.step(entry, &Transition::Finish { fence, outcome, at })
        })
    }

    async fn requeue(
        &self,
        lease: &Lease,
        run: &Run,
        why: Requeue,
        last: Vec<EventBody>,
    ) -> Result<Record, QueueError> {
        self.held(lease, |entry| {
            entry.job.run = run.clone();
            self.push(entry, last);
            let (fence, at) = (lease.fence, self.now());
            self.step(entry, &Transition::Requeue { fence, why, at })
        })
    }

    async fn cancel(&self, id: JobId) -> Result<Record, QueueError> {
        self.with(id, |entry| {
            entry.cancelled.cancel();
            if entry.job.state.is_ended() {
                return Ok(Record::from(&entry.job));
            }
            self.step(entry, &Transition::Cancel { at: self.now() })
        })
    }

    async fn get(&self, id: JobId) -> Result<Record, QueueError> {
        self.with(id, |entry| Ok(Record::from(&entry.job)))
    }

    async fn find(&self, prefix: &str, limit: usize) -> Result<Vec<JobId>, QueueError> {
        self.check()?;
        let jobs = self.jobs.lock().unwrap();
        let ids = jobs.iter().rev().map(|e| e.job.id);
        let found = ids.filter(|id| id.to_string().starts_with(prefix));
        Ok(found.take(limit).collect())
    }

    async fn list(&self, filter: &Filter) -> Result<Page, QueueError> {
        self.check()?;
        let jobs = self.jobs.lock().unwrap();
        let newest_first = jobs.iter().rev();
        let place = |id| jobs.iter().rev().position(|e| e.job.id == id);
        let skip = filter.after.and_then(place).map_or(0, |i| i + 1);
        let records = newest_first.skip(skip).map(|e| Record::from(&e.job));
        let is = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|w| w == value);
        let mut found: Vec<Record> = records
            .filter(|r| filter.statuses.is_empty() || filter.statuses.contains(&r.status))
            .filter(|r| is(&filter.profile, &r.profile) && is(&filter.pod, &r.pod_name))
            .filter(|r| is(&filter.repo, &r.repo_url))
            .filter(|r| filter.since.is_none_or(|since| r.created_at >= Some(since)))
            .filter(|r| filter.text.as_ref().is_none_or(|t| r.task.contains(t)))
            .take(filter.limit + 1)
            .collect();
        let more = found.len() > filter.limit;
        found.truncate(filter.limit);
        let next = found.last().filter(|_| more).map(|r| r.id.parse().unwrap());
        Ok(Page { jobs: found, next })
    }

    async fn events(&self, id: JobId, cursor: Cursor) -> Result<(Vec<Event>, Cursor), QueueError> {
        let read = self.with(id, |entry| {
            let after = entry.events.iter().filter(|e| e.seq > cursor.seq);
            let events: Vec<Event> = after.take(BATCH).cloned().collect();
            let next = events.last().map_or(cursor, |e| Cursor::after(e.seq));
            Ok((events, next))
        });
        // As after any read from a disk, the next events may be there by now.
        tokio::task::yield_now().await;
        read
    }

    async fn watch(&self, id: JobId) -> Result<watch::Receiver<u64>, QueueError> {
        self.with(id, |entry| Ok(entry.last.subscribe()))
    }

    fn changes(&self) -> tokio::sync::broadcast::Receiver<crate::queue::Changed> {
        tokio::sync::broadcast::channel(1).1
    }

    async fn changes_after(
        &self,
        _at: &str,
    ) -> Result<Option<Vec<crate::queue::Changed>>, QueueError> {
        Ok(None)
    }

    async fn depth(&self) -> Depth {
        let jobs = self.jobs.lock().unwrap();
        let count = |status| {
            let of_status = jobs.iter().filter(|e| Status::from(&e.job.state) == status);
            of_status.count()
        };
        Depth {
            queued: count(Status::Queued),
            running: count(Status::Running),
            oldest: None,
        }
    }

    async fn sweep(&self, now: Timestamp) -> Result<Vec<Record>, QueueError> {
        self.check()?;
        let mut forgotten = Vec::new();
        self.jobs.lock().unwrap().retain(|entry| {
            let record = Record::from(&entry.job);
            let keep = record.ended_at.is_none_or(|ended| ended > now);
            if !keep {
                forgotten.push(record);
            }
            keep
        });
        Ok(forgotten)
    }
}

impl Memory {
    fn take(&self, pod: &PodName) -> Result<Option<Claim>, QueueError> {
        let mut jobs = self.jobs.lock().unwrap();
        let waits = |e: &&mut Entry| Status::from(&e.job.state) == Status::Queued;
        let Some(entry) = jobs.iter_mut().find(waits) else {
            return Ok(None);
        };
        let fence = Fence(u64::from(entry.job.attempt) + 1);
        let (pod, at) = (pod.clone(), self.now());
        self.step(entry, &Transition::Claim { pod, fence, at })?;
        let lease = Lease {
            id: entry.job.id,
            fence,
            cancelled: entry.cancelled.clone(),
            lost: CancellationToken::new(),
        };
        let job = entry.job.clone();
        Ok(Some(Claim { job, lease }))
    }
}
