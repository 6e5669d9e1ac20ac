//! The profile's own keys: what stands under `claude:` in each layer and under `plugin.config`.
//!
//! Every key is optional. What a layer says wins over what its parents say, even where it says the default; lists of tools and
//! variables add up.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::json::kind;
use agenticore_plugin::{Error, is_variable};

/// The keys and what they hold, as people read it. `schema` says the same as JSON Schema.
pub(crate) const KEYS: [&str; 17] = [
    "model",
    "max_turns",
    "permission_mode",
    "no_session_persistence",
    "output_format",
    "worktree",
    "effort",
    "timeout",
    "max_budget_usd",
    "fallback_model",
    "append_prompt",
    "allowed_tools",
    "disallowed_tools",
    "setting_sources",
    "trust_repository",
    "env",
    "secrets",
];
/// The keys at the top of a profile that are read here; the host warns of others.
pub(crate) const PROFILE_KEYS: [&str; 2] = ["claude", "append_prompt"];
pub(crate) const PERMISSION_MODES: [&str; 6] = [
    "acceptEdits",
    "auto",
    "bypassPermissions",
    "default",
    "dontAsk",
    "plan",
];
pub(crate) const OUTPUT_FORMATS: [&str; 3] = ["json", "text", "stream-json"];
pub(crate) const EFFORTS: [&str; 5] = ["low", "medium", "high", "xhigh", "max"];
pub(crate) const SOURCES: [&str; 3] = ["user", "project", "local"];

/// What a chain of layers adds up to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    pub(crate) model: String,
    pub(crate) max_turns: u32,
    pub(crate) permission_mode: String,
    pub(crate) no_session_persistence: bool,
    /// What is stored as the job's output. The agent always prints `stream-json`.
    pub(crate) output_format: String,
    pub(crate) effort: Option<String>,
    /// Seconds; none: what the operator says.
    pub(crate) timeout: Option<u32>,
    pub(crate) max_budget_usd: Option<f64>,
    pub(crate) fallback_model: Option<String>,
    pub(crate) append_prompt: Option<String>,
    pub(crate) allowed_tools: Vec<String>,
    pub(crate) disallowed_tools: Vec<String>,
    pub(crate) setting_sources: Option<Vec<String>>,
    /// Whether the settings, hooks and servers that a repository brings are in force.
    pub(crate) trust_repository: bool,
    pub(crate) env: BTreeMap<String, String>,
    /// Secrets that the agent gets as variables of the same name.
    pub(crate) secrets: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            model: "sonnet".to_owned(),
            max_turns: 80,
            permission_mode: "bypassPermissions".to_owned(),
            no_session_persistence: false,
            output_format: "json".to_owned(),
            effort: None,
            timeout: None,
            max_budget_usd: None,
            fallback_model: None,
            append_prompt: None,
            allowed_tools: Vec::new(),
            disallowed_tools: Vec::new(),
            setting_sources: None,
            trust_repository: false,
            env: BTreeMap::new(),
            secrets: Vec::new(),
        }
    }
}

/// The settings of a chain, each layer with its name and the text of its `settings`, the root first.
///
/// # Errors
/// A key that is not known or has a value of the wrong type, with the layer it stands in.
pub(crate) fn of_layers<'a>(
    layers: impl Iterator<Item = (&'a str, &'a str)>,
    config: &str,
) -> Result<Settings, Error> {
    let mut settings = Settings::default();
    for (name, json) in layers {
        let place = format!("profile `{name}`");
        let keys = object(&place, json)?;
        settings.lay_over(&place, &keys)?;
    }
    let config = object("plugin.config", config)?;
    settings.lay_keys_over("plugin.config", "", &config)?;
    Ok(settings)
}

/// The settings of a run, from the layers' settings as one JSON array.
///
/// # Errors
/// As [`of_layers`].
pub(crate) fn of_run(layers: &str, config: &str) -> Result<Settings, Error> {
    let layers: Vec<Value> = serde_json::from_str(layers)
        .map_err(|error| Error::profile(format!("the layers' settings: {error}")))?;
    let texts: Vec<String> = layers.iter().map(Value::to_string).collect();
    of_layers(
        texts.iter().map(|text| ("of this run", text.as_str())),
        config,
    )
}

fn object(place: &str, json: &str) -> Result<Map<String, Value>, Error> {
    serde_json::from_str(json)
        .map_err(|error| Error::profile(format!("{place}: not a JSON object: {error}")))
}

impl Settings {
    fn lay_over(&mut self, place: &str, layer: &Map<String, Value>) -> Result<(), Error> {
        // Profiles in a single file have it here.
        if let Some(value) = layer.get("append_prompt").filter(|value| !value.is_null()) {
            self.append_prompt = Some(
                Key {
                    place,
                    name: "append_prompt",
                    value,
                }
                .text()?,
            );
        }
        match layer.get("claude") {
            None | Some(Value::Null) => Ok(()),
            Some(Value::Object(keys)) => self.lay_keys_over(place, "claude.", keys),
            Some(value) => Err(Key {
                place,
                name: "claude",
                value,
            }
            .wrong("a mapping of keys to values")),
        }
    }

    fn lay_keys_over(
        &mut self,
        place: &str,
        prefix: &str,
        keys: &Map<String, Value>,
    ) -> Result<(), Error> {
        for (name, value) in keys {
            // A key without a value is not set; a wrong one is wrong all the same.
            if value.is_null() && KEYS.contains(&name.as_str()) {
                continue;
            }
            let path = format!("{prefix}{name}");
            self.set(
                name,
                &Key {
                    place,
                    name: &path,
                    value,
                },
            )?;
        }
        Ok(())
    }

    fn set(&mut self, name: &str, key: &Key<'_>) -> Result<(), Error> {
        match name {
            "model" => self.model = key.word()?,
            "max_turns" => self.max_turns = key.number()?,
            "permission_mode" => self.permission_mode = key.one_of(&PERMISSION_MODES)?,
            "no_session_persistence" => self.no_session_persistence = key.boolean()?,
            "output_format" => self.output_format = key.one_of(&OUTPUT_FORMATS)?,
            // The host gives every job a worktree of its own, so there is nothing left to choose.
            "worktree" => drop(key.boolean()?),
            "effort" => self.effort = Some(key.one_of(&EFFORTS)?),
            "timeout" => self.timeout = Some(key.number()?),
            "max_budget_usd" => self.max_budget_usd = Some(key.dollars()?),
            "fallback_model" => self.fallback_model = Some(key.word()?),
            "append_prompt" => self.append_prompt = Some(key.text()?),
            "allowed_tools" => add(&mut self.allowed_tools, key.rules()?),
            "disallowed_tools" => add(&mut self.disallowed_tools, key.rules()?),
            "setting_sources" => self.setting_sources = Some(key.list_of(&SOURCES)?),
            "trust_repository" => self.trust_repository = key.boolean()?,
            "env" => self.env.extend(key.variables()?),
            "secrets" => add(&mut self.secrets, key.names()?),
            _ => return Err(key.unknown()),
        }
        Ok(())
    }
}

/// Adds what is not there yet.
pub(crate) fn add<T: PartialEq>(list: &mut Vec<T>, more: Vec<T>) {
    for item in more {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}

/// One key with its value, and where it stands.
struct Key<'a> {
    place: &'a str,
    name: &'a str,
    value: &'a Value,
}

impl Key<'_> {
    fn wrong(&self, expected: &str) -> Error {
        let (place, name) = (self.place, self.name);
        let found = match self.value {
            Value::String(text) if text.len() <= 60 => {
                format!("the text `{}`", text.escape_debug())
            }
            Value::Number(number) => format!("the number {number}"),
            other => kind(other).to_owned(),
        };
        Error::profile(format!(
            "{place}: `{name}` must be {expected}, but it is {found}"
        ))
    }

    fn unknown(&self) -> Error {
        let (place, name) = (self.place, self.name);
        Error::profile(format!(
            "{place}: unknown key `{name}`; known are: {}",
            KEYS.join(", ")
        ))
    }

    fn text(&self) -> Result<String, Error> {
        self.value
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| self.wrong("a text"))
    }

    /// A text that makes one argument.
    fn word(&self) -> Result<String, Error> {
        let text = self
            .value
            .as_str()
            .filter(|text| !text.trim().is_empty() && !text.contains(char::is_control));
        text.map(str::to_owned)
            .ok_or_else(|| self.wrong("a text in one line, not empty"))
    }

    fn boolean(&self) -> Result<bool, Error> {
        self.value
            .as_bool()
            .ok_or_else(|| self.wrong("`true` or `false`"))
    }

    fn number(&self) -> Result<u32, Error> {
        let number = self
            .value
            .as_u64()
            .and_then(|number| u32::try_from(number).ok())
            .filter(|number| *number > 0);
        number.ok_or_else(|| self.wrong("a whole number above 0"))
    }

    fn dollars(&self) -> Result<f64, Error> {
        self.value
            .as_f64()
            .filter(|dollars| *dollars > 0.0)
            .ok_or_else(|| self.wrong("a number above 0"))
    }

    fn one_of(&self, words: &[&str]) -> Result<String, Error> {
        let text = self.value.as_str().filter(|text| words.contains(text));
        text.map(str::to_owned)
            .ok_or_else(|| self.wrong(&format!("one of {}", words.join(", "))))
    }

    fn list_of(&self, words: &[&str]) -> Result<Vec<String>, Error> {
        let expected = format!("a list of {}", words.join(", "));
        let list = self.texts(&expected)?;
        if list.iter().all(|text| words.contains(&text.as_str())) {
            Ok(list)
        } else {
            Err(self.wrong(&expected))
        }
    }

    /// Permission rules, such as `Bash(git *)`.
    fn rules(&self) -> Result<Vec<String>, Error> {
        let expected = "a list of tools, such as [Read, \"Bash(git *)\"]";
        let rules = self.texts(expected)?;
        let good = |rule: &String| !rule.trim().is_empty() && !rule.contains(char::is_control);
        if rules.iter().all(good) {
            Ok(rules)
        } else {
            Err(self.wrong(expected))
        }
    }

    fn names(&self) -> Result<Vec<String>, Error> {
        let expected = "a list of names, such as [SLACK_TOKEN]";
        let names = self.texts(expected)?;
        if names.iter().all(|name| is_variable(name)) {
            Ok(names)
        } else {
            Err(self.wrong(expected))
        }
    }

    fn texts(&self, expected: &str) -> Result<Vec<String>, Error> {
        let list = self.value.as_array().ok_or_else(|| self.wrong(expected))?;
        list.iter()
            .map(|item| {
                item.as_str()
                    .map(str::to_owned)
                    .ok_or_else(|| self.wrong(expected))
            })
            .collect()
    }

    fn variables(&self) -> Result<BTreeMap<String, String>, Error> {
        let expected = "a mapping of variables to values, such as {LOG_LEVEL: debug}";
        let map = self.value.as_object().ok_or_else(|| self.wrong(expected))?;
        let mut variables = BTreeMap::new();
        for (name, value) in map {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(_) | Value::Bool(_) => value.to_string(),
                _ => return Err(self.wrong(expected)),
            };
            if !is_variable(name) || text.contains('\0') {
                return Err(self.wrong(expected));
            }
            variables.insert(name.clone(), text);
        }
        Ok(variables)
    }
}
