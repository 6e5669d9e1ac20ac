//! The `shell` plugin: runs the task as a shell script.
//!
//! It is the smallest complete plugin, and what one can try Agenticore with where no agent is installed. The script is whatever
//! the submitter wrote, so a profile that uses it belongs on a machine whose users may run commands anyway.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use agenticore_plugin::{
    About, Conclusion, Ending, EnvValue, EnvVar, Error, ErrorCode, Exit, Fact, Failure,
    FailureClass, LaunchPlan, Line, Profile, Request, RunStart, SessionStart, export_profile,
    is_variable, with_profile_keys,
};
use serde::Deserialize;
use serde_json::{Value, json};

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

impl Profile for Plugin {
    type Config = Value;
    type Run = Run;
    const ABOUT: About = About {
        name: "shell",
        version: env!("CARGO_PKG_VERSION"),
        summary: "Runs the task as a shell script.",
        reads: &[],
        requests: &["program:sh"],
    };

    fn config_schema() -> Value {
        let schema = agenticore_plugin::schema(json!({
            "timeout": {"description": "seconds of wall time", "type": "integer", "minimum": 1, "maximum": u32::MAX},
            "env": {
                "description": "variables for the script",
                "type": "object",
                "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
                "additionalProperties": {"type": "string"},
            },
        }));
        with_profile_keys(schema, &[])
    }

    fn materialize(request: Request<Value>) -> Result<LaunchPlan, Error> {
        if let SessionStart::Continue(_) = request.session {
            let message = "a shell script has no session that could go on; submit the job without a session id".to_owned();
            return Err(Error {
                code: ErrorCode::Unsupported,
                message,
            });
        }
        let config = config(&request.config)?;
        let mut plan = LaunchPlan::new("sh")
            .file(SCRIPT, request.job.task)
            .file_argument(SCRIPT);
        let env = config.env.into_iter().map(|(name, value)| EnvVar {
            name,
            value: EnvValue::Literal(value),
        });
        plan.env = env.collect();
        plan.time_limit = config.timeout;
        Ok(plan)
    }
}

export_profile!(Plugin);

/// One run of a script.
#[derive(Debug)]
pub struct Run;

impl agenticore_plugin::Run for Run {
    fn start(_: RunStart) -> Self {
        Self
    }

    fn observe(&mut self, lines: Vec<Line>) -> Vec<Fact> {
        lines
            .into_iter()
            .map(|line| Fact::Text(line.text))
            .collect()
    }

    fn conclude(&mut self, exit: Exit) -> Conclusion {
        Conclusion {
            ending: ending(&exit),
            output: None,
            message: None,
            facts: Vec::new(),
        }
    }
}

fn config(value: &Value) -> Result<Config, Error> {
    let wrong = |problem: String| Error::config(format!("plugin.config: {problem}"));
    let config = Config::deserialize(value).map_err(|error| wrong(error.to_string()))?;
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
