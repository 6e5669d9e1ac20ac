//! The files of the store: names, atomic replacement, and what is done when the store opens.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use tempfile::{NamedTempFile, PersistError};

use crate::job::{Job, JobId, Record};
use crate::queue::QueueError;

const TEMPORARY: &str = ".tmp-";
/// How long a lock may stay held before another process counts as the user of the directory.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

pub(super) fn record_path(dir: &Path, id: JobId) -> PathBuf {
    dir.join(format!("{id}.json"))
}

pub(super) fn events_path(dir: &Path, id: JobId) -> PathBuf {
    dir.join(format!("{id}.events.jsonl"))
}

pub(super) fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> QueueError {
    move |source| QueueError::Storage {
        doing,
        path: path.to_owned(),
        source,
    }
}

/// Makes the directory and keeps other processes out of it for as long as the file is open.
pub(super) fn lock_dir(dir: &Path) -> Result<File, QueueError> {
    fs::create_dir_all(dir).map_err(failed("create", dir))?;
    let path = dir.join(".lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(failed("open", &path))?;
    lock(&file).map_err(|e| {
        let source = if e == rustix::io::Errno::WOULDBLOCK {
            io::Error::other(
                "another agenticore process uses this jobs directory: stop it, or give this one its own AGENTICORE_JOBS_DIR",
            )
        } else {
            e.into()
        };
        QueueError::Storage { doing: "lock", path, source }
    })?;
    Ok(file)
}

/// A child that a killed process had just forked holds the lock until it becomes another program, so a held lock is looked at for a
/// while before it counts.
fn lock(file: &File) -> rustix::io::Result<()> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                std::thread::sleep(LOCK_PAUSE);
            }
            done => return done,
        }
    }
}

/// Removes what writes that a crash interrupted left behind.
pub(super) fn remove_temporaries(dir: &Path) -> Result<(), QueueError> {
    for name in names(dir)? {
        if name.starts_with(TEMPORARY) {
            let path = dir.join(name);
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
    }
    Ok(())
}

/// The jobs that have a record.
pub(super) fn job_ids(dir: &Path) -> Result<Vec<JobId>, QueueError> {
    Ok(names(dir)?
        .iter()
        .filter_map(|name| name.strip_suffix(".json")?.parse().ok())
        .collect())
}

pub(super) fn names(dir: &Path) -> Result<Vec<String>, QueueError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed("list", dir))? {
        names.extend(
            entry
                .map_err(failed("list", dir))?
                .file_name()
                .into_string()
                .ok(),
        );
    }
    Ok(names)
}

/// The record as it is stored.
pub(super) fn to_raw(dir: &Path, id: JobId, record: &Record) -> Result<Box<RawValue>, QueueError> {
    serde_json::value::to_raw_value(record)
        .map_err(|e| failed("write", &record_path(dir, id))(e.into()))
}

/// Replaces the record: whoever reads it, also after the process was killed, sees the old one or the new one, never a part. It is
/// not synced; the journal makes it durable.
pub(super) fn write_record(dir: &Path, id: JobId, record: &RawValue) -> Result<(), QueueError> {
    replace(dir, id, record.get().as_bytes(), |_| Ok(()))
}

/// As [`write_record`], and synced, unless the file holds these bytes already.
pub(super) fn restore_record(dir: &Path, id: JobId, bytes: &[u8]) -> Result<(), QueueError> {
    if fs::read(record_path(dir, id)).is_ok_and(|now| now == bytes) {
        let path = record_path(dir, id);
        return sync_record(dir, id).map_err(failed("sync", &path));
    }
    replace(dir, id, bytes, File::sync_all)
}

fn replace(
    dir: &Path,
    id: JobId,
    bytes: &[u8],
    sync: impl FnOnce(&File) -> io::Result<()>,
) -> Result<(), QueueError> {
    let path = record_path(dir, id);
    let temporary = dir.join(format!("{TEMPORARY}{id}"));
    let written = File::create(&temporary)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            sync(&file)
        })
        .and_then(|()| fs::rename(&temporary, &path));
    written.map_err(|e| {
        // What cannot be removed now is removed when the store opens.
        drop(fs::remove_file(&temporary));
        failed("write", &path)(e)
    })
}

/// As [`write_record`], where other processes may write the same record at the same time.
pub(super) fn replace_record(dir: &Path, id: JobId, record: &str) -> Result<(), QueueError> {
    let path = record_path(dir, id);
    let put = |file: NamedTempFile| file.persist(&path).map(drop);
    written(dir, record, put).map_err(failed("write", &path))
}

/// As [`replace_record`], but leaves a record that is there.
pub(super) fn add_record(dir: &Path, id: JobId, record: &str) -> Result<(), QueueError> {
    let path = record_path(dir, id);
    let put = |file: NamedTempFile| match file.persist_noclobber(&path) {
        Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        // A file system that can neither rename so nor link.
        Err(e) if !path.exists() => e.file.persist(&path).map(drop),
        put => put.map(drop),
    };
    written(dir, record, put).map_err(failed("write", &path))
}

fn written(
    dir: &Path,
    record: &str,
    put: impl FnOnce(NamedTempFile) -> Result<(), PersistError>,
) -> io::Result<()> {
    let mut file = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .tempfile_in(dir)?;
    file.write_all(record.as_bytes())?;
    Ok(put(file)?)
}

/// Makes what the record's file holds durable; one that is gone needs nothing.
pub(super) fn sync_record(dir: &Path, id: JobId) -> io::Result<()> {
    match File::open(record_path(dir, id)) {
        Ok(file) => file.sync_all(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

pub(super) fn read_record(dir: &Path, id: JobId) -> Result<Record, QueueError> {
    let path = record_path(dir, id);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(QueueError::NotFound(id)),
        Err(e) => return Err(failed("read", &path)(e)),
    };
    parse_record(dir, id, &bytes)
}

pub(super) fn parse_record(dir: &Path, id: JobId, bytes: &[u8]) -> Result<Record, QueueError> {
    serde_json::from_slice(bytes).map_err(|e| QueueError::Damaged {
        path: record_path(dir, id),
        problem: e.to_string(),
    })
}

pub(super) fn read_job(dir: &Path, id: JobId) -> Result<Job, QueueError> {
    let damaged = |problem| QueueError::Damaged {
        path: record_path(dir, id),
        problem,
    };
    let job = Job::try_from(read_record(dir, id)?).map_err(damaged)?;
    if job.id == id {
        Ok(job)
    } else {
        Err(damaged(format!("it holds the job {}", job.id)))
    }
}

/// Removes both files; what is left over is found again when the store opens.
pub(super) fn remove_job(dir: &Path, id: JobId) {
    for path in [record_path(dir, id), events_path(dir, id)] {
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), error = %e, "cannot remove the file of a forgotten job");
            }
            _ => {}
        }
    }
}
