//! One reader for all changes of the fleet, and those in this process who wait for them.
//!
//! Every change of a job adds a line to one stream. Each pod reads it on a connection of its own and tells its watchers; a thousand
//! watchers cost Redis nothing more than one.

use std::collections::HashMap;
use std::sync::Mutex;

use tokio::sync::{Notify, broadcast, watch};

use crate::job::JobId;
use crate::queue::{Changed, guard};

/// How many changes a slow follower of all of them may be behind.
const BEHIND: usize = 1_024;

/// Who waits.
#[derive(Debug)]
pub(super) struct Hub {
    watchers: Mutex<HashMap<JobId, watch::Sender<u64>>>,
    all: broadcast::Sender<Changed>,
    /// Told when a job joined the queue.
    pub(super) queued: Notify,
}

impl Default for Hub {
    fn default() -> Self {
        Self {
            watchers: Mutex::default(),
            all: broadcast::Sender::new(BEHIND),
            queued: Notify::new(),
        }
    }
}

impl Hub {
    /// A receiver for the number of a job's last event.
    pub(super) fn watch(&self, id: JobId) -> watch::Receiver<u64> {
        let mut watchers = guard(&self.watchers);
        // Whoever has gone is forgotten when somebody comes.
        if watchers.len() > 64 {
            watchers.retain(|_, sender| sender.receiver_count() > 0);
        }
        watchers
            .entry(id)
            .or_insert_with(|| watch::Sender::new(0))
            .subscribe()
    }

    /// Tells that a job's last event is number `seq`, or a later one.
    pub(super) fn tell(&self, id: JobId, seq: u64) {
        if let Some(sender) = guard(&self.watchers).get(&id) {
            sender.send_if_modified(|now| {
                let later = seq > *now;
                *now = seq.max(*now);
                later
            });
        }
    }

    /// Lets go of a job that is forgotten; who waits for it is told so.
    pub(super) fn forget(&self, id: JobId) {
        guard(&self.watchers).remove(&id);
    }

    /// The jobs that somebody watches.
    pub(super) fn watched(&self) -> Vec<JobId> {
        guard(&self.watchers)
            .iter()
            .filter(|(_, sender)| sender.receiver_count() > 0)
            .map(|(id, _)| *id)
            .collect()
    }

    pub(super) fn publish(&self, changed: Changed) {
        self.tell(changed.job, changed.seq);
        if changed.kind == "queued" {
            self.queued.notify_waiters();
        }
        // Nobody has to listen.
        drop(self.all.send(changed));
    }

    /// Everything that changes from now on.
    pub(super) fn all(&self) -> broadcast::Receiver<Changed> {
        self.all.subscribe()
    }
}
