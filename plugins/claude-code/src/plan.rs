//! Makes the launch plan.

use std::collections::BTreeMap;

use serde_json::json;

use crate::bindings::MaterializeRequest;
use crate::bindings::types::{
    Argument, EnvValue, EnvVar, Error, ErrorCode, LaunchPlan, Location, Place, SessionPlan,
    SessionStart, StopPlan, Transcript,
};
use crate::files::{self, Files};
use crate::operator::Operator;
use crate::permissions::{self, Permissions};
use crate::settings::{self, Settings};
use crate::{invalid_profile, prompt};

const DEFAULT_BINARY: &str = "claude";
/// Seconds of wall time where neither the profile nor the operator says.
const DEFAULT_TIMEOUT: u32 = 3600;
/// The least that is asked for when a budget is used up: the agent then ends with the error that says so.
const LEAST_DOLLARS: f64 = 0.01;
/// A system prompt longer than this goes into a file; one argument can have 128 KiB.
const LONGEST_ARGUMENT: usize = 16 * 1024;
const SYSTEM_PROMPT_FILE: &str = "append-system-prompt.md";
/// Tells the hook below which file to look for.
const STOP_VARIABLE: &str = "AGENTICORE_STOP_FILE";
/// Runs after each tool. An agent that is told not to go on there ends with a result and with everything it did on record.
const STOP_COMMAND: &str = r#"if [ -e "$AGENTICORE_STOP_FILE" ]; then printf '%s' '{"continue":false,"stopReason":"the host asked the agent to stop"}'; fi"#;

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

/// The plan for a request, and what the profile's author should know.
///
/// # Errors
/// What is wrong with the profile, the operator's settings or the session.
pub(crate) fn make(request: &MaterializeRequest) -> Result<(LaunchPlan, Vec<String>), Error> {
    let layers = request
        .layers
        .iter()
        .map(|layer| (layer.name.as_str(), layer.settings.as_str()));
    let (settings, mut notes) = settings::of_layers(layers, &request.config)?;
    let operator = Operator::read(&request.operator)?;
    let mut files = files::lay_out(&request.layers, operator.bypass_is_refused())?;
    let permissions = permissions::of(&settings, &operator, &files.servers, &files.denies);
    notes.append(&mut files.notes);
    notes.extend(permissions.note.clone());
    let mut launch = Launch {
        request,
        settings: &settings,
        operator: &operator,
        permissions: &permissions,
        files,
    };
    notes.extend(launch.foreign_config_dir_note());

    let arguments = launch.arguments()?;
    let plan = LaunchPlan {
        keep: if launch.records_session() {
            vec![files::SESSIONS.to_owned()]
        } else {
            Vec::new()
        },
        program: operator
            .binary
            .clone()
            .unwrap_or_else(|| DEFAULT_BINARY.to_owned()),
        arguments,
        env: launch.environment()?,
        stdin: Some(prompt::of(&request.job, &request.session).into_bytes()),
        time_limit: Some(launch.time_limit()),
        session: launch.session()?,
        stop: launch.stop(),
        files: launch.files.entries.into_values().collect(),
    };
    Ok((plan, notes))
}

/// What a plan is made of.
struct Launch<'a> {
    request: &'a MaterializeRequest,
    settings: &'a Settings,
    operator: &'a Operator,
    permissions: &'a Permissions,
    files: Files,
}

impl Launch<'_> {
    /// Every value is part of its option's argument, so that none can become an option.
    fn arguments(&mut self) -> Result<Vec<Argument>, Error> {
        let settings = self.settings;
        let mut list = Arguments::default();
        list.flag("-p")
            .flag("--output-format=stream-json")
            .flag("--verbose");
        list.option("--model", &settings.model);
        list.option(
            "--max-turns",
            &settings
                .max_turns
                .saturating_sub(self.request.spent.turns)
                .max(1)
                .to_string(),
        );
        list.option("--permission-mode", &self.permissions.mode);
        list.option("--setting-sources", &self.setting_sources());
        if !settings.trust_repository {
            list.flag("--strict-mcp-config");
        }
        if self.files.entries.contains_key(files::MCP_FILE) {
            list.path("--mcp-config=", files::MCP_FILE);
        }
        self.settings_arguments(&mut list);
        self.session_argument(&mut list)?;
        if let Some(dollars) = settings.max_budget_usd {
            list.option(
                "--max-budget-usd",
                &(dollars - self.request.spent.cost_usd)
                    .max(LEAST_DOLLARS)
                    .to_string(),
            );
        }
        for (option, value) in [
            ("--effort", &settings.effort),
            ("--fallback-model", &settings.fallback_model),
        ] {
            if let Some(value) = value {
                list.option(option, value);
            }
        }
        self.system_prompt(&mut list);
        for (option, rules) in [
            ("--allowedTools", &self.permissions.allowed),
            ("--disallowedTools", &self.permissions.denied),
        ] {
            for rule in rules {
                list.option(option, rule);
            }
        }
        Ok(list.0)
    }

    /// A repository brings settings that run commands and servers that start without a question, so they are only read where
    /// the profile says so.
    fn setting_sources(&self) -> String {
        match &self.settings.setting_sources {
            Some(sources) => sources.join(","),
            None if self.settings.trust_repository => settings::SOURCES.join(","),
            None => "user".to_owned(),
        }
    }

    fn settings_arguments(&self, list: &mut Arguments) {
        // Apart from the profile's settings file, so that a fault in one does not take the other along.
        if self.stops_gently() {
            let hook = json!({"matcher": "*", "hooks": [{"type": "command", "command": STOP_COMMAND, "timeout": 10}]});
            list.option(
                "--settings",
                &json!({"hooks": {"PostToolUse": [hook]}}).to_string(),
            );
        } else if self.has_foreign_config_dir()
            && self.files.entries.contains_key(files::SETTINGS_FILE)
        {
            list.path("--settings=", files::SETTINGS_FILE);
        }
    }

    fn session_argument(&self, list: &mut Arguments) -> Result<(), Error> {
        let id = self.session_id()?;
        let option = match &self.request.session {
            SessionStart::Fresh(_) => "--session-id",
            SessionStart::Continue(_) | SessionStart::Recover(_) => "--resume",
        };
        list.option(option, id);
        if self.settings.no_session_persistence {
            list.flag("--no-session-persistence");
        }
        Ok(())
    }

    /// The command line takes more than ids for a session, such as paths; an id is all that anybody needs.
    fn session_id(&self) -> Result<&str, Error> {
        let (SessionStart::Fresh(id) | SessionStart::Continue(id) | SessionStart::Recover(id)) =
            &self.request.session;
        let dashes = [8, 13, 18, 23];
        let uuid = id.len() == 36
            && id.bytes().enumerate().all(|(n, b)| {
                if dashes.contains(&n) {
                    b == b'-'
                } else {
                    b.is_ascii_hexdigit()
                }
            });
        if uuid {
            return Ok(id);
        }
        let message = format!(
            "the session `{}` is no UUID, and Claude Code has no others",
            prompt::one_line(id, 60)
        );
        Err(Error {
            code: ErrorCode::Unsupported,
            message,
        })
    }

    fn system_prompt(&mut self, list: &mut Arguments) {
        let text = prompt::system(&self.request.job, self.settings.append_prompt.as_deref());
        if text.len() <= LONGEST_ARGUMENT && !text.contains('\0') {
            list.option("--append-system-prompt", &text);
            return;
        }
        self.files.add(SYSTEM_PROMPT_FILE, text.into_bytes());
        list.path("--append-system-prompt-file=", SYSTEM_PROMPT_FILE);
    }

    fn environment(&self) -> Result<Vec<EnvVar>, Error> {
        let mut env = BTreeMap::new();
        for name in INHERITED {
            env.insert(name, EnvValue::Inherit(name.to_owned()));
        }
        for name in SECRETS {
            env.insert(name, EnvValue::OptionalSecret(name.to_owned()));
        }
        for name in &self.settings.secrets {
            env.insert(name, EnvValue::Secret(name.clone()));
        }
        let own = self.own_environment();
        for (name, value) in &self.settings.env {
            if own.contains_key(name.as_str()) {
                return Err(invalid_profile(format!(
                    "`env`: the variable {name} is set by the plugin; choose another name"
                )));
            }
            env.insert(name, EnvValue::Literal(value.clone()));
        }
        env.extend(self.otel());
        env.extend(own);
        for (name, value) in self
            .operator
            .env
            .iter()
            .filter(|(name, _)| settings::is_variable(name))
        {
            env.insert(name, EnvValue::Literal(value.clone()));
        }
        Ok(env
            .into_iter()
            .map(|(name, value)| EnvVar {
                name: name.to_owned(),
                value,
            })
            .collect())
    }

    /// Variables without which the agent would not run as planned.
    fn own_environment(&self) -> BTreeMap<&'static str, EnvValue> {
        let at = |place, path: &str| {
            EnvValue::Path(Location {
                prefix: String::new(),
                place,
                path: path.to_owned(),
            })
        };
        let config_dir = match &self.operator.config_dir {
            Some(path) => EnvValue::Literal(path.clone()),
            None => at(Place::ConfigDir, ""),
        };
        let mut env = BTreeMap::from([
            ("CLAUDE_CONFIG_DIR", config_dir),
            ("CLAUDE_CODE_TMPDIR", at(Place::TempDir, "")),
            ("DISABLE_AUTOUPDATER", EnvValue::Literal("1".to_owned())),
        ]);
        if self.stops_gently() {
            env.insert(STOP_VARIABLE, at(Place::ConfigDir, files::STOP_FILE));
        }
        env
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

    fn time_limit(&self) -> u32 {
        let all = self
            .settings
            .timeout
            .or(self.operator.timeout)
            .unwrap_or(DEFAULT_TIMEOUT);
        all.saturating_sub(self.request.spent.seconds).max(1)
    }

    fn session(&self) -> Result<SessionPlan, Error> {
        let id = self.session_id()?;
        let transcript = self.records_session().then(|| Transcript {
            pattern: format!("{}/*/{id}.jsonl", files::SESSIONS),
            marker: r#""type":"user""#.to_owned(),
        });
        Ok(SessionPlan {
            id: Some(id.to_owned()),
            transcript,
        })
    }

    fn stop(&self) -> StopPlan {
        if !self.stops_gently() {
            return StopPlan::Terminate;
        }
        let path = files::STOP_FILE.to_owned();
        StopPlan::CreateFile(Location {
            prefix: String::new(),
            place: Place::ConfigDir,
            path,
        })
    }

    /// Nothing is won by stopping an agent gently whose session cannot go on.
    fn stops_gently(&self) -> bool {
        self.records_session() && self.operator.gentle_stop != Some(false)
    }

    /// Whether the session is on record where the host can find it.
    fn records_session(&self) -> bool {
        !self.settings.no_session_persistence && !self.has_foreign_config_dir()
    }

    fn has_foreign_config_dir(&self) -> bool {
        self.operator.config_dir.is_some()
    }

    fn foreign_config_dir_note(&self) -> Option<String> {
        let path = self.operator.config_dir.as_ref()?;
        Some(format!(
            "agents use the operator's config directory {path}: of the profile's files only settings.json and .mcp.json are in force, \
             and an interrupted job cannot go on with its session"
        ))
    }
}

/// A command line in the making.
#[derive(Default)]
struct Arguments(Vec<Argument>);

impl Arguments {
    fn flag(&mut self, flag: &str) -> &mut Self {
        self.0.push(Argument::Literal(flag.to_owned()));
        self
    }

    fn option(&mut self, option: &str, value: &str) {
        self.flag(&format!("{option}={value}"));
    }

    fn path(&mut self, prefix: &str, path: &str) {
        let location = Location {
            prefix: prefix.to_owned(),
            place: Place::ConfigDir,
            path: path.to_owned(),
        };
        self.0.push(Argument::Path(location));
    }
}
