//! The event stream of a job, read over as many connections as it takes.
//!
//! Events are numbered without gaps, so the number of the last one seen is all that a new connection needs. A reader of this
//! stream sees each event once, whatever happened to the connection or the server.

use std::time::{Duration, Instant};

use async_stream::stream;
use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use futures::{Stream, StreamExt as _};
use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use sse_stream::{Sse, SseStream};

use super::{Client, ClientError, error};
use crate::job::{Event, EventBody};

/// A connection that held this long worked; its loss begins a new outage.
const HELD: Duration = Duration::from_secs(5);

/// What the reader of a stream gets.
#[derive(Debug)]
pub enum Update {
    /// The next event.
    Event(Event),
    /// The connection is gone and will be made again.
    Lost {
        /// Why.
        problem: String,
        /// After which pause.
        pause: Duration,
    },
    /// The connection is there again.
    Back,
}

impl Client {
    /// Follows a job from the event after number `after` to its end. The stream ends with the job.
    ///
    /// A connection that breaks is made again with the number of the last event, with growing pauses, until the client's patience
    /// for an outage is over. Dropping the stream closes the connection and changes nothing on the server.
    pub fn events(
        &self,
        id: &str,
        after: u64,
    ) -> impl Stream<Item = Result<Update, ClientError>> + Send + use<> {
        let client = self.clone();
        let id = id.to_owned();
        stream! {
            let mut cursor = after;
            let mut outage = Outage::new(&client);
            loop {
                let problem = match client.connect(&id, cursor).await {
                    Ok(None) => return,
                    Ok(Some(response)) => {
                        if outage.is_open() {
                            yield Ok(Update::Back);
                        }
                        let since = Instant::now();
                        let mut lines = SseStream::from_bytes_stream(response.bytes_stream());
                        let problem = loop {
                            match lines.next().await {
                                Some(Ok(line)) => match read(&line, &mut cursor) {
                                    Ok(Some(event)) => {
                                        outage = Outage::new(&client);
                                        let over = matches!(event.body, EventBody::End { .. });
                                        yield Ok(Update::Event(event));
                                        if over {
                                            return;
                                        }
                                    }
                                    Ok(None) => {}
                                    Err(e) => {
                                        yield Err(e);
                                        return;
                                    }
                                },
                                Some(Err(e)) => break error::chain(&e),
                                None => break "the server closed the stream".to_owned(),
                            }
                        };
                        if since.elapsed() >= HELD {
                            outage = Outage::new(&client);
                        }
                        problem
                    }
                    Err(e) if e.is_passing() => e.to_string(),
                    Err(e) => {
                        yield Err(e);
                        return;
                    }
                };
                let Some(pause) = outage.next_pause() else {
                    let problem = format!("{problem}; gave up after {} seconds", outage.patience.as_secs());
                    yield Err(ClientError::Unreachable { server: client.base.clone(), problem });
                    return;
                };
                yield Ok(Update::Lost { problem, pause });
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// The events stored so far after number `after`, page by page, without waiting for more.
    pub fn recorded(
        &self,
        id: &str,
        after: u64,
    ) -> impl Stream<Item = Result<Event, ClientError>> + Send + use<> {
        let client = self.clone();
        let id = id.to_owned();
        stream! {
            let mut cursor = after;
            loop {
                let page = match client.page(&id, cursor).await {
                    Ok(page) => page,
                    Err(e) => {
                        yield Err(e);
                        return;
                    }
                };
                let before = cursor;
                for value in page.events {
                    if let Some(event) = parse(value, &mut cursor) {
                        yield Ok(event);
                    }
                }
                cursor = cursor.max(page.next);
                if cursor <= before {
                    return;
                }
            }
        }
    }

    /// Opens the stream; none: the job is over and the cursor is past its end.
    async fn connect(&self, id: &str, cursor: u64) -> Result<Option<Response>, ClientError> {
        let mut request = self
            .request(Method::GET, &["jobs", id, "events"])
            .header("accept", "text/event-stream");
        if cursor > 0 {
            request = request.header("last-event-id", cursor.to_string());
        }
        let response = self.send(request).await?;
        match response.status() {
            StatusCode::NO_CONTENT => Ok(None),
            status if status.is_success() => Ok(Some(response)),
            _ => Err(error::refusal(response).await),
        }
    }

    async fn page(&self, id: &str, after: u64) -> Result<EventPage, ClientError> {
        let request = self
            .request(Method::GET, &["jobs", id, "events"])
            .query(&[("format", "json".to_owned()), ("after", after.to_string())]);
        self.answer(request).await
    }
}

#[derive(Deserialize)]
struct EventPage {
    events: Vec<Value>,
    #[serde(default)]
    next: u64,
}

/// A time without a working connection: when it began, and the pauses that are left.
struct Outage {
    began: Option<Instant>,
    pauses: ExponentialBackoff,
    patience: Duration,
    most: Duration,
}

impl Outage {
    fn new(client: &Client) -> Self {
        let patience = client.patience;
        Self {
            began: None,
            pauses: ExponentialBuilder::new()
                .with_min_delay(patience.least)
                .with_max_delay(patience.most)
                .without_max_times()
                .with_jitter()
                .build(),
            patience: patience.outage,
            most: patience.most,
        }
    }

    fn is_open(&self) -> bool {
        self.began.is_some()
    }

    /// The pause before the next try; none: the patience is over.
    fn next_pause(&mut self) -> Option<Duration> {
        let spent = self.began.get_or_insert_with(Instant::now).elapsed();
        let left = self.patience.checked_sub(spent).filter(|l| !l.is_zero())?;
        Some(self.pauses.next().unwrap_or(self.most).min(left))
    }
}

fn read(line: &Sse, cursor: &mut u64) -> Result<Option<Event>, ClientError> {
    let Some(data) = line.data.as_deref().filter(|d| !d.is_empty()) else {
        return Ok(None);
    };
    let value = serde_json::from_str(data)
        .map_err(|e| ClientError::Unexpected(format!("an event is no JSON: {e}")))?;
    Ok(parse(value, cursor))
}

/// The event, unless it was seen before or is of a kind that only newer versions know; moves the cursor past it.
fn parse(value: Value, cursor: &mut u64) -> Option<Event> {
    let seq = value.get("seq").and_then(Value::as_u64).unwrap_or(0);
    let event: Option<Event> = serde_json::from_value(value).ok();
    if matches!(&event, Some(e) if matches!(e.body, EventBody::Reset { .. })) {
        // Its number is where to go on from, which may be before the cursor that was asked for.
        *cursor = seq;
        return event;
    }
    if seq <= *cursor {
        return None;
    }
    *cursor = seq;
    event
}
