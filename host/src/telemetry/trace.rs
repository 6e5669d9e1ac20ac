//! Traces: from the request through the queue and the steps of a job to the agent's environment.
//!
//! A job carries its place in a trace on its record ([`TraceContext`]), so any pod can go on with it. With a collector, spans are sent
//! to it over OTLP: by a thread of its own, from a bounded queue, so a collector that is slow or gone costs spans and nothing else. Without
//! one the contexts are handed on as they came, and a job that came without one begins a trace that nobody records: its id still ties
//! the log lines of the host to what the agent sends by itself.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use axum::http::HeaderMap;
use jiff::Timestamp;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanKind, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchSpanProcessor, SdkTracer, SdkTracerProvider, Span, SpanData, SpanExporter, SpanProcessor,
};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::metrics;
use crate::config::{Config, Otel};
use crate::job::{Job, Stage, TraceContext};

/// How long a collector may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the last spans may take when the server ends.
const FAREWELL: Duration = Duration::from_secs(2);
/// The name under which spans are made.
const SCOPE: &str = "agenticore";

static RECORDED: AtomicBool = AtomicBool::new(false);
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Traces that cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error(
    "traces cannot be sent to {endpoint:?}: {problem}; correct OTEL_EXPORTER_OTLP_TRACES_ENDPOINT or OTEL_EXPORTER_OTLP_ENDPOINT, or set AGENTICORE_OTEL_ENABLED=false"
)]
pub struct TraceError {
    endpoint: String,
    problem: String,
}

/// Where the server's own spans go; none: nowhere, for the reason given if that may surprise.
pub(super) fn endpoint(otel: &Otel) -> (Option<String>, Option<&'static str>) {
    let given = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
    if !otel.enabled {
        return (None, None);
    }
    if let Some(whole) = given(&otel.traces_endpoint) {
        return (Some(whole), None);
    }
    match given(&otel.endpoint) {
        None => (
            None,
            Some(
                "AGENTICORE_OTEL_ENABLED is set, but no OTEL_EXPORTER_OTLP_ENDPOINT: the server sends no spans",
            ),
        ),
        Some(_) if otel.protocol.as_deref() == Some("grpc") => (
            None,
            Some(
                "the server sends its own spans by http/protobuf only: give that address in OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, \
                 or set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
            ),
        ),
        Some(base) => (
            Some(format!("{}/v1/traces", base.trim_end_matches('/'))),
            None,
        ),
    }
}

/// Begins to record spans and send them to `endpoint`.
pub(super) fn start(
    endpoint: &str,
    config: &Config,
) -> Result<(SdkTracerProvider, SdkTracer), TraceError> {
    let wrong = |problem: String| TraceError {
        endpoint: endpoint.to_owned(),
        problem,
    };
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(Sender::new(endpoint).map_err(&wrong)?)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(endpoint)
        .with_timeout(PATIENCE)
        .build()
        .map_err(|e| wrong(e.to_string()))?;
    let resource = Resource::builder()
        .with_service_name(SCOPE)
        .with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", config.pod_name.to_string()),
        ])
        .build();
    let provider = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_span_processor(Counting)
        .with_span_processor(BatchSpanProcessor::builder(Counted(exporter)).build())
        .build();
    let tracer = provider.tracer(SCOPE);
    drop(TRACER.set(tracer.clone()));
    RECORDED.store(true, Ordering::Relaxed);
    Ok((provider, tracer))
}

/// Sends what is left, for as long as that may take.
pub(super) async fn end(provider: SdkTracerProvider) {
    RECORDED.store(false, Ordering::Relaxed);
    let ended = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FAREWELL)).await;
    if !matches!(ended, Ok(Ok(()))) {
        tracing::debug!("the last spans could not be sent");
    }
}

/// Whether spans are recorded.
pub(crate) fn is_on() -> bool {
    RECORDED.load(Ordering::Relaxed)
}

/// The context that a request came with.
pub(crate) fn incoming(headers: &HeaderMap) -> Option<TraceContext> {
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok());
    let context: TraceContext = text("traceparent")?.parse().ok()?;
    Some(context.with_state(text("tracestate")))
}

/// The context of the span that the caller is in.
pub(crate) fn current() -> Option<TraceContext> {
    if !is_on() {
        return None;
    }
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&tracing::Span::current().context(), &mut carrier);
    let context: TraceContext = carrier.get("traceparent")?.parse().ok()?;
    Some(context.with_state(carrier.get("tracestate").map(String::as_str)))
}

fn remote(context: &TraceContext) -> Context {
    let mut carrier = HashMap::from([("traceparent".to_owned(), context.parent().to_owned())]);
    if let Some(state) = context.state() {
        carrier.insert("tracestate".to_owned(), state.to_owned());
    }
    TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier)
}

fn continue_from(span: &tracing::Span, context: Option<&TraceContext>) {
    if let Some(context) = context
        && let Err(error) = span.set_parent(remote(context))
    {
        tracing::debug!(%error, "a span begins a trace of its own");
    }
}

/// The span of a request; only made while spans are recorded.
pub(crate) fn request_span(method: &str, route: &str, headers: &HeaderMap) -> tracing::Span {
    let span = tracing::info_span!(
        "request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        http.request.method = method,
        http.route = route,
        http.response.status_code = tracing::field::Empty,
    );
    continue_from(&span, incoming(headers).as_ref());
    span
}

/// The span of a job that was just claimed; the time it waited becomes a span before it.
pub(crate) fn job_span(job: &Job, pod: &str) -> tracing::Span {
    let trace = job.origin.trace.as_ref();
    let span = tracing::info_span!(
        "job",
        job = %job.id,
        attempt = job.attempt,
        pod,
        trace_id = trace.map(TraceContext::trace_id),
        otel.kind = "consumer",
    );
    if is_on() {
        continue_from(&span, trace);
    }
    span
}

/// Records how long a job waited, as a span of its trace.
pub(crate) fn waited(job: &Job, since: Timestamp, until: Timestamp) {
    let Some(tracer) = TRACER.get().filter(|_| is_on()) else {
        return;
    };
    let parent = job.origin.trace.as_ref().map_or_else(Context::new, remote);
    let mut span = tracer
        .span_builder("queue")
        .with_kind(SpanKind::Internal)
        .with_start_time(SystemTime::from(since))
        .with_attributes([
            KeyValue::new("job", job.id.to_string()),
            KeyValue::new("attempt", i64::from(job.attempt)),
        ])
        .start_with_context(tracer, &parent);
    opentelemetry::trace::Span::end_with_timestamp(&mut span, SystemTime::from(until));
}

/// The span of a step; its name is the step's word.
pub(crate) fn stage_span(stage: Stage) -> tracing::Span {
    tracing::info_span!("stage", stage = stage.as_str(), otel.name = stage.as_str())
}

/// Makes an answer's status known to its span.
pub(crate) fn answered(span: &tracing::Span, status: u16) {
    span.record("http.response.status_code", status);
    if status >= 500 {
        span.set_status(opentelemetry::trace::Status::error(status.to_string()));
    }
}

/// What an agent needs to go on with its job's trace: variables by name.
pub(crate) fn for_agent(job: &Job, pod: &str, otel: &Otel) -> Vec<(&'static str, String)> {
    let mut variables = Vec::new();
    if let Some(context) = current().or_else(|| job.origin.trace.clone()) {
        variables.push(("TRACEPARENT", context.parent().to_owned()));
        variables.extend(
            context
                .state()
                .map(|state| ("TRACESTATE", state.to_owned())),
        );
    }
    if otel.enabled {
        let attributes = format!(
            "agenticore.job={},agenticore.attempt={},agenticore.pod={pod},agenticore.profile={}",
            job.id, job.attempt, job.request.profile
        );
        variables.push(("OTEL_RESOURCE_ATTRIBUTES", attributes));
    }
    variables
}

/// Sends requests by the server's own HTTP library, on its own runtime: the thread that exports has none.
#[derive(Debug)]
struct Sender {
    http: reqwest::Client,
    runtime: tokio::runtime::Handle,
}

impl Sender {
    fn new(endpoint: &str) -> Result<Self, String> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|e| e.to_string())?;
        crate::client::install_tls();
        let mut http = reqwest::Client::builder()
            .timeout(PATIENCE)
            .redirect(reqwest::redirect::Policy::none());
        if endpoint.starts_with("http://") {
            // No certificate is ever looked at, so a system without any must not be an error.
            http = http.tls_certs_only([]);
        }
        let http = http.build().map_err(|e| e.to_string())?;
        Ok(Self { http, runtime })
    }
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let http = self.http.clone();
        let sent = self.runtime.spawn(async move {
            let mut answer = http.execute(request.try_into()?).await?;
            let mut response = Response::builder().status(answer.status());
            if let Some(headers) = response.headers_mut() {
                *headers = std::mem::take(answer.headers_mut());
            }
            Ok::<_, HttpError>(response.body(answer.bytes().await?)?)
        });
        sent.await?
    }
}

/// Counts spans that ended.
#[derive(Debug)]
struct Counting;

impl SpanProcessor for Counting {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            metrics::spans("ended", 1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Counts what became of spans that were handed over.
#[derive(Debug)]
struct Counted<E>(E);

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let exported = self.0.export(batch).await;
        metrics::spans(
            if exported.is_ok() {
                "exported"
            } else {
                "failed"
            },
            count,
        );
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TraceContextExt;

    use super::*;

    #[test]
    fn spans_go_where_the_settings_say_and_a_surprise_is_explained() {
        let otel = |enabled, endpoint: &str, protocol: &str, traces: &str| {
            let text = |t: &str| (!t.is_empty()).then(|| t.to_owned());
            let otel = Otel {
                enabled,
                endpoint: text(endpoint),
                protocol: text(protocol),
                traces_endpoint: text(traces),
                ..Otel::default()
            };
            let (endpoint, surprise) = super::endpoint(&otel);
            (endpoint, surprise.is_some())
        };
        let to = |text: &str| Some(text.to_owned());
        let base = "http://c:4318/";
        assert_eq!(otel(false, base, "", ""), (None, false));
        assert_eq!(otel(true, "", "", ""), (None, true));
        assert_eq!(
            otel(true, base, "", ""),
            (to("http://c:4318/v1/traces"), false)
        );
        assert_eq!(otel(true, "http://c:4317", "grpc", ""), (None, true));
        let own = "http://c:4318/v1/traces";
        assert_eq!(otel(true, "http://c:4317", "grpc", own), (to(own), false));
    }

    #[test]
    fn a_context_survives_the_library() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, axum::http::HeaderValue::from_static(value));
            }
            headers
        };
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = incoming(&headers(&[("traceparent", parent), ("tracestate", "a=1")]));
        let context = context.as_ref();
        assert_eq!(context.map(TraceContext::parent), Some(parent));
        assert_eq!(context.and_then(TraceContext::state), Some("a=1"));
        let remote = context.map(remote);
        let span = remote.as_ref().map(|c| c.span().span_context().clone());
        let id = span.as_ref().map(|s| s.trace_id().to_string());
        assert_eq!(id.as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
        assert!(incoming(&headers(&[("traceparent", "nonsense")])).is_none());
    }
}
