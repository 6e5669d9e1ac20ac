//! `agenticore run`: submit a job, or run one in this process.

mod repo;

use std::time::Duration;

use anyhow::Context as _;

use super::attend::{Cut, Waiting, attend, how_to_return, until_cut};
use super::context::Context;
use super::exit::{ExitCode, UsageError};
use super::follow::{Show, Viewer, tell_end, to_the_end, wants_record};
use super::output::{Format, Output};
use crate::client::Client;
use crate::config::{Config, Flags};
use crate::job::{Record, RequestBody};
use crate::server::Local;

/// Submit a job
///
/// Without --wait the job's id is printed and the command ends. With --wait the log is printed as it comes, what happens to the job
/// goes to standard error, and the exit code is the job's. Ctrl-C ends the waiting, not the job.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What the agent is to do; `-` reads it from standard input
    #[arg(value_name = "TASK")]
    task: String,
    /// The repository to work in: a URL, or a local path such as `.`
    #[arg(short, long, value_name = "URL")]
    repo: Option<String>,
    /// The profile; default: the server's
    #[arg(short, long, value_name = "NAME")]
    profile: Option<String>,
    /// The branch or commit to start from; default: the repository's default branch
    #[arg(long, value_name = "REF", requires = "repo")]
    base_ref: Option<String>,
    /// Go on with this session of the agent
    #[arg(long, value_name = "ID")]
    session_id: Option<String>,
    /// Wait for the end and show the log
    #[arg(short, long)]
    wait: bool,
    /// Run the job in this process, without a server; Ctrl-C and --timeout then end the job
    #[arg(long)]
    local: bool,
    /// With --wait: Ctrl-C cancels the job
    #[arg(long)]
    cancel_on_interrupt: bool,
    #[command(flatten)]
    waiting: Waiting,
}

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    if args.waiting.limit().is_some() && !args.wait && !args.local {
        return Err(UsageError("--timeout needs --wait".into()).into());
    }
    if args.cancel_on_interrupt && !args.wait {
        return Err(UsageError("--cancel-on-interrupt needs --wait".into()).into());
    }
    let body = body(&args, std::io::stdin())?;
    if args.local {
        return local(&args, body, &context.output).await;
    }
    let client = context.patient_client(args.waiting.outage())?;
    let record = client.submit(&body).await?;
    let limit = args.waiting.limit();
    if args.wait {
        stay(context, &client, &record, limit, args.cancel_on_interrupt).await
    } else {
        accepted(&context.output, &record)
    }
}

/// Shows what an accepted job does, to its end.
pub(super) async fn stay(
    context: &Context,
    client: &Client,
    record: &Record,
    limit: Option<Duration>,
    cancel_on_interrupt: bool,
) -> anyhow::Result<ExitCode> {
    let id = record.id.as_str();
    context
        .output
        .note(&format!("[job] {id} {}", record.status));
    let show = show(context.output.format);
    let work = to_the_end(context, client, id, show);
    attend(context, client, id, limit, cancel_on_interrupt, work).await
}

fn body(args: &Args, mut stdin: impl std::io::Read) -> anyhow::Result<RequestBody> {
    let mut task = args.task.clone();
    if task == "-" {
        task.clear();
        stdin
            .read_to_string(&mut task)
            .context("cannot read the task from standard input")?;
    }
    if task.trim().is_empty() {
        return Err(UsageError("the task is empty: say what the agent is to do".into()).into());
    }
    Ok(RequestBody {
        task,
        repo_url: args.repo.as_deref().map(repo::address).transpose()?,
        profile: args.profile.clone(),
        base_ref: args.base_ref.clone(),
        // Waiting is done by following the events, which survives a broken connection; an open request does not.
        wait: false,
        session_id: args.session_id.clone(),
    })
}

/// Says which job was accepted.
pub(super) fn accepted(output: &Output, record: &Record) -> anyhow::Result<ExitCode> {
    match output.format {
        Format::Json | Format::Jsonl => output.json(record)?,
        Format::Table | Format::Id => output.data(&format!("{}\n", record.id))?,
    }
    if output.format == Format::Table {
        output.note(&how_to_return(&record.id));
    }
    Ok(ExitCode::Success)
}

/// The log is the data, unless the record is.
fn show(format: Format) -> Show {
    if wants_record(format) {
        Show::Notes
    } else {
        Show::Log
    }
}

async fn local(args: &Args, body: RequestBody, output: &Output) -> anyhow::Result<ExitCode> {
    let config = Config::load(&Flags::default())?;
    let mut viewer = Viewer::new(output, show(output.format));
    let watch = |event: &_| {
        if let Err(error) = viewer.show(event) {
            tracing::warn!("cannot show an event: {error:#}");
        }
    };
    let mut local = Local::start(config).await?;
    let ran = until_cut(args.waiting.limit(), local.run(body, watch)).await;
    // Kills the agent where the run was cut short.
    local.close().await;
    match ran? {
        Ok(record) => tell_end(output, &record?),
        Err(Cut::Interrupted) => {
            output.note("interrupted; the agent was stopped");
            Ok(ExitCode::Interrupted)
        }
        Err(Cut::TimedOut) => {
            output.note("the time to wait is over; the agent was stopped");
            Ok(ExitCode::TimedOut)
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use clap::Parser as _;

    use super::super::{Cli, Command, exit};
    use super::*;

    fn args(line: &[&str]) -> Args {
        let line = ["agenticore", "run"].iter().chain(line);
        match Cli::try_parse_from(line).unwrap().command {
            Command::Run(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_dash_reads_the_task_from_standard_input() {
        let read = |text: &'static str| body(&args(&["-"]), text.as_bytes());
        assert_eq!(read("do\nit\n").unwrap().task, "do\nit\n");
        let error = read(" \n").unwrap_err();
        assert_eq!(exit::code_of(&error), ExitCode::Usage);
    }

    #[test]
    fn the_flags_reach_the_request() {
        let args = args(&[
            "t",
            "-p",
            "code",
            "-r",
            "https://example.org/x",
            "--base-ref",
            "dev",
            "--session-id",
            "s1",
            "-w",
        ]);
        let body = body(&args, std::io::empty()).unwrap();
        let expected = RequestBody {
            task: "t".into(),
            repo_url: Some("https://example.org/x".into()),
            profile: Some("code".into()),
            base_ref: Some("dev".into()),
            wait: false,
            session_id: Some("s1".into()),
        };
        assert_eq!(body, expected);
    }
}
