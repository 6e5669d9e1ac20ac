//! Makes the launch plan.

mod environment;

use serde_json::{Value, json};

use crate::files::{self, Files};
use crate::operator::{self, Operator};
use crate::permissions::{self, Permissions};
use crate::prompt;
use crate::settings::{self, Settings};
use agenticore_plugin::{
    Argument, Budget, Error, LaunchPlan, Location, Place, Request, Session, SessionPlan,
    SessionStart, StopPlan, Transcript,
};

const DEFAULT_BINARY: &str = "claude";
/// Seconds of wall time where neither the profile nor the operator says.
const DEFAULT_TIMEOUT: u32 = 3600;
/// The least that is asked for when a budget is used up: the agent then ends with the error that says so.
const LEAST_DOLLARS: f64 = 0.01;
/// A system prompt longer than this goes into a file; one argument can have 128 KiB.
const LONGEST_ARGUMENT: usize = 16 * 1024;
const SYSTEM_PROMPT_FILE: &str = "append-system-prompt.md";
/// Runs after each tool. An agent that is told not to go on there ends with a result and with everything it did on record.
const STOP_COMMAND: &str = r#"if [ -e "$CLAUDE_CONFIG_DIR/.stop-requested" ]; then printf '%s' '{"continue":false,"stopReason":"the host asked the agent to stop"}'; fi"#;

/// The plan for a request, and what the profile's author should know.
///
/// # Errors
/// What is wrong with the profile, the operator's settings or the session.
pub(crate) fn make(request: &Request<Value>) -> Result<(LaunchPlan, Vec<String>), Error> {
    let layers = request
        .layers
        .iter()
        .map(|layer| (layer.name.as_str(), layer.settings.as_str()));
    let settings = settings::of_layers(layers, &request.config.to_string())?;
    let operator = Operator::read(&request.operator)?;
    let mut notes = operator::SETTINGS.unread(&request.operator);
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
        budget: Budget {
            cost_usd: settings.max_budget_usd,
            turns: Some(settings.max_turns),
        },
        session: launch.session()?,
        stop: launch.stop(),
        files: launch.files.entries.into_values().collect(),
    };
    Ok((plan, notes))
}

/// What a plan is made of.
struct Launch<'a> {
    request: &'a Request<Value>,
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
        match &self.request.session {
            SessionStart::Fresh(_) => list.option("--session-id", id),
            // By its id a session is found from the directory alone that it began in, and that was another job's.
            SessionStart::Continue(Session {
                transcript: Some(path),
                ..
            }) => list.path("--resume=", path),
            SessionStart::Continue(_) | SessionStart::Recover(_) => list.option("--resume", id),
        }
        if self.settings.no_session_persistence {
            list.flag("--no-session-persistence");
        }
        Ok(())
    }

    fn session_id(&self) -> Result<&str, Error> {
        self.request.session.uuid("Claude Code")
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

    fn time_limit(&self) -> u32 {
        self.settings
            .timeout
            .or(self.operator.timeout)
            .unwrap_or(DEFAULT_TIMEOUT)
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
