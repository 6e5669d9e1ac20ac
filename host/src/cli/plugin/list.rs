//! `agenticore plugin list`: the plugins that a server knows.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::super::context::Context;
use super::super::exit::{ExitCode, UsageError};
use super::super::output::Rows;
use super::super::text;
use super::workbench;
use crate::plugins::usable;
use crate::profile::{Component, ProfileRoot, ProfileStore, SHARED_COMPONENTS, Source};

/// List the plugins of the server, or of a folder
///
/// Those that are part of the program and those that a profile names: version, digest, whether the operator approved it or switched it
/// off, what each may do in which profile, and what went wrong with it last. With --json also limits, imports and hooks.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Ask no server: look at this folder of profiles and components, under the settings and decisions of this machine
    #[arg(long, value_name = "FOLDER")]
    profiles: Option<PathBuf>,
}

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let plugins = match &args.profiles {
        Some(folder) => of_folder(folder).await?,
        None => context.client()?.plugins().await?,
    };
    context.output.list(
        &plugins,
        |plugin| field(plugin, "sha256").to_owned(),
        || rows(&plugins),
    )?;
    Ok(ExitCode::Success)
}

/// The same list as a server's, of the components in a folder and those that its profiles name.
async fn of_folder(folder: &Path) -> anyhow::Result<Vec<Value>> {
    if !folder.is_dir() {
        return Err(UsageError(format!("{} is no folder", folder.display())).into());
    }
    let root = ProfileRoot::folder(Source::User, folder.to_owned());
    let profiles = usable(&ProfileStore::new(vec![ProfileRoot::bundled(), root])?);
    let mut components = components(folder)?;
    let shared = folder.join(SHARED_COMPONENTS);
    if shared.is_dir() {
        components.extend(self::components(&shared)?);
    }
    let bench = workbench()?;
    let listed = bench.plugins().overview(&profiles, components).await;
    Ok(listed
        .into_iter()
        .map(serde_json::to_value)
        .collect::<Result<_, _>>()?)
}

/// The components that lie in a folder, sorted.
fn components(folder: &Path) -> std::io::Result<Vec<Component>> {
    let entries: std::io::Result<Vec<PathBuf>> = std::fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect();
    let mut files = entries?;
    files.retain(|path| path.extension().is_some_and(|e| e == "wasm") && path.is_file());
    files.sort();
    Ok(files.into_iter().map(Component::File).collect())
}

fn field<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn rows(plugins: &[Value]) -> Rows {
    Rows {
        heading: &[
            "NAME",
            "VERSION",
            "SHA256",
            "STATE",
            "PROFILES",
            "GRANTS",
            "LAST ERROR",
        ],
        rows: plugins.iter().map(row).collect(),
    }
}

fn row(plugin: &Value) -> Vec<String> {
    let name = match field(plugin, "name") {
        "" => field(plugin, "component"),
        name => name,
    };
    let uses = plugin.get("uses").and_then(Value::as_array);
    let uses = uses.map(Vec::as_slice).unwrap_or_default();
    let profiles: Vec<&str> = uses.iter().map(|u| field(u, "profile")).collect();
    let mut grants: Vec<&str> = uses
        .iter()
        .filter_map(|u| u.get("grants").and_then(Value::as_array))
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    grants.sort_unstable();
    grants.dedup();
    let error = plugin
        .pointer("/last_error/message")
        .and_then(Value::as_str);
    let digest: String = field(plugin, "sha256").chars().take(12).collect();
    vec![
        text::line(name, 64),
        text::line(field(plugin, "version"), 32),
        digest,
        state(plugin).to_owned(),
        text::line(&profiles.join(" "), 64),
        text::line(&grants.join(" "), 64),
        text::line(error.unwrap_or("-"), 120),
    ]
}

/// What the operator has decided about it.
fn state(plugin: &Value) -> &str {
    let is = |name: &str| plugin.get(name).is_some_and(|value| *value != Value::Null);
    if is("disabled") {
        return "switched off";
    }
    match field(plugin, "approval") {
        "" if plugin.get("bundled") == Some(&Value::Bool(true)) => "bundled",
        "" => "-",
        standing => standing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_adds_up_what_all_profiles_grant() {
        let plugin = serde_json::json!({
            "name": "policy", "version": "1.0.0", "sha256": "0123456789abcdef", "component": "/x/policy.wasm", "approval": "waiting",
            "uses": [
                {"profile": "a", "grants": ["program:sh"]},
                {"profile": "b", "grants": ["mcp:stdio", "program:sh"]},
            ],
            "last_error": {"code": "plugin.time", "message": "too\nslow"},
        });
        assert_eq!(
            row(&plugin).join("|"),
            "policy|1.0.0|0123456789ab|waiting|a b|mcp:stdio program:sh|too slow"
        );
        let off = serde_json::json!({"name": "policy", "approval": "approved", "disabled": {"what": "policy"}});
        assert_eq!(row(&off).join("|"), "policy|||switched off|||-");
        let bundled = serde_json::json!({"name": "shell", "bundled": true, "approval": null, "disabled": null});
        assert_eq!(row(&bundled).join("|"), "shell|||bundled|||-");
        let broken = serde_json::json!({"component": "x.wasm", "uses": []});
        assert_eq!(row(&broken).join("|"), "x.wasm|||-|||-");
    }
}
