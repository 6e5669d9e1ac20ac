//! What is kept in memory: an entry for each job, in the order of their arrival, and the queue.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::event_log::EventLog;
use super::guard;
use crate::job::{Job, JobId, SessionId, State, Status};
use crate::queue::{Depth, Filter};

/// How many entries one look at the index passes at the most.
const STEP: usize = 1_000;

/// A job in memory. The rest of an ended job is in its files alone.
pub(super) struct Entry {
    pub(super) id: JobId,
    created_at: Timestamp,
    summary: Mutex<Summary>,
    /// The number of the last event that is stored; 0: not known yet.
    pub(super) seq: watch::Sender<u64>,
    /// Locked for the whole of an operation on the job.
    pub(super) live: Mutex<Live>,
}

/// What only a job that is not over has.
#[derive(Default)]
pub(super) struct Live {
    pub(super) job: Option<Job>,
    pub(super) log: Option<EventLog>,
    pub(super) holder: Option<Holder>,
}

/// How to reach the run that holds the lease.
pub(super) struct Holder {
    pub(super) cancelled: CancellationToken,
    pub(super) lost: CancellationToken,
}

impl Drop for Holder {
    /// A claim that ends takes its lease along.
    fn drop(&mut self) {
        self.lost.cancel();
    }
}

/// What lists filter by.
struct Summary {
    status: Status,
    profile: String,
    repo: String,
    pod: String,
    session: Option<SessionId>,
    /// When the job is due to be forgotten or to expire; none while it runs.
    due: Option<Timestamp>,
    queued_at: Option<Timestamp>,
}

impl Summary {
    fn of(job: &Job) -> Self {
        let from = match &job.state {
            State::Queued { since } => Some(*since),
            State::Running { .. } => None,
            State::Ended { at, .. } => Some(*at),
        };
        let ttl =
            jiff::SignedDuration::try_from(std::time::Duration::from_secs(job.request.ttl_seconds));
        Self {
            status: Status::from(&job.state),
            profile: job.request.profile.to_string(),
            repo: job
                .request
                .repo_url
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            pod: job
                .run
                .pod
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            session: job.run.session_id.clone(),
            due: from
                .zip(ttl.ok())
                .and_then(|(from, ttl)| from.checked_add(ttl).ok()),
            queued_at: if let State::Queued { since } = &job.state {
                Some(*since)
            } else {
                None
            },
        }
    }

    fn passes(&self, filter: &Filter) -> bool {
        let is = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|w| w == value);
        (filter.statuses.is_empty() || filter.statuses.contains(&self.status))
            && is(&filter.profile, &self.profile)
            && is(&filter.repo, &self.repo)
            && is(&filter.pod, &self.pod)
            && (filter.session.is_none() || filter.session == self.session)
    }
}

impl Entry {
    pub(super) fn new(job: Job) -> Self {
        let summary = Mutex::new(Summary::of(&job));
        let (id, created_at) = (job.id, job.created_at);
        let live = Live {
            job: (!job.state.is_ended()).then_some(job),
            ..Live::default()
        };
        Self {
            id,
            created_at,
            summary,
            seq: watch::Sender::new(0),
            live: Mutex::new(live),
        }
    }

    pub(super) fn summarize(&self, job: &Job) {
        *guard(&self.summary) = Summary::of(job);
    }
}

/// All jobs.
#[derive(Default)]
pub(super) struct Index {
    entries: HashMap<JobId, Arc<Entry>>,
    arrival: BTreeMap<(Timestamp, JobId), Arc<Entry>>,
    pub(super) queue: VecDeque<JobId>,
    /// Records that cannot be read, and why.
    pub(super) damaged: HashMap<JobId, String>,
}

impl Index {
    pub(super) fn insert(&mut self, job: Job) -> Arc<Entry> {
        let entry = Arc::new(Entry::new(job));
        self.add(entry.clone());
        entry
    }

    pub(super) fn add(&mut self, entry: Arc<Entry>) {
        self.arrival
            .insert((entry.created_at, entry.id), entry.clone());
        self.entries.insert(entry.id, entry);
    }

    pub(super) fn get(&self, id: JobId) -> Option<Arc<Entry>> {
        self.entries.get(&id).cloned()
    }

    pub(super) fn remove(&mut self, entry: &Entry) {
        self.arrival.remove(&(entry.created_at, entry.id));
        self.entries.remove(&entry.id);
    }

    pub(super) fn find(&self, prefix: &str, limit: usize) -> Vec<JobId> {
        let prefix = prefix.to_ascii_lowercase();
        self.arrival
            .keys()
            .rev()
            .map(|(_, id)| *id)
            .filter(|id| id.to_string().starts_with(&prefix))
            .take(limit)
            .collect()
    }

    /// The next entries before `after` in arrival that pass the filter, newest first, and where to go on; none: that was all.
    pub(super) fn step(
        &self,
        after: Option<JobId>,
        filter: &Filter,
        limit: usize,
    ) -> (Vec<Arc<Entry>>, Option<JobId>) {
        let bound = match after {
            None => Bound::Unbounded,
            // A page whose last job has been forgotten ends the list.
            Some(id) => match self.entries.get(&id) {
                Some(entry) => Bound::Excluded((entry.created_at, entry.id)),
                None => return (Vec::new(), None),
            },
        };
        let mut found = Vec::new();
        for (looked, entry) in self
            .arrival
            .range((Bound::Unbounded, bound))
            .rev()
            .map(|(_, e)| e)
            .enumerate()
        {
            if filter.since.is_some_and(|since| entry.created_at < since) {
                return (found, None);
            }
            if guard(&entry.summary).passes(filter) {
                found.push(entry.clone());
            }
            if found.len() == limit || looked == STEP {
                return (found, Some(entry.id));
            }
        }
        (found, None)
    }

    pub(super) fn depth(&self) -> Depth {
        let queued_at = |id: &JobId| {
            self.entries
                .get(id)
                .and_then(|e| guard(&e.summary).queued_at)
        };
        Depth {
            queued: self.queue.len(),
            running: self
                .entries
                .values()
                .filter(|e| guard(&e.summary).status == Status::Running)
                .count(),
            oldest: self.queue.iter().filter_map(queued_at).min(),
        }
    }

    pub(super) fn overdue(&self, now: Timestamp) -> Vec<Arc<Entry>> {
        let is_due = |entry: &&Arc<Entry>| guard(&entry.summary).due.is_some_and(|due| due <= now);
        self.entries.values().filter(is_due).cloned().collect()
    }
}
