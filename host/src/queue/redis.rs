//! The store of a fleet: many pods, one Redis, nothing lost.
//!
//! - **Claim and lease.** A claim moves the job from the queue to the list of the pod's *life* and writes it down with a fence: the
//!   number of the attempt and the life, since a store that was emptied may know nothing of an attempt that began. One renewal
//!   (`scripts/beat.lua`) keeps the lease on all jobs of a life. Every change of a run names its fence; one with another fence is refused
//!   and its holder kills its agent. No agent starts before the store has taken one (`writes::confirm`).
//! - **Reclaim.** Any pod that sees a life whose lease is over puts its jobs back to the front of the queue, unless the life's
//!   `witness` on the shared volume says that it only lost Redis.
//! - **Redis gone.** Runs go on: what they tell is spooled (`held`) and told when Redis is back, submissions are accepted into a spool,
//!   and reads come from the `mirror` on the volume.
//! - **Redis emptied.** Where the schema key is missing no job comes in and none is taken until `rebuild` has put back what the volume
//!   and the pods know.
//! - **Changes.** All pods follow one stream of changes (`hub`): watchers wake, and a cancel reaches the pod that runs the job.

mod advice;
mod behind;
mod change;
mod claims;
mod clone_lock;
mod copy;
mod facts;
mod follow;
mod fsck;
mod held;
mod hub;
mod keys;
mod lease;
mod link;
mod mirror;
mod reads;
mod rebuild;
mod reclaim;
mod scripts;
mod submit;
mod sweep;
mod untold;
mod visits;
mod witness;
mod writes;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::change::Change;
use self::held::HeldJobs;
use self::hub::Hub;
use self::link::Link;
use self::mirror::Mirror;
use self::visits::Visits;
use super::{Changed, Claim, Cursor, Depth, Filter, Lease, Page, Queue, QueueError, guard};
use crate::config::Config;
use crate::job::{
    Event, EventBody, Idempotency, Job, JobId, Outcome, PodName, Record, Requeue, Run, Transition,
};

pub use self::clone_lock::RedisLock;
pub use self::facts::{PodFacts, PodInfo, ordinal};
pub use self::fsck::{Finding, Inspector, Kind as FindingKind};
pub use self::keys::{KeyInfo, Keys, SCHEMA};
pub use self::link::Address;

/// How a pod takes part in a fleet.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where Redis is.
    pub address: Address,
    /// The prefix of every key.
    pub prefix: String,
    /// Where records and events are copied to.
    pub jobs_dir: PathBuf,
    /// Whether all pods see that directory.
    pub shared: bool,
    /// The pod.
    pub pod: PodName,
    /// How many jobs it can run at once.
    pub slots: usize,
    /// How long a pod that does not answer keeps its jobs.
    pub lease: Duration,
}

impl Settings {
    /// The fleet that a pod's settings name; none: the embedded store.
    #[must_use]
    pub fn of(config: &Config) -> Option<Self> {
        Some(Self {
            address: config.redis.clone()?,
            prefix: config.redis_prefix.clone(),
            jobs_dir: config.jobs_dir.clone(),
            shared: config.shared_root.is_some(),
            pod: config.pod_name.clone(),
            slots: config.max_parallel_jobs,
            lease: config.lease,
        })
    }
}

/// The store. Clones are handles to the same one; the last one that goes ends its tasks.
#[derive(Clone)]
pub struct RedisStore {
    inner: Arc<Inner>,
    _tasks: Arc<Tasks>,
}

/// What the store's tasks share.
struct Inner {
    settings: Settings,
    keys: Keys,
    link: Link,
    mirror: Mirror,
    visits: Visits,
    hub: Hub,
    held: HeldJobs,
    /// Jobs whose claim is on its way: they are on the pod's list and it does not run them yet. Each with what tells its run of a cancel.
    claiming: Mutex<HashMap<JobId, CancellationToken>>,
    /// Tells this process's claims from those of earlier ones of the pod.
    life: String,
    ordinal: Option<u32>,
    /// Asks for a claim.
    fetch: mpsc::UnboundedSender<oneshot::Sender<Claim>>,
    started_at: Timestamp,
    draining: Mutex<bool>,
    /// Whether accepted jobs may wait on the volume for Redis.
    spooled: AtomicBool,
    /// How often this pod compared what the volume has with Redis.
    scans: AtomicU64,
    /// Whether the store was written by a newer version, whose jobs this one must not take.
    outdated: AtomicBool,
    /// What is known of the other pods.
    pods: Mutex<Vec<PodInfo>>,
    /// What was counted last, for when Redis is gone.
    depth: Mutex<Depth>,
    /// The epoch of the store that this pod has checked its copies against.
    epoch: Mutex<Option<String>>,
    pulse: Mutex<Pulse>,
    /// Asks for a renewal of the lease at once.
    renew: Notify,
    /// Whether Redis ever had a lease of this life.
    had_lease: AtomicBool,
    /// Whether the pod left the fleet.
    left: AtomicBool,
    /// Whether the pod lost all of its jobs since this was looked at last.
    reborn: AtomicBool,
}

/// Whether the pod kept its lease as a pod that is awake does.
#[derive(Debug)]
struct Pulse {
    /// When it last set out to renew it.
    at: Instant,
    /// It slept for about as long as its lease lasts, and was not told since whether its jobs are still its own.
    doubt: bool,
}

/// Those who ask for claims.
type Requests = mpsc::UnboundedReceiver<oneshot::Sender<Claim>>;

/// The tasks of a store; they end with it.
struct Tasks(CancellationToken);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl RedisStore {
    /// Starts to take part in the fleet. Redis need not be there yet.
    ///
    /// # Errors
    /// [`QueueError::Storage`] when the jobs directory cannot be used, [`QueueError::Redis`] when the address makes no sense.
    pub async fn open(settings: Settings) -> Result<Self, QueueError> {
        let (inner, requests) = Self::inner(settings)?;
        let end = CancellationToken::new();
        // The first renewal, so that a store with a Redis works as soon as it is there.
        let mut keeper = lease::Keeper::new(inner.clone());
        keeper.beat().await;
        let (renewals, chores) = keeper.split();
        spawn(&end, renewals);
        spawn(&end, chores);
        spawn(&end, claims::fetch(inner.clone(), requests));
        spawn(&end, follow::run(inner.clone()));
        Ok(Self {
            inner,
            _tasks: Arc::new(Tasks(end)),
        })
    }

    /// What a store is made of, without any task that takes part in the fleet.
    fn inner(settings: Settings) -> Result<(Arc<Inner>, Requests), QueueError> {
        let link = Link::new(&settings.address).map_err(|detail| QueueError::Redis {
            doing: "use REDIS_URL",
            address: settings.address.shown(),
            detail,
        })?;
        let mirror = Mirror::new(&settings.jobs_dir);
        mirror.prepare()?;
        let (fetch, requests) = mpsc::unbounded_channel();
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let inner = Arc::new(Inner {
            keys: Keys::new(&settings.prefix),
            life: format!("{}.{}", settings.pod, unique.get(..8).unwrap_or_default()),
            ordinal: facts::ordinal(settings.pod.as_str()),
            link,
            mirror,
            visits: Visits::default(),
            hub: Hub::default(),
            held: HeldJobs::default(),
            claiming: Mutex::default(),
            fetch,
            started_at: Timestamp::now(),
            draining: Mutex::new(false),
            spooled: AtomicBool::new(true),
            scans: AtomicU64::new(0),
            outdated: AtomicBool::new(false),
            pods: Mutex::default(),
            depth: Mutex::default(),
            epoch: Mutex::default(),
            pulse: Mutex::new(Pulse {
                at: Instant::now(),
                doubt: false,
            }),
            renew: Notify::new(),
            had_lease: AtomicBool::new(false),
            left: AtomicBool::new(false),
            reborn: AtomicBool::new(false),
            settings,
        });
        Ok((inner, requests))
    }

    /// Puts into Redis what the jobs directory has and Redis does not, without taking part in the fleet.
    ///
    /// # Errors
    /// [`QueueError`] when Redis or the directory cannot be used.
    pub async fn put_back(settings: Settings) -> Result<(), QueueError> {
        let (inner, _) = Self::inner(settings)?;
        rebuild::put_back_now(&inner).await
    }

    /// The names of the keys.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.inner.keys
    }

    /// The locks on clones, kept in the same Redis.
    #[must_use]
    pub fn clone_lock(&self) -> RedisLock {
        RedisLock::new(
            self.inner.link.clone(),
            self.inner.keys.clone(),
            &self.inner.life,
            self.inner.settings.lease,
        )
    }

    /// The pods of the fleet, as this one heard of them last.
    #[must_use]
    pub fn pods(&self) -> Vec<PodInfo> {
        guard(&self.inner.pods).clone()
    }

    /// Whether Redis answered last.
    #[must_use]
    pub fn up(&self) -> watch::Receiver<bool> {
        self.inner.link.up()
    }

    /// Tells the fleet whether this pod drains; it hears of it with the next renewal, or at once where `Redis` answers.
    pub async fn set_draining(&self, draining: bool) {
        *guard(&self.inner.draining) = draining;
        if let Err(error) = lease::say(&self.inner).await {
            tracing::debug!(%error, "the fleet hears of the drain later");
        }
    }

    /// Leaves the fleet: a pod that runs nothing more need not be waited for.
    pub async fn leave(&self) {
        claims::tidy(&self.inner).await;
        lease::leave(&self.inner).await;
    }
}

fn spawn(end: &CancellationToken, task: impl Future<Output = ()> + Send + 'static) {
    let end = end.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = end.cancelled() => {}
            () = task => {}
        }
    });
}

#[async_trait]
impl Queue for RedisStore {
    async fn submit(&self, job: Job) -> Result<Record, QueueError> {
        submit::submit(&self.inner, job).await
    }

    async fn submitted(&self, key: &Idempotency) -> Result<Option<Record>, QueueError> {
        submit::submitted(&self.inner, key).await
    }

    async fn claim(&self, _pod: &PodName) -> Result<Claim, QueueError> {
        let claim = claims::Waiting::claim(&self.inner).await;
        claim.ok_or_else(|| self.inner.cannot("claim a job", "the store is closed"))
    }

    async fn confirm(&self, lease: &Lease) -> Result<(), QueueError> {
        writes::confirm(&self.inner, lease).await
    }

    async fn update(&self, lease: &Lease, run: &Run) -> Result<(), QueueError> {
        let change = Change::Run(Box::new(run.clone()));
        writes::by_holder(&self.inner, lease, change)
            .await
            .map(drop)
    }

    async fn append(&self, lease: &Lease, events: Vec<EventBody>) -> Result<u64, QueueError> {
        let change = Change::events(events);
        writes::by_holder(&self.inner, lease, change)
            .await
            .map(|done| done.seq)
    }

    async fn finish(
        &self,
        lease: &Lease,
        run: &Run,
        outcome: Outcome,
        last: Vec<EventBody>,
    ) -> Result<Record, QueueError> {
        let change = Change::finish(lease.fence, run, outcome, last);
        writes::by_holder(&self.inner, lease, change)
            .await
            .map(|done| done.record)
    }

    async fn requeue(
        &self,
        lease: &Lease,
        run: &Run,
        why: Requeue,
        last: Vec<EventBody>,
    ) -> Result<Record, QueueError> {
        let change = Change::requeue(lease.fence, Some(run), why, last);
        writes::by_holder(&self.inner, lease, change)
            .await
            .map(|done| done.record)
    }

    async fn cancel(&self, id: JobId) -> Result<Record, QueueError> {
        let at = Timestamp::now();
        let reason = Some("cancel_requested".to_owned());
        let change = Change::transition(Transition::Cancel { at }, reason);
        let record = writes::by_anybody(&self.inner, id, &change).await?;
        if !record.status.is_ended() {
            self.inner.cancel_here(id);
        }
        Ok(record)
    }

    async fn get(&self, id: JobId) -> Result<Record, QueueError> {
        reads::get(&self.inner, id).await
    }

    async fn find(&self, prefix: &str, limit: usize) -> Result<Vec<JobId>, QueueError> {
        reads::find(&self.inner, prefix, limit).await
    }

    async fn list(&self, filter: &Filter) -> Result<Page, QueueError> {
        reads::list(&self.inner, filter).await
    }

    async fn events(&self, id: JobId, cursor: Cursor) -> Result<(Vec<Event>, Cursor), QueueError> {
        reads::events(&self.inner, id, cursor).await
    }

    async fn watch(&self, id: JobId) -> Result<watch::Receiver<u64>, QueueError> {
        reads::watch(&self.inner, id).await
    }

    fn changes(&self) -> broadcast::Receiver<Changed> {
        self.inner.hub.all()
    }

    async fn changes_after(&self, at: &str) -> Result<Option<Vec<Changed>>, QueueError> {
        follow::changes_after(&self.inner, at).await
    }

    async fn depth(&self) -> Depth {
        reads::depth(&self.inner).await
    }

    fn answers(&self) -> bool {
        *self.inner.link.up().borrow()
    }

    fn trouble(&self) -> Option<String> {
        let why = self.inner.link.trouble()?;
        Some(format!(
            "cannot be used: {why}; submissions are kept until it can"
        ))
    }

    async fn sweep(&self, now: Timestamp) -> Result<Vec<Record>, QueueError> {
        sweep::sweep(&self.inner, now).await
    }
}

impl Inner {
    /// A wish to cancel reaches the job's run, also where its claim is on its way.
    fn cancel_here(&self, id: JobId) {
        // In this order: a claim that is not on its way any more is held.
        let claiming = guard(&self.claiming).get(&id).cloned();
        let held = self.held.any(id).map(|held| held.cancelled.clone());
        for run in claiming.into_iter().chain(held) {
            run.cancel();
        }
    }

    /// What is said when the store cannot be used for a reason that is not an error of the connection.
    fn cannot(&self, doing: &'static str, detail: impl Into<String>) -> QueueError {
        QueueError::Redis {
            doing,
            address: self.settings.address.shown(),
            detail: detail.into(),
        }
    }

    /// What is said while an emptied store is rebuilt.
    fn emptied(&self) -> QueueError {
        self.cannot(
            "use the store",
            "it was emptied; the pods are putting the jobs back",
        )
    }

    /// How long the pod may be silent and its jobs be its own: one renewal less than its lease lasts for others, who may look in the
    /// moment it ends.
    fn patience(&self) -> Duration {
        self.settings.lease - self.settings.lease / lease::RENEWALS
    }

    /// Notes that the pod is awake.
    fn beat(&self) {
        let mut pulse = guard(&self.pulse);
        pulse.doubt |= pulse.at.elapsed() >= self.patience();
        pulse.at = Instant::now();
    }

    /// Notes that the pod knows which jobs are its own.
    fn settle_doubt(&self) {
        guard(&self.pulse).doubt = false;
    }

    /// Whether the pod woke up and its jobs may be another's. Redis refuses then what is not its own any more; nothing but the pod itself
    /// keeps it from the volume.
    fn is_in_doubt(&self) -> bool {
        let pulse = guard(&self.pulse);
        pulse.doubt || pulse.at.elapsed() >= self.patience()
    }

    /// Lets go of every job that the pod runs: their agents are killed, and nothing more is written of them.
    fn lose_all(&self, why: &str) {
        for held in self.held.all() {
            // What a run that is over could not tell Redis is told by whoever puts the job back, or takes it over.
            if held.state.try_lock().is_ok_and(|state| state.over) {
                tracing::debug!(job = %held.id, "this pod lets go of a job whose run is over: {why}");
            } else {
                tracing::error!(job = %held.id, "this pod loses the job: {why}");
            }
            self.held.remove(&held);
        }
    }

    /// Runs work that touches files on a thread that may wait for them.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Mirror) -> T + Send + 'static,
    ) -> Result<T, QueueError> {
        let mirror = self.mirror.clone();
        let made = self.visits.run(move || work(&mirror)).await;
        made.ok_or_else(|| QueueError::Storage {
            doing: "work in",
            path: self.mirror.dir().to_owned(),
            source: std::io::Error::other("the work panicked"),
        })
    }

    /// Where a life keeps what it could not tell of a job.
    fn spool_path(&self, life: &str, id: JobId) -> PathBuf {
        spool_dir(self.mirror.dir(), life).join(format!("{id}.jsonl"))
    }
}

fn spool_dir(jobs_dir: &Path, life: &str) -> PathBuf {
    jobs_dir.join("spool").join(life)
}

#[cfg(test)]
mod tests;
