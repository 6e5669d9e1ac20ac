//! `plugin.config` in `profile.yml`. The host lays a child's keys over its parent's before this plugin sees them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use agenticore_plugin::{Error, is_variable, one_of, with_profile_keys};

pub(crate) const SANDBOXES: [&str; 3] = ["read-only", "workspace-write", "danger-full-access"];
const EFFORTS: [&str; 6] = ["none", "minimal", "low", "medium", "high", "xhigh"];
const OUTPUT_FORMATS: [&str; 2] = ["text", "json"];
/// The secret of the host that is the agent's key where the profile names no other.
const API_KEY: &str = "OPENAI_API_KEY";

/// The settings. Every key is optional.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) model: Option<String>,
    /// How hard the model thinks.
    pub(crate) effort: Option<String>,
    /// What the agent's commands may do.
    pub(crate) sandbox: Option<String>,
    /// Seconds of wall time.
    pub(crate) timeout: Option<u32>,
    /// `text` stores what the agent said last, `json` everything it printed.
    pub(crate) output_format: Option<String>,
    /// Keep no session, so that nothing can go on with it.
    pub(crate) no_session_persistence: Option<bool>,
    /// Whether the settings, hooks, servers and instructions that a repository brings are in force.
    pub(crate) trust_repository: Option<bool>,
    /// Whether the model may search the web.
    pub(crate) web_search: Option<bool>,
    /// What is added to the agent's instructions.
    pub(crate) append_prompt: Option<String>,
    /// The model's service, where it is not the usual one.
    pub(crate) base_url: Option<String>,
    /// The name of the host's secret that is the key of the service.
    pub(crate) api_key: Option<String>,
    pub(crate) env: BTreeMap<String, String>,
    /// More secrets, which the agent gets as variables of the same name.
    pub(crate) secrets: Vec<String>,
}

impl Settings {
    /// Reads the text of `plugin.config`.
    ///
    /// # Errors
    /// A key that is not known, or a value of the wrong kind.
    pub(crate) fn read(json: &str) -> Result<Self, Error> {
        let wrong = |problem: String| Error::config(format!("plugin.config: {problem}"));
        let settings: Self =
            serde_json::from_str(json).map_err(|error| wrong(error.to_string()))?;
        let choices = [
            ("sandbox", &settings.sandbox, &SANDBOXES[..]),
            ("effort", &settings.effort, &EFFORTS[..]),
            (
                "output_format",
                &settings.output_format,
                &OUTPUT_FORMATS[..],
            ),
        ];
        for (key, value, known) in choices {
            if let Some(value) = value
                && !known.contains(&value.as_str())
            {
                return Err(wrong(format!(
                    "`{key}` must be one of {}",
                    known.join(", ")
                )));
            }
        }
        if settings.timeout == Some(0) {
            return Err(wrong("`timeout` must be a whole number above 0".to_owned()));
        }
        let names = settings.env.keys().chain(&settings.secrets);
        if let Some(name) = names
            .chain(&settings.api_key)
            .find(|name| !is_variable(name))
        {
            return Err(wrong(format!(
                "`{}` is no name of a variable",
                name.escape_debug()
            )));
        }
        Ok(settings)
    }

    pub(crate) fn api_key(&self) -> &str {
        self.api_key.as_deref().unwrap_or(API_KEY)
    }

    pub(crate) fn records_session(&self) -> bool {
        self.no_session_persistence != Some(true)
    }

    pub(crate) fn trusts_repository(&self) -> bool {
        self.trust_repository == Some(true)
    }
}

/// The same as JSON Schema, by which the host checks a profile before it takes a job.
pub(crate) fn schema() -> Value {
    let text = json!({"type": ["string", "null"]});
    let boolean = json!({"type": ["boolean", "null"]});
    let name = json!({"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"});
    let schema = agenticore_plugin::schema(json!({
            "model": text,
            "effort": one_of(&EFFORTS),
            "sandbox": one_of(&SANDBOXES),
            "timeout": {"description": "seconds of wall time", "type": ["integer", "null"], "minimum": 1, "maximum": u32::MAX},
            "output_format": one_of(&OUTPUT_FORMATS),
            "no_session_persistence": boolean,
            "trust_repository": boolean,
            "web_search": boolean,
            "append_prompt": text,
            "base_url": text,
            "api_key": {"anyOf": [name, {"type": "null"}]},
            "env": {"type": "object", "propertyNames": name, "additionalProperties": {"type": "string"}},
            "secrets": {"type": "array", "items": name},
    }));
    with_profile_keys(schema, &[])
}
