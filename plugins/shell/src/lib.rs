//! The `shell` plugin: runs the task as a shell script.
//!
//! It is the smallest complete plugin, and what one can try Agenticore with where no agent is installed. The script is whatever
//! the submitter wrote, so a profile that uses it belongs on a machine whose users may run commands anyway.

mod bindings;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;

use bindings::types::{
    Argument, Budget, Conclusion, Content, Ending, EnvValue, EnvVar, Error, ErrorCode, Exit, Fact,
    Failure, FailureClass, FileEntry, FileMode, LaunchPlan, Line, Location, Place, SessionPlan,
    SessionStart, StopPlan,
};
use bindings::{AgentGuest, Description, GuestRun, MaterializeRequest, ProfileGuest, RunStart};

/// The script's file in the config directory. A file has no limit of length, as an argument has, and leaves standard input empty.
const SCRIPT: &str = "task.sh";
/// Hang-up, interrupt, kill, terminate.
const STOP_SIGNALS: [i32; 4] = [1, 2, 9, 15];
/// How much of standard error a failure repeats, in lines.
const TAIL_LINES: usize = 10;

/// The component.
#[derive(Debug)]
pub struct Plugin;

/// `plugin.config` in `profile.yml`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Seconds of wall time.
    timeout: Option<u32>,
    /// Variables for the script.
    env: BTreeMap<String, String>,
}

impl ProfileGuest for Plugin {
    fn describe() -> Description {
        Description {
            name: "shell".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: "Runs the task as a shell script.".to_owned(),
            reads: Vec::new(),
            requests: vec!["program:sh".to_owned()],
        }
    }

    fn config_schema() -> String {
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "timeout": {"description": "seconds of wall time", "type": "integer", "minimum": 1, "maximum": u32::MAX},
                "env": {
                    "description": "variables for the script",
                    "type": "object",
                    "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
                    "additionalProperties": {"type": "string"},
                },
            },
        })
        .to_string()
    }

    fn materialize(request: MaterializeRequest) -> Result<LaunchPlan, Error> {
        if let SessionStart::Continue(_) = request.session {
            let message = "a shell script has no session that could go on; submit the job without a session id".to_owned();
            return Err(Error {
                code: ErrorCode::Unsupported,
                message,
            });
        }
        let config = config(&request.config)?;
        let script = Location {
            prefix: String::new(),
            place: Place::ConfigDir,
            path: SCRIPT.to_owned(),
        };
        Ok(LaunchPlan {
            files: vec![FileEntry {
                path: SCRIPT.to_owned(),
                content: Content::Bytes(request.job.task.into_bytes()),
                mode: FileMode::Regular,
            }],
            keep: Vec::new(),
            program: "sh".to_owned(),
            arguments: vec![Argument::Path(script)],
            env: config
                .env
                .into_iter()
                .map(|(name, value)| EnvVar {
                    name,
                    value: EnvValue::Literal(value),
                })
                .collect(),
            stdin: None,
            time_limit: config.timeout,
            budget: Budget {
                cost_usd: None,
                turns: None,
            },
            session: SessionPlan {
                id: None,
                transcript: None,
            },
            stop: StopPlan::Terminate,
        })
    }
}

impl AgentGuest for Plugin {
    type Run = Run;
}

/// One run of a script.
#[derive(Debug)]
pub struct Run;

impl GuestRun for Run {
    fn new(_: RunStart) -> Self {
        Self
    }

    fn observe(&self, lines: Vec<Line>) -> Vec<Fact> {
        lines
            .into_iter()
            .map(|line| Fact::Text(line.text))
            .collect()
    }

    fn conclude(&self, exit: Exit) -> Conclusion {
        Conclusion {
            ending: ending(&exit),
            output: None,
            message: None,
            facts: Vec::new(),
        }
    }
}

fn config(json: &str) -> Result<Config, Error> {
    let wrong = |problem: String| Error {
        code: ErrorCode::InvalidConfig,
        message: format!("plugin.config: {problem}"),
    };
    let config: Config = serde_json::from_str(json).map_err(|error| wrong(error.to_string()))?;
    if config.timeout == Some(0) {
        return Err(wrong("`timeout` must be a whole number above 0".to_owned()));
    }
    match config.env.keys().find(|name| !is_variable(name)) {
        Some(name) => Err(wrong(format!(
            "`env`: `{}` is no name of a variable",
            name.escape_debug()
        ))),
        None => Ok(config),
    }
}

fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn ending(exit: &Exit) -> Ending {
    let by_signal = exit.signal.or_else(|| exit.code.map(|code| code - 128));
    match (exit.code, by_signal) {
        (Some(0), _) => Ending::Succeeded,
        (_, Some(signal)) if exit.stop_requested && STOP_SIGNALS.contains(&signal) => {
            Ending::Stopped
        }
        _ => Ending::Failed(failure(exit)),
    }
}

fn failure(exit: &Exit) -> Failure {
    let mut message = match (exit.code, exit.signal) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "ended in an unknown way".to_owned(),
    };
    let lines: Vec<&str> = exit
        .stderr_tail
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let tail = lines
        .get(lines.len().saturating_sub(TAIL_LINES)..)
        .unwrap_or_default();
    if !tail.is_empty() {
        message.push_str(": ");
        message.push_str(&tail.join("\n"));
    }
    let remedy = match exit.code {
        Some(127) => "install the missing command on the server, or correct its name",
        _ => "correct the script and run the job again",
    };
    Failure {
        class: FailureClass::Agent,
        message,
        remedy: remedy.to_owned(),
    }
}
