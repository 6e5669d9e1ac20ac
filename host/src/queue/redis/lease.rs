//! Keeping the pod's lease, and looking after those of others.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::facts::{PodFacts, PodInfo};
use super::scripts::{self, Beat};
use super::witness::Witness;
use super::{Inner, advice, claims, rebuild, reclaim, spool_dir, submit, writes};
use crate::job::JobId;
use crate::queue::{QueueError, guard};

/// How often a lease is renewed within its length.
pub(super) const RENEWALS: u32 = 4;
/// After how many renewals the spool of submissions is looked at anyway.
const LOOK_EVERY: u64 = 8;
/// How long the mark of a drain outlives the pod that set it.
const DRAIN_MARK_SECONDS: u64 = 600;

/// Renews the pod's lease, again and again.
pub(super) struct Keeper {
    inner: Arc<Inner>,
    witness: Witness,
    /// When Redis renewed the lease last.
    renewed: Option<Instant>,
    /// When the volume was written last.
    witnessed: Option<Instant>,
    /// The longest time that the volume heard nothing, since the last renewal that Redis took.
    silence: Duration,
    /// What was on the list of claimed jobs at the last renewal, and was not run.
    unheld: HashSet<JobId>,
    was_down: bool,
    beats: u64,
}

impl Keeper {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self {
            witness: Witness::new(inner.mirror.dir()),
            inner,
            renewed: None,
            witnessed: None,
            silence: Duration::ZERO,
            unheld: HashSet::new(),
            was_down: true,
            beats: 0,
        }
    }

    /// As if the lease had been renewed a moment ago.
    #[cfg(test)]
    pub(super) fn renewed_before(&mut self) {
        self.renewed = Some(Instant::now());
    }

    pub(super) async fn run(mut self) {
        let mut tick = tokio::time::interval(self.inner.settings.lease / RENEWALS);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tick.tick().await;
        loop {
            tick.tick().await;
            self.beat().await;
        }
    }

    /// One renewal and all that follows from it.
    pub(super) async fn beat(&mut self) {
        self.count();
        let began = Instant::now();
        let mut said = self.say().await;
        if let Ok(Beat::Emptied) = said {
            self.was_down = true;
            rebuild::run(&self.inner).await;
            said = self.say().await;
        }
        match said {
            Ok(Beat::Alive {
                is_new,
                epoch,
                claimed,
                expired,
                facts,
                ..
            }) => {
                if is_new && self.renewed.is_some() {
                    self.lose_all("its lease was over, and its jobs are another pod's now");
                    // What was on the list before the pod slept says nothing of what is there now.
                    self.unheld.clear();
                }
                self.inner.settle_doubt();
                self.renewed = Some(began);
                self.silence = Duration::ZERO;
                self.learn(&expired, &facts);
                rebuild::check(&self.inner, &epoch).await;
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
            // Another pod is putting the jobs back.
            Ok(Beat::Emptied) => {}
            Err(_) => {
                self.was_down = true;
                self.judge_itself();
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
                () = tokio::time::sleep(inner.settings.lease / RENEWALS) => self.count(),
            }
        }
    }

    fn count(&mut self) {
        self.inner.beat();
        if !self.inner.settings.shared {
            return;
        }
        if let Some(at) = self.witnessed {
            self.silence = self.silence.max(at.elapsed());
        }
        match self.witness.beat(&self.inner.life) {
            Ok(()) => self.witnessed = Some(Instant::now()),
            Err(error) => {
                tracing::warn!(%error, "this pod cannot show on the volume that it lives")
            }
        }
    }

    /// Without Redis and without a witness others may run this pod's jobs by now, also where the witness was silent for a while only.
    fn judge_itself(&mut self) {
        let most = self.inner.patience();
        let is_over = |at: Option<Instant>| at.is_none_or(|at| at.elapsed() >= most);
        let was_silent = self.silence >= most || is_over(self.witnessed);
        if self.inner.settings.shared && was_silent && is_over(self.renewed) {
            self.lose_all("neither Redis nor the volume could be told that it lives");
        }
    }

    fn lose_all(&self, why: &str) {
        for held in self.inner.held.all() {
            tracing::error!(job = %held.id, "this pod loses the job: {why}");
            self.inner.held.remove(&held);
        }
    }

    fn learn(&mut self, expired: &[String], facts: &HashMap<String, String>) {
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
        *guard(&self.inner.pods) = pods;
        let own = self.inner.life.clone();
        let others = facts
            .keys()
            .chain(expired)
            .filter(|life| **life != own)
            .cloned();
        self.witness.look(others);
    }

    /// A job that stays on the list from one renewal to the next without being run was lost on its way.
    async fn tidy(&mut self, claimed: usize) {
        if claimed <= self.inner.held.len() {
            self.unheld.clear();
            return;
        }
        if let Ok(now) = claims::unheld(&self.inner).await {
            let before = std::mem::replace(&mut self.unheld, now);
            let stayed: Vec<JobId> = self.unheld.intersection(&before).copied().collect();
            claims::give_back_all(&self.inner, stayed).await;
        }
    }

    async fn bury_the_dead(&mut self, expired: Vec<String>, facts: &HashMap<String, String>) {
        let lease = self.inner.settings.lease;
        for life in expired {
            if life == self.inner.life || self.witness.is_alive(&life, lease) {
                continue;
            }
            let ordinal = facts
                .get(&life)
                .and_then(|json| serde_json::from_str::<PodFacts>(json).ok())
                .and_then(|facts| facts.ordinal);
            match reclaim::life(&self.inner, &life, ordinal).await {
                Ok(()) => {
                    self.witness.forget(&life);
                    drop(std::fs::remove_dir(spool_dir(
                        self.inner.mirror.dir(),
                        &life,
                    )));
                }
                Err(error) => {
                    tracing::warn!(life, %error, "the jobs of a dead pod could not be taken back; they will be");
                }
            }
        }
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

/// Forgets a life that has no jobs; one whose lease is not over only where `leaves` says that it goes by itself.
pub(super) async fn bury(inner: &Inner, life: &str, leaves: bool) {
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
                .arg(u8::from(leaves))
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
    match tokio::time::timeout(inner.settings.lease / 2, said).await {
        Ok(said) => said,
        Err(_) => Err(inner.cannot(
            "renew the lease",
            format!("no answer within {:?}", inner.settings.lease / 2),
        )),
    }
}
