//! Draining the pod that answers.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Shared;
use super::error::{Code, Problem};
use super::input::{JsonBody, NoParams};
use crate::drain::{DrainStatus, LONGEST_DRAIN};

/// The longest drain, in seconds.
const MAX_SECONDS: u64 = LONGEST_DRAIN.as_secs();

/// What to drain with.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = DrainRequest)]
pub(super) struct Body {
    /// Seconds until the drain must be over; none: the server's own (`AGENTICORE_DRAIN_TIMEOUT`).
    timeout_seconds: Option<u64>,
}

/// `{"success": true, "drain": {...}}`.
#[derive(Serialize, ToSchema)]
#[schema(as = DrainAnswer)]
pub(super) struct Answer {
    success: bool,
    drain: DrainStatus,
}

/// Begins to drain, and answers at once.
#[utoipa::path(post, path = "/drain", tag = "server", operation_id = "drain", request_body = Body, responses((status = 202, description = "The drain has begun.", body = Answer)))]
pub(super) async fn begin(
    State(core): State<Shared>,
    _: NoParams,
    JsonBody(body): JsonBody<Body>,
) -> Result<(StatusCode, Json<Answer>), Problem> {
    let timeout = match body.timeout_seconds {
        None => core.config().drain_timeout,
        Some(seconds) if seconds <= MAX_SECONDS => Duration::from_secs(seconds),
        Some(seconds) => {
            return Err(Problem::new(
                Code::InvalidRequest,
                format!("`timeout_seconds` is {seconds}; it must be 0 to {MAX_SECONDS}"),
            ));
        }
    };
    core.drain().begin(timeout);
    Ok((StatusCode::ACCEPTED, answer(&core)))
}

/// How far the drain is.
#[utoipa::path(get, path = "/drain", tag = "server", operation_id = "drain_status", responses((status = 200, description = "How far it is.", body = Answer)))]
pub(super) async fn show(State(core): State<Shared>, _: NoParams) -> Json<Answer> {
    answer(&core)
}

/// Takes the drain back.
#[utoipa::path(delete, path = "/drain", tag = "server", operation_id = "undrain", responses((status = 200, description = "The pod takes jobs again.", body = Answer)))]
pub(super) async fn cancel(
    State(core): State<Shared>,
    _: NoParams,
) -> Result<Json<Answer>, Problem> {
    if core.stopping().is_cancelled() {
        return Err(Problem::new(
            Code::Stopping,
            "this server is stopping; its drain cannot be taken back",
        ));
    }
    core.drain().cancel();
    Ok(answer(&core))
}

fn answer(core: &Shared) -> Json<Answer> {
    Json(Answer {
        success: true,
        drain: core.drain().status(),
    })
}
