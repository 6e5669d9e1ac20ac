//! oxana, which works as Sidekiq does: a connection for each job that runs. It polls; 10 ms instead of the ten seconds that it waits by
//! default.

use anyhow::Result;
use oxana::{JobContext, Storage};
use serde::{Deserialize, Serialize};

use crate::runs::begun;
use crate::{POLL, Peer};

#[derive(Clone)]
pub(crate) struct Oxana {
    storage: Storage,
    concurrency: usize,
}

#[derive(Clone, Debug)]
struct Context;

#[derive(Debug, thiserror::Error)]
enum Never {}

#[derive(Debug, Serialize, Deserialize, oxana::Job)]
struct NothingJob {
    text: String,
}

#[derive(oxana::Worker)]
#[oxana(context = Context)]
struct NothingWorker;

impl NothingWorker {
    async fn process(&self, _job: NothingJob, _context: &JobContext) -> Result<(), Never> {
        begun();
        Ok(())
    }
}

#[derive(Serialize, oxana::Queue)]
#[oxana(key = "peers")]
struct Peers;

impl Peer for Oxana {
    async fn connect(url: &str, concurrency: usize) -> Result<Self> {
        let builder = Storage::builder().max_pool_size(concurrency + 10);
        let storage = builder.build_from_redis_url(url)?;
        Ok(Self {
            storage,
            concurrency,
        })
    }

    async fn submit(&self, text: String) -> Result<()> {
        self.storage.enqueue(Peers, NothingJob { text }).await?;
        Ok(())
    }

    async fn work(&self) -> Result<()> {
        let runtime = self
            .storage
            .runtime(Context)
            .queue_with_concurrency::<Peers>(self.concurrency)
            .dequeue_timeout(POLL);
        tokio::spawn(async move {
            if let Err(error) = runtime.worker::<NothingWorker, NothingJob>().run().await {
                eprintln!("oxana: {error}");
            }
        });
        Ok(())
    }
}
