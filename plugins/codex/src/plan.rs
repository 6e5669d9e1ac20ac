//! Makes the launch plan.

use std::collections::BTreeMap;

use agenticore_plugin::{
    Argument, Budget, EnvValue, EnvVar, Environment, Error, FileEntry, LaunchPlan, Location, Place,
    Request, Session, SessionPlan, SessionStart, StopPlan, Transcript,
};
use serde_json::Value;

use crate::config;
use crate::files;
use crate::operator::{self, Operator};
use crate::settings::Settings;

const DEFAULT_BINARY: &str = "codex";
/// Seconds of wall time where neither the profile nor the operator says.
const DEFAULT_TIMEOUT: u32 = 3600;
/// Variables of the host that the agent gets as they are: how to reach its service.
const INHERITED: [&str; 9] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "CODEX_CA_CERTIFICATE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// The plan for a request, and what the profile's author should know.
///
/// # Errors
/// What is wrong with the profile, the operator's settings or the session.
pub(crate) fn make(request: &Request<Value>) -> Result<(LaunchPlan, Vec<String>), Error> {
    let settings = Settings::read(&request.config.to_string())?;
    let operator = Operator::read(&request.operator)?;
    let files = files::lay_out(&request.layers)?;
    let text = config::make(files.config, &settings, &operator, &request.job);
    let mut entries = files.entries;
    let file = FileEntry::bytes(files::CONFIG_FILE, text);
    entries.insert(files::CONFIG_FILE.to_owned(), file);
    let session = session(&request.session)?;
    let keep = settings.records_session();
    let plan = LaunchPlan {
        files: entries.into_values().collect(),
        keep: if keep {
            vec![files::SESSIONS.to_owned()]
        } else {
            Vec::new()
        },
        program: operator
            .binary
            .clone()
            .unwrap_or_else(|| DEFAULT_BINARY.to_owned()),
        arguments: arguments(&settings, session),
        env: environment(&settings, &operator)?,
        stdin: Some(request.job.prompt(&request.session).into_bytes()),
        time_limit: Some(
            settings
                .timeout
                .or(operator.timeout)
                .unwrap_or(DEFAULT_TIMEOUT),
        ),
        // The agent says nothing of money, and a run is one turn to it.
        budget: Budget {
            cost_usd: None,
            turns: None,
        },
        session: SessionPlan {
            id: session.map(|session| session.id.clone()),
            transcript: keep.then(|| transcript(session)),
        },
        stop: StopPlan::Terminate,
    };
    let mut notes = operator::SETTINGS.unread(&request.operator);
    if !keep {
        notes.push("no session is kept: an interrupted job begins anew".to_owned());
    }
    Ok((plan, notes))
}

/// The session to go on with.
fn session(start: &SessionStart) -> Result<Option<&Session>, Error> {
    let session = match start {
        SessionStart::Fresh(_) => return Ok(None),
        SessionStart::Continue(session) | SessionStart::Recover(session) => session,
    };
    start.uuid("the Codex CLI").map(|_| Some(session))
}

/// The agent's home holds the sessions of one job. One that begins has no id before the agent says it.
fn transcript(session: Option<&Session>) -> Transcript {
    let id = session.map_or("*", |session| session.id.as_str());
    Transcript {
        pattern: format!("{}/*/*/*/rollout-*{id}.jsonl", files::SESSIONS),
        marker: r#""type":"response_item""#.to_owned(),
    }
}

/// The prompt is read from standard input, where no text can become an option.
fn arguments(settings: &Settings, session: Option<&Session>) -> Vec<Argument> {
    let mut words = vec!["exec"];
    if session.is_some() {
        words.push("resume");
    }
    // A profile's key that this version does not know is told, not passed over. A folder without a repository is fine.
    words.extend(["--json", "--strict-config", "--skip-git-repo-check"]);
    if !settings.records_session() {
        words.push("--ephemeral");
    }
    if settings.trusts_repository() {
        words.push("--trust");
    }
    words.extend(session.map(|session| session.id.as_str()));
    words.push("-");
    words
        .into_iter()
        .map(|word| Argument::Literal(word.to_owned()))
        .collect()
}

/// Sorted by name, each once.
fn environment(settings: &Settings, operator: &Operator) -> Result<Vec<EnvVar>, Error> {
    let mut env = Environment::default();
    for name in INHERITED {
        env.set(name, EnvValue::Inherit(name.to_owned()));
    }
    for name in &settings.secrets {
        env.set(name, EnvValue::Secret(name.clone()));
    }
    let home = EnvValue::Path(Location {
        prefix: String::new(),
        place: Place::ConfigDir,
        path: String::new(),
    });
    let key = EnvValue::OptionalSecret(settings.api_key().to_owned());
    let own = BTreeMap::from([("CODEX_HOME", home), (config::KEY_VARIABLE, key)]);
    env.set_from_profile(&settings.env, &own)?;
    env.set_from_operator(&operator.env);
    Ok(env.with_own(own))
}
