//! The table of settings, one documented row each, and the reading of the YAML file.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value};
use serde_saphyr::UserMessageFormatter;

use super::ConfigError;

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Its environment variable.
    pub env: &'static str,
    /// Its place in `config.yml`.
    pub yaml: &'static str,
    /// Its default as text; empty: none.
    pub default: &'static str,
    /// What it does.
    pub help: &'static str,
    /// Whether its value must not be shown.
    pub secret: bool,
}

impl Setting {
    /// The default, with what only this machine can tell filled in.
    pub(super) fn default(&self) -> Option<String> {
        match self.default {
            "(hostname)" => Some(hostname()),
            "" => None,
            text if text.starts_with('(') => None,
            text => Some(text.to_owned()),
        }
    }
}

const fn row(
    env: &'static str,
    yaml: &'static str,
    default: &'static str,
    help: &'static str,
) -> Setting {
    Setting {
        env,
        yaml,
        default,
        help,
        secret: false,
    }
}

const fn secret(env: &'static str, yaml: &'static str, help: &'static str) -> Setting {
    Setting {
        env,
        yaml,
        default: "",
        help,
        secret: true,
    }
}

/// The only transport there is.
pub(super) const TRANSPORT: &str = "sse";

/// Every setting. A default in parentheses is worked out at start.
pub const SETTINGS: &[Setting] = &[
    row(
        "AGENTICORE_HOST",
        "server.host",
        "127.0.0.1",
        "The address to listen on, and the one that clients talk to. `auto`: every IPv4 address where API keys are set, else loopback alone.",
    ),
    row(
        "AGENTICORE_PORT",
        "server.port",
        "8200",
        "The port; 0 picks a free one.",
    ),
    row(
        "AGENTICORE_TRANSPORT",
        "server.transport",
        TRANSPORT,
        "How clients reach the server: `sse`, REST and event streams over HTTP, is the only value. MCP is not in this version.",
    ),
    secret(
        "AGENTICORE_API_KEYS",
        "server.api_keys",
        "Accepted API keys, comma-separated; none: no key is needed. They may do everything, drains included.",
    ),
    secret(
        "AGENTICORE_SUBMIT_KEYS",
        "server.submit_keys",
        "API keys that may submit, retry and cancel jobs and read everything, comma-separated.",
    ),
    secret(
        "AGENTICORE_READ_KEYS",
        "server.read_keys",
        "API keys that may read everything and change nothing, comma-separated.",
    ),
    row(
        "AGENTICORE_RATE_LIMIT",
        "server.rate_limit",
        "0",
        "Requests a minute that a pod takes with one API key (without keys: in all), so many at once; more get 429. 0: no bound. Probes, metrics and drains do not count.",
    ),
    row(
        "AGENTICORE_UNSAFE_NO_AUTH",
        "server.unsafe_no_auth",
        "false",
        "Listen on a non-loopback address without keys. Anybody who reaches the server can then run commands on it.",
    ),
    row(
        "AGENTICORE_METRICS_PUBLIC",
        "server.metrics_public",
        "false",
        "Whether `/metrics` answers without a key where keys are set. It names versions, routes and counts, and no job.",
    ),
    row(
        "AGENTICORE_ALLOW_LOCAL_PROFILES",
        "server.allow_local_profiles",
        "false",
        "Allow profiles marked `local_only`, such as `shell`, on a non-loopback address.",
    ),
    row(
        "AGENTICORE_DRAIN_TIMEOUT",
        "server.drain_timeout",
        "60",
        "Seconds that a server which is told to stop has in all. Running jobs may end until 30 seconds before; the rest is handed back to the queue. At most a week, 604800.",
    ),
    row(
        "AGENTICORE_SHARED_FS_ROOT",
        "repos.shared_fs_root",
        "",
        "The root of the shared file system. Unset: local mode.",
    ),
    row(
        "AGENTICORE_REPOS_ROOT",
        "repos.root",
        "(~/agenticore-repos, or repos below the shared root)",
        "Where repositories and worktrees are kept.",
    ),
    row(
        "AGENTICORE_JOBS_DIR",
        "repos.jobs_dir",
        "(~/.agenticore/jobs, or job-state below the shared root)",
        "Where job records and events are kept.",
    ),
    row(
        "AGENTICORE_MAX_PARALLEL_JOBS",
        "repos.max_parallel_jobs",
        "3",
        "How many jobs run at once.",
    ),
    row(
        "AGENTICORE_JOB_TTL",
        "repos.job_ttl_seconds",
        "86400",
        "Seconds a job is kept after its end; a job that waits longer than this expires, at most a minute later.",
    ),
    row(
        "AGENTICORE_MAX_JOB_SECONDS",
        "repos.max_job_seconds",
        "86400",
        "The longest time limit a job can have, in seconds over all attempts.",
    ),
    row(
        "AGENTICORE_WORKTREE_RETENTION",
        "repos.worktree_retention_seconds",
        "3600",
        "Seconds that the worktree of a job that succeeded is kept, once its work is pushed or there is none. Other worktrees are kept until the job is forgotten.",
    ),
    row(
        "AGENTICORE_REPO_CACHE_MAX_AGE",
        "repos.cache_max_age_seconds",
        "2592000",
        "Seconds that the clone of a repository is kept while no job uses it.",
    ),
    row(
        "AGENTICORE_REPO_CACHE_MAX_BYTES",
        "repos.cache_max_bytes",
        "0",
        "The most bytes of clones that no job uses; beyond it the longest unused go. 0: no bound.",
    ),
    row(
        "AGENTICORE_MAX_EVENT_BYTES",
        "repos.max_event_bytes",
        "67108864",
        "The most bytes of output in the events of one job; log lines past it are left out of the stream, and the stream says so.",
    ),
    row(
        "AGENTICORE_POD_NAME",
        "repos.pod_name",
        "(hostname)",
        "The name recorded on every job this server runs.",
    ),
    row(
        "AGENTICORE_DEFAULT_PROFILE",
        "claude.default_profile",
        "code",
        "The profile of jobs that name none.",
    ),
    row(
        "AGENTICORE_CLAUDE_BINARY",
        "claude.binary",
        "",
        "Handed to the plugin `claude-code`: the agent's program. Default `claude`.",
    ),
    row(
        "AGENTICORE_CLAUDE_TIMEOUT",
        "claude.timeout",
        "",
        "Handed to the plugin `claude-code`: the time limit in seconds of profiles that set none. Default 3600.",
    ),
    row(
        "AGENTICORE_CLAUDE_CONFIG_DIR",
        "claude.config_dir",
        "",
        "Handed to the plugin `claude-code`: the directory of settings and sessions that all agents share, instead of one for each job. Of a profile's files only `settings.json` and `.mcp.json` are in force then, and an interrupted job cannot go on with its session; each job's stream says so.",
    ),
    row(
        "AGENTICORE_AGENTIHOOKS_PATH",
        "agentihooks_path",
        "",
        "An extra search root for profiles: `{path}/profiles`.",
    ),
    row(
        "AGENTICORE_SECRETS",
        "plugins.secrets",
        "",
        "Names of environment variables of the server, comma-separated, that profiles may grant to agents as secrets, beside those of the default plugin block.",
    ),
    row(
        "AGENTICORE_GRANTS",
        "plugins.ceiling",
        "(everything but secrets that are not listed)",
        "The operator's ceiling: capabilities that profiles may grant, `KIND:NAME` each, comma-separated. `program:NAME` lets a plugin start that program.",
    ),
    row(
        "AGENTICORE_PLUGIN_APPROVAL",
        "plugins.approval",
        "first-use",
        "Which versions of a plugin need `agenticore plugin approve`: `first-use`: a later version that asks for more than an approved one; `always`: every version that is not part of the binary.",
    ),
    row(
        "AGENTICORE_PLUGIN_LIMITS",
        "plugins.limits",
        "",
        "What plugins may use where the start value does not fit, `NAME=VALUE` each, comma-separated, such as `memory=128MiB,hook_time=20s`. Profiles may only lower it.",
    ),
    row(
        "AGENTICORE_PLUGIN_KEYS",
        "plugins.keys",
        "",
        "Public Ed25519 keys, comma-separated, in base64 or as paths of PEM files. With one, plugins that none of them signed are neither installed nor used; those that are part of the program need no signature.",
    ),
    row(
        "AGENTICORE_REGISTRY_USER",
        "plugins.registry_user",
        "",
        "The user that `plugin push` and `plugin pull` show to a registry.",
    ),
    secret(
        "AGENTICORE_REGISTRY_PASSWORD",
        "plugins.registry_password",
        "The password of that user.",
    ),
    row(
        "AGENTICORE_PLUGIN_MAX_CALLS",
        "plugins.max_calls",
        "64",
        "Calls into plugins at one time, over all plugins.",
    ),
    row(
        "AGENTICORE_PLUGIN_MAX_CALLS_EACH",
        "plugins.max_calls_each",
        "16",
        "Calls into one plugin at one time. Fewer than `plugins.max_calls` keep a plugin that is slow from holding up another.",
    ),
    row(
        "AGENTICORE_PLUGIN_PREWARM_SECONDS",
        "plugins.prewarm_seconds",
        "60",
        "The longest that a server stays unready while it loads the plugins that profiles and waiting jobs name.",
    ),
    row(
        "AGENTICORE_OTEL_ENABLED",
        "otel.enabled",
        "false",
        "Whether the server sends traces, and agents telemetry.",
    ),
    row(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "otel.endpoint",
        "",
        "The collector, for the server and for agents, such as `http://otel-collector:4318`.",
    ),
    row(
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "otel.protocol",
        "",
        "The protocol that agents speak with the collector, such as `grpc`. The server speaks `http/protobuf` alone, and with `grpc` here it sends only to `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`.",
    ),
    row(
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "otel.traces_endpoint",
        "(the collector's address with /v1/traces)",
        "The whole address that the server's own traces are sent to by OTLP over HTTP.",
    ),
    row(
        "AGENTICORE_OTEL_LOG_PROMPTS",
        "otel.log_prompts",
        "false",
        "Whether agents send prompts.",
    ),
    row(
        "AGENTICORE_OTEL_LOG_TOOL_DETAILS",
        "otel.log_tool_details",
        "false",
        "Whether agents send details of tools.",
    ),
    row(
        "AGENTICORE_GITHUB_API_URL",
        "github.api_url",
        "https://api.github.com",
        "The API of the GitHub that pull requests are opened on, such as `https://ghe.example/api/v3` for GitHub Enterprise. The token is sent to it and to the repositories on its host.",
    ),
    secret(
        "GITHUB_TOKEN",
        "github.token",
        "The token for repositories on GitHub.",
    ),
    secret(
        "REDIS_URL",
        "redis.url",
        "The Redis of a fleet, redis://USER:PASSWORD@HOST:PORT/DATABASE, or rediss:// for TLS. Unset: the embedded store.",
    ),
    row(
        "REDIS_USERNAME",
        "redis.username",
        "",
        "The user of Redis, instead of the one in the URL.",
    ),
    secret(
        "REDIS_PASSWORD",
        "redis.password",
        "The password of Redis, instead of the one in the URL; nothing in it needs to be encoded.",
    ),
    row(
        "REDIS_KEY_PREFIX",
        "redis.key_prefix",
        "agenticore",
        "The prefix of every key in Redis. In braces, such as {agenticore}, all keys are in one slot of a cluster.",
    ),
    row(
        "REDIS_SENTINELS",
        "redis.sentinels",
        "",
        "Sentinels that know the Redis, host:port, comma-separated. The host of REDIS_URL is not used then; its user, password and database are.",
    ),
    row(
        "REDIS_SENTINEL_MASTER",
        "redis.sentinel_master",
        "mymaster",
        "What the sentinels call the Redis.",
    ),
    row(
        "REDIS_CA_FILE",
        "redis.ca_file",
        "",
        "A file of certificates, PEM, that the certificate of a rediss:// server must be signed by. Unset: the system's.",
    ),
    row(
        "AGENTICORE_LEASE_SECONDS",
        "redis.lease_seconds",
        "8",
        "Seconds after which the jobs of a pod that does not answer go to another. It is renewed four times within. From 1 to 3600.",
    ),
];

/// The plugin that the variables of the Python system configure.
pub(super) const COMPATIBILITY_PLUGIN: &str = "claude-code";

/// Settings (by YAML name) of the Python system that are handed to [`COMPATIBILITY_PLUGIN`], and their key there.
pub(super) const COMPATIBILITY: &[(&str, &str)] = &[
    ("claude.binary", "binary"),
    ("claude.timeout", "timeout"),
    ("claude.config_dir", "config_dir"),
];

/// The variable that sets a key of a plugin's settings, where there is one.
#[must_use]
pub fn variable_of(plugin: &str, key: &str) -> Option<&'static str> {
    let mut handed = COMPATIBILITY.iter();
    let (yaml, _) = handed.find(|(_, k)| plugin == COMPATIBILITY_PLUGIN && *k == key)?;
    Some(named(yaml).env)
}

/// The row of a YAML name. Callers name rows by literals, and a test looks all of them up.
pub(super) fn named(yaml: &str) -> &'static Setting {
    static NONE: Setting = row("", "", "", "");
    let found = SETTINGS.iter().find(|s| s.yaml == yaml);
    debug_assert!(found.is_some(), "no setting is called {yaml}");
    found.unwrap_or(&NONE)
}

/// The reference page's table, in Markdown.
#[must_use]
pub fn reference() -> String {
    let mut page =
        String::from("| variable | `config.yml` | default | what it does |\n|---|---|---|---|\n");
    for s in SETTINGS {
        let default = if s.default.is_empty() {
            "none".to_owned()
        } else {
            format!("`{}`", s.default)
        };
        page.push_str(&format!(
            "| `{}` | `{}` | {default} | {} |\n",
            s.env, s.yaml, s.help
        ));
    }
    page
}

/// Reads the YAML file into a JSON object and refuses keys that nothing reads. A file that does not exist is empty.
pub(super) fn read_file(path: &Path) -> Result<Map<String, Value>, ConfigError> {
    let problem = |problem: String| ConfigError::File {
        path: path.to_owned(),
        problem,
    };
    match std::fs::metadata(path) {
        // A pipe that nobody writes into would be read for ever.
        Ok(found) if !found.is_file() => return Err(problem("it is not a regular file".into())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Map::new()),
        _ => {}
    }
    let text = std::fs::read_to_string(path).map_err(|e| problem(e.to_string()))?;
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    let read = serde_saphyr::from_str::<Value>(&text);
    let value = read.map_err(|e| problem(e.render_with_formatter(&UserMessageFormatter)))?;
    let Value::Object(map) = value else {
        return Err(problem("expected a mapping at the top".into()));
    };
    check_keys(&map, path)?;
    Ok(map)
}

fn check_keys(map: &Map<String, Value>, path: &Path) -> Result<(), ConfigError> {
    for (group, value) in map {
        let is_leaf = SETTINGS.iter().any(|s| s.yaml == group);
        if is_leaf || group == "agents" {
            continue;
        }
        check_group(group, value, path)?;
    }
    Ok(())
}

fn check_group(group: &str, value: &Value, path: &Path) -> Result<(), ConfigError> {
    let known = keys_of(group);
    let unknown = |key: String, known: String| ConfigError::UnknownKey {
        path: path.to_owned(),
        key,
        known,
    };
    if known.is_empty() {
        return Err(unknown(group.to_owned(), groups()));
    }
    let keys = match value {
        // Everything in it may be commented out.
        Value::Null => return Ok(()),
        Value::Object(keys) => keys,
        other => {
            return Err(ConfigError::Group {
                path: path.to_owned(),
                group: group.to_owned(),
                given: shortened(other),
                known: known.join(", "),
            });
        }
    };
    match keys.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(unknown(format!("{group}.{key}"), known.join(", "))),
        None => Ok(()),
    }
}

fn keys_of(group: &str) -> Vec<&'static str> {
    let in_group = |s: &Setting| s.yaml.strip_prefix(group)?.strip_prefix('.');
    SETTINGS.iter().filter_map(in_group).collect()
}

fn groups() -> String {
    let groups = SETTINGS
        .iter()
        .map(|s| s.yaml.split('.').next().unwrap_or(s.yaml));
    let groups: BTreeSet<&str> = groups.chain(["agents"]).collect();
    groups.into_iter().collect::<Vec<_>>().join(", ")
}

fn shortened(value: &Value) -> String {
    value.to_string().chars().take(80).collect()
}

/// The value at a dotted name.
pub(super) fn get<'a>(map: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    match name.split_once('.') {
        Some((group, rest)) => map.get(group)?.as_object()?.get(rest),
        None => map.get(name),
    }
    .filter(|v| !v.is_null())
}

/// A scalar, or a list of scalars joined by commas, as text.
pub(super) fn as_text(value: &Value, place: &str) -> Result<String, ConfigError> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
        Value::Array(items) => {
            let texts: Result<Vec<_>, _> = items.iter().map(|i| as_text(i, place)).collect();
            Ok(texts?.join(","))
        }
        _ => Err(ConfigError::Value {
            place: place.to_owned(),
            given: shortened(value),
            problem: "expected a single value".into(),
        }),
    }
}

fn hostname() -> String {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    if name.is_empty() {
        "localhost".into()
    } else {
        name
    }
}
