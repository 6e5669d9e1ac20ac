//! What disagrees between Redis, the copies on the volume and the volume's folders, and putting it right.
//!
//! It looks from outside, while the fleet works: whatever it finds is looked for again a moment later, and only what stood both times
//! is told. A repair changes what a running fleet would not put right by itself, and never a job's record in Redis.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::{Inner, RedisStore, Settings, change, copy, rebuild};
use crate::job::{JobId, Record, Status};
use crate::queue::QueueError;

/// How long something must stand before it counts.
const AGAIN: Duration = Duration::from_secs(2);
/// How many jobs are read with one call.
const PAGE: usize = 200;

/// Something that disagrees.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// What kind.
    pub kind: Kind,
    /// The job, or the folder's name.
    pub subject: String,
    /// In words.
    pub about: &'static str,
}

/// The kinds of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The store was emptied and no pod has put it back.
    Emptied,
    /// The index names a job that is not there.
    IndexWithoutJob,
    /// The queue names a job that is not there or does not wait.
    QueueWithoutJob,
    /// A job waits and stands in no queue.
    WaitsNowhere,
    /// A job runs by its record, and no pod has it.
    RunsNowhere,
    /// The set that autoscalers look at has too many or too few.
    Demand,
    /// The copy of a record is missing or older than Redis.
    CopyBehind,
    /// A copy's job is not in Redis.
    OnlyOnVolume,
    /// A folder of a job that nobody knows.
    OrphanFolder,
}

impl Kind {
    fn about(self) -> &'static str {
        match self {
            Self::Emptied => "Redis was emptied and no pod has put back what the volume knows",
            Self::IndexWithoutJob => "the index of jobs names a job that is not there",
            Self::QueueWithoutJob => "the queue names a job that is not there or does not wait",
            Self::WaitsNowhere => "the job waits, but stands in no queue",
            Self::RunsNowhere => "the job runs by its record, but no pod has it",
            Self::Demand => {
                "the set of outstanding jobs, which autoscalers look at, is wrong about the job"
            }
            Self::CopyBehind => "the copy on the volume is missing or behind",
            Self::OnlyOnVolume => "the volume has the job, but Redis does not",
            Self::OrphanFolder => "a folder of a job that nobody knows",
        }
    }
}

/// Looks at a fleet from outside, without taking part in it.
pub struct Inspector {
    inner: Arc<Inner>,
    shared_root: Option<PathBuf>,
}

impl Inspector {
    /// An inspector of the fleet that these settings name.
    ///
    /// # Errors
    /// [`QueueError`] when the settings make no sense or the volume cannot be used.
    pub fn new(settings: Settings, shared_root: Option<&Path>) -> Result<Self, QueueError> {
        Ok(Self {
            inner: RedisStore::inner(settings)?.0,
            shared_root: shared_root.map(Path::to_owned),
        })
    }

    /// Everything that disagrees, and still does a moment later.
    ///
    /// # Errors
    /// [`QueueError`] when Redis or the volume cannot be read.
    pub async fn look(&self) -> Result<Vec<Finding>, QueueError> {
        let first = self.once().await?;
        if first.is_empty() {
            return Ok(Vec::new());
        }
        tokio::time::sleep(AGAIN).await;
        let second = self.once().await?;
        Ok(first.intersection(&second).cloned().collect())
    }

    async fn once(&self) -> Result<BTreeSet<Finding>, QueueError> {
        let seen = Seen::read(&self.inner).await?;
        let mut found = Found::default();
        if seen.is_emptied {
            found.add(Kind::Emptied, &self.inner.settings.prefix);
            return Ok(found.0);
        }
        seen.compare(&mut found);
        let copies = self.copies().await?;
        for (id, job) in &seen.jobs {
            let is_behind = copies
                .get(id)
                .is_none_or(|copy| copy.version < job.version && job.status != Status::Running);
            if is_behind {
                found.add(Kind::CopyBehind, id);
            }
        }
        for id in copies.keys().filter(|id| !seen.jobs.contains_key(*id)) {
            found.add(Kind::OnlyOnVolume, id);
        }
        for folder in self.folders() {
            if !seen.jobs.contains_key(&folder) && !copies.contains_key(&folder) {
                found.add(Kind::OrphanFolder, &folder);
            }
        }
        Ok(found.0)
    }

    async fn copies(&self) -> Result<HashMap<String, Record>, QueueError> {
        self.inner
            .blocking(|mirror| {
                let ids = mirror.ids()?;
                let read = |id: JobId| Some((id.to_string(), mirror.read(id).ok()?));
                Ok(ids.into_iter().filter_map(read).collect())
            })
            .await?
    }

    /// The jobs that have a folder below the shared root.
    fn folders(&self) -> Vec<String> {
        let Some(root) = &self.shared_root else {
            return Vec::new();
        };
        let entries = std::fs::read_dir(root.join("jobs")).into_iter().flatten();
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.parse::<JobId>().is_ok())
            .collect()
    }

    /// Puts these right, as far as it can be done from outside.
    ///
    /// # Errors
    /// [`QueueError`] when Redis or the volume cannot be written.
    pub async fn repair(&self, findings: &[Finding]) -> Result<(), QueueError> {
        let keys = &self.inner.keys;
        if findings
            .iter()
            .any(|f| matches!(f.kind, Kind::Emptied | Kind::OnlyOnVolume))
        {
            rebuild::put_back_now(&self.inner).await?;
        }
        for Finding { kind, subject, .. } in findings {
            match kind {
                Kind::IndexWithoutJob => self.command("ZREM", &[keys.index(), subject]).await?,
                Kind::QueueWithoutJob => {
                    self.command("LREM", &[keys.queue(), "0", subject]).await?;
                }
                Kind::WaitsNowhere => {
                    // It may have been put back meanwhile.
                    self.command("LREM", &[keys.queue(), "0", subject]).await?;
                    self.command("RPUSH", &[keys.queue(), subject]).await?;
                }
                Kind::RunsNowhere => self.hand_to_reclaim(subject).await?,
                Kind::Demand => self.mend_demand(subject).await?,
                Kind::CopyBehind => self.mend_copy(subject).await?,
                Kind::OrphanFolder => self.remove_folder(subject)?,
                Kind::Emptied | Kind::OnlyOnVolume => {}
            }
        }
        Ok(())
    }

    async fn command(&self, name: &str, arguments: &[&str]) -> Result<(), QueueError> {
        self.inner
            .link
            .call("repair the store", async |c| {
                redis::cmd(name).arg(arguments).query_async(c).await
            })
            .await
    }

    /// Puts the job on the list of its life, whose lease is over then: any pod takes it back.
    async fn hand_to_reclaim(&self, id: &str) -> Result<(), QueueError> {
        let record = self.record(id).await?;
        let life = record
            .pod_life
            .unwrap_or_else(|| change::NO_LIFE.to_owned());
        let keys = &self.inner.keys;
        self.command("RPUSH", &[&keys.claimed(&life), id]).await?;
        self.command("ZADD", &[keys.pods(), "NX", "1", &life]).await
    }

    async fn mend_demand(&self, id: &str) -> Result<(), QueueError> {
        let over = self.record(id).await.map(|r| r.status.is_ended());
        let word = if over.unwrap_or(true) { "SREM" } else { "SADD" };
        self.command(word, &[self.inner.keys.outstanding(), id])
            .await
    }

    async fn mend_copy(&self, id: &str) -> Result<(), QueueError> {
        match id.parse() {
            Ok(id) => copy::again(&self.inner, id).await,
            Err(_) => Ok(()),
        }
    }

    async fn record(&self, id: &str) -> Result<Record, QueueError> {
        match id.parse() {
            Ok(id) => super::reads::get(&self.inner, id).await,
            Err(_) => Ok(Record::default()),
        }
    }

    fn remove_folder(&self, name: &str) -> Result<(), QueueError> {
        let Some(root) = &self.shared_root else {
            return Ok(());
        };
        let path = root.join("jobs").join(name);
        std::fs::remove_dir_all(&path)
            .map_err(crate::queue::files::failed("remove the folder", &path))
    }
}

#[derive(Default)]
struct Found(BTreeSet<Finding>);

impl Found {
    fn add(&mut self, kind: Kind, subject: &str) {
        self.0.insert(Finding {
            kind,
            subject: subject.to_owned(),
            about: kind.about(),
        });
    }
}

/// What Redis says at one moment, more or less.
#[derive(Default)]
struct Seen {
    is_emptied: bool,
    index: Vec<String>,
    queue: HashSet<String>,
    outstanding: HashSet<String>,
    /// The jobs on the lists of lives.
    claimed: HashSet<String>,
    jobs: BTreeMap<String, Job>,
}

struct Job {
    version: u64,
    status: Status,
}

impl Seen {
    async fn read(inner: &Inner) -> Result<Self, QueueError> {
        type Lists = (
            Option<String>,
            Vec<String>,
            Vec<String>,
            Vec<String>,
            Vec<String>,
        );
        let (schema, index, queue, outstanding, lives): Lists = inner
            .link
            .call("look at the store", async |c| {
                redis::pipe()
                    .get(inner.keys.schema())
                    .zrange(inner.keys.index(), 0, -1)
                    .lrange(inner.keys.queue(), 0, -1)
                    .smembers(inner.keys.outstanding())
                    .zrange(inner.keys.pods(), 0, -1)
                    .query_async(c)
                    .await
            })
            .await?;
        let mut seen = Self {
            is_emptied: schema.is_none(),
            queue: queue.into_iter().collect(),
            outstanding: outstanding.into_iter().collect(),
            index,
            ..Self::default()
        };
        for life in lives {
            let ids = super::claims::listed(inner, &life).await?;
            seen.claimed.extend(ids.iter().map(ToString::to_string));
        }
        let named: BTreeSet<String> = seen.index.iter().chain(&seen.queue).cloned().collect();
        let named: Vec<String> = named.into_iter().collect();
        for page in named.chunks(PAGE) {
            seen.read_jobs(inner, page).await?;
        }
        Ok(seen)
    }

    async fn read_jobs(&mut self, inner: &Inner, page: &[String]) -> Result<(), QueueError> {
        type Row = (Option<u64>, Option<String>);
        let rows: Vec<Row> = inner
            .link
            .call("look at jobs", async |c| {
                let mut pipe = redis::pipe();
                for id in page {
                    let key = format!("{}{id}", inner.keys.jobs());
                    pipe.cmd("HMGET").arg(key).arg("version").arg("status");
                }
                pipe.query_async(c).await
            })
            .await?;
        for (id, (version, status)) in page.iter().zip(rows) {
            // As `commit.lua` keeps it.
            let status = match status.as_deref() {
                None | Some("") => Some(Status::Queued),
                Some(word) => word.parse().ok(),
            };
            if let (Some(version), Some(status)) = (version, status) {
                self.jobs.insert(id.clone(), Job { version, status });
            }
        }
        Ok(())
    }

    /// What Redis says against what Redis says.
    fn compare(&self, found: &mut Found) {
        for id in self.index.iter().filter(|id| !self.jobs.contains_key(*id)) {
            found.add(Kind::IndexWithoutJob, id);
        }
        let status = |id: &String| self.jobs.get(id).map(|job| job.status);
        for id in self
            .queue
            .iter()
            .filter(|id| status(id) != Some(Status::Queued))
        {
            found.add(Kind::QueueWithoutJob, id);
        }
        for (id, job) in &self.jobs {
            let is_claimed = self.claimed.contains(id);
            match job.status {
                Status::Queued if !is_claimed && !self.queue.contains(id) => {
                    found.add(Kind::WaitsNowhere, id);
                }
                Status::Running if !is_claimed => found.add(Kind::RunsNowhere, id),
                _ => {}
            }
            if self.outstanding.contains(id) == job.status.is_ended() {
                found.add(Kind::Demand, id);
            }
        }
        for id in self
            .outstanding
            .iter()
            .filter(|id| !self.jobs.contains_key(*id))
        {
            found.add(Kind::Demand, id);
        }
    }
}
