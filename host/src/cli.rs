//! The command line: one file a command, each with its `Args` and its `run`.
//!
//! Commands that ask about jobs are plain clients of the REST face. Data goes to standard output and everything else to standard
//! error; a command returns an [`ExitCode`] instead of exiting.

mod attend;
mod cancel;
mod compile_plugin;
mod completions;
mod config;
mod context;
mod drain;
mod events;
mod exit;
mod explain;
mod export;
mod follow;
mod fsck;
mod import;
mod init_shared_fs;
mod job;
mod jobs;
mod keys;
mod logs;
mod man;
mod output;
mod plugin;
mod pods;
mod profiles;
mod queue;
mod retry;
mod run;
mod serve;
mod status;
mod summary;
mod text;
mod trust;
mod version;
mod wait;
mod watchdog;

#[cfg(test)]
mod tests;

use clap::{Parser, Subcommand};
use secrecy::SecretString;

pub use self::exit::ExitCode;

use self::context::Context;
use self::output::{Format, Output};

/// Runs coding agents as jobs, on this machine or on a fleet.
///
/// Exit codes: 0 done or succeeded; 1 failed; 2 wrong usage or request; 3 cancelled or expired; 4 not allowed; 5 not found;
/// 6 waited too long; 7 server not reachable; 8 drained, but jobs were handed off; 130 interrupted.
#[derive(Debug, Parser)]
#[command(
    name = "agenticore",
    version,
    about,
    propagate_version = false,
    max_term_width = 120
)]
pub struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Global options")]
struct Globals {
    /// The server to talk to; default: host and port of the settings
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "AGENTICORE_URL",
        hide_env_values = true
    )]
    server: Option<String>,
    /// The API key to show; default: the first of AGENTICORE_API_KEYS
    #[arg(
        long,
        global = true,
        value_name = "KEY",
        env = "AGENTICORE_API_KEY",
        hide_env_values = true
    )]
    api_key: Option<SecretString>,
    /// The form of the data on standard output
    #[arg(short, long, global = true, value_enum, value_name = "FORM", default_value_t = Format::Table)]
    output: Format,
    /// The same as --output json
    #[arg(long, global = true)]
    json: bool,
}

impl Globals {
    fn format(&self) -> Format {
        match (self.output, self.json) {
            (Format::Table, true) => Format::Json,
            (format, _) => format,
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Args),
    Run(run::Args),
    Jobs(jobs::Args),
    Job(job::Args),
    Logs(logs::Args),
    Wait(wait::Args),
    Cancel(cancel::Args),
    Retry(retry::Args),
    Drain(drain::Args),
    /// Let a pod that was drained claim jobs again
    Undrain,
    Pods(pods::Args),
    Queue(queue::Args),
    Keys(keys::Args),
    Fsck(fsck::Args),
    Export(export::Args),
    Import(import::Args),
    /// List the profiles of the server
    Profiles,
    Plugin(plugin::Args),
    Status(status::Args),
    InitSharedFs(init_shared_fs::Args),
    Config(config::Args),
    Completions(completions::Args),
    #[command(hide = true)]
    CompilePlugin(compile_plugin::Args),
    #[command(hide = true)]
    Watchdog(watchdog::Args),
    /// Print the manual page
    #[command(hide = true)]
    Man,
    /// Print the version
    Version,
}

impl Cli {
    /// Whether the command is a server, whose log says more than that of a command for people.
    #[must_use]
    pub fn is_server(&self) -> bool {
        matches!(self.command, Command::Serve(_))
    }
}

/// Runs one command to its end. Everything it has to say, errors too, is printed when this returns.
pub async fn run(cli: Cli) -> ExitCode {
    let output = Output::standard(cli.globals.format());
    run_with(cli.command, &Context::new(cli.globals, output)).await
}

async fn run_with(command: Command, context: &Context) -> ExitCode {
    match dispatch(command, context).await {
        Ok(code) => code,
        Err(error) if exit::is_closed_pipe(&error) => ExitCode::Success,
        Err(error) => {
            let text = exit::chain(&error);
            context
                .output
                .note(&format!("agenticore: {}", text::lines(&text)));
            if let Some(hint) = exit::hint(&error) {
                context.output.note(hint);
            }
            exit::code_of(&error)
        }
    }
}

async fn dispatch(command: Command, context: &Context) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(args) => serve::run(args).await,
        // Boxed: the futures of those that follow a job are large.
        Command::Run(args) => Box::pin(run::run(args, context)).await,
        Command::Jobs(args) => jobs::run(args, context).await,
        Command::Job(args) => job::run(args, context).await,
        Command::Logs(args) => logs::run(args, context).await,
        Command::Wait(args) => wait::run(args, context).await,
        Command::Cancel(args) => cancel::run(args, context).await,
        Command::Retry(args) => Box::pin(retry::run(args, context)).await,
        Command::Drain(args) => drain::run(args, context).await,
        Command::Undrain => drain::undo(context).await,
        Command::Pods(args) => pods::run(args, context).await,
        Command::Queue(args) => queue::run(args, context).await,
        Command::Export(args) => export::run(args, context).await,
        Command::Import(args) => import::run(args, context).await,
        Command::Fsck(args) => fsck::run(args, context).await,
        Command::Keys(args) => keys::run(&args, context),
        Command::Profiles => profiles::run(context).await,
        Command::Plugin(args) => Box::pin(plugin::run(args, context)).await,
        Command::Status(args) => status::run(&args, context).await,
        Command::InitSharedFs(args) => init_shared_fs::run(args, context).await,
        Command::Config(args) => config::run(&args, context),
        Command::Completions(args) => completions::run(&args, context),
        Command::CompilePlugin(args) => Ok(compile_plugin::run(&args)),
        Command::Watchdog(args) => Ok(watchdog::run(&args)),
        Command::Man => man::run(context),
        Command::Version => version::run(context),
    }
}
