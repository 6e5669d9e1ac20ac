//! Keeping the pod's lease, and looking after those of others.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::facts::{PodFacts, PodInfo};
use super::scripts::{self, Beat};
use super::witness::{Counter, Witness};
use super::{Inner, advice, claims, rebuild, reclaim, spool_dir, submit, writes};
use crate::job::JobId;
use crate::queue::{QueueError, guard};

/// How often a lease is renewed within its length.
pub(super) const RENEWALS: u32 = 4;
/// After how many renewals the spool of submissions is looked at anyway.
const LOOK_EVERY: u64 = 8;
/// How long the mark of a drain outlives the pod that set it.
const DRAIN_MARK_SECONDS: u64 = 600;

/// Keeps the pod's lease, and looks after what follows from each renewal. The two are tasks of their own: a renewal waits for nothing but
/// Redis, however much there is to put back or to tell.
pub(super) struct Keeper {
    renewals: Renewals,
    chores: Chores,
}

/// What a renewal came to.
#[derive(Clone)]
enum News {
    Renewed(Fleet),
    /// The store was emptied.
    Emptied,
    /// Redis did not answer.
    Down,
}

/// The fleet as Redis told of it with a renewal.
#[derive(Clone)]
struct Fleet {
    epoch: String,
    /// How many jobs are on this pod's list.
    claimed: usize,
    /// The lives whose lease is over.
    expired: Vec<String>,
    /// What each life says of itself, JSON.
    facts: HashMap<String, String>,
}

impl Keeper {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self {
            renewals: Renewals::new(inner.clone()),
            chores: Chores::new(inner),
        }
    }

    /// One renewal and all that follows from it.
    pub(super) async fn beat(&mut self) {
        while self.chores.run(self.renewals.renew().await).await {}
    }

    /// Two tasks without end: one renews, the other does what follows.
    pub(super) fn split(self) -> (impl Future<Output = ()>, impl Future<Output = ()>) {
        let (tell, hear) = watch::channel(News::Down);
        (self.renewals.run(tell), self.chores.follow(hear))
    }
}

/// Renews the pod's lease, again and again.
struct Renewals {
    inner: Arc<Inner>,
    beacon: Beacon,
    /// When Redis renewed the lease last.
    renewed: Option<Instant>,
}

impl Renewals {
    fn new(inner: Arc<Inner>) -> Self {
        Self {
            beacon: Beacon::new(&inner),
            inner,
            renewed: None,
        }
    }

    async fn run(mut self, tell: watch::Sender<News>) {
        let mut tick = tokio::time::interval(self.inner.settings.lease / RENEWALS);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tick.tick().await;
        let inner = self.inner.clone();
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = inner.renew.notified() => {}
            }
            if inner.left.load(Ordering::Relaxed) {
                return;
            }
            tell.send_replace(self.renew().await);
        }
    }

    async fn renew(&mut self) -> News {
        self.count().await;
        let began = Instant::now();
        match self.say().await {
            Ok(Beat::Alive {
                epoch,
                claimed,
                expired,
                facts,
                ..
            }) => {
                self.inner.settle_doubt();
                self.renewed = Some(began);
                self.beacon.renewed = self.renewed;
                self.beacon.silence = Duration::ZERO;
                learn(&self.inner, &expired, &facts);
                News::Renewed(Fleet {
                    epoch,
                    claimed,
                    expired,
                    facts,
                })
            }
            Ok(Beat::Emptied) => News::Emptied,
            Err(_) => {
                self.judge_itself().await;
                News::Down
            }
        }
    }

    /// Says that the pod lives. While Redis lets it wait the volume hears of it all the same.
    async fn say(&mut self) -> Result<Beat, QueueError> {
        let inner = self.inner.clone();
        let mut saying = std::pin::pin!(say(&inner));
        loop {
            tokio::select! {
                said = &mut saying => return said,
                () = tokio::time::sleep(inner.settings.lease / RENEWALS) => self.count().await,
            }
        }
    }

    async fn count(&mut self) {
        self.inner.beat();
        if self.inner.settings.shared {
            self.beacon.beat().await;
        }
    }

    /// Without Redis and without a witness others may run this pod's jobs by now, also where the witness was silent for a while only.
    async fn judge_itself(&mut self) {
        if !self.inner.settings.shared {
            return;
        }
        self.beacon
            .settle(self.inner.settings.lease / RENEWALS)
            .await;
        let most = self.inner.patience();
        let is_over = |at: Option<Instant>| at.is_none_or(|at| at.elapsed() >= most);
        let was_silent = self.beacon.silence >= most || is_over(self.beacon.witnessed);
        if was_silent && is_over(self.renewed) {
            self.inner
                .lose_all("neither Redis nor the volume could be told that it lives");
        }
    }
}

/// Shows on the volume that the pod lives, and does not wait for a volume that hangs.
struct Beacon {
    counter: Arc<Mutex<Counter>>,
    /// A count that is on its way, and when it was there.
    writing: Option<JoinHandle<std::io::Result<Instant>>>,
    /// When the volume was written last.
    witnessed: Option<Instant>,
    /// When Redis renewed the lease last: until then nobody had to look at the volume.
    renewed: Option<Instant>,
    /// The longest time that the volume heard nothing since then.
    silence: Duration,
}

impl Beacon {
    fn new(inner: &Inner) -> Self {
        let counter = Counter::new(inner.mirror.dir(), &inner.life);
        Self {
            counter: Arc::new(Mutex::new(counter)),
            writing: None,
            witnessed: None,
            renewed: None,
            silence: Duration::ZERO,
        }
    }

    /// Counts on, unless the last count is on its way still.
    async fn beat(&mut self) {
        self.settle(Duration::ZERO).await;
        if self.writing.is_none() {
            let counter = self.counter.clone();
            self.writing = Some(tokio::task::spawn_blocking(move || {
                guard(&counter).beat()?;
                Ok(Instant::now())
            }));
        }
    }

    /// Waits for a count that is on its way, and no longer than this.
    async fn settle(&mut self, within: Duration) {
        let Some(writing) = &mut self.writing else {
            return;
        };
        let Ok(written) = tokio::time::timeout(within, writing).await else {
            return;
        };
        self.writing = None;
        match written.unwrap_or_else(|error| Err(error.into())) {
            Ok(at) => {
                if let Some(before) = self.witnessed.replace(at).max(self.renewed) {
                    self.silence = self.silence.max(at.saturating_duration_since(before));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "this pod cannot show on the volume that it lives")
            }
        }
    }
}

/// Notes what Redis says of the pods.
fn learn(inner: &Inner, expired: &[String], facts: &HashMap<String, String>) {
    let pods = facts
        .iter()
        .filter_map(|(life, json)| {
            Some(PodInfo {
                life: life.clone(),
                facts: serde_json::from_str(json).ok()?,
                expired: expired.contains(life),
            })
        })
        .collect();
    *guard(&inner.pods) = pods;
}

/// What is to be done after a renewal: for the store, for what this pod kept, and for the jobs of dead pods.
struct Chores {
    inner: Arc<Inner>,
    witness: Witness,
    /// What was on the list of claimed jobs at the last look, and was not run.
    unheld: HashSet<JobId>,
    /// When that was.
    looked: Instant,
    was_down: bool,
    /// Which connection led to a server whose jobs were compared with the volume; none before the pod has started, which that would delay.
    compared: Option<u64>,
    beats: u64,
}

impl Chores {
    fn new(inner: Arc<Inner>) -> Self {
        Self {
            witness: Witness::new(inner.mirror.dir()),
            inner,
            unheld: HashSet::new(),
            looked: Instant::now(),
            was_down: true,
            compared: None,
            beats: 0,
        }
    }

    async fn follow(mut self, mut hear: watch::Receiver<News>) {
        self.compared = Some(0);
        while hear.changed().await.is_ok() {
            let news = hear.borrow_and_update().clone();
            if self.run(news).await {
                self.inner.renew.notify_one();
            }
        }
    }

    /// Does what follows from a renewal; true: the lease is to be renewed at once.
    async fn run(&mut self, news: News) -> bool {
        match news {
            News::Renewed(fleet) => {
                self.look_after(fleet).await;
                false
            }
            News::Emptied => {
                self.was_down = true;
                rebuild::run(&self.inner).await
            }
            News::Down => {
                self.was_down = true;
                false
            }
        }
    }

    async fn look_after(&mut self, fleet: Fleet) {
        let Fleet {
            epoch,
            claimed,
            expired,
            facts,
        } = fleet;
        if self.inner.reborn.swap(false, Ordering::Relaxed) {
            // What was on the list before the pod slept says nothing of what is there now.
            self.unheld.clear();
        }
        self.look(&expired, &facts).await;
        rebuild::check(&self.inner, &epoch).await;
        let connections = self.inner.link.connections();
        if self
            .compared
            .is_some_and(|compared| compared != connections)
            && rebuild::check_server(&self.inner).await
        {
            self.compared = Some(connections);
        }
        if std::mem::take(&mut self.was_down) {
            advice::advise(&self.inner).await;
            self.inner.spooled.store(true, Ordering::Relaxed);
        }
        self.beats += 1;
        // Another pod may have accepted jobs and died.
        if self.inner.spooled.swap(false, Ordering::Relaxed)
            || self.beats.is_multiple_of(LOOK_EVERY)
        {
            submit::tell(&self.inner).await;
        }
        writes::tell_spooled(&self.inner).await;
        self.tidy(claimed).await;
        self.bury_the_dead(expired, &facts).await;
    }

    /// Looks at the counters of all others.
    async fn look(&mut self, expired: &[String], facts: &HashMap<String, String>) {
        let own = &self.inner.life;
        let others = facts.keys().chain(expired).filter(|life| *life != own);
        let others: Vec<String> = others.cloned().collect();
        self.witnessing(move |witness| witness.look(others)).await;
    }

    /// Lets the witness work on a thread that may wait for the volume.
    async fn witnessing<T: Default + Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Witness) -> T + Send + 'static,
    ) -> T {
        let mut witness = std::mem::take(&mut self.witness);
        let worked = self.inner.blocking(move |_| {
            let done = work(&mut witness);
            (witness, done)
        });
        match worked.await {
            Ok((witness, done)) => {
                self.witness = witness;
                done
            }
            Err(error) => {
                tracing::error!(%error, "the counters of the other pods could not be read");
                self.witness = Witness::new(self.inner.mirror.dir());
                T::default()
            }
        }
    }

    /// A job that stays on the list from one renewal to the next without being run was lost on its way.
    async fn tidy(&mut self, claimed: usize) {
        if claimed <= self.inner.held.len() {
            self.unheld.clear();
            return;
        }
        // After long work the next news may be there already: a claim on its way needs its time.
        if self.looked.elapsed() < self.inner.settings.lease / (2 * RENEWALS) {
            return;
        }
        if let Ok(now) = claims::unheld(&self.inner).await {
            self.looked = Instant::now();
            let before = std::mem::replace(&mut self.unheld, now);
            let stayed: Vec<JobId> = self.unheld.intersection(&before).copied().collect();
            claims::give_back_all(&self.inner, stayed).await;
        }
    }

    async fn bury_the_dead(&mut self, expired: Vec<String>, facts: &HashMap<String, String>) {
        for life in expired {
            if life == self.inner.life || self.is_alive(&life).await {
                continue;
            }
            let ordinal = facts
                .get(&life)
                .and_then(|json| serde_json::from_str::<PodFacts>(json).ok())
                .and_then(|facts| facts.ordinal);
            match reclaim::life(&self.inner, &life, ordinal).await {
                Ok(()) => {
                    let spool = spool_dir(self.inner.mirror.dir(), &life);
                    self.witnessing(move |witness| {
                        witness.forget(&life);
                        drop(std::fs::remove_dir(spool));
                    })
                    .await;
                }
                Err(error) => {
                    tracing::warn!(life, %error, "the jobs of a dead pod could not be taken back; they will be");
                }
            }
        }
    }

    /// Whether the volume says that a life goes on. Looked at now: the last look at all may be long ago.
    async fn is_alive(&mut self, life: &str) -> bool {
        let (life, lease) = (life.to_owned(), self.inner.settings.lease);
        self.witnessing(move |witness| {
            witness.look_at(&life);
            witness.is_alive(&life, lease)
        })
        .await
    }
}

/// Decides that a life's lease is over, which it is told with its next renewal; false: it was renewed meanwhile.
pub(super) async fn condemn(inner: &Inner, life: &str) -> Result<bool, QueueError> {
    let condemned: u8 = inner
        .link
        .call("take back the jobs of a pod", async |c| {
            scripts::CONDEMN
                .key(inner.keys.pods())
                .arg(life)
                .invoke_async(c)
                .await
        })
        .await?;
    Ok(condemned == 1)
}

/// Ends this pod's lease, for the others to bury: a job that Redis moves to its list in the moment it goes is found by them.
pub(super) async fn leave(inner: &Inner) {
    // What it still runs is its own until it is gone.
    if inner.held.len() > 0 {
        return;
    }
    inner.left.store(true, Ordering::Relaxed);
    let counter = Counter::new(inner.mirror.dir(), &inner.life);
    drop(inner.blocking(move |_| counter.remove()).await);
    let left: Result<u8, _> = inner
        .link
        .call("leave the fleet", async |c| {
            redis::cmd("ZADD")
                .arg(inner.keys.pods())
                .arg("XX")
                .arg(1)
                .arg(&inner.life)
                .query_async(c)
                .await
        })
        .await;
    if let Err(error) = left {
        tracing::debug!(%error, "the fleet hears that this pod left when its lease is over");
    }
}

/// Forgets a life that has no jobs and whose lease is over.
pub(super) async fn bury(inner: &Inner, life: &str) {
    let buried: Result<u8, _> = inner
        .link
        .call("forget a pod", async |c| {
            scripts::BURY
                .key(inner.keys.pods())
                .key(inner.keys.facts())
                .key(inner.keys.claimed(life))
                .key(inner.keys.busy())
                .key(inner.keys.floor())
                .arg(life)
                .invoke_async(c)
                .await
        })
        .await;
    if let Err(error) = buried {
        tracing::debug!(life, %error, "a pod is not forgotten yet");
    }
}

/// Says what there is to say of this pod, which renews its lease.
pub(super) async fn say(inner: &Inner) -> Result<Beat, QueueError> {
    let draining = *guard(&inner.draining);
    let facts = PodFacts {
        pod: inner.settings.pod.to_string(),
        ordinal: inner.ordinal,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        slots: inner.settings.slots,
        running: inner.held.len(),
        draining,
        started_at: inner.started_at,
        seen_at: Timestamp::now(),
    };
    let json = serde_json::to_string(&facts).unwrap_or_default();
    let lease = u64::try_from(inner.settings.lease.as_millis()).unwrap_or(u64::MAX);
    let said = inner.link.call("renew the lease", async |c| {
        scripts::BEAT
            .key(inner.keys.schema())
            .key(inner.keys.pods())
            .key(inner.keys.facts())
            .key(inner.keys.draining(&facts.pod))
            .key(inner.keys.claimed(&inner.life))
            .arg(&inner.life)
            .arg(lease)
            .arg(&json)
            .arg(if draining { "1" } else { "" })
            .arg(DRAIN_MARK_SECONDS)
            .invoke_async(c)
            .await
            .and_then(Beat::parse)
    });
    let said = match tokio::time::timeout(inner.settings.lease / 2, said).await {
        Ok(said) => said?,
        Err(_) => {
            return Err(inner.cannot(
                "renew the lease",
                format!("no answer within {:?}", inner.settings.lease / 2),
            ));
        }
    };
    if let Beat::Alive { is_new, .. } = said
        && inner.had_lease.swap(true, Ordering::Relaxed)
        && is_new
    {
        // Whoever hears it must act on it: it is said once.
        inner.lose_all("its lease was over, and its jobs are another pod's now");
        inner.reborn.store(true, Ordering::Relaxed);
    }
    Ok(said)
}
