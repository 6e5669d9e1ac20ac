//! What handlers tell the measurement. Some queues give a handler nothing but its job, so the way is a static.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

static TELL: OnceLock<UnboundedSender<Instant>> = OnceLock::new();

/// The jobs that began.
pub(crate) struct Runs(UnboundedReceiver<Instant>);

impl Runs {
    /// Listens to all handlers of the process; once in it.
    pub(crate) fn listen() -> Self {
        let (tell, told) = unbounded_channel();
        TELL.get_or_init(|| tell);
        Self(told)
    }

    /// When the next job began.
    ///
    /// # Errors
    /// When none began for this long.
    pub(crate) async fn next(&mut self, patience: Duration) -> Result<Instant> {
        let next = tokio::time::timeout(patience, self.0.recv()).await;
        next.context("no job began for a long time")?
            .context("the handlers are gone")
    }
}

/// Called by a handler at its start.
pub(crate) fn begun() {
    if let Some(tell) = TELL.get() {
        // Nobody listens to a worker that outlives the measurement.
        let _ = tell.send(Instant::now());
    }
}
