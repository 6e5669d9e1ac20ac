//! `agenticore drain` and `agenticore undrain`.

use std::time::Duration;

use super::context::Context;
use super::exit::ExitCode;
use super::output::{Format, Output};
use crate::client::Client;
use crate::drain::{DrainStatus, Phase};

/// How often the pod is asked how far it is.
const POLL: Duration = Duration::from_millis(250);
/// How much longer than its time a drain is waited for.
const GRACE: Duration = Duration::from_secs(15);

/// Stop claiming jobs, let running ones end, and hand the rest back to the queue in time
///
/// Exit codes: 0 nothing runs any more; 6 something still runs; 8 nothing runs any more, and jobs were handed back unfinished.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Seconds until the pod must be empty; jobs may end until 30 seconds before
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
    /// Only say how far the drain is
    #[arg(long, conflicts_with = "timeout")]
    status: bool,
}

/// Drains and waits for it; draining a pod twice is fine.
pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let client = context.client()?;
    if args.status {
        show(&context.output, &client.drain_status().await?)?;
        return Ok(ExitCode::Success);
    }
    let begun = client.drain(args.timeout).await?;
    tell(&context.output, &begun);
    let limit = Duration::from_secs(args.timeout).max(crate::drain::HAND_OFF_TIME) + GRACE;
    let Ok(status) = tokio::time::timeout(limit, drained(&client, &context.output, begun)).await
    else {
        context
            .output
            .note("agenticore: the pod still runs jobs after its time; `agenticore drain --status` tells of them");
        return Ok(ExitCode::TimedOut);
    };
    let status = status?;
    show(&context.output, &status)?;
    Ok(if status.handed_off > 0 {
        ExitCode::HandedOff
    } else {
        ExitCode::Success
    })
}

/// Takes a drain back.
pub(super) async fn undo(context: &Context) -> anyhow::Result<ExitCode> {
    let status = context.client()?.undrain().await?;
    show(&context.output, &status)?;
    Ok(ExitCode::Success)
}

async fn drained(
    client: &Client,
    output: &Output,
    mut status: DrainStatus,
) -> anyhow::Result<DrainStatus> {
    while status.phase == Phase::Draining {
        tokio::time::sleep(POLL).await;
        let next = client.drain_status().await?;
        if next.running != status.running {
            tell(output, &next);
        }
        status = next;
    }
    Ok(status)
}

fn tell(output: &Output, status: &DrainStatus) {
    if status.running > 0 {
        output.note(&format!(
            "draining: {} still running, {:.0} s left",
            jobs(status.running),
            status.seconds_left.unwrap_or_default()
        ));
    }
}

fn show(output: &Output, status: &DrainStatus) -> anyhow::Result<()> {
    let text = match status.phase {
        Phase::Serving => "serving: the pod claims jobs\n".to_owned(),
        Phase::Draining => format!("draining: {} still running\n", jobs(status.running)),
        Phase::Drained if status.handed_off > 0 => {
            format!(
                "drained: {} handed back to the queue\n",
                jobs(status.handed_off)
            )
        }
        Phase::Drained => "drained: nothing runs\n".to_owned(),
    };
    match output.format {
        Format::Table | Format::Id => output.data(&text),
        Format::Json | Format::Jsonl => output.json(status),
    }
}

fn jobs(count: usize) -> String {
    if count == 1 {
        "1 job".to_owned()
    } else {
        format!("{count} jobs")
    }
}
