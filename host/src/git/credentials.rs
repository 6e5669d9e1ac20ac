//! Credentials for remotes. They live in memory and in the environment of the one git process that needs them: never in its
//! arguments, in a configuration file, in a remote's address or in an error.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

use super::url::{RepoUrl, Transport};

/// What a remote is given to let us in.
#[derive(Debug, Clone)]
pub struct Credential {
    /// The user's name; services that take a token mostly ignore it.
    pub username: String,
    /// The password or token.
    pub password: SecretString,
}

/// Knows the credentials of hosts.
pub trait Credentials: Send + Sync + fmt::Debug {
    /// The credential for a host, given as it stands in the address: with its port if there is one. It is sent to no other.
    fn for_host(&self, authority: &str) -> Option<Credential>;
}

/// No credentials for anyone.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoCredentials;

impl Credentials for NoCredentials {
    fn for_host(&self, _authority: &str) -> Option<Credential> {
        None
    }
}

/// One token for one host.
#[derive(Debug, Clone)]
pub struct HostToken {
    /// The host, such as `github.com`.
    pub authority: String,
    /// The token.
    pub token: SecretString,
}

impl Credentials for HostToken {
    fn for_host(&self, authority: &str) -> Option<Credential> {
        // The user's name is the one that GitHub documents for tokens; others ignore it.
        let credential = || Credential {
            username: "x-access-token".to_owned(),
            password: self.token.clone(),
        };
        authority
            .eq_ignore_ascii_case(&self.authority)
            .then(credential)
    }
}

/// The helper that git runs (gitcredentials(7)). It answers for one host over one protocol only, so a redirect or a planted
/// `insteadOf` gets nothing, and it reads the answer from its environment. Its text holds no secret.
const HELPER: &str = "credential.helper=!f() { test \"$1\" = get || exit 0; \
while IFS== read -r k v; do case \"$k\" in protocol) p=$v;; host) h=$v;; esac; done; \
test \"$p://$h\" = \"$AGENTICORE_GIT_FOR\" || exit 0; \
printf 'username=%s\\npassword=%s\\n' \"$AGENTICORE_GIT_USER\" \"$AGENTICORE_GIT_PASSWORD\"; }; f";

/// The configuration that makes git ask our helper and no other.
pub(super) const CONFIG: [&str; 2] = ["credential.helper=", HELPER];

/// The variables that the helper answers from, for the git process that talks to `url`.
pub(super) fn variables(
    url: &RepoUrl,
    credentials: &dyn Credentials,
) -> Vec<(&'static str, String)> {
    let scheme = match url.transport() {
        Transport::Https => "https",
        // Only ever to a loopback address.
        Transport::Http => "http",
        Transport::Ssh | Transport::File => return Vec::new(),
    };
    let Some(authority) = url.authority() else {
        return Vec::new();
    };
    let Some(credential) = credentials.for_host(authority) else {
        return Vec::new();
    };
    let password = credential.password.expose_secret();
    // A line end would let a value add fields to the answer.
    if [credential.username.as_str(), password]
        .iter()
        .any(|text| text.contains(['\n', '\r', '\0']))
    {
        tracing::warn!(
            host = authority,
            "the credential holds a line end and is not used"
        );
        return Vec::new();
    }
    vec![
        ("AGENTICORE_GIT_FOR", format!("{scheme}://{authority}")),
        ("AGENTICORE_GIT_USER", credential.username),
        ("AGENTICORE_GIT_PASSWORD", password.to_owned()),
    ]
}
