//! `agenticore compile-plugin`: what a server starts to compile a plugin in. Not for people.

use std::path::PathBuf;

use super::exit::ExitCode;
use crate::plugin;

/// Compile the component on standard input
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The stack of guests, in bytes; part of what the code is compiled for
    #[arg(long)]
    stack: u64,
    /// The file to write
    file: PathBuf,
}

/// The message alone goes to standard error, for the server to pass on.
pub(super) fn run(args: &Args) -> ExitCode {
    match plugin::compile_here(std::io::stdin(), &args.file, args.stack) {
        Ok(()) => ExitCode::Success,
        Err(error) => {
            eprintln!("{}", error.message);
            ExitCode::Failed
        }
    }
}
