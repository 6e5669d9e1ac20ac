//! A sample job: what a plugin is called with outside of a server, written by its author as YAML or JSON.
//!
//! Everything has a default, so an empty document is a job too. The record that `agenticore job ID --json` prints can stand in the
//! place of `job`: what a call does not need is passed over.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::Unusable;
use crate::plugin::types::{
    Argument, Budget, Content, EnvValue, EnvVar, Exit, FileEntry, FileMode, Job, LaunchPlan, Line,
    OutputStream, Passage, PassageKind, RunResult, SessionPlan, StopPlan, Usage,
};
use crate::plugin::{Grants, LimitsPatch, text};
use crate::profile::HookPoint;

/// The job of a sample that names none. Its time is part of the id, so the virtual clock of every run starts at the same moment.
const SAMPLE_JOB: &str = "01941f29-7c00-7000-8000-000000000001";

/// Bytes of standard error that a plugin is shown at the end.
const STDERR_TAIL: usize = 8 * 1024;

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
    /// The texts that a redacting hook cleans; none: the output of `result`.
    pub passages: Vec<SamplePassage>,
    /// What the agent printed and how it ended: `agent` is called with it in the place of `materialize`.
    pub run: Option<SampleRun>,
}

/// Some text of the job, for a redacting hook.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplePassage {
    /// Where it will stand.
    #[serde(with = "KindName")]
    pub kind: PassageKind,
    /// The text.
    pub text: String,
}

/// The kinds of passages as they are written.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", remote = "PassageKind")]
enum KindName {
    Output,
    Message,
    Failure,
    Annotation,
    PullRequestTitle,
    PullRequestBody,
}

/// What an agent printed and how it ended.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SampleRun {
    /// Its standard output.
    pub stdout: String,
    /// A file with its standard output, as a path beside the document; it comes after `stdout`.
    pub stdout_file: Option<String>,
    /// Its standard error, which is read after the output.
    pub stderr: String,
    /// How its process ended.
    pub exit: SampleExit,
    /// The id of the session, where the plan chose one.
    pub session: Option<String>,
}

/// How an agent's process ended.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SampleExit {
    /// The exit code; none, without a signal either: 0.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether the host had asked it to stop.
    pub stop_requested: bool,
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
        let mut sample: Self =
            serde_saphyr::from_str(&super::read_text(path)?).map_err(|e| Unusable::at(path, e))?;
        if let Some(run) = &mut sample.run
            && let Some(file) = run.stdout_file.take()
        {
            let output = super::read_text(&super::beside(path, &file))?;
            run.stdout.push_str(&output);
        }
        Ok(sample)
    }

    pub(super) fn passages(self) -> Vec<SamplePassage> {
        if !self.passages.is_empty() {
            return self.passages;
        }
        vec![SamplePassage {
            kind: PassageKind::Output,
            text: self.result.output,
        }]
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

impl SamplePassage {
    pub(super) fn for_plugins(&self) -> Passage {
        Passage {
            kind: self.kind,
            text: self.text.clone(),
        }
    }
}

impl SampleRun {
    /// The lines, those of standard output first.
    pub(super) fn lines(&self) -> Vec<Line> {
        let lines = |text: &str, stream: OutputStream| -> Vec<Line> {
            let line = |text: &str| Line {
                stream,
                text: text.to_owned(),
                truncated: false,
            };
            text.lines().map(line).collect()
        };
        let mut all = lines(&self.stdout, OutputStream::Stdout);
        all.extend(lines(&self.stderr, OutputStream::Stderr));
        all
    }

    pub(super) fn exit(&self) -> Exit {
        let SampleExit {
            code,
            signal,
            stop_requested,
        } = self.exit;
        Exit {
            code: code.or_else(|| signal.is_none().then_some(0)),
            signal,
            stop_requested,
            stderr_tail: text::tail(&self.stderr, STDERR_TAIL).to_owned(),
        }
    }
}

/// Checks that a sample's limits are limits, so that a wrong key is told as the sample's fault.
pub(super) fn check_limits(limits: &Map<String, Value>) -> Result<(), serde_json::Error> {
    serde_json::from_value::<LimitsPatch>(Value::Object(limits.clone())).map(drop)
}
