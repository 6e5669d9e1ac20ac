//! The event stream of a job: what its watchers see, in order, numbered from 1 without gaps.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{Failure, Status, Usage};

/// One event as stored and sent: one line of JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Its number in the job's stream.
    pub seq: u64,
    /// When it was stored.
    pub ts: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub body: EventBody,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum EventBody {
    /// The job's status changed.
    Status {
        /// The new status.
        status: Status,
        /// The attempt it is in; 0 before the first claim.
        attempt: u32,
        /// The pod, when it runs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pod: Option<String>,
        /// Why, where that is not plain: `hand_off`, `reclaimed`, `cancel_requested`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// A step of the pipeline began or ended.
    Stage {
        /// Which step.
        stage: Stage,
        /// What it did.
        state: StageState,
        /// More, for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    /// A line of the agent's output.
    Log {
        /// Where it came from.
        stream: LogStream,
        /// The text; it may hold line breaks.
        text: String,
    },
    /// Something the agent did.
    Agent(AgentEvent),
    /// What the job has used up, over all attempts.
    Usage {
        /// Tokens.
        #[serde(flatten)]
        usage: Usage,
        /// Dollars.
        cost_usd: f64,
        /// Turns.
        turns: u32,
    },
    /// The pull request.
    Pr {
        /// What became of it: `opened`, `skipped`, `failed`.
        state: String,
        /// Its address.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        url: Option<String>,
        /// More, for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    /// A plugin said or was refused something.
    Plugin {
        /// The plugin's name.
        plugin: String,
        /// `info`, `warn` or `error`.
        level: String,
        /// The text.
        message: String,
    },
    /// Events before this one are gone; the reader goes on from here, and is given the record beside it, as `job`.
    Reset {
        /// The oldest event that is left.
        oldest: u64,
    },
    /// The job is over; nothing follows.
    End {
        /// Its last status.
        status: Status,
        /// The agent's exit code.
        exit_code: Option<i32>,
        /// Why it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<Failure>,
        /// How many attempts it took.
        attempt: u32,
        /// Dollars over all attempts.
        cost_usd: f64,
        /// The pull request.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pr_url: Option<String>,
    },
}

impl EventBody {
    /// The event's name on the wire, which is also its `type`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Status { .. } => "status",
            Self::Stage { .. } => "stage",
            Self::Log { .. } => "log",
            Self::Agent(_) => "agent",
            Self::Usage { .. } => "usage",
            Self::Pr { .. } => "pr",
            Self::Plugin { .. } => "plugin",
            Self::Reset { .. } => "reset",
            Self::End { .. } => "end",
        }
    }
}

/// The steps of the pipeline, in their order; the last one, finish, is told by `end`. The same words name modules, spans and record fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Bring the repository and make the worktree.
    Clone,
    /// Turn the profile into a launch plan and write its files.
    Materialize,
    /// Ask the hooks whether to start.
    PreHook,
    /// Run the agent.
    AgentRun,
    /// Tell the hooks how it ended.
    PostHook,
    /// Push the branch and open the pull request.
    PullRequest,
}

impl Stage {
    /// Every stage in order.
    pub const ALL: [Self; 6] = [
        Self::Clone,
        Self::Materialize,
        Self::PreHook,
        Self::AgentRun,
        Self::PostHook,
        Self::PullRequest,
    ];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Clone => "clone",
            Self::Materialize => "materialize",
            Self::PreHook => "pre_hook",
            Self::AgentRun => "agent_run",
            Self::PostHook => "post_hook",
            Self::PullRequest => "pull_request",
        }
    }
}

/// What a stage did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StageState {
    /// It began.
    Started,
    /// It waits for something, such as a lock.
    Waiting,
    /// It ended well.
    Done,
    /// It failed.
    Failed,
}

/// Where a log line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// What the plugin read out of the agent's output.
    Agent,
    /// Standard error, or output that no plugin read.
    Stderr,
    /// The host itself.
    Host,
}

/// Something the agent did, as its plugin reported it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum AgentEvent {
    /// The process started.
    Started {
        /// Its process id.
        pid: u32,
        /// The program.
        program: String,
    },
    /// The process ended.
    Exited {
        /// The exit code.
        code: Option<i32>,
        /// The signal.
        signal: Option<i32>,
    },
    /// It has a session.
    Session {
        /// The id.
        id: String,
    },
    /// A model answers.
    Model {
        /// Its name.
        model: String,
    },
    /// A tool began.
    ToolCall {
        /// The call's id.
        id: String,
        /// The tool.
        name: String,
        /// One line for people.
        summary: String,
    },
    /// A tool ended.
    ToolResult {
        /// The call's id.
        id: String,
        /// Whether it failed.
        is_error: bool,
        /// The beginning of what it gave back.
        summary: String,
    },
    /// A request is tried again.
    Retry {
        /// Which try.
        attempt: u32,
        /// Of how many.
        max_attempts: u32,
        /// After how many milliseconds.
        delay_ms: u64,
        /// Why.
        reason: String,
    },
    /// A permission was refused.
    Denial {
        /// The tool.
        tool: String,
        /// One line for people.
        summary: String,
    },
    /// Something this version has no name for.
    Other {
        /// The plugin's name for it.
        name: String,
        /// Its value.
        value: Value,
    },
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn an_event_is_one_flat_line() {
        let event = Event {
            seq: 3,
            ts: "2026-11-22T10:00:00Z".parse().unwrap(),
            body: EventBody::Agent(AgentEvent::ToolCall {
                id: "t1".into(),
                name: "Bash".into(),
                summary: "ls\n-l".into(),
            }),
        };
        let line = serde_json::to_string(&event).unwrap();
        assert_eq!(
            line,
            r#"{"seq":3,"ts":"2026-11-22T10:00:00Z","type":"agent","kind":"tool_call","id":"t1","name":"Bash","summary":"ls\n-l"}"#
        );
        assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
    }

    #[test]
    fn stage_words_are_their_json() {
        for stage in Stage::ALL {
            assert_eq!(serde_json::to_value(stage).unwrap(), stage.as_str());
        }
    }
}
