//! The copy of every job on the volume: `{id}.json` and `{id}.events.jsonl` in the jobs directory.
//!
//! Redis is the truth while it is there. The copy is what is read while it is not, and what an emptied Redis is rebuilt from. It is
//! written right after each change by whoever made it; where two pods may do that at once, `copy.rs` keeps the later one. A copy that cannot be written is a warning and is caught up with the next change: a full disk must not stop a
//! fleet whose Redis works.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::change;
use crate::job::{Event, Job, JobId, Record};
use crate::queue::event_log;
use crate::queue::{Cursor, QueueError, files};

/// The copies in one directory. Clones are handles to the same.
#[derive(Debug, Clone)]
pub(super) struct Mirror {
    dir: PathBuf,
}

impl Mirror {
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Replaces the copy of a record.
    pub(super) fn write(&self, id: JobId, json: &str) -> Result<(), QueueError> {
        files::replace_record(&self.dir, id, json)
    }

    pub(super) fn read(&self, id: JobId) -> Result<Record, QueueError> {
        files::read_record(&self.dir, id)
    }

    /// As [`Self::write`], unless there is a copy.
    pub(super) fn write_first(&self, id: JobId, json: &str) -> Result<(), QueueError> {
        files::add_record(&self.dir, id, json)
    }

    /// As [`Self::write`], unless the copy is of this version or of a later one.
    pub(super) fn write_newer(
        &self,
        id: JobId,
        version: u64,
        json: &str,
    ) -> Result<(), QueueError> {
        let has = self.read(id).is_ok_and(|record| record.version >= version);
        if has { Ok(()) } else { self.write(id, json) }
    }

    /// The jobs that have a copy.
    pub(super) fn ids(&self) -> Result<Vec<JobId>, QueueError> {
        match files::job_ids(&self.dir) {
            Err(QueueError::Storage { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(Vec::new())
            }
            other => other,
        }
    }

    /// The number of the last event that is copied; 0 for a job of which nothing but its first event was told, which is not stored.
    pub(super) fn last_event(&self, id: JobId) -> Result<u64, QueueError> {
        match event_log::last(&files::events_path(&self.dir, id)) {
            Err(QueueError::Storage { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(0)
            }
            other => Ok(other?.map_or(0, |event| event.seq)),
        }
    }

    /// Adds lines, each a whole event without its line break, behind the last whole one.
    pub(super) fn append(&self, id: JobId, lines: &[String]) -> Result<(), QueueError> {
        let path = files::events_path(&self.dir, id);
        let mut bytes = String::with_capacity(lines.iter().map(|l| l.len() + 1).sum());
        for line in lines {
            bytes.push_str(line);
            bytes.push('\n');
        }
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .open(&path)
            .map_err(files::failed("open", &path))?;
        if !ends_whole(&file).map_err(files::failed("read", &path))? {
            event_log::repair(&path)?;
        }
        file.write_all(bytes.as_bytes())
            .map_err(files::failed("write", &path))
    }

    /// The events after `cursor`, about as many as one answer should hold.
    pub(super) fn events(
        &self,
        id: JobId,
        cursor: Cursor,
    ) -> Result<(Vec<Event>, Cursor), QueueError> {
        let path = files::events_path(&self.dir, id);
        match event_log::read(&path, Cursor::after(cursor.seq), u64::MAX) {
            Err(QueueError::Storage { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                self.first(id, cursor)
            }
            Ok((events, next)) => Ok((events, Cursor::after(next.seq))),
            other => other,
        }
    }

    /// The one event of a job that has no stream yet, if it comes after `cursor`.
    fn first(&self, id: JobId, cursor: Cursor) -> Result<(Vec<Event>, Cursor), QueueError> {
        if cursor.seq > 0 {
            return Ok((Vec::new(), cursor));
        }
        let damaged = |problem| QueueError::Damaged {
            path: files::events_path(&self.dir, id),
            problem,
        };
        let record = match self.read(id) {
            Err(QueueError::NotFound(_)) => return Ok((Vec::new(), cursor)),
            record => record?,
        };
        let job = Job::try_from(record).map_err(damaged)?;
        let line = change::numbered(1, &change::first_event(&job));
        let event = serde_json::from_str(&line).map_err(|e| damaged(e.to_string()))?;
        Ok((vec![event], Cursor::after(1)))
    }

    /// The last events of a job, at most about `max` of them.
    pub(super) fn tail(&self, id: JobId, max: u64) -> Result<Vec<Event>, QueueError> {
        let last = self.last_event(id)?;
        let mut cursor = Cursor::after(last.saturating_sub(max));
        let mut all = Vec::new();
        loop {
            let (events, next) = self.events(id, cursor)?;
            if events.is_empty() {
                return Ok(all);
            }
            all.extend(events);
            cursor = next;
        }
    }

    pub(super) fn remove(&self, id: JobId) {
        files::remove_job(&self.dir, id);
    }

    /// Makes the directories there are.
    pub(super) fn prepare(&self) -> Result<(), QueueError> {
        for dir in [
            self.dir.clone(),
            self.dir.join("pods"),
            self.dir.join(super::submit::SPOOL),
        ] {
            fs::create_dir_all(&dir).map_err(files::failed("create", &dir))?;
        }
        Ok(())
    }
}

/// Whether a file is empty or ends with a line break.
fn ends_whole(file: &File) -> std::io::Result<bool> {
    let Some(last) = file.metadata()?.len().checked_sub(1) else {
        return Ok(true);
    };
    let mut byte = [0];
    file.read_exact_at(&mut byte, last)?;
    Ok(byte == *b"\n")
}
