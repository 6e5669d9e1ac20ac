//! Every metric of the server: its name, kind, unit and meaning, and the functions that count.
//!
//! [`METRICS`] is the one table. The exporter gets its descriptions from it, `docs/metrics.md` is made from it, and a test holds it
//! against a live scrape. Labels have few values, all of them known here or bounded by what an operator installs; no job, repository or
//! user is ever one.

use std::sync::OnceLock;
use std::time::Duration;

use jiff::Timestamp;
use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::drain::{Drain, Phase};
use crate::job::{Job, Requeue, State, Status, Transition};
use crate::queue::Depth;

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only ever rises, until the server starts anew.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How often which value was seen.
    Histogram,
}

impl Kind {
    /// The word that Prometheus has for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// When a metric is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// From the first scrape on.
    Always,
    /// Once it has something to say: its labels are not known before.
    OnceSeen,
    /// Once what it counts has happened, which it should not.
    Rarely,
    /// On servers with Redis.
    WithRedis,
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What it counts in.
    pub unit: Unit,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// When it is there.
    pub presence: Presence,
    /// What it says.
    pub help: &'static str,
}

const JOBS_QUEUED: &str = "agenticore_jobs_queued";
const JOBS_RUNNING: &str = "agenticore_jobs_running";
const QUEUE_OLDEST: &str = "agenticore_queue_oldest_seconds";
const JOBS_TOTAL: &str = "agenticore_jobs_total";
const JOB_QUEUE: &str = "agenticore_job_queue_seconds";
const JOB_RUN: &str = "agenticore_job_run_seconds";
const SLOTS: &str = "agenticore_slots";
const DRAINING: &str = "agenticore_draining";
const DRAIN: &str = "agenticore_drain_seconds";
const DRAIN_LIMIT: &str = "agenticore_drain_limit_seconds";
const READY: &str = "agenticore_ready";
const REDIS_UP: &str = "agenticore_redis_up";
const LEASE_LOST: &str = "agenticore_lease_lost_total";
const REQUEUED: &str = "agenticore_requeued_total";
const CLONE: &str = "agenticore_clone_seconds";
const SSE_SESSIONS: &str = "agenticore_sse_sessions";
const HTTP_REQUESTS: &str = "agenticore_http_requests_total";
const HTTP_SECONDS: &str = "agenticore_http_request_seconds";
const TRACE_SPANS: &str = "agenticore_trace_spans_total";
/// Calls of plugins.
pub(crate) const PLUGIN_CALLS: &str = "agenticore_plugin_calls_total";
/// The time of calls.
pub(crate) const PLUGIN_CALL: &str = "agenticore_plugin_call_seconds";
/// The memory of calls.
pub(crate) const PLUGIN_MEMORY: &str = "agenticore_plugin_peak_memory_bytes";
/// What plugins reached for without a grant.
pub(crate) const PLUGIN_DENIALS: &str = "agenticore_plugin_denials_total";
/// Plans that were refused.
pub(crate) const PLUGIN_REFUSALS: &str = "agenticore_plugin_refusals_total";
/// Bytes of files that were laid out.
pub(crate) const PLUGIN_OUTPUT: &str = "agenticore_plugin_output_bytes_total";
/// Components that were loaded.
pub(crate) const PLUGIN_LOADS: &str = "agenticore_plugin_loads_total";
/// The time of that.
pub(crate) const PLUGIN_COMPILE: &str = "agenticore_plugin_compile_seconds";
const BUILD_INFO: &str = "agenticore_build_info";

const fn metric(
    name: &'static str,
    kind: Kind,
    unit: Unit,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric {
        name,
        kind,
        unit,
        labels,
        presence: Presence::Always,
        help,
    }
}

impl Metric {
    const fn once_seen(self) -> Self {
        Self {
            presence: Presence::OnceSeen,
            ..self
        }
    }

    const fn rarely(self) -> Self {
        Self {
            presence: Presence::Rarely,
            ..self
        }
    }

    const fn with_redis(self) -> Self {
        Self {
            presence: Presence::WithRedis,
            ..self
        }
    }
}

/// Every metric.
pub const METRICS: &[Metric] = &[
    metric(
        JOBS_QUEUED,
        Kind::Gauge,
        Unit::Count,
        &[],
        "Jobs that wait in the queue. With Redis every pod says the same of the whole fleet.",
    ),
    metric(
        JOBS_RUNNING,
        Kind::Gauge,
        Unit::Count,
        &[],
        "Jobs that run. With Redis every pod says the same of the whole fleet.",
    ),
    metric(
        QUEUE_OLDEST,
        Kind::Gauge,
        Unit::Seconds,
        &[],
        "How long the job that waits longest has waited; 0 when none waits.",
    ),
    metric(
        JOBS_TOTAL,
        Kind::Counter,
        Unit::Count,
        &["outcome"],
        "Jobs that ended, by how: succeeded, failed, cancelled, expired.",
    ),
    metric(
        JOB_QUEUE,
        Kind::Histogram,
        Unit::Seconds,
        &[],
        "How long jobs waited until a pod claimed them, each attempt by itself.",
    ),
    metric(
        JOB_RUN,
        Kind::Histogram,
        Unit::Seconds,
        &[],
        "How long the last attempt of jobs took from the claim to the end.",
    ),
    metric(
        SLOTS,
        Kind::Gauge,
        Unit::Count,
        &["state"],
        "Places for jobs on this pod, by state: busy, free.",
    ),
    metric(
        READY,
        Kind::Gauge,
        Unit::Count,
        &[],
        "1 while this pod takes traffic and jobs, as /readyz says it, else 0.",
    ),
    metric(
        DRAINING,
        Kind::Gauge,
        Unit::Count,
        &[],
        "1 while this pod drains and still has jobs, else 0.",
    ),
    metric(
        DRAIN,
        Kind::Gauge,
        Unit::Seconds,
        &[],
        "How long this pod's drain has lasted while it has jobs; 0 otherwise.",
    ),
    metric(
        DRAIN_LIMIT,
        Kind::Gauge,
        Unit::Seconds,
        &[],
        "How long this pod's drain may last; without a drain, how long the next one may by its settings.",
    ),
    metric(
        REDIS_UP,
        Kind::Gauge,
        Unit::Count,
        &[],
        "1 while this pod reaches its Redis, else 0.",
    )
    .with_redis(),
    metric(
        LEASE_LOST,
        Kind::Counter,
        Unit::Count,
        &[],
        "Runs that were told that their claim is lost; each killed its agent and wrote nothing more.",
    ),
    metric(
        REQUEUED,
        Kind::Counter,
        Unit::Count,
        &["reason"],
        "Jobs that went back to the queue, by reason: hand_off (a drain), reclaimed (their pod died).",
    ),
    metric(
        CLONE,
        Kind::Histogram,
        Unit::Seconds,
        &["result"],
        "How long it took to bring a repository up to date and make a worktree, the wait for its lock included: ok, failed.",
    ),
    metric(
        SSE_SESSIONS,
        Kind::Gauge,
        Unit::Count,
        &[],
        "Server-sent event streams that are open.",
    ),
    metric(
        HTTP_REQUESTS,
        Kind::Counter,
        Unit::Count,
        &["method", "route", "status"],
        "Requests that were answered, by route template and status.",
    )
    .once_seen(),
    metric(
        HTTP_SECONDS,
        Kind::Histogram,
        Unit::Seconds,
        &["route"],
        "From a request to the beginning of its answer, by route template.",
    )
    .once_seen(),
    metric(
        TRACE_SPANS,
        Kind::Counter,
        Unit::Count,
        &["state"],
        "Spans of traces, by what became of them: ended, exported, failed. What is only ended was dropped, or waits.",
    ),
    metric(
        PLUGIN_CALLS,
        Kind::Counter,
        Unit::Count,
        &["plugin", "call", "outcome"],
        "Calls of plugins, by function and outcome: ok, or the code of the error.",
    )
    .once_seen(),
    metric(
        PLUGIN_CALL,
        Kind::Histogram,
        Unit::Seconds,
        &["plugin", "call"],
        "How long calls of plugins took.",
    )
    .once_seen(),
    metric(
        PLUGIN_MEMORY,
        Kind::Histogram,
        Unit::Bytes,
        &["plugin"],
        "The most memory that calls of plugins had.",
    )
    .once_seen(),
    metric(
        PLUGIN_DENIALS,
        Kind::Counter,
        Unit::Count,
        &["plugin"],
        "What plugins reached for and were denied.",
    )
    .rarely(),
    metric(
        PLUGIN_REFUSALS,
        Kind::Counter,
        Unit::Count,
        &["plugin", "code"],
        "Launch plans and patches of plugins that the host refused, by the code of the error.",
    )
    .rarely(),
    metric(
        PLUGIN_OUTPUT,
        Kind::Counter,
        Unit::Bytes,
        &["plugin"],
        "Bytes of the files that plugins had laid out.",
    )
    .once_seen(),
    metric(
        PLUGIN_LOADS,
        Kind::Counter,
        Unit::Count,
        &["code"],
        "Components that were loaded, by where their code came from: cache, compiler.",
    )
    .once_seen(),
    metric(
        PLUGIN_COMPILE,
        Kind::Histogram,
        Unit::Seconds,
        &["code"],
        "How long it took to load a component, by where its code came from.",
    )
    .once_seen(),
    metric(
        BUILD_INFO,
        Kind::Gauge,
        Unit::Count,
        &["version", "pod"],
        "Always 1; says which version runs as which pod.",
    ),
];

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

/// The reference page's table, in Markdown.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from("| metric | kind | labels | what it says |\n|---|---|---|---|\n");
    for metric in METRICS {
        let labels: Vec<String> = metric.labels.iter().map(|l| format!("`{l}`")).collect();
        let when = match metric.presence {
            Presence::Always => "",
            Presence::OnceSeen | Presence::Rarely => " There once it has something to say.",
            Presence::WithRedis => " Only with Redis.",
        };
        page.push_str(&format!(
            "| `{}` | {} | {} | {}{when} |\n",
            metric.name,
            metric.kind.as_str(),
            labels.join(", "),
            metric.help
        ));
    }
    page
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn every_name_follows_the_rules_of_prometheus() {
        let mut seen = std::collections::HashSet::new();
        for metric in METRICS {
            let name = metric.name;
            assert!(seen.insert(name), "{name} stands twice");
            assert!(name.starts_with("agenticore_"), "{name}");
            assert_eq!(
                name.ends_with("_total"),
                metric.kind == Kind::Counter,
                "{name}: counters end with _total, and only they"
            );
            assert_eq!(
                name.ends_with("_seconds"),
                metric.unit == Unit::Seconds,
                "{name}: the unit is part of the name"
            );
            let forbidden = ["job", "id", "repo", "task", "user", "session"];
            assert!(
                metric.labels.iter().all(|l| !forbidden.contains(l)),
                "{name}"
            );
        }
    }

    #[test]
    fn the_page_of_metrics_holds_the_table() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
        let text = std::fs::read_to_string(page).unwrap();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            let (begin, end) = ("<!-- metrics -->\n", "<!-- /metrics -->");
            let (head, rest) = text.split_once(begin).unwrap();
            let (_, tail) = rest.split_once(end).unwrap();
            let whole = format!("{head}{begin}{}{end}{tail}", reference());
            std::fs::write(page, whole).unwrap();
            return;
        }
        assert!(
            text.contains(&reference()),
            "docs/metrics.md is not what the code says; UPDATE_DOCS=1 cargo test -p agenticore --lib telemetry writes it anew"
        );
    }
}
