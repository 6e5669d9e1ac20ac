//! What comes in with a request, parsed at the edge: ids in paths, query parameters, bodies.

use std::collections::BTreeSet;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::IntoResponse;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::Shared;
use super::error::{Code, Problem};
use crate::job::JobId;

/// The shortest beginning of an id that is looked up.
const MIN_PREFIX: usize = 6;
/// How many jobs an answer about an ambiguous id names.
const MAX_CANDIDATES: usize = 10;

/// The job a path names: by its id, or by the beginning of it that fits no other job.
pub(super) struct Target(pub(super) JobId);

impl FromRequestParts<Shared> for Target {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, core: &Shared) -> Result<Self, Problem> {
        let Path(text) = Path::<String>::from_request_parts(parts, core)
            .await
            .map_err(|e| Problem::new(Code::InvalidId, e.body_text()))?;
        match text.parse() {
            Ok(id) => Ok(Self(id)),
            Err(_) => resolve(core, &text).await.map(Self),
        }
    }
}

async fn resolve(core: &Shared, text: &str) -> Result<JobId, Problem> {
    let prefix = text.to_ascii_lowercase();
    if prefix.len() < MIN_PREFIX || !begins_an_id(&prefix) {
        let given: String = text.chars().take(80).collect();
        return Err(Problem::new(
            Code::InvalidId,
            format!(
                "{given:?} is no job id: it must be a UUID such as 0b6ad2a4-6d0a-4f0e-9a49-3d7f4b8f2c11, or at least the first \
                 {MIN_PREFIX} characters of one"
            ),
        ));
    }
    let found = core.queue().find(&prefix, MAX_CANDIDATES).await?;
    match found.as_slice() {
        [] => Err(Problem::new(
            Code::JobNotFound,
            format!(
                "no job whose id begins with {prefix}: it never existed or its time to live is over"
            ),
        )),
        [id] => Ok(*id),
        several => Err(Problem::ambiguous(
            &prefix,
            several.iter().map(ToString::to_string).collect(),
        )),
    }
}

/// Whether `text` can be the beginning of a hyphenated UUID.
fn begins_an_id(text: &str) -> bool {
    text.len() < 36
        && text.bytes().enumerate().all(|(i, byte)| match i {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// The parameters of a query. Empty values count as not given; a name that nothing reads is refused, since a mistyped filter would
/// otherwise answer with everything.
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    /// The parameters of `uri`, each of which must be one of `known` or the key.
    pub(super) fn parse(uri: &Uri, known: &[&str]) -> Result<Self, Problem> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|e| Problem::new(Code::InvalidQuery, e.body_text()))?;
        let is_known = |name: &str| name == "api_key" || known.contains(&name);
        let unknown: BTreeSet<&str> = pairs
            .iter()
            .map(|(name, _)| name.as_str())
            .filter(|name| !is_known(name))
            .collect();
        if unknown.is_empty() {
            return Ok(Self(pairs));
        }
        Err(unknown_parameters(&unknown, known))
    }

    /// Every value of `name`.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let of_name = self
            .0
            .iter()
            .filter(move |(n, v)| n == name && !v.is_empty());
        of_name.map(|(_, value)| value.as_str())
    }

    /// The value of `name`, which can be given once.
    pub(super) fn one(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.all(name);
        let first = values.next();
        match values.next() {
            None => Ok(first),
            Some(_) => Err(Problem::new(
                Code::InvalidQuery,
                format!("the parameter {name} is given twice"),
            )),
        }
    }

    /// The value of `name` as a `T`; `rule` says what is right.
    pub(super) fn parsed<T: std::str::FromStr>(
        &self,
        name: &str,
        rule: &str,
    ) -> Result<Option<T>, Problem> {
        let Some(text) = self.one(name)? else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|_| bad(name, text, rule))
    }
}

fn unknown_parameters(unknown: &BTreeSet<&str>, known: &[&str]) -> Problem {
    let shown = unknown.iter().take(MAX_CANDIDATES);
    let names: Vec<String> = shown
        .map(|name| format!("{:?}", name.chars().take(80).collect::<String>()))
        .collect();
    let s = if unknown.len() == 1 { "" } else { "s" };
    let known = match known {
        [] => "this path takes none".to_owned(),
        known => format!("known are: {}", known.join(", ")),
    };
    let names = names.join(", ");
    Problem::new(
        Code::InvalidQuery,
        format!("unknown parameter{s} {names}; {known}"),
    )
}

/// That a request has no parameters but the key, for paths that take none.
pub(super) struct NoParams;

impl<S: Send + Sync> FromRequestParts<S> for NoParams {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Params::parse(&parts.uri, &[]).map(|_| Self)
    }
}

/// A parameter whose value does not fit.
pub(super) fn bad(name: &str, given: &str, rule: &str) -> Problem {
    let given: String = given.chars().take(80).collect();
    Problem::new(
        Code::InvalidQuery,
        format!("{name} is {given:?}: it must be {rule}"),
    )
}

/// A body that is a JSON object.
///
/// It must be declared as JSON: what a page may send to another origin without asking never is.
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Shared> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, core: &Shared) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::new(
                Code::UnsupportedMediaType,
                "the body must be JSON and say so: send the header Content-Type: application/json",
            ));
        }
        if let Some(encoding) = encoding(request.headers()) {
            return Err(Problem::new(
                Code::UnsupportedMediaType,
                format!(
                    "the body must be sent as it is, not in the encoding {encoding:?}: leave the header Content-Encoding out"
                ),
            ));
        }
        let bytes = Bytes::from_request(request, core).await.map_err(|e| {
            let too_large = e.into_response().status() == StatusCode::PAYLOAD_TOO_LARGE;
            if too_large {
                Problem::new(
                    Code::PayloadTooLarge,
                    format!(
                        "the body has more than {} bytes: send less, and put what is large into a file of the repository that the \
                         task names",
                        super::MAX_BODY_BYTES
                    ),
                )
            } else {
                Problem::new(Code::InvalidJson, "the body did not arrive in whole")
            }
        })?;
        parse(&bytes).map(Self)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok());
    let kind = value.and_then(|v| v.split(';').next()).unwrap_or_default();
    let kind = kind.trim().to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

/// How the body is packed, if it is.
fn encoding(headers: &HeaderMap) -> Option<String> {
    let mut given = headers.get_all(header::CONTENT_ENCODING).iter();
    let packed = given.find(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))?;
    Some(
        String::from_utf8_lossy(packed.as_bytes())
            .chars()
            .take(80)
            .collect(),
    )
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let not_json = |e: serde_json::Error| {
        Problem::new(Code::InvalidJson, format!("the body is not JSON: {e}"))
    };
    let is_object = bytes.trim_ascii_start().first() == Some(&b'{');
    let no_object = || {
        Problem::new(
            Code::InvalidRequest,
            "the body is not a valid request: it must be a JSON object",
        )
    };
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let body =
        serde_path_to_error::deserialize(&mut json).map_err(|e| match e.inner().classify() {
            Category::Data if !is_object => no_object(),
            // Names the field, too.
            Category::Data => Problem::new(
                Code::InvalidRequest,
                format!("the body is not a valid request: {e}"),
            ),
            _ => not_json(e.into_inner()),
        })?;
    json.end().map_err(not_json)?;
    // Deserializers of structs take their fields from an array, too.
    if is_object {
        Ok(body)
    } else {
        Err(no_object())
    }
}
