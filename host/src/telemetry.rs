//! What the process tells of itself: its log, its metrics, and traces of jobs.

mod log;
pub mod metrics;
pub(crate) mod trace;

use std::time::Duration;

use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::sync::watch;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

pub use self::log::LogError;
pub use self::trace::TraceError;

use crate::config::{Config, Flags};
use crate::job::{Job, State, Transition};

/// Telemetry that cannot be started as it is set.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Traces.
    #[error(transparent)]
    Trace(#[from] TraceError),
}

/// Started telemetry.
#[derive(Debug)]
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Starts the log, and for a server metrics and traces, once a process: a second call changes nothing. It must be called from
    /// the runtime that the process works with.
    ///
    /// # Errors
    /// [`TelemetryError`], which names the variable.
    pub fn start(server: bool) -> Result<Self, TelemetryError> {
        let log = log::layer(server)?;
        // Settings that cannot be read are told by whoever needs them, in a moment.
        let config = server
            .then(|| Config::load(&Flags::default()).ok())
            .flatten();
        let (endpoint, surprise) = config
            .as_ref()
            .map_or((None, None), |config| trace::endpoint(&config.otel));
        let traces = match (&endpoint, &config) {
            (Some(endpoint), Some(config)) => Some(trace::start(endpoint, config)?),
            _ => None,
        };
        let (provider, tracer) = traces.unzip();
        let spans = tracer.map(|tracer| {
            tracing_opentelemetry::layer()
                .with_tracer(tracer)
                .with_location(false)
                .with_threads(false)
                .with_tracked_inactivity(false)
                .with_filter(Targets::new().with_target("agenticore", LevelFilter::INFO))
        });
        if tracing_subscriber::registry()
            .with(log)
            .with(spans)
            .try_init()
            .is_err()
        {
            tracing::debug!("the log was started before");
        }
        if server {
            metrics::install();
        }
        if let Some(surprise) = surprise {
            tracing::warn!("{surprise}");
        }
        Ok(Self { provider })
    }

    /// Sends what is left. It takes a moment at the most.
    pub async fn end(self) {
        if let Some(provider) = self.provider {
            trace::end(provider).await;
        }
    }
}

/// Notes a transition that a store has carried out. Every store tells of each, once.
pub fn moved(before: &State, transition: &Transition, after: &Job) {
    metrics::moved(before, transition, after);
    if let (State::Queued { since }, Transition::Claim { at, .. }) = (before, transition) {
        trace::waited(after, *since, *at);
    }
}

/// Keeps the metric of Redis at what the connection says, until that is gone.
pub(crate) async fn follow_redis(mut up: watch::Receiver<bool>) {
    loop {
        metrics::redis_up(*up.borrow_and_update());
        if up.changed().await.is_err() {
            return;
        }
    }
}

/// How often counted values are put into their buckets.
const UPKEEP: Duration = Duration::from_secs(10);

/// Keeps what is counted small. Never ends.
pub(crate) async fn upkeep() {
    let mut ticks = tokio::time::interval(UPKEEP);
    loop {
        ticks.tick().await;
        metrics::upkeep();
    }
}
