//! oxana: lists in Redis, one `LMOVE` for every job, as in Sidekiq.
//!
//! Settings:
//! - The worker looks for a job every millisecond while its queue is empty (the default is 10 seconds). This is the
//!   shortest sleep of the timer it uses, and it has no way to be woken.
//! - As many connections as producers and jobs can use at once, so that none waits for another.
//! - No instrumentation: the features for Sentry and for tracing are off.
//!
//! A job is fetched, read, marked as started and acknowledged by one call each; there is no prefetch to set. Its batch
//! workers are not used, because they hand many jobs to one call of a handler.

use std::{convert::Infallible, time::Duration};

use anyhow::Result;
use oxana::{
    FromContext, Job, JobContext, Queue, QueueConfig, Storage, StorageBuilderTimeouts, Worker,
};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::peer::{OnJob, Peer, Producer, unique_name};

/// How long a worker with an empty queue sleeps.
const POLL: Duration = Duration::from_millis(1);
/// Connections beside those for producers and jobs: the dispatcher, the reader and the background loops.
const SPARE_CONNECTIONS: usize = 16;
/// Longer than any wait for a connection in a sound run.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

/// A job that does nothing.
#[derive(Serialize, Deserialize)]
struct Nothing {
    payload: String,
}

impl Job for Nothing {}

/// Only the namespace differs between runs; this is the one queue in it.
struct Jobs;

impl Queue for Jobs {
    fn to_config() -> QueueConfig {
        QueueConfig::as_static("jobs")
    }
}

/// The handler.
struct Handler(OnJob);

impl FromContext<OnJob> for Handler {
    fn from_context(context: &OnJob) -> Self {
        Self(context.clone())
    }
}

#[async_trait::async_trait]
impl Worker<Nothing> for Handler {
    type Error = Infallible;

    async fn process(&self, _job: Nothing, _context: &JobContext) -> Result<(), Infallible> {
        (self.0)();
        Ok(())
    }
}

/// See the head of this file.
pub struct Oxana {
    storage: Storage,
    concurrency: usize,
}

impl Peer for Oxana {
    type Producer = Storage;

    async fn connect(url: &str, concurrency: usize) -> Result<Self> {
        let storage = Storage::builder()
            .namespace(unique_name())
            .max_pool_size(2 * concurrency + SPARE_CONNECTIONS)
            .timeouts(StorageBuilderTimeouts::new(CONNECTION_TIMEOUT))
            .build_from_redis_url(url)?;
        Ok(Self {
            storage,
            concurrency,
        })
    }

    fn producer(&self) -> Storage {
        self.storage.clone()
    }

    async fn work(self, on_job: OnJob, stop: oneshot::Receiver<()>) -> Result<()> {
        self.storage
            .runtime(on_job)
            .queue_with_concurrency::<Jobs>(self.concurrency)
            .worker::<Handler, Nothing>()
            .dequeue_timeout(POLL)
            .shutdown_on(async {
                // An error says that the other side is gone, which means the same.
                let _ = stop.await;
                Ok(())
            })
            .run()
            .await?;
        Ok(())
    }
}

impl Producer for Storage {
    async fn submit(&mut self, payload: String) -> Result<()> {
        self.enqueue(Jobs, Nothing { payload }).await?;
        Ok(())
    }
}
