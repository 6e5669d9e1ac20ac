//! Hook plugins: they judge a job before it starts and after it ends.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::bindings::types::{
    EnvVar, Job, PlanPatch, PullRequestText, PullRequestVerdict, Review, RunResult, Verdict,
};
use super::call::CallReport;
use super::error::PluginError;
use super::grants::{EffectiveGrants, Role};
use super::plan::{self, CheckedPlan};
use super::request::CallContext;
use super::run::missing;
use super::tree::CheckedTree;
use super::{Plugin, PluginHost, metrics, text};

/// Bytes of a reason.
const REASON_BYTES: usize = 4 * 1024;
/// Bytes of an annotation's value.
const ANNOTATION_BYTES: usize = 4 * 1024;
/// Annotations of one review.
const MAX_ANNOTATIONS: usize = 100;
/// Bytes of a pull request's body, as much as GitHub takes.
const BODY_BYTES: usize = 65_536;

/// What a pre hook decided, after its changes were checked.
#[derive(Clone, Debug)]
pub enum PreJob {
    /// Start the job with the plan as it was.
    Proceed,
    /// Start it with this plan.
    Patched(Box<CheckedPlan>),
    /// Do not start it; the text is sanitized.
    Reject(String),
}

impl PluginHost {
    /// Asks a hook plugin before the agent starts. `plan` must be for the same job; `context.grants` are the hook's own.
    ///
    /// # Errors
    ///
    /// Whatever ends a call, and the refusal of a patch that breaks a rule or needs a grant.
    pub async fn pre_job(
        &self,
        plugin: &Arc<Plugin>,
        context: &CallContext,
        job: &Job,
        config: &Value,
        plan: &CheckedPlan,
    ) -> Result<(PreJob, CallReport), PluginError> {
        let Some(indices) = &plugin.indices.hooks else {
            return Err(missing(plugin, "hooks"));
        };
        let (config, view) = (config.to_string(), plan.view());
        let call = self.call_hook(plugin, context, "pre-job", async |store, i| {
            let functions = indices.load(&mut *store, i)?;
            functions.call_pre_job(store, job, &config, &view).await
        });
        let (verdict, report) = call.await?;
        let decided = match verdict {
            Verdict::Proceed => PreJob::Proceed,
            Verdict::Reject(reason) => PreJob::Reject(text::block(&reason, REASON_BYTES)),
            Verdict::Patch(patch) => {
                let patched = self.patched(plugin, context, plan, patch);
                PreJob::Patched(Box::new(patched.map_err(|mut error| {
                    metrics::refused(&plugin.label(), &error);
                    error.report = Some(report.clone());
                    error
                })?))
            }
        };
        Ok((decided, report))
    }

    fn patched(
        &self,
        plugin: &Plugin,
        context: &CallContext,
        plan: &CheckedPlan,
        patch: PlanPatch,
    ) -> Result<CheckedPlan, PluginError> {
        let ceiling = &self.core.ceiling;
        let grants = EffectiveGrants::new(plugin.requests(), &context.grants, ceiling, Role::Hook);
        let limits = &context.limits;
        plan::check_env(&patch.env)?;
        let mut added = CheckedTree::new(patch.files, &[], limits)?.marked_as_added();
        let mut changed = plan.clone();
        changed.env = merged(&plan.env, &patch.env);
        plan::check_env(&changed.env)?;
        let policies = &self.core.policies;
        policies.inspect_patch(&plan.program, &mut added, &patch.env, &changed.env, &grants)?;
        changed.tree = plan.tree.extended(added, limits)?;
        changed.check_overlaps()?;
        if let Some(seconds) = patch.time_limit {
            let wanted = Duration::from_secs(seconds.into());
            changed.time_limit = Some(plan.time_limit.map_or(wanted, |limit| limit.min(wanted)));
        }
        Ok(changed)
    }

    /// Shows a hook plugin how the run ended. Never changes the result.
    ///
    /// # Errors
    ///
    /// Whatever ends a call.
    pub async fn post_job(
        &self,
        plugin: &Arc<Plugin>,
        context: &CallContext,
        job: &Job,
        config: &Value,
        run: &RunResult,
    ) -> Result<(Review, CallReport), PluginError> {
        let Some(indices) = &plugin.indices.hooks else {
            return Err(missing(plugin, "hooks"));
        };
        let config = config.to_string();
        let call = self.call_hook(plugin, context, "post-job", async |store, i| {
            let functions = indices.load(&mut *store, i)?;
            functions.call_post_job(store, job, &config, run).await
        });
        let (review, report) = call.await?;
        Ok((sanitized(review), report))
    }
}

/// The variables of the plan with those of the patch over them.
fn merged(env: &[EnvVar], patch: &[EnvVar]) -> Vec<EnvVar> {
    let replaced = |var: &&EnvVar| !patch.iter().any(|new| new.name == var.name);
    env.iter().filter(replaced).chain(patch).cloned().collect()
}

fn sanitized(mut review: Review) -> Review {
    review.annotations.truncate(MAX_ANNOTATIONS);
    for annotation in &mut review.annotations {
        annotation.key = text::line(&annotation.key, 100);
        annotation.value = text::block(&annotation.value, ANNOTATION_BYTES);
    }
    review.pull_request = match review.pull_request {
        PullRequestVerdict::Keep => PullRequestVerdict::Keep,
        PullRequestVerdict::Veto(reason) => {
            PullRequestVerdict::Veto(text::block(&reason, REASON_BYTES))
        }
        PullRequestVerdict::Amend(words) => PullRequestVerdict::Amend(PullRequestText {
            title: words.title.map(|title| text::line(&title, 250)),
            body: words.body.map(|body| text::block(&body, BODY_BYTES)),
        }),
    };
    review
}
