//! Bringing jobs of another store into a jobs directory.
//!
//! Both stores keep the same files there: the embedded one reads them when it opens, and a fleet puts into Redis what it does not have.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use super::redis::{RedisStore, Settings};
use super::{QueueError, files};
use crate::job::{Event, Job, JobId, Record, Status};

/// A job as it was exported.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Exported {
    /// Its record.
    pub record: Record,
    /// Its events, from the first.
    pub events: Vec<Event>,
}

/// A jobs directory that jobs are brought into.
#[derive(Debug)]
pub struct Import<'a> {
    dir: &'a Path,
    /// Keeps an embedded store out; a fleet's pods may go on.
    _lock: Option<File>,
}

impl<'a> Import<'a> {
    /// Begins to import into `dir`, which no embedded store may use at the time; pods of a fleet may.
    ///
    /// # Errors
    /// [`QueueError::Storage`] when the directory cannot be used, or a server without a fleet uses it.
    pub fn into(dir: &'a Path, fleet: bool) -> Result<Self, QueueError> {
        let lock = match fleet {
            true => {
                fs::create_dir_all(dir).map_err(files::failed("create", dir))?;
                None
            }
            false => Some(files::lock_dir(dir)?),
        };
        Ok(Self { dir, _lock: lock })
    }

    /// Brings one job in; false: it is there already, and is left as it is.
    ///
    /// # Errors
    /// [`QueueError::Damaged`] for a job that makes no sense, [`QueueError::Storage`] when it cannot be written.
    pub fn job(&self, job: Exported) -> Result<bool, QueueError> {
        let Exported { mut record, events } = job;
        let damaged = |problem: String| QueueError::Damaged {
            path: record.id.clone().into(),
            problem,
        };
        let id: JobId = record.id.parse().map_err(|e| damaged(format!("{e}")))?;
        if !events
            .iter()
            .map(|event| event.seq)
            .eq(1..=events.len() as u64)
        {
            return Err(damaged(
                "its events are not numbered from 1 without gaps".into(),
            ));
        }
        Job::try_from(record.clone()).map_err(damaged)?;
        let path = files::record_path(self.dir, id);
        if path.exists() {
            return Ok(false);
        }
        // Whoever ran it does not run it here: a life that nobody lives, whose jobs a fleet takes back.
        let runs = record.status == Status::Running;
        (record.pid, record.pod_life) = (None, runs.then(|| "imported".to_owned()));
        record.version = record.version.max(1);
        self.write_events(id, &events)?;
        // The record last: a job without one is no job.
        let raw = files::to_raw(self.dir, id, &record)?;
        files::restore_record(self.dir, id, raw.get().as_bytes())?;
        Ok(true)
    }

    fn write_events(&self, id: JobId, events: &[Event]) -> Result<(), QueueError> {
        let path = files::events_path(self.dir, id);
        let write = || -> std::io::Result<()> {
            let mut bytes = Vec::new();
            for event in events {
                serde_json::to_writer(&mut bytes, event)?;
                bytes.push(b'\n');
            }
            let mut file = File::create(&path)?;
            file.write_all(&bytes)?;
            file.sync_all()
        };
        write().map_err(files::failed("write", &path))
    }
}

/// Tells the fleet of what was brought into its jobs directory.
///
/// # Errors
/// [`QueueError`] when Redis cannot be told; the pods find the jobs when Redis is empty, or `fsck --repair` does.
pub async fn tell_fleet(settings: Settings) -> Result<(), QueueError> {
    RedisStore::put_back(settings).await
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::queue::embedded::Embedded;
    use crate::queue::suite::{all_events, claim, job, log};
    use crate::queue::{Cursor, Queue};

    #[tokio::test]
    async fn jobs_of_one_store_go_on_in_another() {
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = Embedded::open(old.path()).unwrap();
        let (one, two) = (job("one"), job("two"));
        let ids = [one.id, two.id];
        store.submit(one).await.unwrap();
        store.submit(two).await.unwrap();
        // The first runs when it is exported.
        let running = claim(&store).await;
        store.append(&running.lease, vec![log("x")]).await.unwrap();
        let mut exported = Vec::new();
        for id in ids {
            let record = store.get(id).await.unwrap();
            let events = store.events(id, Cursor::default()).await.unwrap().0;
            exported.push(Exported { record, events });
        }
        let import = Import::into(new.path(), false).unwrap();
        for job in &exported {
            assert!(import.job(job.clone()).unwrap());
            assert!(!import.job(job.clone()).unwrap(), "it is there already");
        }
        let mut gap = exported.first().unwrap().clone();
        gap.events.remove(0);
        assert!(matches!(import.job(gap), Err(QueueError::Damaged { .. })));
        drop(import);

        let store = Embedded::open(new.path()).unwrap();
        let first = claim(&store).await;
        assert_eq!((first.job.id, first.job.attempt), (ids[0], 2));
        assert_eq!(claim(&store).await.job.id, ids[1]);
        let events = all_events(&store, ids[0]).await;
        let before = &exported.first().unwrap().events;
        assert_eq!(events.get(..before.len()), Some(before.as_slice()));
    }
}
