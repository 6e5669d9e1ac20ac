//! **pre hook** and **post hook**: asks the profile's hook plugins and carries out their verdicts.
//!
//! The pre hook fails closed, where the hook is required. The post hook can never change the result.

use super::clone::Checkout;
use super::materialize::{Launch, plugin_failed};
use super::{Attempt, Halt};
use crate::job::{EventBody, Failure, FailureClass, Stage, Verdict, Wishes};
use crate::plugin::types::{PullRequestVerdict, Review, RunResult, Usage};
use crate::plugin::{CallReport, PluginError, PreJob};
use crate::profile::{HookPoint, HookRef, Profile};

/// Files that a post hook is told of at most.
const MAX_CHANGED_FILES: usize = 1_000;

impl Attempt<'_> {
    pub(super) async fn pre_hook(
        &mut self,
        profile: &Profile,
        mut launch: Launch,
    ) -> Result<Launch, Halt> {
        let hooks = at(profile, HookPoint::PreJob);
        if hooks.is_empty() {
            return Ok(launch);
        }
        let step = async {
            for hook in hooks {
                let asked = self.ask(hook, &launch).await;
                match asked.inspect_err(|error| self.note_error(hook, error)) {
                    Ok((PreJob::Proceed, report)) => self.tell_plugin(&name(hook), &report).await,
                    Ok((PreJob::Patched(plan), report)) => {
                        self.tell_plugin(&name(hook), &report).await;
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
                    Err(error) => self.passed_over(hook, &error).await,
                }
            }
            Ok(launch)
        };
        self.stage(Stage::PreHook, step).await
    }

    async fn ask(
        &self,
        hook: &HookRef,
        launch: &Launch,
    ) -> Result<(PreJob, CallReport), PluginError> {
        let plugins = &self.pod.plugins;
        let plugin = plugins.load(&hook.plugin).await?;
        let context = plugins.context(&plugin, &hook.plugin, self.job.id)?;
        plugins
            .host()
            .pre_job(
                &plugin,
                &context,
                &self.for_plugins(),
                &hook.plugin.config,
                &launch.plan,
            )
            .await
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
        let step = async {
            let (mut annotations, mut wishes) = (Vec::new(), Wishes::default());
            for hook in hooks {
                let reviewed = self.review(hook, &result).await;
                match reviewed.inspect_err(|error| self.note_error(hook, error)) {
                    Ok(review) => {
                        let found = review.annotations.into_iter().map(|a| (a.key, a.value));
                        annotations.extend(found);
                        wish(&mut wishes, review.pull_request);
                    }
                    Err(error) => {
                        self.passed_over(hook, &error).await;
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
        match self.stage(Stage::PostHook, step).await {
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

    async fn review(&self, hook: &HookRef, result: &RunResult) -> Result<Review, PluginError> {
        let plugins = &self.pod.plugins;
        let plugin = plugins.load(&hook.plugin).await?;
        let context = plugins.context(&plugin, &hook.plugin, self.job.id)?;
        let (review, report) = plugins
            .host()
            .post_job(
                &plugin,
                &context,
                &self.for_plugins(),
                &hook.plugin.config,
                result,
            )
            .await?;
        self.tell_plugin(&name(hook), &report).await;
        Ok(review)
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

    async fn passed_over(&self, hook: &HookRef, error: &PluginError) {
        let message = format!("the hook was passed over: {error}");
        self.reporter
            .send(EventBody::Plugin {
                plugin: name(hook),
                level: "error".into(),
                message,
            })
            .await;
    }
}

fn at(profile: &Profile, point: HookPoint) -> Vec<&HookRef> {
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

fn name(hook: &HookRef) -> String {
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
