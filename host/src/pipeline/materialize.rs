//! **materialize**: asks the profile's plugin for a launch plan and writes its files, all or none.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::clone::Checkout;
use super::{Attempt, Halt};
use crate::job::{
    Admitted, Denial, EventBody, Failure, FailureClass, FileUse, PluginPlace, PluginUse, Stage,
};
use crate::plugin::types::{SessionStart, Spent};
use crate::plugin::{
    CallContext, CallReport, CheckedPlan, CheckedTree, Layer, Origin, Places, PlanRequest, Plugin,
    PluginError, TreeFile, apply,
};
use crate::plugins::admission::Ready;
use crate::profile::Profile;

/// A checked plan and everything needed to start it.
pub(super) struct Launch {
    pub(super) plugin: Arc<Plugin>,
    /// The plugin's name.
    pub(super) name: String,
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
        let mut used = None;
        let launch = self
            .stage(
                Stage::Materialize,
                self.plan_and_write(profile, &checkout.path, config_dir, &mut used),
            )
            .await;
        // What was refused is as worth knowing as what was done.
        self.job.run.plugin = used.or(self.job.run.plugin.take());
        let launch = launch?;
        self.note_session(&launch);
        Ok(launch)
    }

    async fn plan_and_write(
        &self,
        profile: &Profile,
        work_dir: &Path,
        config_dir: PathBuf,
        used: &mut Option<PluginUse>,
    ) -> Result<Launch, Halt> {
        let plugins = &self.pod.plugins;
        let reference = &profile.plugin;
        let admitted = &self.job.run.admitted;
        let place = PluginPlace::Plugin;
        let ready = plugins.ready(admitted, place, reference, self.job.id).await;
        let Ready {
            plugin,
            context,
            name,
        } = ready.map_err(|error| {
            *used = Some(refused_use(admitted.first(), &error));
            plugin_failed(error)
        })?;
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
        let planned = plugins
            .host()
            .materialize(&plugin, &context, &request)
            .await;
        let (plan, report) = planned.map_err(|error| {
            plugins.note_error(&reference.component, &error);
            *used = Some(failed_use(&plugin, &error));
            plugin_failed(error)
        })?;
        self.tell_plugin(&name, &report).await;
        *used = Some(plugin_use(&plugin, &plan, &report));
        let temp_dir = self.temp_dir()?;
        let places = Places {
            config_dir,
            work_dir: work_dir.to_owned(),
            temp_dir: temp_dir.path().to_owned(),
        };
        let (plan, places) = self.write(plan, places).await?;
        let launch = Launch {
            plugin,
            name,
            context,
            config: reference.config.clone(),
            layers,
            plan,
            places,
            session,
            _temp_dir: temp_dir,
            profile_timeout: profile.timeout,
        };
        Ok(launch)
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
        let is_shared = self.pod.config.shared_root.is_some();
        let written = tokio::task::spawn_blocking(move || {
            if let Some(parent) = places.config_dir.parent() {
                std::fs::create_dir_all(parent)
                    .map_err(|e| host_failed(format!("cannot create {}: {e}", parent.display())))?;
                // In a work directory nobody else writes; housekeeping looks after the folder that all jobs share.
                if !is_shared {
                    apply::collect_stale(parent, Duration::ZERO).map_err(plugin_failed)?;
                }
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
    PluginUse {
        grants: plan.grants.iter().map(|grant| grant.to_string()).collect(),
        tree: plan.tree.digest().to_string(),
        files: files(&plan.tree, PluginUse::MAX_FILES, "plugin"),
        files_left_out: plan.tree.files().len().saturating_sub(PluginUse::MAX_FILES) as u64,
        ..called(plugin, report)
    }
}

/// What a call used, whatever came of it.
fn called(plugin: &Plugin, report: &CallReport) -> PluginUse {
    let description = plugin.description();
    PluginUse {
        name: description.map(|d| d.name.clone()).unwrap_or_default(),
        version: description.map(|d| d.version.clone()).unwrap_or_default(),
        digest: plugin.digest().to_string(),
        api: plugin.api().to_owned(),
        materialize_ms: report.elapsed.as_secs_f64() * 1e3,
        peak_memory: report.peak_memory,
        host_calls: report.host_calls,
        log: report.log_tail.clone(),
        ..PluginUse::default()
    }
}

fn failed_use(plugin: &Plugin, error: &PluginError) -> PluginUse {
    let report = error.report.clone().unwrap_or_default();
    PluginUse {
        denials: vec![denial(error)],
        ..called(plugin, &report)
    }
}

/// The plugin was not even called.
fn refused_use(admitted: Option<&Admitted>, error: &PluginError) -> PluginUse {
    let of = |text: fn(&Admitted) -> &String| admitted.map(text).cloned().unwrap_or_default();
    PluginUse {
        name: of(|a| &a.name),
        version: of(|a| &a.version),
        digest: of(|a| &a.digest),
        api: of(|a| &a.api),
        denials: vec![denial(error)],
        ..PluginUse::default()
    }
}

/// An error as the record has it.
pub(super) fn denial(error: &PluginError) -> Denial {
    Denial {
        code: error.code.to_string(),
        what: error.message.clone(),
        remedy: error.remedy.clone(),
    }
}

/// The files of a tree and where each came from; `by` is who made those that were not copied.
pub(super) fn files(tree: &CheckedTree, most: usize, by: &str) -> Vec<FileUse> {
    let file = |file: &TreeFile| {
        let (by, from) = match &file.origin {
            Origin::Generated | Origin::Hook => (by.to_owned(), None),
            Origin::Copied { layer, path } => (
                format!("layer {layer}"),
                (*path != file.path).then(|| path.clone()),
            ),
        };
        FileUse {
            path: file.path.clone(),
            bytes: file.bytes.len() as u64,
            by,
            from,
        }
    };
    tree.files().iter().take(most).map(file).collect()
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
