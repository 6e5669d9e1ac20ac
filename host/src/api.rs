//! The HTTP face: REST for jobs and profiles, their event streams, and the probes of an orchestrator.
//!
//! It owns paths, bodies, status codes, keys and the defence against web pages; what a request means is [`Core`]'s business.
//! Success bodies and the record's fields are those of agenticore 0.2.0, errors are `application/problem+json` (RFC 9457).
//!
//! | path | answers |
//! |---|---|
//! | `POST /jobs` | a new job; with `wait: true` once it has ended |
//! | `GET /jobs` | a page of jobs, the newest first |
//! | `GET /jobs/{id}`, `DELETE /jobs/{id}` | the job; cancels it |
//! | `POST /jobs/{id}/retry` | a new job with the request of one that is over |
//! | `GET /jobs/{id}/events` | its events, as SSE, lines or pages |
//! | `GET /pods`, `GET /queue` | the pods of the fleet; what waits |
//! | `GET /events` | what changes in all jobs, the queue and the pods, as SSE |
//! | `GET /profiles` | every profile |
//! | `GET /plugins` | every plugin: version, digest, grants and limits by profile, last error |
//! | `POST /drain`, `GET /drain`, `DELETE /drain` | drains this pod; how far it is; takes it back |
//! | `GET /metrics` | the metrics of this pod, for Prometheus |
//! | `GET /health`, `/livez`, `/readyz`, `/healthz` | how the server is; these need no key |
//! | `GET /openapi.json` | all of this, for programs; it needs no key |

mod drain;
mod error;
mod events;
mod fleet;
mod follow;
mod guard;
mod input;
mod jobs;
mod observe;
mod openapi;
mod status;

#[cfg(test)]
mod tests;

use std::any::Any;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, Uri};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::config::Config;
use crate::drain::Drain;
use crate::job::{JobId, Origin, Record, RequestBody, TraceContext};
use crate::queue::Queue;
use crate::queue::redis::PodInfo;
use crate::service::{Accepted, Readiness, Service, SubmitError};

use error::{Code, Problem};
use guard::Guard;

/// The largest request body, in bytes. A task may have half of it.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// What this face needs of the server.
#[async_trait]
pub trait Core: Send + Sync + 'static {
    /// The settings.
    fn config(&self) -> &Config;

    /// The queue.
    fn queue(&self) -> &dyn Queue;

    /// The pod's drain.
    fn drain(&self) -> &Drain;

    /// Cancelled when the server begins to stop; streams and waits end then.
    fn stopping(&self) -> &CancellationToken;

    /// Checks a request and queues it.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing is stored then.
    async fn submit(&self, body: RequestBody) -> Result<Record, SubmitError> {
        Ok(self.submit_from(body, Origin::default()).await?.record)
    }

    /// As [`Core::submit`], for a request that comes from somewhere.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing is stored then.
    async fn submit_from(&self, body: RequestBody, origin: Origin)
    -> Result<Accepted, SubmitError>;

    /// Queues a new job with the request of one that is over, under a key if one is given.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing is stored then.
    async fn retry(
        &self,
        id: JobId,
        key: Option<&str>,
        trace: Option<TraceContext>,
    ) -> Result<Accepted, SubmitError>;

    /// The pods of the fleet; without one, this server.
    fn pods(&self) -> Vec<PodInfo>;

    /// Every profile, broken ones with their error.
    async fn profiles(&self) -> Vec<Value>;

    /// Every plugin that is part of the program or named by a profile.
    async fn plugins(&self) -> Vec<Value>;

    /// The page of metrics.
    async fn metrics(&self) -> String;

    /// Whether the server should get traffic.
    async fn readiness(&self) -> Readiness;
}

#[async_trait]
impl Core for Service {
    fn config(&self) -> &Config {
        Self::config(self)
    }

    fn queue(&self) -> &dyn Queue {
        Self::queue(self)
    }

    fn drain(&self) -> &Drain {
        Self::drain(self)
    }

    fn stopping(&self) -> &CancellationToken {
        Self::stopping(self)
    }

    async fn submit_from(
        &self,
        body: RequestBody,
        origin: Origin,
    ) -> Result<Accepted, SubmitError> {
        Self::submit_from(self, body, origin).await
    }

    async fn retry(
        &self,
        id: JobId,
        key: Option<&str>,
        trace: Option<TraceContext>,
    ) -> Result<Accepted, SubmitError> {
        Self::retry(self, id, key, trace).await
    }

    async fn metrics(&self) -> String {
        Self::metrics(self).await
    }

    fn pods(&self) -> Vec<PodInfo> {
        Self::pods(self)
    }

    async fn profiles(&self) -> Vec<Value> {
        Self::profiles(self).await
    }

    async fn plugins(&self) -> Vec<Value> {
        Self::plugins(self).await
    }

    async fn readiness(&self) -> Readiness {
        Self::readiness(self).await
    }
}

/// What handlers share.
type Shared = Arc<dyn Core>;

/// Every path of the server over `core`. Keys and the address are read from its settings once, here.
pub fn router(core: impl Core) -> Router {
    let guard = Arc::new(Guard::new(core.config()));
    let core: Shared = Arc::new(core);
    Router::from(routes())
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(core)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn_with_state(guard, guard::check))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(observe::note))
}

/// Every path and its handlers. There is no other way to add one: what is not described does not exist.
fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(jobs::submit, jobs::list))
        .routes(routes!(jobs::show, jobs::cancel))
        .routes(routes!(jobs::retry))
        .routes(routes!(events::events))
        .routes(routes!(fleet::pods))
        .routes(routes!(fleet::queue))
        .routes(routes!(fleet::events))
        .routes(routes!(status::profiles))
        .routes(routes!(status::plugins))
        .routes(routes!(drain::show, drain::begin, drain::cancel))
        .routes(routes!(status::metrics))
        .routes(routes!(status::health))
        .routes(routes!(status::alive))
        .routes(routes!(status::ready))
        .routes(routes!(status::healthy))
        .routes(routes!(openapi::document))
}

async fn unknown_path(uri: Uri) -> Problem {
    Problem::new(
        Code::NotFound,
        format!("there is nothing at {}", uri.path()),
    )
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    Problem::new(
        Code::MethodNotAllowed,
        format!(
            "{} does not take {method}; the Allow header lists what it takes",
            uri.path()
        ),
    )
}

/// The panic hook has already told the log what happened and where.
fn panicked(_payload: Box<dyn Any + Send>) -> Response {
    Problem::internal("the server failed while it answered; its log says more").into_response()
}
