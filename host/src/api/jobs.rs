//! The paths of jobs: submit, list, show, cancel.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Serialize;
use tracing::Instrument;
use utoipa::ToSchema;

use super::Shared;
use super::error::{Body, Code, PROBLEM, Problem};
use super::follow::{Follower, Start};
use super::input::{JsonBody, NoParams, Params, Target, bad};
use crate::job::{Idempotency, JobId, Origin, Record, RequestBody, Status};
use crate::queue::{Filter, Page};
use crate::service::{Accepted, SubmitError};
use crate::telemetry::trace;

const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 200;

/// `{"success": true, "job": {...}}`.
#[derive(Serialize, ToSchema)]
#[schema(as = JobAnswer)]
pub(super) struct One {
    success: bool,
    job: Record,
}

impl From<Record> for Json<One> {
    fn from(job: Record) -> Self {
        Json(One { success: true, job })
    }
}

/// `{"success": true, "count": n, "jobs": [...], "next_cursor": ...}`.
#[derive(Serialize, ToSchema)]
#[schema(as = JobPage)]
pub(super) struct Many {
    success: bool,
    count: usize,
    jobs: Vec<Record>,
    /// Set when there may be more jobs: the value of `cursor` for the next page. Its form is nobody's business.
    #[schema(value_type = Option<String>)]
    next_cursor: Option<JobId>,
}

/// Queues a job and answers at once, or, with `wait: true`, when the job has ended or the server stops.
///
/// The status is 200 and not 201, as it has always been: scripts compare with it. `Location` names the job all the same.
///
/// With an `Idempotency-Key` the job is made once, however often the request is sent.
#[utoipa::path(post, path = "/jobs", tag = "jobs", request_body = RequestBody, params(("Idempotency-Key" = Option<String>, Header, description = "The same request under the same key is accepted once within 24 hours.", min_length = 1, max_length = 255), ("traceparent" = Option<String>, Header, description = "The trace that the job belongs to (W3C).")), responses((status = 200, description = "The job.", body = One, headers(("Location", description = "Where the job is."), ("Idempotency-Replayed", description = "`true` where an earlier submission under the key is answered."))),
        (status = 409, description = "A submission under the same key is under way, or the job or its session is still at work.", body = Body<'_>, content_type = PROBLEM),
        (status = 422, description = "There is no such profile or session, or the key was used for another request.", body = Body<'_>, content_type = PROBLEM),
        (status = 507, description = "The disk is full.", body = Body<'_>, content_type = PROBLEM)))]
pub(super) async fn submit(
    State(core): State<Shared>,
    _: NoParams,
    headers: HeaderMap,
    JsonBody(body): JsonBody<RequestBody>,
) -> Result<Response, Problem> {
    let wait = body.wait;
    let origin = Origin {
        idempotency: key(&headers)?
            .map(|key| Idempotency::of(key, &body, None))
            .transpose()
            .map_err(SubmitError::from)?,
        trace: trace::incoming(&headers),
        retry_of: None,
    };
    let accepting = core.clone();
    let mut accepted = to_its_end(async move { accepting.submit_from(body, origin).await }).await?;
    if wait {
        let id = accepted.record.id.parse().map_err(|e| {
            Problem::internal(format!(
                "the job was accepted, but its record is damaged: {e}"
            ))
        })?;
        accepted.record = ended(core, id).await?;
    }
    Ok(answer(accepted))
}

/// Queues a new job with the request of one that is over, which stays as it is.
#[utoipa::path(post, path = "/jobs/{id}/retry", tag = "jobs", params(("id" = String, Path, description = "The job's id, or at least the first six characters of it.", pattern = "^[0-9A-Fa-f]{6,8}(-[0-9A-Fa-f-]{0,27})?$"), ("Idempotency-Key" = Option<String>, Header, description = "The same request under the same key is accepted once within 24 hours.", min_length = 1, max_length = 255), ("traceparent" = Option<String>, Header, description = "The trace that the job belongs to (W3C).")), responses((status = 200, description = "The job.", body = One, headers(("Location", description = "Where the job is."), ("Idempotency-Replayed", description = "`true` where an earlier submission under the key is answered."))),
        (status = 409, description = "A submission under the same key is under way, or the job or its session is still at work.", body = Body<'_>, content_type = PROBLEM),
        (status = 422, description = "There is no such profile or session, or the key was used for another request.", body = Body<'_>, content_type = PROBLEM),
        (status = 507, description = "The disk is full.", body = Body<'_>, content_type = PROBLEM)))]
pub(super) async fn retry(
    State(core): State<Shared>,
    _: NoParams,
    Target(id): Target,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let key = key(&headers)?.map(str::to_owned);
    let trace = trace::incoming(&headers);
    let accepted = to_its_end(async move { core.retry(id, key.as_deref(), trace).await }).await?;
    Ok(answer(accepted))
}

fn key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut given = headers.get_all("idempotency-key").iter();
    match (given.next(), given.next()) {
        (None, _) => Ok(None),
        // What is not text is refused as a key.
        (Some(one), None) => Ok(Some(one.to_str().unwrap_or_default())),
        (Some(_), Some(_)) => Err(Problem::new(
            Code::InvalidRequest,
            "the header Idempotency-Key is given twice",
        )),
    }
}

fn answer(Accepted { record, replayed }: Accepted) -> Response {
    let location = [(header::LOCATION, format!("/jobs/{}", record.id))];
    let replayed = replayed.then_some([("idempotency-replayed", "true")]);
    let answer: Json<One> = record.into();
    (StatusCode::OK, location, replayed, answer).into_response()
}

/// A client that goes away drops the handler; a task of its own keeps it from stopping halfway through.
async fn to_its_end(
    accepting: impl Future<Output = Result<Accepted, SubmitError>> + Send + 'static,
) -> Result<Accepted, Problem> {
    match tokio::spawn(accepting.in_current_span()).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Problem::internal(
            "the server failed while it accepted the job; its log says more",
        )),
    }
}

/// The record once the job is over, or as it stands when the server stops.
async fn ended(core: Shared, id: JobId) -> Result<Record, Problem> {
    if let Start::Follow(mut follower) = Follower::open(core.clone(), id, 0).await? {
        let to_the_end = async {
            while follower.next().await?.is_some() {}
            Ok::<(), Problem>(())
        };
        if let Some(result) = core.stopping().run_until_cancelled(to_the_end).await {
            result?;
        }
    }
    Ok(core.queue().get(id).await?)
}

/// A page of jobs, the newest first.
#[utoipa::path(get, path = "/jobs", tag = "jobs", params(
    ("limit" = Option<usize>, Query, description = "How many.", minimum = 1, maximum = 200),
    ("status" = Option<Vec<Status>>, Query, description = "Only these statuses; also several in one, with commas."),
    ("profile" = Option<String>, Query, description = "Only of this profile."),
    ("repo" = Option<String>, Query, description = "Only of this repository, as records show it."),
    ("pod" = Option<String>, Query, description = "Only of this pod."),
    ("session_id" = Option<String>, Query, description = "Only of this session of an agent."),
    ("since" = Option<Timestamp>, Query, description = "Only those accepted since."),
    ("text" = Option<String>, Query, description = "Only those whose task contains this."),
    ("cursor" = Option<String>, Query, description = "The `next_cursor` of the page before.", pattern = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"),
    ), responses((status = 200, description = "A page.", body = Many)))]
pub(super) async fn list(State(core): State<Shared>, uri: Uri) -> Result<Json<Many>, Problem> {
    let Page { jobs, next } = core.queue().list(&filter(&uri)?).await?;
    Ok(Json(Many {
        success: true,
        count: jobs.len(),
        jobs,
        next_cursor: next,
    }))
}

fn filter(uri: &Uri) -> Result<Filter, Problem> {
    const KNOWN: [&str; 9] = [
        "limit",
        "status",
        "profile",
        "repo",
        "pod",
        "session_id",
        "since",
        "text",
        "cursor",
    ];
    let params = Params::parse(uri, &KNOWN)?;
    let text = |name| Ok::<_, Problem>(params.one(name)?.map(str::to_owned));
    Ok(Filter {
        limit: limit(&params)?,
        statuses: statuses(&params)?,
        profile: text("profile")?,
        repo: text("repo")?,
        pod: text("pod")?,
        session: params.parsed("session_id", "the id of an agent's session")?,
        since: params.parsed::<Timestamp>(
            "since",
            "a time such as 2026-11-22T10:00:00Z (a + in it is written %2B)",
        )?,
        text: text("text")?,
        after: cursor(&params)?,
    })
}

fn limit(params: &Params) -> Result<usize, Problem> {
    let rule = format!("a number from 1 to {MAX_LIMIT}");
    match params.parsed("limit", &rule)? {
        None => Ok(DEFAULT_LIMIT),
        Some(limit) if (1..=MAX_LIMIT).contains(&limit) => Ok(limit),
        Some(limit) => Err(bad("limit", &limit.to_string(), &rule)),
    }
}

fn statuses(params: &Params) -> Result<Vec<Status>, Problem> {
    let words = params.all("status").flat_map(|value| value.split(','));
    let given = words.map(str::trim).filter(|word| !word.is_empty());
    given
        .map(|word| {
            word.parse()
                .map_err(|e: String| Problem::new(Code::InvalidQuery, e))
        })
        .collect()
}

fn cursor(params: &Params) -> Result<Option<JobId>, Problem> {
    let Some(text) = params.one("cursor")? else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|_| {
        Problem::new(
            Code::InvalidCursor,
            "the cursor is not one: it must be the next_cursor of the page before",
        )
    })
}

/// The job.
#[utoipa::path(get, path = "/jobs/{id}", tag = "jobs", params(("id" = String, Path, description = "The job's id, or at least the first six characters of it.", pattern = "^[0-9A-Fa-f]{6,8}(-[0-9A-Fa-f-]{0,27})?$")), responses((status = 200, description = "The job.", body = One)))]
pub(super) async fn show(
    State(core): State<Shared>,
    _: NoParams,
    Target(id): Target,
) -> Result<Json<One>, Problem> {
    Ok(core.queue().get(id).await?.into())
}

/// Cancels the job; one that is over stays as it is. The record tells which.
#[utoipa::path(delete, path = "/jobs/{id}", tag = "jobs", params(("id" = String, Path, description = "The job's id, or at least the first six characters of it.", pattern = "^[0-9A-Fa-f]{6,8}(-[0-9A-Fa-f-]{0,27})?$")), responses((status = 200, description = "The job as it is now.", body = One)))]
pub(super) async fn cancel(
    State(core): State<Shared>,
    _: NoParams,
    Target(id): Target,
) -> Result<Json<One>, Problem> {
    Ok(core.queue().cancel(id).await?.into())
}
