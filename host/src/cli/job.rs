//! `agenticore job ID`.

use super::context::Context;
use super::exit::ExitCode;
use super::output::Format;
use super::summary;

/// Show one job
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
        Format::Json | Format::Jsonl => output.json(&record)?,
        Format::Id => output.data(&format!("{}\n", record.id))?,
        Format::Table => output.data(&summary::page(&record))?,
    }
    Ok(ExitCode::Success)
}
