//! What is noted of every request: the access log, metrics by route template, and its span.
//!
//! A query string may hold a key, so it is noted nowhere; neither are paths of no route, which can be anything.

use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;

use crate::telemetry::{metrics, trace};

/// Requests of orchestrators and scrapers, which come all the time.
const PROBES: [&str; 6] = [
    "/health", "/livez", "/readyz", "/healthz", "/metrics", "(none)",
];

/// Lets a request through and notes what it came to.
pub(super) async fn note(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = word(request.method());
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("(none)", MatchedPath::as_str)
        .to_owned();
    let traced = trace::is_on() && !PROBES.contains(&route.as_str());
    let response = if traced {
        let span = trace::request_span(method, &route, request.headers());
        let response = next.run(request).instrument(span.clone()).await;
        trace::answered(&span, response.status().as_u16());
        response
    } else {
        next.run(request).await
    };
    let (status, took) = (response.status().as_u16(), started.elapsed());
    log(method, &route, status, took);
    metrics::answered(method, route, status, took);
    response
}

/// Everything that changes something or fails is told; the rest only to those who ask for it.
fn log(method: &'static str, route: &str, status: u16, took: Duration) {
    let ms = took.as_secs_f64() * 1000.0;
    if status < 400 && matches!(method, "GET" | "HEAD" | "OPTIONS") {
        tracing::debug!(target: "agenticore::access", method, route, status, ms, "answered");
    } else {
        tracing::info!(target: "agenticore::access", method, route, status, ms, "answered");
    }
}

/// Methods can be any word; labels must be few.
fn word(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "OTHER",
    }
}
