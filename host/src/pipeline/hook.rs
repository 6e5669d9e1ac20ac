//! **pre hook** and **post hook**: asks the profile's hook plugins and carries out their verdicts.
//!
//! The pre hook fails closed, where the hook is required. The post hook can never change the result. Every call is noted on the record.

use super::clone::Checkout;
use super::materialize::{Launch, denial, plugin_failed};
use super::{Attempt, Halt};
use crate::job::{
    EventBody, Failure, FailureClass, FileUse, HookUse, PluginPlace, PluginUse, Stage, Verdict,
    Wishes,
};
use crate::plugin::types::{PullRequestVerdict, Review, RunResult, Usage};
use crate::plugin::{CallReport, CheckedTree, Digest, PluginError, PreJob};
use crate::plugins::admission::Ready;
use crate::profile::{HookPoint, HookRef, Profile};

/// Files that a post hook is told of at most.
const MAX_CHANGED_FILES: usize = 1_000;
/// Calls that the record keeps.
const MAX_USES: usize = 100;

/// What comes of a hook that failed where it is not required.
pub(super) const PASSED_OVER: &str = "and is passed over";
/// What comes of one that is required, after the agent's end.
const NO_PULL_REQUEST: &str = "and no pull request is opened because it is required";

/// What one call of a hook came to.
pub(super) struct Called<T> {
    pub(super) digest: Digest,
    pub(super) result: Result<(T, CallReport), PluginError>,
}

impl Attempt<'_> {
    pub(super) async fn pre_hook(
        &mut self,
        profile: &Profile,
        launch: Launch,
    ) -> Result<Launch, Halt> {
        let hooks = at(profile, HookPoint::PreJob);
        if hooks.is_empty() {
            return Ok(launch);
        }
        let (mut uses, mut added) = (Vec::new(), Vec::new());
        let step = self.pre_hooks(hooks, launch, &mut uses, &mut added);
        let launch = self.stage(Stage::PreHook, step).await;
        self.note_uses(uses);
        if let Some(plugin) = &mut self.job.run.plugin {
            add_files(plugin, added);
        }
        launch
    }

    async fn pre_hooks(
        &self,
        hooks: Vec<&HookRef>,
        mut launch: Launch,
        uses: &mut Vec<HookUse>,
        added: &mut Vec<FileUse>,
    ) -> Result<Launch, Halt> {
        for hook in hooks {
            let called = self.ask(hook, &launch).await;
            uses.push(
                self.hook_use(hook, HookPoint::PreJob, &called, |verdict| match verdict {
                    PreJob::Proceed => "proceed".into(),
                    PreJob::Patched(_) => "patched".into(),
                    PreJob::Reject(reason) => format!("rejected: {reason}"),
                }),
            );
            match called.and_then(|called| called.result) {
                Ok((PreJob::Proceed, report)) => self.tell_plugin(&name(hook), &report).await,
                Ok((PreJob::Patched(plan), report)) => {
                    self.tell_plugin(&name(hook), &report).await;
                    added.extend(added_files(&launch.plan.tree, &plan.tree, &name(hook)));
                    launch.plan = *plan;
                    // The patch may have added files, and they must be there before the agent starts.
                    launch = self.rewrite(launch).await?;
                }
                Ok((PreJob::Reject(reason), _)) => {
                    return Err(Halt::Failed(rejected(hook, &reason)));
                }
                Err(error) if hook.required => {
                    return Err(Halt::Failed(hook_failed(hook, error)));
                }
                Err(error) => self.tell_failed(hook, &error, PASSED_OVER).await,
            }
        }
        Ok(launch)
    }

    /// A hook plugin as the job was admitted with it.
    pub(super) async fn hook(&self, hook: &HookRef) -> Result<Ready, PluginError> {
        let admitted = &self.job.run.admitted;
        let plugins = &self.pod.plugins;
        plugins
            .ready(admitted, PluginPlace::Hook, &hook.plugin, self.job.id)
            .await
    }

    async fn ask(&self, hook: &HookRef, launch: &Launch) -> Result<Called<PreJob>, PluginError> {
        let Ready {
            plugin, context, ..
        } = self.hook(hook).await?;
        let host = self.pod.plugins.host();
        let (job, config) = (self.for_plugins(), &hook.plugin.config);
        let result = host
            .pre_job(&plugin, &context, &job, config, &launch.plan)
            .await;
        Ok(Called {
            digest: plugin.digest(),
            result,
        })
    }

    pub(super) async fn post_hook(
        &mut self,
        profile: &Profile,
        checkout: &Checkout,
        verdict: &Verdict,
    ) -> Wishes {
        let hooks = at(profile, HookPoint::PostJob);
        if hooks.is_empty() {
            return Wishes::default();
        }
        let result = self.run_result(checkout, verdict).await;
        let mut uses = Vec::new();
        let step = async {
            let (mut annotations, mut wishes) = (Vec::new(), Wishes::default());
            for hook in hooks {
                let called = self.review(hook, &result).await;
                uses.push(self.hook_use(hook, HookPoint::PostJob, &called, reviewed));
                match called.and_then(|called| called.result) {
                    Ok((review, report)) => {
                        self.tell_plugin(&name(hook), &report).await;
                        let found = review.annotations.into_iter().map(|a| (a.key, a.value));
                        annotations.extend(found);
                        wish(&mut wishes, review.pull_request);
                    }
                    Err(error) => {
                        let so = if hook.required {
                            NO_PULL_REQUEST
                        } else {
                            PASSED_OVER
                        };
                        self.tell_failed(hook, &error, so).await;
                        if hook.required {
                            let reason = format!("the required hook {} failed", name(hook));
                            wishes.veto.get_or_insert(reason);
                        }
                    }
                }
            }
            Ok((annotations, wishes))
        };
        // An interrupt only ends the hooks early: the result stands. What they would have said is not known, so nothing is opened.
        let reviewed = self.stage(Stage::PostHook, step).await;
        self.note_uses(uses);
        match reviewed {
            Ok((annotations, wishes)) => {
                self.job.run.annotations.extend(annotations);
                wishes
            }
            Err(_) => Wishes {
                veto: Some("the hooks were interrupted".into()),
                ..Wishes::default()
            },
        }
    }

    async fn review(
        &self,
        hook: &HookRef,
        result: &RunResult,
    ) -> Result<Called<Review>, PluginError> {
        let Ready {
            plugin, context, ..
        } = self.hook(hook).await?;
        let host = self.pod.plugins.host();
        let (job, config) = (self.for_plugins(), &hook.plugin.config);
        let result = host.post_job(&plugin, &context, &job, config, result).await;
        Ok(Called {
            digest: plugin.digest(),
            result,
        })
    }

    async fn run_result(&self, checkout: &Checkout, verdict: &Verdict) -> RunResult {
        let run = &self.job.run;
        let failure = verdict.failure.as_ref();
        let mut changed_files = self.changed_files(checkout).await;
        changed_files.truncate(MAX_CHANGED_FILES);
        RunResult {
            status: if failure.is_some() {
                "failed"
            } else {
                "succeeded"
            }
            .to_owned(),
            failure: failure
                .map(|f| f.class.as_str().to_owned())
                .unwrap_or_default(),
            message: failure.map(|f| f.message.clone()).unwrap_or_default(),
            output: run.output.clone().unwrap_or_default(),
            usage: Usage {
                input_tokens: run.usage.input_tokens,
                output_tokens: run.usage.output_tokens,
                cache_read_tokens: run.usage.cache_read_tokens,
                cache_write_tokens: run.usage.cache_write_tokens,
            },
            cost_usd: run.cost_usd,
            turns: run.turns,
            changed_files,
        }
    }

    fn note_error(&self, hook: &HookRef, error: &PluginError) {
        self.pod.plugins.note_error(&hook.plugin.component, error);
    }

    /// Tells the stream that a hook failed, and what comes of it.
    pub(super) async fn tell_failed(&self, hook: &HookRef, error: &PluginError, so: &str) {
        let message = format!("the hook failed, {so}: {error}");
        self.reporter
            .send(EventBody::Plugin {
                plugin: name(hook),
                level: "error".into(),
                message,
            })
            .await;
    }

    /// A call as the record has it.
    pub(super) fn hook_use<T>(
        &self,
        hook: &HookRef,
        at: HookPoint,
        called: &Result<Called<T>, PluginError>,
        decided: impl Fn(&T) -> String,
    ) -> HookUse {
        let digest = called.as_ref().map(|c| c.digest.to_string());
        let result = called.as_ref().map(|called| &called.result);
        if let Ok(Err(error)) | Err(error) = result {
            self.note_error(hook, error);
        }
        let (decided, report, denials) = match result {
            Ok(Ok((answer, report))) => (decided(answer), report.clone(), Vec::new()),
            Ok(Err(error)) | Err(error) => (
                String::new(),
                error.report.clone().unwrap_or_default(),
                vec![denial(error)],
            ),
        };
        HookUse {
            name: name(hook),
            at: at.as_str().to_owned(),
            attempt: self.job.attempt,
            decided,
            digest: digest.unwrap_or_default(),
            elapsed_ms: report.elapsed.as_secs_f64() * 1e3,
            peak_memory: report.peak_memory,
            denials,
            log: report.log_tail,
        }
    }

    pub(super) fn note_uses(&mut self, uses: Vec<HookUse>) {
        let noted = &mut self.job.run.hooks;
        noted.extend(uses);
        let too_many = noted.len().saturating_sub(MAX_USES);
        noted.drain(..too_many);
    }
}

fn reviewed(review: &Review) -> String {
    let about_pull = match &review.pull_request {
        PullRequestVerdict::Keep => "no wish for the pull request".to_owned(),
        PullRequestVerdict::Amend(_) => "other words for the pull request".to_owned(),
        PullRequestVerdict::Veto(reason) => format!("no pull request: {reason}"),
    };
    format!("{} annotations, {about_pull}", review.annotations.len())
}

/// The files that a hook's patch added to a plan.
fn added_files(before: &CheckedTree, after: &CheckedTree, hook: &str) -> Vec<FileUse> {
    let by = format!("hook {hook}");
    let all = super::materialize::files(after, after.files().len(), &by);
    all.into_iter()
        .filter(|file| before.get(&file.path).is_none())
        .collect()
}

fn add_files(plugin: &mut PluginUse, added: Vec<FileUse>) {
    plugin.files.extend(added);
    plugin.files.sort_by(|a, b| a.path.cmp(&b.path));
    let too_many = plugin.files.len().saturating_sub(PluginUse::MAX_FILES);
    plugin.files.truncate(PluginUse::MAX_FILES);
    plugin.files_left_out += too_many as u64;
}

pub(super) fn at(profile: &Profile, point: HookPoint) -> Vec<&HookRef> {
    profile
        .hooks
        .iter()
        .filter(|hook| hook.on.contains(&point))
        .collect()
}

/// Adds what one hook wants to what those before it want: later words win, the first veto stands.
fn wish(wishes: &mut Wishes, verdict: PullRequestVerdict) {
    match verdict {
        PullRequestVerdict::Keep => {}
        PullRequestVerdict::Amend(words) => {
            wishes.title = words.title.or(wishes.title.take());
            wishes.body = words.body.or(wishes.body.take());
        }
        PullRequestVerdict::Veto(reason) => {
            wishes.veto.get_or_insert(reason);
        }
    }
}

pub(super) fn name(hook: &HookRef) -> String {
    hook.plugin.component.to_string()
}

fn rejected(hook: &HookRef, reason: &str) -> Failure {
    Failure::new(
        FailureClass::Hook,
        format!("the hook {} rejected the job: {reason}", name(hook)),
        "change the job as the reason says, or ask whoever keeps the profile",
    )
}

fn hook_failed(hook: &HookRef, error: PluginError) -> Failure {
    let failure = plugin_failed(error);
    let message = format!(
        "the required hook {} failed: {}",
        name(hook),
        failure.message
    );
    Failure {
        class: FailureClass::Hook,
        message,
        ..failure
    }
}
