//! `agenticore profiles`.

use std::collections::BTreeSet;

use serde_json::Value;

use super::context::Context;
use super::exit::ExitCode;
use super::output::{Format, Rows};
use super::text;

pub(super) async fn run(context: &Context) -> anyhow::Result<ExitCode> {
    let profiles = context.client()?.profiles().await?;
    context.output.list(
        &profiles,
        |p| field(p, "name").to_owned(),
        || rows(&profiles),
    )?;
    if context.output.format == Format::Table {
        for warning in warnings(&profiles) {
            context.output.note(&warning);
        }
    }
    Ok(ExitCode::Success)
}

fn field<'a>(profile: &'a Value, name: &str) -> &'a str {
    profile
        .get(name)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// A broken profile shows its error where others show what they are for.
fn rows(profiles: &[Value]) -> Rows {
    let row = |profile: &Value| {
        let about = match field(profile, "error") {
            "" => field(profile, "description").to_owned(),
            error => format!("broken: {error}"),
        };
        let mut row: Vec<String> = ["name", "source", "plugin"]
            .map(|name| text::line(field(profile, name), 64))
            .into();
        row.push(text::line(&about, 200));
        row
    };
    Rows {
        heading: &["NAME", "SOURCE", "PLUGIN", "DESCRIPTION"],
        rows: profiles.iter().map(row).collect(),
    }
}

/// What the authors of profiles should change, each once: a profile repeats what is said of those it extends.
fn warnings(profiles: &[Value]) -> Vec<String> {
    let all = profiles
        .iter()
        .filter_map(|profile| profile.get("warnings")?.as_array());
    let texts: BTreeSet<&str> = all.flatten().filter_map(Value::as_str).collect();
    let told = |warning| format!("warning: {}", text::line(warning, 400));
    texts.into_iter().map(told).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_warning_is_told_once() {
        let slip = "profile `a`: nothing reads the key `hook`; did you mean `hooks`?";
        let profiles = [
            serde_json::json!({"name": "a", "warnings": [slip]}),
            serde_json::json!({"name": "b", "warnings": [slip, "old"]}),
            serde_json::json!({"name": "of an older server"}),
        ];
        assert_eq!(
            warnings(&profiles),
            ["warning: old".to_owned(), format!("warning: {slip}")]
        );
    }

    #[test]
    fn a_broken_profile_shows_why() {
        let profiles = [
            serde_json::json!({"name": "code", "source": "bundled", "plugin": "p", "description": "Writes code", "error": null}),
            serde_json::json!({"name": "bad", "source": "user", "plugin": "", "error": "line 1:\n no"}),
        ];
        let rows: Vec<_> = rows(&profiles).rows.iter().map(|r| r.join("|")).collect();
        assert_eq!(
            rows,
            ["code|bundled|p|Writes code", "bad|user||broken: line 1: no"]
        );
    }
}
