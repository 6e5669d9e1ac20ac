//! Keeps the head and the tail of a stream of bytes and drops the middle.

use std::collections::VecDeque;

/// The first and the last bytes of a stream, in memory that does not grow with the stream.
#[derive(Debug, Clone)]
pub struct HeadTail {
    head_limit: usize,
    tail_limit: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    cut: u64,
}

impl HeadTail {
    /// Keeps at most `head` bytes of the start and `tail` bytes of the end.
    #[must_use]
    pub fn new(head: usize, tail: usize) -> Self {
        Self {
            head_limit: head,
            tail_limit: tail,
            head: Vec::new(),
            tail: VecDeque::new(),
            cut: 0,
        }
    }

    /// Keeps only the last `bytes` bytes.
    #[must_use]
    pub fn tail(bytes: usize) -> Self {
        Self::new(0, bytes)
    }

    /// Adds bytes at the end.
    pub fn push(&mut self, bytes: &[u8]) {
        let (head, rest) = bytes.split_at(bytes.len().min(self.head_limit - self.head.len()));
        self.head.extend_from_slice(head);
        // Only what can stay is copied, however much comes at once.
        let (skipped, rest) = rest.split_at(rest.len().saturating_sub(self.tail_limit));
        let overflow =
            (self.tail.len() + skipped.len() + rest.len()).saturating_sub(self.tail_limit);
        let dropped = overflow.saturating_sub(skipped.len()).min(self.tail.len());
        self.tail.drain(..dropped);
        self.cut += (dropped + skipped.len()) as u64;
        self.tail.extend(rest);
    }

    /// Adds a line and a line end.
    pub fn push_line(&mut self, line: &str) {
        self.push(line.as_bytes());
        self.push(b"\n");
    }

    /// How many bytes were dropped.
    #[must_use]
    pub fn cut(&self) -> u64 {
        self.cut
    }

    /// How many bytes were added.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.cut + (self.head.len() + self.tail.len()) as u64
    }

    /// Whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.total() == 0
    }

    /// Forgets everything and keeps the limits.
    pub fn clear(&mut self) {
        self.head.clear();
        self.tail.clear();
        self.cut = 0;
    }

    /// The bytes that are kept; the cut is not marked.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let (front, back) = self.tail.as_slices();
        [self.head.as_slice(), front, back].concat()
    }

    /// The text that is kept, with a line that says how much was cut out where it was. Bytes that are not UTF-8 are replaced;
    /// characters that the cut went through are dropped.
    #[must_use]
    pub fn text(&self) -> String {
        if self.cut == 0 {
            return String::from_utf8_lossy(&self.bytes()).into_owned();
        }
        let (head, tail) = self.halves();
        let separator = if head.is_empty() || head.ends_with('\n') {
            ""
        } else {
            "\n"
        };
        format!("{head}{separator}[{} bytes cut]\n{tail}", self.cut)
    }

    /// As [`HeadTail::text`], on one line: for a line that was cut.
    pub(super) fn line(&self) -> String {
        if self.cut == 0 {
            return String::from_utf8_lossy(&self.bytes()).into_owned();
        }
        let (head, tail) = self.halves();
        format!("{head}[{} bytes cut]{tail}", self.cut)
    }

    fn halves(&self) -> (String, String) {
        let (front, back) = self.tail.as_slices();
        let tail = [front, back].concat();
        // At most three continuation bytes of a character whose start was cut.
        let torn = tail
            .iter()
            .take(3)
            .take_while(|byte| (**byte & 0xC0) == 0x80)
            .count();
        let tail = tail.get(torn..).unwrap_or_default();
        let head = match std::str::from_utf8(&self.head) {
            Err(error) if error.error_len().is_none() => {
                self.head.get(..error.valid_up_to()).unwrap_or_default()
            }
            _ => self.head.as_slice(),
        };
        (
            String::from_utf8_lossy(head).into_owned(),
            String::from_utf8_lossy(tail).into_owned(),
        )
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::indexing_slicing, reason = "tests")]
    use super::*;

    #[test]
    fn head_and_tail_stay_and_the_cut_is_counted() {
        let mut kept = HeadTail::new(4, 6);
        for chunk in ["ab", "cdef", "ghij", "klmnopqrstuvw", "xyz"] {
            kept.push(chunk.as_bytes());
        }
        assert_eq!(kept.bytes(), b"abcduvwxyz");
        assert_eq!((kept.cut(), kept.total()), (16, 26));
        assert_eq!(kept.text(), "abcd\n[16 bytes cut]\nuvwxyz");
        kept.clear();
        kept.push(b"abcdefghij");
        assert_eq!((kept.text().as_str(), kept.cut()), ("abcdefghij", 0));
    }

    #[test]
    fn characters_are_not_torn() {
        let mut kept = HeadTail::new(4, 4);
        kept.push("äöüß".repeat(3).as_bytes());
        assert_eq!(kept.text(), "äö\n[16 bytes cut]\nüß");
        let mut kept = HeadTail::new(3, 3);
        kept.push("äöüß".repeat(3).as_bytes());
        assert_eq!(kept.text(), "ä\n[18 bytes cut]\nß");
    }

    proptest::proptest! {
        #[test]
        fn any_split_keeps_the_same(chunks in proptest::collection::vec(proptest::collection::vec(0_u8.., 0..40), 0..12), head in 0_usize..20, tail in 0_usize..20) {
            let all = chunks.concat();
            let mut kept = HeadTail::new(head, tail);
            chunks.iter().for_each(|chunk| kept.push(chunk));
            let expected = if all.len() <= head + tail {
                all.clone()
            } else {
                [&all[..head], &all[all.len() - tail..]].concat()
            };
            proptest::prop_assert_eq!(kept.bytes(), expected);
            proptest::prop_assert_eq!(kept.total(), all.len() as u64);
        }
    }
}
