//! A typed client of the REST face: what the command line is made of.
//!
//! It owns the connection (addresses, keys, TLS, proxies, patience) and the meaning of answers. What is shown to people, and which
//! exit code a failure has, belongs to [`crate::cli`].

mod error;
mod events;
#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Once;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, redirect};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::{Host, Url};

pub use self::error::ClientError;
pub use self::events::Update;

use crate::drain::DrainStatus;
use crate::job::{Record, RequestBody, Status};
use crate::queue::redis::PodInfo;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// A connection to one server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    patience: Patience,
}

/// How long a client puts up with a server that does not answer.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// How long a broken event stream is tried again before it is given up.
    pub outage: Duration,
    /// The longest silence on a connection. A server sends a comment every 15 seconds on a stream.
    pub silence: Duration,
    /// The pause before the first new try; it doubles up to `most`.
    pub least: Duration,
    /// The longest pause between two tries.
    pub most: Duration,
}

impl Default for Patience {
    /// Five minutes of outage, 45 seconds of silence, pauses from 200 milliseconds to 5 seconds.
    fn default() -> Self {
        Self {
            outage: Duration::from_secs(300),
            silence: Duration::from_secs(45),
            least: Duration::from_millis(200),
            most: Duration::from_secs(5),
        }
    }
}

/// Which jobs to list; what is not set does not narrow the list.
#[derive(Debug, Clone, Default)]
pub struct JobQuery {
    /// How many at most; the server takes 1 to 200 and has a default.
    pub limit: Option<usize>,
    /// Only these statuses.
    pub statuses: Vec<Status>,
    /// Only this profile.
    pub profile: Option<String>,
    /// Only this repository.
    pub repo: Option<String>,
    /// Only this pod.
    pub pod: Option<String>,
    /// Only jobs accepted at or after this time.
    pub since: Option<Timestamp>,
    /// Only jobs whose task holds this text.
    pub text: Option<String>,
    /// The page after the one that answered with this cursor.
    pub cursor: Option<String>,
}

/// A page of jobs, the newest first.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct JobPage {
    /// The records.
    pub jobs: Vec<Record>,
    /// Set when there may be more: the value of [`JobQuery::cursor`] for the next page.
    pub next_cursor: Option<String>,
}

/// What a server says of itself.
#[derive(Debug, Clone)]
pub struct Health {
    /// The body of `GET /health`.
    pub health: Value,
    /// Whether it wants traffic.
    pub ready: bool,
    /// The body of `GET /readyz?verbose`, `null` if it is no JSON.
    pub readiness: Value,
}

impl Client {
    /// A client of the server at `base`, such as `http://127.0.0.1:8200`, that shows `key` if there is one. Connects to nothing yet.
    ///
    /// Proxy variables apply, except to loopback addresses. Redirects are not followed, because they would carry the key elsewhere.
    ///
    /// # Errors
    /// [`ClientError::Setup`] if the address or the key cannot be used, or the system's certificates cannot be read.
    pub fn new(base: &str, key: Option<&SecretString>) -> Result<Self, ClientError> {
        Self::with_patience(base, key, Patience::default())
    }

    /// As [`Client::new`], with a patience of one's own.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn with_patience(
        base: &str,
        key: Option<&SecretString>,
        patience: Patience,
    ) -> Result<Self, ClientError> {
        let base = parse_base(base)?;
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("agenticore/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers(key)?)
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT)
            .read_timeout(patience.silence)
            .tcp_nodelay(true);
        if is_loopback(&base) {
            http = http.no_proxy();
        }
        if base.scheme() == "http" {
            // No certificate is ever looked at, so a system without any must not be an error.
            http = http.tls_certs_only([]);
        }
        install_tls();
        let http = http.build().map_err(|e| {
            ClientError::Setup(format!("cannot prepare connections: {}", error::chain(&e)))
        })?;
        Ok(Self {
            http,
            base,
            patience,
        })
    }

    /// The server's address.
    #[must_use]
    pub fn base(&self) -> &Url {
        &self.base
    }

    /// Submits a job. With `wait` the answer comes with the job's end.
    ///
    /// # Errors
    /// [`ClientError`]; after [`ClientError::Unreachable`] the job may have been accepted all the same.
    pub async fn submit(&self, body: &RequestBody) -> Result<Record, ClientError> {
        let request = self.request(Method::POST, &["jobs"]).json(body);
        Ok(self.answer::<JobAnswer>(request).await?.job)
    }

    /// Submits the request of a job that is over once more.
    ///
    /// # Errors
    /// [`ClientError`]; after [`ClientError::Unreachable`] the new job may have been accepted all the same.
    pub async fn retry(&self, id: &str) -> Result<Record, ClientError> {
        let request = self.request(Method::POST, &["jobs", id, "retry"]);
        Ok(self.answer::<JobAnswer>(request).await?.job)
    }

    /// The record of the job whose id is, or uniquely begins with, `id`.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with 404 if there is none and 409 if there are several; the other [`ClientError`]s.
    pub async fn get(&self, id: &str) -> Result<Record, ClientError> {
        let request = self.request(Method::GET, &["jobs", id]);
        Ok(self.answer::<JobAnswer>(request).await?.job)
    }

    /// One page of jobs.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list(&self, query: &JobQuery) -> Result<JobPage, ClientError> {
        let request = self
            .request(Method::GET, &["jobs"])
            .query(&query.parameters());
        self.answer(request).await
    }

    /// Cancels a job: one that waits ends at once, one that runs is asked to stop, one that is over stays as it is.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn cancel(&self, id: &str) -> Result<Record, ClientError> {
        let request = self.request(Method::DELETE, &["jobs", id]);
        Ok(self.answer::<JobAnswer>(request).await?.job)
    }

    /// Every profile as the server describes it, broken ones with their `error`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn profiles(&self) -> Result<Vec<Value>, ClientError> {
        #[derive(Deserialize)]
        struct Profiles {
            profiles: Vec<Value>,
        }
        let request = self.request(Method::GET, &["profiles"]);
        Ok(self.answer::<Profiles>(request).await?.profiles)
    }

    /// Every plugin as the server describes it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn plugins(&self) -> Result<Vec<Value>, ClientError> {
        #[derive(Deserialize)]
        struct Plugins {
            plugins: Vec<Value>,
        }
        let request = self.request(Method::GET, &["plugins"]);
        Ok(self.answer::<Plugins>(request).await?.plugins)
    }

    /// The pods of the fleet.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn pods(&self) -> Result<Vec<PodInfo>, ClientError> {
        #[derive(Deserialize)]
        struct Pods {
            pods: Vec<PodInfo>,
        }
        let request = self.request(Method::GET, &["pods"]);
        Ok(self.answer::<Pods>(request).await?.pods)
    }

    /// How full the queue is, and what waits in it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn queue(&self) -> Result<Value, ClientError> {
        self.answer(self.request(Method::GET, &["queue"])).await
    }

    /// Asks the pod to drain within `seconds`; returns at once.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn drain(&self, seconds: u64) -> Result<DrainStatus, ClientError> {
        let request = self
            .request(Method::POST, &["drain"])
            .json(&serde_json::json!({"timeout_seconds": seconds}));
        Ok(self.answer::<DrainAnswer>(request).await?.drain)
    }

    /// How far the pod's drain is.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn drain_status(&self) -> Result<DrainStatus, ClientError> {
        let request = self.request(Method::GET, &["drain"]);
        Ok(self.answer::<DrainAnswer>(request).await?.drain)
    }

    /// Takes the pod's drain back.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn undrain(&self) -> Result<DrainStatus, ClientError> {
        let request = self.request(Method::DELETE, &["drain"]);
        Ok(self.answer::<DrainAnswer>(request).await?.drain)
    }

    /// Whether the server answers at all, whatever it thinks of its readiness.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn live(&self) -> Result<(), ClientError> {
        let response = self.send(self.request(Method::GET, &["livez"])).await?;
        if response.status().is_success() {
            return Ok(());
        }
        Err(error::refusal(response).await)
    }

    /// Whether the server is up, and whether it is ready and why not.
    ///
    /// # Errors
    /// [`ClientError`]; a server that is up but not ready is no error.
    pub async fn health(&self) -> Result<Health, ClientError> {
        let health = self.answer(self.request(Method::GET, &["health"])).await?;
        let request = self
            .request(Method::GET, &["readyz"])
            .query(&[("verbose", "")]);
        let response = self.send(request).await?;
        let ready = response.status().is_success();
        if !ready && response.status().as_u16() != 503 {
            return Err(error::refusal(response).await);
        }
        let readiness = response.json().await.unwrap_or(Value::Null);
        Ok(Health {
            health,
            ready,
            readiness,
        })
    }

    fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        self.http.request(method, url)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let unreachable = |e: reqwest::Error| ClientError::Unreachable {
            server: self.base.clone(),
            problem: error::chain(&e.without_url()),
        };
        request.send().await.map_err(unreachable)
    }

    async fn answer<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        let response = self.send(request).await?;
        if !response.status().is_success() {
            return Err(error::refusal(response).await);
        }
        let bytes = response
            .bytes()
            .await
            .map_err(|e| ClientError::Unreachable {
                server: self.base.clone(),
                problem: format!("the answer broke off: {}", error::chain(&e.without_url())),
            })?;
        serde_json::from_slice(&bytes).map_err(|e| ClientError::Unexpected(e.to_string()))
    }
}

#[derive(Deserialize)]
struct DrainAnswer {
    drain: DrainStatus,
}

#[derive(Deserialize)]
struct JobAnswer {
    job: Record,
}

impl JobQuery {
    fn parameters(&self) -> Vec<(&'static str, String)> {
        let mut pairs = Vec::new();
        let mut put = |name, value: Option<String>| pairs.extend(value.map(|v| (name, v)));
        put("limit", self.limit.map(|l| l.to_string()));
        for status in &self.statuses {
            put("status", Some(status.to_string()));
        }
        put("profile", self.profile.clone());
        put("repo", self.repo.clone());
        put("pod", self.pod.clone());
        put("since", self.since.map(|s| s.to_string()));
        put("text", self.text.clone());
        put("cursor", self.cursor.clone());
        pairs
    }
}

fn parse_base(text: &str) -> Result<Url, ClientError> {
    let wrong = |problem: &str| {
        Err(ClientError::Setup(format!(
            "the server address {text:?} {problem}: it must look like http://127.0.0.1:8200"
        )))
    };
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(e) => return wrong(&format!("is not valid ({e})")),
    };
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return wrong("is not of the scheme http or https");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(ClientError::Setup(
            "the server address holds a user or password: give the key with AGENTICORE_API_KEY"
                .into(),
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return wrong("has a query or fragment");
    }
    Ok(url)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(ip)) => IpAddr::from(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::from(ip).is_loopback(),
        None => false,
    }
}

fn headers(key: Option<&SecretString>) -> Result<HeaderMap, ClientError> {
    let mut headers = HeaderMap::new();
    if let Some(key) = key {
        let mut value = HeaderValue::from_str(key.expose_secret()).map_err(|_| {
            ClientError::Setup("the API key holds characters that no HTTP header can carry".into())
        })?;
        value.set_sensitive(true);
        headers.insert("x-api-key", value);
    }
    Ok(headers)
}

/// The library is built without a default for its cryptography; another part of the process may have chosen the same one already.
pub(crate) fn install_tls() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}
