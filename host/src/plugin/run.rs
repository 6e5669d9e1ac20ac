//! One run of an agent: one instance from the start of its process to its end.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::Store;
use wasmtime::component::ResourceAny;

use super::bindings::agent;
use super::bindings::types::{Conclusion, Exit, Fact, Job, Line};
use super::call::{CallReport, Guest};
use super::error::{Code, PluginError};
use super::request::{CallContext, Layer, settings_array};
use super::state::State;
use super::{Core, Plugin, PluginHost};

/// What a run is about.
#[derive(Clone, Debug)]
pub struct RunRequest {
    /// The job.
    pub job: Job,
    /// The `plugin.config` object.
    pub config: serde_json::Value,
    /// The layers, the root first.
    pub layers: Arc<[Layer]>,
    /// The id of the session, where the plan chose one.
    pub session: Option<String>,
}

/// A run in progress.
///
/// Dropping it drops the instance. A call that is cancelled ends the run: its instance was in the middle of something.
pub struct AgentRun {
    core: Arc<Core>,
    plugin: Arc<Plugin>,
    time: Duration,
    live: Result<Live, PluginError>,
}

struct Live {
    guest: Guest,
    functions: agent::Guest,
    run: ResourceAny,
}

impl std::fmt::Debug for AgentRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentRun")
            .field("plugin", &self.plugin)
            .field("live", &self.live.is_ok())
            .finish_non_exhaustive()
    }
}

impl PluginHost {
    /// Makes the instance for a run, just before the agent's process starts.
    ///
    /// # Errors
    ///
    /// [`Code::Export`] if the plugin has no `agent`, and whatever ends a call.
    pub async fn start_run(
        &self,
        plugin: &Arc<Plugin>,
        context: &CallContext,
        request: &RunRequest,
    ) -> Result<AgentRun, PluginError> {
        let core = Arc::clone(&self.core);
        let Some(indices) = &plugin.indices.agent else {
            return Err(missing(plugin, "agent"));
        };
        let start = super::bindings::types::RunStart {
            job: request.job.clone(),
            config: request.config.to_string(),
            settings: settings_array(&request.layers),
            session: request.session.clone(),
        };
        let _permits = core.permits(plugin).await?;
        let guest = core.guest(plugin, context);
        let call = async |store: &mut Store<State>| {
            let instance = plugin.pre.instantiate_async(&mut *store).await?;
            let functions = indices.load(&mut *store, &instance)?;
            let run = functions.run().call_constructor(store, &start).await?;
            Ok((functions, run))
        };
        let deadline = context.limits.describe_time;
        let (guest, (functions, run), _) = guest
            .call(&core.ticker, "run", "describe_time", deadline, call)
            .await?;
        let live = Ok(Live {
            guest,
            functions,
            run,
        });
        let time = context.limits.time;
        drop(_permits);
        Ok(AgentRun {
            core,
            plugin: Arc::clone(plugin),
            time,
            live,
        })
    }
}

impl AgentRun {
    /// Reads lines of the agent's output and says what they mean.
    ///
    /// # Errors
    ///
    /// Whatever ends a call; the run is over then, and later calls give the first error again with [`Code::Ended`].
    pub async fn observe(&mut self, lines: &[Line]) -> Result<Vec<Fact>, PluginError> {
        let (facts, _) = self
            .call("observe", async |functions, run, store| {
                functions.run().call_observe(store, run, lines).await
            })
            .await?;
        Ok(facts)
    }

    /// Judges the run, after the process has ended and all of its output was observed.
    ///
    /// # Errors
    ///
    /// As for [`Self::observe`].
    pub async fn conclude(mut self, exit: &Exit) -> Result<(Conclusion, CallReport), PluginError> {
        self.call("conclude", async |functions, run, store| {
            functions.run().call_conclude(store, run, exit).await
        })
        .await
    }

    async fn call<R>(
        &mut self,
        name: &str,
        call: impl AsyncFnOnce(&agent::Guest, ResourceAny, &mut Store<State>) -> wasmtime::Result<R>,
    ) -> Result<(R, CallReport), PluginError> {
        let cancelled =
            || PluginError::new(Code::Ended, format!("an earlier `{name}` was cancelled"));
        let Live {
            guest,
            functions,
            run,
        } = match std::mem::replace(&mut self.live, Err(cancelled())) {
            Ok(live) => live,
            Err(first) => {
                self.live = Err(first.clone());
                return Err(ended(&first));
            }
        };
        let _permits = self.core.permits(&self.plugin).await?;
        let called = guest
            .call(&self.core.ticker, name, "time", self.time, async |store| {
                call(&functions, run, store).await
            })
            .await;
        match called {
            Ok((guest, result, report)) => {
                self.live = Ok(Live {
                    guest,
                    functions,
                    run,
                });
                Ok((result, report))
            }
            Err(error) => {
                self.live = Err(error.clone());
                Err(error)
            }
        }
    }
}

fn ended(first: &PluginError) -> PluginError {
    if first.code == Code::Ended {
        return first.clone();
    }
    let mut error = PluginError::new(
        Code::Ended,
        format!("the run ended with {}: {}", first.code, first.message),
    );
    error.detail.clone_from(&first.detail);
    error
}

pub(super) fn missing(plugin: &Plugin, interface: &str) -> PluginError {
    let name = plugin
        .description()
        .map_or_else(|| plugin.digest().to_string(), |d| d.name.clone());
    PluginError::new(
        Code::Export,
        format!("the plugin `{name}` does not export `{interface}`"),
    )
}
