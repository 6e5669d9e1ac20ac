//! The lock on a clone in the cache, for pods on several machines: a key in Redis with an owner and an end.
//!
//! `SET NX PX` takes it, a renewal keeps it, compare-and-delete gives it up. It is waited for as long as the job may run, visibly, and
//! never skipped. A holder that could not renew it in time is told that it is lost, which kills the git it runs, well before the
//! key ends and another pod may take it.

use std::fmt;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::keys::Keys;
use super::link::Link;
use super::scripts;
use crate::git::{CloneLock, LockError, LockGuard, OnWait, Waiting};
use crate::queue::QueueError;

/// How often a lock is renewed within its length.
const RENEWALS: u32 = 4;

/// Locks clones with keys in Redis.
#[derive(Clone)]
pub struct RedisLock {
    link: Link,
    keys: Keys,
    owner: String,
    lease: Duration,
}

impl fmt::Debug for RedisLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisLock")
            .field("owner", &self.owner)
            .finish_non_exhaustive()
    }
}

impl RedisLock {
    pub(super) fn new(link: Link, keys: Keys, life: &str, lease: Duration) -> Self {
        Self {
            link,
            keys,
            owner: life.to_owned(),
            lease,
        }
    }

    async fn try_lock(&self, key: &str, token: &str) -> Result<bool, QueueError> {
        let got: Option<String> = self
            .link
            .call("lock a clone", async |c| {
                redis::cmd("SET")
                    .arg(self.keys.clone_lock(key))
                    .arg(token)
                    .arg("NX")
                    .arg("PX")
                    .arg(self.lease.as_millis() as u64)
                    .query_async(c)
                    .await
            })
            .await?;
        Ok(got.is_some())
    }

    /// Renews the lock, or gives it up with an `ms` of 0. Returns whether it was still held.
    async fn renew(&self, key: &str, token: &str, ms: u64) -> Result<bool, QueueError> {
        let ours: u8 = self
            .link
            .call("renew the lock on a clone", async |c| {
                scripts::UNLOCK
                    .key(self.keys.clone_lock(key))
                    .arg(token)
                    .arg(ms)
                    .invoke_async(c)
                    .await
            })
            .await?;
        Ok(ours == 1)
    }

    async fn wait(
        &self,
        key: &str,
        on_wait: OnWait<'_>,
        cancel: &CancellationToken,
    ) -> Result<LockGuard, LockError> {
        let token = format!("{}/{}", self.owner, uuid::Uuid::new_v4());
        let mut waiting = Waiting::new(key, on_wait, cancel);
        loop {
            let asked = Instant::now();
            match self.try_lock(key, &token).await {
                Ok(true) => return Ok(self.keep(key, token, asked)),
                Ok(false) => {}
                // It may be taken all the same; the same token takes it again only when it is free or over.
                Err(error) => {
                    tracing::debug!(key, %error, "waiting for the lock on a clone");
                    if let Ok(true) = self.renew(key, &token, self.lease.as_millis() as u64).await {
                        return Ok(self.keep(key, token, asked));
                    }
                }
            }
            waiting.pause().await?;
        }
    }

    /// Renews the lock in the background until the guard goes.
    fn keep(&self, key: &str, token: String, taken: Instant) -> LockGuard {
        let lost = CancellationToken::new();
        let end = CancellationToken::new();
        let (lock, key) = (self.clone(), key.to_owned());
        let (lost_too, end_too) = (lost.clone(), end.clone());
        tokio::spawn(async move {
            if !lock.renewing(&key, &token, taken, &end_too).await {
                lost_too.cancel();
            }
        });
        LockGuard::new(lost, end.drop_guard())
    }

    /// Renews until `end`, and gives the lock up then; false: the lock is lost.
    async fn renewing(
        &self,
        key: &str,
        token: &str,
        taken: Instant,
        end: &CancellationToken,
    ) -> bool {
        let (mut renewed, every) = (taken, self.lease / RENEWALS);
        loop {
            tokio::select! {
                () = end.cancelled() => {
                    if let Err(error) = self.renew(key, token, 0).await {
                        tracing::debug!(key, %error, "the lock on a clone ends by itself");
                    }
                    return true;
                }
                () = tokio::time::sleep(every) => {}
            }
            let asked = Instant::now();
            let answer =
                tokio::time::timeout(every, self.renew(key, token, self.lease.as_millis() as u64));
            match answer.await {
                Ok(Ok(true)) => renewed = asked,
                Ok(Ok(false)) => return false,
                // A renewal's time is left to kill what runs under the lock.
                Ok(Err(_)) | Err(_) if renewed.elapsed() + every >= self.lease => return false,
                Ok(Err(_)) | Err(_) => {}
            }
        }
    }
}

impl CloneLock for RedisLock {
    fn acquire<'a>(
        &'a self,
        key: &'a str,
        on_wait: OnWait<'a>,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<LockGuard, LockError>> {
        Box::pin(self.wait(key, on_wait, cancel))
    }
}
