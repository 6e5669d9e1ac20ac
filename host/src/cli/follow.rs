//! Following a job to its end and showing what happens meanwhile.

use std::pin::pin;
use std::time::Duration;

use anyhow::Context as _;
use futures::{Stream, StreamExt as _};

use super::context::Context;
use super::events::{View, view};
use super::exit::{ExitCode, is_closed_pipe};
use super::output::{Format, Output};
use super::summary::Summary;
use super::text;
use crate::client::{Client, ClientError, Update};
use crate::job::{Event, EventBody, Record};

/// What is shown while a job is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Show {
    /// Log text as data, everything else as notes.
    Log,
    /// Everything as notes, because the data will be something else.
    Notes,
    /// Every event as one line of JSON.
    Events,
    /// Only what happens to the connection.
    Nothing,
}

/// Shows events one after another.
pub(super) struct Viewer<'a> {
    output: &'a Output,
    show: Show,
    /// Nobody reads the data any more.
    deaf: bool,
}

impl<'a> Viewer<'a> {
    pub(super) fn new(output: &'a Output, show: Show) -> Self {
        Self {
            output,
            show,
            deaf: false,
        }
    }

    /// Shows one event. Once nobody reads the data, only notes are shown: who waits for a job still wants its exit code.
    pub(super) fn show(&mut self, event: &Event) -> anyhow::Result<()> {
        match self.show {
            Show::Nothing => Ok(()),
            Show::Events => self.data(&format!("{}\n", serde_json::to_string(event)?)),
            Show::Log | Show::Notes => match view(event) {
                View::Nothing => Ok(()),
                View::Note(line) => {
                    self.output.note(&line);
                    Ok(())
                }
                View::Log(text) if self.show == Show::Notes => {
                    self.output
                        .note(text::lines(text.trim_end_matches('\n')).as_ref());
                    Ok(())
                }
                View::Log(text) if self.output.terminal => self.data(&text::lines(&text)),
                View::Log(text) => self.data(&text),
            },
        }
    }

    /// Whether nobody reads the data any more.
    pub(super) fn is_deaf(&self) -> bool {
        self.deaf
    }

    fn data(&mut self, text: &str) -> anyhow::Result<()> {
        if self.deaf {
            return Ok(());
        }
        match self.output.data(text) {
            Err(e) if is_closed_pipe(&e) => {
                self.deaf = true;
                Ok(())
            }
            other => other,
        }
    }
}

/// Follows a stream of events to its end and returns the last event, if it was the job's.
pub(super) async fn follow(
    output: &Output,
    updates: impl Stream<Item = Result<Update, ClientError>>,
    viewer: &mut Viewer<'_>,
    stop_when_deaf: bool,
) -> anyhow::Result<Option<EventBody>> {
    let mut updates = pin!(updates);
    let mut lost = false;
    while let Some(update) = updates.next().await {
        match update? {
            Update::Event(event) => {
                viewer.show(&event)?;
                if matches!(event.body, EventBody::End { .. }) {
                    return Ok(Some(event.body));
                }
                if stop_when_deaf && viewer.is_deaf() {
                    return Ok(None);
                }
            }
            Update::Lost { problem, .. } => {
                if !lost {
                    output.note(&format!(
                        "[stream] lost, trying again: {}",
                        text::line(&problem, 300)
                    ));
                }
                lost = true;
            }
            Update::Back => {
                if lost {
                    output.note("[stream] back");
                }
                lost = false;
            }
        }
    }
    Ok(None)
}

/// Waits for the end of a job and tells it: the exit code is the job's. With a JSON form the record is the data.
pub(super) async fn to_the_end(
    context: &Context,
    client: &Client,
    id: &str,
    show: Show,
) -> anyhow::Result<ExitCode> {
    let output = &context.output;
    let mut viewer = Viewer::new(output, show);
    let end = follow(output, client.events(id, 0), &mut viewer, false).await?;
    let record = record_of(client, id).await;
    match (record, end) {
        (Ok(record), _) => tell_end(output, &record),
        // The end is known even if the server went away right after it; only the record is not.
        (
            Err(error),
            Some(EventBody::End {
                status,
                failure,
                attempt,
                cost_usd,
                pr_url,
                ..
            }),
        ) => {
            let summary = Summary {
                status,
                took: None,
                cost_usd,
                pr_url: pr_url.as_deref(),
                pull_request: None,
                attempt,
                failure: failure.as_ref(),
            };
            output.note(&summary.text());
            if wants_record(output.format) {
                return Err(error.context("the job is over, but its record cannot be had"));
            }
            Ok(ExitCode::of_job(status))
        }
        (Err(error), _) => Err(error),
    }
}

/// Says how a job ended and, where a form of data was asked for, writes its record.
pub(super) fn tell_end(output: &Output, record: &Record) -> anyhow::Result<ExitCode> {
    output.note(&Summary::from(record).text());
    match output.format {
        Format::Json | Format::Jsonl => output.json(record)?,
        Format::Id => output.data(&format!("{}\n", record.id))?,
        Format::Table => {}
    }
    Ok(ExitCode::of_job(record.status))
}

/// Whether the data is the record rather than the log.
pub(super) fn wants_record(format: Format) -> bool {
    format != Format::Table
}

/// The record of a job that is over. A server that answers the stream may need a moment to answer this.
async fn record_of(client: &Client, id: &str) -> anyhow::Result<Record> {
    let mut tries = 0;
    loop {
        match client.get(id).await {
            Ok(record) if record.status.is_ended() => return Ok(record),
            Ok(record) => anyhow::bail!(
                "the stream of job {} ended although it is {}",
                record.id,
                record.status
            ),
            Err(e) if e.is_passing() && tries < 5 => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Err(e) => return Err(e).context("cannot read the job's record"),
        }
    }
}
