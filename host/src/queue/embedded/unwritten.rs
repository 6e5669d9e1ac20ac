//! Records that the journal holds and whose own files are a moment behind.
//!
//! A short job changes its record four or five times within milliseconds. Its file is written once for all of them: that saves the
//! disk work, and it keeps ext4 fast, which looks at every inode freed in the last seconds before it makes a new one. Readers of
//! this process see the newest record at all times; a file is at most a moment old, and a crash is made up for from the journal.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::value::RawValue;

use crate::job::JobId;
use crate::queue::{files, guard};

/// How far a file may be behind.
const DELAY: Duration = Duration::from_millis(100);
/// How long a disk that refuses is left in peace.
const PAUSE: Duration = Duration::from_secs(1);

/// The records of one store. Clones are handles to the same ones.
#[derive(Clone)]
pub(super) struct Unwritten(Arc<Shared>);

struct Shared {
    dir: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
    /// Held while a file is written or removed, so that a job that is forgotten does not come back.
    files: Mutex<()>,
}

#[derive(Default)]
struct State {
    records: HashMap<JobId, Arc<RawValue>>,
    closed: bool,
}

/// Writes the files behind everybody's back. Dropping it writes what is left.
pub(super) struct Writer {
    unwritten: Unwritten,
    thread: Option<JoinHandle<()>>,
}

impl Unwritten {
    pub(super) fn new(dir: &Path) -> Self {
        Self(Arc::new(Shared {
            dir: dir.to_owned(),
            state: Mutex::default(),
            changed: Condvar::new(),
            files: Mutex::default(),
        }))
    }

    /// Starts to write.
    pub(super) fn start(&self) -> io::Result<Writer> {
        let unwritten = self.clone();
        let thread = std::thread::Builder::new()
            .name("record-writer".to_owned())
            .spawn(move || unwritten.work())?;
        Ok(Writer {
            unwritten: self.clone(),
            thread: Some(thread),
        })
    }

    /// Takes a record that is in the journal.
    pub(super) fn put(&self, id: JobId, record: Box<RawValue>) {
        guard(&self.0.state).records.insert(id, record.into());
        self.0.changed.notify_all();
    }

    /// The newest record of a job, if its file may be behind.
    pub(super) fn get(&self, id: JobId) -> Option<Arc<RawValue>> {
        guard(&self.0.state).records.get(&id).cloned()
    }

    /// Removes all of a job.
    pub(super) fn remove(&self, id: JobId) {
        let _files = guard(&self.0.files);
        guard(&self.0.state).records.remove(&id);
        files::remove_job(&self.0.dir, id);
    }

    /// Writes every file that is behind.
    pub(super) fn flush(&self) -> io::Result<()> {
        let ids: Vec<JobId> = guard(&self.0.state).records.keys().copied().collect();
        for id in ids {
            self.write(id)?;
        }
        Ok(())
    }

    fn write(&self, id: JobId) -> io::Result<()> {
        let _files = guard(&self.0.files);
        let Some(record) = self.get(id) else {
            return Ok(());
        };
        files::write_record(&self.0.dir, id, &record).map_err(io::Error::other)?;
        // A newer one that came meanwhile stays.
        let mut state = guard(&self.0.state);
        if state
            .records
            .get(&id)
            .is_some_and(|now| Arc::ptr_eq(now, &record))
        {
            state.records.remove(&id);
        }
        Ok(())
    }

    fn work(&self) {
        while self.wait_for_work() {
            std::thread::sleep(DELAY);
            if let Err(error) = self.flush() {
                tracing::error!(%error, "records cannot be written to their files; they are safe in the journal");
                std::thread::sleep(PAUSE);
            }
        }
    }

    /// False once the store is closed.
    fn wait_for_work(&self) -> bool {
        let state = guard(&self.0.state);
        let idle = |state: &mut State| state.records.is_empty() && !state.closed;
        !self
            .0
            .changed
            .wait_while(state, idle)
            .unwrap_or_else(PoisonError::into_inner)
            .closed
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        guard(&self.unwritten.0.state).closed = true;
        self.unwritten.0.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
        if let Err(error) = self.unwritten.flush() {
            tracing::warn!(%error, "some records are in the journal alone until the next start");
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn raw(n: u32) -> Box<RawValue> {
        RawValue::from_string(format!("{{\"n\":{n}}}")).unwrap()
    }

    #[test]
    fn the_newest_record_is_seen_at_once_and_written_in_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let unwritten = Unwritten::new(dir.path());
        let id = JobId::random();
        unwritten.put(id, raw(1));
        unwritten.put(id, raw(2));
        assert_eq!(unwritten.get(id).unwrap().get(), "{\"n\":2}");
        drop(unwritten.start().unwrap());
        assert!(unwritten.get(id).is_none());
        let written = std::fs::read_to_string(files::record_path(dir.path(), id)).unwrap();
        assert_eq!(written, "{\"n\":2}");
    }

    #[test]
    fn a_job_that_is_forgotten_does_not_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let unwritten = Unwritten::new(dir.path());
        let id = JobId::random();
        unwritten.put(id, raw(1));
        unwritten.remove(id);
        unwritten.flush().unwrap();
        assert!(!files::record_path(dir.path(), id).exists());
    }
}
