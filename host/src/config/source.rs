//! One setting after the other, from wherever it is set: text first, then what it means.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use secrecy::SecretString;
use serde_json::{Map, Value};

use super::{ConfigError, Otel, settings};
use crate::plugin::{Grant, Limits};
use crate::queue::redis;
use crate::workbench::signature::TrustedKeys;

/// Ten years, in seconds: more than anybody means, and few enough that sums of times and points in time can be told.
const MAX_SECONDS: u64 = 10 * 365 * 86_400;
/// More of anything at one time than a machine has threads for.
const MAX_AT_ONCE: u64 = 10_000;

/// Looks settings up by their YAML name.
pub(super) struct Source<'a> {
    pub(super) lookup: &'a dyn Fn(&str) -> Option<String>,
    pub(super) yaml: &'a Map<String, Value>,
    pub(super) file: &'a Path,
}

impl Source<'_> {
    /// The value as text, and the place it was set.
    fn find(&self, yaml_name: &str) -> Result<(Option<String>, String), ConfigError> {
        let setting = settings::named(yaml_name);
        if let Some(text) = (self.lookup)(setting.env).filter(|t| !t.is_empty()) {
            return Ok((Some(text), setting.env.to_owned()));
        }
        let place = format!("{} in {}", setting.yaml, self.file.display());
        match settings::get(self.yaml, setting.yaml) {
            Some(value) => Ok((Some(settings::as_text(value, &place)?), place)),
            None => Ok((
                setting.default().filter(|d| !d.is_empty()),
                format!("the default of {}", setting.env),
            )),
        }
    }

    /// What every setting was set to, or is by default, by its variable; of a secret no more than that it is set.
    pub(super) fn written(&self) -> Result<BTreeMap<&'static str, String>, ConfigError> {
        let mut written = BTreeMap::new();
        for setting in settings::SETTINGS {
            if let (Some(text), _) = self.find(setting.yaml)? {
                let text = if setting.secret { String::new() } else { text };
                written.insert(setting.env, text);
            }
        }
        Ok(written)
    }

    /// Where Redis is, if there is one.
    pub(super) fn redis(&self) -> Result<Option<redis::Address>, ConfigError> {
        let Some(url) = self.text("redis.url")? else {
            return Ok(None);
        };
        let ca = self.path("redis.ca_file")?;
        let ca = ca.map(|path| certificates(&path)).transpose();
        let address = redis::Address {
            url: SecretString::from(self.with_credentials(url)?),
            sentinels: self.list("redis.sentinels")?,
            master: self.text("redis.sentinel_master")?.unwrap_or_default(),
            ca: ca.map_err(|problem| ConfigError::Conflict(format!("REDIS_CA_FILE: {problem}")))?,
        };
        address.check().map_err(ConfigError::Conflict)?;
        Ok(Some(address))
    }

    /// The URL with the user and the password that are set beside it. Deployments keep them in a secret, as they are.
    fn with_credentials(&self, url: String) -> Result<String, ConfigError> {
        let (user, password) = (self.text("redis.username")?, self.text("redis.password")?);
        if user.is_none() && password.is_none() {
            return Ok(url);
        }
        let put = || {
            let mut url = url::Url::parse(&url).ok()?;
            // A percent sign would be taken for the beginning of an encoded byte.
            let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
            if let Some(user) = &user {
                url.set_username(&encoded(user)).ok()?;
            }
            if let Some(password) = &password {
                url.set_password(Some(&encoded(password))).ok()?;
            }
            Some(url.to_string())
        };
        put().ok_or_else(|| {
            ConfigError::Conflict(
                "REDIS_USERNAME and REDIS_PASSWORD do not go into REDIS_URL: it must look like redis://HOST:PORT/DATABASE"
                    .into(),
            )
        })
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<String>, ConfigError> {
        Ok(self.find(name)?.0)
    }

    fn wrong(
        &self,
        name: &str,
        place: String,
        given: String,
        problem: impl Into<String>,
    ) -> ConfigError {
        let given = if settings::named(name).secret {
            "(hidden)".into()
        } else {
            given
        };
        ConfigError::Value {
            place,
            given,
            problem: problem.into(),
        }
    }

    pub(super) fn parse<T: FromStr>(&self, name: &str, expected: &str) -> Result<T, ConfigError> {
        let (text, place) = self.find(name)?;
        let text = text.unwrap_or_default();
        text.trim()
            .parse()
            .map_err(|_| self.wrong(name, place, text, format!("expected {expected}")))
    }

    pub(super) fn plugin_limits(&self) -> Result<Limits, ConfigError> {
        let name = "plugins.limits";
        let (text, place) = self.find(name)?;
        let text = text.unwrap_or_default();
        text.parse()
            .map_err(|problem: String| self.wrong(name, place, text, problem))
    }

    /// How many of something there may be at one time.
    pub(super) fn at_once(&self, name: &str) -> Result<usize, ConfigError> {
        let number = self.whole(name, "a whole number", 1..=MAX_AT_ONCE)?;
        Ok(usize::try_from(number).unwrap_or(usize::MAX))
    }

    pub(super) fn seconds(&self, name: &str) -> Result<Duration, ConfigError> {
        self.seconds_of(name, 0..=MAX_SECONDS)
    }

    pub(super) fn seconds_of(
        &self,
        name: &str,
        range: RangeInclusive<u64>,
    ) -> Result<Duration, ConfigError> {
        self.whole(name, "a whole number of seconds", range)
            .map(Duration::from_secs)
    }

    /// A number in `range`, which the refusal of any other value names.
    fn whole(
        &self,
        name: &str,
        what: &str,
        range: RangeInclusive<u64>,
    ) -> Result<u64, ConfigError> {
        let expected = format!("{what} from {} to {}", range.start(), range.end());
        let number = self.parse(name, &expected)?;
        if range.contains(&number) {
            return Ok(number);
        }
        let (text, place) = self.find(name)?;
        Err(self.wrong(
            name,
            place,
            text.unwrap_or_default(),
            format!("expected {expected}"),
        ))
    }

    /// Where the server listens and clients go.
    pub(super) fn host(&self, flag: Option<&String>) -> Result<String, ConfigError> {
        let (host, place) = match flag {
            Some(host) => (host.clone(), "--host".to_owned()),
            None => {
                let (text, place) = self.find("server.host")?;
                (text.unwrap_or_default(), place)
            }
        };
        if host.trim().is_empty() {
            let problem = "expected an address such as 127.0.0.1 or 0.0.0.0, or `auto`";
            return Err(self.wrong("server.host", place, host, problem));
        }
        Ok(host)
    }

    /// There is one way to reach this version; whoever asks for another must not believe to have it.
    pub(super) fn check_transport(&self) -> Result<(), ConfigError> {
        let name = "server.transport";
        let (text, place) = self.find(name)?;
        match text.unwrap_or_default() {
            text if text == settings::TRANSPORT => Ok(()),
            text => Err(self.wrong(
                name,
                place,
                text,
                "expected sse, which is REST and event streams over HTTP; this version does not speak MCP, neither by stdio nor by HTTP",
            )),
        }
    }

    /// The operator's ceiling, if there is one.
    pub(super) fn ceiling(&self) -> Result<Option<Vec<Grant>>, ConfigError> {
        let name = "plugins.ceiling";
        let (Some(text), place) = self.find(name)? else {
            return Ok(None);
        };
        let grants = self.list(name)?.into_iter().map(|grant| {
            let grant = grant.parse::<Grant>();
            grant.map_err(|e| self.wrong(name, place.clone(), text.clone(), e.to_string()))
        });
        grants.collect::<Result<_, _>>().map(Some)
    }

    /// The keys of those whose plugins are accepted.
    pub(super) fn plugin_keys(&self) -> Result<TrustedKeys, ConfigError> {
        let name = "plugins.keys";
        let (text, place) = self.find(name)?;
        TrustedKeys::parse(&self.list(name)?)
            .map_err(|e| self.wrong(name, place, text.unwrap_or_default(), e.0))
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, ConfigError> {
        let (text, place) = self.find(name)?;
        match text
            .as_deref()
            .unwrap_or("false")
            .to_ascii_lowercase()
            .as_str()
        {
            "1" | "true" | "yes" | "on" => Ok(true),
            "0" | "false" | "no" | "off" => Ok(false),
            _ => Err(self.wrong(
                name,
                place,
                text.unwrap_or_default(),
                "expected true or false",
            )),
        }
    }

    pub(super) fn list(&self, name: &str) -> Result<Vec<String>, ConfigError> {
        let text = self.text(name)?.unwrap_or_default();
        Ok(text
            .split(',')
            .map(str::trim)
            .filter(|t| !t.is_empty())
            .map(str::to_owned)
            .collect())
    }

    pub(super) fn secrets(&self, name: &str) -> Result<Vec<SecretString>, ConfigError> {
        let list = self.list(name)?.into_iter();
        Ok(list.map(SecretString::from).collect())
    }

    pub(super) fn path(&self, name: &str) -> Result<Option<PathBuf>, ConfigError> {
        let (text, place) = self.find(name)?;
        let Some(text) = text else { return Ok(None) };
        let path = match (text.strip_prefix("~/"), (self.lookup)("HOME")) {
            (Some(rest), Some(home)) => Path::new(&home).join(rest),
            _ => PathBuf::from(&text),
        };
        if !path.is_absolute() {
            return Err(self.wrong(name, place, text, "expected an absolute path"));
        }
        Ok(Some(path))
    }

    pub(super) fn otel(&self) -> Result<Otel, ConfigError> {
        Ok(Otel {
            enabled: self.flag("otel.enabled")?,
            endpoint: self.text("otel.endpoint")?,
            protocol: self.text("otel.protocol")?,
            traces_endpoint: self.text("otel.traces_endpoint")?,
            log_prompts: self.flag("otel.log_prompts")?,
            log_tool_details: self.flag("otel.log_tool_details")?,
        })
    }

    /// The `agents:` group of the file, with the compatibility variables over it.
    pub(super) fn agents(&self) -> Result<BTreeMap<String, Map<String, Value>>, ConfigError> {
        let mut agents = BTreeMap::new();
        if let Some(value) = self.yaml.get("agents") {
            let place = || format!("agents in {}", self.file.display());
            let wrong = |given: &Value| {
                self.wrong(
                    "server.host",
                    place(),
                    given.to_string(),
                    "expected a mapping of plugin names to settings",
                )
            };
            for (name, settings) in value.as_object().ok_or_else(|| wrong(value))? {
                agents.insert(
                    name.clone(),
                    settings.as_object().ok_or_else(|| wrong(settings))?.clone(),
                );
            }
        }
        for (name, key) in settings::COMPATIBILITY {
            let (Some(text), _) = self.find(name)? else {
                continue;
            };
            let value = serde_json::from_str::<serde_json::Number>(&text)
                .map_or(Value::String(text), Value::Number);
            agents
                .entry(settings::COMPATIBILITY_PLUGIN.to_owned())
                .or_default()
                .insert((*key).to_owned(), value);
        }
        Ok(agents)
    }
}

/// A file of certificates, as it is; one without any would be trusted to sign nothing, and every connection would fail.
fn certificates(path: &Path) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let pem = std::fs::read(path).map_err(|e| format!("cannot read {shown}: {e}"))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let added = certificate.map(|certificate| roots.add(certificate));
        if !matches!(added, Ok(Ok(()))) {
            return Err(format!("{shown} holds a certificate that cannot be used"));
        }
    }
    match roots.is_empty() {
        true => Err(format!("{shown} holds no certificate in PEM form")),
        false => Ok(pem),
    }
}
