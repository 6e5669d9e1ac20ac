//! Whether the jobs of a profile could start: everything that can be known of its plugins without a job, and without deciding anything
//! for the operator.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use super::admission::{self, Named, named};
use super::{KEPT_PROFILES, Plugins};
use crate::config::Config;
use crate::job::{JobId, PluginPlace};
use crate::plugin::types::{Job, SessionStart, Spent};
use crate::plugin::{CallContext, Code, Digest, PlanRequest, Plugin, PluginError, check_schema};
use crate::profile::Profile;

/// What became of sample plans, by the digests of the profile and its plugin: nothing else can change it while a server runs.
#[derive(Debug, Default)]
pub(super) struct Examined(Mutex<HashMap<(String, Digest), Option<String>>>);

impl Examined {
    fn known(&self, key: &(String, Digest)) -> Option<Option<String>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
    }

    fn keep(&self, key: (String, Digest), problem: Option<String>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_PROFILES {
            kept.clear();
        }
        kept.insert(key, problem);
    }
}

/// What is to be said of a profile.
#[derive(Debug, Default)]
pub struct Examination {
    /// Why its jobs would be refused, or fail before their agent starts.
    pub error: Option<String>,
    /// What its author should change.
    pub warnings: Vec<String>,
}

impl Plugins {
    /// Examines a profile as a submission and the first steps of a job would.
    pub async fn examine(&self, profile: &Profile, config: &Config) -> Examination {
        let mut found = Examination::default();
        for named in named(profile) {
            let examined = match named.place() {
                PluginPlace::Plugin => {
                    self.examine_plugin(named, profile, config, &mut found.warnings)
                        .await
                }
                PluginPlace::Hook => self.examine_one(named).await.map(drop),
            };
            found.error = found.error.or(examined.err());
        }
        found
    }

    async fn examine_plugin(
        &self,
        named: Named<'_>,
        profile: &Profile,
        config: &Config,
        warnings: &mut Vec<String>,
    ) -> Result<(), String> {
        let plugin = self.load(named.reference).await.map_err(told)?;
        warnings.extend(profile.slips(plugin.profile_keys().as_deref()));
        let context = self.examine_one(named).await?;
        let key = (profile.digest.clone(), plugin.digest());
        let problem = match self.examined.known(&key) {
            Some(known) => known,
            None => {
                let name = admission::name(&plugin, &named.reference.component);
                let operator = config.for_plugin(&name);
                let problem = self.sample_plan(&plugin, &context, profile, operator).await;
                self.examined.keep(key, problem.clone());
                problem
            }
        };
        problem.map_or(Ok(()), Err)
    }

    /// What holds for plugins and hooks.
    async fn examine_one(&self, named: Named<'_>) -> Result<CallContext, String> {
        let reference = named.reference;
        let plugin = self.load(reference).await.map_err(told)?;
        if let Some(schema) = plugin.config_schema() {
            check_schema(schema, &reference.config)?;
        }
        let (name, digest) = (
            admission::name(&plugin, &reference.component),
            plugin.digest(),
        );
        self.trust().check_enabled(&name, digest).map_err(told)?;
        named.check_exports(&plugin).map_err(told)?;
        self.context(&plugin, reference, JobId::random())
            .map_err(told)
    }

    /// What is wrong with the plan for a job of this profile. What is wrong with the job alone is nothing to the profile.
    async fn sample_plan(
        &self,
        plugin: &Arc<Plugin>,
        context: &CallContext,
        profile: &Profile,
        operator: Value,
    ) -> Option<String> {
        let request = PlanRequest {
            job: Job {
                id: context.job_id.clone(),
                attempt: 1,
                task: "Say hello".to_owned(),
                repo_url: None,
                base_ref: None,
                branch: None,
                profile: profile.name.to_string(),
            },
            layers: self.layers(profile),
            config: profile.plugin.config.clone(),
            operator,
            session: SessionStart::Fresh(context.job_id.clone()),
            spent: Spent {
                cost_usd: 0.0,
                turns: 0,
                seconds: 0,
            },
        };
        let planned = self.host().materialize(plugin, context, &request).await;
        planned
            .err()
            .filter(|error| error.code != Code::Unsupported)
            .map(told)
    }
}

fn told(error: PluginError) -> String {
    error.to_string()
}
