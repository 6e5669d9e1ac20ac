//! The keys of `profile.yml` that the host acts on, read with their types.
//!
//! Everything is optional here: what a key is worth without a value is decided where the `extends` chain is added up.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Map, Value};

use super::delivery::DeliveryKeys;
use super::yaml::kind;
use super::{HookPoint, OnInterrupt, ProfileError, ProfileName};

/// The host's keys of one document.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct HostKeys {
    pub(super) name: Option<String>,
    pub(super) description: Option<String>,
    pub(super) extends: Option<ProfileName>,
    pub(super) auto_pr: Option<bool>,
    pub(super) on_interrupt: Option<OnInterrupt>,
    pub(super) max_attempts: Option<u32>,
    pub(super) local_only: Option<bool>,
    pub(super) timeout: Option<u32>,
    pub(super) delivery: DeliveryKeys,
    pub(super) plugin: Option<PluginKeys>,
    pub(super) hooks: Option<Vec<HookKeys>>,
}

/// The keys of a `plugin` block or of a hook.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct PluginKeys {
    pub(super) component: Option<ComponentName>,
    pub(super) sha256: Option<String>,
    pub(super) config: Option<Map<String, Value>>,
    pub(super) grants: Option<BTreeMap<String, BTreeSet<String>>>,
    pub(super) limits: Option<Map<String, Value>>,
}

/// One entry of `hooks`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct HookKeys {
    /// Its component is always set.
    pub(super) plugin: PluginKeys,
    pub(super) on: BTreeSet<HookPoint>,
    pub(super) required: bool,
}

/// A component as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ComponentName {
    /// A bare name: part of the binary.
    Bundled(String),
    /// The relative path of a `.wasm` file.
    File(String),
}

pub(super) const HOST_KEYS: [&str; 12] = [
    "name",
    "description",
    "extends",
    "auto_pr",
    "on_interrupt",
    "max_attempts",
    "local_only",
    "timeout",
    "pull_request",
    "repository",
    "plugin",
    "hooks",
];
const PLUGIN_KEYS: [&str; 5] = ["component", "sha256", "config", "grants", "limits"];
const HOOK_KEYS: [&str; 7] = [
    "component",
    "sha256",
    "config",
    "grants",
    "limits",
    "on",
    "required",
];

impl HostKeys {
    /// Reads the host's keys of the document `file`. Keys it does not know belong to the plugin, unless they are a host key in
    /// another spelling.
    pub(super) fn read(file: &Path, settings: &Map<String, Value>) -> Result<Self, ProfileError> {
        let keys = Keys {
            file,
            prefix: String::new(),
            map: settings,
        };
        keys.refuse_misspelt()?;
        Ok(Self {
            name: keys.text("name")?,
            description: keys.text("description")?,
            extends: keys
                .text("extends")?
                .map(|text| keys.parse("extends", &text))
                .transpose()?,
            auto_pr: keys.boolean("auto_pr")?,
            on_interrupt: keys.choice(
                "on_interrupt",
                &[("rerun", OnInterrupt::Rerun), ("fail", OnInterrupt::Fail)],
            )?,
            max_attempts: keys.number("max_attempts", 1, 100)?,
            local_only: keys.boolean("local_only")?,
            timeout: keys.number("timeout", 1, u32::MAX)?,
            delivery: DeliveryKeys::read(&keys)?,
            plugin: keys
                .mapping("plugin")?
                .map(|keys| PluginKeys::read(&keys, &PLUGIN_KEYS))
                .transpose()?,
            hooks: keys.hooks()?,
        })
    }
}

impl PluginKeys {
    fn read(keys: &Keys<'_>, known: &[&str]) -> Result<Self, ProfileError> {
        keys.refuse_unknown(known)?;
        Ok(Self {
            component: keys
                .text("component")?
                .map(|text| keys.component(text))
                .transpose()?,
            sha256: keys
                .text("sha256")?
                .map(|text| keys.sha256(text))
                .transpose()?,
            config: keys.mapping("config")?.map(|keys| keys.map.clone()),
            grants: keys
                .mapping("grants")?
                .map(|keys| keys.grants())
                .transpose()?,
            limits: keys.mapping("limits")?.map(|keys| keys.map.clone()),
        })
    }
}

/// A mapping in a document, and where it stands. A key without a value counts as not set.
pub(super) struct Keys<'a> {
    file: &'a Path,
    prefix: String,
    map: &'a Map<String, Value>,
}

impl<'a> Keys<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn path(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    pub(super) fn wrong(
        &self,
        key: &str,
        expected: impl Into<String>,
        found: &Value,
    ) -> ProfileError {
        ProfileError::Type {
            file: self.file.to_owned(),
            key: self.path(key),
            expected: expected.into(),
            found: kind(found),
        }
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<String>, ProfileError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(self.wrong(
                key,
                "a text (in quotes, if it looks like something else)",
                other,
            )),
        }
    }

    pub(super) fn boolean(&self, key: &str) -> Result<Option<bool>, ProfileError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(self.wrong(key, "`true` or `false`", other)),
        }
    }

    fn number(&self, key: &str, min: u32, max: u32) -> Result<Option<u32>, ProfileError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        match number.filter(|number| (min..=max).contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong(key, format!("a whole number from {min} to {max}"), value)),
        }
    }

    pub(super) fn choice<T: Copy>(
        &self,
        key: &str,
        choices: &[(&str, T)],
    ) -> Result<Option<T>, ProfileError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let found = choices
            .iter()
            .find(|(word, _)| value.as_str() == Some(word));
        found.map(|(_, choice)| Some(*choice)).ok_or_else(|| {
            let words: Vec<_> = choices
                .iter()
                .map(|(word, _)| format!("`{word}`"))
                .collect();
            self.wrong(key, words.join(" or "), value)
        })
    }

    pub(super) fn mapping(&self, key: &str) -> Result<Option<Keys<'a>>, ProfileError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Keys {
                file: self.file,
                prefix: format!("{}.", self.path(key)),
                map,
            })),
            Some(other) => Err(self.wrong(key, "a mapping", other)),
        }
    }

    pub(super) fn list(&self, key: &str) -> Result<Option<&'a [Value]>, ProfileError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(other) => Err(self.wrong(key, "a list", other)),
        }
    }

    fn parse(&self, key: &str, text: &str) -> Result<ProfileName, ProfileError> {
        text.parse().map_err(|error: super::InvalidName| {
            self.wrong(
                key,
                format!("the name of one profile ({error})"),
                &Value::from(text),
            )
        })
    }

    fn component(&self, text: String) -> Result<ComponentName, ProfileError> {
        let bare = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !text.is_empty() && !text.starts_with('-') && text.chars().all(bare) {
            return Ok(ComponentName::Bundled(text));
        }
        let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', '\0']);
        if text.ends_with(".wasm") && text.split('/').all(plain) {
            return Ok(ComponentName::File(text));
        }
        let expected = "the name of a bundled plugin (lower-case letters, digits and `-`) or the relative path of a `.wasm` file";
        Err(self.wrong("component", expected, &Value::from(text)))
    }

    fn sha256(&self, text: String) -> Result<String, ProfileError> {
        let digest = text
            .strip_prefix("sha256:")
            .unwrap_or(&text)
            .to_ascii_lowercase();
        if digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(digest);
        }
        Err(self.wrong("sha256", "64 hexadecimal digits", &Value::from(text)))
    }

    /// `{kind: [name, ...]}`. Which kinds there are is known to those who check the grants.
    fn grants(&self) -> Result<BTreeMap<String, BTreeSet<String>>, ProfileError> {
        let mut grants = BTreeMap::new();
        for key in self.map.keys() {
            let mut names = BTreeSet::new();
            for item in self.list(key)?.unwrap_or_default() {
                let name = item
                    .as_str()
                    .ok_or_else(|| self.wrong(key, "a list of texts", item))?;
                names.insert(name.to_owned());
            }
            grants.insert(key.clone(), names);
        }
        Ok(grants)
    }

    fn hooks(&self) -> Result<Option<Vec<HookKeys>>, ProfileError> {
        let Some(items) = self.list("hooks")? else {
            return Ok(None);
        };
        items
            .iter()
            .enumerate()
            .map(|(n, item)| self.hook(n, item))
            .collect::<Result<Vec<_>, _>>()
            .map(Some)
    }

    fn hook(&self, n: usize, item: &'a Value) -> Result<HookKeys, ProfileError> {
        let place = format!("hooks[{n}]");
        let Value::Object(map) = item else {
            return Err(self.wrong(&place, "a mapping with a `component`", item));
        };
        let keys = Keys {
            file: self.file,
            prefix: format!("{place}."),
            map,
        };
        let plugin = PluginKeys::read(&keys, &HOOK_KEYS)?;
        if plugin.component.is_none() {
            return Err(keys.wrong("component", "set", &Value::Null));
        }
        let mut on = BTreeSet::new();
        for point in keys.list("on")?.unwrap_or_default() {
            on.insert(match point.as_str() {
                Some("pre-job") => HookPoint::PreJob,
                Some("post-job") => HookPoint::PostJob,
                Some("redact") => HookPoint::Redact,
                _ => {
                    return Err(keys.wrong(
                        "on",
                        "a list of `pre-job`, `post-job` and `redact`",
                        point,
                    ));
                }
            });
        }
        if on.is_empty() {
            return Err(keys.wrong(
                "on",
                "a list of at least one of `pre-job`, `post-job` and `redact`",
                keys.get("on").unwrap_or(&Value::Null),
            ));
        }
        Ok(HookKeys {
            plugin,
            on,
            required: keys.boolean("required")?.unwrap_or(true),
        })
    }

    pub(super) fn refuse_unknown(&self, known: &[&str]) -> Result<(), ProfileError> {
        match self.map.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) => Err(self.unknown(key, format!("known here are: {}", known.join(", ")))),
        }
    }

    /// A plugin has top-level keys of its own, so an unknown one may be right; `auto-pr` or `Extends` is not.
    fn refuse_misspelt(&self) -> Result<(), ProfileError> {
        for key in self
            .map
            .keys()
            .filter(|key| !HOST_KEYS.contains(&key.as_str()))
        {
            let plain = plain(key);
            if let Some(meant) = HOST_KEYS.iter().find(|known| plain == self::plain(known)) {
                return Err(self.unknown(key, format!("did you mean `{meant}`?")));
            }
        }
        Ok(())
    }

    fn unknown(&self, key: &str, hint: String) -> ProfileError {
        ProfileError::UnknownKey {
            file: self.file.to_owned(),
            key: self.path(key),
            hint,
        }
    }
}

fn plain(key: &str) -> String {
    key.chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect()
}
