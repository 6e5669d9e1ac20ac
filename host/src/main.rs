//! The `agenticore` binary: parse, start telemetry, run one command, return its exit code.

use std::process::ExitCode;

use agenticore::cli::{self, Cli, telemetry};
use clap::Parser as _;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = telemetry::init(cli.is_server()) {
        eprintln!("agenticore: {error}");
        return cli::ExitCode::Usage.into();
    }
    cli::run(cli).await.into()
}
