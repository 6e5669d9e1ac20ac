//! What a server clears away while it runs: jobs whose time is over, worktrees whose work is safe, folders that nobody owns, and
//! clones that nobody uses.
//!
//! Each part goes on where another fails; what could not be removed is tried again the next time.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::git::{CacheBounds, JobFolder, RepoUrl, Watch};
use crate::job::{JobId, PullRequestState, Record, Status};
use crate::plugin::apply;
use crate::pod::Pod;
use crate::queue::QueueError;

/// How often it is looked for what can go.
const EVERY: Duration = Duration::from_secs(60);

/// Clears away, at once and then again and again. Never ends.
pub(crate) async fn run(pod: Arc<Pod>) {
    let every = EVERY.min(pod.config.worktree_retention.max(Duration::from_secs(1)));
    let mut tick = tokio::time::interval(every);
    loop {
        tick.tick().await;
        forget(&pod).await;
        clear_folders(&pod).await;
        evict(&pod).await;
        forget_components(&pod).await;
        clear_temporaries(&pod).await;
    }
}

/// Removes what attempts that were cut short left of a job's directories before they were in place.
async fn clear_temporaries(pod: &Pod) {
    let shared = pod.config.shared_root.as_ref();
    let jobs = shared.map(|root| root.join("jobs"));
    for folder in jobs.into_iter().chain([pod.kept_sessions()]) {
        let collect = move || match folder.is_dir() {
            true => apply::collect_stale(&folder, apply::ABANDONED),
            false => Ok(0),
        };
        if let Ok(Err(error)) = tokio::task::spawn_blocking(collect).await {
            tracing::warn!(%error, "cannot clear away what attempts left unfinished");
        }
    }
}

/// Removes the bytes of plugins that no job can be pinned to any more.
async fn forget_components(pod: &Arc<Pod>) {
    // A job waits for at most its time to live and runs for at most the longest time; the rest is for what nobody thought of.
    let age = 2 * (pod.config.job_ttl + pod.config.max_job_time) + Duration::from_secs(86_400);
    let pod = pod.clone();
    drop(tokio::task::spawn_blocking(move || pod.plugins.trust().tidy(age)).await);
}

/// Ends what waited too long and forgets what is long over.
async fn forget(pod: &Pod) {
    match pod.queue.sweep(Timestamp::now()).await {
        Ok(forgotten) => {
            for record in forgotten {
                release(pod, &record).await;
            }
        }
        Err(error) => tracing::error!(%error, "cannot look for jobs whose time is over"),
    }
}

/// Removes the directories of a job that is forgotten.
async fn release(pod: &Pod, record: &Record) {
    let job = &record.id;
    let removed = match RepoUrl::stored(&record.repo_url) {
        Ok(url) if !record.repo_url.is_empty() => {
            let never = CancellationToken::new();
            pod.repos.remove(&url, job, Watch::quiet(&never)).await
        }
        _ => pod.repos.remove_scratch(job).await,
    };
    if let Err(error) = removed {
        tracing::warn!(job, %error, "cannot remove the directory of a forgotten job");
    }
    let shared = pod.config.shared_root.as_ref();
    let config = shared.map(|root| root.join("jobs").join(job));
    for dir in config.into_iter().chain([pod.kept_session_dir(job)]) {
        match tokio::fs::remove_dir_all(&dir).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(job, %error, "cannot remove {}", dir.display());
            }
            _ => {}
        }
    }
}

/// Removes the folders of jobs that need them no more, and those of jobs that nobody knows.
async fn clear_folders(pod: &Pod) {
    let mut dead = BTreeSet::new();
    for folder in pod.repos.job_folders() {
        if can_go(pod, &folder).await {
            dead.insert(folder.job);
        }
    }
    let never = CancellationToken::new();
    if let Err(error) = pod.repos.prune(&dead, Watch::quiet(&never)).await {
        tracing::warn!(%error, "cannot clear away the folders of jobs");
    }
}

async fn can_go(pod: &Pod, folder: &JobFolder) -> bool {
    let Ok(id) = folder.job.parse::<JobId>() else {
        return false;
    };
    match pod.queue.get(id).await {
        Ok(record) => folder.is_worktree && is_retired(pod, &record).await,
        // A run of its own, or another store on the same folder, may know it: only its age says that it is nobody's.
        Err(QueueError::NotFound(_)) => folder.age > pod.config.job_ttl,
        Err(_) => false,
    }
}

/// Whether a job succeeded some time ago and its work is elsewhere, or there is none. Its session is put aside then.
async fn is_retired(pod: &Pod, record: &Record) -> bool {
    let Some(ended) = record
        .ended_at
        .filter(|_| record.status == Status::Succeeded)
    else {
        return false;
    };
    let passed = Timestamp::now().duration_since(ended);
    if passed.unsigned_abs() < pod.config.worktree_retention || !is_safe(pod, record).await {
        return false;
    }
    match keep_session(pod, record).await {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(job = record.id, %error, "its worktree stays, because its session cannot be put aside");
            false
        }
    }
}

async fn is_safe(pod: &Pod, record: &Record) -> bool {
    use PullRequestState::{Existing, Opened};
    let state = record.pull_request.as_ref().map(|pr| pr.state);
    if matches!(state, Some(Opened | Existing)) {
        return true;
    }
    let Ok(url) = RepoUrl::stored(&record.repo_url) else {
        return false;
    };
    pod.repos
        .is_untouched(&url, &record.id)
        .await
        .unwrap_or(false)
}

/// In local mode the session is inside the worktree, and a later job may want to go on with it.
async fn keep_session(pod: &Pod, record: &Record) -> anyhow::Result<()> {
    let (Some(transcript), Some(config)) = (&record.transcript, &record.job_config_dir) else {
        return Ok(());
    };
    let config = PathBuf::from(config);
    if pod.config.shared_root.is_some() || !config.is_dir() {
        return Ok(());
    }
    let (target, keep) = (pod.kept_session_dir(&record.id), transcript.keep.clone());
    let kept = tokio::task::spawn_blocking(move || -> anyhow::Result<()> {
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        apply::bring(&config, &target, &keep)?;
        Ok(())
    });
    kept.await?
}

async fn evict(pod: &Pod) {
    let bounds = CacheBounds {
        age: pod.config.repo_cache_max_age,
        bytes: pod.config.repo_cache_max_bytes,
    };
    let never = CancellationToken::new();
    if let Err(error) = pod.repos.evict(bounds, Watch::quiet(&never)).await {
        tracing::warn!(%error, "cannot keep the cache of repositories small");
    }
}
