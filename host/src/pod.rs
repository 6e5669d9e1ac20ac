//! What the runs of one pod share: settings, queue, profiles, plugins, repositories, and where a job's directories are.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::Config;
use crate::git::RepoCache;
use crate::job::{JobId, Record, SessionId, Status};
use crate::plugin::Digest;
use crate::plugins::Plugins;
use crate::process::Instance;
use crate::profile::ProfileStore;
use crate::queue::redis::RedisStore;
use crate::queue::{Filter, Queue, QueueError};

/// The folder in a job's worktree that holds its configuration in local mode. Git never sees it.
pub const LOCAL_CONFIG_DIR: &str = ".agenticore";

/// Waiting jobs whose plugins are loaded ahead.
const MAX_PINNED: usize = 1_000;

/// What the runs of one pod share.
pub struct Pod {
    /// Settings.
    pub config: Arc<Config>,
    /// Where jobs come from and go to.
    pub queue: Arc<dyn Queue>,
    /// The fleet that the pod is part of; none with the embedded store.
    pub fleet: Option<RedisStore>,
    /// Profiles.
    pub profiles: Arc<ProfileStore>,
    /// Plugins.
    pub plugins: Arc<Plugins>,
    /// Repositories and worktrees.
    pub repos: RepoCache,
    /// Marks the processes of this pod.
    pub instance: Instance,
}

impl Pod {
    /// Where this pod's jobs have their temporary files.
    #[must_use]
    pub fn temp_root(&self) -> PathBuf {
        self.config.home.join("tmp").join(self.instance.to_string())
    }

    /// The directory of a job's configuration: below the shared root, or else inside its work directory.
    #[must_use]
    pub fn config_dir(&self, job: JobId, work_dir: &Path) -> PathBuf {
        match &self.config.shared_root {
            Some(root) => root.join("jobs").join(job.to_string()),
            None => work_dir.join(LOCAL_CONFIG_DIR),
        }
    }

    /// The job that went on with a session last, leaving out `but`.
    ///
    /// # Errors
    /// [`QueueError::Storage`].
    pub async fn last_job_of(
        &self,
        session: &SessionId,
        but: Option<JobId>,
    ) -> Result<Option<Record>, QueueError> {
        let filter = Filter {
            limit: 2,
            session: Some(session.clone()),
            ..Filter::default()
        };
        let found = self.queue.list(&filter).await?.jobs;
        let but = but.map(|id| id.to_string());
        Ok(found.into_iter().find(|job| Some(&job.id) != but.as_ref()))
    }

    /// The digests of plugins that waiting jobs are pinned to.
    pub async fn pinned_plugins(&self) -> Vec<Digest> {
        let filter = Filter {
            limit: MAX_PINNED,
            statuses: vec![Status::Queued],
            ..Filter::default()
        };
        let waiting = match self.queue.list(&filter).await {
            Ok(page) => page.jobs,
            Err(error) => {
                tracing::warn!(%error, "the plugins of waiting jobs are not known, and not loaded ahead");
                return Vec::new();
            }
        };
        let digests: BTreeSet<Digest> = waiting
            .iter()
            .flat_map(|job| &job.admitted)
            .filter_map(|admitted| admitted.digest.parse().ok())
            .collect();
        digests.into_iter().collect()
    }

    /// Where the record of a job's session is: in its config directory, or where it was put before that was removed.
    #[must_use]
    pub fn session_dir(&self, job: &Record) -> Option<PathBuf> {
        let kept = self.kept_session_dir(&job.id);
        let dirs = job.job_config_dir.iter().map(PathBuf::from).chain([kept]);
        dirs.into_iter().find(|dir| dir.is_dir())
    }

    /// Where a session goes whose job's directory is removed.
    #[must_use]
    pub fn kept_session_dir(&self, job: &str) -> PathBuf {
        self.kept_sessions().join(job)
    }

    /// Where all of those are.
    pub(crate) fn kept_sessions(&self) -> PathBuf {
        self.config.home.join("sessions")
    }
}
