//! The journal: what makes a change durable, for many changes at the price of one.
//!
//! A record's own file is written later and not synced (`unwritten`): that would cost several waits for the disk a change. Before that,
//! the new record is appended here and synced, and whoever comes while a sync is under way shares the next one (group commit). When the
//! store opens, the last line of each job wins over its file, which a power cut may have left old, torn or missing.
//!
//! A journal that has grown large is followed by a new one. The files it covers are then synced in the background, and it is
//! removed; older journals always go before newer ones.
//!
//! Lines are JSON: `{"seq":N,"id":ID,"record":{..}}`, or without a record for a job that is forgotten. Numbers only ever rise, also
//! past a batch that could not be written, so what is left of such a batch cannot pass for newer lines.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::guard;
use super::unwritten::Unwritten;
use crate::job::JobId;
use crate::queue::QueueError;
use crate::queue::files::{self, failed};

/// How long a journal grows before it is followed by a new one, in bytes.
const FULL: u64 = 8 * 1024 * 1024;
const PREFIX: &str = "journal-";
const SUFFIX: &str = ".jsonl";

/// The journal of one store.
pub(super) struct Journal {
    dir: PathBuf,
    unwritten: Unwritten,
    full: u64,
    state: Mutex<State>,
    /// Told when a batch is over.
    over: Condvar,
    /// Journals that are followed by a new one, the oldest first.
    retired: Arc<Mutex<VecDeque<Retired>>>,
}

struct State {
    file: Arc<File>,
    number: u64,
    /// The length up to which every line is durable.
    len: u64,
    seq: u64,
    /// What the next sync takes along.
    batch: Arc<Batch>,
    bytes: Vec<u8>,
    /// Whether somebody writes and syncs a batch.
    writing: bool,
    /// The jobs that this journal tells of.
    jobs: HashSet<JobId>,
    /// Who clears away the journals before this one.
    retiring: Option<JoinHandle<()>>,
}

/// Lines that are synced together.
#[derive(Default)]
struct Batch {
    outcome: OnceLock<Result<(), (io::ErrorKind, String)>>,
}

struct Retired {
    path: PathBuf,
    jobs: HashSet<JobId>,
}

#[derive(Serialize, Deserialize)]
struct Line<'a> {
    seq: u64,
    id: JobId,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    record: Option<&'a RawValue>,
}

impl Journal {
    /// Carries out what the journals in `dir` tell of, and begins a new one.
    pub(super) fn open(dir: &Path, unwritten: Unwritten) -> Result<Self, QueueError> {
        Self::open_with(dir, unwritten, FULL)
    }

    fn open_with(dir: &Path, unwritten: Unwritten, full: u64) -> Result<Self, QueueError> {
        let old = numbers(dir)?;
        let mut newest = HashMap::new();
        for path in old.values() {
            let bytes = fs::read(path).map_err(failed("read", path))?;
            replay(&bytes, &mut newest);
        }
        for (id, record) in &newest {
            match record {
                Some(bytes) => files::restore_record(dir, *id, bytes)?,
                None => files::remove_job(dir, *id),
            }
        }
        files::sync_dir(dir).map_err(failed("sync", dir))?;
        let number = old.keys().last().map_or(1, |last| last + 1);
        let file = create(dir, number)?;
        for path in old.values() {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("remove", path)(error));
                }
                _ => {}
            }
        }
        Ok(Self {
            dir: dir.to_owned(),
            unwritten,
            full,
            state: Mutex::new(State {
                file: Arc::new(file),
                number,
                len: 0,
                seq: 0,
                batch: Arc::default(),
                bytes: Vec::new(),
                writing: false,
                jobs: HashSet::new(),
                retiring: None,
            }),
            over: Condvar::new(),
            retired: Arc::default(),
        })
    }

    /// Makes a job's record durable.
    pub(super) fn write(&self, id: JobId, record: &RawValue) -> Result<(), QueueError> {
        self.append(id, Some(record))
    }

    /// Makes it durable that a job is forgotten.
    pub(super) fn forget(&self, id: JobId) -> Result<(), QueueError> {
        self.append(id, None)
    }

    fn append(&self, id: JobId, record: Option<&RawValue>) -> Result<(), QueueError> {
        let mut state = guard(&self.state);
        state.seq += 1;
        let seq = state.seq;
        let line = serde_json::to_vec(&Line { seq, id, record })
            .map_err(|e| failed("write", &self.dir)(e.into()))?;
        state.bytes.extend_from_slice(&line);
        state.bytes.push(b'\n');
        state.jobs.insert(id);
        let batch = state.batch.clone();
        loop {
            if let Some(outcome) = batch.outcome.get() {
                return outcome.clone().map_err(|(kind, text)| {
                    failed("write", &path(&self.dir, state.number))(io::Error::new(kind, text))
                });
            }
            if state.writing {
                state = self
                    .over
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.writing = true;
            let (bytes, file, at) = (
                std::mem::take(&mut state.bytes),
                state.file.clone(),
                state.len,
            );
            let current = std::mem::take(&mut state.batch);
            drop(state);
            let outcome = write(&file, &bytes, at);
            state = guard(&self.state);
            if outcome.is_ok() {
                state.len += bytes.len() as u64;
            }
            // Whoever waits for the batch is told whether it holds; a new journal is nobody's business but ours.
            let told = outcome.map_err(|e| (e.kind(), e.to_string()));
            drop(current.outcome.set(told));
            if state.len >= self.full {
                self.follow(&mut state);
            }
            state.writing = false;
            self.over.notify_all();
        }
    }

    /// Begins a new journal. If that fails, the old one grows on.
    fn follow(&self, state: &mut State) {
        let number = state.number + 1;
        let file = match create(&self.dir, number) {
            Ok(file) => file,
            Err(error) => {
                tracing::warn!(%error, "the journal grows on");
                return;
            }
        };
        let retired = Retired {
            path: path(&self.dir, state.number),
            jobs: std::mem::take(&mut state.jobs),
        };
        state.file = Arc::new(file);
        state.number = number;
        state.len = 0;
        guard(&self.retired).push_back(retired);
        let (dir, unwritten) = (self.dir.clone(), self.unwritten.clone());
        let queue = self.retired.clone();
        let thread = std::thread::spawn(move || retire(&dir, &unwritten, &queue));
        // The one before has done what it could, or waits for the same queue.
        state.retiring = Some(thread);
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let retiring = guard(&self.state).retiring.take();
        if let Some(thread) = retiring {
            drop(thread.join());
        }
    }
}

/// Syncs what retired journals cover and removes them, the oldest first. What fails is tried again with the next one.
fn retire(dir: &Path, unwritten: &Unwritten, queue: &Mutex<VecDeque<Retired>>) {
    let mut queue = guard(queue);
    while let Some(oldest) = queue.front() {
        let synced = || {
            oldest
                .jobs
                .iter()
                .try_for_each(|id| files::sync_record(dir, *id))
        };
        let done = unwritten
            .flush()
            .and_then(|()| synced())
            .and_then(|()| files::sync_dir(dir))
            .and_then(|()| fs::remove_file(&oldest.path));
        if let Err(error) = done {
            tracing::warn!(journal = %oldest.path.display(), %error, "a journal cannot be removed yet");
            return;
        }
        queue.pop_front();
    }
}

fn write(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    let written = file.write_all_at(bytes, at).and_then(|()| file.sync_data());
    if written.is_err() {
        // What cannot be cut off is overwritten by the next batch, or recognized by its numbers.
        drop(file.set_len(at));
    }
    written
}

/// Takes over the lines of a journal up to the first that is torn or not newer than the one before.
fn replay(bytes: &[u8], newest: &mut HashMap<JobId, Option<Vec<u8>>>) {
    let mut last = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let Some(text) = line.strip_suffix(b"\n") else {
            return;
        };
        let Ok(Line { seq, id, record }) = serde_json::from_slice(text) else {
            return;
        };
        if seq <= last {
            return;
        }
        last = seq;
        newest.insert(id, record.map(|record| record.get().as_bytes().to_vec()));
    }
}

fn create(dir: &Path, number: u64) -> Result<File, QueueError> {
    let path = path(dir, number);
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .map_err(failed("create", &path))?;
    files::sync_dir(dir).map_err(failed("sync", dir))?;
    Ok(file)
}

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{PREFIX}{number:010}{SUFFIX}"))
}

/// The journals in the directory, by their numbers.
fn numbers(dir: &Path) -> Result<BTreeMap<u64, PathBuf>, QueueError> {
    let number = |name: &str| {
        name.strip_prefix(PREFIX)?
            .strip_suffix(SUFFIX)?
            .parse()
            .ok()
    };
    Ok(files::names(dir)?
        .into_iter()
        .filter_map(|name| Some((number(&name)?, dir.join(name))))
        .collect())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    fn stored(dir: &Path, id: JobId) -> Option<String> {
        fs::read_to_string(files::record_path(dir, id)).ok()
    }

    #[test]
    fn after_a_power_cut_the_journal_wins_over_old_torn_and_missing_files() {
        let dir = tempfile::tempdir().unwrap();
        let [old, torn, missing, forgotten] = std::array::from_fn(|_| JobId::random());
        let journal = Journal::open(dir.path(), Unwritten::new(dir.path())).unwrap();
        for id in [old, torn, missing, forgotten] {
            journal.write(id, &raw(r#"{"n":1}"#)).unwrap();
            journal.write(id, &raw(r#"{"n":2}"#)).unwrap();
        }
        journal.forget(forgotten).unwrap();
        fs::write(files::record_path(dir.path(), old), r#"{"n":1}"#).unwrap();
        fs::write(files::record_path(dir.path(), torn), r#"{"n"#).unwrap();
        fs::write(files::record_path(dir.path(), forgotten), r#"{"n":2}"#).unwrap();
        drop(journal);

        let journal = Journal::open(dir.path(), Unwritten::new(dir.path())).unwrap();
        for id in [old, torn, missing] {
            assert_eq!(stored(dir.path(), id).as_deref(), Some(r#"{"n":2}"#));
        }
        assert_eq!(stored(dir.path(), forgotten), None);
        assert_eq!(numbers(dir.path()).unwrap().len(), 1, "the old one is gone");
        drop(journal);
    }

    #[test]
    fn a_torn_line_and_the_rest_of_a_failed_batch_are_no_news() {
        let id = JobId::random();
        let line = |seq: u64, n: u32| {
            format!("{{\"seq\":{seq},\"id\":\"{id}\",\"record\":{{\"n\":{n}}}}}\n")
        };
        for rest in [
            format!("{{\"seq\":3,\"id\":\"{id}\",\"rec"),
            line(2, 9),
            format!("garbage\n{}", line(4, 9)),
        ] {
            let mut newest = HashMap::new();
            replay((line(1, 1) + &line(2, 2) + &rest).as_bytes(), &mut newest);
            let kept = newest.get(&id).and_then(Option::as_deref);
            assert_eq!(kept, Some(&br#"{"n":2}"#[..]), "{rest}");
        }
    }

    #[test]
    fn many_writers_share_syncs_and_journals_follow_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open_with(dir.path(), Unwritten::new(dir.path()), 2_000).unwrap();
        let ids: Vec<JobId> = (0..16).map(|_| JobId::random()).collect();
        std::thread::scope(|scope| {
            for id in &ids {
                let journal = &journal;
                scope.spawn(move || {
                    for n in 0..50 {
                        let record = raw(&format!("{{\"n\":{n}}}"));
                        journal.write(*id, &record).unwrap();
                        fs::write(files::record_path(&journal.dir, *id), record.get()).unwrap();
                    }
                });
            }
        });
        assert!(guard(&journal.state).number > 1, "it was followed");
        drop(journal);
        let journal = Journal::open(dir.path(), Unwritten::new(dir.path())).unwrap();
        for id in ids {
            assert_eq!(stored(dir.path(), id).as_deref(), Some(r#"{"n":49}"#));
        }
        drop(journal);
    }

    #[test]
    fn a_batch_that_cannot_be_written_fails_for_all_and_harms_no_later_one() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path(), Unwritten::new(dir.path())).unwrap();
        let id = JobId::random();
        journal.write(id, &raw(r#"{"n":1}"#)).unwrap();
        let good = guard(&journal.state).file.clone();
        // A file that takes nothing, as a full disk.
        guard(&journal.state).file = Arc::new(File::open("/dev/null").unwrap());
        assert!(journal.write(id, &raw(r#"{"n":2}"#)).is_err());
        guard(&journal.state).file = good;
        journal.write(id, &raw(r#"{"n":3}"#)).unwrap();
        drop(journal);
        drop(Journal::open(dir.path(), Unwritten::new(dir.path())).unwrap());
        assert_eq!(stored(dir.path(), id).as_deref(), Some(r#"{"n":3}"#));
    }
}
