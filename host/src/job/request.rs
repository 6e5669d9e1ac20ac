//! What a submitter asks for. A [`Request`] is valid once it exists.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{InvalidName, ProfileName, Record, SessionId};
use crate::git::{BaseRef, InvalidRef, InvalidUrl, RepoUrl, UrlPolicy};

/// The longest task, in bytes. It travels through a pipe, so no argument limit applies; this one keeps records small.
const MAX_TASK_BYTES: usize = 512 * 1024;

/// A request as it comes in: the JSON body of `POST /jobs`. Empty texts count as not given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RequestBody {
    /// What the agent is to do.
    #[schema(required = true)]
    pub task: String,
    /// The repository; none for a local task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repo_url: Option<String>,
    /// The profile; none for the server's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The branch or commit to start from; none for the remote's default branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_ref: Option<String>,
    /// Whether the answer waits for the job's end.
    pub wait: bool,
    /// A session of the agent to go on with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
}

/// What the server allows and what it fills in.
#[derive(Debug, Clone)]
pub struct RequestPolicy {
    /// Which repositories may be named.
    pub urls: UrlPolicy,
    /// The profile where none is given.
    pub default_profile: ProfileName,
    /// How long a job is kept, in seconds.
    pub ttl_seconds: u64,
}

/// Whether the submitter waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The answer comes at once.
    #[default]
    FireAndForget,
    /// The answer comes with the job's end.
    Sync,
}

/// A valid request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What the agent is to do; never empty.
    pub task: String,
    /// The repository.
    pub repo_url: Option<RepoUrl>,
    /// The branch or commit to start from.
    pub base_ref: Option<BaseRef>,
    /// The profile.
    pub profile: ProfileName,
    /// Whether the submitter waits.
    pub mode: Mode,
    /// A session of the agent to go on with.
    pub session_id: Option<SessionId>,
    /// How long the job is kept after its end, and how long it may wait before its start, in seconds.
    pub ttl_seconds: u64,
}

/// A request that is refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BadRequest {
    /// There is no task.
    #[error("the task is empty: say what the agent is to do")]
    EmptyTask,
    /// The task is too long.
    #[error(
        "the task has {0} bytes; at most {MAX_TASK_BYTES} are allowed: put the long part into a file of the repository"
    )]
    LongTask(usize),
    /// The task holds a NUL.
    #[error("the task holds a NUL character, which no program can be given")]
    NulInTask,
    /// A name is not valid.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The repository's address is not valid or not allowed.
    #[error("repo_url: {0}")]
    Url(#[from] InvalidUrl),
    /// The base ref is not valid.
    #[error("base_ref: {0}")]
    Ref(#[from] InvalidRef),
    /// A base ref makes no sense here.
    #[error("base_ref needs a repo_url: a local task has no branches")]
    RefWithoutRepo,
}

impl From<&Record> for RequestBody {
    /// What was asked for, to ask for it again.
    fn from(record: &Record) -> Self {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Self {
            task: record.task.clone(),
            repo_url: given(&record.repo_url),
            profile: given(&record.profile),
            base_ref: given(&record.base_ref),
            wait: false,
            session_id: record.resumed_session_id.clone(),
        }
    }
}

impl RequestBody {
    /// Checks the request and fills in what is not given.
    ///
    /// # Errors
    /// [`BadRequest`] with the field that is wrong and what would be right.
    pub fn parse(self, policy: &RequestPolicy) -> Result<Request, BadRequest> {
        let given = |text: Option<String>| text.filter(|t| !t.is_empty());
        if self.task.trim().is_empty() {
            return Err(BadRequest::EmptyTask);
        }
        if self.task.len() > MAX_TASK_BYTES {
            return Err(BadRequest::LongTask(self.task.len()));
        }
        if self.task.contains('\0') {
            return Err(BadRequest::NulInTask);
        }
        let repo_url = given(self.repo_url)
            .map(|u| RepoUrl::parse(&u, &policy.urls))
            .transpose()?;
        let base_ref = given(self.base_ref)
            .map(|r| r.parse::<BaseRef>())
            .transpose()?;
        // Older clients send their default `main` with every local task.
        let base_ref = match (&repo_url, base_ref) {
            (None, Some(r)) if r.as_str() != "main" => return Err(BadRequest::RefWithoutRepo),
            (None, _) => None,
            (Some(_), r) => r,
        };
        Ok(Request {
            task: self.task,
            repo_url,
            base_ref,
            profile: given(self.profile)
                .map_or_else(|| Ok(policy.default_profile.clone()), |p| p.parse())?,
            mode: if self.wait {
                Mode::Sync
            } else {
                Mode::FireAndForget
            },
            session_id: given(self.session_id).map(|s| s.parse()).transpose()?,
            ttl_seconds: policy.ttl_seconds,
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn policy(local: bool) -> RequestPolicy {
        RequestPolicy {
            urls: UrlPolicy { allow_file: local },
            default_profile: "code".parse().unwrap(),
            ttl_seconds: 60,
        }
    }

    fn refused(body: serde_json::Value) -> String {
        serde_json::from_value::<RequestBody>(body)
            .unwrap()
            .parse(&policy(false))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn what_is_not_given_is_filled_in() {
        let body: RequestBody = serde_json::from_str(
            r#"{"task":"do it","repo_url":"","profile":"","base_ref":"main","session_id":""}"#,
        )
        .unwrap();
        let request = body.parse(&policy(false)).unwrap();
        assert_eq!(request.profile.as_str(), "code");
        assert_eq!(
            (request.repo_url, request.base_ref, request.session_id),
            (None, None, None)
        );
        assert_eq!(
            (request.mode, request.ttl_seconds),
            (Mode::FireAndForget, 60)
        );
    }

    #[test]
    fn bad_requests_say_what_is_wrong() {
        use serde_json::json;
        assert!(refused(json!({"task": " \n"})).contains("task is empty"));
        assert!(refused(json!({"task": "x\0y"})).contains("NUL"));
        assert!(refused(json!({"task": "x", "profile": "../x"})).contains("profile name"));
        assert!(refused(json!({"task": "x", "session_id": "--resume"})).contains("session id"));
        assert!(refused(json!({"task": "x", "base_ref": "dev"})).contains("needs a repo_url"));
        for url in [
            "--upload-pack=touch /tmp/x",
            "ext::sh -c id",
            "file:///tmp/x",
        ] {
            refused(json!({"task": "x", "repo_url": url}));
        }
        assert!(
            serde_json::from_str::<RequestBody>(r#"{"task":"x","repo":"y"}"#)
                .unwrap_err()
                .to_string()
                .contains("repo")
        );
    }
}
