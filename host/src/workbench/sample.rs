//! A sample job: what a plugin is called with outside of a server, written by its author as YAML or JSON.
//!
//! Everything has a default, so an empty document is a job too. The record that `agenticore job ID --json` prints can stand in the
//! place of `job`: what a call does not need is passed over.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::Unusable;
use crate::plugin::types::{
    Argument, Budget, Content, EnvValue, EnvVar, FileEntry, FileMode, Job, LaunchPlan, RunResult,
    SessionPlan, StopPlan, Usage,
};
use crate::plugin::{Grants, LimitsPatch};
use crate::profile::HookPoint;

/// The job of a sample that names none. Its time is part of the id, so the virtual clock of every run starts at the same moment.
const SAMPLE_JOB: &str = "01941f29-7c00-7000-8000-000000000001";

/// What is called, and with what.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sample {
    /// The component, as a path beside the document; none: the command line names it.
    pub component: Option<String>,
    /// The hook to call; none: `materialize`.
    pub hook: Option<HookPoint>,
    /// The job.
    pub job: SampleJob,
    /// A profile: its name, or its folder as a path beside the document.
    pub profile: Option<String>,
    /// The plugin's configuration; none: that of the profile's entry for the component.
    pub config: Option<Map<String, Value>>,
    /// What the operator set for the plugin, laid over what the settings of this machine say.
    pub operator: Map<String, Value>,
    /// What is granted; none: what the profile's entry for the component grants, or what it asks for where no profile names it.
    pub grants: Option<Grants>,
    /// Limits below the operator's.
    pub limits: Map<String, Value>,
    /// The plan that a pre hook judges; none: the one that the profile's plugin makes.
    pub plan: Option<SamplePlan>,
    /// How the run ended, for a post hook.
    pub result: SampleResult,
}

/// The job of a sample.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct SampleJob {
    /// Its id, a UUID; clock and random numbers of the call follow from it.
    pub id: String,
    /// Which attempt it is.
    pub attempt: u32,
    /// The task.
    pub task: String,
    /// The repository.
    #[serde(deserialize_with = "text_or_none")]
    pub repo_url: Option<String>,
    /// The branch or commit that the work starts from.
    #[serde(deserialize_with = "text_or_none")]
    pub base_ref: Option<String>,
    /// The branch that the agent works on.
    #[serde(deserialize_with = "text_or_none")]
    pub branch: Option<String>,
    /// The profile's name; empty: that of the sample's profile.
    pub profile: String,
}

impl Default for SampleJob {
    fn default() -> Self {
        Self {
            id: SAMPLE_JOB.to_owned(),
            attempt: 1,
            task: "echo hello".to_owned(),
            repo_url: None,
            base_ref: None,
            branch: None,
            profile: String::new(),
        }
    }
}

/// A record has empty texts where a job has nothing.
fn text_or_none<'de, D: Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(d)?.filter(|text| !text.is_empty()))
}

/// A plan as a pre hook sees it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplePlan {
    /// The program.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its variables.
    pub env: BTreeMap<String, String>,
    /// Its files, the text by the path.
    pub files: BTreeMap<String, String>,
    /// Its limit of wall time in seconds.
    pub time_limit: Option<u32>,
}

/// The end of a run as a post hook sees it.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SampleResult {
    /// `succeeded` or `failed`.
    pub status: String,
    /// The failure's class.
    pub failure: String,
    /// The failure's message.
    pub message: String,
    /// The output.
    pub output: String,
    /// Tokens read, written, read from a cache, written to a cache.
    pub tokens: [u64; 4],
    /// Dollars.
    pub cost_usd: f64,
    /// Turns.
    pub turns: u32,
    /// Paths that differ from the base.
    pub changed_files: Vec<String>,
}

impl Default for SampleResult {
    fn default() -> Self {
        Self {
            status: "succeeded".to_owned(),
            failure: String::new(),
            message: String::new(),
            output: "hello\n".to_owned(),
            tokens: [0; 4],
            cost_usd: 0.0,
            turns: 0,
            changed_files: Vec::new(),
        }
    }
}

impl Sample {
    /// Reads a document.
    ///
    /// # Errors
    /// [`Unusable`] naming the file and what is wrong in it.
    pub fn read(path: &Path) -> Result<Self, Unusable> {
        serde_saphyr::from_str(&super::read_text(path)?).map_err(|e| Unusable::at(path, e))
    }
}

impl SampleJob {
    /// Reads a job, which may be the record of one.
    ///
    /// # Errors
    /// [`Unusable`] naming the file and what is wrong in it.
    pub fn read(path: &Path) -> Result<Self, Unusable> {
        serde_saphyr::from_str(&super::read_text(path)?).map_err(|e| Unusable::at(path, e))
    }

    /// As plugins get it.
    pub(super) fn for_plugins(&self, profile: &str) -> Job {
        Job {
            id: self.id.clone(),
            attempt: self.attempt.max(1),
            task: self.task.clone(),
            repo_url: self.repo_url.clone(),
            base_ref: self.base_ref.clone(),
            branch: self.branch.clone(),
            profile: profile.to_owned(),
        }
    }
}

impl SamplePlan {
    pub(super) fn for_host(&self) -> LaunchPlan {
        let file = |(path, text): (&String, &String)| FileEntry {
            path: path.clone(),
            content: Content::Bytes(text.clone().into_bytes()),
            mode: FileMode::Regular,
        };
        let var = |(name, value): (&String, &String)| EnvVar {
            name: name.clone(),
            value: EnvValue::Literal(value.clone()),
        };
        LaunchPlan {
            files: self.files.iter().map(file).collect(),
            keep: Vec::new(),
            program: self.program.clone(),
            arguments: self
                .arguments
                .iter()
                .cloned()
                .map(Argument::Literal)
                .collect(),
            env: self.env.iter().map(var).collect(),
            stdin: None,
            time_limit: self.time_limit,
            budget: Budget {
                cost_usd: None,
                turns: None,
            },
            session: SessionPlan {
                id: None,
                transcript: None,
            },
            stop: StopPlan::Terminate,
        }
    }
}

impl SampleResult {
    pub(super) fn for_plugins(&self) -> RunResult {
        let [
            input_tokens,
            output_tokens,
            cache_read_tokens,
            cache_write_tokens,
        ] = self.tokens;
        RunResult {
            status: self.status.clone(),
            failure: self.failure.clone(),
            message: self.message.clone(),
            output: self.output.clone(),
            usage: Usage {
                input_tokens,
                output_tokens,
                cache_read_tokens,
                cache_write_tokens,
            },
            cost_usd: self.cost_usd,
            turns: self.turns,
            changed_files: self.changed_files.clone(),
        }
    }
}

/// Checks that a sample's limits are limits, so that a wrong key is told as the sample's fault.
pub(super) fn check_limits(limits: &Map<String, Value>) -> Result<(), serde_json::Error> {
    serde_json::from_value::<LimitsPatch>(Value::Object(limits.clone())).map(drop)
}
