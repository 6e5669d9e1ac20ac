//! apalis with its storage for Redis.

use std::pin::Pin;

use anyhow::Result;
use apalis::prelude::{BackendFactory, BackendExt, TaskSink, ParallelizeExt, WorkerBuilder, WorkerBuilderExt, WorkerError};
use apalis_redis::{Client, Config, RedisStorage, factory::RedisStorageFactory};
use tokio::sync::oneshot;

use crate::peer::{OnJob, Peer, Producer, unique_name};

/// See the head of this file.
pub struct Apalis {
    client: Client,
    config: Config,
    concurrency: usize,
    producers: Connection,
}

fn flag(name: &str) -> bool { std::env::var_os(name).is_some() }

/// The connection that all producers share; it pipelines what they send.
type Connection = apalis_redis::ConnectionManager;

impl Peer for Apalis {
    type Producer = RedisStorage<String, Connection>;

    async fn connect(url: &str, concurrency: usize) -> Result<Self> {
        let separator = if url.contains('?') { '&' } else { '?' };
        let client = Client::open(format!("{url}{separator}protocol=resp3"))?;
        let batch = std::env::var("BATCH").ok().and_then(|b| b.parse().ok()).unwrap_or(concurrency);
        let config = Config::default()
            .queue(unique_name())
            .batch_size(batch)
            .emit_events(!flag("NOEVENTS"))
            .lock_tasks(flag("LOCK"));
        let producers = client.get_connection_manager().await?;
        Ok(Self {
            client,
            config,
            concurrency,
            producers,
        })
    }

    fn producer(&self) -> Self::Producer {
        RedisStorage::new(self.producers.clone()).with_config(self.config.clone())
    }

    async fn work(self, on_job: OnJob, stop: oneshot::Receiver<()>) -> Result<()> {
        if let Some(us) = std::env::var("POLLUS").ok().and_then(|b| b.parse().ok()) {
            let conn = self.client.get_connection_manager().await?;
            let backend = RedisStorage::<String, _>::new(conn).with_config(self.config).poll_with_interval(std::time::Duration::from_micros(us));
            return run2(backend, self.concurrency, on_job, stop).await;
        }
        let backend = RedisStorageFactory::new(self.client)
            .await?
            .create_with_config(self.config)?;
        if flag("PAR") {
            run3(backend, self.concurrency, on_job, stop).await
        } else {
            run(backend, self.concurrency, on_job, stop).await
        }
    }
}

type Ending = Pin<Box<dyn Future<Output = Result<()>> + Send>>;
type Backend = <RedisStorageFactory as BackendFactory<String>>::Backend;
fn run(backend: Backend, concurrency: usize, on_job: OnJob, stop: oneshot::Receiver<()>) -> Ending {
    let signal = async {
        let _ = stop.await;
        Ok::<_, WorkerError>(())
    };
    let handler = move |_payload: String| {
        on_job();
        std::future::ready(())
    };
    let worker = WorkerBuilder::new(unique_name()).backend(backend).concurrency(concurrency).build(handler).run_until(signal);
    let worker: Pin<Box<dyn Future<Output = Result<(), WorkerError>> + Send>> = Box::pin(worker);
    Box::pin(async move { Ok(worker.await?) })
}
fn run2(backend: apalis::prelude::PollWith<RedisStorage<String, Connection>, apalis::prelude::IntervalStrategy>, concurrency: usize, on_job: OnJob, stop: oneshot::Receiver<()>) -> Ending {
    let signal = async {
        let _ = stop.await;
        Ok::<_, WorkerError>(())
    };
    let handler = move |_payload: String| {
        on_job();
        std::future::ready(())
    };
    let worker = WorkerBuilder::new(unique_name()).backend(backend).concurrency(concurrency).build(handler).run_until(signal);
    let worker: Pin<Box<dyn Future<Output = Result<(), WorkerError>> + Send>> = Box::pin(worker);
    Box::pin(async move { Ok(worker.await?) })
}
fn run3(backend: Backend, concurrency: usize, on_job: OnJob, stop: oneshot::Receiver<()>) -> Ending {
    let signal = async {
        let _ = stop.await;
        Ok::<_, WorkerError>(())
    };
    let handler = move |_payload: String| {
        on_job();
        std::future::ready(())
    };
    let worker = WorkerBuilder::new(unique_name()).backend(backend).concurrency(concurrency).parallelize(tokio::spawn).build(handler).run_until(signal);
    let worker: Pin<Box<dyn Future<Output = Result<(), WorkerError>> + Send>> = Box::pin(worker);
    Box::pin(async move { Ok(worker.await?) })
}

impl Producer for RedisStorage<String, Connection> {
    async fn submit(&mut self, payload: String) -> Result<()> {
        self.push(payload).await?;
        Ok(())
    }
}
