//! `agenticore config`: the reference of settings, and the values in force.

use clap::Subcommand;
use serde::Serialize;
use serde_json::Value;

use super::context::Context;
use super::exit::ExitCode;
use super::output::{Output, Rows};
use super::text;
use crate::config::{Config, Flags, SETTINGS, Setting, reference, variable_of};

/// Shown instead of a secret.
const HIDDEN: &str = "(hidden)";

/// Show the settings
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print the reference of all settings, in Markdown
    Reference,
    /// Print the values in force; secrets are hidden
    Show,
}

/// One setting and its value.
#[derive(Debug, PartialEq, Serialize)]
struct Row {
    name: String,
    value: Option<String>,
    from_environment: bool,
}

pub(super) fn run(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    match args.what {
        What::Reference => context.output.data(&reference())?,
        What::Show => {
            let config = Config::load(&Flags::default())?;
            let rows = rows(&config, &|name| std::env::var(name).ok());
            show(&context.output, &rows)?;
        }
    }
    Ok(ExitCode::Success)
}

fn show(output: &Output, rows: &[Row]) -> anyhow::Result<()> {
    let table = || Rows {
        heading: &["SETTING", "VALUE", "SET IN"],
        rows: rows
            .iter()
            .map(|row| {
                let value = row.value.as_deref().unwrap_or("-");
                let place = if row.from_environment {
                    "environment"
                } else {
                    "file or default"
                };
                vec![row.name.clone(), text::line(value, 120), place.to_owned()]
            })
            .collect(),
    };
    output.list(rows, |row| row.name.clone(), table)
}

/// Every setting with what it means after all checks, then what is handed to each plugin.
fn rows(config: &Config, lookup: &dyn Fn(&str) -> Option<String>) -> Vec<Row> {
    let from_environment = |name: &str| lookup(name).is_some_and(|v| !v.is_empty());
    let mut rows = Vec::new();
    for setting in SETTINGS {
        let Some(value) = value(config, setting) else {
            continue;
        };
        let value = value.filter(|v| !v.is_empty());
        let value = if setting.secret {
            value.map(|_| HIDDEN.to_owned())
        } else {
            value
        };
        rows.push(Row {
            name: setting.env.to_owned(),
            value,
            from_environment: from_environment(setting.env),
        });
    }
    for (plugin, settings) in &config.agents {
        for (key, value) in settings {
            let value = if is_secret(key) {
                HIDDEN.to_owned()
            } else {
                plain(value)
            };
            rows.push(Row {
                name: format!("agents.{plugin}.{key}"),
                value: Some(value),
                from_environment: variable_of(plugin, key).is_some_and(from_environment),
            });
        }
    }
    rows
}

/// The value of a setting; the outer none: it is shown elsewhere, among what is handed to plugins.
fn value(config: &Config, setting: &Setting) -> Option<Option<String>> {
    let path = |p: &std::path::Path| Some(p.display().to_string());
    let seconds = |d: std::time::Duration| Some(d.as_secs().to_string());
    let list = |l: &[String]| Some(l.join(","));
    let hidden = |is_set: bool| is_set.then(|| HIDDEN.to_owned());
    Some(match setting.env {
        "AGENTICORE_HOST" => Some(config.host.clone()),
        "AGENTICORE_PORT" => Some(config.port.to_string()),
        "AGENTICORE_API_KEYS" => hidden(!config.api_keys.is_empty()),
        "AGENTICORE_UNSAFE_NO_AUTH" => Some(config.unsafe_no_auth.to_string()),
        "AGENTICORE_ALLOW_LOCAL_PROFILES" => Some(config.allow_local_profiles.to_string()),
        "AGENTICORE_DRAIN_TIMEOUT" => seconds(config.drain_timeout),
        "AGENTICORE_SHARED_FS_ROOT" => config.shared_root.as_deref().and_then(path),
        "AGENTICORE_REPOS_ROOT" => path(&config.repos_root),
        "AGENTICORE_JOBS_DIR" => path(&config.jobs_dir),
        "AGENTICORE_MAX_PARALLEL_JOBS" => Some(config.max_parallel_jobs.to_string()),
        "AGENTICORE_JOB_TTL" => seconds(config.job_ttl),
        "AGENTICORE_MAX_JOB_SECONDS" => seconds(config.max_job_time),
        "AGENTICORE_WORKTREE_RETENTION" => seconds(config.worktree_retention),
        "AGENTICORE_REPO_CACHE_MAX_AGE" => seconds(config.repo_cache_max_age),
        "AGENTICORE_REPO_CACHE_MAX_BYTES" => Some(config.repo_cache_max_bytes.to_string()),
        "AGENTICORE_MAX_EVENT_BYTES" => Some(config.max_event_bytes.to_string()),
        "AGENTICORE_POD_NAME" => Some(config.pod_name.to_string()),
        "AGENTICORE_DEFAULT_PROFILE" => Some(config.default_profile.to_string()),
        "AGENTICORE_AGENTIHOOKS_PATH" => config
            .extra_profiles
            .as_deref()
            .and_then(|p| path(p.parent().unwrap_or(p))),
        "AGENTICORE_SECRETS" => list(&config.secrets),
        "AGENTICORE_GRANTS" => config.ceiling.as_deref().and_then(|grants| {
            let grants: Vec<String> = grants.iter().map(ToString::to_string).collect();
            list(&grants)
        }),
        "AGENTICORE_OTEL_ENABLED" => Some(config.otel.enabled.to_string()),
        "OTEL_EXPORTER_OTLP_ENDPOINT" => config.otel.endpoint.clone(),
        "OTEL_EXPORTER_OTLP_PROTOCOL" => config.otel.protocol.clone(),
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" => config.otel.traces_endpoint.clone(),
        "AGENTICORE_METRICS_PUBLIC" => Some(config.metrics_public.to_string()),
        "AGENTICORE_OTEL_LOG_PROMPTS" => Some(config.otel.log_prompts.to_string()),
        "AGENTICORE_OTEL_LOG_TOOL_DETAILS" => Some(config.otel.log_tool_details.to_string()),
        "GITHUB_TOKEN" => hidden(config.github_token.is_some()),
        "REDIS_URL" => hidden(config.redis.is_some()),
        // Handed to a plugin: these are in `config.agents`.
        _ if is_for_plugin(setting) => return None,
        other if setting.secret => hidden(config.written.contains_key(other)),
        other => config.written.get(other).cloned(),
    })
}

fn is_for_plugin(setting: &Setting) -> bool {
    setting.help.starts_with("Handed to the plugin")
}

/// Settings of plugins are free in form: names that say so are taken for secrets.
fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["key", "token", "secret", "password", "env", "header"]
        .iter()
        .any(|word| key.contains(word))
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::path::Path;

    use super::*;

    fn of(env: &[(&str, &str)]) -> Vec<Row> {
        let lookup = |name: &str| {
            env.iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| (*v).to_owned())
        };
        let config = Config::from_parts(
            &Flags::default(),
            &lookup,
            "/home/u/.agenticore".into(),
            Path::new("/none"),
        )
        .unwrap();
        rows(&config, &lookup)
    }

    #[test]
    fn every_setting_is_shown_once() {
        let plugin: Vec<_> = SETTINGS.iter().filter(|s| is_for_plugin(s)).collect();
        let env: Vec<_> = plugin.iter().map(|s| (s.env, "7")).collect();
        let rows = of(&env);
        for setting in SETTINGS.iter().filter(|s| !is_for_plugin(s)) {
            assert_eq!(
                rows.iter().filter(|r| r.name == setting.env).count(),
                1,
                "{}",
                setting.env
            );
        }
        let handed: Vec<_> = rows
            .iter()
            .filter(|r| r.name.starts_with("agents."))
            .collect();
        assert_eq!(handed.len(), plugin.len());
        assert!(handed.iter().all(|row| row.from_environment));
    }

    #[test]
    fn values_of_the_file_are_shown_and_its_secrets_hidden() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.yml");
        let text = "server: {rate_limit: 77, api_keys: [opener], read_keys: [sesame]}\nredis: {lease_seconds: 13, password: open}\n\
                    plugins: {max_calls: 40, limits: memory=1MiB}\n";
        std::fs::write(&file, text).unwrap();
        let config = Config::from_parts(&Flags::default(), &|_| None, "/home/u".into(), &file);
        let rows = rows(&config.unwrap(), &|_| None);
        for (name, shown) in [
            ("AGENTICORE_RATE_LIMIT", "77"),
            ("AGENTICORE_READ_KEYS", HIDDEN),
            ("AGENTICORE_LEASE_SECONDS", "13"),
            ("REDIS_PASSWORD", HIDDEN),
            ("AGENTICORE_PLUGIN_MAX_CALLS", "40"),
            ("REDIS_KEY_PREFIX", "agenticore"),
        ] {
            let row = rows.iter().find(|row| row.name == name).unwrap();
            assert_eq!(row.value.as_deref(), Some(shown), "{name}");
        }
        let text = serde_json::to_string(&rows).unwrap();
        assert!(
            !text.contains("sesame") && !text.contains("open\""),
            "{text}"
        );
    }

    #[test]
    fn values_are_those_in_force_and_secrets_are_hidden() {
        let rows = of(&[
            ("AGENTICORE_API_KEYS", "sesame"),
            ("GITHUB_TOKEN", "open"),
            ("AGENTICORE_SHARED_FS_ROOT", "/shared"),
        ]);
        let row = |name: &str| rows.iter().find(|r| r.name == name).unwrap();
        assert_eq!(
            row("AGENTICORE_REPOS_ROOT").value.as_deref(),
            Some("/shared/repos")
        );
        assert_eq!(row("AGENTICORE_API_KEYS").value.as_deref(), Some(HIDDEN));
        assert_eq!(row("REDIS_URL").value, None);
        assert!(row("GITHUB_TOKEN").from_environment && !row("AGENTICORE_PORT").from_environment);
        let text = serde_json::to_string(&rows).unwrap();
        assert!(!text.contains("sesame") && !text.contains("open"), "{text}");
        assert!(is_secret("apiKey") && is_secret("env") && !is_secret("binary"));
    }
}
