//! **pre hook** and **post hook**: asks the profile's hook plugins and carries out their verdicts.
//!
//! The pre hook fails closed, where the hook is required. The post hook can never change the result.

use super::agent_run::Concluded;
use super::clone::Checkout;
use super::materialize::{Launch, plugin_failed};
use super::{Attempt, Halt};
use crate::job::{EventBody, Failure, FailureClass, Stage};
use crate::plugin::types::{RunResult, Usage};
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
                match self.ask(hook, &launch).await {
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
        concluded: &Concluded,
    ) {
        let hooks = at(profile, HookPoint::PostJob);
        if hooks.is_empty() {
            return;
        }
        let result = self.run_result(checkout, concluded).await;
        let step = async {
            let mut annotations = Vec::new();
            for hook in hooks {
                match self.review(hook, &result).await {
                    Ok(found) => annotations.extend(found),
                    Err(error) => self.passed_over(hook, &error).await,
                }
            }
            Ok(annotations)
        };
        // An interrupt only ends the hooks early: the result stands.
        if let Ok(annotations) = self.stage(Stage::PostHook, step).await {
            self.job.run.annotations.extend(annotations);
        }
    }

    async fn review(
        &self,
        hook: &HookRef,
        result: &RunResult,
    ) -> Result<Vec<(String, String)>, PluginError> {
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
        Ok(review
            .annotations
            .into_iter()
            .map(|a| (a.key, a.value))
            .collect())
    }

    async fn run_result(&self, checkout: &Checkout, concluded: &Concluded) -> RunResult {
        let run = &self.job.run;
        let failure = concluded.result.as_ref().err();
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
