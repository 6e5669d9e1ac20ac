//! The pods of the fleet, and what waits.

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::Serialize;

use super::Shared;
use super::error::Problem;
use crate::job::{Record, Status};
use crate::queue::Filter;
use crate::queue::redis::PodInfo;

/// How many waiting jobs are shown.
const SHOWN: usize = 50;

/// `{"success": true, "count": n, "pods": [...]}`.
#[derive(Serialize)]
pub(super) struct Pods {
    success: bool,
    count: usize,
    pods: Vec<PodInfo>,
}

/// `{"success": true, "queued": n, "running": n, "oldest_seconds": s, "jobs": [...]}`: the newest that wait, the next one first.
#[derive(Serialize)]
pub(super) struct Waiting {
    success: bool,
    queued: usize,
    running: usize,
    /// How long the first in the queue has waited.
    oldest_seconds: Option<f64>,
    jobs: Vec<Record>,
}

/// Every pod, by its name; a server without a fleet is the only one.
pub(super) async fn pods(State(core): State<Shared>) -> Json<Pods> {
    let mut pods = core.pods();
    pods.sort_by(|a, b| (a.facts.ordinal, &a.life).cmp(&(b.facts.ordinal, &b.life)));
    Json(Pods {
        success: true,
        count: pods.len(),
        pods,
    })
}

/// How full the queue is, and what waits in it.
pub(super) async fn queue(State(core): State<Shared>) -> Result<Json<Waiting>, Problem> {
    let depth = core.queue().depth().await;
    let filter = Filter {
        limit: SHOWN,
        statuses: vec![Status::Queued],
        ..Filter::default()
    };
    let mut jobs = core.queue().list(&filter).await?.jobs;
    // What was put back stands in front.
    jobs.sort_by_key(|job| (job.attempt == 0, job.queued_at));
    let now = Timestamp::now();
    Ok(Json(Waiting {
        success: true,
        queued: depth.queued,
        running: depth.running,
        oldest_seconds: depth
            .oldest
            .map(|since| now.duration_since(since).as_secs_f64().max(0.0)),
        jobs,
    }))
}
