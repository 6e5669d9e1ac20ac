//! Every metric of the server: its name, kind, unit and meaning, and the functions that count.
//!
//! [`METRICS`] is the one table. The exporter gets its descriptions from it, `docs/metrics.md` is made from it, and a test holds it
//! against a live scrape. Labels have few values, all of them known here or bounded by what an operator installs; no job, repository or
//! user is ever one.

mod table;

use std::sync::OnceLock;
use std::time::Duration;

use jiff::Timestamp;
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use self::table::{
    BUILD_INFO, CLONE, DRAIN, DRAIN_LIMIT, DRAINING, HTTP_REQUESTS, HTTP_SECONDS, JOB_QUEUE,
    JOB_RUN, JOBS_QUEUED, JOBS_RUNNING, JOBS_TOTAL, LEASE_LOST, QUEUE_OLDEST, READY, REDIS_UP,
    REQUEUED, SLOTS, SSE_SESSIONS, TRACE_SPANS,
};
pub use self::table::{Kind, METRICS, Metric, Presence, reference};
pub(crate) use self::table::{
    PLUGIN_CALL, PLUGIN_CALLS, PLUGIN_COMPILE, PLUGIN_DENIALS, PLUGIN_LOADS, PLUGIN_MEMORY,
    PLUGIN_OUTPUT, PLUGIN_REFUSALS,
};
use crate::drain::{Drain, Phase};
use crate::job::{Job, Requeue, State, Status, Transition};
use crate::queue::Depth;

/// Seconds, from what a machine does to what an agent does.
const SECONDS: [f64; 15] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0,
];

/// Bytes, up to the largest ceiling that is sensible for a plugin.
const BYTES: [f64; 8] = [
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
    268_435_456.0,
    1_073_741_824.0,
];

static EXPORTER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Starts to count, once a process. Before that, counting costs and does nothing.
pub fn install() {
    exporter();
}

/// None: another library of this process has taken the place of the recorder.
fn exporter() -> Option<&'static PrometheusHandle> {
    EXPORTER
        .get_or_init(|| {
            let recorder = PrometheusBuilder::new()
                .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
                .and_then(|b| {
                    b.set_buckets_for_metric(Matcher::Suffix("_bytes".to_owned()), &BYTES)
                })
                .ok()?
                .build_recorder();
            let handle = recorder.handle();
            if let Err(error) = metrics::set_global_recorder(recorder) {
                tracing::error!(%error, "there will be no metrics");
                return None;
            }
            describe();
            begin_at_zero();
            Some(handle)
        })
        .as_ref()
}

fn describe() {
    for metric in METRICS {
        match metric.kind {
            Kind::Counter => describe_counter!(metric.name, metric.unit, metric.help),
            Kind::Gauge => describe_gauge!(metric.name, metric.unit, metric.help),
            Kind::Histogram => describe_histogram!(metric.name, metric.unit, metric.help),
        }
    }
}

/// What is not there cannot be alerted on, and a rate needs a first value.
fn begin_at_zero() {
    for status in Status::ALL.into_iter().filter(|s| s.is_ended()) {
        counter!(JOBS_TOTAL, "outcome" => status.as_str()).increment(0);
    }
    for why in [Requeue::HandOff, Requeue::Reclaimed] {
        counter!(REQUEUED, "reason" => why.as_str()).increment(0);
    }
    for state in ["ended", "exported", "failed"] {
        counter!(TRACE_SPANS, "state" => state).increment(0);
    }
    for result in ["ok", "failed"] {
        drop(histogram!(CLONE, "result" => result));
    }
    counter!(LEASE_LOST).increment(0);
    gauge!(SSE_SESSIONS).increment(0.0);
    drop((histogram!(JOB_QUEUE), histogram!(JOB_RUN)));
}

/// What is looked at for every scrape, and not counted as it happens.
pub(crate) struct Now<'a> {
    /// None: the store does not answer.
    pub(crate) depth: Option<Depth>,
    pub(crate) drain: &'a Drain,
    pub(crate) ready: bool,
    pub(crate) slots: usize,
    pub(crate) drain_timeout: Duration,
    pub(crate) pod: &'a str,
}

/// The page that Prometheus reads.
pub(crate) fn render(now: &Now<'_>) -> String {
    let Some(exporter) = exporter() else {
        return String::new();
    };
    // A number that is not known is none, and not the last one that was.
    let depth = |of: fn(&Depth) -> f64| now.depth.as_ref().map_or(f64::NAN, of);
    gauge!(JOBS_QUEUED).set(depth(|d| number(d.queued)));
    gauge!(JOBS_RUNNING).set(depth(|d| number(d.running)));
    gauge!(QUEUE_OLDEST).set(depth(|d| {
        d.oldest
            .map_or(0.0, |oldest| since(oldest, Timestamp::now()))
    }));
    let status = now.drain.status();
    gauge!(SLOTS, "state" => "busy").set(number(status.running));
    gauge!(SLOTS, "state" => "free").set(number(now.slots.saturating_sub(status.running)));
    let draining = status.phase == Phase::Draining;
    let (lasted, limit) = now
        .drain
        .lasted()
        .unwrap_or((Duration::ZERO, now.drain_timeout));
    let lasted = if draining { lasted } else { Duration::ZERO };
    gauge!(READY).set(f64::from(u8::from(now.ready)));
    gauge!(DRAINING).set(f64::from(u8::from(draining)));
    gauge!(DRAIN).set(lasted.as_secs_f64());
    gauge!(DRAIN_LIMIT).set(limit.as_secs_f64());
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION"), "pod" => now.pod.to_owned())
        .set(1.0);
    exporter.render()
}

/// Moves what was counted into its buckets. Without it, a server that nobody scrapes would keep every value it has seen.
pub(crate) fn upkeep() {
    if let Some(exporter) = exporter() {
        exporter.run_upkeep();
    }
}

/// Counts a transition that a store has carried out.
pub(super) fn moved(before: &State, transition: &Transition, after: &Job) {
    match (before, transition, &after.state) {
        (State::Queued { since: queued }, Transition::Claim { at, .. }, _) => {
            histogram!(JOB_QUEUE).record(since(*queued, *at));
        }
        (_, Transition::Requeue { why, .. }, State::Queued { .. }) => {
            counter!(REQUEUED, "reason" => why.as_str()).increment(1);
        }
        (_, _, State::Ended { at, .. }) => {
            if let State::Running { started_at, .. } = before {
                histogram!(JOB_RUN).record(since(*started_at, *at));
            }
            let outcome = Status::from(&after.state).as_str();
            counter!(JOBS_TOTAL, "outcome" => outcome).increment(1);
        }
        _ => {}
    }
}

/// Notes whether Redis answers.
pub(crate) fn redis_up(up: bool) {
    gauge!(REDIS_UP).set(f64::from(u8::from(up)));
}

/// Counts a run that was told that its claim is lost.
pub(crate) fn lease_lost() {
    counter!(LEASE_LOST).increment(1);
}

/// Counts a clone.
pub(crate) fn cloned(took: Duration, ok: bool) {
    let result = if ok { "ok" } else { "failed" };
    histogram!(CLONE, "result" => result).record(took.as_secs_f64());
}

/// Counts an answer.
pub(crate) fn answered(method: &'static str, route: String, status: u16, took: Duration) {
    histogram!(HTTP_SECONDS, "route" => route.clone()).record(took.as_secs_f64());
    counter!(HTTP_REQUESTS, "method" => method, "route" => route, "status" => status.to_string())
        .increment(1);
}

/// Counts spans that came to something: `ended`, `exported` or `failed`.
pub(super) fn spans(state: &'static str, count: usize) {
    counter!(TRACE_SPANS, "state" => state).increment(count as u64);
}

/// An event stream that is open for as long as this lives.
#[derive(Debug)]
pub(crate) struct SseSession(());

impl SseSession {
    pub(crate) fn open() -> Self {
        gauge!(SSE_SESSIONS).increment(1.0);
        Self(())
    }
}

impl Drop for SseSession {
    fn drop(&mut self) {
        gauge!(SSE_SESSIONS).decrement(1.0);
    }
}

fn since(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64().max(0.0)
}

fn number(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}
