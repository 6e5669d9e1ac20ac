//! A small OpenTelemetry collector: it takes spans over OTLP/HTTP and keeps them.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message as _;

/// A span as it came in.
#[derive(Debug, Clone)]
pub struct CollectedSpan {
    /// Its name.
    pub name: String,
    /// The id of its trace, in hexadecimal.
    pub trace: String,
    /// Its own id.
    pub id: String,
    /// The id of the span that it belongs to; empty for the first of a trace.
    pub parent: String,
    /// When it began and ended, in nanoseconds.
    pub time: (u64, u64),
    /// Its attributes that are texts.
    pub attributes: Vec<(String, String)>,
    /// The name of the service that sent it.
    pub service: String,
}

/// A collector that listens until it is dropped.
#[derive(Debug)]
pub struct Collector {
    /// Its address, as `OTEL_EXPORTER_OTLP_ENDPOINT` wants it.
    pub endpoint: String,
    spans: Arc<Mutex<Vec<CollectedSpan>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Collector {
    /// Starts one on a free port.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let spans = Arc::new(Mutex::new(Vec::new()));
        let kept = spans.clone();
        let router = Router::new().route(
            "/v1/traces",
            post(
                move |headers: HeaderMap, body: Bytes| async move { take(&kept, &headers, &body) },
            ),
        );
        let task = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("it serves");
        });
        Self {
            endpoint,
            spans,
            task,
        }
    }

    /// The spans that have come so far.
    #[must_use]
    pub fn spans(&self) -> Vec<CollectedSpan> {
        self.spans.lock().unwrap().clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn take(spans: &Mutex<Vec<CollectedSpan>>, headers: &HeaderMap, body: &Bytes) -> StatusCode {
    if headers
        .get("content-type")
        .is_none_or(|v| v != "application/x-protobuf")
    {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE;
    }
    let Ok(request) = ExportTraceServiceRequest::decode(body.clone()) else {
        return StatusCode::BAD_REQUEST;
    };
    for resource in request.resource_spans {
        let attributes = resource
            .resource
            .map(|r| texts(r.attributes))
            .unwrap_or_default();
        let service = attributes
            .into_iter()
            .find(|(name, _)| name == "service.name");
        let service = service.map(|(_, value)| value).unwrap_or_default();
        for span in resource
            .scope_spans
            .into_iter()
            .flat_map(|scope| scope.spans)
        {
            spans.lock().unwrap().push(CollectedSpan {
                name: span.name,
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                time: (span.start_time_unix_nano, span.end_time_unix_nano),
                attributes: texts(span.attributes),
                service: service.clone(),
            });
        }
    }
    StatusCode::OK
}

fn texts(
    attributes: Vec<opentelemetry_proto::tonic::common::v1::KeyValue>,
) -> Vec<(String, String)> {
    attributes
        .into_iter()
        .filter_map(|pair| match pair.value?.value? {
            Value::StringValue(text) => Some((pair.key, text)),
            _ => None,
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
