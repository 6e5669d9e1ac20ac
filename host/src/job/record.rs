//! The flat JSON record of a job: what every endpoint answers and what `job-state/{id}.json` holds.
//!
//! The first twenty fields are those of agenticore 0.2.0 and keep their names and types; the others are ours. The record is a
//! view: it is made from a [`Job`] and parsed back into one, and no logic reads its text `status`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Admitted, Failure, Fence, HookUse, Idempotency, Job, Mode, Origin, Outcome, PluginUse,
    PullRequest, Request, Run, State, Status, TraceContext, Transcript, Usage, Verdict, Wishes,
};
use crate::git::{BaseRef, RepoUrl};

/// The record. Times are ISO 8601 in UTC; sizes are bytes; costs are dollars.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Record {
    /// The job's id.
    pub id: String,
    /// The repository without credentials; empty for local tasks.
    pub repo_url: String,
    /// The branch or commit asked for; empty: the remote's default branch.
    pub base_ref: String,
    /// The task.
    pub task: String,
    /// The profile.
    pub profile: String,
    /// The status.
    pub status: Status,
    /// Whether the submitter waits.
    pub mode: Mode,
    /// The agent's exit code.
    pub exit_code: Option<i32>,
    /// The agent's session, for resume.
    pub session_id: Option<String>,
    /// The pull request.
    pub pr_url: Option<String>,
    /// The agent's output, at most 50 KB; its middle is cut out first.
    pub output: Option<String>,
    /// Why it failed, at most 10 KB.
    pub error: Option<String>,
    /// When it was accepted.
    pub created_at: Option<Timestamp>,
    /// When its last attempt was claimed.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// How long it is kept after its end.
    #[serde(default = "one_day")]
    pub ttl_seconds: u64,
    /// The agent's process, while it runs.
    pub pid: Option<u32>,
    /// The pod that runs or ran it.
    pub pod_name: String,
    /// The directory the agent works in.
    pub worktree_path: Option<String>,
    /// The directory of its configuration.
    pub job_config_dir: Option<String>,

    /// How many times the record changed, in a fleet.
    pub version: u64,
    /// Which life of the pod claimed it last, in a fleet.
    pub pod_life: Option<String>,
    /// How many times it was claimed.
    pub attempt: u32,
    /// How many attempts were cut short because their host died.
    pub interruptions: u32,
    /// When it joined the queue last.
    pub queued_at: Option<Timestamp>,
    /// When somebody asked to cancel it.
    pub cancel_requested_at: Option<Timestamp>,
    /// The fence of the claim that runs it.
    pub fence: Option<u64>,
    /// Why it failed, in parts.
    pub failure: Option<Failure>,
    /// The session it was asked to go on with.
    pub resumed_session_id: Option<String>,
    /// Where the session is recorded; none: it cannot be resumed.
    pub transcript: Option<Transcript>,
    /// What became of the pull request.
    pub pull_request: Option<PullRequest>,
    /// What the agent's run came to; an attempt that finds it goes on with the steps after the run.
    pub verdict: Option<Verdict>,
    /// What post hooks want of the pull request.
    pub wishes: Option<Wishes>,
    /// The branch the agent works on.
    pub branch: Option<String>,
    /// The commit the branch began at.
    pub base_commit: Option<String>,
    /// What the agent said at its end, where its plugin can tell.
    pub message: Option<String>,
    /// How many bytes were cut out of `output`.
    pub output_cut: u64,
    /// The model that answered last.
    pub model: Option<String>,
    /// Tokens over all attempts.
    pub usage: Usage,
    /// Dollars over all attempts.
    pub cost_usd: f64,
    /// Turns over all attempts.
    pub num_turns: u32,
    /// Seconds its agents ran.
    pub agent_seconds: f64,
    /// Tools called.
    pub tool_calls: u64,
    /// Requests tried again.
    pub retries: u64,
    /// Permissions refused.
    pub permission_denials: Vec<String>,
    /// The plugins that the job was admitted with.
    pub admitted: Vec<Admitted>,
    /// The plugin that made the launch plan.
    pub plugin: Option<PluginUse>,
    /// The calls of hook plugins.
    pub hooks: Vec<HookUse>,
    /// What post hooks had to say.
    pub annotations: BTreeMap<String, String>,
    /// Things to know that did not fail the job.
    pub warnings: Vec<String>,

    /// The key it was submitted under, as digests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<Idempotency>,
    /// The job that it runs again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<String>,
    /// Its place in a trace: the W3C's `traceparent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_parent: Option<String>,
    /// What vendors add to that: `tracestate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_state: Option<String>,
}

/// What a record of an older version that does not say it meant.
fn one_day() -> u64 {
    86_400
}

impl From<&Job> for Record {
    fn from(job: &Job) -> Self {
        let path = |p: &Option<std::path::PathBuf>| p.as_ref().map(|p| p.display().to_string());
        let request = &job.request;
        let run = &job.run;
        let origin = &job.origin;
        let trace = origin.trace.as_ref();
        let mut record = Self {
            id: job.id.to_string(),
            repo_url: request
                .repo_url
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            base_ref: request
                .base_ref
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            task: request.task.clone(),
            profile: request.profile.to_string(),
            status: Status::from(&job.state),
            mode: request.mode,
            exit_code: run.exit_code,
            session_id: run.session_id.as_ref().map(ToString::to_string),
            pr_url: run.pr_url.clone(),
            output: run.output.clone(),
            created_at: Some(job.created_at),
            ttl_seconds: request.ttl_seconds,
            pid: run.pid,
            pod_name: run
                .pod
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            worktree_path: path(&run.worktree_path),
            job_config_dir: path(&run.job_config_dir),
            pod_life: run.life.clone(),
            attempt: job.attempt,
            interruptions: run.interruptions,
            resumed_session_id: request.session_id.as_ref().map(ToString::to_string),
            transcript: run.transcript.clone(),
            pull_request: run.pull_request.clone(),
            verdict: run.verdict.clone(),
            wishes: run.wishes.clone(),
            branch: run.branch.clone(),
            base_commit: run.base_commit.clone(),
            message: run.message.clone(),
            output_cut: run.output_cut,
            model: run.model.clone(),
            usage: run.usage,
            cost_usd: run.cost_usd,
            num_turns: run.turns,
            agent_seconds: run.agent_seconds,
            tool_calls: run.tool_calls,
            retries: run.retries,
            permission_denials: run.denials.clone(),
            admitted: run.admitted.clone(),
            plugin: run.plugin.clone(),
            hooks: run.hooks.clone(),
            annotations: run.annotations.clone(),
            warnings: run.warnings.clone(),
            idempotency: origin.idempotency.clone(),
            retry_of: origin.retry_of.map(|id| id.to_string()),
            trace_parent: trace.map(|t| t.parent().to_owned()),
            trace_state: trace.and_then(|t| t.state().map(str::to_owned)),
            ..Self::default()
        };
        record.put_state(&job.state);
        record
    }
}

impl Record {
    fn put_state(&mut self, state: &State) {
        match state {
            State::Queued { since } => self.queued_at = Some(*since),
            State::Running {
                fence,
                started_at,
                cancel_requested,
                ..
            } => {
                self.fence = Some(fence.0);
                self.started_at = Some(*started_at);
                self.cancel_requested_at = *cancel_requested;
            }
            State::Ended {
                started_at,
                at,
                outcome,
            } => {
                self.started_at = *started_at;
                self.ended_at = Some(*at);
                if let Outcome::Failed(failure) = outcome {
                    self.error = Some(crate::job::record::cut(&failure.message, 10_000));
                    self.failure = Some(failure.clone());
                }
            }
        }
    }

    fn origin(&self) -> Result<Origin, String> {
        let trace = self
            .trace_parent
            .as_ref()
            .map(|parent| parent.parse::<TraceContext>())
            .transpose()
            .map_err(|e| format!("trace_parent: {e}"))?;
        Ok(Origin {
            idempotency: self.idempotency.clone(),
            retry_of: self
                .retry_of
                .as_ref()
                .map(|id| id.parse())
                .transpose()
                .map_err(|e| format!("retry_of: {e}"))?,
            trace: trace.map(|t| t.with_state(self.trace_state.as_deref())),
        })
    }

    fn state(&self) -> Result<State, String> {
        let need = |what: &str| format!("a {} job needs {what}", self.status);
        let ended = |outcome| -> Result<State, String> {
            Ok(State::Ended {
                started_at: self.started_at,
                at: self.ended_at.ok_or_else(|| need("ended_at"))?,
                outcome,
            })
        };
        match self.status {
            Status::Queued => Ok(State::Queued {
                since: self
                    .queued_at
                    .or(self.created_at)
                    .ok_or_else(|| need("created_at"))?,
            }),
            Status::Running => Ok(State::Running {
                pod: self.pod_name.parse().map_err(|e| format!("{e}"))?,
                // A record of an older version has no fence; any new claim is newer than 0.
                fence: Fence(self.fence.unwrap_or(0)),
                started_at: self.started_at.ok_or_else(|| need("started_at"))?,
                cancel_requested: self.cancel_requested_at,
            }),
            Status::Succeeded => ended(Outcome::Succeeded),
            Status::Cancelled => ended(Outcome::Cancelled),
            Status::Expired => ended(Outcome::Expired),
            Status::Failed => ended(Outcome::Failed(self.failure.clone().unwrap_or_else(|| {
                let message = self.error.clone().unwrap_or_default();
                Failure::new(super::FailureClass::Agent, message, "")
            }))),
        }
    }
}

impl TryFrom<Record> for Job {
    type Error = String;

    /// Parses a stored record.
    ///
    /// # Errors
    /// A sentence that names the field that is wrong.
    fn try_from(record: Record) -> Result<Self, String> {
        let state = record.state()?;
        let origin = record.origin()?;
        let id = record.id.parse().map_err(|e| format!("{e}"))?;
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let request = Request {
            repo_url: some(&record.repo_url)
                .map(|u| RepoUrl::stored(&u))
                .transpose()
                .map_err(|e| e.to_string())?,
            base_ref: some(&record.base_ref)
                .map(|r| r.parse::<BaseRef>())
                .transpose()
                .map_err(|e| e.to_string())?,
            profile: record.profile.parse().map_err(|e| format!("{e}"))?,
            session_id: record
                .resumed_session_id
                .map(|s| s.parse())
                .transpose()
                .map_err(|e| format!("{e}"))?,
            task: record.task,
            mode: record.mode,
            ttl_seconds: record.ttl_seconds,
        };
        let run = Run {
            pod: some(&record.pod_name)
                .map(|p| p.parse())
                .transpose()
                .map_err(|e| format!("{e}"))?,
            life: record.pod_life,
            interruptions: record.interruptions,
            pid: record.pid,
            exit_code: record.exit_code,
            session_id: record
                .session_id
                .map(|s| s.parse())
                .transpose()
                .map_err(|e| format!("{e}"))?,
            transcript: record.transcript,
            pull_request: record.pull_request,
            verdict: record.verdict,
            wishes: record.wishes,
            worktree_path: record.worktree_path.map(Into::into),
            job_config_dir: record.job_config_dir.map(Into::into),
            branch: record.branch,
            base_commit: record.base_commit,
            pr_url: record.pr_url,
            output: record.output,
            message: record.message,
            output_cut: record.output_cut,
            model: record.model,
            usage: record.usage,
            cost_usd: record.cost_usd,
            turns: record.num_turns,
            agent_seconds: record.agent_seconds,
            tool_calls: record.tool_calls,
            retries: record.retries,
            denials: record.permission_denials,
            admitted: record.admitted,
            plugin: record.plugin,
            hooks: record.hooks,
            annotations: record.annotations,
            warnings: record.warnings,
        };
        let created_at = record.created_at.ok_or("created_at is missing")?;
        Ok(Self {
            id,
            request,
            origin,
            created_at,
            state,
            attempt: record.attempt,
            run,
        })
    }
}

/// The beginning of `text`, at most `max` bytes, cut between characters.
fn cut(text: &str, max: usize) -> String {
    let end = (0..=max.min(text.len()))
        .rev()
        .find(|&i| text.is_char_boundary(i))
        .unwrap_or(0);
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::git::UrlPolicy;
    use crate::job::{FailureClass, JobId, RequestBody, RequestPolicy, Transition};

    fn job() -> Job {
        let body = RequestBody {
            task: "do it".into(),
            repo_url: Some("https://example.com/r.git".into()),
            base_ref: Some("dev".into()),
            session_id: Some("s-1".into()),
            ..RequestBody::default()
        };
        let policy = RequestPolicy {
            urls: UrlPolicy { allow_file: false },
            default_profile: "code".parse().unwrap(),
            ttl_seconds: 60,
        };
        let now = "2026-11-22T10:00:00Z".parse().unwrap();
        let mut job = Job::new(JobId::random(), body.parse(&policy).unwrap(), now);
        job.run.cost_usd = 0.25;
        job.run.usage.output_tokens = 7;
        job.run.warnings.push("careful".into());
        let trace: TraceContext = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
            .parse()
            .unwrap();
        job.origin = Origin {
            idempotency: Some(Idempotency {
                key: "k".into(),
                request: "r".into(),
            }),
            retry_of: Some(JobId::random()),
            trace: Some(trace.with_state(Some("a=1"))),
        };
        job
    }

    #[test]
    fn every_state_survives_the_file() {
        let mut job = job();
        let now = job.created_at;
        let fence = Fence(3);
        let failure = Failure::new(
            FailureClass::Clone,
            "no such repository",
            "check the address",
        );
        let mut seen = vec![job.clone()];
        job.apply(&Transition::Claim {
            pod: "pod-0".parse().unwrap(),
            fence,
            at: now,
        })
        .unwrap();
        seen.push(job.clone());
        job.apply(&Transition::Cancel { at: now }).unwrap();
        seen.push(job.clone());
        for outcome in [
            Outcome::Succeeded,
            Outcome::Cancelled,
            Outcome::Failed(failure),
        ] {
            let mut ended = job.clone();
            ended
                .apply(&Transition::Finish {
                    fence,
                    outcome,
                    at: now,
                })
                .unwrap();
            seen.push(ended);
        }
        for job in seen {
            let text = serde_json::to_string(&Record::from(&job)).unwrap();
            assert_eq!(
                Job::try_from(serde_json::from_str::<Record>(&text).unwrap()).unwrap(),
                job
            );
        }
    }

    #[test]
    fn the_fields_of_the_old_record_are_all_there() {
        let value = serde_json::to_value(Record::from(&job())).unwrap();
        for field in [
            "id",
            "repo_url",
            "base_ref",
            "task",
            "profile",
            "status",
            "mode",
            "exit_code",
            "session_id",
            "pr_url",
            "output",
            "error",
            "created_at",
            "started_at",
            "ended_at",
            "ttl_seconds",
            "pid",
            "pod_name",
            "worktree_path",
            "job_config_dir",
        ] {
            assert!(value.get(field).is_some(), "{field}");
        }
    }

    #[test]
    fn errors_are_cut_between_characters() {
        assert_eq!(cut("aüb", 2), "a");
        assert_eq!(cut("aüb", 9), "aüb");
    }
}
