//! One call of a plugin for a sample job: loaded, granted, limited and checked as a server does it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use serde::Serialize;
use serde_json::{Map, Value};

use super::document::{Answer, Redacted};
use super::sample::{Sample, SamplePassage, SampleRun, check_limits};
use super::{Unusable, component};
use crate::bundled;
use crate::config::Config;
use crate::job::JobId;
use crate::plugin::types::{Job, RunResult, SessionStart, Spent};
use crate::plugin::{
    CallContext, CallReport, CheckedPlan, Code, Compiler, Digest, EffectiveGrants, Grants, Layer,
    Limits, PlanRequest, Plugin, PluginError, Role, RunRequest, check_schema, millis,
};
use crate::plugins::Plugins;
use crate::process::LineLimits;
use crate::profile::{Component, HookPoint, PluginRef, Profile, ProfileRoot, ProfileStore, Source};
use crate::server::profile_roots;

/// The profile of a hook's sample that names none: its plugin needs no agent.
const PLAIN_PROFILE: &str = "shell";

/// The sandbox and the profiles of this machine's settings.
#[derive(Debug)]
pub struct Workbench {
    config: Config,
    plugins: Plugins,
}

/// One call that is ready to be made.
#[derive(Debug)]
pub struct Trial {
    plugin: Arc<Plugin>,
    work: Work,
    context: CallContext,
    config: Value,
    operator: Value,
    job: Job,
    layers: Arc<[Layer]>,
    /// Whether a profile names the component; else its grants are a guess.
    named: bool,
}

/// What is called, with what it is about.
#[derive(Debug)]
enum Work {
    Materialize,
    Agent(SampleRun),
    PreJob(Box<CheckedPlan>),
    PostJob(RunResult),
    Redact(Vec<SamplePassage>),
}

impl Work {
    fn hook(&self) -> Option<HookPoint> {
        match self {
            Self::Materialize | Self::Agent(_) => None,
            Self::PreJob(_) => Some(HookPoint::PreJob),
            Self::PostJob(_) => Some(HookPoint::PostJob),
            Self::Redact(_) => Some(HookPoint::Redact),
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Ran {
    /// The answer after all checks, or why there is none.
    pub answer: Result<Answer, PluginError>,
    /// What the call used and logged, where one was made.
    pub report: Option<CallReport>,
    /// What the plugin could have used.
    pub limits: Limits,
    /// Bytes of the component.
    pub size: u64,
}

/// How much of a limit was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Use {
    /// The limit's key.
    pub limit: &'static str,
    /// What was used.
    pub used: u64,
    /// What is allowed.
    pub allowed: u64,
    /// What both are counted in.
    pub unit: &'static str,
}

impl Workbench {
    /// Reads nothing but settings yet.
    ///
    /// # Errors
    /// When the settings hold malformed grants or the engine does not start.
    pub fn new(config: Config) -> Result<Self, PluginError> {
        let plugins = Plugins::new(&config, Compiler::InProcess)?;
        Ok(Self { config, plugins })
    }

    /// The sandbox.
    #[must_use]
    pub fn plugins(&self) -> &Plugins {
        &self.plugins
    }

    /// The bytes of a component, at most as many as a server takes.
    ///
    /// # Errors
    /// When they cannot be read or are too many.
    pub async fn bytes(&self, component: &Component) -> Result<Arc<[u8]>, PluginError> {
        match component {
            Component::File(path) => {
                crate::plugin::read_component(path, self.plugins.host().limits()).await
            }
            Component::Bundled(name) => bundled::require_plugin(name)
                .map(Arc::from)
                .map_err(|e| PluginError::new(Code::File, e.to_string())),
        }
    }

    /// Prepares the call of `sample`, whose paths start at the folder of `document`.
    ///
    /// # Errors
    /// [`Unusable`] when the sample makes no sense, and the plugin's own errors when it cannot be loaded or granted.
    pub async fn prepare(
        &self,
        named: &Component,
        sample: Sample,
        document: &Path,
    ) -> Result<Trial, Failed> {
        let id: JobId = sample.job.id.parse().map_err(|_| {
            Unusable::at(
                document,
                format!("`job.id` is {:?}, which is no UUID", sample.job.id),
            )
        })?;
        check_limits(&sample.limits)
            .map_err(|e| Unusable::at(document, format!("`limits`: {e}")))?;
        let profile = self.profile(&sample, document)?;
        let digest = Digest::of(&self.bytes(named).await?);
        let entry = match &profile {
            Some(profile) => self.entry(profile, digest, sample.hook).await,
            None => None,
        };
        let is_named = entry.is_some();
        let mut reference = entry.unwrap_or_else(|| bare(named.clone()));
        reference.component = named.clone();
        if let Some(config) = &sample.config {
            reference.config = Value::Object(config.clone());
        }
        reference.limits.extend(sample.limits.clone());
        let plugin = self.plugins.load(&reference).await?;
        let granted = sample.grants.clone().or_else(|| {
            let asks = plugin.description().map(|_| plugin.requests().clone());
            (!is_named).then_some(asks.unwrap_or_default())
        });
        if let Some(grants) = granted {
            reference.grants = by_kind(&grants);
        }
        if let Some(schema) = plugin.config_schema() {
            check_schema(schema, &reference.config)
                .map_err(|problem| PluginError::new(Code::Config, problem))?;
        }
        let context = self.plugins.context(&plugin, &reference, id)?;
        let name = plugin.description().map(|d| d.name.clone());
        let layers = profile
            .as_ref()
            .map_or_else(|| Arc::from([]), |p| self.plugins.layers(p));
        let mut trial = Trial {
            work: Work::Materialize,
            job: job(&sample, profile.as_deref()),
            operator: operator(&self.config, &name.unwrap_or_default(), &sample.operator),
            context,
            config: reference.config,
            layers,
            plugin,
            named: is_named,
        };
        trial.work = match (sample.hook, sample.run.clone()) {
            (None, None) => Work::Materialize,
            (None, Some(run)) => Work::Agent(run),
            (Some(HookPoint::PreJob), _) => {
                let plan = self.plan_to_judge(&trial, &sample, profile.as_deref());
                Work::PreJob(Box::new(plan.await?))
            }
            (Some(HookPoint::PostJob), _) => Work::PostJob(sample.result.for_plugins()),
            (Some(HookPoint::Redact), _) => Work::Redact(sample.passages()),
        };
        Ok(trial)
    }

    fn profile(&self, sample: &Sample, document: &Path) -> Result<Option<Arc<Profile>>, Unusable> {
        let judges_a_plan = sample.hook == Some(HookPoint::PreJob) && sample.plan.is_none();
        let named = match &sample.profile {
            Some(named) => named.as_str(),
            None if judges_a_plan => PLAIN_PROFILE,
            None => return Ok(None),
        };
        let mut roots = profile_roots(&self.config);
        let folder = super::beside(document, named);
        let name = match profile_folder(&folder) {
            Some((root, name)) => {
                roots.push(ProfileRoot::folder(Source::User, root));
                name
            }
            None => named.to_owned(),
        };
        let wrong = |e: crate::profile::ProfileError| {
            Unusable::at(document, format!("`profile`: {}", e.full_message()))
        };
        let profiles = ProfileStore::new(roots).map_err(wrong)?;
        profiles.load(&name).map(Some).map_err(wrong)
    }

    /// The entry of the profile that names these very bytes: what they are configured with, granted and limited to there.
    async fn entry(
        &self,
        profile: &Profile,
        digest: Digest,
        hook: Option<HookPoint>,
    ) -> Option<PluginRef> {
        let hooks = profile
            .hooks
            .iter()
            .filter(|entry| hook.is_some_and(|point| entry.on.contains(&point)))
            .map(|entry| &entry.plugin);
        let plugin = hook.is_none().then_some(&profile.plugin);
        for reference in plugin.into_iter().chain(hooks) {
            if let Ok(bytes) = self.bytes(&reference.component).await
                && Digest::of(&bytes) == digest
            {
                return Some(reference.clone());
            }
        }
        None
    }

    /// Makes the call. What the plugin does wrong is part of what is returned.
    pub async fn run(&self, trial: &Trial) -> Ran {
        let host = self.plugins.host();
        let (plugin, context) = (&trial.plugin, &trial.context);
        let (job, config) = (&trial.job, &trial.config);
        let called = match &trial.work {
            Work::Materialize => host
                .materialize(plugin, context, &trial.request())
                .await
                .map(|(plan, report)| (Answer::Plan(Box::new(plan)), report)),
            Work::Agent(run) => self.read(trial, run).await,
            Work::PreJob(plan) => host
                .pre_job(plugin, context, job, config, plan)
                .await
                .map(|(verdict, report)| (Answer::PreJob(verdict), report)),
            Work::PostJob(result) => host
                .post_job(plugin, context, job, config, result)
                .await
                .map(|(review, report)| (Answer::PostJob(review), report)),
            Work::Redact(passages) => self.redact(trial, passages).await,
        };
        let (answer, report) = match called {
            Ok((answer, report)) => (Ok(answer), Some(report)),
            Err(error) => {
                let report = error.report.clone();
                (Err(error), report)
            }
        };
        Ran {
            answer,
            report,
            limits: context.limits.clone(),
            size: plugin.size(),
        }
    }

    async fn redact(
        &self,
        trial: &Trial,
        passages: &[SamplePassage],
    ) -> Result<(Answer, CallReport), PluginError> {
        let (context, job, config) = (&trial.context, &trial.job, &trial.config);
        let given: Vec<_> = passages.iter().map(SamplePassage::for_plugins).collect();
        let host = self.plugins.host();
        let (answers, report) = host
            .redact(&trial.plugin, context, job, config, &given)
            .await?;
        let redacted = passages.iter().cloned().zip(answers);
        let redacted = redacted.map(|(passage, answer)| Redacted::new(passage, answer));
        Ok((Answer::Redact(redacted.collect()), report))
    }

    /// Lets `agent` read the output of a run, and judge it.
    async fn read(
        &self,
        trial: &Trial,
        sample: &SampleRun,
    ) -> Result<(Answer, CallReport), PluginError> {
        let request = RunRequest {
            job: trial.job.clone(),
            config: trial.config.clone(),
            layers: trial.layers.clone(),
            session: sample.session.clone(),
        };
        let host = self.plugins.host();
        let mut run = host
            .start_run(&trial.plugin, &trial.context, &request)
            .await?;
        let (mut facts, mut longest) = (Vec::new(), Duration::ZERO);
        for lines in sample.lines().chunks(LineLimits::default().batch_lines) {
            let began = Instant::now();
            facts.extend(run.observe(lines).await?);
            longest = longest.max(began.elapsed());
        }
        let (conclusion, mut report) = run.conclude(&sample.exit()).await?;
        report.elapsed = report.elapsed.max(longest);
        Ok((Answer::Run(facts, conclusion), report))
    }

    /// The sample's own plan, or the one that the profile's plugin makes.
    async fn plan_to_judge(
        &self,
        trial: &Trial,
        sample: &Sample,
        profile: Option<&Profile>,
    ) -> Result<CheckedPlan, Failed> {
        if let Some(plan) = &sample.plan {
            let limits = &trial.context.limits;
            return Ok(CheckedPlan::well_formed(plan.for_host(), &[], limits)?);
        }
        let Some(profile) = profile else {
            return Err(
                Unusable("a pre hook needs a `profile` or a `plan` to judge".to_owned()).into(),
            );
        };
        let reference = &profile.plugin;
        let plugin = self.plugins.load(reference).await?;
        let id = trial.job.id.parse().unwrap_or_else(|_| JobId::random());
        let context = self.plugins.context(&plugin, reference, id)?;
        let name = plugin.description().map(|d| d.name.clone());
        let request = PlanRequest {
            config: reference.config.clone(),
            operator: self.config.for_plugin(&name.unwrap_or_default()),
            ..trial.request()
        };
        let host = self.plugins.host();
        Ok(host.materialize(&plugin, &context, &request).await?.0)
    }
}

impl Trial {
    /// The loaded plugin.
    #[must_use]
    pub fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }

    /// What the call may use.
    #[must_use]
    pub fn context(&self) -> &CallContext {
        &self.context
    }

    /// What the plugin asks for, what the profile grants and the operator allows, and what is left.
    #[must_use]
    pub fn grants(&self, bench: &Workbench) -> EffectiveGrants {
        let role = if self.work.hook().is_some() {
            Role::Hook
        } else {
            Role::Plugin
        };
        let host = bench.plugins.host();
        host.effective_grants(&self.plugin, &self.context.grants, role)
    }

    /// Whether the sample's profile names the component.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.named
    }

    /// The request for a plan.
    #[must_use]
    pub fn request(&self) -> PlanRequest {
        PlanRequest {
            job: self.job.clone(),
            layers: self.layers.clone(),
            config: self.config.clone(),
            operator: self.operator.clone(),
            session: SessionStart::Fresh(self.job.id.clone()),
            spent: Spent {
                cost_usd: 0.0,
                turns: 0,
                seconds: 0,
            },
        }
    }

    /// What is called.
    #[must_use]
    pub fn call(&self) -> &'static str {
        match &self.work {
            Work::Materialize => "materialize",
            Work::Agent(_) => "agent",
            work => work.hook().map_or("", HookPoint::as_str),
        }
    }
}

impl Ran {
    /// What was used of each limit that can be told afterwards.
    #[must_use]
    pub fn uses(&self) -> Vec<Use> {
        let limits = &self.limits;
        let of = |limit, used, allowed, unit| Use {
            limit,
            used,
            allowed,
            unit,
        };
        let mut uses = vec![of(
            "component_bytes",
            self.size,
            limits.component_bytes.0,
            "bytes",
        )];
        if let Some(report) = &self.report {
            let time = match &self.answer {
                Ok(Answer::PreJob(_) | Answer::PostJob(_) | Answer::Redact(_)) => {
                    ("hook_time", limits.hook_time)
                }
                _ => ("time", limits.time),
            };
            uses.push(of(time.0, millis(report.elapsed), millis(time.1), "ms"));
            uses.push(of("memory", report.peak_memory, limits.memory.0, "bytes"));
            uses.push(of(
                "host_calls",
                report.host_calls,
                limits.host_calls.into(),
                "calls",
            ));
        }
        if let Ok(answer) = &self.answer
            && let Some(plan) = answer.plan()
        {
            let files = plan.tree.files().len() as u64;
            uses.push(of("files", files, limits.files.into(), "files"));
            let bytes = plan.tree.total_bytes();
            uses.push(of("output_bytes", bytes, limits.output_bytes.0, "bytes"));
        }
        uses
    }
}

impl Use {
    /// The use for people: `18 ms of 5000 ms`.
    #[must_use]
    pub fn shown(&self) -> String {
        match self.unit {
            "bytes" => format!("{} of {}", ByteSize(self.used), ByteSize(self.allowed)),
            unit => format!("{} of {} {unit}", self.used, self.allowed),
        }
    }
}

/// Why a trial could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// What was asked for makes no sense.
    #[error(transparent)]
    Unusable(#[from] Unusable),
    /// The plugin cannot be loaded, or its grants, limits or configuration are refused.
    #[error("{0}")]
    Plugin(#[from] PluginError),
}

/// The component that the sample names, or that the command line does.
pub(super) fn component_of(
    sample: &Sample,
    document: &Path,
    named: Option<&Path>,
) -> Result<Option<Component>, Unusable> {
    match (named, &sample.component) {
        (Some(named), _) => component(named).map(Some),
        (None, Some(path)) => {
            let beside = super::beside(document, path);
            let place = if beside.exists() {
                beside
            } else {
                PathBuf::from(path)
            };
            component(&place).map(Some)
        }
        (None, None) => Ok(None),
    }
}

fn job(sample: &Sample, profile: Option<&Profile>) -> Job {
    let name = match (sample.job.profile.as_str(), profile) {
        ("", Some(profile)) => profile.name.as_str(),
        ("", None) => "sample",
        (name, _) => name,
    };
    sample.job.for_plugins(name)
}

fn operator(config: &Config, plugin: &str, over: &Map<String, Value>) -> Value {
    let mut settings = config.for_plugin(plugin);
    if let Some(settings) = settings.as_object_mut() {
        settings.extend(over.clone());
    }
    settings
}

/// A folder with a `profile.yml`: its parent, and its name.
fn profile_folder(folder: &Path) -> Option<(PathBuf, String)> {
    let folder = folder.canonicalize().ok()?;
    folder.join("profile.yml").is_file().then_some(())?;
    let name = folder.file_name()?.to_str()?.to_owned();
    Some((folder.parent()?.to_owned(), name))
}

/// What a component gets that no profile names.
fn bare(component: Component) -> PluginRef {
    PluginRef {
        component,
        sha256: None,
        config: Value::Object(Map::new()),
        grants: std::collections::BTreeMap::new(),
        limits: Map::new(),
    }
}

fn by_kind(
    grants: &Grants,
) -> std::collections::BTreeMap<String, std::collections::BTreeSet<String>> {
    let mut map = std::collections::BTreeMap::<String, std::collections::BTreeSet<String>>::new();
    for grant in grants.iter() {
        map.entry(grant.kind.as_str().to_owned())
            .or_default()
            .insert(grant.name);
    }
    map
}
