//! The changes of all jobs, for those who watch the whole and not one job.

use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::sync::broadcast;

use super::guard;
use crate::job::{EventBody, JobId, Status};

/// How many changes a slow follower may be behind, and how many are remembered for one that comes back.
const BEHIND: usize = 1_024;

/// Something that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Its place among all changes.
    pub at: String,
    /// The job.
    pub job: JobId,
    /// The number of its last event.
    pub seq: u64,
    /// `queued`, `status`, `cancel`, `events` or `run`.
    pub kind: String,
}

/// The changes of a store that is one process.
#[derive(Debug)]
pub(super) struct Feed {
    /// Tells the places of this process from those of earlier ones.
    epoch: String,
    last: Mutex<(u64, VecDeque<Changed>)>,
    all: broadcast::Sender<Changed>,
}

impl Default for Feed {
    fn default() -> Self {
        Self {
            epoch: uuid::Uuid::new_v4().simple().to_string(),
            last: Mutex::default(),
            all: broadcast::Sender::new(BEHIND),
        }
    }
}

impl Feed {
    /// Tells that these events were added to a job, the last of them number `seq`.
    pub(super) fn tell(&self, job: JobId, seq: u64, events: &[EventBody]) {
        let mut last = guard(&self.last);
        last.0 += 1;
        let changed = Changed {
            at: format!("{}-{}", self.epoch, last.0),
            job,
            seq,
            kind: kind(events).to_owned(),
        };
        if last.1.len() == BEHIND {
            last.1.pop_front();
        }
        last.1.push_back(changed.clone());
        // Nobody has to listen. Under the lock, so that the order is the same for all.
        drop(self.all.send(changed));
    }

    pub(super) fn all(&self) -> broadcast::Receiver<Changed> {
        self.all.subscribe()
    }

    /// The changes after this place; none: it is not known any more.
    pub(super) fn after(&self, at: &str) -> Option<Vec<Changed>> {
        let last = guard(&self.last);
        let place = last.1.iter().position(|changed| changed.at == at)?;
        Some(last.1.iter().skip(place + 1).cloned().collect())
    }
}

fn kind(events: &[EventBody]) -> &'static str {
    let of = |event: &EventBody| match event {
        EventBody::Status {
            status: Status::Queued,
            ..
        } => Some("queued"),
        EventBody::Status { .. } | EventBody::End { .. } => Some("status"),
        _ => None,
    };
    events.iter().rev().find_map(of).unwrap_or("events")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_back_gets_what_was_missed_or_is_told_that_it_is_gone() {
        let feed = Feed::default();
        let mut follower = feed.all();
        let job = JobId::random();
        for seq in 1..=3 {
            feed.tell(job, seq, &[]);
        }
        let first = follower.try_recv().ok().map(|changed| changed.at);
        let missed = first.and_then(|at| feed.after(&at));
        let seqs: Option<Vec<u64>> = missed.map(|all| all.iter().map(|c| c.seq).collect());
        assert_eq!(seqs, Some(vec![2, 3]));
        assert_eq!(feed.after("another-1"), None);
        let oldest = feed.after(&format!("{}-1", feed.epoch));
        assert!(oldest.is_some());
        for seq in 0..2_000 {
            feed.tell(job, seq, &[]);
        }
        assert_eq!(feed.after(&format!("{}-1", feed.epoch)), None);
    }
}
