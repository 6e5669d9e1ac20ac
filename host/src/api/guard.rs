//! Who may come in: API keys, and the defence against web pages that reach for a server on the visitor's own machine.
//!
//! Keys are compared as SHA-256 digests in constant time and never logged; nothing here writes a query string anywhere.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{Query, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::error::{Code, Problem};
use crate::config::Config;

/// Paths that need no key: an orchestrator's probes have none.
const PUBLIC: [&str; 4] = ["/health", "/livez", "/readyz", "/healthz"];

/// What a scraper reads, which may have no key either.
const METRICS: &str = "/metrics";

/// What existing clients read in the body of a 401.
const UNAUTHORIZED: &str = "Invalid or missing API key";

/// The rules, read from the settings once.
pub(super) struct Guard {
    /// Digests of the accepted keys; empty: no key is needed.
    keys: Vec<[u8; 32]>,
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
        Self {
            keys: config
                .api_keys
                .iter()
                .map(|key| digest(key.expose_secret()))
                .collect(),
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
        let public = PUBLIC.contains(&uri.path()) || (self.metrics_public && uri.path() == METRICS);
        if self.keys.is_empty() || public || self.has_key(uri, headers) {
            Ok(())
        } else {
            Err(Problem::new(Code::Unauthorized, UNAUTHORIZED))
        }
    }

    fn has_key(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let text = |name| headers.get(name).and_then(|v| v.to_str().ok());
        let header = text("x-api-key").map(str::trim);
        let bearer = text("authorization").and_then(bearer);
        if header.into_iter().chain(bearer).any(|key| self.knows(key)) {
            return true;
        }
        let query = Query::<Vec<(String, String)>>::try_from_uri(uri);
        query.is_ok_and(|Query(pairs)| {
            let mut keys = pairs.iter().filter(|(name, _)| name == "api_key");
            keys.any(|(_, key)| self.knows(key))
        })
    }

    /// Compares with every key, so that the time tells neither which one fits nor how much of it.
    fn knows(&self, given: &str) -> bool {
        let given = digest(given);
        let found = self
            .keys
            .iter()
            .fold(Choice::from(0), |found, key| found | key.ct_eq(&given));
        found.into()
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
