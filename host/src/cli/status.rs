//! `agenticore status`.

use serde_json::{Value, json};

use super::context::Context;
use super::exit::ExitCode;
use super::output::{Format, Output};
use super::text;
use crate::client::Health;

/// Say whether the server is up and ready
///
/// Exit codes: 0 up and ready; 1 up but not ready; 7 no answer.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only ask whether the server lives; a draining server, or one whose Redis is gone, does
    #[arg(long)]
    live: bool,
}

pub(super) async fn run(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    let client = context.client()?;
    if args.live {
        client.live().await?;
        context.output.note("the server lives");
        return Ok(ExitCode::Success);
    }
    let health = client.health().await?;
    show(&context.output, client.base().as_str(), &health)?;
    Ok(if health.ready {
        ExitCode::Success
    } else {
        ExitCode::Failed
    })
}

fn show(output: &Output, server: &str, health: &Health) -> anyhow::Result<()> {
    match output.format {
        Format::Table => output.data(&page(server, health)),
        Format::Id => output.data(&format!("{server}\n")),
        Format::Json | Format::Jsonl => output.json(&json!({
            "server": server,
            "ready": health.ready,
            "health": health.health,
            "readiness": health.readiness,
        })),
    }
}

fn page(server: &str, health: &Health) -> String {
    let mut lines = vec![("server".to_owned(), server.to_owned())];
    let facts = health.health.as_object().into_iter().flatten();
    for (name, value) in facts.filter(|(name, _)| *name != "success") {
        lines.push((name.clone(), plain(value)));
    }
    let ready = if health.ready { "yes" } else { "no" };
    lines.push(("ready".into(), ready.into()));
    // How full the queue is, where the server says so.
    for name in ["queued", "running"] {
        if let Some(value) = health.readiness.get(name) {
            lines.push((name.into(), plain(value)));
        }
    }
    let checks = health.readiness.get("checks").and_then(Value::as_array);
    for check in checks.into_iter().flatten() {
        let of = |name: &str| check.get(name).map(plain).unwrap_or_default();
        let word = if of("ok") == "true" { "ok" } else { "FAILED" };
        lines.push((
            format!("  {}", of("name")),
            format!("{word}  {}", of("detail")),
        ));
    }
    lines
        .iter()
        .map(|(name, value)| {
            let line = format!(
                "{:<12}  {}",
                text::line(name, 40).as_str(),
                text::line(value, 300)
            );
            let indent = if name.starts_with(' ') { "  " } else { "" };
            format!("{indent}{}\n", line.trim_end())
        })
        .collect()
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_what_is_not_ready() {
        let health = Health {
            health: json!({"status": "ok", "service": "agenticore", "version": "0.1.0", "pod": "p0"}),
            ready: false,
            readiness: json!({"ready": false, "checks": [
                {"name": "store", "ok": true, "detail": ""},
                {"name": "draining", "ok": false, "detail": "the server is stopping"},
            ]}),
        };
        insta::assert_snapshot!(page("http://127.0.0.1:8200/", &health), @r"
        server        http://127.0.0.1:8200/
        status        ok
        service       agenticore
        version       0.1.0
        pod           p0
        ready         no
          store         ok
          draining      FAILED the server is stopping
        ");
    }
}
