//! `agenticore logs`.

use futures::StreamExt as _;

use super::attend::{Waiting, attend};
use super::context::Context;
use super::exit::{ExitCode, UsageError};
use super::follow::{Show, Viewer, follow};
use super::output::Format;
use crate::client::Update;

/// Print the log of a job
///
/// The log goes to standard output as it came; what else happened goes to standard error. With --json every event is one line of
/// JSON. Ctrl-C ends the following, not the job.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The job: its id, the unique beginning of it, or `@last`
    id: String,
    /// Go on until the job ends
    #[arg(short, long)]
    follow: bool,
    /// Begin after the event with this number
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    after: u64,
    #[command(flatten)]
    waiting: Waiting,
}

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let show = match context.output.format {
        Format::Table => Show::Log,
        Format::Json | Format::Jsonl => Show::Events,
        Format::Id => {
            return Err(UsageError("a log has no ids: use --output table or jsonl".into()).into());
        }
    };
    let client = context.patient_client(args.waiting.outage())?;
    let id = context.id(&client, &args.id).await?;
    let mut viewer = Viewer::new(&context.output, show);
    if !args.follow {
        let events = client
            .recorded(&id, args.after)
            .map(|e| e.map(Update::Event));
        follow(&context.output, events, &mut viewer, true).await?;
        return Ok(ExitCode::Success);
    }
    let work = async {
        let events = client.events(&id, args.after);
        follow(&context.output, events, &mut viewer, true).await?;
        Ok(ExitCode::Success)
    };
    attend(context, &client, &id, args.waiting.limit(), false, work).await
}
