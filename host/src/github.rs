//! Pull requests on GitHub or GitHub Enterprise, over its REST API (version 2022-11-28).
//!
//! The token goes to the API's own host and nowhere else: redirects are not followed, and no error holds more than GitHub's own message.
//! Opening is done at most once: before each try it is looked for.

use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, StatusCode, redirect};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::json;
use url::Url;

/// How often a request is tried that GitHub could not answer.
const TRIES: u32 = 4;
/// The longest pause that GitHub may ask for before the next try.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(30);
/// Characters of a title and of a body that GitHub takes.
const MAX_TITLE: usize = 256;
const MAX_BODY: usize = 65_536;

/// The API of one GitHub, with one token.
#[derive(Debug, Clone)]
pub struct GitHub {
    http: reqwest::Client,
    api: Url,
    /// How long the first pause is; it doubles.
    pause: Duration,
}

/// A pull request to open.
#[derive(Debug, Clone)]
pub struct NewPull {
    /// `OWNER/NAME`.
    pub repository: String,
    /// The branch with the work, in the same repository.
    pub head: String,
    /// The branch it goes to.
    pub base: String,
    /// The title; what is too long is cut.
    pub title: String,
    /// The body; what is too long is cut.
    pub body: String,
    /// Whether it is a draft.
    pub draft: bool,
}

/// A pull request that is there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Pull {
    /// Its number.
    pub number: u64,
    /// Its page.
    pub html_url: String,
}

/// Why GitHub did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum GitHubError {
    /// The address or the token cannot be used.
    #[error("{0}")]
    Setup(String),
    /// The token is wrong, expired, or may not do this.
    #[error("GitHub refuses the token ({status}): {message}")]
    Denied {
        /// 401 or 403.
        status: u16,
        /// What GitHub says.
        message: String,
    },
    /// There is no such repository, or the token may not see it.
    #[error("GitHub does not find the repository: {0}")]
    NotFound(String),
    /// The request makes no sense to GitHub.
    #[error("GitHub does not accept the request: {0}")]
    Invalid(String),
    /// GitHub could not answer, each time.
    #[error("GitHub does not answer: {0}")]
    Unavailable(String),
}

impl GitHubError {
    /// What the user can do.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Setup(_) => "correct AGENTICORE_GITHUB_API_URL or GITHUB_TOKEN on the server",
            Self::Denied { .. } => {
                "give the server a GITHUB_TOKEN that may write contents and pull requests of this repository, then push the branch or open the pull request by hand"
            }
            Self::NotFound(_) => {
                "check that the repository exists and that the server's GITHUB_TOKEN may see it"
            }
            Self::Invalid(_) => {
                "change `pull_request` in the profile as the message says; the branch is pushed, so the pull request can be opened by hand"
            }
            Self::Unavailable(_) => {
                "open the pull request by hand once GitHub answers; the branch and the work are kept"
            }
        }
    }
}

/// What GitHub answers in place of what was asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Refusal {
    message: String,
    errors: Vec<serde_json::Value>,
}

impl GitHub {
    /// The API at `api`, such as `https://api.github.com` or `https://ghe.example/api/v3`.
    ///
    /// # Errors
    /// [`GitHubError::Setup`].
    pub fn new(api: &str, token: &SecretString) -> Result<Self, GitHubError> {
        let api = parse(api)?;
        let mut headers = HeaderMap::new();
        let bearer = format!("Bearer {}", token.expose_secret());
        let mut bearer = HeaderValue::from_str(&bearer).map_err(|_| {
            GitHubError::Setup("GITHUB_TOKEN holds characters that no header can carry".into())
        })?;
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
        headers.insert(
            ACCEPT,
            HeaderValue::from_static("application/vnd.github+json"),
        );
        headers.insert(
            "x-github-api-version",
            HeaderValue::from_static("2022-11-28"),
        );
        crate::client::install_tls();
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("agenticore/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .redirect(redirect::Policy::none())
            .timeout(TIMEOUT);
        if api.scheme() == "http" {
            // Loopback alone; no certificate is looked at, and no proxy is asked.
            http = http.no_proxy().tls_certs_only([]);
        }
        let http = http
            .build()
            .map_err(|e| GitHubError::Setup(format!("cannot prepare connections: {e}")))?;
        Ok(Self {
            http,
            api,
            pause: Duration::from_secs(1),
        })
    }

    /// The host that repositories of this API are on, as it stands in their addresses: `github.com` for `https://api.github.com`,
    /// else the API's own.
    ///
    /// # Errors
    /// [`GitHubError::Setup`] if the address is none, or not safe to send a token to.
    pub fn repository_host(api: &str) -> Result<String, GitHubError> {
        let url = parse(api)?;
        let host = url.host_str().unwrap_or_default();
        let host = host.strip_prefix("api.").unwrap_or(host);
        Ok(match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        })
    }

    /// Opens a pull request, unless there is one for its branch already, open or closed. Gives back which, and whether it is new.
    ///
    /// # Errors
    /// [`GitHubError`].
    pub async fn open(&self, new: &NewPull) -> Result<(Pull, bool), GitHubError> {
        let mut pause = self.pause;
        let mut tries = 0;
        loop {
            if let Some(pull) = self.find(new).await? {
                return Ok((pull, false));
            }
            let body = json!({
                "title": cut(&new.title, MAX_TITLE),
                "body": cut(&new.body, MAX_BODY),
                "head": new.head,
                "base": new.base,
                "draft": new.draft,
            });
            let request = self
                .request(Method::POST, &new.repository, &["pulls"])
                .json(&body);
            tries += 1;
            match self.once(request).await {
                Ok(response) => return Ok((read(response).await?, true)),
                // It may have been opened all the same, so it is looked for again before the next try.
                Err(Trouble::Passing { problem, after }) if tries < TRIES => {
                    tracing::warn!(
                        problem,
                        "GitHub could not open the pull request; trying again"
                    );
                    tokio::time::sleep(after.unwrap_or(pause)).await;
                    pause *= 2;
                }
                Err(Trouble::Passing { problem, .. }) => {
                    return Err(GitHubError::Unavailable(problem));
                }
                Err(Trouble::Final(GitHubError::Invalid(message)))
                    if message.contains("already exists") && tries < TRIES => {}
                Err(Trouble::Final(error)) => return Err(error),
            }
        }
    }

    /// Adds labels; those that are there stay, those that do not exist are made by GitHub.
    ///
    /// # Errors
    /// [`GitHubError`].
    pub async fn label(
        &self,
        repository: &str,
        number: u64,
        labels: &[String],
    ) -> Result<(), GitHubError> {
        let number = number.to_string();
        let request = || {
            self.request(Method::POST, repository, &["issues", &number, "labels"])
                .json(&json!({"labels": labels}))
        };
        self.send(request).await.map(drop)
    }

    /// Asks users and teams for a review.
    ///
    /// # Errors
    /// [`GitHubError`].
    pub async fn request_review(
        &self,
        repository: &str,
        number: u64,
        users: &[String],
        teams: &[String],
    ) -> Result<(), GitHubError> {
        let number = number.to_string();
        let request = || {
            self.request(
                Method::POST,
                repository,
                &["pulls", &number, "requested_reviewers"],
            )
            .json(&json!({"reviewers": users, "team_reviewers": teams}))
        };
        self.send(request).await.map(drop)
    }

    async fn find(&self, new: &NewPull) -> Result<Option<Pull>, GitHubError> {
        let owner = new.repository.split('/').next().unwrap_or_default();
        let head = format!("{owner}:{}", new.head);
        let request = || {
            self.request(Method::GET, &new.repository, &["pulls"])
                .query(&[("head", head.as_str()), ("state", "all")])
        };
        let found: Vec<Pull> = read(self.send(request).await?).await?;
        Ok(found.into_iter().next())
    }

    fn request(&self, method: Method, repository: &str, path: &[&str]) -> RequestBuilder {
        let mut url = self.api.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments
                .pop_if_empty()
                .push("repos")
                .extend(repository.split('/'))
                .extend(path);
        }
        self.http.request(method, url)
    }

    /// Sends a request that can be repeated until it is answered.
    async fn send(&self, request: impl Fn() -> RequestBuilder) -> Result<Response, GitHubError> {
        let mut pause = self.pause;
        for _ in 1..TRIES {
            match self.once(request()).await {
                Ok(response) => return Ok(response),
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Passing { problem, after }) => {
                    tracing::warn!(problem, "GitHub could not answer; trying again");
                    tokio::time::sleep(after.unwrap_or(pause)).await;
                    pause *= 2;
                }
            }
        }
        match self.once(request()).await {
            Ok(response) => Ok(response),
            Err(Trouble::Final(error)) => Err(error),
            Err(Trouble::Passing { problem, .. }) => Err(GitHubError::Unavailable(problem)),
        }
    }

    async fn once(&self, request: RequestBuilder) -> Result<Response, Trouble> {
        let response = request.send().await.map_err(|e| Trouble::Passing {
            problem: e.without_url().to_string(),
            after: None,
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let after = pause_asked(response.headers());
        let refusal: Refusal = response.json().await.unwrap_or_default();
        let message = refusal.text();
        // A limit of rate is 403 or 429, and says how long to wait.
        if status.is_server_error()
            || status == StatusCode::TOO_MANY_REQUESTS
            || (status == StatusCode::FORBIDDEN && after.is_some())
        {
            return match after {
                Some(after) if after > LONGEST_PAUSE => {
                    Err(Trouble::Final(GitHubError::Unavailable(format!(
                        "it asks to wait {} s: {message}",
                        after.as_secs()
                    ))))
                }
                after => Err(Trouble::Passing {
                    problem: format!("{status}: {message}"),
                    after,
                }),
            };
        }
        Err(Trouble::Final(match status.as_u16() {
            status @ (401 | 403) => GitHubError::Denied { status, message },
            404 => GitHubError::NotFound(message),
            _ => GitHubError::Invalid(format!("{status}: {message}")),
        }))
    }
}

enum Trouble {
    /// Trying again may help.
    Passing {
        problem: String,
        /// How long GitHub asks to wait.
        after: Option<Duration>,
    },
    Final(GitHubError),
}

impl Refusal {
    fn text(&self) -> String {
        let details: Vec<String> = self
            .errors
            .iter()
            .map(
                |error| match error.get("message").and_then(|m| m.as_str()) {
                    Some(message) => message.to_owned(),
                    None => error.to_string(),
                },
            )
            .collect();
        let text = if details.is_empty() {
            self.message.clone()
        } else {
            format!("{} ({})", self.message, details.join("; "))
        };
        cut(&crate::plugin::text::line(&text, 500), 500)
    }
}

async fn read<T: serde::de::DeserializeOwned>(response: Response) -> Result<T, GitHubError> {
    response.json().await.map_err(|e| {
        GitHubError::Unavailable(format!("its answer cannot be read: {}", e.without_url()))
    })
}

fn pause_asked(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Only https, or a loopback address: everything else would carry the token for all to read.
fn parse(api: &str) -> Result<Url, GitHubError> {
    let wrong = |problem: &str| {
        Err(GitHubError::Setup(format!(
            "AGENTICORE_GITHUB_API_URL {problem}: it must look like https://api.github.com or https://ghe.example/api/v3"
        )))
    };
    let Ok(url) = Url::parse(api) else {
        return wrong("is no address");
    };
    let loopback = match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => return wrong("names no host"),
    };
    if url.scheme() != "https" && !(url.scheme() == "http" && loopback) {
        return wrong("is not https");
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        return wrong("holds more than an address");
    }
    Ok(url)
}

/// The first characters of a text.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(most.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Whether the token may be sent to where this address of a repository points, and which repository it is there.
#[must_use]
pub fn repository_on(host: &str, url: &crate::git::RepoUrl) -> Option<String> {
    let on_it = url.authority()?.eq_ignore_ascii_case(host);
    let name = url.repository();
    (on_it && name.split('/').count() == 2).then(|| name.to_owned())
}

/// Ends the body of every pull request that a job opens; whoever looks for a job's pull request finds it by this.
#[must_use]
pub fn marker(job: &impl std::fmt::Display) -> String {
    #[derive(Serialize)]
    struct Marker {
        job: String,
    }
    let marker = Marker {
        job: job.to_string(),
    };
    let text = serde_json::to_string(&marker).unwrap_or_default();
    format!("<!-- agenticore {text} -->")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_host_of_repositories_follows_from_the_api() {
        for (api, host) in [
            ("https://api.github.com", "github.com"),
            ("https://ghe.example/api/v3", "ghe.example"),
            ("https://api.acme.ghe.com/", "acme.ghe.com"),
            ("http://127.0.0.1:81/api/v3", "127.0.0.1:81"),
        ] {
            assert_eq!(GitHub::repository_host(api).unwrap(), host);
        }
        for wrong in [
            "",
            "github.com",
            "http://ghe.example/api/v3",
            "https://me:secret@ghe.example",
            "ftp://x",
        ] {
            assert!(GitHub::repository_host(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöüß", 3), "äö…");
    }
}
