//! `agenticore serve`.

use super::ExitCode;
use crate::config::{Config, Flags};

/// Start a server: REST and event streams, and the workers that run jobs
///
/// It runs until SIGTERM or Ctrl-C and then hands running jobs back to the queue. `agenticore config reference` lists its settings.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The address to listen on [settings: AGENTICORE_HOST]
    #[arg(long, value_name = "ADDRESS")]
    host: Option<String>,
    /// The port; 0 picks a free one [settings: AGENTICORE_PORT]
    #[arg(long)]
    port: Option<u16>,
    /// Listen on a non-loopback address without API keys; anybody who reaches it can then run commands here
    #[arg(long)]
    unsafe_no_auth: bool,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(&Flags {
        host: args.host,
        port: args.port,
        unsafe_no_auth: args.unsafe_no_auth,
    })?;
    config.check_bind()?;
    crate::server::serve(config).await?;
    Ok(ExitCode::Success)
}
