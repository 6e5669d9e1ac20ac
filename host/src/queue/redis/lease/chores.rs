//! What follows from a renewal.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::sync::watch;

use super::{Fleet, News, RENEWALS};
use crate::job::JobId;
use crate::queue::redis::facts::PodFacts;
use crate::queue::redis::witness::Witness;
use crate::queue::redis::{Inner, advice, claims, rebuild, reclaim, spool_dir, submit, writes};

/// After how many renewals the spool of submissions is looked at anyway.
const LOOK_EVERY: u64 = 8;

/// What is to be done after a renewal: for the store, for what this pod kept, and for the jobs of dead pods.
pub(super) struct Chores {
    inner: Arc<Inner>,
    witness: Witness,
    /// What was on the list of claimed jobs at the last look, and was not run.
    unheld: HashSet<JobId>,
    /// When that was.
    looked: Instant,
    was_down: bool,
    /// For which build of the store, and which connection to it, it was looked whether it has this pod's runs.
    looked_at_held: Option<(String, u64)>,
    /// Which connection led to a server whose jobs were compared with the volume; none before the pod has started, which that would delay.
    compared: Option<u64>,
    beats: u64,
}

impl Chores {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self {
            witness: Witness::new(inner.mirror.dir()),
            inner,
            unheld: HashSet::new(),
            looked: Instant::now(),
            was_down: true,
            looked_at_held: None,
            compared: None,
            beats: 0,
        }
    }

    pub(super) async fn follow(mut self, mut hear: watch::Receiver<News>) {
        self.compared = Some(0);
        while hear.changed().await.is_ok() {
            let news = hear.borrow_and_update().clone();
            if self.run(news).await {
                self.inner.renew.notify_one();
            }
        }
    }

    /// Does what follows from a renewal; true: the lease is to be renewed at once.
    pub(super) async fn run(&mut self, news: News) -> bool {
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
        let connections = self.inner.link.connections();
        let store = Some((epoch.clone(), connections));
        if self.looked_at_held != store && writes::look_at_held(&self.inner).await {
            self.looked_at_held = store;
        }
        rebuild::check(&self.inner, &epoch).await;
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
