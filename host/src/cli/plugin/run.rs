//! `agenticore plugin run`: one call for a sample job, as a server would make it.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde_json::{Map, Value, json};

use super::super::context::Context;
use super::super::exit::{ExitCode, UsageError};
use super::super::output::Format;
use super::page::Page;
use super::{failed, refused, unusable, workbench};
use crate::plugin::types::FileMode;
use crate::plugin::{Grant, Origin, PluginError, PreJob, apply};
use crate::profile::HookPoint;
use crate::workbench::document::{Answer, PlanDocument};
use crate::workbench::sample::{Sample, SampleJob};
use crate::workbench::{Failed, Ran, Trial, Workbench, component, read_text};

/// Call a plugin for a sample job, and show what it answers
///
/// The engine, the limits, the grants and the checks are those of a server with this machine's settings; nothing is started. The
/// hash of the tree is the one that a job's record has: give the record (`agenticore job ID --json`) as --job and its profile as
/// --profile, and the same plugin gives the same hash.
///
/// Exit codes: 0 it answered; 1 it failed, or its answer is refused; 2 the command or a file makes no sense.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    call: Call,
    /// Write the files of the plan to this folder, which must not exist
    #[arg(long, value_name = "FOLDER")]
    write: Option<PathBuf>,
}

/// What is called, and with what.
#[derive(Debug, clap::Args)]
pub(super) struct Call {
    /// The component, such as `plugin.wasm`, or the name of a bundled plugin
    pub(super) file: PathBuf,
    /// Call a hook in the place of `materialize`
    #[arg(long, value_enum)]
    hook: Option<Point>,
    /// Call `agent` in the place of `materialize`: let it read this file as what the agent printed
    #[arg(long, value_name = "FILE", conflicts_with = "hook")]
    agent_output: Option<PathBuf>,
    /// A sample as `plugin test` has them, such as `cases/hello/case.yml`; other options win over it
    #[arg(long, value_name = "FILE")]
    sample: Option<PathBuf>,
    /// The job, as YAML or JSON; the record of a job will do
    #[arg(long, value_name = "FILE")]
    job: Option<PathBuf>,
    /// The task of the job
    #[arg(long, value_name = "TEXT")]
    task: Option<String>,
    /// The profile: its name, or its folder
    #[arg(long, value_name = "NAME|FOLDER")]
    profile: Option<String>,
    /// The plugin's configuration, one JSON object
    #[arg(long, value_name = "JSON")]
    config: Option<String>,
    /// Grant this, and nothing that is not named here; may be given many times
    #[arg(long, value_name = "KIND:NAME")]
    grant: Vec<Grant>,
}

/// A hook.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Point {
    /// Before the agent starts
    PreJob,
    /// After it ended
    PostJob,
    /// Before words of the job are kept and published
    Redact,
}

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let named = component(&args.call.file).map_err(|e| unusable(&e))?;
    let (sample, document) = args.call.sample()?;
    let bench = workbench()?;
    let trial = match bench.prepare(&named, sample, &document).await {
        Ok(trial) => trial,
        Err(Failed::Plugin(error)) => return refused(context, &error),
        Err(problem) => return Err(failed(problem)),
    };
    let ran = bench.run(&trial).await;
    if let (Some(folder), Ok(answer)) = (&args.write, &ran.answer) {
        write(folder, answer)?;
    }
    tell(context, &bench, &trial, &ran)
}

impl Call {
    /// The sample that the options add up to, and the document that its paths start at.
    pub(super) fn sample(&self) -> anyhow::Result<(Sample, PathBuf)> {
        let here = std::env::current_dir()?;
        let (mut sample, document) = match &self.sample {
            Some(path) => (
                Sample::read(path).map_err(|e| unusable(&e))?,
                here.join(path),
            ),
            None => (Sample::default(), here.join("sample")),
        };
        if let Some(point) = self.hook {
            sample.hook = Some(match point {
                Point::PreJob => HookPoint::PreJob,
                Point::PostJob => HookPoint::PostJob,
                Point::Redact => HookPoint::Redact,
            });
        }
        if let Some(path) = &self.agent_output {
            sample.hook = None;
            let run = sample.run.get_or_insert_default();
            run.stdout = read_text(path).map_err(|e| unusable(&e))?;
        }
        if let Some(path) = &self.job {
            sample.job = SampleJob::read(path).map_err(|e| unusable(&e))?;
        }
        if let Some(task) = &self.task {
            sample.job.task.clone_from(task);
        }
        if let Some(profile) = &self.profile {
            let folder = here.join(profile);
            sample.profile = Some(if folder.is_dir() {
                folder.to_string_lossy().into_owned()
            } else {
                profile.clone()
            });
        }
        if let Some(config) = &self.config {
            let object: Map<String, Value> = serde_json::from_str(config)
                .map_err(|e| UsageError(format!("--config is no JSON object: {e}")))?;
            sample.config = Some(object);
        }
        if !self.grant.is_empty() {
            sample.grants = Some(self.grant.iter().cloned().collect());
        }
        Ok((sample, document))
    }
}

fn write(folder: &Path, answer: &Answer) -> anyhow::Result<()> {
    let Some(plan) = answer.plan() else {
        return Err(UsageError("--write needs a plan, and there is none".into()).into());
    };
    if folder.exists() {
        let shown = folder.display();
        return Err(UsageError(format!("--write: {shown} exists already")).into());
    }
    apply::apply(&plan.tree, folder, &[], apply::Sync::None)?;
    Ok(())
}

fn tell(
    context: &Context,
    bench: &Workbench,
    trial: &Trial,
    ran: &Ran,
) -> anyhow::Result<ExitCode> {
    let output = &context.output;
    match output.format {
        Format::Json | Format::Jsonl => output.json(&report(bench, trial, ran))?,
        Format::Id => output.data(&format!("{}\n", tree_hash(ran)))?,
        Format::Table => output.data(&page(bench, trial, ran))?,
    }
    match &ran.answer {
        Ok(_) => Ok(ExitCode::Success),
        Err(error) => {
            output.note(&format!(
                "agenticore: {}",
                super::super::text::lines(&error.to_string())
            ));
            Ok(ExitCode::Failed)
        }
    }
}

fn tree_hash(ran: &Ran) -> String {
    let plan = ran.answer.as_ref().ok().and_then(Answer::plan);
    plan.map(|plan| plan.tree.digest().to_string())
        .unwrap_or_default()
}

/// The stable document of --json.
fn report(bench: &Workbench, trial: &Trial, ran: &Ran) -> Value {
    let plugin = trial.plugin();
    let about = plugin.description();
    json!({
        "ok": ran.answer.is_ok(),
        "plugin": {
            "name": about.map(|d| &d.name), "version": about.map(|d| &d.version),
            "sha256": plugin.digest(), "size": plugin.size(), "api": plugin.api(),
        },
        "call": trial.call(),
        "named_by_profile": trial.is_named(),
        "grants": trial.grants(bench),
        "limits": ran.limits,
        "answer": ran.answer.as_ref().ok().map(Answer::document),
        "error": ran.answer.as_ref().err(),
        "used": ran.uses(),
        "log": ran.report.as_ref().map(|r| &r.log_tail),
        "denials": ran.report.as_ref().map(|r| &r.denials),
    })
}

fn page(bench: &Workbench, trial: &Trial, ran: &Ran) -> String {
    let mut page = Page::default();
    if let Some(about) = trial.plugin().description() {
        page.fact("plugin", &format!("{} {}", about.name, about.version));
    }
    page.fact("sha256", &trial.plugin().digest().to_string());
    page.fact("call", trial.call());
    let granted: Vec<_> = trial
        .grants(bench)
        .effective
        .iter()
        .map(|g| g.to_string())
        .collect();
    page.fact("granted", &granted.join(" "));
    match &ran.answer {
        Ok(answer) => answer_facts(&mut page, answer),
        Err(error) => error_facts(&mut page, error),
    }
    page.facts(
        "used",
        ran.uses()
            .iter()
            .map(|of| format!("{} {}", of.limit, of.shown())),
    );
    if let Some(report) = &ran.report {
        page.facts("log", &report.log_tail);
        page.facts("denied", &report.denials);
    }
    page.text()
}

fn error_facts(page: &mut Page, error: &PluginError) {
    page.fact("error", &error.to_string());
    page.fact("fixed by", error.fixed_by.as_str());
    if !error.detail.is_empty() {
        page.block(&error.detail);
    }
}

fn answer_facts(page: &mut Page, answer: &Answer) {
    match answer {
        Answer::PreJob(PreJob::Proceed) => page.fact("verdict", "proceed"),
        Answer::PreJob(PreJob::Reject(reason)) => {
            page.fact("verdict", &format!("reject: {reason}"));
        }
        Answer::PreJob(PreJob::Patched(_)) => page.fact("verdict", "patch"),
        Answer::PostJob(_) | Answer::Redact(_) | Answer::Run(..) => {
            page.block(&format!("{:#}", answer.document()));
        }
        Answer::Plan(_) => {}
    }
    let Some(plan) = answer.plan() else { return };
    plan_facts(page, &PlanDocument::from(plan));
    page.fact("tree", &plan.tree.digest().to_string());
    for file in plan.tree.files() {
        let mark = if file.mode == FileMode::Executable {
            "x"
        } else {
            "-"
        };
        let (size, from) = (file.bytes.len(), origin(&file.origin));
        page.fact("", &format!("{mark} {size} {} ({from})", file.path));
    }
}

fn plan_facts(page: &mut Page, plan: &PlanDocument) {
    for (name, value) in plan.facts() {
        page.fact(name, &value);
    }
}

fn origin(origin: &Origin) -> String {
    match origin {
        Origin::Generated => "generated".to_owned(),
        Origin::Copied { layer, path } => format!("{path} of the profile {layer}"),
        Origin::Hook => "added by the hook".to_owned(),
    }
}
