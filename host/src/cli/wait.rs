//! `agenticore wait`.

use super::attend::{Waiting, attend};
use super::context::Context;
use super::exit::ExitCode;
use super::follow::{Show, tell_end, to_the_end};

/// Wait for the end of a job; the exit code is the job's
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The job: its id, the unique beginning of it, or `@last`
    id: String,
    #[command(flatten)]
    waiting: Waiting,
}

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let client = context.patient_client(args.waiting.outage())?;
    let record = context.record(&client, &args.id).await?;
    if record.status.is_ended() {
        return tell_end(&context.output, &record);
    }
    let work = to_the_end(context, &client, &record.id, Show::Nothing);
    attend(
        context,
        &client,
        &record.id,
        args.waiting.limit(),
        false,
        work,
    )
    .await
}
