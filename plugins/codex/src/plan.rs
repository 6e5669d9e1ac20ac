//! Makes the launch plan.

use std::collections::BTreeMap;

use crate::bindings::MaterializeRequest;
use crate::bindings::types::{
    Argument, Budget, Content, EnvValue, EnvVar, Error, ErrorCode, FileEntry, FileMode, LaunchPlan,
    Location, Place, Session, SessionPlan, SessionStart, StopPlan, Transcript,
};
use crate::files;
use crate::operator::Operator;
use crate::settings::{Settings, is_variable};
use crate::{config, invalid_profile, prompt};

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
pub(crate) fn make(request: &MaterializeRequest) -> Result<(LaunchPlan, Vec<String>), Error> {
    let settings = Settings::read(&request.config)?;
    let operator = Operator::read(&request.operator)?;
    let files = files::lay_out(&request.layers)?;
    let text = config::make(files.config, &settings, &operator, &request.job);
    let mut entries = files.entries;
    entries.insert(
        files::CONFIG_FILE.to_owned(),
        FileEntry {
            path: files::CONFIG_FILE.to_owned(),
            content: Content::Bytes(text.into_bytes()),
            mode: FileMode::Regular,
        },
    );
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
        stdin: Some(prompt::of(&request.job, &request.session).into_bytes()),
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
    let note = (!keep).then(|| "no session is kept: an interrupted job begins anew".to_owned());
    Ok((plan, note.into_iter().collect()))
}

/// The session to go on with. Its id becomes an argument by itself, so it must be one that no reader takes for something else.
fn session(start: &SessionStart) -> Result<Option<&Session>, Error> {
    let session = match start {
        SessionStart::Fresh(_) => return Ok(None),
        SessionStart::Continue(session) | SessionStart::Recover(session) => session,
    };
    let id = &session.id;
    let uuid = id.len() == 36
        && id.bytes().enumerate().all(|(n, b)| match n {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_hexdigit(),
        });
    if uuid {
        return Ok(Some(session));
    }
    Err(Error {
        code: ErrorCode::Unsupported,
        message: format!(
            "the session `{}` is no UUID, and the Codex CLI has no others",
            prompt::one_line(id, 60)
        ),
    })
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
    let mut env = BTreeMap::new();
    for name in INHERITED {
        env.insert(name, EnvValue::Inherit(name.to_owned()));
    }
    for name in &settings.secrets {
        env.insert(name, EnvValue::Secret(name.clone()));
    }
    let home = EnvValue::Path(Location {
        prefix: String::new(),
        place: Place::ConfigDir,
        path: String::new(),
    });
    let key = EnvValue::OptionalSecret(settings.api_key().to_owned());
    let own = [("CODEX_HOME", home), (config::KEY_VARIABLE, key)];
    for (name, value) in &settings.env {
        if own.iter().any(|(own, _)| own == name) {
            return Err(invalid_profile(format!(
                "`env`: the variable {name} is set by the plugin; choose another name"
            )));
        }
        env.insert(name, EnvValue::Literal(value.clone()));
    }
    for (name, value) in operator.env.iter().filter(|(name, _)| is_variable(name)) {
        env.insert(name, EnvValue::Literal(value.clone()));
    }
    env.extend(own);
    Ok(env
        .into_iter()
        .map(|(name, value)| EnvVar {
            name: name.to_owned(),
            value,
        })
        .collect())
}
