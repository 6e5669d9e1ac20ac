//! `agenticore watchdog`: what a server of a fleet starts to end its agents should it be killed. Not for people.

use super::exit::ExitCode;
use crate::process::{self, Instance};

/// Wait until standard input is closed, then kill what a server left behind
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The server, as it marks its processes
    instance: Instance,
}

pub(super) fn run(args: &Args) -> ExitCode {
    let left = process::watch(&args.instance);
    if left.killed > 0 {
        eprintln!(
            "agenticore: the server was killed; {} processes of its jobs were ended",
            left.killed
        );
    }
    ExitCode::Success
}
