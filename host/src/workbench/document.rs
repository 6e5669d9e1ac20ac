//! Answers of plugins as documents that people read and tests compare: the same answer is the same text on every machine.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::sample::SamplePassage;
use crate::plugin::types::{
    Conclusion, Ending, EnvValue, Fact, FailureClass, FileMode, PullRequestVerdict, Review,
    StopPlan,
};
use crate::plugin::{CheckedPlan, Digest, Grants, Origin, PluginError, PreJob, shown_location};

/// What a plugin answered, after every check of the host.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The plan of `materialize`.
    Plan(Box<CheckedPlan>),
    /// A pre hook's verdict.
    PreJob(PreJob),
    /// A post hook's review.
    PostJob(Review),
    /// What a redacting hook made of each passage.
    Redact(Vec<Redacted>),
    /// What `agent` made of a run's output, and its conclusion.
    Run(Vec<Fact>, Conclusion),
}

/// A passage as it would be kept.
#[derive(Debug, Clone, Serialize)]
pub struct Redacted {
    #[serde(flatten)]
    passage: SamplePassage,
    changed: bool,
}

impl Redacted {
    /// A passage, and what a plugin answered to it.
    #[must_use]
    pub fn new(mut passage: SamplePassage, answer: Option<String>) -> Self {
        let changed = answer.is_some();
        if let Some(text) = answer {
            passage.text = text;
        }
        Self { passage, changed }
    }
}

/// A launch plan.
#[derive(Debug, Clone, Serialize)]
pub struct PlanDocument {
    program: String,
    arguments: Vec<String>,
    env: BTreeMap<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stdin: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_limit_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    budget_usd: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    budget_turns: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<Value>,
    stop: String,
    keep: Vec<String>,
    grants: Grants,
    tree: TreeDocument,
}

/// The files of a plan.
#[derive(Debug, Clone, Serialize)]
pub struct TreeDocument {
    /// The digest over paths, modes and bytes; the job's record has the same.
    sha256: Digest,
    bytes: u64,
    files: Vec<FileDocument>,
}

#[derive(Debug, Clone, Serialize)]
struct FileDocument {
    path: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    executable: bool,
    bytes: usize,
    sha256: Digest,
    from: Origin,
}

impl From<&CheckedPlan> for PlanDocument {
    fn from(plan: &CheckedPlan) -> Self {
        let transcript = |t: &crate::plugin::types::Transcript| json!({"pattern": t.pattern, "marker": t.marker});
        let session = &plan.session;
        let known = session.id.is_some() || session.transcript.is_some();
        Self {
            program: plan.program.clone(),
            arguments: plan.view().arguments,
            env: plan
                .env
                .iter()
                .map(|var| (var.name.clone(), env_value(&var.value)))
                .collect(),
            stdin: plan
                .stdin
                .as_ref()
                .map(|bytes| String::from_utf8_lossy(bytes).into_owned()),
            time_limit_seconds: plan.time_limit.map(|time| time.as_secs()),
            budget_usd: plan.budget.cost_usd,
            budget_turns: plan.budget.turns,
            session: known.then(
                || json!({"id": session.id, "transcript": session.transcript.as_ref().map(transcript)}),
            ),
            stop: match &plan.stop {
                StopPlan::Terminate => "terminate".to_owned(),
                StopPlan::Interrupt => "interrupt".to_owned(),
                StopPlan::CreateFile(at) => format!("create {}", shown_location(at)),
            },
            keep: plan.keep.clone(),
            grants: plan.grants.clone(),
            tree: tree(plan),
        }
    }
}

impl PlanDocument {
    /// The plan without its files, as lines for people.
    #[must_use]
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        let mut command = vec![self.program.clone()];
        command.extend(self.arguments.iter().cloned());
        let mut facts = vec![("starts", command.join(" "))];
        facts.extend(
            self.env
                .iter()
                .map(|(name, value)| ("env", format!("{name}={value}"))),
        );
        facts.extend(
            self.stdin
                .as_ref()
                .map(|text| ("stdin", format!("{} bytes: {text}", text.len()))),
        );
        let time = self.time_limit_seconds.map(|s| format!("{s} s"));
        let dollars = self.budget_usd.map(|usd| format!("${usd}"));
        let turns = self.budget_turns.map(|turns| format!("{turns} turns"));
        let limits: Vec<String> = [time, dollars, turns].into_iter().flatten().collect();
        if !limits.is_empty() {
            facts.push(("at most", limits.join(", ")));
        }
        facts.extend(self.session.as_ref().map(|s| ("session", s.to_string())));
        facts.push(("stop", self.stop.clone()));
        facts.extend(self.keep.iter().map(|path| ("keeps", path.clone())));
        facts
    }
}

fn tree(plan: &CheckedPlan) -> TreeDocument {
    let file = |file: &crate::plugin::TreeFile| FileDocument {
        path: file.path.clone(),
        executable: file.mode == FileMode::Executable,
        bytes: file.bytes.len(),
        sha256: Digest::of(&file.bytes),
        from: file.origin.clone(),
    };
    TreeDocument {
        sha256: plan.tree.digest(),
        bytes: plan.tree.total_bytes(),
        files: plan.tree.files().iter().map(file).collect(),
    }
}

/// A secret is a name here as everywhere.
fn env_value(value: &EnvValue) -> Value {
    match value {
        EnvValue::Literal(text) => json!(text),
        EnvValue::Path(at) => json!({"path": shown_location(at)}),
        EnvValue::Secret(name) => json!({"secret": name}),
        EnvValue::OptionalSecret(name) => json!({"optional-secret": name}),
        EnvValue::Inherit(name) => json!({"inherit": name}),
    }
}

impl Answer {
    /// The answer as one JSON value.
    #[must_use]
    pub fn document(&self) -> Value {
        match self {
            Self::Plan(plan) => plan_value(plan),
            Self::PreJob(PreJob::Proceed) => json!({"verdict": "proceed"}),
            Self::PreJob(PreJob::Reject(reason)) => {
                json!({"verdict": "reject", "reason": reason})
            }
            Self::PreJob(PreJob::Patched(plan)) => {
                json!({"verdict": "patch", "plan": plan_value(plan)})
            }
            Self::PostJob(review) => review_value(review),
            Self::Redact(passages) => json!({"passages": passages}),
            Self::Run(facts, conclusion) => json!({
                "facts": facts.iter().map(fact).collect::<Vec<_>>(), "conclusion": concluded(conclusion),
            }),
        }
    }

    /// What the document is called in a case's folder.
    pub(super) fn file_name(&self) -> &'static str {
        match self {
            Self::Plan(_) => "plan.json",
            Self::PreJob(_) => "verdict.json",
            Self::PostJob(_) => "review.json",
            Self::Redact(_) => "passages.json",
            Self::Run(..) => "run.json",
        }
    }

    /// The plan, where the answer is or holds one.
    #[must_use]
    pub fn plan(&self) -> Option<&CheckedPlan> {
        match self {
            Self::Plan(plan) | Self::PreJob(PreJob::Patched(plan)) => Some(plan),
            _ => None,
        }
    }
}

fn plan_value(plan: &CheckedPlan) -> Value {
    serde_json::to_value(PlanDocument::from(plan)).unwrap_or_default()
}

fn review_value(review: &Review) -> Value {
    let annotations: Vec<Value> = review
        .annotations
        .iter()
        .map(|a| json!({"key": a.key, "value": a.value}))
        .collect();
    let pull_request = match &review.pull_request {
        PullRequestVerdict::Keep => json!("keep"),
        PullRequestVerdict::Veto(reason) => json!({"veto": reason}),
        PullRequestVerdict::Amend(text) => {
            json!({"amend": {"title": text.title, "body": text.body}})
        }
    };
    json!({"annotations": annotations, "pull_request": pull_request})
}

fn fact(fact: &Fact) -> Value {
    match fact {
        Fact::Session(id) => json!({"session": id}),
        Fact::Text(text) => json!({"text": text}),
        Fact::Model(name) => json!({"model": name}),
        Fact::ToolCall(call) => json!({"tool-call": call}),
        Fact::ToolResult(result) => json!({"tool-result": result}),
        Fact::Usage(usage) => json!({"usage": usage}),
        Fact::CostUsd(dollars) => json!({"cost-usd": dollars}),
        Fact::Turns(turns) => json!({"turns": turns}),
        Fact::Retry(retry) => json!({"retry": retry}),
        Fact::Denial(denial) => json!({"denial": denial}),
        Fact::Other(other) => json!({"other": other}),
    }
}

fn concluded(conclusion: &Conclusion) -> Value {
    let ending = match &conclusion.ending {
        Ending::Succeeded => json!("succeeded"),
        Ending::Stopped => json!("stopped"),
        Ending::Failed(failure) => {
            let class = match failure.class {
                FailureClass::Agent => "agent",
                FailureClass::Api => "api",
                FailureClass::Budget => "budget",
            };
            json!({"failed": {"class": class, "message": failure.message, "remedy": failure.remedy}})
        }
    };
    let facts: Vec<Value> = conclusion.facts.iter().map(fact).collect();
    json!({"ending": ending, "output": conclusion.output, "message": conclusion.message, "facts": facts})
}

/// A refusal without what differs from run to run, such as the milliseconds of a call that took too long.
pub(super) fn refusal(error: &PluginError) -> Value {
    let mut value = json!({"code": error.code, "message": error.message});
    if let Some(fields) = value.as_object_mut() {
        if let Some(limit) = &error.limit {
            fields.insert("limit".into(), json!(limit.name));
            fields.insert("allowed".into(), json!(limit.allowed));
        }
        if let Some(grant) = &error.grant {
            fields.insert("grant".into(), json!(grant));
        }
        fields.insert("remedy".into(), json!(error.remedy));
    }
    value
}

/// A document as it stands in a file: indented, with a line end.
pub(super) fn text(value: &Value) -> String {
    format!("{value:#}\n")
}
