//! `agenticore job explain ID`: which plugins a job ran, with which rights, and what each of them did.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::context::Context;
use super::exit::ExitCode;
use super::output::Format;
use super::text;
use crate::job::{Admitted, Denial, HookUse, PluginPlace, PluginUse, Record};

/// Explain a job: its plugins, their grants and limits, who wrote which file, and everything that was refused
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The job: its id, the unique beginning of it, or `@last`
    id: String,
}

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let client = context.client()?;
    let record = context.record(&client, &args.id).await?;
    let output = &context.output;
    match output.format {
        Format::Json | Format::Jsonl => output.json(&document(&record))?,
        Format::Id => output.data(&format!("{}\n", record.id))?,
        Format::Table => output.data(&page(&record))?,
    }
    Ok(ExitCode::Success)
}

/// The same as data; the names are those of the record.
fn document(record: &Record) -> Value {
    json!({
        "id": record.id,
        "status": record.status,
        "profile": record.profile,
        "attempt": record.attempt,
        "failure": record.failure,
        "admitted": record.admitted,
        "plugin": record.plugin,
        "hooks": record.hooks,
        "permission_denials": record.permission_denials,
        "warnings": record.warnings,
    })
}

fn page(record: &Record) -> String {
    let mut page = String::new();
    let _ = writeln!(
        page,
        "job {}: {}, profile {}, attempt {}",
        record.id,
        record.status,
        text::line(&record.profile, 100),
        record.attempt
    );
    if let Some(failure) = &record.failure {
        let code = failure.code.as_deref().unwrap_or(failure.class.as_str());
        let _ = writeln!(
            page,
            "failed with {code}: {}",
            text::lines(&failure.message)
        );
        let _ = writeln!(page, "what to do: {}", text::lines(&failure.remedy));
    }
    if record.admitted.is_empty() {
        page.push_str("\nThe record does not say which plugins the job was admitted with.\n");
    }
    for admitted in &record.admitted {
        admission(&mut page, admitted);
    }
    if let Some(plugin) = &record.plugin {
        plan(&mut page, plugin);
    }
    for hook in &record.hooks {
        call(&mut page, hook);
    }
    for denied in &record.permission_denials {
        let _ = writeln!(page, "\nthe agent was refused: {}", text::line(denied, 500));
    }
    for warning in &record.warnings {
        let _ = writeln!(page, "\nwarning: {}", text::lines(warning));
    }
    page
}

fn admission(page: &mut String, admitted: &Admitted) {
    let place = match admitted.place {
        PluginPlace::Plugin => "plugin",
        PluginPlace::Hook => "hook",
    };
    let _ = writeln!(
        page,
        "\n{place} {} {}",
        text::line(&admitted.name, 100),
        text::line(&admitted.version, 64)
    );
    let mut fact = |name: &str, value: &str| {
        let _ = writeln!(page, "  {name:<10}  {}", text::line(value, 2_000));
    };
    fact("component", &admitted.component);
    fact("digest", &admitted.digest);
    fact("contract", &admitted.api);
    fact("asked for", &listed(&admitted.requested));
    fact("granted", &listed(&admitted.granted));
    fact("got", &listed(&admitted.effective));
    let limits: Vec<String> = admitted
        .limits
        .iter()
        .map(|(name, value)| match value {
            Value::String(text) => format!("{name}={text}"),
            other => format!("{name}={other}"),
        })
        .collect();
    fact("limits", &limits.join(" "));
}

fn listed(grants: &[String]) -> String {
    if grants.is_empty() {
        "nothing".to_owned()
    } else {
        grants.join(" ")
    }
}

fn plan(page: &mut String, plugin: &PluginUse) {
    let _ = writeln!(
        page,
        "\nmaterialize by {}: {:.1} ms, {} of memory, {} host calls",
        text::line(&plugin.name, 100),
        plugin.materialize_ms,
        bytesize::ByteSize(plugin.peak_memory),
        plugin.host_calls
    );
    if !plugin.tree.is_empty() {
        let _ = writeln!(page, "  tree        {}", plugin.tree);
    }
    for file in &plugin.files {
        let from = match &file.from {
            Some(path) => format!(" ({})", text::line(path, 300)),
            None => String::new(),
        };
        let _ = writeln!(
            page,
            "  file        {}  {} bytes, by {}{from}",
            text::line(&file.path, 300),
            file.bytes,
            text::line(&file.by, 300)
        );
    }
    if plugin.files_left_out > 0 {
        let _ = writeln!(page, "  file        and {} more", plugin.files_left_out);
    }
    told(page, &plugin.denials, &plugin.log);
}

fn call(page: &mut String, hook: &HookUse) {
    let _ = writeln!(
        page,
        "\n{} by {} in attempt {}: {:.1} ms, {} of memory",
        hook.at,
        text::line(&hook.name, 300),
        hook.attempt,
        hook.elapsed_ms,
        bytesize::ByteSize(hook.peak_memory)
    );
    if !hook.decided.is_empty() {
        let _ = writeln!(page, "  decided     {}", text::lines(&hook.decided));
    }
    told(page, &hook.denials, &hook.log);
}

fn told(page: &mut String, denials: &[Denial], log: &[String]) {
    for denial in denials {
        let _ = writeln!(
            page,
            "  denied      {}: {}",
            denial.code,
            text::lines(&denial.what)
        );
        let _ = writeln!(page, "  what to do  {}", text::lines(&denial.remedy));
    }
    for line in log {
        let _ = writeln!(page, "  log         {}", text::line(line, 1_000));
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn record() -> Record {
        let value = json!({
            "id": "0b4f2c1e-0000-4000-8000-000000000001",
            "status": "failed",
            "profile": "backend",
            "attempt": 1,
            "failure": {"class": "hook", "code": "plugin.memory", "message": "too much", "remedy": "use less"},
            "admitted": [
                {"place": "plugin", "component": "planner", "name": "planner", "version": "0.1.0", "digest": "ab", "api": "1.0.0",
                 "requested": ["program:*"], "granted": ["program:sh"], "effective": ["program:sh"], "limits": {"time": "5s", "files": 2000}},
                {"place": "hook", "component": "/p/guard.wasm", "name": "guard", "digest": "cd", "api": "1.1.0"},
            ],
            "plugin": {"name": "planner", "materialize_ms": 1.25, "peak_memory": 2_097_152, "host_calls": 3, "tree": "ef",
                "files": [
                    {"path": "RULES.md", "bytes": 12, "by": "plugin"},
                    {"path": "a.sh", "bytes": 3, "by": "layer code", "from": "scripts/a.sh"},
                    {"path": "x", "bytes": 1, "by": "hook guard"},
                ],
                "files_left_out": 2,
                "log": ["info: fine\u{1b}[2J"]},
            "hooks": [
                {"name": "guard", "at": "pre-job", "attempt": 1, "elapsed_ms": 0.5, "peak_memory": 1024,
                 "denials": [{"code": "plugin.memory", "what": "used too much", "remedy": "use less"}]},
            ],
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_page_says_who_did_what_with_which_rights() {
        insta::assert_snapshot!(page(&record()));
    }

    #[test]
    fn the_document_has_the_same() {
        let document = document(&record());
        for pointer in [
            "/admitted/0/effective/0",
            "/plugin/files/1/from",
            "/hooks/0/denials/0/remedy",
            "/failure/remedy",
        ] {
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
    }
}
