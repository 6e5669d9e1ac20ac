//! `agenticore version`.

use serde_json::json;

use super::context::Context;
use super::exit::ExitCode;
use super::output::Format;

pub(super) fn run(context: &Context) -> anyhow::Result<ExitCode> {
    let version = env!("CARGO_PKG_VERSION");
    match context.output.format {
        Format::Json | Format::Jsonl => context
            .output
            .json(&json!({"name": "agenticore", "version": version}))?,
        Format::Table | Format::Id => context.output.data(&format!("agenticore {version}\n"))?,
    }
    Ok(ExitCode::Success)
}
