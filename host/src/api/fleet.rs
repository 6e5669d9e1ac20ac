//! The pods of the fleet, what waits, and the stream of all that changes.

use std::collections::VecDeque;
use std::time::Duration;

use async_stream::stream;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::sse::{Event as Frame, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use utoipa::ToSchema;

use super::Shared;
use super::error::{Code, Problem};
use super::input::{NoParams, Params};
use crate::job::{Record, Status};
use crate::queue::redis::PodInfo;
use crate::queue::{Changed, Filter};

/// How many waiting jobs are shown.
const SHOWN: usize = 50;
/// How often the pods and the queue are looked at for those who follow the fleet.
const LOOK: Duration = Duration::from_secs(1);
/// How often a silent stream shows that it is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// `{"success": true, "count": n, "pods": [...]}`.
#[derive(Serialize, ToSchema)]
#[schema(as = PodList)]
pub(super) struct Pods {
    success: bool,
    count: usize,
    pods: Vec<PodInfo>,
}

/// `{"success": true, "queued": n, "running": n, "oldest_seconds": s, "jobs": [...]}`: the newest that wait, the next one first.
#[derive(Serialize, ToSchema)]
#[schema(as = QueueAnswer)]
pub(super) struct Waiting {
    success: bool,
    queued: usize,
    running: usize,
    /// How long the first in the queue has waited.
    oldest_seconds: Option<f64>,
    /// What is wrong with the store; the numbers are what it said last then.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
    jobs: Vec<Record>,
}

/// Every pod, by its name; a server without a fleet is the only one.
#[utoipa::path(get, path = "/pods", tag = "fleet", responses((status = 200, description = "The pods.", body = Pods)))]
pub(super) async fn pods(State(core): State<Shared>, _: NoParams) -> Json<Pods> {
    let mut pods = core.pods();
    pods.sort_by(|a, b| (a.facts.ordinal, &a.life).cmp(&(b.facts.ordinal, &b.life)));
    Json(Pods {
        success: true,
        count: pods.len(),
        pods,
    })
}

/// How full the queue is, and what waits in it.
#[utoipa::path(get, path = "/queue", tag = "fleet", responses((status = 200, description = "The queue.", body = Waiting)))]
pub(super) async fn queue(
    State(core): State<Shared>,
    _: NoParams,
) -> Result<Json<Waiting>, Problem> {
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
        trouble: core.queue().trouble(),
        jobs,
    }))
}

/// `GET /events`: `status` for each change of a job's status, `queue` and `pods` whenever they look different; SSE.
///
/// A frame's id is the place of its change; who comes back with `Last-Event-ID` (or `after`) gets what was missed, or `reset` where
/// that is not known any more: then lists must be read again.
#[utoipa::path(get, path = "/events", tag = "fleet", operation_id = "changes", params(
    ("after" = Option<String>, Query, description = "The id of the last frame the reader has."),
    ("Last-Event-ID" = Option<String>, Header, description = "As `after`; it wins."),
    ), responses((status = 200, description = "Changes as they come.", body = String, content_type = "text/event-stream")))]
pub(super) async fn events(
    State(core): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let after = after(&Params::parse(&uri, &["after"])?, &headers)?;
    let stopping = core.stopping().clone().cancelled_owned();
    let frames = follow(core, after).take_until(stopping);
    let mut response = Sse::new(frames)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive"))
        .into_response();
    super::events::never_buffered(response.headers_mut());
    Ok(response)
}

/// The place that the reader has come to. The header wins: an `EventSource` that comes back repeats its first address.
fn after(params: &Params, headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let text = match headers.get("last-event-id").filter(|v| !v.is_empty()) {
        Some(value) => Some(value.to_str().unwrap_or("(unreadable)")),
        None => params.one("after")?,
    };
    let Some(text) = text else { return Ok(None) };
    if is_place(text) {
        return Ok(Some(text.to_owned()));
    }
    let given: String = text.chars().take(80).collect();
    Err(Problem::new(
        Code::InvalidCursor,
        format!(
            "{given:?} is no place in this stream: Last-Event-ID and after take the id of a frame as it was sent"
        ),
    ))
}

/// Whether a text has the form that every store gives to places: which life of the stream, and which change in it.
fn is_place(text: &str) -> bool {
    let hex = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
    text.len() <= 64
        && text
            .split_once('-')
            .is_some_and(|(life, n)| hex(life) && n.parse::<u64>().is_ok())
}

fn follow(
    core: Shared,
    after: Option<String>,
) -> impl Stream<Item = Result<Frame, axum::Error>> + Send + use<> {
    // Subscribed before what was missed is read: what comes in between is in both, and told once.
    let mut changes = core.queue().changes();
    stream! {
        let mut missed = VecDeque::new();
        if let Some(after) = after {
            match core.queue().changes_after(&after).await {
                Ok(Some(found)) => missed.extend(found),
                Ok(None) | Err(_) => yield reset(),
            }
        }
        for changed in &missed {
            if let Some(frame) = told(changed) {
                yield frame;
            }
        }
        let mut look = tokio::time::interval(LOOK);
        let (mut queue, mut pods) = (Value::Null, Value::Null);
        loop {
            tokio::select! {
                changed = changes.recv() => match changed {
                    Ok(changed) if missed.contains(&changed) => {}
                    Ok(changed) => if let Some(frame) = told(&changed) {
                        yield frame;
                    },
                    Err(RecvError::Lagged(_)) => yield reset(),
                    Err(RecvError::Closed) => return,
                },
                _ = look.tick() => {
                    missed.clear();
                    let depth = core.queue().depth().await;
                    let now = json!({"queued": depth.queued, "running": depth.running});
                    if std::mem::replace(&mut queue, now.clone()) != now {
                        yield Frame::default().event("queue").json_data(&now);
                    }
                    let now = pods_now(&core);
                    if std::mem::replace(&mut pods, now.clone()) != now {
                        yield Frame::default().event("pods").json_data(&now);
                    }
                }
            }
        }
    }
}

/// What of the pods is worth a frame: not that they were seen again.
fn pods_now(core: &Shared) -> Value {
    let mut pods: Vec<Value> = core
        .pods()
        .into_iter()
        .map(|pod| {
            json!({
                "pod": pod.facts.pod, "running": pod.facts.running, "slots": pod.facts.slots,
                "draining": pod.facts.draining, "expired": pod.expired, "version": pod.facts.version,
            })
        })
        .collect();
    pods.sort_by_key(|pod| pod.get("pod").map(Value::to_string));
    json!({"pods": pods})
}

/// Lines of output are read from the job's own stream.
fn told(changed: &Changed) -> Option<Result<Frame, axum::Error>> {
    if matches!(changed.kind.as_str(), "events" | "run") {
        return None;
    }
    let data = json!({"job": changed.job, "seq": changed.seq, "kind": changed.kind});
    let frame = Frame::default().id(&changed.at).event("status");
    Some(frame.json_data(data))
}

fn reset() -> Result<Frame, axum::Error> {
    Frame::default().event("reset").json_data(json!({}))
}
