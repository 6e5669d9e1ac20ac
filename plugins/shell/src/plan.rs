//! The launch plan of a script, and what its end means.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::bindings::MaterializeRequest;
use crate::bindings::types::{
    Argument, Conclusion, Content, Ending, EnvValue, EnvVar, Error, ErrorCode, Exit, Failure, FailureClass, FileEntry, FileMode,
    LaunchPlan, Location, Place, SessionPlan, StopPlan,
};

/// Where the script is, below the config directory.
const SCRIPT: &str = "task.sh";

/// The schema of `plugin.config`.
pub(crate) const SCHEMA: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "timeout": {"type": "integer", "minimum": 1, "description": "Seconds of wall time."},
    "env": {"type": "object", "additionalProperties": {"type": "string"}, "description": "Variables of the script."}
  }
}"#;

/// `plugin.config` of the profile.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    timeout: Option<u32>,
    env: BTreeMap<String, String>,
}

/// The plan: the task as a file, and `sh` to run it.
pub(crate) fn make(request: &MaterializeRequest) -> Result<LaunchPlan, Error> {
    let config: Config = serde_json::from_str(&request.config).map_err(|e| Error {
        code: ErrorCode::InvalidConfig,
        message: format!("`plugin.config` of profile.yml: {e}"),
    })?;
    let script = FileEntry {
        path: SCRIPT.to_owned(),
        content: Content::Bytes(format!("{}\n", request.job.task).into_bytes()),
        mode: FileMode::Regular,
    };
    let path = Location { prefix: String::new(), place: Place::ConfigDir, path: SCRIPT.to_owned() };
    let env = |(name, value): (String, String)| EnvVar { name, value: EnvValue::Literal(value) };
    Ok(LaunchPlan {
        files: vec![script],
        keep: Vec::new(),
        program: "sh".to_owned(),
        arguments: vec![Argument::Path(path)],
        env: config.env.into_iter().map(env).collect(),
        stdin: None,
        time_limit: config.timeout,
        session: SessionPlan { id: None, transcript: None },
        stop: StopPlan::Terminate,
    })
}

/// Success is exit code 0. A script that was told to stop has stopped, whatever its code.
pub(crate) fn conclude(exit: &Exit, lines: u64) -> Conclusion {
    let ending = match (exit.code, exit.signal) {
        (Some(0), _) => Ending::Succeeded,
        _ if exit.stop_requested => Ending::Stopped,
        (code, signal) => Ending::Failed(failure(code, signal, lines, &exit.stderr_tail)),
    };
    Conclusion { ending, output: None, facts: Vec::new() }
}

fn failure(code: Option<i32>, signal: Option<i32>, lines: u64, stderr: &str) -> Failure {
    let how = match (code, signal) {
        (Some(127), _) => "ended with exit code 127: a command was not found".to_owned(),
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended in an unknown way".to_owned(),
    };
    let last = stderr.lines().rev().find(|line| !line.trim().is_empty());
    let message = match last {
        Some(line) => format!("the script {how}; the last line of its standard error: {line}"),
        None => format!("the script {how}"),
    };
    let remedy = if lines == 0 { "it printed nothing; run it by hand to see why" } else { "see its output in the log" };
    Failure { class: FailureClass::Agent, message, remedy: remedy.to_owned() }
}
