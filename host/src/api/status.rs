//! How the server is, and which profiles it has.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::IntoResponse;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Shared;
use super::error::Problem;
use super::input::{NoParams, Params};
use crate::service::{Check, Readiness};

/// `{"success": true, "count": n, "profiles": [...]}`.
#[derive(Serialize, ToSchema)]
#[schema(as = ProfileList)]
pub(super) struct Profiles {
    success: bool,
    count: usize,
    profiles: Vec<Value>,
}

/// `{"success": true, "count": n, "plugins": [...]}`.
#[derive(Serialize, ToSchema)]
#[schema(as = PluginList)]
pub(super) struct Plugins {
    success: bool,
    count: usize,
    plugins: Vec<Value>,
}

/// The answer of a readiness probe; a failing one has the members of every failure.
#[derive(Serialize, ToSchema)]
#[schema(as = ReadyAnswer)]
pub(super) struct Ready {
    success: bool,
    status: &'static str,
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checks: Option<Vec<Check>>,
}

/// Every profile, broken ones with their error.
#[utoipa::path(get, path = "/profiles", tag = "server", responses((status = 200, description = "The profiles.", body = Profiles)))]
pub(super) async fn profiles(State(core): State<Shared>, _: NoParams) -> Json<Profiles> {
    let profiles = core.profiles().await;
    Json(Profiles {
        success: true,
        count: profiles.len(),
        profiles,
    })
}

/// Every plugin: version, digest, what it may do in which profile, and its last error.
#[utoipa::path(get, path = "/plugins", tag = "server", responses((status = 200, description = "The plugins.", body = Plugins)))]
pub(super) async fn plugins(State(core): State<Shared>, _: NoParams) -> Json<Plugins> {
    let plugins = core.plugins().await;
    Json(Plugins {
        success: true,
        count: plugins.len(),
        plugins,
    })
}

/// That the server is up, and which it is.
#[utoipa::path(get, path = "/health", tag = "server", responses((status = 200, description = "It is up.", body = Object)))]
pub(super) async fn health(State(core): State<Shared>, _: NoParams) -> Json<Value> {
    Json(json!({
        "status": "ok",
        "service": "agenticore",
        "version": env!("CARGO_PKG_VERSION"),
        "pod": core.config().pod_name,
    }))
}

/// The metrics of this pod.
#[utoipa::path(get, path = "/metrics", tag = "server", responses((status = 200, description = "The metrics, for Prometheus.", body = String, content_type = "text/plain")))]
pub(super) async fn metrics(State(core): State<Shared>, _: NoParams) -> impl IntoResponse {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], core.metrics().await)
}

/// That the process answers. It asks nothing else: a restart would not heal anything else.
#[utoipa::path(get, path = "/livez", tag = "server", responses((status = 200, description = "It answers.", body = Object)))]
pub(super) async fn alive(_: NoParams) -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// Whether the server should get traffic; with `?verbose` each check.
#[utoipa::path(get, path = "/readyz", tag = "server", params(("verbose" = Option<String>, Query, description = "Each check by itself.")), responses((status = 200, description = "It takes jobs.", body = Ready), (status = 503, description = "It takes none, such as in a drain.", body = Ready)))]
pub(super) async fn ready(
    State(core): State<Shared>,
    uri: Uri,
) -> Result<(StatusCode, Json<Ready>), Problem> {
    Params::parse(&uri, &["verbose"])?;
    let verbose = uri.query().is_some_and(|q| q.contains("verbose"));
    let Readiness { ready, checks } = core.readiness().await;
    let failed: Vec<&str> = checks.iter().filter(|c| !c.ok).map(|c| c.name).collect();
    let error = (!ready).then(|| format!("not ready: {}", failed.join(", ")));
    let (code, status) = if ready {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
    };
    let answer = Ready {
        success: ready,
        status,
        ready,
        error,
        checks: verbose.then_some(checks),
    };
    Ok((code, Json(answer)))
}

/// As `/readyz`, under the name that other orchestrators look for.
#[utoipa::path(get, path = "/healthz", tag = "server", params(("verbose" = Option<String>, Query, description = "Each check by itself.")), responses((status = 200, description = "It takes jobs.", body = Ready), (status = 503, description = "It takes none, such as in a drain.", body = Ready)))]
pub(super) async fn healthy(
    state: State<Shared>,
    uri: Uri,
) -> Result<(StatusCode, Json<Ready>), Problem> {
    ready(state, uri).await
}
