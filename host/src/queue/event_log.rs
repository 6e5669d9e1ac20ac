//! One job's events: a file of JSON lines that only grows.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::files::failed;
use crate::job::{Event, EventBody};
use crate::queue::{Cursor, QueueError};

/// About how many bytes of events one read returns.
const PAGE_BYTES: u64 = 256 * 1024;

/// The writing end. It holds no file open: there may be one for each of many thousand jobs that wait.
pub(super) struct EventLog {
    path: PathBuf,
    /// The length up to which every line is whole.
    len: u64,
    last: u64,
}

impl EventLog {
    /// Begins the stream of a new job.
    pub(super) fn create(path: PathBuf) -> Result<Self, QueueError> {
        File::create_new(&path).map_err(failed("create", &path))?;
        Ok(Self {
            path,
            len: 0,
            last: 0,
        })
    }

    /// Opens the file, cuts off a line that a crash left unfinished, and finds the number of the last event.
    pub(super) fn open(path: PathBuf) -> Result<Self, QueueError> {
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&path)
            .map_err(failed("open", &path))?;
        let mut log = Self {
            path,
            len: 0,
            last: 0,
        };
        let Scan { whole, len, last } = scan(&log.path).map_err(failed("read", &log.path))?;
        log.len = whole;
        log.last = last.map_or(0, |e| e.seq);
        if whole < len {
            file.set_len(whole).map_err(failed("repair", &log.path))?;
        }
        Ok(log)
    }

    /// The number of the last event; 0: there is none.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// The last event.
    pub(super) fn last_event(&self) -> Result<Option<Event>, QueueError> {
        last(&self.path)
    }

    /// Appends events, all or none of them, and returns the number of the last.
    pub(super) fn append(&mut self, bodies: Vec<EventBody>) -> Result<u64, QueueError> {
        let ts = Timestamp::now();
        let mut bytes = Vec::with_capacity(bodies.len() * 128);
        let mut seq = self.last;
        for body in bodies {
            seq += 1;
            let event = Event { seq, ts, body };
            serde_json::to_writer(&mut bytes, &event)
                .map_err(|e| failed("write", &self.path)(e.into()))?;
            bytes.push(b'\n');
        }
        let mut file = OpenOptions::new()
            .append(true)
            .open(&self.path)
            .map_err(failed("open", &self.path))?;
        if let Err(e) = file.write_all(&bytes) {
            // Part of a line may be there; nobody has been told of it.
            drop(file.set_len(self.len));
            return Err(failed("write", &self.path)(e));
        }
        self.len += bytes.len() as u64;
        self.last = seq;
        Ok(seq)
    }
}

/// What the end of a file shows.
struct Scan {
    /// The length of the whole lines.
    whole: u64,
    /// The length of the file.
    len: u64,
    /// The whole line of the highest number: the last one, but for a line that a writer that was overtaken added late.
    last: Option<Event>,
}

/// The last event of a file, whoever writes it; what it does not find whole it leaves as it is.
pub(super) fn last(path: &Path) -> Result<Option<Event>, QueueError> {
    Ok(scan(path).map_err(failed("read", path))?.last)
}

/// Cuts off a line that a crash left unfinished. For the one who writes the file alone: what another is writing must not be cut.
pub(super) fn repair(path: &Path) -> Result<(), QueueError> {
    EventLog::open(path.to_owned()).map(drop)
}

/// Reads backwards, so its cost does not grow with the file.
fn scan(path: &Path) -> io::Result<Scan> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    let mut window = 8 * 1024;
    loop {
        let start = len.saturating_sub(window);
        file.seek(SeekFrom::Start(start))?;
        let mut tail = Vec::new();
        Read::by_ref(&mut file)
            .take(len - start)
            .read_to_end(&mut tail)?;
        let lines = whole_lines(&tail, start == 0);
        // A line that is longer than the window needs a larger one.
        if start == 0 || !lines.is_empty() {
            let last = lines.split(|b| *b == b'\n').filter(|line| !line.is_empty());
            let last = last.max_by_key(|line| seq_of(line));
            let end = tail
                .iter()
                .rposition(|b| *b == b'\n')
                .map_or(0, |at| at + 1);
            return Ok(Scan {
                whole: start + end as u64,
                len,
                last: last.map(serde_json::from_slice).transpose()?,
            });
        }
        window *= 4;
    }
}

/// The lines of which `tail` holds the beginning and the end.
fn whole_lines(tail: &[u8], from_start: bool) -> &[u8] {
    let mut breaks = tail.iter().enumerate().filter(|(_, b)| **b == b'\n');
    let first = if from_start {
        Some(0)
    } else {
        breaks.next().map(|(at, _)| at + 1)
    };
    let end = tail
        .iter()
        .rposition(|b| *b == b'\n')
        .map_or(0, |at| at + 1);
    first
        .and_then(|first| tail.get(first..end))
        .unwrap_or_default()
}

/// The events after `cursor` up to number `last`, about [`PAGE_BYTES`] of them.
pub(super) fn read(
    path: &Path,
    cursor: Cursor,
    last: u64,
) -> Result<(Vec<Event>, Cursor), QueueError> {
    let file = File::open(path).map_err(failed("read", path))?;
    read_from(file, cursor, last).map_err(failed("read", path))
}

fn read_from(mut file: File, mut cursor: Cursor, last: u64) -> io::Result<(Vec<Event>, Cursor)> {
    file.seek(SeekFrom::Start(cursor.hint))?;
    let mut reader = BufReader::with_capacity(64 * 1024, file);
    let (mut events, mut line, mut read) = (Vec::new(), Vec::new(), 0);
    while cursor.seq < last && read < PAGE_BYTES {
        line.clear();
        let length = reader.read_until(b'\n', &mut line)? as u64;
        if line.last() != Some(&b'\n') {
            break;
        }
        cursor.hint += length;
        // Most lines before the cursor need not be parsed whole.
        if seq_of(&line).is_some_and(|seq| seq <= cursor.seq) {
            continue;
        }
        let event: Event = serde_json::from_slice(&line)?;
        cursor.seq = event.seq;
        read += length;
        events.push(event);
    }
    Ok((events, cursor))
}

/// The number at the beginning of a line that this module wrote.
fn seq_of(line: &[u8]) -> Option<u64> {
    let digits = line.strip_prefix(br#"{"seq":"#)?;
    let end = digits.iter().position(|b| *b == b',')?;
    std::str::from_utf8(digits.get(..end)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn line(seq: u64, text: &str) -> String {
        let body = crate::queue::suite::log(text);
        let ts = Timestamp::UNIX_EPOCH;
        serde_json::to_string(&Event { seq, ts, body }).unwrap() + "\n"
    }

    #[test]
    fn the_last_event_is_that_of_the_highest_number() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let last = |text: String| {
            std::fs::write(file.path(), text).unwrap();
            last(file.path()).unwrap().map(|event| event.seq)
        };
        assert_eq!(last(String::new()), None);
        assert_eq!(last(line(1, "a") + "{\"seq\":2"), Some(1));
        // A writer that was overtaken added its line late.
        assert_eq!(last(line(1, "a") + &line(2, "b") + &line(1, "a")), Some(2));
        // Lines that are longer than what is read at once.
        let long = "x".repeat(20_000);
        assert_eq!(last(line(1, &long)), Some(1));
        assert_eq!(last(line(1, "a") + &line(2, &long)), Some(2));
        assert_eq!(last(line(1, &long) + &line(2, &long)), Some(2));
    }
}
