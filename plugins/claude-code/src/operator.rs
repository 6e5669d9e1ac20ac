//! What the operator set for this plugin.

use std::collections::BTreeMap;

use serde::Deserialize;

use agenticore_plugin::Error;
use serde_json::Value;

/// The operator's settings. Keys that are not for this plugin are passed over.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Operator {
    /// The program, by name or absolute path.
    pub(crate) binary: Option<String>,
    /// Seconds of wall time for profiles that do not say.
    pub(crate) timeout: Option<u32>,
    /// A config directory of the operator's own, such as one that somebody has logged in with.
    pub(crate) config_dir: Option<String>,
    /// Variables for every agent.
    pub(crate) env: BTreeMap<String, String>,
    /// The user id that agents run as.
    pub(crate) uid: Option<u32>,
    /// Telemetry of the agents.
    pub(crate) otel: Otel,
    /// Whether agents are stopped at a tool boundary, which takes a hook in their settings. `false` means SIGTERM at once.
    pub(crate) gentle_stop: Option<bool>,
}

/// Telemetry of the agents.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Otel {
    /// Whether there is any.
    pub(crate) enabled: bool,
    /// Where it goes.
    pub(crate) endpoint: Option<String>,
    /// How: `grpc`, `http/protobuf` or `http/json`.
    pub(crate) protocol: Option<String>,
    /// Whether it has the prompts.
    pub(crate) log_prompts: bool,
    /// Whether it has the tools' arguments.
    pub(crate) log_tool_details: bool,
}

impl Operator {
    pub(crate) fn read(settings: &Value) -> Result<Self, Error> {
        let mut operator = Self::deserialize(settings).map_err(|error| {
            Error::config(format!(
                "the operator's settings for claude-code are not valid: {error}"
            ))
        })?;
        for text in [
            &mut operator.binary,
            &mut operator.config_dir,
            &mut operator.otel.endpoint,
            &mut operator.otel.protocol,
        ] {
            *text = text.take().filter(|text| !text.is_empty());
        }
        Ok(operator)
    }

    /// Whether the command line refuses to run without permission checks: it does as root, unless it is told that it is in a sandbox.
    pub(crate) fn bypass_is_refused(&self) -> bool {
        self.uid == Some(0) && self.env.get("IS_SANDBOX").is_none_or(|value| value != "1")
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn everything_is_optional_and_foreign_keys_are_passed_over() {
        let operator =
            Operator::read(&json!({"binary": "", "something": {"else": 1}, "config_dir": null}))
                .unwrap();
        assert_eq!(
            (operator.binary, operator.config_dir, operator.timeout),
            (None, None, None)
        );
        assert!(
            Operator::read(&json!({"timeout": "soon"}))
                .unwrap_err()
                .message
                .contains("claude-code")
        );
    }

    #[test]
    fn only_root_outside_a_sandbox_may_not_bypass() {
        for (json, refused) in [
            (r#"{"uid": 0}"#, true),
            (r#"{"uid": 0, "env": {"IS_SANDBOX": "0"}}"#, true),
            (r#"{"uid": 0, "env": {"IS_SANDBOX": "1"}}"#, false),
            (r#"{"uid": 10001}"#, false),
            ("{}", false),
        ] {
            assert_eq!(
                Operator::read(&json.parse().unwrap())
                    .unwrap()
                    .bypass_is_refused(),
                refused,
                "{json}"
            );
        }
    }
}
