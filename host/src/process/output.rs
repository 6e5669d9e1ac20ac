//! A child's output as batches of lines.

use tokio::sync::mpsc;

use super::pump::Sink;
use super::splitter::Splitter;

/// Batches that wait between a reader and its consumer. Together with the limits below it bounds the memory of a child's output.
const WAITING_BATCHES: usize = 8;

/// Where a line was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line, without its line end. Bytes that are not UTF-8 are replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Where it was written.
    pub stream: Stream,
    /// The text.
    pub text: String,
    /// Whether it was longer than the limit. Then the text holds its head and its tail and says how many bytes are missing.
    pub truncated: bool,
}

/// Limits on lines and batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineLimits {
    /// The longest line in bytes, at least 128.
    pub line_bytes: usize,
    /// The most lines of a batch.
    pub batch_lines: usize,
    /// A batch is closed when it holds this many bytes; it can be larger by one line.
    pub batch_bytes: usize,
}

impl Default for LineLimits {
    fn default() -> Self {
        Self {
            line_bytes: 1024 * 1024,
            batch_lines: 512,
            batch_bytes: 128 * 1024,
        }
    }
}

/// The lines of a child. A child whose output is not read is held back, as by a full pipe; dropping this instead lets the child
/// run on and throws its output away.
#[derive(Debug)]
pub struct Output {
    batches: mpsc::Receiver<Vec<Line>>,
    limits: LineLimits,
}

impl Output {
    pub(super) fn new(limits: LineLimits) -> (LineSink, LineSink, Self) {
        let (sender, batches) = mpsc::channel(WAITING_BATCHES);
        let sink = |stream, sender| LineSink {
            splitter: Splitter::new(stream, limits.line_bytes),
            open: Batch::default(),
            sender,
            limits,
        };
        (
            sink(Stream::Stdout, sender.clone()),
            sink(Stream::Stderr, sender),
            Self { batches, limits },
        )
    }

    /// The next lines, at least one; none when the output has ended. Lines of the two streams keep their own order. Cancel-safe:
    /// a dropped call loses no line.
    pub async fn next(&mut self) -> Option<Vec<Line>> {
        let mut lines = self.batches.recv().await?;
        let mut bytes: usize = lines.iter().map(|line| line.text.len()).sum();
        // What has come in meanwhile goes along, unless that could exceed the limits.
        while lines.len() <= self.limits.batch_lines / 2 && bytes <= self.limits.batch_bytes / 2 {
            let Ok(mut more) = self.batches.try_recv() else {
                break;
            };
            bytes += more.iter().map(|line| line.text.len()).sum::<usize>();
            lines.append(&mut more);
        }
        Some(lines)
    }
}

#[derive(Debug, Default)]
struct Batch {
    lines: Vec<Line>,
    bytes: usize,
}

/// Turns what a reader reads into batches of half the limits, of which [`Output::next`] joins those that wait.
#[derive(Debug)]
pub(super) struct LineSink {
    splitter: Splitter,
    open: Batch,
    sender: mpsc::Sender<Vec<Line>>,
    limits: LineLimits,
}

impl LineSink {
    /// Sends the open batch. If nobody listens any more it is thrown away.
    async fn flush(&mut self) {
        let batch = std::mem::take(&mut self.open);
        if !batch.lines.is_empty() {
            let _ = self.sender.send(batch.lines).await;
        }
    }

    fn is_full(&self) -> bool {
        self.open.lines.len() >= (self.limits.batch_lines / 2).max(1)
            || self.open.bytes >= self.limits.batch_bytes / 2
    }
}

impl Sink for LineSink {
    async fn take(&mut self, bytes: &[u8]) {
        // Small steps, so that a batch can be closed between two lines.
        for step in bytes.chunks(1024) {
            let open = &mut self.open;
            self.splitter.push(step, |line| {
                open.bytes += line.text.len();
                open.lines.push(line);
            });
            if self.is_full() {
                self.flush().await;
            }
        }
        self.flush().await;
    }

    async fn finish(mut self) {
        self.open.lines.extend(self.splitter.finish());
        self.flush().await;
    }
}
