//! `GET /jobs/{id}/events`: the stream of one job in three forms.
//!
//! - `sse`, the default: `id`, `event` and one line of JSON for each event, a comment every 15 seconds while nothing happens.
//! - `ndjson`: the same events as lines, to the end of the job, or with `follow=false` to the last one that is stored.
//! - `json`: a page at a time for pollers; `wait` holds the answer for up to 30 seconds until there is something to say.
//!
//! A reader says where it stands with `Last-Event-ID` or, failing that, `after`. The forms for streams answer 204 to a reader that has
//! all of a stream that is over: an `EventSource` stops for good then. A server that stops closes streams without an `end`, and
//! readers resume elsewhere.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::sse::{Event as Frame, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt, stream};
use serde::Serialize;
use utoipa::ToSchema;

use super::Shared;
use super::error::{Code, Problem};
use super::follow::{Follower, Item, Start};
use super::input::{Params, Target, bad};
use crate::job::{Event, JobId};
use crate::telemetry::metrics::SseSession;

/// How long a reader waits before it comes back.
const RETRY: Duration = Duration::from_secs(2);
/// How often a silent stream shows that it is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The longest wait of a poller, in seconds.
const MAX_WAIT: u64 = 30;

/// What a reader asked for.
enum Form {
    Sse,
    Lines { follow: bool },
    Page { wait: Duration },
}

/// `{"success": true, "events": [...], "next": n, "ended": false}`.
#[derive(Serialize, ToSchema)]
#[schema(as = EventPage)]
struct Page {
    success: bool,
    #[schema(value_type = Vec<Event>)]
    events: Vec<Item>,
    /// The value of `after` for the next page.
    next: u64,
    /// Whether nothing follows.
    ended: bool,
}

/// The events of a job.
#[utoipa::path(get, path = "/jobs/{id}/events", tag = "jobs", params(("id" = String, Path, description = "The job's id, or at least the first six characters of it.", pattern = "^[0-9A-Fa-f]{6,8}(-[0-9A-Fa-f-]{0,27})?$"),
    ("format" = Option<String>, Query, description = "`sse` (the default), `ndjson` or `json`.", pattern = "^(sse|ndjson|json)$"),
    ("after" = Option<u64>, Query, description = "The number of the last event the reader has."),
    ("follow" = Option<bool>, Query, description = "With `ndjson`: whether to go on to the job's end."),
    ("wait" = Option<u64>, Query, description = "With `json`: seconds to wait for something to say.", maximum = 30),
    ("Last-Event-ID" = Option<String>, Header, description = "As `after`; it wins."),
    ), responses(
    (status = 200, description = "The events after the last one the reader has.", content((Event = "text/event-stream"), (Event = "application/x-ndjson"), (Page = "application/json"))),
    (status = 204, description = "The stream is over, and the reader has all of it.")
    ))]
pub(super) async fn events(
    State(core): State<Shared>,
    Target(id): Target,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let params = Params::parse(&uri, &["format", "after", "follow", "wait"])?;
    let form = form(&params)?;
    let after = after(&params, &headers)?;
    let start = Follower::open(core.clone(), id, after).await?;
    if let Form::Page { wait } = form {
        return Ok(page(&core, start, wait).await?.into_response());
    }
    let Start::Follow(follower) = start else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let mut response = match form {
        Form::Lines { follow } => lines(batches(&core, id, follower, follow)),
        _ => sse(batches(&core, id, follower, true), KEEP_ALIVE),
    };
    never_buffered(response.headers_mut());
    Ok(response)
}

/// Whatever stands between must pass each frame on as it comes.
pub(super) fn never_buffered(headers: &mut HeaderMap) {
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, no-transform"),
    );
    headers.insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
}

fn form(params: &Params) -> Result<Form, Problem> {
    let follow = params.parsed("follow", "true or false")?;
    let wait = params.parsed::<u64>("wait", "a number of seconds from 0 to 30")?;
    let only = |name, format| {
        Problem::new(
            Code::InvalidQuery,
            format!("the parameter {name} belongs to format={format}"),
        )
    };
    match (params.one("format")?.unwrap_or("sse"), follow, wait) {
        ("sse" | "json", Some(_), _) => Err(only("follow", "ndjson")),
        ("sse" | "ndjson", _, Some(_)) => Err(only("wait", "json")),
        ("sse", ..) => Ok(Form::Sse),
        ("ndjson", follow, _) => Ok(Form::Lines {
            follow: follow.unwrap_or(true),
        }),
        ("json", _, wait) => match wait.unwrap_or(0) {
            wait if wait <= MAX_WAIT => Ok(Form::Page {
                wait: Duration::from_secs(wait),
            }),
            wait => Err(bad(
                "wait",
                &wait.to_string(),
                "a number of seconds from 0 to 30",
            )),
        },
        (other, ..) => Err(bad("format", other, "sse, ndjson or json")),
    }
}

/// The number of the last event the reader has. The header wins: an `EventSource` that comes back repeats its first address.
fn after(params: &Params, headers: &HeaderMap) -> Result<u64, Problem> {
    let text = match headers.get("last-event-id").filter(|v| !v.is_empty()) {
        Some(value) => value.to_str().unwrap_or("(unreadable)"),
        None => params.one("after")?.unwrap_or("0"),
    };
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(|| {
        let given: String = text.chars().take(80).collect();
        Problem::new(
            Code::InvalidCursor,
            format!("{given:?} is no event's number: Last-Event-ID and after take the seq of an event, or 0"),
        )
    })
}

/// Batches of events until the end, the server's stop, or an error of the store. The reader then resumes from its last event.
fn batches(
    core: &Shared,
    id: JobId,
    follower: Follower,
    follow: bool,
) -> impl Stream<Item = Vec<Item>> + Send + use<> {
    let batches = stream::unfold(follower, move |mut follower| async move {
        let batch = if follow {
            follower.next().await
        } else {
            follower
                .read()
                .await
                .map(|items| (!items.is_empty()).then_some(items))
        };
        match batch {
            Ok(batch) => batch.map(|items| (items, follower)),
            Err(e) => {
                tracing::warn!(job.id = %id, "closed the stream of job {id}: {e}");
                None
            }
        }
    });
    batches.take_until(core.stopping().clone().cancelled_owned())
}

/// Frames for an `EventSource`, and a comment whenever nothing was sent for `keep_alive`.
pub(super) fn sse(
    batches: impl Stream<Item = Vec<Item>> + Send + 'static,
    keep_alive: Duration,
) -> Response {
    let retry = stream::once(async { Ok(Frame::default().retry(RETRY)) });
    let session = SseSession::open();
    let events = batches.flat_map(stream::iter).map(move |item| {
        // Counted for as long as the stream lives.
        let _open = &session;
        let event = item.event();
        Frame::default()
            .id(event.seq.to_string())
            .event(event.body.name())
            .json_data(&item)
    });
    Sse::new(retry.chain(events))
        .keep_alive(KeepAlive::new().interval(keep_alive).text("keep-alive"))
        .into_response()
}

fn lines(batches: impl Stream<Item = Vec<Item>> + Send + 'static) -> Response {
    let chunks = batches.map(|items| {
        let mut chunk = Vec::new();
        for item in &items {
            serde_json::to_writer(&mut chunk, item)?;
            chunk.push(b'\n');
        }
        Ok::<_, serde_json::Error>(chunk)
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    (kind, Body::from_stream(chunks)).into_response()
}

async fn page(core: &Shared, start: Start, wait: Duration) -> Result<impl IntoResponse, Problem> {
    let (events, next, ended) = match start {
        Start::Over { last } => (Vec::new(), last, true),
        Start::Follow(mut follower) => {
            let mut events = follower.read().await?;
            if events.is_empty() && !wait.is_zero() {
                let next = core.stopping().run_until_cancelled(follower.next());
                if let Ok(Some(next)) = tokio::time::timeout(wait, next).await {
                    events = next?.unwrap_or_default();
                }
            }
            let ended = events.last().is_some_and(Item::is_end);
            (events, follower.position(), ended)
        }
    };
    let page = Page {
        success: true,
        events,
        next,
        ended,
    };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(page)))
}
