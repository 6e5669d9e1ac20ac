//! `agenticore export`.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use futures::TryStreamExt;
use serde_json::json;

use super::context::Context;
use super::exit::ExitCode;
use crate::client::{Client, JobQuery};
use crate::job::{Event, EventBody, Record};

/// How many jobs are asked for at once.
const PAGE: usize = 100;
/// How long a job that is just ending is left alone.
const PAUSE: Duration = Duration::from_millis(100);

/// Write every job with its events to a file, for `agenticore import` on another server
///
/// A job a line, JSON. Jobs that run are written as they are at that moment; where they are imported they run again.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file; `-` is standard output
    #[arg(default_value = "-")]
    file: PathBuf,
}

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let client = context.client()?;
    let mut file = match args.file.as_os_str() == "-" {
        true => None,
        false => Some(
            std::fs::File::create_new(&args.file)
                .with_context(|| format!("cannot create {}", args.file.display()))?,
        ),
    };
    let mut query = JobQuery {
        limit: Some(PAGE),
        ..JobQuery::default()
    };
    let mut count = 0_usize;
    loop {
        let page = client.list(&query).await?;
        for record in page.jobs {
            let (record, events) = whole(&client, record).await?;
            let line = json!({"record": record, "events": events}).to_string();
            match &mut file {
                Some(file) => writeln!(file, "{line}").context("cannot write the export")?,
                None => context.output.data(&format!("{line}\n"))?,
            }
            count += 1;
        }
        query.cursor = page.next_cursor;
        if query.cursor.is_none() {
            break;
        }
    }
    if let Some(file) = file {
        file.sync_all().context("cannot write the export")?;
    }
    context.output.note(&format!("{count} jobs exported"));
    Ok(ExitCode::Success)
}

/// A job and its events, which agree on whether it is over.
async fn whole(client: &Client, mut record: Record) -> anyhow::Result<(Record, Vec<Event>)> {
    loop {
        let recorded = client.recorded(&record.id, 0);
        let events: Vec<Event> = recorded.try_collect().await?;
        let is_over = events
            .last()
            .is_some_and(|event| matches!(event.body, EventBody::End { .. }));
        if is_over == record.status.is_ended() {
            return Ok((record, events));
        }
        // It ended between the two.
        tokio::time::sleep(PAUSE).await;
        record = client.get(&record.id).await?;
    }
}
