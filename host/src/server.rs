//! One process that serves: the queue, the workers and the HTTP face, started and stopped together.

use crate::config::Config;
use crate::job::{Event, Record, RequestBody};

/// Serves until SIGTERM or SIGINT, then drains. Prints one line with the bound address on standard error once it accepts connections.
///
/// # Errors
/// When an address, directory or store cannot be used; nothing is bound or started then.
pub async fn serve(_config: Config) -> anyhow::Result<()> {
    Ok(())
}

/// Runs one job in this process, without a server, and hands every event to `watch` as it comes.
///
/// Dropping the future kills the agent.
///
/// # Errors
/// When the request is refused or the store cannot be used.
pub async fn run_local(
    _config: Config,
    _request: RequestBody,
    _watch: impl FnMut(&Event) + Send,
) -> anyhow::Result<Record> {
    Ok(Record::default())
}
