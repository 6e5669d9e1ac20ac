//! The queue contract: how jobs are submitted, claimed, followed and ended, whatever keeps them.
//!
//! A job is delivered at least once. A [`Claim`] carries a fence; every write of a run names it, and a run whose fence is no longer
//! the job's is told [`QueueError::LostClaim`] and must kill its agent. Events are numbered from 1 without gaps, and an event is
//! visible only once it is stored, or follows from what is.
//!
//! [`embedded`] is the store that needs nothing installed; [`redis`] is the store of a fleet.

pub mod embedded;
mod event_log;
mod feed;
mod files;
pub mod import;
pub mod redis;
#[cfg(test)]
pub(crate) mod suite;

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

pub use self::feed::Changed;

use crate::job::{
    Event, EventBody, Fence, Idempotency, IllegalTransition, Job, JobId, Outcome, PodName, Record,
    Requeue, Run, SessionId, Status,
};

/// How long the key of a submission counts.
pub const KEY_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// Where jobs wait, and where everything known of them is kept.
#[async_trait]
pub trait Queue: Send + Sync + 'static {
    /// Stores a new job and puts it at the end of the queue. It is durable when this returns.
    ///
    /// A job with a key ([`Origin::idempotency`](crate::job::Origin)) that was used before, for the same request, is not stored: the
    /// answer is the record of the job that was, whose id then differs. A key counts for [`KEY_LIFETIME`], and not longer than
    /// its job is kept.
    ///
    /// # Errors
    /// [`QueueError::KeyReused`], [`QueueError::KeyInUse`] or [`QueueError::Storage`]; nothing is stored then.
    async fn submit(&self, job: Job) -> Result<Record, QueueError>;

    /// The job that was submitted under a key, if the key still counts.
    ///
    /// # Errors
    /// [`QueueError::KeyReused`], [`QueueError::KeyInUse`] or [`QueueError::Storage`].
    async fn submitted(&self, key: &Idempotency) -> Result<Option<Record>, QueueError>;

    /// Waits for the next job and claims it. Dropping the future claims nothing.
    ///
    /// # Errors
    /// [`QueueError::Storage`]; the job stays in the queue then.
    async fn claim(&self, pod: &PodName) -> Result<Claim, QueueError>;

    /// Comes back once it is sure that the claim still counts, which it must be before an agent starts: whoever claims may have slept, or
    /// the store have lost the claim, since then. Waits while that cannot be said.
    ///
    /// # Errors
    /// [`QueueError::LostClaim`].
    async fn confirm(&self, lease: &Lease) -> Result<(), QueueError>;

    /// Stores what is known of a run, so that a later attempt can go on from it.
    ///
    /// # Errors
    /// [`QueueError::LostClaim`] or [`QueueError::Storage`].
    async fn update(&self, lease: &Lease, run: &Run) -> Result<(), QueueError>;

    /// Adds events to the job's stream and returns the number of the last one.
    ///
    /// # Errors
    /// [`QueueError::LostClaim`] or [`QueueError::Storage`]; none of them is stored then.
    async fn append(&self, lease: &Lease, events: Vec<EventBody>) -> Result<u64, QueueError>;

    /// Ends the job: the last events of its run, the record, then the `end` event.
    ///
    /// # Errors
    /// [`QueueError::LostClaim`] or [`QueueError::Storage`]; the job is still running then.
    async fn finish(
        &self,
        lease: &Lease,
        run: &Run,
        outcome: Outcome,
        last: Vec<EventBody>,
    ) -> Result<Record, QueueError>;

    /// Puts the job back at the front of the queue, after the last events of its run; one that was cancelled meanwhile ends instead.
    ///
    /// # Errors
    /// [`QueueError::LostClaim`] or [`QueueError::Storage`]; the job is still running then.
    async fn requeue(
        &self,
        lease: &Lease,
        run: &Run,
        why: Requeue,
        last: Vec<EventBody>,
    ) -> Result<Record, QueueError>;

    /// Cancels a job: one that waits ends at once, one that runs is asked to stop, one that is over stays as it is.
    ///
    /// # Errors
    /// [`QueueError::NotFound`] or [`QueueError::Storage`].
    async fn cancel(&self, id: JobId) -> Result<Record, QueueError>;

    /// The record of a job.
    ///
    /// # Errors
    /// [`QueueError::NotFound`] or [`QueueError::Storage`].
    async fn get(&self, id: JobId) -> Result<Record, QueueError>;

    /// The jobs whose id begins with `prefix` (of the hyphenated form), at most `limit`, the newest first.
    ///
    /// # Errors
    /// [`QueueError::Storage`].
    async fn find(&self, prefix: &str, limit: usize) -> Result<Vec<JobId>, QueueError>;

    /// A page of jobs, the newest first. Takes a time that does not grow with the number of jobs stored, unless the filter is rare.
    ///
    /// # Errors
    /// [`QueueError::Storage`].
    async fn list(&self, filter: &Filter) -> Result<Page, QueueError>;

    /// The events after `cursor`, at most about 256 KiB of them, and the cursor after the last; empty: there are none yet.
    ///
    /// # Errors
    /// [`QueueError::NotFound`] or [`QueueError::Storage`].
    async fn events(&self, id: JobId, cursor: Cursor) -> Result<(Vec<Event>, Cursor), QueueError>;

    /// Follows the number of the job's last event. Subscribe first, then read: what is missed by neither is complete.
    ///
    /// # Errors
    /// [`QueueError::NotFound`] or [`QueueError::Storage`].
    async fn watch(&self, id: JobId) -> Result<watch::Receiver<u64>, QueueError>;

    /// Everything that changes from now on, in any job. A receiver that is too slow is told that it missed something.
    fn changes(&self) -> broadcast::Receiver<Changed>;

    /// The changes after the place `at`, at most about a thousand; none: the place is not known any more.
    ///
    /// # Errors
    /// [`QueueError::Storage`] or [`QueueError::Redis`].
    async fn changes_after(&self, at: &str) -> Result<Option<Vec<Changed>>, QueueError>;

    /// How many jobs wait and run; while the store does not answer, the last that it said.
    async fn depth(&self) -> Depth;

    /// Whether the store answered when it was asked last.
    fn answers(&self) -> bool {
        true
    }

    /// What is wrong with the store, as far as it is known without asking it; none: nothing.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// Ends jobs that waited too long and forgets jobs whose time is over; returns the forgotten.
    ///
    /// # Errors
    /// [`QueueError::Storage`].
    async fn sweep(&self, now: Timestamp) -> Result<Vec<Record>, QueueError>;
}

/// A claimed job and the lease on it.
#[derive(Debug)]
pub struct Claim {
    /// The job, running, with the attempt counted.
    pub job: Job,
    /// The right to write.
    pub lease: Lease,
}

/// The right to write to a running job, and what its holder must listen to.
#[derive(Debug, Clone)]
pub struct Lease {
    /// The job.
    pub id: JobId,
    /// The claim's fence.
    pub fence: Fence,
    /// Cancelled when somebody cancels the job.
    pub cancelled: CancellationToken,
    /// Cancelled when the lease is lost: the holder must kill its agent and write nothing more.
    pub lost: CancellationToken,
}

/// Which jobs to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// How many at most.
    pub limit: usize,
    /// Only these statuses; empty: all.
    pub statuses: Vec<Status>,
    /// Only this profile.
    pub profile: Option<String>,
    /// Only this repository, as the record shows it.
    pub repo: Option<String>,
    /// Only this pod.
    pub pod: Option<String>,
    /// Only jobs whose agent had this session.
    pub session: Option<SessionId>,
    /// Only jobs accepted at or after this time.
    pub since: Option<Timestamp>,
    /// Only jobs whose task holds this text.
    pub text: Option<String>,
    /// The page after this one: the last job of the page before.
    pub after: Option<JobId>,
}

/// A page of jobs.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The records, the newest first.
    pub jobs: Vec<Record>,
    /// Set when there may be more: the value of [`Filter::after`] for the next page.
    pub next: Option<JobId>,
}

/// How full the queue is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    /// Jobs that wait.
    pub queued: usize,
    /// Jobs that run.
    pub running: usize,
    /// When the job that waits longest joined the queue.
    pub oldest: Option<Timestamp>,
}

/// A place in a job's stream of events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The number of the last event before it.
    pub seq: u64,
    /// A hint for the store; 0 is always right.
    pub hint: u64,
}

impl Cursor {
    /// The place after event number `seq`.
    #[must_use]
    pub fn after(seq: u64) -> Self {
        Self { seq, hint: 0 }
    }
}

/// Why the queue could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// There is no such job.
    #[error("no job {0}: it never existed or its time to live is over")]
    NotFound(JobId),
    /// The fence is not that of the job's claim.
    #[error("the claim on job {0} is lost: another run of it has begun or it is over")]
    LostClaim(JobId),
    /// The submission's key was used for another request.
    #[error(
        "this Idempotency-Key was used for another request, which became job {0}: send the same body again, or use a new key"
    )]
    KeyReused(JobId),
    /// A submission with the same key is under way.
    #[error(
        "a submission with this Idempotency-Key is under way: wait for its answer, or send it again in a moment"
    )]
    KeyInUse,
    /// The job's state does not allow it.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
    /// The store failed.
    #[error("cannot {doing} {path}: {source}{}", hint(source))]
    Storage {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// Redis did not do its part.
    #[error("cannot {doing}: Redis at {address} says: {detail}")]
    Redis {
        /// What was tried.
        doing: &'static str,
        /// Which Redis, without secrets.
        address: String,
        /// What went wrong.
        detail: String,
    },
    /// A stored record cannot be read.
    #[error("the record {path} is damaged: {problem}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

impl QueueError {
    /// Whether the disk is full or over quota.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Storage { source, .. } if full(source))
    }

    /// Whether trying again can help.
    #[must_use]
    pub fn is_storage(&self) -> bool {
        matches!(self, Self::Storage { .. } | Self::Redis { .. })
    }
}

fn full(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

fn hint(e: &io::Error) -> &'static str {
    if full(e) {
        " (the disk is full: free space there, or set AGENTICORE_JOBS_DIR to another disk)"
    } else if matches!(
        e.kind(),
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied
    ) {
        " (this user may not write there: make it writable, or set AGENTICORE_JOBS_DIR to another place)"
    } else {
        ""
    }
}

/// A poisoned lock only says that a thread panicked; every operation leaves the data whole before it can.
pub(crate) fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn status_event(job: &Job, reason: Option<&str>) -> EventBody {
    let status = Status::from(&job.state);
    EventBody::Status {
        status,
        attempt: job.attempt,
        pod: job
            .run
            .pod
            .as_ref()
            .filter(|_| status == Status::Running)
            .map(ToString::to_string),
        reason: reason.map(str::to_owned),
    }
}

fn end_event(record: &Record) -> EventBody {
    EventBody::End {
        status: record.status,
        exit_code: record.exit_code,
        failure: record.failure.clone(),
        attempt: record.attempt,
        cost_usd: record.cost_usd,
        pr_url: record.pr_url.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_cannot_be_written_comes_with_its_setting() {
        for (kind, says) in [
            (io::ErrorKind::ReadOnlyFilesystem, "may not write there"),
            (io::ErrorKind::PermissionDenied, "may not write there"),
            (io::ErrorKind::StorageFull, "the disk is full"),
        ] {
            let error = QueueError::Storage {
                doing: "write",
                path: "/x".into(),
                source: kind.into(),
            };
            let text = error.to_string();
            assert!(
                text.contains(says) && text.contains("AGENTICORE_JOBS_DIR"),
                "{text}"
            );
        }
    }
}
