//! The jobs that this pod runs, what it knows of them, and what it could not tell Redis yet.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::change::{Change, Line};
use crate::job::{Fence, Job, JobId};
use crate::queue::{Lease, QueueError, files, guard};

/// The jobs of this pod.
#[derive(Debug, Default)]
pub(super) struct HeldJobs(Mutex<HashMap<JobId, Arc<Held>>>);

/// A job that this pod runs.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) id: JobId,
    pub(super) fence: Fence,
    pub(super) cancelled: CancellationToken,
    pub(super) lost: CancellationToken,
    /// Locked for the whole of a change, so that changes reach Redis, or the spool, in their order.
    pub(super) state: tokio::sync::Mutex<HeldState>,
}

/// What the pod knows of a job it runs.
#[derive(Debug)]
pub(super) struct HeldState {
    /// The job as Redis has it.
    pub(super) job: Job,
    pub(super) version: u64,
    /// The job after what waits in the spool.
    pub(super) ahead: Option<Job>,
    /// The changes it made so far.
    pub(super) changes: u64,
    /// The last event that is on the volume.
    pub(super) mirrored: u64,
    /// When Redis was asked last for something that only the holder of the claim gets.
    pub(super) heard: Option<Instant>,
    pub(super) spool: Spool,
    /// Nothing more may be written: the claim has come to its end.
    pub(super) over: bool,
}

impl HeldJobs {
    pub(super) fn insert(&self, held: Arc<Held>) {
        // A claim that this pod lost and has not heard of yet.
        if let Some(before) = guard(&self.0).insert(held.id, held) {
            before.lost.cancel();
        }
    }

    pub(super) fn get(&self, id: JobId, fence: Fence) -> Option<Arc<Held>> {
        guard(&self.0)
            .get(&id)
            .filter(|held| held.fence == fence)
            .cloned()
    }

    pub(super) fn any(&self, id: JobId) -> Option<Arc<Held>> {
        guard(&self.0).get(&id).cloned()
    }

    /// Lets go of a job; its lease ends with it.
    pub(super) fn remove(&self, held: &Held) {
        let mut jobs = guard(&self.0);
        if jobs
            .get(&held.id)
            .is_some_and(|now| now.fence == held.fence)
        {
            jobs.remove(&held.id);
        }
        held.lost.cancel();
    }

    /// Lets go of a job by its lease.
    pub(super) fn forget(&self, lease: &Lease) {
        if let Some(held) = self.get(lease.id, lease.fence) {
            self.remove(&held);
        }
    }

    pub(super) fn all(&self) -> Vec<Arc<Held>> {
        guard(&self.0).values().cloned().collect()
    }

    pub(super) fn len(&self) -> usize {
        guard(&self.0).len()
    }
}

/// What could not be told yet, in memory and on the volume, so that another pod can tell it.
#[derive(Debug, Default)]
pub(super) struct Spool {
    waiting: VecDeque<(String, Change)>,
    file: Option<(PathBuf, File)>,
}

impl Spool {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Adds a change; `after` is the job then. It is on the disk when this returns if it ends the claim.
    pub(super) fn push(
        &mut self,
        path: &Path,
        name: String,
        fence: Fence,
        change: Change,
        after: &Job,
    ) -> Result<(), QueueError> {
        if self.file.is_none() {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(files::failed("create", parent))?;
            }
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .map_err(files::failed("open", path))?;
            self.file = Some((path.to_owned(), file));
        }
        let line = Line::new(&name, fence, &change, after);
        let mut bytes =
            serde_json::to_vec(&line).map_err(|e| files::failed("write", path)(e.into()))?;
        bytes.push(b'\n');
        if let Some((path, file)) = &mut self.file {
            let whole = file.metadata().map_err(files::failed("read", path))?.len();
            if let Err(error) = file.write_all(&bytes) {
                // A part of a line would hide those behind it.
                drop(file.set_len(whole));
                return Err(files::failed("write", path)(error));
            }
            if change.ends_claim() {
                file.sync_data().map_err(files::failed("sync", path))?;
            }
        }
        self.waiting.push_back((name, change));
        Ok(())
    }

    pub(super) fn front(&self) -> Option<&(String, Change)> {
        self.waiting.front()
    }

    /// The first change is told. The file goes with the last.
    pub(super) fn pop(&mut self) {
        self.waiting.pop_front();
        if self.waiting.is_empty() {
            self.clear();
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        if let Some((path, _)) = self.file.take() {
            drop(fs::remove_file(path));
        }
    }

    /// What a dead pod left; a line that it did not finish is left out.
    pub(super) fn read(path: &Path) -> Vec<Line> {
        let Ok(file) = File::open(path) else {
            return Vec::new();
        };
        BufReader::new(file)
            .lines()
            .map_while(Result::ok)
            .map_while(|line| serde_json::from_str(&line).ok())
            .collect()
    }
}
