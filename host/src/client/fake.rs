//! A server for tests: records and events as they are set, cut off where a test says.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use crate::job::{Event, EventBody, LogStream, Record, Status};

/// How the next event stream goes wrong.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cut {
    /// It ends after so many events.
    Close(usize),
    /// The connection breaks within the event after so many.
    Break(usize),
    /// The server answers with this status.
    Refuse(u16),
}

#[derive(Default)]
pub(crate) struct World {
    /// By id, in the order of the list.
    pub(crate) jobs: Mutex<BTreeMap<String, Record>>,
    /// By id, JSON lines.
    pub(crate) events: Mutex<BTreeMap<String, Vec<Value>>>,
    pub(crate) cuts: Mutex<VecDeque<Cut>>,
    /// Method, path with query, and the cursor of each request.
    pub(crate) requests: Mutex<Vec<String>>,
    pub(crate) key: Mutex<Option<String>>,
    pub(crate) bodies: Mutex<Vec<Value>>,
}

/// It has a runtime of its own, so that stopping it breaks every connection, as the end of a process does.
pub(crate) struct Fake {
    pub(crate) world: Arc<World>,
    pub(crate) address: SocketAddr,
    runtime: Option<Runtime>,
}

pub(crate) const ID: &str = "0b6ad2a4-6d0a-4f0e-9a49-3d7f4b8f2c11";

impl Fake {
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), Arc::default()).await
    }

    pub(crate) async fn start_at(address: SocketAddr, world: Arc<World>) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let router = router(Arc::clone(&world));
        let (bound, address) = (runtime.spawn(TcpListener::bind(address)), address);
        let listener = bound
            .await
            .unwrap()
            .unwrap_or_else(|e| panic!("{address}: {e}"));
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move { axum::serve(listener, router).await });
        let runtime = Some(runtime);
        Self {
            world,
            address,
            runtime,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Puts a job there with these log lines, ended if there is a status for it.
    pub(crate) fn job(&self, id: &str, lines: &[&str], end: Option<Status>) {
        let record = Record {
            id: id.into(),
            task: "do it".into(),
            profile: "shell".into(),
            status: end.unwrap_or(Status::Running),
            ..Record::default()
        };
        let mut bodies: Vec<EventBody> = lines
            .iter()
            .map(|text| EventBody::Log {
                stream: LogStream::Agent,
                text: (*text).into(),
            })
            .collect();
        bodies.extend(end.map(|status| EventBody::End {
            status,
            exit_code: None,
            failure: None,
            attempt: 1,
            cost_usd: 0.0,
            pr_url: None,
        }));
        let events = (1..).zip(bodies).map(|(seq, body)| {
            let ts = "2026-11-22T10:00:00Z".parse().unwrap();
            serde_json::to_value(Event { seq, ts, body }).unwrap()
        });
        self.world
            .events
            .lock()
            .unwrap()
            .insert(id.into(), events.collect());
        self.world.jobs.lock().unwrap().insert(id.into(), record);
    }

    pub(crate) fn cut(&self, cuts: &[Cut]) {
        self.world.cuts.lock().unwrap().extend(cuts);
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.world.requests.lock().unwrap().clone()
    }

    /// Stops it and breaks its connections; the address can be used again.
    pub(crate) async fn stop(mut self) -> (SocketAddr, Arc<World>) {
        let runtime = self.runtime.take();
        tokio::task::spawn_blocking(move || drop(runtime))
            .await
            .unwrap();
        (self.address, Arc::clone(&self.world))
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn router(world: Arc<World>) -> Router {
    Router::new()
        .route(
            "/health",
            get(async || Json(json!({"status": "ok", "service": "agenticore"}))),
        )
        .route(
            "/readyz",
            get(async || Json(json!({"ready": true, "checks": []}))),
        )
        .route(
            "/profiles",
            get(async || Json(json!({"success": true, "profiles": [{"name": "shell"}]}))),
        )
        .route("/jobs", post(submit).get(list))
        .route("/jobs/{id}", get(job).delete(cancel))
        .route("/jobs/{id}/events", get(events))
        .layer(axum::middleware::from_fn_with_state(
            Arc::clone(&world),
            note,
        ))
        .with_state(world)
}

async fn note(
    State(world): State<Arc<World>>,
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> Response {
    if !admit(
        &world,
        request.method().as_str(),
        &request.uri().to_string(),
        request.headers(),
    ) {
        return problem(401, "unauthorized", "Invalid or missing API key");
    }
    next.run(request).await
}

/// Notes the request; says whether its key is right.
fn admit(world: &World, method: &str, uri: &str, headers: &HeaderMap) -> bool {
    let header = |name: &str| headers.get(name).map(|v| v.to_str().unwrap().to_owned());
    let cursor = header("last-event-id")
        .map(|c| format!(" @{c}"))
        .unwrap_or_default();
    world
        .requests
        .lock()
        .unwrap()
        .push(format!("{method} {uri}{cursor}"));
    let needed = world.key.lock().unwrap().clone();
    needed.is_none() || header("x-api-key") == needed
}

fn problem(status: u16, code: &str, detail: &str) -> Response {
    let body = json!({"success": false, "error": detail, "code": code, "detail": detail, "status": status});
    (StatusCode::from_u16(status).unwrap(), Json(body)).into_response()
}

fn answer(record: &Record) -> Response {
    Json(json!({"success": true, "job": record})).into_response()
}

async fn submit(State(world): State<Arc<World>>, Json(body): Json<Value>) -> Response {
    let task = body["task"].as_str().unwrap().to_owned();
    world.bodies.lock().unwrap().push(body);
    if task == "refuse" {
        return problem(
            422,
            "unknown_profile",
            "unknown profile \"x\"; known profiles: code, shell",
        );
    }
    let known = world.jobs.lock().unwrap().get(ID).cloned();
    answer(&Record {
        status: Status::Queued,
        id: ID.into(),
        ..known.unwrap_or_default()
    })
}

/// Pages of two at most; the cursor is the number of jobs before.
async fn list(State(world): State<Arc<World>>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let number = |name: &str| -> Option<usize> {
        let mut pairs = url::form_urlencoded::parse(query.as_bytes());
        pairs
            .find(|(n, _)| n == name)
            .and_then(|(_, v)| v.parse().ok())
    };
    let (skip, limit) = (
        number("cursor").unwrap_or(0),
        number("limit").unwrap_or(20).min(2),
    );
    let all: Vec<Record> = world.jobs.lock().unwrap().values().rev().cloned().collect();
    let jobs: Vec<_> = all.iter().skip(skip).take(limit).collect();
    let after = skip + jobs.len();
    let next = (after < all.len()).then(|| after.to_string());
    Json(json!({"success": true, "count": jobs.len(), "jobs": jobs, "next_cursor": next}))
        .into_response()
}

/// A job whose record lies in a store that does not answer.
pub(crate) const AWAY: &str = "deadbeef";

fn find(world: &World, prefix: &str) -> Result<Record, Box<Response>> {
    if prefix == AWAY {
        return Err(problem(503, "store_unavailable", "cannot read a job").into());
    }
    let jobs = world.jobs.lock().unwrap();
    let found: Vec<_> = jobs
        .values()
        .filter(|r| r.id.starts_with(prefix))
        .cloned()
        .collect();
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(problem(404, "not_found", "no such job").into()),
        _ => Err(problem(409, "ambiguous_id", "several jobs begin with it").into()),
    }
}

async fn job(State(world): State<Arc<World>>, Path(id): Path<String>) -> Response {
    find(&world, &id).map_or_else(|e| *e, |r| answer(&r))
}

async fn cancel(State(world): State<Arc<World>>, Path(id): Path<String>) -> Response {
    match find(&world, &id) {
        Ok(mut record) => {
            record.status = Status::Cancelled;
            world
                .jobs
                .lock()
                .unwrap()
                .insert(record.id.clone(), record.clone());
            answer(&record)
        }
        Err(e) => *e,
    }
}

async fn events(
    State(world): State<Arc<World>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let cut = world.cuts.lock().unwrap().pop_front();
    if let Some(Cut::Refuse(status)) = cut {
        return problem(status, "refused", "not now");
    }
    let Some(all) = world.events.lock().unwrap().get(&id).cloned() else {
        return problem(404, "not_found", "no such job");
    };
    let ended = all.last().is_some_and(|e| e["type"] == "end");
    let query = query.unwrap_or_default();
    if query.contains("format=json") {
        let after: u64 = query.rsplit_once("after=").unwrap().1.parse().unwrap();
        let page: Vec<Value> = rest(all, after).into_iter().take(2).collect();
        let next = page.last().map_or(after, |e| e["seq"].as_u64().unwrap());
        return Json(json!({"success": true, "events": page, "next": next, "ended": ended}))
            .into_response();
    }
    let after = headers
        .get("last-event-id")
        .map_or(0, |v| v.to_str().unwrap().parse().unwrap());
    let left = rest(all, after);
    if left.is_empty() && ended {
        return StatusCode::NO_CONTENT.into_response();
    }
    let body = Body::from_stream(sse(&left, cut, ended));
    ([("content-type", "text/event-stream")], body).into_response()
}

fn rest(all: Vec<Value>, after: u64) -> Vec<Value> {
    all.into_iter()
        .filter(|e| e["seq"].as_u64().unwrap() > after)
        .collect()
}

/// The events, and then what the cut says; the stream of a job that runs stays open.
fn sse(
    left: &[Value],
    cut: Option<Cut>,
    ended: bool,
) -> impl futures::Stream<Item = io::Result<Bytes>> + use<> {
    let block = |e: &Value| {
        format!(
            "id: {}\nevent: {}\ndata: {e}\n\n",
            e["seq"],
            e["type"].as_str().unwrap()
        )
    };
    let sent = match cut {
        Some(Cut::Close(n) | Cut::Break(n)) => n,
        _ => left.len(),
    };
    let mut chunks = vec![Ok(Bytes::from("retry: 2000\n\n: hello\n\n"))];
    chunks.extend(left.iter().take(sent).map(|e| Ok(Bytes::from(block(e)))));
    if let Some(Cut::Break(n)) = cut {
        let half: String = left
            .get(n)
            .map(block)
            .unwrap_or_default()
            .chars()
            .take(40)
            .collect();
        chunks.push(Ok(Bytes::from(half)));
        chunks.push(Err(io::Error::other("cut")));
    }
    let stays_open = cut.is_none() && !ended;
    // What was sent must leave the server before the connection breaks.
    let paced = stream::iter(chunks).then(async |chunk| {
        tokio::task::yield_now().await;
        chunk
    });
    let open = stream::pending().take(usize::from(stays_open));
    paced.chain(open)
}
