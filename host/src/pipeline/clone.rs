//! **clone**: brings the repository under its lock and makes the job's worktree, or a scratch folder for a job without one.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::materialize::host_failed;
use super::{Attempt, Halt};
use crate::git::{Checkout as Wanted, GitError, LockError, RepoUrl, Watch, Worktree};
use crate::job::{EventBody, Failure, FailureClass, Stage, StageState};
use crate::profile::Profile;
use crate::telemetry::metrics;

/// Where the agent works.
pub(super) struct Checkout {
    pub(super) path: PathBuf,
    /// None for a job without a repository.
    pub(super) worktree: Option<Worktree>,
}

impl Attempt<'_> {
    pub(super) async fn clone_repository(&mut self, profile: &Profile) -> Result<Checkout, Halt> {
        let checkout = match &self.job.request.repo_url {
            Some(url) => {
                let started = Instant::now();
                let checkout = self.stage(Stage::Clone, self.check_out(url, profile)).await;
                // One that was interrupted says nothing of the remote.
                if !matches!(checkout, Err(Halt::Interrupted(_))) {
                    metrics::cloned(started.elapsed(), checkout.is_ok());
                }
                checkout?
            }
            None => self.scratch()?,
        };
        let run = &mut self.job.run;
        run.worktree_path = Some(checkout.path.clone());
        if let Some(worktree) = &checkout.worktree {
            run.branch = Some(worktree.branch.clone());
            let base = worktree.base_ref.as_str();
            self.base = Some(base.strip_prefix("refs/heads/").unwrap_or(base).to_owned());
            run.base_commit = Some(worktree.base_commit.clone());
        }
        Ok(checkout)
    }

    async fn check_out(&self, url: &RepoUrl, profile: &Profile) -> Result<Checkout, Halt> {
        let id = self.job.id.to_string();
        let wanted = Wanted {
            url,
            base_ref: self.job.request.base_ref.as_ref(),
            job: &id,
            task: &self.job.request.task,
            submodules: profile.delivery.submodules,
            lfs: profile.delivery.lfs,
        };
        // Dropped with the step, which kills what git still runs.
        let cancel = CancellationToken::new();
        let _guard = cancel.clone().drop_guard();
        let on_wait = |waited: Duration| {
            let detail = Some(format!(
                "another job holds the lock of this repository; waited {} s",
                waited.as_secs()
            ));
            self.reporter.note(EventBody::Stage {
                stage: Stage::Clone,
                state: StageState::Waiting,
                detail,
            });
        };
        let watch = Watch {
            cancel: &cancel,
            on_wait: &on_wait,
        };
        let worktree = loop {
            match self.pod.repos.checkout(wanted, watch).await {
                // Whoever has the lock now leaves a whole clone behind; what was begun is found and mended.
                Err(GitError::Lock(LockError::Lost { .. })) => {
                    let detail = "the lock of this repository was lost; waiting for it again";
                    self.reporter.note(EventBody::Stage {
                        stage: Stage::Clone,
                        state: StageState::Waiting,
                        detail: Some(detail.to_owned()),
                    });
                }
                other => break other.map_err(clone_failed)?,
            }
        };
        Ok(Checkout {
            path: worktree.path.clone(),
            worktree: Some(worktree),
        })
    }

    fn scratch(&self) -> Result<Checkout, Halt> {
        let path = self
            .pod
            .repos
            .scratch(&self.job.id.to_string())
            .map_err(|e| host_failed(e.to_string()))?;
        Ok(Checkout {
            path,
            worktree: None,
        })
    }

    /// Paths that differ from the base, for hooks.
    pub(super) async fn changed_files(&self, checkout: &Checkout) -> Vec<String> {
        let Some(worktree) = &checkout.worktree else {
            return Vec::new();
        };
        match self
            .pod
            .repos
            .changed_files(worktree, &CancellationToken::new())
            .await
        {
            Ok(files) => files,
            Err(error) => {
                tracing::warn!(%error, "the changed files of this job cannot be listed");
                Vec::new()
            }
        }
    }
}

fn clone_failed(error: GitError) -> Failure {
    let remedy = match &error {
        GitError::MissingRef { .. } | GitError::NoDefaultBranch { .. } => {
            "submit the job again with a base_ref that exists"
        }
        GitError::Unreachable { .. } => "submit the job again when the remote answers",
        GitError::Denied { .. } | GitError::NotFound { .. } => {
            "correct the address or the server's token, then submit the job again"
        }
        GitError::Empty { .. } | GitError::ReservedPath { .. } => {
            "change the repository as the message says, then submit the job again"
        }
        _ => "look at git's message; submit the job again once its cause is gone",
    };
    Failure::new(FailureClass::Clone, error.to_string(), remedy)
}
