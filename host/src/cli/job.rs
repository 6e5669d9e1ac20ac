//! `agenticore job ID` and `agenticore job explain ID`.

use clap::Subcommand;

use super::context::Context;
use super::exit::{ExitCode, UsageError};
use super::output::Format;
use super::{explain, summary};

/// Show one job
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// The job: its id, the unique beginning of it, or `@last`
    id: Option<String>,
}

#[derive(Debug, Subcommand)]
enum What {
    Explain(explain::Args),
}

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    if let Some(What::Explain(args)) = args.what {
        return explain::run(args, context).await;
    }
    let Some(id) = args.id else {
        let text = "name the job: its id, the unique beginning of it, or @last";
        return Err(UsageError(text.to_owned()).into());
    };
    let client = context.client()?;
    let record = context.record(&client, &id).await?;
    let output = &context.output;
    match output.format {
        Format::Json | Format::Jsonl => output.json(&record)?,
        Format::Id => output.data(&format!("{}\n", record.id))?,
        Format::Table => output.data(&summary::page(&record))?,
    }
    Ok(ExitCode::Success)
}
