//! Keeping the pod's lease, and looking after those of others.

mod beacon;
mod chores;
mod renewals;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use tokio::sync::watch;

use self::chores::Chores;
use self::renewals::Renewals;
use super::Inner;
use super::facts::PodFacts;
use super::scripts::{self, Beat};
use super::witness::Counter;
use crate::queue::{QueueError, guard};

/// How often a lease is renewed within its length.
pub(super) const RENEWALS: u32 = 4;
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
