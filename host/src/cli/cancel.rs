//! `agenticore cancel`.

use super::context::Context;
use super::exit::{self, ExitCode};
use super::output::Rows;
use crate::client::Client;
use crate::job::Record;

/// Cancel jobs: one that waits ends at once, one that runs is asked to stop
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The jobs: ids, the unique beginnings of them, or `@last`
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

/// Cancels each, whatever becomes of the others; the exit code is that of the first failure.
pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let client = context.client()?;
    let mut records = Vec::new();
    let mut failure = None;
    for id in &args.ids {
        match one(context, &client, id).await {
            Ok(record) => records.push(record),
            Err(error) => {
                let text = format!("agenticore: {id}: {}", exit::chain(&error));
                context.output.note(&super::text::lines(&text));
                failure.get_or_insert((exit::code_of(&error), exit::hint(&error)));
            }
        }
    }
    if let Some((_, Some(hint))) = failure {
        context.output.note(hint);
    }
    if !records.is_empty() || failure.is_none() {
        context
            .output
            .list(&records, |r| r.id.clone(), || rows(&records))?;
    }
    Ok(failure.map_or(ExitCode::Success, |(code, _)| code))
}

async fn one(context: &Context, client: &Client, id: &str) -> anyhow::Result<Record> {
    let id = context.id(client, id).await?;
    Ok(client.cancel(&id).await?)
}

fn rows(records: &[Record]) -> Rows {
    let row = |record: &Record| {
        let what = match (record.status.is_ended(), record.cancel_requested_at) {
            (false, Some(_)) => "asked to stop",
            _ => "",
        };
        vec![
            record.id.clone(),
            record.status.to_string(),
            what.to_owned(),
        ]
    };
    Rows {
        heading: &["ID", "STATUS", ""],
        rows: records.iter().map(row).collect(),
    }
}
