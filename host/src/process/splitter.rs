//! Splits bytes into lines, with a limit on the length of each.

use super::head_tail::HeadTail;
use super::output::{Line, Stream};

/// Room for the words that stand where the middle was.
const NOTE: usize = 40;

/// Splits one stream. Lines over the limit lose their middle.
#[derive(Debug)]
pub(super) struct Splitter {
    stream: Stream,
    /// The unfinished line.
    open: HeadTail,
    /// The most bytes of a line that are kept.
    kept: usize,
}

impl Splitter {
    /// Lines of at most `limit` bytes each, which is at least 128.
    pub(super) fn new(stream: Stream, limit: usize) -> Self {
        let kept = limit.max(128) - NOTE;
        Self {
            stream,
            open: head_tail(kept),
            kept,
        }
    }

    /// Takes bytes and calls `line` for each line that they finish.
    pub(super) fn push(&mut self, mut bytes: &[u8], mut line: impl FnMut(Line)) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let (whole, rest) = bytes.split_at(end);
            bytes = rest.get(1..).unwrap_or_default();
            line(self.close(whole));
        }
        if !bytes.is_empty() {
            self.open.push(bytes);
        }
    }

    /// The last line, if the stream did not end with a line end.
    pub(super) fn finish(&mut self) -> Option<Line> {
        (!self.open.is_empty()).then(|| self.close(&[]))
    }

    fn close(&mut self, end: &[u8]) -> Line {
        if self.open.is_empty() && end.len() <= self.kept {
            return self.line(String::from_utf8_lossy(end).into_owned(), false);
        }
        self.open.push(end);
        let (text, truncated) = (self.open.line(), self.open.cut() > 0);
        self.open.clear();
        self.line(text, truncated)
    }

    fn line(&self, mut text: String, mut truncated: bool) -> Line {
        if text.ends_with('\r') {
            text.pop();
        }
        // A byte that is not UTF-8 takes three once it is replaced.
        if text.len() > self.kept + NOTE {
            let mut shorter = head_tail(self.kept);
            shorter.push(text.as_bytes());
            (text, truncated) = (shorter.line(), true);
        }
        Line {
            stream: self.stream,
            text,
            truncated,
        }
    }
}

fn head_tail(kept: usize) -> HeadTail {
    HeadTail::new(kept - kept / 2, kept / 2)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::indexing_slicing, reason = "tests")]
    use super::*;

    fn split(chunks: &[&[u8]], limit: usize) -> Vec<(String, bool)> {
        let mut splitter = Splitter::new(Stream::Stdout, limit);
        let mut lines = Vec::new();
        for chunk in chunks {
            splitter.push(chunk, |line| lines.push((line.text, line.truncated)));
        }
        lines.extend(splitter.finish().map(|line| (line.text, line.truncated)));
        lines
    }

    #[test]
    fn lines_come_whole_whatever_the_chunks() {
        let whole = |texts: &[&str]| {
            texts
                .iter()
                .map(|t| ((*t).to_owned(), false))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            split(&[b"one\ntw", b"o\r\n", b"\nlast"], 100),
            whole(&["one", "two", "", "last"])
        );
        assert_eq!(split(&[b""], 100), whole(&[]));
        assert_eq!(
            split(&[b"bad \xff\xfe bytes\n"], 100),
            whole(&["bad \u{fffd}\u{fffd} bytes"])
        );
        assert_eq!(
            split(
                &["ü".as_bytes().split_at(1).0, "ü".as_bytes().split_at(1).1],
                100
            ),
            whole(&["ü"])
        );
    }

    #[test]
    fn long_lines_keep_head_and_tail() {
        let long = [vec![b'a'; 50], vec![b'b'; 1000], vec![b'c'; 50]].concat();
        for size in [1, 7, 64, 5000] {
            let mut text = long.clone();
            text.extend_from_slice(b"\nnext\n");
            let chunks: Vec<&[u8]> = text.chunks(size).collect();
            let lines = split(&chunks, 140);
            assert_eq!(
                lines[0].0,
                format!("{}[1000 bytes cut]{}", "a".repeat(50), "c".repeat(50))
            );
            assert!(lines[0].1);
            assert_eq!(lines[1], ("next".to_owned(), false));
        }
    }

    #[test]
    fn no_line_is_longer_than_the_limit_even_if_bytes_are_replaced() {
        for (byte, limit) in [(0xff_u8, 1000), (b'x', 1000)] {
            let lines = split(&[&vec![byte; 990], b"\n"], limit);
            assert!(
                lines[0].0.len() <= limit && lines[0].1,
                "{}",
                lines[0].0.len()
            );
        }
    }
}
