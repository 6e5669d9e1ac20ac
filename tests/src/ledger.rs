//! What agents write down of themselves: which attempt of which job did something when.
//!
//! The times come from the kernel's clock since boot, which all processes of a machine share and nothing turns back.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A ledger that agents add lines to.
#[derive(Debug, Clone)]
pub struct Ledger {
    path: PathBuf,
}

/// What an agent did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// It began.
    Start,
    /// It works.
    Tick,
    /// It came to its end.
    End,
}

/// A line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The instance: which pod.
    pub instance: String,
    /// The job.
    pub job: String,
    /// The attempt, which is the fence of the claim.
    pub attempt: u32,
    /// What was done.
    pub deed: Deed,
    /// When, since boot.
    pub at: Duration,
}

impl Ledger {
    /// A ledger in this file.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// A shell script that enters its start, `ticks` signs of life 50 ms apart, and its end. It starts no process but `sleep`.
    #[must_use]
    pub fn script(&self, ticks: u32) -> String {
        format!(
            "note() {{ read -r now rest < /proc/uptime; echo \"$AGENTICORE_JOB $1 $now\" >> '{}'; }}; \
             note start; i=0; while [ $i -lt {ticks} ]; do sleep 0.05; note tick; i=$((i+1)); done; note end",
            self.path.display()
        )
    }

    /// Every line so far. A line that is cut off or unknown is returned as it is.
    #[must_use]
    pub fn read(&self) -> (Vec<Entry>, Vec<String>) {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        let (mut entries, mut unreadable) = (Vec::new(), Vec::new());
        for line in text.lines() {
            match parse(line) {
                Some(entry) => entries.push(entry),
                None => unreadable.push(line.to_owned()),
            }
        }
        (entries, unreadable)
    }
}

/// The time since boot, from the same place as the agents'.
///
/// # Panics
/// Where there is no `/proc`.
#[must_use]
pub fn now() -> Duration {
    let text = fs::read_to_string(Path::new("/proc/uptime")).expect("the time since boot");
    let seconds = text.split_whitespace().next().and_then(hundredths);
    seconds.expect("a time")
}

fn hundredths(text: &str) -> Option<Duration> {
    let (seconds, rest) = text.split_once('.')?;
    let (seconds, rest): (u64, u64) = (seconds.parse().ok()?, rest.parse().ok()?);
    Some(Duration::from_millis(seconds * 1000 + rest * 10))
}

fn parse(line: &str) -> Option<Entry> {
    let mut words = line.split(' ');
    let mut marker = words.next()?.split(':');
    let entry = Entry {
        instance: marker.next()?.to_owned(),
        job: marker.next()?.to_owned(),
        attempt: marker.next()?.parse().ok()?,
        deed: match words.next()? {
            "start" => Deed::Start,
            "tick" => Deed::Tick,
            "end" => Deed::End,
            _ => return None,
        },
        at: hundredths(words.next()?)?,
    };
    words.next().is_none().then_some(entry)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn what_a_script_enters_is_read_back_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::at(folder.path().join("ledger"));
        let before = now();
        let status = Command::new("sh")
            .args(["-c", &ledger.script(2)])
            .env("AGENTICORE_JOB", "0011:job-1:3")
            .status()
            .unwrap();
        assert!(status.success());
        let (entries, unreadable) = ledger.read();
        assert!(unreadable.is_empty(), "{unreadable:?}");
        let deeds: Vec<Deed> = entries.iter().map(|entry| entry.deed).collect();
        assert_eq!(deeds, [Deed::Start, Deed::Tick, Deed::Tick, Deed::End]);
        let first = entries.first().unwrap();
        assert_eq!((first.job.as_str(), first.attempt), ("job-1", 3));
        assert!(first.at >= before && now() >= first.at);
    }

    #[test]
    fn a_line_that_is_cut_off_is_told_apart() {
        for line in ["0011:job-1:3 sta", "0011:job-1 start 1.00", "", "x"] {
            assert_eq!(parse(line), None, "{line:?}");
        }
    }
}
