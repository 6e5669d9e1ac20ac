//! The table of metrics, and the page that is made from it.

use metrics::Unit;

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

pub(super) const JOBS_QUEUED: &str = "agenticore_jobs_queued";
pub(super) const JOBS_RUNNING: &str = "agenticore_jobs_running";
pub(super) const QUEUE_OLDEST: &str = "agenticore_queue_oldest_seconds";
pub(super) const JOBS_TOTAL: &str = "agenticore_jobs_total";
pub(super) const JOB_QUEUE: &str = "agenticore_job_queue_seconds";
pub(super) const JOB_RUN: &str = "agenticore_job_run_seconds";
pub(super) const SLOTS: &str = "agenticore_slots";
pub(super) const DRAINING: &str = "agenticore_draining";
pub(super) const DRAIN: &str = "agenticore_drain_seconds";
pub(super) const DRAIN_LIMIT: &str = "agenticore_drain_limit_seconds";
pub(super) const READY: &str = "agenticore_ready";
pub(super) const REDIS_UP: &str = "agenticore_redis_up";
pub(super) const LEASE_LOST: &str = "agenticore_lease_lost_total";
pub(super) const REQUEUED: &str = "agenticore_requeued_total";
pub(super) const CLONE: &str = "agenticore_clone_seconds";
pub(super) const SSE_SESSIONS: &str = "agenticore_sse_sessions";
pub(super) const HTTP_REQUESTS: &str = "agenticore_http_requests_total";
pub(super) const HTTP_SECONDS: &str = "agenticore_http_request_seconds";
pub(super) const TRACE_SPANS: &str = "agenticore_trace_spans_total";
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
pub(super) const BUILD_INFO: &str = "agenticore_build_info";

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
