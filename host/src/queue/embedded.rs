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
mod store;
mod unwritten;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::{broadcast, oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::index::{Entry, Live};
use self::store::Store;
use super::feed::Changed;
use super::{
    Claim, Cursor, Depth, Filter, Lease, Page, Queue, QueueError, event_log, files, guard,
};
use crate::job::{
    Event, EventBody, Idempotency, Job, JobId, Outcome, PodName, Record, Requeue, Run, Transition,
};

/// The embedded store.
#[derive(Clone)]
pub struct Embedded {
    store: Arc<Store>,
}

impl Embedded {
    /// Opens the store in `dir`, which is made if it does not exist, and puts jobs that were running when the last process
    /// ended back into the queue, in front.
    ///
    /// # Errors
    /// [`QueueError::Storage`] when the directory cannot be used or another process uses it.
    pub fn open(dir: &Path) -> Result<Self, QueueError> {
        let store = Store::open(dir)?;
        Ok(Self {
            store: Arc::new(store),
        })
    }

    /// Cancelled once the last handle to the store is dropped and everything is written.
    #[must_use]
    pub fn closed(&self) -> CancellationToken {
        self.store.closed()
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
            store.change(|store| work(store, &entry, &mut live))
        })
        .await
    }
}

/// Waits for a claim. One that is there and that nobody takes any more goes back to the queue.
struct Waiting {
    store: Arc<Store>,
    claimed: oneshot::Receiver<Result<Option<Claim>, QueueError>>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.claimed.close();
        if let Ok(Ok(Some(claim))) = self.claimed.try_recv() {
            self.store.give_back(&claim);
        }
    }
}

#[async_trait]
impl Queue for Embedded {
    async fn submit(&self, job: Job) -> Result<Record, QueueError> {
        self.blocking(move |store| store.change(|store| store.submit(job)))
            .await
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
            let mut waiting = Waiting {
                store: self.store.clone(),
                claimed,
            };
            let pod = pod.clone();
            self.blocking(move |store| {
                if let Err(Ok(Some(claim))) = answer.send(store.try_claim(&pod)) {
                    store.give_back(&claim);
                }
                Ok(())
            })
            .await?;
            match (&mut waiting.claimed).await {
                Ok(Ok(Some(claim))) => return Ok(claim),
                Ok(Err(error)) => return Err(error),
                Ok(Ok(None)) | Err(_) => queued.await,
            }
        }
    }

    async fn confirm(&self, _lease: &Lease) -> Result<(), QueueError> {
        // One process at a time, and what it claims is written down before it knows.
        Ok(())
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
        last: Vec<EventBody>,
    ) -> Result<Record, QueueError> {
        let (fence, run) = (lease.fence, run.clone());
        let transition = Transition::Finish {
            fence,
            outcome,
            at: Timestamp::now(),
        };
        self.with_lease(lease, move |store, entry, live| {
            store.append_last(entry, live, last)?;
            store.move_job(entry, live, Some(run), &transition, None)
        })
        .await
    }

    async fn requeue(
        &self,
        lease: &Lease,
        run: &Run,
        why: Requeue,
        last: Vec<EventBody>,
    ) -> Result<Record, QueueError> {
        let (fence, run) = (lease.fence, run.clone());
        let transition = Transition::Requeue {
            fence,
            why,
            at: Timestamp::now(),
        };
        self.with_lease(lease, move |store, entry, live| {
            store.append_last(entry, live, last)?;
            let record = store.move_job(entry, live, Some(run), &transition, Some(why.as_str()))?;
            if !record.status.is_ended() {
                store.enqueue_front(entry.id);
            }
            Ok(record)
        })
        .await
    }

    async fn cancel(&self, id: JobId) -> Result<Record, QueueError> {
        self.blocking(move |store| store.change(|store| store.cancel(id)))
            .await
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

    fn trouble(&self) -> Option<String> {
        self.store.refused()
    }

    async fn sweep(&self, now: Timestamp) -> Result<Vec<Record>, QueueError> {
        self.blocking(move |store| store.sweep(now)).await
    }
}

#[cfg(test)]
mod tests;
