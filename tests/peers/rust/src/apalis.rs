//! apalis with its storage for Redis: lists and sorted sets, moved by scripts.
//!
//! Settings:
//! - The worker looks for jobs every millisecond while it has none. The storage that is woken by Redis Pub/Sub cannot
//!   be used: in 1.0.0 every job is pushed to the sorted set of scheduled jobs with the current second as its time, for
//!   which nothing is published, and only a look for jobs moves it on.
//! - A look fetches up to [`PREFETCH`] jobs for each that may run at once; results are acknowledged in batches, too.
//! - No events and no lock for each job, which the library advises against for jobs shorter than a heartbeat. Jobs in
//!   flight are still kept for a worker that dies, and results are stored, because that acknowledges a job.
//! - One connection that all producers share, which pipelines what they send, and one for the worker.

use std::{
    future::ready,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use anyhow::Result;
use apalis::prelude::{
    BackendExt, PollSnapshot, PollStrategy, PollWith, TaskSink, WorkerBuilder, WorkerBuilderExt,
    WorkerError,
};
use apalis_redis::{Client, Config, ConnectionManager, RedisStorage};
use futures_timer::Delay;
use tokio::sync::oneshot;

use crate::peer::{OnJob, Peer, Producer, unique_name};

/// How often a worker without jobs looks for some.
const POLL: Duration = Duration::from_millis(1);
/// Jobs that are fetched at once for each that may run at once.
const PREFETCH: usize = 4;

/// Jobs are their payload.
type Storage = RedisStorage<String>;

/// See the head of this file.
pub struct Apalis {
    client: Client,
    storage: Storage,
    concurrency: usize,
}

impl Peer for Apalis {
    type Producer = Storage;

    async fn connect(url: &str, concurrency: usize) -> Result<Self> {
        let client = Client::open(url)?;
        let config = Config::default()
            .queue(unique_name())
            .batch_size(PREFETCH * concurrency)
            .emit_events(false)
            .lock_tasks(false);
        let storage = RedisStorage::new(client.get_connection_manager().await?).with_config(config);
        Ok(Self {
            client,
            storage,
            concurrency,
        })
    }

    fn producer(&self) -> Storage {
        self.storage.clone()
    }

    async fn work(self, on_job: OnJob, stop: oneshot::Receiver<()>) -> Result<()> {
        let connection: ConnectionManager = self.client.get_connection_manager().await?;
        let backend = RedisStorage::new(connection)
            .with_config(self.storage.get_config().clone())
            .poll_with_strategy(Every::new(POLL));
        Ok(worker(backend, self.concurrency, on_job, stop).await?)
    }
}

impl Producer for Storage {
    async fn submit(&mut self, payload: String) -> Result<()> {
        self.push(payload).await?;
        Ok(())
    }
}

/// The worker until `stop`. It is boxed here because the compiler cannot show that it is `Send` inside of another
/// future.
fn worker(
    backend: PollWith<Storage, Every>,
    concurrency: usize,
    on_job: OnJob,
    stop: oneshot::Receiver<()>,
) -> Pin<Box<dyn Future<Output = Result<(), WorkerError>> + Send>> {
    let stopped = async {
        // An error says that the other side is gone, which means the same.
        let _ = stop.await;
        Ok::<_, WorkerError>(())
    };
    Box::pin(
        WorkerBuilder::new(unique_name())
            .backend(backend)
            .concurrency(concurrency)
            .build(move |_payload: String| {
                on_job();
                ready(())
            })
            .run_until(stopped),
    )
}

/// Wakes a worker at an interval.
///
/// The library's own interval does not arm its timer again when it fires while a fetch is under way. A worker that then
/// finds no job sleeps until its next heartbeat, half a minute later. This one is always armed.
struct Every {
    period: Duration,
    delay: Delay,
}

impl Every {
    /// Wakes every `period`.
    fn new(period: Duration) -> Self {
        Self {
            period,
            delay: Delay::new(period),
        }
    }
}

impl PollStrategy for Every {
    fn poll_drive(&mut self, cx: &mut Context<'_>, _: &PollSnapshot) -> Poll<Option<()>> {
        let mut due = Poll::Pending;
        while Pin::new(&mut self.delay).poll(cx).is_ready() {
            self.delay.reset(self.period);
            due = Poll::Ready(Some(()));
        }
        due
    }
}
