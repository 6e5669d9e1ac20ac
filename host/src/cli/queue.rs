//! `agenticore queue`.

use serde_json::Value;

use super::context::Context;
use super::exit::ExitCode;
use super::output::{Format, Rows};
use super::text;

/// Say how many jobs wait and run, and show those that wait, the next one first
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) async fn run(_args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let queue = context.client()?.queue().await?;
    let jobs = queue.get("jobs").and_then(Value::as_array);
    let jobs = jobs.map(Vec::as_slice).unwrap_or_default();
    match context.output.format {
        Format::Json | Format::Jsonl => context.output.json(&queue)?,
        Format::Id | Format::Table => {
            context
                .output
                .list(jobs, |job| field(job, "id"), || rows(jobs))?;
            context.output.note(&summary(&queue));
        }
    }
    Ok(ExitCode::Success)
}

fn field(job: &Value, name: &str) -> String {
    match job.get(name) {
        Some(Value::String(text)) => text::line(text, 80),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

fn summary(queue: &Value) -> String {
    let oldest = queue.get("oldest_seconds").and_then(Value::as_f64);
    let oldest = oldest.map(|seconds| format!("; the first has waited {seconds:.0} s"));
    let trouble = queue.get("trouble").and_then(Value::as_str);
    let trouble = trouble.map(|what| {
        let what = text::line(what, 200);
        format!("; as the store said last, for now it {what}")
    });
    format!(
        "{} waiting, {} running{}{}",
        field(queue, "queued"),
        field(queue, "running"),
        oldest.unwrap_or_default(),
        trouble.unwrap_or_default()
    )
}

fn rows(jobs: &[Value]) -> Rows {
    let names = ["id", "profile", "attempt", "queued_at", "task"];
    Rows {
        heading: &["ID", "PROFILE", "ATTEMPTS", "QUEUED", "TASK"],
        rows: jobs
            .iter()
            .map(|job| names.iter().map(|name| field(job, name)).collect())
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_summary_tells_how_long_the_first_has_waited() {
        let queue = json!({"queued": 2, "running": 1, "oldest_seconds": 12.4});
        assert_eq!(
            summary(&queue),
            "2 waiting, 1 running; the first has waited 12 s"
        );
        let empty = json!({"queued": 0, "running": 0, "oldest_seconds": null});
        assert_eq!(summary(&empty), "0 waiting, 0 running");
        let away = json!({"queued": 0, "running": 0, "trouble": "does not answer"});
        assert_eq!(
            summary(&away),
            "0 waiting, 0 running; as the store said last, for now it does not answer"
        );
    }
}
