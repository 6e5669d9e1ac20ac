//! Who may come in: API keys, what each may do and how often, and the defence against web pages that reach for a server on the visitor's own machine.
//!
//! Keys are compared as SHA-256 digests in constant time and never logged; nothing here writes a query string anywhere.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{Query, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};

use super::error::{Code, Problem};
use crate::config::Config;

/// Paths that need no key: an orchestrator's probes have none, and the document of this face says how to give one.
const PUBLIC: [&str; 5] = ["/health", "/livez", "/readyz", "/healthz", "/openapi.json"];

/// What a scraper reads, which may have no key either.
const METRICS: &str = "/metrics";

/// What must work also in a flood of other requests with the same key.
const UNCOUNTED: [&str; 2] = [METRICS, "/drain"];

/// What existing clients read in the body of a 401.
const UNAUTHORIZED: &str = "Invalid or missing API key";

/// What a key may do. Each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    /// Look at everything.
    Read,
    /// Submit, retry and cancel jobs.
    Submit,
    /// Everything.
    Admin,
}

impl Scope {
    /// What a request needs; none: no key.
    pub(super) fn needed(method: &Method, path: &str) -> Option<Self> {
        if PUBLIC.contains(&path) {
            None
        } else if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
            Some(Self::Read)
        } else if path == "/jobs" || path.starts_with("/jobs/") {
            Some(Self::Submit)
        } else {
            Some(Self::Admin)
        }
    }

    /// The word for it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Submit => "submit",
            Self::Admin => "admin",
        }
    }
}

/// An accepted key, or everybody where none is needed.
struct Caller {
    /// Of the key.
    digest: [u8; 32],
    scope: Scope,
    pace: Option<DefaultDirectRateLimiter>,
}

impl Caller {
    fn new(key: &SecretString, scope: Scope, limit: Option<NonZeroU32>) -> Self {
        Self {
            digest: digest(key.expose_secret()),
            scope,
            pace: limit.map(|limit| DefaultDirectRateLimiter::direct(Quota::per_minute(limit))),
        }
    }

    /// Counts a request.
    fn count(&self, limit: Option<NonZeroU32>) -> Result<(), Problem> {
        let (Some(pace), Some(limit)) = (&self.pace, limit) else {
            return Ok(());
        };
        pace.check().map_err(|until| {
            let now = DefaultClock::default().now();
            Problem::rate_limited(until.wait_time_from(now), limit)
        })
    }
}

/// The rules, read from the settings once.
pub(super) struct Guard {
    /// The accepted keys, those that may do most last; empty: no key is needed.
    keys: Vec<Caller>,
    /// Whoever comes where no key is needed.
    anybody: Caller,
    /// Requests a minute of each.
    limit: Option<NonZeroU32>,
    /// Whether metrics need no key.
    metrics_public: bool,
    /// Whether only this machine's names are accepted in `Host`.
    local_names_only: bool,
}

/// Lets a request through or answers it.
pub(super) async fn check(
    State(guard): State<Arc<Guard>>,
    request: Request,
    next: Next,
) -> Response {
    match guard.admit(request.method(), request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

impl Guard {
    /// The rules that follow from `config`.
    pub(super) fn new(config: &Config) -> Self {
        let limit = config.rate_limit;
        let of = |keys: &[SecretString], scope| -> Vec<Caller> {
            let callers = keys.iter().map(|key| Caller::new(key, scope, limit));
            callers.collect()
        };
        let mut keys = of(&config.read_keys, Scope::Read);
        keys.extend(of(&config.submit_keys, Scope::Submit));
        keys.extend(of(&config.api_keys, Scope::Admin));
        Self {
            keys,
            anybody: Caller::new(&SecretString::default(), Scope::Admin, limit),
            limit,
            metrics_public: config.metrics_public,
            // Whoever must show a key cannot be impersonated by a page that has none.
            local_names_only: config.api_keys.is_empty() && config.is_loopback(),
        }
    }

    fn admit(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
        let host = host(uri, headers);
        if self.local_names_only {
            check_host(host)?;
        }
        if !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
            check_origin(host, headers)?;
        }
        let Some(needed) = Scope::needed(method, uri.path()) else {
            return Ok(());
        };
        if self.metrics_public && uri.path() == METRICS {
            return Ok(());
        }
        let caller = self.caller(uri, headers)?;
        if caller.scope < needed {
            return Err(Problem::new(
                Code::InsufficientScope,
                format!(
                    "this API key may {} and not {}: {method} {} needs a key that may",
                    caller.scope.as_str(),
                    needed.as_str(),
                    uri.path()
                ),
            ));
        }
        if UNCOUNTED.contains(&uri.path()) {
            return Ok(());
        }
        caller.count(self.limit)
    }

    /// Whose request it is.
    fn caller(&self, uri: &Uri, headers: &HeaderMap) -> Result<&Caller, Problem> {
        if self.keys.is_empty() {
            return Ok(&self.anybody);
        }
        let text = |name| headers.get(name).and_then(|v| v.to_str().ok());
        let header = text("x-api-key").map(str::trim);
        let bearer = text("authorization").and_then(bearer);
        let found = header
            .into_iter()
            .chain(bearer)
            .find_map(|key| self.of(key));
        let in_query = || {
            let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).ok()?;
            let mut keys = pairs.iter().filter(|(name, _)| name == "api_key");
            keys.find_map(|(_, key)| self.of(key))
        };
        found
            .or_else(in_query)
            .ok_or_else(|| Problem::new(Code::Unauthorized, UNAUTHORIZED))
    }

    /// Compares with every key, so that the time tells neither which one fits nor how much of it.
    fn of(&self, given: &str) -> Option<&Caller> {
        let given = digest(given);
        let mut place = u64::MAX;
        for (number, key) in (0_u64..).zip(&self.keys) {
            place.conditional_assign(&number, key.digest.ct_eq(&given));
        }
        self.keys.get(usize::try_from(place).ok()?)
    }
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, key) = value.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

/// The authority the client asked for; HTTP/2 has it in the address. Unreadable counts as foreign, so it stays as text.
fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    match headers.get(header::HOST) {
        Some(value) => Some(value.to_str().unwrap_or("(unreadable)")),
        None => uri.authority().map(Authority::as_str),
    }
}

/// A page can point its own domain at 127.0.0.1, but its requests then still name that domain. Requests that name no host do not
/// come from browsers.
fn check_host(host: Option<&str>) -> Result<(), Problem> {
    match host {
        Some(host) if !is_local(host) => Err(Problem::new(
            Code::ForbiddenHost,
            format!(
                "the Host {host:?} is refused: a server on a loopback address without API keys answers to localhost, \
                 127.0.0.1 and [::1] only; set AGENTICORE_API_KEYS to reach it by another name"
            ),
        )),
        _ => Ok(()),
    }
}

fn is_local(host: &str) -> bool {
    let Ok(authority) = Authority::from_str(host) else {
        return false;
    };
    let name = authority.host();
    !host.contains('@')
        && (name.eq_ignore_ascii_case("localhost")
            || IpAddr::from_str(name.trim_matches(['[', ']'])).is_ok_and(|ip| ip.is_loopback()))
}

/// Browsers send `Origin` with every request that changes something; other clients send none.
fn check_origin(host: Option<&str>, headers: &HeaderMap) -> Result<(), Problem> {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return Ok(());
    };
    let origin = origin.to_str().unwrap_or("(unreadable)");
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    match (authority, host) {
        (Some(from), Some(to)) if from.eq_ignore_ascii_case(to) => Ok(()),
        _ => Err(Problem::new(
            Code::ForbiddenOrigin,
            format!(
                "a page of {origin:?} may not change anything here: only pages of this server may (a proxy in front of it must \
                 hand on the Host header)"
            ),
        )),
    }
}
