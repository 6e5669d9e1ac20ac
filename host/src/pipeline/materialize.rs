//! **materialize**: asks the profile's plugin for a launch plan and writes its files, all or none.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use super::clone::Checkout;
use super::{Attempt, Halt};
use crate::job::{EventBody, Failure, FailureClass, PluginUse, Stage};
use crate::plugin::types::{SessionStart, Spent};
use crate::plugin::{
    CallContext, CallReport, CheckedPlan, Layer, Places, PlanRequest, Plugin, PluginError, apply,
};
use crate::profile::Profile;

/// A checked plan and everything needed to start it.
pub(super) struct Launch {
    pub(super) plugin: Arc<Plugin>,
    pub(super) context: CallContext,
    pub(super) config: serde_json::Value,
    pub(super) layers: Arc<[Layer]>,
    pub(super) plan: CheckedPlan,
    pub(super) places: Places,
    /// How the plan was told to start the session.
    pub(super) session: SessionStart,
    /// Removed when the launch is dropped.
    pub(super) _temp_dir: TempDir,
    /// The profile's own limit of wall time, in seconds.
    pub(super) profile_timeout: Option<u32>,
}

impl Attempt<'_> {
    pub(super) async fn materialize(
        &mut self,
        profile: &Profile,
        checkout: &Checkout,
    ) -> Result<Launch, Halt> {
        let config_dir = self.pod.config_dir(self.job.id, &checkout.path);
        self.job.run.job_config_dir = Some(config_dir.clone());
        self.job.run.warnings.extend(
            profile
                .warnings
                .iter()
                .filter(|w| !self.job.run.warnings.contains(w))
                .cloned()
                .collect::<Vec<_>>(),
        );
        let (launch, used) = self
            .stage(
                Stage::Materialize,
                self.plan_and_write(profile, &checkout.path, config_dir),
            )
            .await?;
        self.job.run.plugin = Some(used);
        self.note_session(&launch);
        Ok(launch)
    }

    async fn plan_and_write(
        &self,
        profile: &Profile,
        work_dir: &Path,
        config_dir: PathBuf,
    ) -> Result<(Launch, PluginUse), Halt> {
        let plugins = &self.pod.plugins;
        let reference = &profile.plugin;
        let plugin = plugins.load(reference).await.map_err(plugin_failed)?;
        let context = plugins
            .context(&plugin, reference, self.job.id)
            .map_err(plugin_failed)?;
        let name = plugin
            .description()
            .map(|d| d.name.clone())
            .unwrap_or_default();
        let layers = plugins.layers(profile);
        let session = self.session_start(&config_dir).await?;
        let request = PlanRequest {
            job: self.for_plugins(),
            layers: layers.clone(),
            config: reference.config.clone(),
            operator: self.pod.config.for_plugin(&name),
            session: session.clone(),
            spent: self.spent(),
        };
        let (plan, report) = plugins
            .host()
            .materialize(&plugin, &context, &request)
            .await
            .inspect_err(|error| plugins.note_error(&reference.component, error))
            .map_err(plugin_failed)?;
        self.tell_plugin(&name, &report).await;
        let used = plugin_use(&plugin, &plan, &report);
        let temp_dir = self.temp_dir()?;
        let places = Places {
            config_dir,
            work_dir: work_dir.to_owned(),
            temp_dir: temp_dir.path().to_owned(),
        };
        let (plan, places) = self.write(plan, places).await?;
        let launch = Launch {
            plugin,
            context,
            config: reference.config.clone(),
            layers,
            plan,
            places,
            session,
            _temp_dir: temp_dir,
            profile_timeout: profile.timeout,
        };
        Ok((launch, used))
    }

    /// A directory for the agent's temporary files, gone when the attempt is over or the server starts anew.
    fn temp_dir(&self) -> Result<TempDir, Failure> {
        let root = self.pod.temp_root();
        std::fs::create_dir_all(&root)
            .and_then(|()| tempfile::Builder::new().prefix("job-").tempdir_in(&root))
            .map_err(|e| {
                host_failed(format!(
                    "cannot make a temporary directory in {}: {e}",
                    root.display()
                ))
            })
    }

    /// Writes the plan's files beside the target and renames once.
    async fn write(
        &self,
        plan: CheckedPlan,
        places: Places,
    ) -> Result<(CheckedPlan, Places), Halt> {
        let written = tokio::task::spawn_blocking(move || {
            if let Some(parent) = places.config_dir.parent() {
                std::fs::create_dir_all(parent)
                    .map_err(|e| host_failed(format!("cannot create {}: {e}", parent.display())))?;
            }
            apply::apply(
                &plan.tree,
                &places.config_dir,
                &plan.keep,
                apply::Sync::Kept,
            )
            .map_err(plugin_failed)?;
            Ok((plan, places))
        });
        written
            .await
            .map_err(|e| host_failed(format!("writing the profile's files was interrupted: {e}")))?
    }

    /// Writes the files of a plan that a hook has changed.
    pub(super) async fn rewrite(&self, mut launch: Launch) -> Result<Launch, Halt> {
        (launch.plan, launch.places) = self.write(launch.plan, launch.places).await?;
        Ok(launch)
    }

    fn spent(&self) -> Spent {
        let run = &self.job.run;
        // Saturates, which is what a budget wants.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturating by definition of `as`"
        )]
        let seconds = run.agent_seconds as u32;
        Spent {
            cost_usd: run.cost_usd,
            turns: run.turns,
            seconds,
        }
    }

    pub(super) async fn tell_plugin(&self, name: &str, report: &CallReport) {
        let denials = report.denials.iter().map(|text| ("warn", text));
        for (level, message) in report
            .log_tail
            .iter()
            .map(|text| ("info", text))
            .chain(denials)
        {
            let (plugin, level, message) = (name.to_owned(), level.to_owned(), message.clone());
            self.reporter
                .send(EventBody::Plugin {
                    plugin,
                    level,
                    message,
                })
                .await;
        }
    }
}

fn plugin_use(plugin: &Plugin, plan: &CheckedPlan, report: &CallReport) -> PluginUse {
    let description = plugin.description();
    PluginUse {
        name: description.map(|d| d.name.clone()).unwrap_or_default(),
        version: description.map(|d| d.version.clone()).unwrap_or_default(),
        digest: plugin.digest().to_string(),
        grants: plan.grants.iter().map(|grant| grant.to_string()).collect(),
        tree: plan.tree.digest().to_string(),
        materialize_ms: report.elapsed.as_secs_f64() * 1e3,
        peak_memory: report.peak_memory,
        log: report.log_tail.clone(),
    }
}

/// A plugin's error as the job's failure.
pub(super) fn plugin_failed(error: PluginError) -> Failure {
    let mut message = error.message.clone();
    if let Some(limit) = &error.limit {
        message.push_str(&format!(
            " (limit `{}`: used {}, allowed {})",
            limit.name, limit.used, limit.allowed
        ));
    }
    if !error.detail.is_empty() {
        message.push_str(": ");
        message.push_str(&error.detail);
    }
    Failure {
        class: FailureClass::Plugin,
        code: Some(error.code.to_string()),
        message,
        remedy: error.remedy.clone(),
    }
}

pub(super) fn host_failed(message: String) -> Failure {
    Failure::new(
        FailureClass::Host,
        message,
        "the operator must look at the server's disk and permissions; then submit the job again",
    )
}
