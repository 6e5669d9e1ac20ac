//! `agenticore retry`.

use super::attend::Waiting;
use super::context::Context;
use super::exit::{ExitCode, UsageError};
use super::run::{accepted, stay};

/// Submit the request of a job that is over once more, as a new job
///
/// The new job begins from the start; `run --session-id` goes on with what an agent has done. With --wait it is shown to its end, as
/// `run --wait` does.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The job: its id, the unique beginning of it, or `@last`
    #[arg(value_name = "ID")]
    id: String,
    /// Wait for the end and show the log
    #[arg(short, long)]
    wait: bool,
    #[command(flatten)]
    waiting: Waiting,
}

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let limit = args.waiting.limit();
    if limit.is_some() && !args.wait {
        return Err(UsageError("--timeout needs --wait".into()).into());
    }
    let client = context.patient_client(args.waiting.outage())?;
    let id = context.id(&client, &args.id).await?;
    let record = client.retry(&id).await?;
    if args.wait {
        stay(context, &client, &record, limit, false).await
    } else {
        accepted(&context.output, &record)
    }
}
