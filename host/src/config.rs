//! The one reader of settings: flags, environment, `~/.agenticore/config.yml`, defaults, in this order.
//!
//! [`SETTINGS`] is the table that the reference page is made from. [`Config::load`] turns what was typed into what it means, and
//! everything that can be wrong is wrong there, before a socket is bound.

mod settings;
mod source;

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
            rate_limit: NonZeroU32::new(
                source.parse("server.rate_limit", "a number of requests a minute")?,
            ),
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    fn load(env: &[(&str, &str)], yaml: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.yml");
        std::fs::write(&file, yaml).unwrap();
        let env: BTreeMap<String, String> = env
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect();
        Config::from_parts(
            &Flags::default(),
            &|name| env.get(name).cloned(),
            "/home/u/.agenticore".into(),
            &file,
        )
    }

    #[test]
    fn the_environment_wins_over_the_file_and_the_file_over_the_default() {
        let config = load(
            &[("AGENTICORE_PORT", "9000")],
            "server: {port: 9100, host: 10.0.0.1}\n",
        )
        .unwrap();
        assert_eq!((config.port, config.host.as_str()), (9000, "10.0.0.1"));
        assert_eq!(config.max_parallel_jobs, 3);
        assert_eq!(config.repos_root, Path::new("/home/u/agenticore-repos"));
        assert_eq!(config.jobs_dir, Path::new("/home/u/.agenticore/jobs"));
    }

    #[test]
    fn shared_mode_moves_repositories_and_records() {
        let config = load(&[("AGENTICORE_SHARED_FS_ROOT", "/shared")], "").unwrap();
        assert_eq!(config.repos_root, Path::new("/shared/repos"));
        assert_eq!(config.jobs_dir, Path::new("/shared/job-state"));
    }

    #[test]
    fn bad_values_name_their_place() {
        let text = |r: Result<Config, ConfigError>| r.unwrap_err().to_string();
        assert_eq!(
            text(load(&[("AGENTICORE_PORT", "abc")], "")),
            "AGENTICORE_PORT is \"abc\": expected a port number from 0 to 65535"
        );
        assert!(
            text(load(&[], "repos: {max_parallel_jobs: 0}")).contains("repos.max_parallel_jobs in")
        );
        assert!(text(load(&[], "server: {prot: 1}")).contains("unknown key \"server.prot\""));
        assert!(text(load(&[], "server: [")).contains("cannot read"));
        assert!(text(load(&[("AGENTICORE_REPOS_ROOT", "rel")], "")).contains("absolute path"));
        assert!(text(load(&[("REDIS_URL", "http://x")], "")).contains("REDIS_URL"));
        let no_file = [
            ("REDIS_URL", "rediss://x"),
            ("REDIS_CA_FILE", "/nosuch.pem"),
        ];
        assert!(text(load(&no_file, "")).contains("/nosuch.pem"));
    }

    #[test]
    fn compatibility_variables_reach_the_plugin_as_configuration() {
        let (variable, _) = (settings::named(settings::COMPATIBILITY[0].0).env, ());
        let config = load(&[(variable, "/opt/agent")], "agents: {other: {x: 1}}").unwrap();
        assert_eq!(
            config.for_plugin(settings::COMPATIBILITY_PLUGIN)["binary"],
            "/opt/agent"
        );
        assert_eq!(config.for_plugin("other")["x"], 1);
        assert!(config.for_plugin("other").get("binary").is_none());
    }

    #[test]
    fn keys_that_may_do_less_need_one_that_may_do_all() {
        let keys = |more: &[(&str, &str)]| load(more, "");
        for variable in ["AGENTICORE_READ_KEYS", "AGENTICORE_SUBMIT_KEYS"] {
            let error = keys(&[(variable, "r")]).unwrap_err().to_string();
            assert!(error.contains("AGENTICORE_API_KEYS"), "{error}");
            let both = keys(&[(variable, "r"), ("AGENTICORE_API_KEYS", "a")]).unwrap();
            assert_eq!(both.read_keys.len() + both.submit_keys.len(), 1);
            assert!(!format!("{both:?}").contains("\"r\""));
        }
    }

    #[test]
    fn an_open_address_needs_keys() {
        let open = load(&[("AGENTICORE_HOST", "0.0.0.0")], "").unwrap();
        assert!(
            open.check_bind()
                .unwrap_err()
                .to_string()
                .contains("AGENTICORE_API_KEYS")
        );
        load(
            &[("AGENTICORE_HOST", "0.0.0.0"), ("AGENTICORE_API_KEYS", "k")],
            "",
        )
        .unwrap()
        .check_bind()
        .unwrap();
        load(&[("AGENTICORE_HOST", "::1")], "")
            .unwrap()
            .check_bind()
            .unwrap();
    }

    #[test]
    fn the_host_auto_is_open_only_with_keys_or_the_unsafe_flag() {
        let host = |more: &[(&str, &str)]| {
            let config = load(&[&[("AGENTICORE_HOST", "auto")], more].concat(), "").unwrap();
            config.check_bind().unwrap();
            (config.host.clone(), config.base_url())
        };
        let local = "http://127.0.0.1:8200".to_owned();
        assert_eq!(host(&[]), ("127.0.0.1".to_owned(), local.clone()));
        // An optional key of a secret that is there and empty is no key.
        assert_eq!(host(&[("AGENTICORE_API_KEYS", "")]).0, "127.0.0.1");
        let open = ("0.0.0.0".to_owned(), local);
        assert_eq!(host(&[("AGENTICORE_API_KEYS", "k")]), open);
        assert_eq!(host(&[("AGENTICORE_UNSAFE_NO_AUTH", "true")]), open);
    }

    #[test]
    fn a_password_of_redis_may_stand_beside_its_url_as_it_is() {
        use secrecy::ExposeSecret as _;
        let url = |more: &[(&str, &str)]| {
            let config = load(
                &[&[("REDIS_URL", "redis://host:7000/2")], more].concat(),
                "",
            );
            config
                .unwrap()
                .redis
                .unwrap()
                .url
                .expose_secret()
                .to_owned()
        };
        assert_eq!(url(&[]), "redis://host:7000/2");
        let password = ("REDIS_PASSWORD", "p@ss/w:#%");
        assert_eq!(url(&[password]), "redis://:p%40ss%2Fw%3A%23%25@host:7000/2");
        let both = url(&[password, ("REDIS_USERNAME", "team")]);
        assert_eq!(both, "redis://team:p%40ss%2Fw%3A%23%25@host:7000/2");
    }

    #[test]
    fn the_page_of_settings_is_this_table() {
        let page = include_str!("../../docs/configuration.md");
        assert!(
            page.contains(&reference()),
            "write the output of `agenticore config reference` there"
        );
    }

    #[test]
    fn numbers_that_nothing_can_work_with_are_refused_with_their_bounds() {
        for (variable, says) in [
            ("AGENTICORE_MAX_PARALLEL_JOBS", "from 1 to 10000"),
            ("AGENTICORE_PLUGIN_MAX_CALLS", "from 1 to 10000"),
            ("AGENTICORE_DRAIN_TIMEOUT", "from 0 to 604800"),
            ("AGENTICORE_JOB_TTL", "from 0 to 315360000"),
            ("AGENTICORE_MAX_JOB_SECONDS", "from 0 to 315360000"),
            ("AGENTICORE_WORKTREE_RETENTION", "from 0 to 315360000"),
            ("AGENTICORE_LEASE_SECONDS", "from 1 to 3600"),
        ] {
            for value in [
                "18446744073709551615",
                "9223372036854775807",
                "99999999999999999999",
            ] {
                let error = load(&[(variable, value)], "").unwrap_err().to_string();
                assert!(
                    error.starts_with(variable) && error.ends_with(says),
                    "{error}"
                );
            }
        }
        assert!(load(&[("AGENTICORE_LEASE_SECONDS", "0")], "").is_err());
        let longest = load(&[("AGENTICORE_JOB_TTL", "315360000")], "").unwrap();
        assert!(
            jiff::Timestamp::now()
                .checked_sub(2 * longest.job_ttl)
                .is_ok()
        );
    }

    #[test]
    fn a_transport_that_is_not_there_is_refused() {
        for transport in ["stdio", "http", "SSE"] {
            let error = load(&[("AGENTICORE_TRANSPORT", transport)], "").unwrap_err();
            assert!(error.to_string().contains("expected sse"), "{error}");
        }
        load(&[("AGENTICORE_TRANSPORT", "sse")], "").unwrap();
        load(&[], "server: {transport: sse}").unwrap();
    }

    #[test]
    fn grants_and_keys_of_the_operator_are_settings_like_others() {
        for (variable, says) in [
            ("AGENTICORE_GRANTS", "one of the kinds program"),
            ("AGENTICORE_PLUGIN_KEYS", "neither a public Ed25519 key"),
            ("AGENTICORE_PLUGIN_LIMITS", "NAME=VALUE"),
        ] {
            let error = load(&[(variable, "xyz")], "").unwrap_err();
            assert!(matches!(error, ConfigError::Value { .. }), "{error}");
            let error = error.to_string();
            assert!(
                error.starts_with(variable) && error.contains(says),
                "{error}"
            );
        }
        let ceiling = load(&[("AGENTICORE_GRANTS", "program:sh, mcp:*")], "").unwrap();
        assert_eq!(ceiling.ceiling.unwrap().len(), 2);
    }

    #[test]
    fn an_empty_host_is_refused_where_it_was_given() {
        let host = |host: &str| Flags {
            host: Some(host.to_owned()),
            ..Flags::default()
        };
        let load = |flags: &Flags| {
            Config::from_parts(
                flags,
                &|_| None,
                "/home/u/.agenticore".into(),
                Path::new("/none"),
            )
        };
        for empty in ["", "  "] {
            let error = load(&host(empty)).unwrap_err().to_string();
            assert!(error.starts_with("--host is"), "{error}");
        }
        load(&host("::1")).unwrap();
        let error = self::load(&[], "server: {host: ''}")
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("server.host in"), "{error}");
    }

    #[test]
    fn a_file_of_settings_that_somebody_names_must_be_there() {
        let home = Path::new("/home/u/.agenticore");
        let named = |name: Option<&str>| file(&|_| name.map(str::to_owned), home);
        let by_itself = home.join("config.yml");
        assert_eq!(named(None).unwrap(), by_itself);
        assert_eq!(named(Some("")).unwrap(), by_itself);
        let error = named(Some("/nosuch/config.yml")).unwrap_err().to_string();
        assert!(
            error.contains("AGENTICORE_CONFIG") && error.contains("/nosuch"),
            "{error}"
        );
        assert_eq!(named(Some("/dev/null")).unwrap(), Path::new("/dev/null"));
    }

    #[test]
    fn what_is_no_file_of_settings_is_told_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("config.yml");
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, 0o600.into(), 0).unwrap();
        let home = dir.path().to_owned();
        let error = Config::from_parts(&Flags::default(), &|_| None, home, &pipe).unwrap_err();
        assert!(error.to_string().contains("not a regular file"), "{error}");

        let text = |yaml| load(&[], yaml).unwrap_err().to_string();
        let number = text("server: 5");
        assert!(
            number.contains("`server` is 5: expected a mapping"),
            "{number}"
        );
        let group = text("sever: {port: 1}");
        assert!(
            group.contains("\"sever\"") && group.contains("server"),
            "{group}"
        );
        // Everything below it may be commented out.
        load(&[], "server:\nredis:\n").unwrap();
    }

    #[test]
    fn a_file_of_certificates_must_hold_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        let path = file.display().to_string();
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (text, says) in [
            ("root:x:0:0\n", "no certificate"),
            (broken, "cannot be used"),
        ] {
            std::fs::write(&file, text).unwrap();
            let redis = [
                ("REDIS_URL", "rediss://x"),
                ("REDIS_CA_FILE", path.as_str()),
            ];
            let error = load(&redis, "").unwrap_err().to_string();
            assert!(
                error.contains("REDIS_CA_FILE") && error.contains(says),
                "{error}"
            );
        }
    }

    #[test]
    fn every_row_has_a_default_that_parses_and_secrets_do_not_print() {
        let config = load(&[("AGENTICORE_API_KEYS", "sesame")], "").unwrap();
        assert!(!format!("{config:?}").contains("sesame"));
        for setting in SETTINGS {
            assert!(reference().contains(setting.env), "{}", setting.env);
        }
    }
}
