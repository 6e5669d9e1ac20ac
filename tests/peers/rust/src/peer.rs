//! What a queue has to offer to be measured.

use std::{
    process,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use tokio::sync::oneshot;

/// Called by a worker at the start of every job.
pub type OnJob = Arc<dyn Fn() + Send + Sync>;

/// Submits jobs. Each task that submits has a clone of its own.
pub trait Producer: Clone + Send + 'static {
    /// Submits one job and comes back when Redis has it.
    fn submit(&mut self, payload: String) -> impl Future<Output = Result<()>> + Send;
}

/// A queue with one worker, both in this process.
pub trait Peer: Sized {
    /// The type that submits jobs to this queue.
    type Producer: Producer;

    /// Connects to the Redis at `url`. The worker is to run `concurrency` jobs at once.
    fn connect(url: &str, concurrency: usize) -> impl Future<Output = Result<Self>> + Send;

    /// A new producer for the queue.
    fn producer(&self) -> Self::Producer;

    /// Runs the worker until `stop` is sent or dropped.
    fn work(
        self,
        on_job: OnJob,
        stop: oneshot::Receiver<()>,
    ) -> impl Future<Output = Result<()>> + Send + 'static;
}

/// A name for a queue or a worker that no earlier run has used, so that its leftovers are not seen.
/// It has no colon, because some queues build their keys with it.
pub fn unique_name() -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    format!("peers-{}-{}", process::id(), now.as_nanos())
}
