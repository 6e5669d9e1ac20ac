//! What the runs of one pod share: settings, queue, profiles, plugins, repositories, and where a job's directories are.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::Config;
use crate::git::RepoCache;
use crate::job::JobId;
use crate::plugins::Plugins;
use crate::process::Instance;
use crate::profile::ProfileStore;
use crate::queue::Queue;

/// The folder in a job's worktree that holds its configuration in local mode. Git never sees it.
pub const LOCAL_CONFIG_DIR: &str = ".agenticore";

/// What the runs of one pod share.
pub struct Pod {
    /// Settings.
    pub config: Arc<Config>,
    /// Where jobs come from and go to.
    pub queue: Arc<dyn Queue>,
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
}
