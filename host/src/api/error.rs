//! The one place that turns errors into status codes. Layers below know none.

use std::num::NonZeroU32;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::plugin::Code as PluginCode;
use crate::queue::QueueError;
use crate::service::SubmitError;

/// What clients can decide by. The list is closed: a new code is a change of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    /// The body is JSON, but not a valid request.
    InvalidRequest,
    /// The body is not JSON.
    InvalidJson,
    /// A query parameter is unknown, given twice or has a bad value.
    InvalidQuery,
    /// The id in the path is not one.
    InvalidId,
    /// The cursor of a list or a stream is not one.
    InvalidCursor,
    /// The key is missing or wrong.
    Unauthorized,
    /// The key may not do that.
    InsufficientScope,
    /// The key has made too many requests.
    RateLimited,
    /// The `Host` header is not one of this server's names.
    ForbiddenHost,
    /// A web page of another origin asked for a change.
    ForbiddenOrigin,
    /// The profile is for servers on a loopback address only.
    LocalOnlyProfile,
    /// There is no such path.
    NotFound,
    /// There is no such job.
    JobNotFound,
    /// The path exists but does not take the method.
    MethodNotAllowed,
    /// The beginning of an id fits several jobs.
    AmbiguousId,
    /// The key of the submission was used for another request.
    KeyReused,
    /// A submission with the same key is under way.
    KeyInUse,
    /// The job's state does not allow it.
    Conflict,
    /// The body is too large.
    PayloadTooLarge,
    /// The body is not declared as JSON.
    UnsupportedMediaType,
    /// There is no such profile.
    UnknownProfile,
    /// No job has the session.
    UnknownSession,
    /// The profile cannot be used.
    BrokenProfile,
    /// A plugin of the profile is switched off or waits for approval.
    PluginRefused,
    /// Our fault.
    Internal,
    /// The store failed.
    StorageFailed,
    /// A stored record cannot be read.
    RecordDamaged,
    /// The server is about to stop.
    Stopping,
    /// The disk is full.
    StorageFull,
    /// Redis does not answer, or is being rebuilt.
    StoreUnavailable,
}

impl Code {
    fn row(self) -> (StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::InvalidRequest => (S::BAD_REQUEST, "invalid_request"),
            Self::InvalidJson => (S::BAD_REQUEST, "invalid_json"),
            Self::InvalidQuery => (S::BAD_REQUEST, "invalid_query"),
            Self::InvalidId => (S::BAD_REQUEST, "invalid_id"),
            Self::InvalidCursor => (S::BAD_REQUEST, "invalid_cursor"),
            Self::Unauthorized => (S::UNAUTHORIZED, "unauthorized"),
            Self::InsufficientScope => (S::FORBIDDEN, "insufficient_scope"),
            Self::RateLimited => (S::TOO_MANY_REQUESTS, "rate_limited"),
            Self::ForbiddenHost => (S::FORBIDDEN, "forbidden_host"),
            Self::ForbiddenOrigin => (S::FORBIDDEN, "forbidden_origin"),
            Self::LocalOnlyProfile => (S::FORBIDDEN, "local_only_profile"),
            Self::NotFound => (S::NOT_FOUND, "not_found"),
            Self::JobNotFound => (S::NOT_FOUND, "job_not_found"),
            Self::MethodNotAllowed => (S::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::AmbiguousId => (S::CONFLICT, "ambiguous_id"),
            Self::KeyReused => (S::UNPROCESSABLE_ENTITY, "idempotency_key_reused"),
            Self::KeyInUse => (S::CONFLICT, "idempotency_key_in_use"),
            Self::Conflict => (S::CONFLICT, "conflict"),
            Self::PayloadTooLarge => (S::PAYLOAD_TOO_LARGE, "payload_too_large"),
            Self::UnsupportedMediaType => (S::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
            Self::UnknownProfile => (S::UNPROCESSABLE_ENTITY, "unknown_profile"),
            Self::UnknownSession => (S::UNPROCESSABLE_ENTITY, "unknown_session"),
            Self::BrokenProfile => (S::UNPROCESSABLE_ENTITY, "broken_profile"),
            Self::PluginRefused => (S::FORBIDDEN, "plugin_refused"),
            Self::Internal => (S::INTERNAL_SERVER_ERROR, "internal"),
            Self::StorageFailed => (S::INTERNAL_SERVER_ERROR, "storage_failed"),
            Self::RecordDamaged => (S::INTERNAL_SERVER_ERROR, "record_damaged"),
            Self::Stopping => (S::SERVICE_UNAVAILABLE, "stopping"),
            Self::StoreUnavailable => (S::SERVICE_UNAVAILABLE, "store_unavailable"),
            Self::StorageFull => (S::INSUFFICIENT_STORAGE, "storage_full"),
        }
    }
}

/// The type of a problem's body.
pub(super) const PROBLEM: &str = "application/problem+json";

/// An error on its way to the client.
#[derive(Debug)]
pub(super) struct Problem {
    code: Code,
    detail: String,
    candidates: Vec<String>,
    /// Seconds after which it may be tried again.
    retry_after: Option<u64>,
}

/// The body: the members of RFC 9457, ours (`code`, `candidates`), and those that clients of agenticore 0.2.0 read.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Body<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    candidates: &'a [String],
    success: bool,
    error: &'a str,
}

impl Problem {
    /// A problem with a sentence that says what is wrong and what would be right.
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            candidates: Vec::new(),
            retry_after: match code {
                Code::Stopping | Code::KeyInUse | Code::StoreUnavailable => Some(5),
                // Somebody has to make room.
                Code::StorageFull => Some(60),
                _ => None,
            },
        }
    }

    /// One request too many, until `wait` is over.
    pub(super) fn rate_limited(wait: Duration, limit: NonZeroU32) -> Self {
        // A client that comes back within the second would be refused again.
        let seconds = wait.as_secs() + 1;
        let detail = format!(
            "too many requests: {limit} a minute are allowed (AGENTICORE_RATE_LIMIT); come back in {seconds} s"
        );
        Self {
            retry_after: Some(seconds),
            ..Self::new(Code::RateLimited, detail)
        }
    }

    /// The beginning of an id that fits all of `candidates`.
    pub(super) fn ambiguous(given: &str, candidates: Vec<String>) -> Self {
        let list = candidates.join(", ");
        Self {
            candidates,
            ..Self::new(
                Code::AmbiguousId,
                format!("{given:?} fits more than one job, give more of the id: {list}"),
            )
        }
    }

    /// Something that only the operator can do something about.
    pub(super) fn internal(detail: impl Into<String>) -> Self {
        Self::new(Code::Internal, detail)
    }
}

impl From<QueueError> for Problem {
    fn from(e: QueueError) -> Self {
        let code = match &e {
            QueueError::NotFound(_) => Code::JobNotFound,
            QueueError::KeyReused(_) => Code::KeyReused,
            QueueError::KeyInUse => Code::KeyInUse,
            QueueError::LostClaim(_) | QueueError::Illegal(_) => Code::Conflict,
            QueueError::Storage { .. } if e.is_full() => Code::StorageFull,
            QueueError::Storage { .. } => Code::StorageFailed,
            QueueError::Redis { .. } => Code::StoreUnavailable,
            QueueError::Damaged { .. } => Code::RecordDamaged,
        };
        Self::new(code, e.to_string())
    }
}

impl From<SubmitError> for Problem {
    fn from(e: SubmitError) -> Self {
        let code = match e {
            SubmitError::Queue(e) => return e.into(),
            SubmitError::Bad(_) | SubmitError::Key(_) => Code::InvalidRequest,
            SubmitError::UnknownProfile { .. } => Code::UnknownProfile,
            SubmitError::BrokenProfile { .. } => Code::BrokenProfile,
            // Not the operator's word, but that it cannot be read or written.
            SubmitError::Plugin { ref error, .. } if error.code == PluginCode::Host => {
                Code::StorageFailed
            }
            SubmitError::Plugin { .. } => Code::PluginRefused,
            SubmitError::LocalOnly(_) => Code::LocalOnlyProfile,
            SubmitError::UnknownSession(_) => Code::UnknownSession,
            SubmitError::BusySession { .. } | SubmitError::NotEnded(_) => Code::Conflict,
            SubmitError::Stopping => Code::Stopping,
        };
        Self::new(code, e.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, code) = self.code.row();
        if status.is_server_error() && self.code != Code::Stopping {
            tracing::error!(code, "answered {status}: {}", self.detail);
        }
        let body = Body {
            r#type: format!("urn:agenticore:problem:{code}"),
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: &self.detail,
            code,
            candidates: &self.candidates,
            success: false,
            error: &self.detail,
        };
        let mut response = (status, axum::Json(body)).into_response();
        let headers = response.headers_mut();
        let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
        set(header::CONTENT_TYPE, PROBLEM);
        match self.code {
            Code::Unauthorized => {
                set(header::WWW_AUTHENTICATE, r#"Bearer realm="agenticore""#);
            }
            Code::InsufficientScope => {
                set(
                    header::WWW_AUTHENTICATE,
                    r#"Bearer realm="agenticore", error="insufficient_scope""#,
                );
            }
            // The body is not read to its end, so the connection cannot be used again.
            Code::PayloadTooLarge => {
                set(header::CONNECTION, "close");
            }
            _ => {}
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
