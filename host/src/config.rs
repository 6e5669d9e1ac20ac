//! The one reader of settings: flags, environment, `~/.agenticore/config.yml`, defaults, in this order.
//!
//! [`SETTINGS`] is the table that the reference page is made from. [`Config::load`] turns what was typed into what it means, and
//! everything that can be wrong is wrong there, before a socket is bound.

mod settings;
mod source;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use secrecy::SecretString;
use serde_json::{Map, Value, json};

use self::source::Source;
pub use settings::{SETTINGS, Setting, reference, variable_of};

use crate::drain::LONGEST_DRAIN;
use crate::github::GitHub;
use crate::job::{PodName, ProfileName};
use crate::plugin::{Grant, Limits};
use crate::queue::redis;
use crate::trust::ApprovalRule;
use crate::workbench::signature::TrustedKeys;

/// The host that is chosen by whether there are API keys.
const AUTO_HOST: &str = "auto";
/// With a longer lease nobody would take up the jobs of a pod that died before people do.
const LONGEST_LEASE: Duration = Duration::from_secs(3_600);

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The value does not fit.
    #[error("{place} is {given:?}: {problem}")]
    Value {
        /// Where it was set.
        place: String,
        /// What was set; not shown for secrets.
        given: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// The file cannot be read.
    #[error("cannot read {path}: {problem}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The file has a key that nothing reads.
    #[error("{path}: unknown key {key:?}; known keys of this group: {known}")]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key, with its groups.
        key: String,
        /// The keys that exist.
        known: String,
    },
    /// A group of the file is no mapping.
    #[error("{path}: `{group}` is {given}: expected a mapping with the keys {known}")]
    Group {
        /// The file.
        path: PathBuf,
        /// The group.
        group: String,
        /// What stands there.
        given: String,
        /// The keys that exist.
        known: String,
    },
    /// Two settings do not go together.
    #[error("{0}")]
    Conflict(String),
}

/// Where an OpenTelemetry collector is, for the server's own traces and for agents; handed to plugins as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Otel {
    /// Whether the server sends traces, and agents telemetry.
    pub enabled: bool,
    /// The collector's address.
    pub endpoint: Option<String>,
    /// The protocol, such as `grpc`.
    pub protocol: Option<String>,
    /// Where the server's own traces go, if that is another place.
    pub traces_endpoint: Option<String>,
    /// Whether prompts are sent.
    pub log_prompts: bool,
    /// Whether tool details are sent.
    pub log_tool_details: bool,
}

/// Checked settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address to listen on or to talk to.
    pub host: String,
    /// The port; 0 picks a free one.
    pub port: u16,
    /// API keys that may do everything; empty: none is needed.
    pub api_keys: Vec<SecretString>,
    /// API keys that may submit and read.
    pub submit_keys: Vec<SecretString>,
    /// API keys that may read.
    pub read_keys: Vec<SecretString>,
    /// How many requests a minute a key may make; none: any number.
    pub rate_limit: Option<NonZeroU32>,
    /// Whether a non-loopback address may be bound without keys.
    pub unsafe_no_auth: bool,
    /// Whether metrics can be read without a key.
    pub metrics_public: bool,
    /// Whether profiles marked `local_only` may be used on a non-loopback address.
    pub allow_local_profiles: bool,
    /// The root of the shared file system; none: local mode.
    pub shared_root: Option<PathBuf>,
    /// Where repositories and worktrees are.
    pub repos_root: PathBuf,
    /// Where job records are.
    pub jobs_dir: PathBuf,
    /// `~/.agenticore`.
    pub home: PathBuf,
    /// An extra search root for profiles.
    pub extra_profiles: Option<PathBuf>,
    /// How many jobs run at once.
    pub max_parallel_jobs: usize,
    /// How long jobs are kept after their end.
    pub job_ttl: Duration,
    /// The profile where none is given.
    pub default_profile: ProfileName,
    /// This pod's name.
    pub pod_name: PodName,
    /// The longest a job may run.
    pub max_job_time: Duration,
    /// How long running jobs get to end by themselves when the server stops.
    pub drain_timeout: Duration,
    /// How long the worktree of a job that succeeded is kept.
    pub worktree_retention: Duration,
    /// How long a clone that no job uses is kept.
    pub repo_cache_max_age: Duration,
    /// The most bytes of clones that no job uses; 0: no bound.
    pub repo_cache_max_bytes: u64,
    /// The most bytes of events that a job may store.
    pub max_event_bytes: u64,
    /// Settings by plugin name, handed to the plugin.
    pub agents: BTreeMap<String, Map<String, Value>>,
    /// Telemetry of agents.
    pub otel: Otel,
    /// Names of secrets that profiles may grant, beside those of the default plugin block.
    pub secrets: Vec<String>,
    /// Capabilities that profiles may grant; none: everything but secrets that are not listed.
    pub ceiling: Option<Vec<Grant>>,
    /// Which versions of a plugin need the operator's word.
    pub plugin_approval: ApprovalRule,
    /// What plugins may use.
    pub plugin_limits: Limits,
    /// Those whose plugins are accepted; empty: everybody.
    pub plugin_keys: TrustedKeys,
    /// The user of a plugin registry.
    pub registry_user: Option<String>,
    /// Their password.
    pub registry_password: Option<SecretString>,
    /// Calls into plugins at one time.
    pub plugin_max_calls: usize,
    /// Calls into one plugin at one time.
    pub plugin_max_calls_each: usize,
    /// The longest that plugins are loaded before the server is ready.
    pub plugin_prewarm: Duration,
    /// The API of the GitHub that pull requests are opened on.
    pub github_api_url: String,
    /// The token for GitHub.
    pub github_token: Option<SecretString>,
    /// The Redis of a fleet; none: the embedded store.
    pub redis: Option<redis::Address>,
    /// The prefix of every key in Redis.
    pub redis_prefix: String,
    /// How long a pod that does not answer keeps its jobs.
    pub lease: Duration,
    /// Each setting as it was written, wherever that was, by its variable; of a secret only that it is set.
    pub(crate) written: BTreeMap<&'static str, String>,
}

/// What the command line sets; it wins over everything.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--host`.
    pub host: Option<String>,
    /// `--port`.
    pub port: Option<u16>,
    /// `--unsafe-no-auth`.
    pub unsafe_no_auth: bool,
}

impl Config {
    /// Reads the process's environment and the user's file.
    ///
    /// # Errors
    /// [`ConfigError`], which names the place of the bad value.
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        let lookup = |name: &str| std::env::var(name).ok();
        let home = home(&lookup)?;
        let file = file(&lookup, &home)?;
        Self::from_parts(flags, &lookup, home, &file)
    }

    /// As [`Config::load`], from a given environment, home and file; the file need not exist.
    ///
    /// # Errors
    /// [`ConfigError`], which names the place of the bad value.
    pub fn from_parts(
        flags: &Flags,
        lookup: &dyn Fn(&str) -> Option<String>,
        home: PathBuf,
        file: &Path,
    ) -> Result<Self, ConfigError> {
        let yaml = settings::read_file(file)?;
        let source = Source {
            lookup,
            yaml: &yaml,
            file,
        };
        source.check_transport()?;
        let shared_root = source.path("repos.shared_fs_root")?;
        let in_shared = |name: &str| shared_root.as_ref().map(|root| root.join(name));
        let config = Self {
            host: source.host(flags.host.as_ref())?,
            port: flags.port.map_or_else(
                || source.parse("server.port", "a port number from 0 to 65535"),
                Ok,
            )?,
            api_keys: source.secrets("server.api_keys")?,
            submit_keys: source.secrets("server.submit_keys")?,
            read_keys: source.secrets("server.read_keys")?,
            rate_limit: NonZeroU32::new(source.parse(
                "server.rate_limit",
                "a number of requests a minute from 0 to 4294967295",
            )?),
            unsafe_no_auth: flags.unsafe_no_auth || source.flag("server.unsafe_no_auth")?,
            metrics_public: source.flag("server.metrics_public")?,
            allow_local_profiles: source.flag("server.allow_local_profiles")?,
            repos_root: source
                .path("repos.root")?
                .or_else(|| in_shared("repos"))
                .unwrap_or_else(|| home.parent().unwrap_or(&home).join("agenticore-repos")),
            jobs_dir: source
                .path("repos.jobs_dir")?
                .or_else(|| in_shared("job-state"))
                .unwrap_or_else(|| home.join("jobs")),
            shared_root,
            home,
            extra_profiles: source.path("agentihooks_path")?.map(|p| p.join("profiles")),
            max_parallel_jobs: source.at_once("repos.max_parallel_jobs")?,
            job_ttl: source.seconds("repos.job_ttl_seconds")?,
            default_profile: source.parse("claude.default_profile", "a profile's name")?,
            pod_name: source.parse("repos.pod_name", "letters, digits, '.', '_' and '-'")?,
            max_job_time: source.seconds("repos.max_job_seconds")?,
            drain_timeout: source
                .seconds_of("server.drain_timeout", 0..=LONGEST_DRAIN.as_secs())?,
            worktree_retention: source.seconds("repos.worktree_retention_seconds")?,
            repo_cache_max_age: source.seconds("repos.cache_max_age_seconds")?,
            repo_cache_max_bytes: source.parse("repos.cache_max_bytes", "a number of bytes")?,
            max_event_bytes: source.parse("repos.max_event_bytes", "a number of bytes")?,
            agents: source.agents()?,
            otel: source.otel()?,
            secrets: source.list("plugins.secrets")?,
            plugin_keys: source.plugin_keys()?,
            registry_user: source.text("plugins.registry_user")?,
            registry_password: source
                .text("plugins.registry_password")?
                .map(SecretString::from),
            ceiling: source.ceiling()?,
            plugin_approval: source.parse("plugins.approval", "first-use or always")?,
            plugin_limits: source.plugin_limits()?,
            plugin_max_calls: source.at_once("plugins.max_calls")?,
            plugin_max_calls_each: source.at_once("plugins.max_calls_each")?,
            plugin_prewarm: source.seconds("plugins.prewarm_seconds")?,
            github_api_url: source.text("github.api_url")?.unwrap_or_default(),
            github_token: source.text("github.token")?.map(SecretString::from),
            redis: source.redis()?,
            redis_prefix: source.text("redis.key_prefix")?.unwrap_or_default(),
            lease: source.seconds_of("redis.lease_seconds", 1..=LONGEST_LEASE.as_secs())?,
            written: source.written()?,
        };
        let config = config.with_chosen_host();
        config.check()?;
        Ok(config)
    }

    /// Whether the server listens on the loopback interface alone.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost"
            || IpAddr::from_str(self.host.trim_matches(['[', ']'])).is_ok_and(|ip| ip.is_loopback())
    }

    /// Manifests cannot know whether their secret holds API keys; the host `auto` opens the server exactly where it does, so that
    /// one that was set up without keys works through a port-forward and is closed to everybody else.
    fn with_chosen_host(mut self) -> Self {
        if self.host == AUTO_HOST {
            let open = !self.api_keys.is_empty() || self.unsafe_no_auth;
            self.host = if open { "0.0.0.0" } else { "127.0.0.1" }.to_owned();
        }
        self
    }

    /// What a plugin may know of the operator's settings, as JSON: its own group, and what all plugins get.
    #[must_use]
    pub fn for_plugin(&self, name: &str) -> Value {
        let mut value = self.agents.get(name).cloned().unwrap_or_default();
        value.insert("uid".into(), json!(rustix::process::geteuid().as_raw()));
        value.insert(
            "otel".into(),
            json!({
                "enabled": self.otel.enabled, "endpoint": self.otel.endpoint, "protocol": self.otel.protocol,
                "log_prompts": self.otel.log_prompts, "log_tool_details": self.otel.log_tool_details,
            }),
        );
        Value::Object(value)
    }

    /// `http://host:port` of the server, for clients.
    #[must_use]
    pub fn base_url(&self) -> String {
        let host = match self.host.as_str() {
            "0.0.0.0" => "127.0.0.1",
            "::" => "[::1]",
            other => other,
        };
        if host.contains(':') && !host.starts_with('[') {
            format!("http://[{host}]:{}", self.port)
        } else {
            format!("http://{host}:{}", self.port)
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.plugin_max_calls_each > self.plugin_max_calls {
            return Err(ConfigError::Conflict(format!(
                "AGENTICORE_PLUGIN_MAX_CALLS_EACH is {} and AGENTICORE_PLUGIN_MAX_CALLS only {}: one plugin could hold up all \
                 others; set the first below the second",
                self.plugin_max_calls_each, self.plugin_max_calls
            )));
        }
        if self.api_keys.is_empty() && !(self.submit_keys.is_empty() && self.read_keys.is_empty()) {
            return Err(ConfigError::Conflict(
                "AGENTICORE_SUBMIT_KEYS and AGENTICORE_READ_KEYS need a key in AGENTICORE_API_KEYS beside them: without one \
                 everybody may do everything"
                    .into(),
            ));
        }
        GitHub::repository_host(&self.github_api_url)
            .map_err(|e| ConfigError::Conflict(e.to_string()))?;
        Ok(())
    }

    /// Refuses to listen where anybody could submit jobs.
    ///
    /// # Errors
    /// [`ConfigError::Conflict`] for a non-loopback address without keys, unless the unsafe flag is set.
    pub fn check_bind(&self) -> Result<(), ConfigError> {
        if self.is_loopback() || !self.api_keys.is_empty() || self.unsafe_no_auth {
            return Ok(());
        }
        Err(ConfigError::Conflict(format!(
            "refusing to listen on {} without API keys: anybody who reaches it could run commands here. Set \
             AGENTICORE_API_KEYS, listen on 127.0.0.1, or accept the risk with --unsafe-no-auth",
            self.host
        )))
    }
}

fn home(lookup: &dyn Fn(&str) -> Option<String>) -> Result<PathBuf, ConfigError> {
    if let Some(home) = lookup("AGENTICORE_HOME").filter(|h| !h.is_empty()) {
        return Ok(home.into());
    }
    match lookup("HOME").filter(|h| !h.is_empty()) {
        Some(home) => Ok(Path::new(&home).join(".agenticore")),
        None => Err(ConfigError::Conflict(
            "neither HOME nor AGENTICORE_HOME is set: set one, state needs a place".into(),
        )),
    }
}

/// The file of settings. The one that is there by itself may be missing; one that somebody names may not.
fn file(lookup: &dyn Fn(&str) -> Option<String>, home: &Path) -> Result<PathBuf, ConfigError> {
    let Some(named) = lookup("AGENTICORE_CONFIG").filter(|file| !file.is_empty()) else {
        return Ok(home.join("config.yml"));
    };
    let path = PathBuf::from(named);
    match path.try_exists() {
        Ok(false) => Err(ConfigError::File {
            path,
            problem: "AGENTICORE_CONFIG names this file, and it does not exist".into(),
        }),
        _ => Ok(path),
    }
}
