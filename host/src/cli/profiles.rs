//! `agenticore profiles`.

use serde_json::Value;

use super::context::Context;
use super::exit::ExitCode;
use super::output::Rows;
use super::text;

pub(super) async fn run(context: &Context) -> anyhow::Result<ExitCode> {
    let profiles = context.client()?.profiles().await?;
    context.output.list(
        &profiles,
        |p| field(p, "name").to_owned(),
        || rows(&profiles),
    )?;
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

#[cfg(test)]
mod tests {
    use super::*;

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
