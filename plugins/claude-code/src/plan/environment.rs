//! The agent's environment: places, secrets by name, what is handed on from the host, and what profile and operator add.

use std::collections::BTreeMap;

use super::Launch;
use agenticore_plugin::{EnvValue, EnvVar, Environment, Error, Location, Place};

/// Variables of the host that the agent gets as they are: where its service is, how to reach it, and how it behaves there.
const INHERITED: [&str; 29] = [
    "ANTHROPIC_BASE_URL",
    "ANTHROPIC_MODEL",
    "ANTHROPIC_SMALL_FAST_MODEL",
    "ANTHROPIC_DEFAULT_OPUS_MODEL",
    "ANTHROPIC_DEFAULT_SONNET_MODEL",
    "ANTHROPIC_DEFAULT_HAIKU_MODEL",
    "API_TIMEOUT_MS",
    "CLAUDE_CODE_MAX_RETRIES",
    "CLAUDE_CODE_MAX_OUTPUT_TOKENS",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
    "DISABLE_TELEMETRY",
    "DISABLE_ERROR_REPORTING",
    "MAX_THINKING_TOKENS",
    "MCP_TIMEOUT",
    "MCP_TOOL_TIMEOUT",
    "MAX_MCP_OUTPUT_TOKENS",
    "BASH_DEFAULT_TIMEOUT_MS",
    "BASH_MAX_TIMEOUT_MS",
    "BASH_MAX_OUTPUT_LENGTH",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "NODE_EXTRA_CA_CERTS",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "TZ",
];
/// Secrets that let the agent in at its service. One of them is enough.
const SECRETS: [&str; 3] = [
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "CLAUDE_CODE_OAUTH_TOKEN",
];

impl Launch<'_> {
    /// Sorted by name, each once.
    pub(super) fn environment(&self) -> Result<Vec<EnvVar>, Error> {
        let mut env = Environment::default();
        for name in INHERITED {
            env.set(name, EnvValue::Inherit(name.to_owned()));
        }
        for name in SECRETS {
            env.set(name, EnvValue::OptionalSecret(name.to_owned()));
        }
        for name in &self.settings.secrets {
            env.set(name, EnvValue::Secret(name.clone()));
        }
        let own = self.own_environment();
        env.set_from_profile(&self.settings.env, &own)?;
        for (name, value) in self.otel() {
            env.set(name, value);
        }
        env.set_from_operator(&self.operator.env);
        Ok(env.with_own(own))
    }

    /// Variables without which the agent would not run as planned.
    fn own_environment(&self) -> BTreeMap<&'static str, EnvValue> {
        let at = |place| {
            EnvValue::Path(Location {
                prefix: String::new(),
                place,
                path: String::new(),
            })
        };
        let config_dir = match &self.operator.config_dir {
            Some(path) => EnvValue::Literal(path.clone()),
            None => at(Place::ConfigDir),
        };
        BTreeMap::from([
            ("CLAUDE_CONFIG_DIR", config_dir),
            ("CLAUDE_CODE_TMPDIR", at(Place::TempDir)),
            ("DISABLE_AUTOUPDATER", EnvValue::Literal("1".to_owned())),
        ])
    }

    fn otel(&self) -> BTreeMap<&'static str, EnvValue> {
        let otel = &self.operator.otel;
        if !otel.enabled {
            return BTreeMap::new();
        }
        let literal = |text: &str| EnvValue::Literal(text.to_owned());
        let mut env = BTreeMap::from([
            ("CLAUDE_CODE_ENABLE_TELEMETRY", literal("1")),
            ("OTEL_METRICS_EXPORTER", literal("otlp")),
            ("OTEL_LOGS_EXPORTER", literal("otlp")),
            (
                "OTEL_LOG_USER_PROMPTS",
                literal(if otel.log_prompts { "1" } else { "0" }),
            ),
            (
                "OTEL_LOG_TOOL_DETAILS",
                literal(if otel.log_tool_details { "1" } else { "0" }),
            ),
        ]);
        env.extend(
            otel.endpoint
                .as_deref()
                .map(|endpoint| ("OTEL_EXPORTER_OTLP_ENDPOINT", literal(endpoint))),
        );
        env.extend(
            otel.protocol
                .as_deref()
                .map(|protocol| ("OTEL_EXPORTER_OTLP_PROTOCOL", literal(protocol))),
        );
        env
    }
}
