//! The `agenticore` binary: parse, start telemetry, run one command, return its exit code.

use std::process::ExitCode;

use agenticore::cli::{self, Cli};
use agenticore::telemetry::Telemetry;
use clap::Parser as _;

/// What threads allocate here is mostly freed by others, which the allocator of the C library makes them wait for each other for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let telemetry = match Telemetry::start(cli.is_server()) {
        Ok(telemetry) => telemetry,
        Err(error) => {
            eprintln!("agenticore: {error}");
            return cli::ExitCode::Usage.into();
        }
    };
    let code = cli::run(cli).await;
    telemetry.end().await;
    code.into()
}
