//! The guest's standard output and error: captured and bounded, never shown anywhere by themselves.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

/// How much of the beginning and of the end is kept.
const KEPT: usize = 4 * 1024;

/// What a guest may write in one go; the engine allocates as much for `write-zeroes`.
const PERMIT: usize = 64 * 1024;

/// One captured stream. Clones share what was captured.
#[derive(Clone, Debug, Default)]
pub(super) struct Capture(Arc<Mutex<HeadTail>>);

#[derive(Debug, Default)]
struct HeadTail {
    head: Vec<u8>,
    tail: Vec<u8>,
    dropped: u64,
}

impl HeadTail {
    fn push(&mut self, mut bytes: &[u8]) {
        let room = KEPT.saturating_sub(self.head.len()).min(bytes.len());
        let (first, rest) = bytes.split_at(room);
        self.head.extend_from_slice(first);
        bytes = rest;
        self.tail.extend_from_slice(bytes);
        // Cut only when twice as much has gathered, so that many small writes do not move the tail every time.
        if self.tail.len() > 2 * KEPT {
            let excess = self.tail.len() - KEPT;
            self.tail.drain(..excess);
            self.dropped = self.dropped.saturating_add(excess as u64);
        }
    }
}

impl Capture {
    /// The head and the tail as text, with a note where the middle was dropped.
    pub(super) fn text(&self) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let head = String::from_utf8_lossy(&kept.head);
        let excess = kept.tail.len().saturating_sub(KEPT);
        let tail = String::from_utf8_lossy(kept.tail.get(excess..).unwrap_or_default());
        match kept.dropped.saturating_add(excess as u64) {
            0 => format!("{head}{tail}"),
            dropped => format!("{head}\n[{dropped} bytes dropped]\n{tail}"),
        }
    }
}

impl IsTerminal for Capture {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Capture {
    // Only WASI 0.3 asks for this one, and it is not linked.
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Capture {
    async fn ready(&mut self) {}
}

#[wasmtime_wasi::async_trait]
impl OutputStream for Capture {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(PERMIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_dropped_and_counted() {
        let capture = Capture::default();
        let push = |bytes: &[u8]| {
            capture
                .0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(bytes)
        };
        push(b"first ");
        for _ in 0..1_000 {
            push(&[b'x'; 1_000]);
        }
        push(b" last");
        let text = capture.text();
        assert!(text.starts_with("first xxx") && text.ends_with("xxx last"));
        assert!(text.len() < 3 * KEPT && text.contains("bytes dropped"));
        let dropped = 1_000_011 - 2 * KEPT;
        assert!(
            text.contains(&format!("[{dropped} bytes dropped]")),
            "{}",
            text.len()
        );
    }
}
