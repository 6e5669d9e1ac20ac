//! What is known of a job's attempts while they run and after.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Admitted, HookUse, PluginUse, PodName, PullRequest, SessionId, Verdict, Wishes};

/// What the attempts of a job left behind; numbers are sums over all attempts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Run {
    /// The pod that claimed it last.
    pub pod: Option<PodName>,
    /// Which life of that pod, in a fleet.
    pub life: Option<String>,
    /// How many attempts were cut short because their host died.
    pub interruptions: u32,
    /// The agent's process, while it runs.
    pub pid: Option<u32>,
    /// The agent's exit code.
    pub exit_code: Option<i32>,
    /// The agent's session.
    pub session_id: Option<SessionId>,
    /// Where the agent's record of the session is, as the plan of the last attempt said; none: it cannot be resumed.
    pub transcript: Option<Transcript>,
    /// The directory the agent works in.
    pub worktree_path: Option<PathBuf>,
    /// The directory of its configuration.
    pub job_config_dir: Option<PathBuf>,
    /// The branch it works on.
    pub branch: Option<String>,
    /// The commit the branch began at.
    pub base_commit: Option<String>,
    /// The pull request.
    pub pr_url: Option<String>,
    /// What became of the pull request.
    pub pull_request: Option<PullRequest>,
    /// What the agent's run came to, once it has an end.
    pub verdict: Option<Verdict>,
    /// What post hooks want of the pull request, once they were asked.
    pub wishes: Option<Wishes>,
    /// The agent's output, head and tail.
    pub output: Option<String>,
    /// What the agent said at its end, where its plugin can tell; its end, if it is long.
    pub message: Option<String>,
    /// How many bytes of output were cut out of the middle.
    pub output_cut: u64,
    /// The model that answered last.
    pub model: Option<String>,
    /// Tokens.
    pub usage: Usage,
    /// Dollars.
    pub cost_usd: f64,
    /// Turns.
    pub turns: u32,
    /// Seconds that agents of this job ran.
    pub agent_seconds: f64,
    /// Tools the agent called.
    pub tool_calls: u64,
    /// Requests the agent had to try again.
    pub retries: u64,
    /// Permissions the agent was refused, at most 100.
    pub denials: Vec<String>,
    /// The plugins that the job was admitted with.
    pub admitted: Vec<Admitted>,
    /// The profile plugin and its use.
    pub plugin: Option<PluginUse>,
    /// The calls of hook plugins, at most 100.
    pub hooks: Vec<HookUse>,
    /// What post hooks had to say.
    pub annotations: BTreeMap<String, String>,
    /// Things the user should know that did not fail the job.
    pub warnings: Vec<String>,
}

/// Where an agent's record of its session is, below the job's config directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Transcript {
    /// A glob that matches its file.
    pub pattern: String,
    /// The session can be resumed once the file contains this text.
    pub marker: String,
    /// The paths that another attempt, or a job that goes on with the session, needs.
    #[serde(default)]
    pub keep: Vec<String>,
}

/// Tokens spent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Usage {
    /// Read without a cache.
    pub input_tokens: u64,
    /// Written by the model.
    pub output_tokens: u64,
    /// Read from a cache.
    pub cache_read_tokens: u64,
    /// Written to a cache.
    pub cache_write_tokens: u64,
}

impl std::ops::Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            input_tokens: self.input_tokens.saturating_add(other.input_tokens),
            output_tokens: self.output_tokens.saturating_add(other.output_tokens),
            cache_read_tokens: self
                .cache_read_tokens
                .saturating_add(other.cache_read_tokens),
            cache_write_tokens: self
                .cache_write_tokens
                .saturating_add(other.cache_write_tokens),
        }
    }
}
