//! One setting after the other, from wherever it is set: text first, then what it means.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::SecretString;
use serde_json::{Map, Value};

use super::{ConfigError, Otel, settings};
use crate::plugin::Limits;
use crate::queue::redis;

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

    /// Where Redis is, if there is one.
    pub(super) fn redis(&self) -> Result<Option<redis::Address>, ConfigError> {
        let Some(url) = self.text("redis.url")? else {
            return Ok(None);
        };
        let ca = match self.path("redis.ca_file")? {
            None => None,
            Some(path) => Some(std::fs::read(&path).map_err(|e| {
                ConfigError::Conflict(format!(
                    "REDIS_CA_FILE: cannot read {}: {e}",
                    path.display()
                ))
            })?),
        };
        let address = redis::Address {
            url: SecretString::from(self.with_credentials(url)?),
            sentinels: self.list("redis.sentinels")?,
            master: self.text("redis.sentinel_master")?.unwrap_or_default(),
            ca,
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

    pub(super) fn at_least_one(&self, name: &str) -> Result<usize, ConfigError> {
        let number: usize = self.parse(name, "a whole number from 1")?;
        if number == 0 {
            let (text, place) = self.find(name)?;
            return Err(self.wrong(
                name,
                place,
                text.unwrap_or_default(),
                "expected a whole number from 1",
            ));
        }
        Ok(number)
    }

    pub(super) fn seconds(&self, name: &str) -> Result<Duration, ConfigError> {
        self.parse(name, "a whole number of seconds")
            .map(Duration::from_secs)
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
