//! The requests that a registry understands (the OCI distribution specification), as far as a plugin needs them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use url::Url;

use super::{Descriptor, INDEX};
use crate::plugin::{Code, Digest, PluginError, text};
use crate::workbench::Unusable;

/// The longest silence of a registry.
const SILENCE: Duration = Duration::from_secs(60);

/// `HOST/NAME:TAG` or `HOST/NAME@sha256:DIGEST`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    host: String,
    name: String,
    at: At,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum At {
    Tag(String),
    Digest(Digest),
}

impl FromStr for Reference {
    type Err = Unusable;

    fn from_str(text: &str) -> Result<Self, Unusable> {
        let wrong = |problem: &str| {
            Unusable(format!(
                "{text:?} is no reference ({problem}); write HOST/NAME:TAG or HOST/NAME@sha256:DIGEST"
            ))
        };
        let (host, rest) = text
            .split_once('/')
            .ok_or_else(|| wrong("it names no registry"))?;
        let is_host = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
        if host.is_empty() || !host.chars().all(is_host) {
            return Err(wrong("the registry is no host"));
        }
        let (name, at) = match (rest.split_once('@'), rest.rsplit_once(':')) {
            (Some((name, digest)), _) => {
                let digest = digest
                    .strip_prefix("sha256:")
                    .and_then(|hex| hex.parse().ok());
                (
                    name,
                    At::Digest(digest.ok_or_else(|| wrong("the digest is no sha256"))?),
                )
            }
            (None, Some((name, tag))) => (name, At::Tag(tag.to_owned())),
            (None, None) => return Err(wrong("it has neither a tag nor a digest")),
        };
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/".contains(c);
        let is_part = |part: &str| part.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !name.chars().all(is_name) || !name.split('/').all(is_part) {
            return Err(wrong(
                "the name may have lower-case letters, digits and ._-/",
            ));
        }
        if let At::Tag(tag) = &at {
            let is_tag = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            if tag.is_empty() || tag.len() > 128 || !tag.chars().all(is_tag) {
                return Err(wrong("the tag may have letters, digits and ._-"));
            }
        }
        Ok(Self {
            host: host.to_owned(),
            name: name.to_owned(),
            at,
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.at {
            At::Tag(tag) => write!(f, "{}/{}:{tag}", self.host, self.name),
            At::Digest(digest) => write!(f, "{}/{}@sha256:{digest}", self.host, self.name),
        }
    }
}

impl Reference {
    /// The last part of its name.
    #[must_use]
    pub fn short_name(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or(&self.name)
    }

    pub(super) fn by_digest(&self, digest: &str) -> String {
        format!("{}/{}@{digest}", self.host, self.name)
    }

    /// A registry on this machine speaks plain HTTP, every other one TLS.
    fn base(&self) -> Result<Url, PluginError> {
        let host = self
            .host
            .rsplit_once(':')
            .map_or(self.host.as_str(), |(host, _)| host);
        let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
        let is_local = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
        let scheme = if is_local { "http" } else { "https" };
        Url::parse(&format!("{scheme}://{}/v2/{}/", self.host, self.name))
            .map_err(|e| PluginError::new(Code::Registry, format!("{self}: {e}")))
    }
}

/// Requests to one repository of a registry.
pub(super) struct Session {
    http: reqwest::Client,
    reference: Reference,
    base: Url,
    login: Option<(String, SecretString)>,
    token: Option<String>,
}

impl Session {
    pub(super) fn open(
        reference: &Reference,
        login: Option<&(String, SecretString)>,
    ) -> Result<Self, PluginError> {
        crate::client::install_tls();
        let base = reference.base()?;
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("agenticore/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(SILENCE)
            .read_timeout(SILENCE);
        if base.scheme() == "http" {
            http = http.no_proxy().tls_certs_only([]);
        }
        let http = http
            .build()
            .map_err(|e| PluginError::new(Code::Registry, format!("{reference}: {e}")))?;
        Ok(Self {
            http,
            reference: reference.clone(),
            base,
            login: login.cloned(),
            token: None,
        })
    }

    fn failed(&self, what: impl fmt::Display) -> PluginError {
        let what = text::line(&what.to_string(), 500);
        PluginError::new(Code::Registry, format!("{}: {what}", self.reference))
    }

    fn url(&self, path: &str) -> Result<Url, PluginError> {
        self.base.join(path).map_err(|e| self.failed(e))
    }

    /// Sends a request; where the registry wants a token, once more with one.
    async fn send(
        &mut self,
        request: impl Fn(&reqwest::Client) -> RequestBuilder,
    ) -> Result<Response, PluginError> {
        let first = self.try_once(&request).await?;
        if first.status() != StatusCode::UNAUTHORIZED {
            return Ok(first);
        }
        let challenge = first.headers().get(WWW_AUTHENTICATE);
        let challenge = challenge
            .and_then(|value| value.to_str().ok())
            .map(Challenge::parse);
        match challenge.flatten() {
            Some(challenge) => {
                self.token = Some(self.ask_token(&challenge).await?);
                self.try_once(&request).await
            }
            None => Ok(first),
        }
    }

    async fn try_once(
        &self,
        request: &impl Fn(&reqwest::Client) -> RequestBuilder,
    ) -> Result<Response, PluginError> {
        let request = self.authorized(request(&self.http));
        request.send().await.map_err(|e| self.failed(chain(&e)))
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match (&self.token, &self.login) {
            (Some(token), _) => request.bearer_auth(token),
            (None, Some((user, password))) => {
                request.basic_auth(user, Some(password.expose_secret()))
            }
            (None, None) => request,
        }
    }

    async fn ask_token(&self, challenge: &Challenge) -> Result<String, PluginError> {
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let mut request = self.http.get(&challenge.realm).query(&challenge.query());
        if let Some((user, password)) = &self.login {
            request = request.basic_auth(user, Some(password.expose_secret()));
        }
        let answer = request.send().await.map_err(|e| self.failed(chain(&e)))?;
        let answer = self.accepted(answer, "gives no token").await?;
        let token: Token = answer.json().await.map_err(|e| self.failed(chain(&e)))?;
        token
            .token
            .or(token.access_token)
            .ok_or_else(|| self.failed("the registry's token service gives no token"))
    }

    /// A successful answer, or the registry's own words.
    async fn accepted(&self, answer: Response, what: &str) -> Result<Response, PluginError> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let said = answer.text().await.unwrap_or_default();
        let said = said.chars().take(300).collect::<String>();
        Err(self.failed(format!("the registry {what}: {status} {said}")))
    }

    pub(super) async fn put_blob(
        &mut self,
        kind: &str,
        bytes: &[u8],
    ) -> Result<Descriptor, PluginError> {
        let digest = format!("sha256:{}", Digest::of(bytes));
        let descriptor = Descriptor {
            media_type: kind.to_owned(),
            digest: digest.clone(),
            size: bytes.len() as u64,
        };
        let known = self.url(&format!("blobs/{digest}"))?;
        let there = self.send(|http| http.head(known.clone())).await?;
        if there.status().is_success() {
            return Ok(descriptor);
        }
        let uploads = self.url("blobs/uploads/")?;
        let begun = self.send(|http| http.post(uploads.clone())).await?;
        let begun = self.accepted(begun, "takes no upload").await?;
        let place = begun
            .headers()
            .get(LOCATION)
            .and_then(|at| at.to_str().ok());
        let place = place.ok_or_else(|| self.failed("the registry names no place to upload to"))?;
        let mut place = uploads.join(place).map_err(|e| self.failed(e))?;
        place.query_pairs_mut().append_pair("digest", &digest);
        let body = bytes::Bytes::copy_from_slice(bytes);
        let put = self
            .send(|http| {
                http.request(Method::PUT, place.clone())
                    .header(CONTENT_TYPE, "application/octet-stream")
                    .body(body.clone())
            })
            .await?;
        self.accepted(put, "does not take a layer").await?;
        Ok(descriptor)
    }

    pub(super) async fn put_manifest(&mut self, bytes: &[u8]) -> Result<(), PluginError> {
        let at = match &self.reference.at {
            At::Tag(tag) => tag.clone(),
            At::Digest(digest) => format!("sha256:{digest}"),
        };
        let url = self.url(&format!("manifests/{at}"))?;
        let body = bytes::Bytes::copy_from_slice(bytes);
        let put = self
            .send(|http| {
                http.put(url.clone())
                    .header(CONTENT_TYPE, INDEX)
                    .body(body.clone())
            })
            .await?;
        self.accepted(put, "does not take the manifest").await?;
        Ok(())
    }

    /// The artifact's document; what a digest names must have it.
    pub(super) async fn get_manifest(&mut self, most: u64) -> Result<Vec<u8>, PluginError> {
        let (at, pin) = match &self.reference.at {
            At::Tag(tag) => (tag.clone(), None),
            At::Digest(digest) => (format!("sha256:{digest}"), Some(*digest)),
        };
        let url = self.url(&format!("manifests/{at}"))?;
        let answer = self
            .send(|http| http.get(url.clone()).header(ACCEPT, INDEX))
            .await?;
        let answer = self.accepted(answer, "does not have it").await?;
        let bytes = self.body(answer, most).await?;
        match pin {
            Some(pin) => self.pinned(bytes, pin),
            None => Ok(bytes),
        }
    }

    pub(super) async fn get_blob(
        &mut self,
        layer: &Descriptor,
        most: u64,
    ) -> Result<Vec<u8>, PluginError> {
        let kind = text::line(&layer.media_type, 100);
        let pin = layer
            .digest
            .strip_prefix("sha256:")
            .and_then(|hex| hex.parse().ok());
        let pin =
            pin.ok_or_else(|| self.failed(format!("the digest of its {kind} is no sha256")))?;
        if layer.size > most {
            let message = format!("the {kind} of {} is too large", self.reference);
            let (name, used) = ("component_bytes", layer.size);
            return Err(PluginError::limit(Code::Size, name, used, most, message));
        }
        let url = self.url(&format!("blobs/{}", layer.digest))?;
        let answer = self.send(|http| http.get(url.clone())).await?;
        let answer = self.accepted(answer, "does not have a layer").await?;
        let bytes = self.body(answer, layer.size).await?;
        self.pinned(bytes, pin)
    }

    fn pinned(&self, bytes: Vec<u8>, pin: Digest) -> Result<Vec<u8>, PluginError> {
        let found = Digest::of(&bytes);
        if found == pin {
            return Ok(bytes);
        }
        let message = format!(
            "{}: the registry sends bytes with the digest {found} for {pin}",
            self.reference
        );
        Err(PluginError::new(Code::Digest, message))
    }

    async fn body(&self, mut answer: Response, most: u64) -> Result<Vec<u8>, PluginError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|e| self.failed(chain(&e)))? {
            if (bytes.len() as u64).saturating_add(chunk.len() as u64) > most {
                return Err(self.failed(format!("the registry sends more than {most} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}

/// `Bearer realm="...",service="...",scope="..."`.
struct Challenge {
    realm: String,
    service: Option<String>,
    scope: Option<String>,
}

impl Challenge {
    fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let value = |name: &str| {
            let (_, after) = rest.split_once(&format!("{name}=\""))?;
            after.split_once('"').map(|(value, _)| value.to_owned())
        };
        Some(Self {
            realm: value("realm")?,
            service: value("service"),
            scope: value("scope"),
        })
    }

    fn query(&self) -> Vec<(&'static str, &str)> {
        let service = self.service.as_deref().map(|service| ("service", service));
        let scope = self.scope.as_deref().map(|scope| ("scope", scope));
        service.into_iter().chain(scope).collect()
    }
}

/// An error of a request with its causes; addresses carry no secrets here.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text.push_str(&format!(": {inner}"));
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn references_are_read_and_shown_as_they_are_written() {
        let digest = "0".repeat(64);
        for text in [
            "registry.example.com/team/policy:1.2.0".to_owned(),
            "127.0.0.1:5000/policy:latest".to_owned(),
            format!("localhost:5000/a/b@sha256:{digest}"),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        }
        for wrong in [
            "policy:1",
            "host/policy",
            "host/Policy:1",
            "host/../policy:1",
            "host/policy@sha256:12",
            "host/policy:a/b",
            "ho st/policy:1",
            "/policy:1",
        ] {
            let error = wrong.parse::<Reference>().unwrap_err();
            assert!(error.0.contains("HOST/NAME"), "{wrong}: {error}");
        }
    }

    #[test]
    fn only_a_registry_on_this_machine_is_spoken_to_without_tls() {
        let base = |text: &str| {
            text.parse::<Reference>()
                .unwrap()
                .base()
                .unwrap()
                .to_string()
        };
        assert_eq!(base("127.0.0.1:5000/a:1"), "http://127.0.0.1:5000/v2/a/");
        assert_eq!(base("localhost/a:1"), "http://localhost/v2/a/");
        assert_eq!(base("10.0.0.1/a/b:1"), "https://10.0.0.1/v2/a/b/");
        assert_eq!(
            base("127.0.0.1.example.com/a:1"),
            "https://127.0.0.1.example.com/v2/a/"
        );
    }

    #[test]
    fn a_challenge_names_where_to_get_a_token() {
        let header = r#"Bearer realm="https://auth.example.com/token",service="r",scope="repository:a:pull""#;
        let challenge = Challenge::parse(header).unwrap();
        assert_eq!(challenge.realm, "https://auth.example.com/token");
        assert_eq!(
            challenge.query(),
            [("service", "r"), ("scope", "repository:a:pull")]
        );
        assert!(Challenge::parse("Basic realm=\"x\"").is_none());
    }
}
