//! **pull request**: after a success, pushes the job's branch and opens a pull request, at most once for each job.
//!
//! Whatever happens here is on the record beside the job's result and never in its place. Every step can be repeated: a commit is
//! made only of what is not committed, a push of the same commit does nothing, and a pull request that is there is not opened again.

use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::clone::Checkout;
use super::reporter::persist;
use super::{Attempt, Halt, Interrupt};
use crate::git::{GitError, RepoUrl, Worktree};
use crate::github::{self, GitHub, GitHubError, NewPull};
use crate::job::{
    EventBody, Failure, FailureClass, PullRequest, PullRequestState, Stage, StageState, Wishes,
};
use crate::profile::{Delivery, Profile, Uncommitted};
use crate::telemetry::trace;
use crate::template::{self, Words};

/// Changed files that a template can name.
const MAX_FILES: usize = 1_000;
/// Characters of the agent's output that a template gets.
const MAX_OUTPUT: usize = 20_000;
/// How often this step is begun again because the server died in it.
const MAX_INTERRUPTIONS: u32 = 5;

/// Where a pull request can go.
struct Target<'a> {
    github: GitHub,
    /// `OWNER/NAME`.
    repository: String,
    url: &'a RepoUrl,
    worktree: &'a Worktree,
}

/// Why there is none.
enum Without {
    /// For a reason that is nobody's fault.
    Skipped(String),
    Failed(Failure),
}

impl From<GitError> for Without {
    fn from(error: GitError) -> Self {
        let remedy = match &error {
            GitError::PushRejected { .. } => {
                "look at the branch on the remote: somebody else may have pushed to it, or a rule may protect it; the work is in the job's worktree"
            }
            GitError::Denied { .. } => {
                "give the server a GITHUB_TOKEN that may write to this repository, then push the job's branch from its worktree"
            }
            _ => "push the job's branch from its worktree once the cause is gone",
        };
        Self::failed(error.to_string(), remedy)
    }
}

impl From<GitHubError> for Without {
    fn from(error: GitHubError) -> Self {
        Self::failed(error.to_string(), error.remedy())
    }
}

impl Without {
    fn failed(message: impl Into<String>, remedy: &str) -> Self {
        Self::Failed(Failure::new(FailureClass::PullRequest, message, remedy))
    }
}

impl Attempt<'_> {
    /// Opens the job's pull request, where its profile wants one.
    pub(super) async fn pull_request(
        &mut self,
        profile: &Profile,
        checkout: &Checkout,
    ) -> Result<(), Halt> {
        let Some(worktree) = checkout.worktree.as_ref().filter(|_| profile.auto_pr) else {
            return Ok(());
        };
        self.tell(Stage::PullRequest, StageState::Started, None)
            .await;
        let span = trace::stage_span(Stage::PullRequest);
        let opened = tokio::select! {
            biased;
            why = self.interrupts.next() => match why {
                Interrupt::Cancelled => Err(Without::Skipped("the job was cancelled before it was opened".into())),
                why => return Err(Halt::Interrupted(why)),
            },
            opened = self.open(profile, worktree).instrument(span) => opened,
        };
        let done = match opened {
            Ok(done) => done,
            Err(Without::Skipped(reason)) => PullRequest::skipped(reason),
            Err(Without::Failed(failure)) => PullRequest::failed(failure),
        };
        self.note_pull_request(done).await;
        Ok(())
    }

    async fn open(&self, profile: &Profile, worktree: &Worktree) -> Result<PullRequest, Without> {
        let delivery = &profile.delivery;
        let wishes = self.job.run.wishes.clone().unwrap_or_default();
        let target = self.target(worktree, &wishes)?;
        let cancel = CancellationToken::new();
        let _guard = cancel.clone().drop_guard();
        let words = self.words(delivery, worktree, &cancel).await?;
        self.settle_uncommitted(delivery, worktree, &words, &cancel)
            .await?;
        if !self.pod.repos.has_commits(worktree, &cancel).await? {
            return Err(Without::Skipped("the job made no commits".into()));
        }
        let (title, body) = pull_words(delivery, wishes, &words)?;
        let redacted = self.redact_pull_request(profile, title, body).await;
        let (title, body) = redacted.map_err(|why| {
            Without::failed(
                format!("its words are not published {why}"),
                "look at what the hook says in the job's events; the work is in the job's worktree",
            )
        })?;
        let repos = &self.pod.repos;
        if delivery.lfs {
            repos.push_lfs(target.url, worktree, &cancel).await?;
        }
        repos.push(target.url, worktree, &cancel).await?;
        let new = self.new_pull(&target, delivery, title, body, &words);
        let (pull, is_new) = target.github.open(&new).await?;
        let mut notes = Vec::new();
        if !delivery.labels.is_empty() {
            let labelled = target
                .github
                .label(&target.repository, pull.number, &delivery.labels);
            notes.extend(
                labelled
                    .await
                    .err()
                    .map(|e| format!("it has no labels: {e}")),
            );
        }
        if !delivery.reviewers.is_empty() || !delivery.team_reviewers.is_empty() {
            let (users, teams) = (&delivery.reviewers, &delivery.team_reviewers);
            let asked = target
                .github
                .request_review(&target.repository, pull.number, users, teams);
            notes.extend(
                asked
                    .await
                    .err()
                    .map(|e| format!("nobody is asked for a review: {e}")),
            );
        }
        Ok(PullRequest {
            state: if is_new {
                PullRequestState::Opened
            } else {
                PullRequestState::Existing
            },
            url: Some(pull.html_url),
            number: Some(pull.number),
            reason: (!notes.is_empty()).then(|| notes.join("; ")),
            failure: None,
        })
    }

    /// Where it can be opened; most jobs on a laptop have no such place, and that is no failure.
    fn target<'b>(
        &'b self,
        worktree: &'b Worktree,
        wishes: &Wishes,
    ) -> Result<Target<'b>, Without> {
        if let Some(reason) = &wishes.veto {
            return Err(Without::Skipped(format!("a hook said no: {reason}")));
        }
        if self.job.run.interruptions > MAX_INTERRUPTIONS {
            return Err(Without::failed(
                format!(
                    "the server died {} times while it ran this job",
                    self.job.run.interruptions
                ),
                "look at the server's log for what stopped it, then push the job's branch from its worktree",
            ));
        }
        let config = &self.pod.config;
        let host = GitHub::repository_host(&config.github_api_url)?;
        let place = self
            .job
            .request
            .repo_url
            .as_ref()
            .and_then(|url| Some((url, github::repository_on(&host, url)?)));
        let Some((url, repository)) = place else {
            return Err(Without::Skipped(format!(
                "the repository is not on {host}, where this server can open pull requests"
            )));
        };
        let Some(token) = &config.github_token else {
            return Err(Without::Skipped("the server has no GITHUB_TOKEN".into()));
        };
        Ok(Target {
            github: GitHub::new(&config.github_api_url, token)?,
            repository,
            url,
            worktree,
        })
    }

    async fn settle_uncommitted(
        &self,
        delivery: &Delivery,
        worktree: &Worktree,
        words: &Words<'_>,
        cancel: &CancellationToken,
    ) -> Result<(), Without> {
        let repos = &self.pod.repos;
        match delivery.uncommitted {
            Uncommitted::Leave => Ok(()),
            Uncommitted::Fail if repos.is_dirty(worktree, cancel).await? => Err(Without::failed(
                "the agent left work uncommitted, and the profile says `uncommitted: fail`",
                "commit it in the job's worktree and push the branch, or tell the agent to commit its work",
            )),
            Uncommitted::Fail => Ok(()),
            Uncommitted::Commit => {
                let message = rendered("commit_message", &delivery.commit_message, words)?;
                repos.commit_all(worktree, &message, cancel).await?;
                Ok(())
            }
        }
    }

    fn new_pull(
        &self,
        target: &Target<'_>,
        delivery: &Delivery,
        title: String,
        body: String,
        words: &Words<'_>,
    ) -> NewPull {
        let title = title.split_whitespace().collect::<Vec<_>>().join(" ");
        NewPull {
            repository: target.repository.clone(),
            head: target.worktree.branch.clone(),
            base: words.base.clone(),
            title: if title.is_empty() {
                format!("Job {}", self.job.id)
            } else {
                title
            },
            body: format!("{}\n\n{}\n", body.trim_end(), github::marker(&self.job.id)),
            draft: delivery.draft,
        }
    }

    async fn words(
        &self,
        delivery: &Delivery,
        worktree: &Worktree,
        cancel: &CancellationToken,
    ) -> Result<Words<'_>, Without> {
        let (request, run) = (&self.job.request, &self.job.run);
        let mut changed_files = self.pod.repos.changed_files(worktree, cancel).await?;
        changed_files.truncate(MAX_FILES);
        let first = request.task.lines().find(|line| !line.trim().is_empty());
        let base = worktree.base_ref.as_str();
        Ok(Words {
            job: self.job.id.to_string(),
            task: &request.task,
            summary: first.unwrap_or_default().trim().chars().take(72).collect(),
            profile: request.profile.to_string(),
            repo_url: request
                .repo_url
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            branch: worktree.branch.clone(),
            base: delivery
                .base
                .clone()
                .unwrap_or_else(|| base.strip_prefix("refs/heads/").unwrap_or(base).to_owned()),
            output: said(run.message.as_deref().or(run.output.as_deref())),
            model: run.model.as_deref().unwrap_or_default(),
            cost_usd: run.cost_usd,
            turns: run.turns,
            attempt: self.job.attempt,
            changed_files,
            annotations: run.annotations.clone(),
        })
    }

    async fn note_pull_request(&mut self, done: PullRequest) {
        let detail = match (&done.failure, &done.reason) {
            (Some(failure), _) => Some(failure.message.clone()),
            (None, reason) => reason.clone(),
        };
        let state = match done.state {
            PullRequestState::Failed => StageState::Failed,
            _ => StageState::Done,
        };
        self.reporter
            .send(EventBody::Pr {
                state: done.state.as_str().to_owned(),
                url: done.url.clone(),
                detail: detail.clone(),
            })
            .await;
        self.tell(Stage::PullRequest, state, detail).await;
        self.job.run.pr_url.clone_from(&done.url);
        self.job.run.pull_request = Some(done);
    }

    /// Puts what is known so far on the record, so that an attempt after a crash goes on from here.
    pub(super) async fn checkpoint(&self, what: &str) -> Result<(), Halt> {
        let (queue, lease, run) = (&self.pod.queue, &self.lease, &self.job.run);
        let stored = persist(what, || queue.update(lease, run));
        // The only error that is not tried again is the lost claim.
        stored.await.map_err(|_| Halt::Interrupted(Interrupt::Lost))
    }
}

/// The title and the body: what hooks want, or else what the profile's templates say.
fn pull_words(
    delivery: &Delivery,
    wishes: Wishes,
    words: &Words<'_>,
) -> Result<(String, String), Without> {
    let title = match wishes.title {
        Some(title) => title,
        None => rendered("title", &delivery.title, words)?,
    };
    let body = match wishes.body {
        Some(body) => body,
        None => rendered("body", &delivery.body, words)?,
    };
    Ok((title, body))
}

fn rendered(key: &str, text: &str, words: &Words<'_>) -> Result<String, Without> {
    template::render(text, words).map_err(|problem| {
        Without::failed(
            format!("the template `{key}` of the profile cannot be filled in: {problem}"),
            "correct the template in the profile; the work is in the job's worktree",
        )
    })
}

/// The end of what the agent said, which is where its result is.
fn said(text: Option<&str>) -> String {
    let text = text.unwrap_or_default().trim();
    let skip = text.chars().count().saturating_sub(MAX_OUTPUT);
    text.chars().skip(skip).collect()
}
