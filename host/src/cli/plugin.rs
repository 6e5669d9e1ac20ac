//! `agenticore plugin`: what authors and operators do with plugins. The work itself is [`crate::workbench`]'s.

mod bench;
mod check;
mod diff;
mod inspect;
mod install;
mod list;
mod new;
mod pack;
mod page;
mod registry;
mod run;
mod test;

use clap::Subcommand;

use super::context::Context;
use super::exit::{ExitCode, UsageError};
use super::trust;
use crate::config::{Config, Flags};
use crate::plugin::PluginError;
use crate::workbench::{Failed, Unusable, Workbench};

/// Work with plugins
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    New(new::Args),
    Check(check::Args),
    Inspect(inspect::Args),
    Run(run::Args),
    Test(test::Args),
    Bench(bench::Args),
    Diff(diff::Args),
    Pack(pack::Args),
    Keygen(pack::KeygenArgs),
    Push(registry::PushArgs),
    Pull(registry::PullArgs),
    Install(install::Args),
    List(list::Args),
    Approvals(trust::Approvals),
    Approve(trust::Approve),
    Revoke(trust::Revoke),
    Disable(trust::Disable),
    Enable(trust::Enable),
}

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    match args.what {
        What::New(args) => Box::pin(new::run(args, context)).await,
        What::Check(args) => Box::pin(check::run(args, context)).await,
        What::Inspect(args) => Box::pin(inspect::run(args, context)).await,
        What::Run(args) => Box::pin(run::run(args, context)).await,
        What::Test(args) => Box::pin(test::run(args, context)).await,
        What::Bench(args) => Box::pin(bench::run(args, context)).await,
        What::Diff(args) => Box::pin(diff::run(args, context)).await,
        What::Pack(args) => Box::pin(pack::run(args, context)).await,
        What::Keygen(args) => pack::keygen(&args, context),
        What::Push(args) => Box::pin(registry::push(args, context)).await,
        What::Pull(args) => Box::pin(registry::pull(args, context)).await,
        What::Install(args) => Box::pin(install::run(args, context)).await,
        What::List(args) => Box::pin(list::run(args, context)).await,
        What::Approvals(args) => trust::approvals(&args, context),
        What::Approve(args) => trust::approve(&args, context),
        What::Revoke(args) => trust::revoke(&args, context),
        What::Disable(args) => trust::disable(&args, context),
        What::Enable(args) => trust::enable(&args, context),
    }
}

/// The sandbox under this machine's settings, the same that a server here would have.
fn workbench() -> anyhow::Result<Workbench> {
    Ok(Workbench::new(Config::load(&Flags::default())?)?)
}

/// What cannot be tried at all is a wrong use of the command.
fn unusable(problem: &Unusable) -> anyhow::Error {
    UsageError(problem.to_string()).into()
}

fn failed(failed: Failed) -> anyhow::Error {
    match failed {
        Failed::Unusable(problem) => unusable(&problem),
        Failed::Plugin(error) => error.into(),
    }
}

/// A plugin's error as the command's end: as data where JSON was asked for, and in words.
fn refused(context: &Context, error: &PluginError) -> anyhow::Result<ExitCode> {
    check::unread(&context.output, error)
}
