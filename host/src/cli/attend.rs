//! Waiting for a job in the foreground: Ctrl-C and the time limit end the waiting, not the job.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::context::Context;
use super::exit::ExitCode;
use crate::client::Client;

/// How long to wait, and what an interruption means.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(super) struct Waiting {
    /// Stop waiting after so many seconds (exit code 6); the job goes on
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Try for so many seconds to get back a connection that broke
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 300,
        env = "AGENTICORE_RECONNECT_SECONDS",
        hide_env_values = true
    )]
    reconnect: u64,
}

impl Waiting {
    /// The longest outage to put up with.
    pub(super) fn outage(&self) -> Duration {
        Duration::from_secs(self.reconnect)
    }

    /// How long to wait; none: to the end.
    pub(super) fn limit(&self) -> Option<Duration> {
        self.timeout.map(Duration::from_secs)
    }
}

/// How waiting ended before the work did.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cut {
    /// Ctrl-C, or the same by a signal.
    Interrupted,
    /// The time is over.
    TimedOut,
}

/// Does `work` until it ends, is interrupted or takes too long. What is dropped then ends where it is.
pub(super) async fn until_cut<T>(
    limit: Option<Duration>,
    work: impl Future<Output = T>,
) -> anyhow::Result<Result<T, Cut>> {
    let mut terminated = signal(SignalKind::terminate())?;
    let too_long = async {
        match limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        done = work => Ok(Ok(done)),
        result = tokio::signal::ctrl_c() => {
            result?;
            Ok(Err(Cut::Interrupted))
        }
        _ = terminated.recv() => Ok(Err(Cut::Interrupted)),
        () = too_long => Ok(Err(Cut::TimedOut)),
    }
}

/// Waits for a job. When the waiting is cut short, says how to come back; with `cancel` an interruption cancels the job instead.
pub(super) async fn attend(
    context: &Context,
    client: &Client,
    id: &str,
    limit: Option<Duration>,
    cancel: bool,
    work: impl Future<Output = anyhow::Result<ExitCode>>,
) -> anyhow::Result<ExitCode> {
    match until_cut(limit, work).await? {
        Ok(result) => result,
        Err(cut) => leave(context, client, id, cancel, cut).await,
    }
}

/// Says what becomes of a job that is no longer waited for, and cancels it if that was asked for.
pub(super) async fn leave(
    context: &Context,
    client: &Client,
    id: &str,
    cancel: bool,
    cut: Cut,
) -> anyhow::Result<ExitCode> {
    let note = |text: &str| context.output.note(text);
    match cut {
        Cut::Interrupted if cancel => {
            let record = client.cancel(id).await?;
            if record.status.is_ended() {
                note(&format!("job {id} is {}", record.status));
            } else {
                note(&format!("job {id} was asked to stop"));
            }
            Ok(ExitCode::Interrupted)
        }
        Cut::Interrupted => {
            note(&format!("detached; job {id} goes on"));
            note(&how_to_return(id));
            Ok(ExitCode::Interrupted)
        }
        Cut::TimedOut => {
            note(&format!("the time to wait is over; job {id} goes on"));
            note(&how_to_return(id));
            Ok(ExitCode::TimedOut)
        }
    }
}

/// How to follow a job that is not waited for, and how to cancel it.
pub(super) fn how_to_return(id: &str) -> String {
    let short: String = id.chars().take(8).collect();
    format!("follow it:  agenticore logs -f {short}\ncancel it:  agenticore cancel {short}")
}
