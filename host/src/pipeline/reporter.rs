//! Sends a job's events to the queue, batched, in order, without loss.
//!
//! While the store fails, events wait in a bounded channel and whoever sends them waits too: the agent's output is read slower, and
//! nothing is dropped. Only log lines past the limit of stored bytes are left out, and the stream says so once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::job::{EventBody, LogStream};
use crate::queue::{Lease, Queue, QueueError};

/// Events that may wait to be stored.
const WAITING: usize = 256;

/// The most bytes of text in one log event; longer texts become several.
const MAX_TEXT: usize = 64 * 1024;

/// The sending end of a job's event stream.
pub(super) struct Reporter {
    sender: mpsc::Sender<EventBody>,
    writer: JoinHandle<Vec<EventBody>>,
    /// Whether somebody waits for the last events.
    closing: Arc<AtomicBool>,
    max_bytes: u64,
    logged: AtomicU64,
}

impl Reporter {
    pub(super) fn start(queue: Arc<dyn Queue>, lease: Lease, max_bytes: u64) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        let closing = Arc::new(AtomicBool::new(false));
        Self {
            sender,
            writer: tokio::spawn(write(queue, lease, receiver, closing.clone())),
            closing,
            max_bytes,
            logged: AtomicU64::new(0),
        }
    }

    /// Hands one event over; waits while too many are not stored yet.
    pub(super) async fn send(&self, event: EventBody) {
        // The writer goes before the reporter only when the lease is lost; nothing is to be told then.
        drop(self.sender.send(event).await);
    }

    /// Hands over an event that may be left out when too many are waiting.
    pub(super) fn note(&self, event: EventBody) {
        drop(self.sender.try_send(event));
    }

    /// Hands text for the log over, in pieces that readers can take.
    pub(super) async fn log(&self, stream: LogStream, text: &str) {
        let before = self.logged.fetch_add(text.len() as u64, Ordering::Relaxed);
        if before >= self.max_bytes {
            return;
        }
        for piece in pieces(text) {
            self.send(EventBody::Log {
                stream,
                text: piece.to_owned(),
            })
            .await;
        }
        if before + text.len() as u64 >= self.max_bytes {
            let text = format!(
                "[further output is left out of this stream: {} bytes are stored, the limit of AGENTICORE_MAX_EVENT_BYTES; the \
                 record keeps the end of the output]",
                self.max_bytes
            );
            self.send(EventBody::Log {
                stream: LogStream::Host,
                text,
            })
            .await;
        }
    }

    /// Waits until everything is stored but the last events, which it returns: they are stored with the end of the run.
    pub(super) async fn close(self) -> Vec<EventBody> {
        self.closing.store(true, Ordering::Release);
        drop(self.sender);
        self.writer.await.unwrap_or_default()
    }
}

/// Cuts text between characters into pieces of at most [`MAX_TEXT`] bytes.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let cut = (0..=MAX_TEXT.min(text.len()))
            .rev()
            .find(|&at| text.is_char_boundary(at))
            .unwrap_or(text.len());
        let (piece, left) = text.split_at(cut);
        rest = (!left.is_empty()).then_some(left);
        Some(piece)
    })
}

/// Stores what comes in, until nothing does any more or the lease is lost; returns what came last where it is waited for.
async fn write(
    queue: Arc<dyn Queue>,
    lease: Lease,
    mut receiver: mpsc::Receiver<EventBody>,
    closing: Arc<AtomicBool>,
) -> Vec<EventBody> {
    let mut batch = Vec::with_capacity(WAITING);
    while receiver.recv_many(&mut batch, WAITING).await > 0 {
        let events = std::mem::take(&mut batch);
        let is_last = receiver.is_closed() && receiver.is_empty();
        if is_last && closing.load(Ordering::Acquire) {
            return events;
        }
        if persist("store events", || queue.append(&lease, events.clone()))
            .await
            .is_err()
        {
            break;
        }
    }
    Vec::new()
}

/// Repeats an operation of the store until it works; every other error is returned.
pub(super) async fn persist<T, F>(what: &str, operation: impl FnMut() -> F) -> Result<T, QueueError>
where
    F: Future<Output = Result<T, QueueError>>,
{
    let patience = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(5))
        .without_max_times();
    operation
        .retry(patience)
        .when(QueueError::is_storage)
        .notify(|error, _| tracing::error!(%error, "cannot {what}; trying again until it works"))
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_cut_between_characters_and_nothing_is_lost() {
        let text = "ü".repeat(MAX_TEXT);
        let all: Vec<&str> = pieces(&text).collect();
        assert!(all.iter().all(|p| p.len() <= MAX_TEXT) && all.len() == 2);
        assert_eq!(all.concat(), text);
        assert_eq!(pieces("").collect::<Vec<_>>(), [""]);
    }
}
