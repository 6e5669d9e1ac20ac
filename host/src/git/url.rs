//! The address of a repository: parsed once, without credentials ever after.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use url::{Host, Url};

pub use invalid::InvalidUrl;
use invalid::MAX_BYTES;

mod invalid;

/// Which addresses a submitter may name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UrlPolicy {
    /// Whether `file://` is allowed: only where every submitter could read the server's files anyway.
    pub allow_file: bool,
}

/// How git reaches the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// `https://`.
    Https,
    /// `http://`, to a loopback address only.
    Http,
    /// `ssh://` or `user@host:path`.
    Ssh,
    /// `file://`.
    File,
}

/// The address of a repository. It never holds a password or a token, so it may be stored, logged and shown.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RepoUrl(Arc<Address>);

#[derive(PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Address {
    text: String,
    transport: Transport,
    /// Host and port as in the address; empty for `file://`.
    authority: String,
    path: String,
}

/// Credentials that were written into an address.
#[derive(Debug, Clone)]
pub struct UrlCredentials {
    /// The part before the colon. It is a secret too: some services take a token as the user's name.
    pub username: SecretString,
    /// The part after the colon; empty if there is none.
    pub password: SecretString,
}

impl RepoUrl {
    /// Parses what a submitter typed.
    ///
    /// # Errors
    /// [`InvalidUrl`]; also where the address holds credentials, because a job outlives this process and they would have to be
    /// stored with it. Use [`RepoUrl::split`] to take them off instead.
    pub fn parse(text: &str, policy: &UrlPolicy) -> Result<Self, InvalidUrl> {
        match Self::split(text, policy)? {
            (url, None) => Ok(url),
            (_, Some(_)) => Err(InvalidUrl::Credentials),
        }
    }

    /// Parses an address and takes its credentials off.
    ///
    /// # Errors
    /// [`InvalidUrl`].
    pub fn split(
        text: &str,
        policy: &UrlPolicy,
    ) -> Result<(Self, Option<UrlCredentials>), InvalidUrl> {
        let (url, credentials) = parse(text)?;
        match url.0.transport {
            Transport::File if !policy.allow_file => Err(InvalidUrl::File),
            _ => Ok((url, credentials)),
        }
    }

    /// Parses an address that was accepted before and comes from a job's record. The policy of that time holds; whether git may
    /// still use it is decided when it runs. Credentials are dropped.
    ///
    /// # Errors
    /// [`InvalidUrl`].
    pub fn stored(text: &str) -> Result<Self, InvalidUrl> {
        parse(text).map(|(url, _)| url)
    }

    /// The address as git takes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// How git reaches it.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.0.transport
    }

    /// Host, and port where the address has one: what a credential is asked for. None for `file://`.
    #[must_use]
    pub fn authority(&self) -> Option<&str> {
        (!self.0.authority.is_empty()).then_some(self.0.authority.as_str())
    }

    /// The path on the host, without slashes at its ends and without `.git`, such as `owner/name`.
    #[must_use]
    pub fn repository(&self) -> &str {
        let path = self.0.path.trim_matches('/');
        path.strip_suffix(".git").unwrap_or(path)
    }

    /// The local directory behind a `file://` address.
    #[must_use]
    pub fn local_path(&self) -> Option<PathBuf> {
        (self.0.transport == Transport::File).then(|| PathBuf::from(&self.0.path))
    }

    /// The name of its folder in the cache: the first 12 hexadecimal digits of the SHA-256 of the address.
    #[must_use]
    pub fn key(&self) -> String {
        let digest = Sha256::digest(self.0.text.as_bytes());
        digest
            .iter()
            .take(6)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

fn parse(text: &str) -> Result<(RepoUrl, Option<UrlCredentials>), InvalidUrl> {
    let text = text.trim();
    if text.is_empty() {
        return Err(InvalidUrl::Empty);
    }
    if text.len() > MAX_BYTES {
        return Err(InvalidUrl::TooLong);
    }
    if text.starts_with('-') {
        return Err(InvalidUrl::Option);
    }
    if text
        .chars()
        .any(|c| c.is_control() || c.is_whitespace() || c == '\\')
    {
        return Err(InvalidUrl::Character);
    }
    match text.split_once("://") {
        Some((scheme, _)) if scheme.contains("::") => Err(InvalidUrl::Helper),
        Some(("file", path)) => file(path),
        Some((scheme, _))
            if scheme
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)) =>
        {
            with_scheme(text)
        }
        Some(_) => Err(InvalidUrl::Scheme),
        None if text.contains("::") => Err(InvalidUrl::Helper),
        None => scp_like(text),
    }
}

fn file(path: &str) -> Result<(RepoUrl, Option<UrlCredentials>), InvalidUrl> {
    let path = path
        .strip_prefix("localhost")
        .filter(|p| p.starts_with('/'))
        .unwrap_or(path);
    if !path.starts_with('/') || path.split('/').any(|name| name == "..") {
        return Err(InvalidUrl::FilePath);
    }
    // Git decodes %xx in addresses, so what we checked would not be what it opens.
    if path.contains(['?', '#', '%']) {
        return Err(InvalidUrl::Query);
    }
    let path = match path.trim_end_matches('/') {
        "" => return Err(InvalidUrl::Path),
        path => path.to_owned(),
    };
    Ok((
        RepoUrl(Arc::new(Address {
            text: format!("file://{path}"),
            transport: Transport::File,
            authority: String::new(),
            path,
        })),
        None,
    ))
}

fn with_scheme(text: &str) -> Result<(RepoUrl, Option<UrlCredentials>), InvalidUrl> {
    let mut url = Url::parse(text).map_err(|_| InvalidUrl::Host)?;
    let transport = match url.scheme() {
        "https" => Transport::Https,
        "http" => Transport::Http,
        "ssh" | "git+ssh" | "ssh+git" => Transport::Ssh,
        _ => return Err(InvalidUrl::Scheme),
    };
    let host = url
        .host_str()
        .filter(|h| !h.is_empty())
        .ok_or(InvalidUrl::Host)?
        .to_owned();
    refuse_option(&host)?;
    refuse_option(url.username())?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(InvalidUrl::Query);
    }
    if transport == Transport::Http && !is_loopback(&url) {
        return Err(InvalidUrl::PlainHttp);
    }
    let path = url.path().trim_end_matches('/').to_owned();
    if path.is_empty() {
        return Err(InvalidUrl::Path);
    }
    let credentials = take_credentials(&mut url, transport);
    let authority = url
        .port()
        .map_or(host.clone(), |port| format!("{host}:{port}"));
    let scheme = if transport == Transport::Ssh {
        "ssh"
    } else {
        url.scheme()
    };
    let user = match url.username() {
        "" => String::new(),
        user => format!("{user}@"),
    };
    Ok((
        RepoUrl(Arc::new(Address {
            text: format!("{scheme}://{user}{authority}{path}"),
            transport,
            authority,
            path,
        })),
        credentials,
    ))
}

/// Takes user and password off. The user of an ssh address stays: it is part of the address (`git@`), not a secret.
fn take_credentials(url: &mut Url, transport: Transport) -> Option<UrlCredentials> {
    let keep_user = transport == Transport::Ssh;
    let password = url.password().map(decoded);
    if password.is_none() && (keep_user || url.username().is_empty()) {
        return None;
    }
    let username = decoded(url.username());
    // These fail only for addresses without a host, which were refused before.
    let _ = url.set_password(None);
    if !keep_user {
        let _ = url.set_username("");
    }
    Some(UrlCredentials {
        username: username.into(),
        password: password.unwrap_or_default().into(),
    })
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text)
        .decode_utf8_lossy()
        .into_owned()
}

/// `[user@]host:path`, as ssh clients write it.
fn scp_like(text: &str) -> Result<(RepoUrl, Option<UrlCredentials>), InvalidUrl> {
    let (place, path) = text.split_once(':').ok_or(InvalidUrl::Scheme)?;
    if place.contains('/') {
        return Err(InvalidUrl::Scheme);
    }
    let (user, host) = place
        .rsplit_once('@')
        .map_or((None, place), |(user, host)| (Some(user), host));
    let plain = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    };
    if user.is_some_and(|user| user.contains(':')) {
        return Err(InvalidUrl::Credentials);
    }
    for part in [Some(host), user].into_iter().flatten() {
        refuse_option(part)?;
        if !plain(part) {
            return Err(InvalidUrl::Host);
        }
    }
    refuse_option(path)?;
    let path = path.trim_end_matches('/');
    if path.is_empty() {
        return Err(InvalidUrl::Path);
    }
    if path.contains(['?', '#']) {
        return Err(InvalidUrl::Query);
    }
    // `user:password@host:path` would put the password into the path.
    if path.contains('@') {
        return Err(InvalidUrl::Credentials);
    }
    let host = host.to_ascii_lowercase();
    let user = user.map(|user| format!("{user}@")).unwrap_or_default();
    let text = format!("{user}{host}:{path}");
    Ok((
        RepoUrl(Arc::new(Address {
            text,
            transport: Transport::Ssh,
            authority: host,
            path: path.to_owned(),
        })),
        None,
    ))
}

fn refuse_option(part: &str) -> Result<(), InvalidUrl> {
    if part.starts_with('-') {
        Err(InvalidUrl::Option)
    } else {
        Ok(())
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(ip)) => IpAddr::V4(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::V6(ip).is_loopback(),
        None => false,
    }
}

impl TryFrom<String> for RepoUrl {
    type Error = InvalidUrl;

    fn try_from(text: String) -> Result<Self, InvalidUrl> {
        Self::stored(&text)
    }
}

impl From<RepoUrl> for String {
    fn from(url: RepoUrl) -> String {
        url.0.text.clone()
    }
}

impl fmt::Display for RepoUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.text)
    }
}

impl fmt::Debug for RepoUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RepoUrl({})", self.0.text)
    }
}

#[cfg(test)]
mod tests;
