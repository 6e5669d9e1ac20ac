//! Renewing the pod's lease.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::sync::watch;

use super::beacon::Beacon;
use super::{Fleet, News, RENEWALS, say};
use crate::queue::redis::Inner;
use crate::queue::redis::facts::PodInfo;
use crate::queue::redis::scripts::Beat;
use crate::queue::{QueueError, guard};

/// Renews the pod's lease, again and again.
pub(super) struct Renewals {
    inner: Arc<Inner>,
    beacon: Beacon,
}

impl Renewals {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self {
            beacon: Beacon::new(&inner),
            inner,
        }
    }

    pub(super) async fn run(mut self, tell: watch::Sender<News>) {
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

    pub(super) async fn renew(&mut self) -> News {
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
                self.beacon.renewed(began);
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
        if self.beacon.is_doubtful(self.inner.patience()) {
            self.inner
                .lose_all("neither Redis nor the volume could be told that it lives");
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
