//! `agenticore completions SHELL`.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::Cli;
use super::context::Context;
use super::exit::ExitCode;

/// Print the completions for a shell
///
/// For bash: `agenticore completions bash > /etc/bash_completion.d/agenticore`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "agenticore", &mut script);
    context.output.data(&String::from_utf8(script)?)?;
    Ok(ExitCode::Success)
}
