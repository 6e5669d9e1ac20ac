//! What the operator set for this plugin.

use std::collections::BTreeMap;

use serde::Deserialize;

use agenticore_plugin::{Error, OperatorSettings};
use serde_json::Value;

/// How the operator sets this plugin.
pub(crate) const SETTINGS: OperatorSettings = OperatorSettings {
    plugin: "claude-code",
    known: &["binary", "timeout", "config_dir", "env", "gentle_stop"],
    variables: &[
        ("binary", "AGENTICORE_CLAUDE_BINARY"),
        ("timeout", "AGENTICORE_CLAUDE_TIMEOUT"),
        ("config_dir", "AGENTICORE_CLAUDE_CONFIG_DIR"),
    ],
};

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
        let mut operator: Self = SETTINGS.read(settings)?;
        for text in [
            &mut operator.binary,
            &mut operator.config_dir,
            &mut operator.otel.endpoint,
            &mut operator.otel.protocol,
        ] {
            *text = text.take().filter(|text| !text.is_empty());
        }
        SETTINGS.check_program("binary", operator.binary.as_ref())?;
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
    use agenticore_plugin::ErrorCode;
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
    }

    #[test]
    fn what_is_wrong_is_named_as_the_operator_wrote_it() {
        for (settings, place) in [
            (json!({"timeout": "soon"}), "AGENTICORE_CLAUDE_TIMEOUT"),
            (json!({"binary": "a b"}), "AGENTICORE_CLAUDE_BINARY"),
            (json!({"env": {"A": 1}}), "`agents.claude-code.env`"),
        ] {
            let error = Operator::read(&settings).unwrap_err();
            assert!(error.message.contains(place), "{}", error.message);
            assert_eq!(error.code, ErrorCode::Internal, "no profile is at fault");
        }
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
