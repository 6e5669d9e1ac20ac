//! What is kept in memory: an entry for each job, in the order of their arrival, and the queue.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::job::{Idempotency, Job, JobId, SessionId, State, Status};
use crate::queue::event_log::EventLog;
use crate::queue::guard;
use crate::queue::{Depth, Filter, KEY_LIFETIME, QueueError};

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
    /// Whether the last events of the run are stored.
    pub(super) has_told: bool,
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

impl Key {
    fn counts(&self, now: Timestamp) -> bool {
        jiff::SignedDuration::try_from(KEY_LIFETIME)
            .ok()
            .and_then(|lifetime| self.at.checked_add(lifetime).ok())
            .is_some_and(|end| now < end)
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

/// A key that a job was submitted under.
struct Key {
    request: String,
    at: Timestamp,
    /// None while the job is being stored.
    job: Option<JobId>,
}

/// All jobs.
#[derive(Default)]
pub(super) struct Index {
    entries: HashMap<JobId, Arc<Entry>>,
    arrival: BTreeMap<(Timestamp, JobId), Arc<Entry>>,
    pub(super) queue: VecDeque<JobId>,
    /// The jobs that wait, the longest first: those of a hand-off are in front of the queue, but have joined it last.
    waiting: BTreeSet<(Timestamp, JobId)>,
    running: usize,
    keys: HashMap<String, Key>,
    /// Records that cannot be read, and why.
    pub(super) damaged: HashMap<JobId, String>,
}

impl Index {
    /// A job that was stored in an earlier life of the store.
    pub(super) fn insert(&mut self, job: Job, now: Timestamp) -> Arc<Entry> {
        self.moved(job.id, None, Some(&job.state));
        if let Some(given) = job.origin.idempotency.clone() {
            let key = Key {
                request: given.request,
                at: job.created_at,
                job: Some(job.id),
            };
            if key.counts(now) {
                self.keys.insert(given.key, key);
            }
        }
        let entry = Arc::new(Entry::new(job));
        self.add(entry.clone());
        entry
    }

    /// Counts a job that came, moved or went.
    pub(super) fn moved(&mut self, id: JobId, from: Option<&State>, to: Option<&State>) {
        match from {
            Some(State::Queued { since }) => drop(self.waiting.remove(&(*since, id))),
            Some(State::Running { .. }) => self.running = self.running.saturating_sub(1),
            _ => {}
        }
        match to {
            Some(State::Queued { since }) => drop(self.waiting.insert((*since, id))),
            Some(State::Running { .. }) => self.running += 1,
            _ => {}
        }
    }

    /// The job that a key was used for.
    pub(super) fn used_key(
        &self,
        given: &Idempotency,
        now: Timestamp,
    ) -> Result<Option<Arc<Entry>>, QueueError> {
        let used = self.keys.get(&given.key).filter(|key| key.counts(now));
        let Some(used) = used else { return Ok(None) };
        match used.job {
            None => Err(QueueError::KeyInUse),
            // Its time to live was over, and the key's with it.
            Some(job) if !self.entries.contains_key(&job) => Ok(None),
            Some(job) if used.request != given.request => Err(QueueError::KeyReused(job)),
            Some(job) => Ok(self.get(job)),
        }
    }

    /// Takes a key for a job that is about to be stored, unless it was used for another, which is returned.
    pub(super) fn take_key(
        &mut self,
        given: &Idempotency,
        now: Timestamp,
    ) -> Result<Option<Arc<Entry>>, QueueError> {
        let used = self.used_key(given, now)?;
        if used.is_none() {
            let key = Key {
                request: given.request.clone(),
                at: now,
                job: None,
            };
            self.keys.insert(given.key.clone(), key);
        }
        Ok(used)
    }

    /// Ends what [`Index::take_key`] began: the key stands for `job`, or for nothing.
    pub(super) fn settle_key(&mut self, given: &Idempotency, job: Option<JobId>) {
        match (self.keys.get_mut(&given.key), job) {
            (Some(key), Some(_)) => key.job = job,
            (_, None) => drop(self.keys.remove(&given.key)),
            (None, Some(_)) => {}
        }
    }

    /// Forgets keys whose time is over, or whose job is gone.
    pub(super) fn forget_keys(&mut self, now: Timestamp) {
        let entries = &self.entries;
        self.keys.retain(|_, key| {
            key.counts(now) && key.job.is_none_or(|job| entries.contains_key(&job))
        });
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
        Depth {
            queued: self.waiting.len(),
            running: self.running,
            oldest: self.waiting.first().map(|(since, _)| *since),
        }
    }

    pub(super) fn overdue(&self, now: Timestamp) -> Vec<Arc<Entry>> {
        let is_due = |entry: &&Arc<Entry>| guard(&entry.summary).due.is_some_and(|due| due <= now);
        self.entries.values().filter(is_due).cloned().collect()
    }
}
