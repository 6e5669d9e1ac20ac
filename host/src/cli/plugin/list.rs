//! `agenticore plugin list`: the plugins that a server knows.

use serde_json::Value;

use super::super::context::Context;
use super::super::exit::ExitCode;
use super::super::output::Rows;
use super::super::text;

/// List the plugins of the server
///
/// Those that are part of the program and those that a profile names: version, digest, what each may do in which profile, and what
/// went wrong with it last. With --json also limits, imports and hooks.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) async fn run(_: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let plugins = context.client()?.plugins().await?;
    context.output.list(
        &plugins,
        |plugin| field(plugin, "sha256").to_owned(),
        || rows(&plugins),
    )?;
    Ok(ExitCode::Success)
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
        text::line(&profiles.join(" "), 64),
        text::line(&grants.join(" "), 64),
        text::line(error.unwrap_or("-"), 120),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_adds_up_what_all_profiles_grant() {
        let plugin = serde_json::json!({
            "name": "policy", "version": "1.0.0", "sha256": "0123456789abcdef", "component": "/x/policy.wasm",
            "uses": [
                {"profile": "a", "grants": ["program:sh"]},
                {"profile": "b", "grants": ["mcp:stdio", "program:sh"]},
            ],
            "last_error": {"code": "plugin.time", "message": "too\nslow"},
        });
        assert_eq!(
            row(&plugin).join("|"),
            "policy|1.0.0|0123456789ab|a b|mcp:stdio program:sh|too slow"
        );
        let broken = serde_json::json!({"component": "x.wasm", "uses": []});
        assert_eq!(row(&broken).join("|"), "x.wasm|||||-");
    }
}
