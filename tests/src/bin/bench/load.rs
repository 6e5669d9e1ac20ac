//! Load, and what a set of times amounts to.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::future::try_join_all;

/// How many clients ask at once.
pub(crate) const CLIENTS: usize = 8;

/// Calls `request` from [`CLIENTS`] clients, one call after the other each, for `time`; the calls per second.
pub(crate) async fn per_second<F>(time: Duration, request: impl Fn() -> F) -> Result<f64>
where
    F: Future<Output = Result<()>>,
{
    // The first request of a connection sets it up.
    for _ in 0..CLIENTS {
        request().await?;
    }
    let done = AtomicU64::new(0);
    let started = Instant::now();
    let client = || async {
        while started.elapsed() < time {
            request().await?;
            done.fetch_add(1, Ordering::Relaxed);
        }
        Ok::<(), anyhow::Error>(())
    };
    try_join_all((0..CLIENTS).map(|_| client())).await?;
    #[expect(clippy::cast_precision_loss, reason = "a count far below 2^52")]
    Ok(done.into_inner() as f64 / started.elapsed().as_secs_f64())
}

/// Times in milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Times(Vec<f64>);

impl Times {
    /// Adds one.
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(time.as_secs_f64() * 1000.0);
    }

    /// The time that `share` of all times do not exceed.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn quantile(&mut self, share: f64) -> Result<f64> {
        self.0.sort_by(f64::total_cmp);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index of a short list"
        )]
        let index = (self.0.len().saturating_sub(1) as f64 * share).round() as usize;
        self.0.get(index).copied().context("nothing was timed")
    }
}
