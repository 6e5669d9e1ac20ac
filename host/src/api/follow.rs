//! Following the events of one job: what is stored, then what comes, without loss or repeat.
//!
//! A follower subscribes first and reads afterwards, always from the store and from its own cursor. It holds one batch at a time, so
//! a slow reader costs nothing and misses nothing: it just reads later.

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;

use super::Shared;
use crate::job::{Event, EventBody, JobId, Record};
use crate::queue::{Cursor, Queue, QueueError};

/// What a reader gets: an event, or the news that it cannot be given the events it asked for.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Item {
    /// A stored event.
    Event(Event),
    /// The events up to this one are not there; `job` is what they have led to.
    Reset {
        /// The `reset`. Its number is the last one that is passed over, so that the reader can go on from it.
        #[serde(flatten)]
        event: Event,
        /// The record as it stands.
        job: Box<Record>,
    },
}

impl Item {
    /// The event of either kind.
    pub(super) fn event(&self) -> &Event {
        match self {
            Self::Event(event) | Self::Reset { event, .. } => event,
        }
    }

    /// Whether nothing follows.
    pub(super) fn is_end(&self) -> bool {
        matches!(self.event().body, EventBody::End { .. })
    }
}

/// Where a reader that comes with a cursor stands.
pub(super) enum Start {
    /// There are events after the cursor, or there will be.
    Follow(Follower),
    /// The stream is over and the reader has all of it.
    Over {
        /// The number of its last event.
        last: u64,
    },
}

/// One reader of one job's stream.
pub(super) struct Follower {
    core: Shared,
    id: JobId,
    cursor: Cursor,
    last: watch::Receiver<u64>,
    /// The reader's cursor lay beyond the stream, which is said first.
    beyond: bool,
    /// The end was read.
    over: bool,
}

impl Follower {
    /// Subscribes to the events after number `after`.
    pub(super) async fn open(core: Shared, id: JobId, after: u64) -> Result<Start, QueueError> {
        let receiver = core.queue().watch(id).await?;
        let mut last = *receiver.borrow();
        if after >= last {
            let (newest, over) = tip(core.queue(), id, last).await?;
            if over && after >= newest {
                return Ok(Start::Over { last: newest });
            }
            last = newest;
        }
        Ok(Start::Follow(Self {
            core,
            id,
            cursor: Cursor::after(after.min(last)),
            last: receiver,
            beyond: after > last,
            over: false,
        }))
    }

    /// The number of the last event that was read.
    pub(super) fn position(&self) -> u64 {
        self.cursor.seq
    }

    /// The next events as soon as there are any; none when there will be no more.
    ///
    /// Dropping the future loses nothing: the cursor moves when the events are handed out.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Item>>, QueueError> {
        let mut gone = false;
        loop {
            // Marked before it is read: what is stored after that wakes the wait below.
            self.last.borrow_and_update();
            let items = self.read().await?;
            if !items.is_empty() {
                return Ok(Some(items));
            }
            if self.over || gone {
                return Ok(None);
            }
            // The store lets go of a job that is over; what it stored last is read once more.
            gone = self.last.changed().await.is_err();
        }
    }

    /// The next events that are stored already, at most a batch of them.
    pub(super) async fn read(&mut self) -> Result<Vec<Item>, QueueError> {
        if self.over {
            return Ok(Vec::new());
        }
        if self.beyond {
            let reset = self.reset(1, self.cursor.seq).await?;
            self.beyond = false;
            return Ok(vec![reset]);
        }
        let (events, cursor) = self.core.queue().events(self.id, self.cursor).await?;
        let mut items = Vec::with_capacity(events.len() + 1);
        if let Some(first) = events.first().filter(|e| e.seq > self.cursor.seq + 1) {
            items.push(self.reset(first.seq, first.seq - 1).await?);
        }
        items.extend(events.into_iter().map(Item::Event));
        self.over = items.last().is_some_and(Item::is_end);
        self.cursor = cursor;
        Ok(items)
    }

    async fn reset(&self, oldest: u64, seq: u64) -> Result<Item, QueueError> {
        let job = Box::new(self.core.queue().get(self.id).await?);
        let event = Event {
            seq,
            ts: Timestamp::now(),
            body: EventBody::Reset { oldest },
        };
        Ok(Item::Reset { event, job })
    }
}

/// The number of the newest event, which is at least `last`, and whether the stream ends with it.
async fn tip(queue: &dyn Queue, id: JobId, last: u64) -> Result<(u64, bool), QueueError> {
    let mut cursor = Cursor::after(last.saturating_sub(1));
    let mut tip = (last, false);
    loop {
        let (events, next) = queue.events(id, cursor).await?;
        let Some(newest) = events.last() else {
            return Ok(tip);
        };
        tip = (newest.seq, matches!(newest.body, EventBody::End { .. }));
        cursor = next;
    }
}
