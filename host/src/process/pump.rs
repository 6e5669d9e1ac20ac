//! Reads a child's pipe to its end, which is not always the end of the pipe.
//!
//! A pipe stays open as long as any process holds it. Waiting for its end would let an orphan that nobody can kill hold a job
//! for ever. So once the child's tree is gone, only what is already in the pipe is read.

use std::future::Future;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::sync::CancellationToken;

/// Read at once, in bytes: what a pipe holds unless it is made larger.
const BUFFER: usize = 64 * 1024;

/// How long a silent pipe is listened to after the tree is gone.
const GRACE: Duration = Duration::from_millis(200);

/// How much is read after the tree is gone: the most that an unprivileged process can have in a pipe (pipe(7)).
const MAX_REST: usize = 1024 * 1024;

/// Takes what is read.
pub(super) trait Sink: Send {
    /// Takes bytes, and may wait until there is room for them.
    fn take(&mut self, bytes: &[u8]) -> impl Future<Output = ()> + Send;
    /// The end.
    fn finish(self) -> impl Future<Output = ()> + Send;
}

/// Reads `pipe` into `sink` until its end, or until it is drained after `gone`.
pub(super) async fn pump(
    mut pipe: impl AsyncRead + Unpin + Send,
    gone: CancellationToken,
    mut sink: impl Sink,
) {
    let mut buffer = vec![0; BUFFER];
    let mut rest = MAX_REST;
    loop {
        let read = if gone.is_cancelled() {
            tokio::time::timeout(GRACE, pipe.read(&mut buffer))
                .await
                .unwrap_or(Ok(0))
        } else {
            tokio::select! {
                biased;
                read = pipe.read(&mut buffer) => read,
                () = gone.cancelled() => continue,
            }
        };
        // A pipe that cannot be read has ended as well.
        let bytes = read
            .ok()
            .and_then(|length| buffer.get(..length))
            .unwrap_or_default();
        if bytes.is_empty() {
            break;
        }
        if gone.is_cancelled() {
            rest = rest.saturating_sub(bytes.len());
        }
        sink.take(bytes).await;
        if rest == 0 {
            break;
        }
    }
    sink.finish().await;
}
