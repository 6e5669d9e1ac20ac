//! apalis: it fetches as many jobs at once as it runs, looks for them every 10 ms, and keeps neither results nor events of them.

use anyhow::{Result, anyhow};
use apalis::prelude::*;
use apalis_redis::{Config, RedisStorage};

use crate::runs::begun;
use crate::{POLL, Peer};

#[derive(Clone)]
pub(crate) struct Apalis {
    storage: RedisStorage<String>,
    concurrency: usize,
}

async fn nothing(_text: String) -> Result<(), BoxDynError> {
    begun();
    Ok(())
}

impl Peer for Apalis {
    async fn connect(url: &str, concurrency: usize) -> Result<Self> {
        let connection = apalis_redis::connect(url).await?;
        let config = Config::default()
            .batch_size(concurrency)
            .persist_results(false)
            .emit_events(false);
        let storage = RedisStorage::new(connection).with_config(config);
        Ok(Self {
            storage,
            concurrency,
        })
    }

    async fn submit(&self, text: String) -> Result<()> {
        let mut storage = self.storage.clone();
        storage.push(text).await.map_err(|e| anyhow!("{e:?}"))
    }

    async fn work(&self) -> Result<()> {
        let worker = WorkerBuilder::new("peer")
            .backend(self.storage.clone().poll_with_interval(POLL))
            .concurrency(self.concurrency)
            .build(nothing);
        tokio::spawn(worker.run());
        Ok(())
    }
}
