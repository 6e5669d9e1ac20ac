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
    /// The life that was warned of, because it has the name of this pod.
    namesake: Option<String>,
}

impl Renewals {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self {
            beacon: Beacon::new(&inner),
            inner,
            namesake: None,
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
                self.look_for_namesake();
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

    /// Warns of another pod of this name, once: both work, but nobody can tell which of them is meant. The one that this pod was before it
    /// started anew has no lease any more after a while.
    fn look_for_namesake(&mut self) {
        let inner = &self.inner;
        let age = jiff::Timestamp::now().duration_since(inner.started_at);
        if age.unsigned_abs() < inner.settings.lease * 3 {
            return;
        }
        let found = guard(&inner.pods)
            .iter()
            .find(|pod| is_namesake(pod, inner.settings.pod.as_str(), &inner.life))
            .map(|pod| pod.life.clone());
        if let Some(life) = &found
            && self.namesake.as_ref() != found.as_ref()
        {
            tracing::warn!(
                life,
                pod = %inner.settings.pod,
                "another pod of this fleet has the same name: give each its own AGENTICORE_POD_NAME, else drains and lists mean both"
            );
        }
        self.namesake = found;
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

/// Whether this is another pod under the same name that lives.
fn is_namesake(pod: &PodInfo, name: &str, life: &str) -> bool {
    !pod.expired && pod.facts.pod == name && pod.life != life
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_namesake_is_another_pod_that_lives_under_the_name() {
        let pod = |life: &str, name: &str, expired: bool| -> PodInfo {
            serde_json::from_value(serde_json::json!({
                "life": life, "pod": name, "ordinal": null, "version": "0.1.0", "slots": 3, "running": 0, "draining": false,
                "expired": expired, "started_at": "2026-01-01T00:00:00Z", "seen_at": "2026-01-01T00:00:00Z",
            }))
            .unwrap()
        };
        let is = |pod: &PodInfo| is_namesake(pod, "a", "a.1");
        assert!(is(&pod("a.2", "a", false)));
        assert!(!is(&pod("a.1", "a", false)), "the pod itself");
        assert!(!is(&pod("a.2", "a", true)), "what it was before");
        assert!(!is(&pod("b.1", "b", false)), "another name");
    }
}
