//! Sandboxed plugins: loading them, calling them, and checking what they want before anything is done.
//!
//! A plugin is a WebAssembly component that exports any of the interfaces of `wit/`. It gets values and gives back values;
//! it holds no directory, no variable, no socket and no secret. The way through this module:
//!
//! 1. [`PluginHost::load`]: bytes are hashed, inspected, compiled and started once, under limits (`load`, `inspect`, `engine`).
//! 2. [`PluginHost::materialize`]: one call in a fresh store (`call`, `state`, `imports`), whose plan is then checked: paths
//!    (`path`, `tree`), form (`plan`), and what the agent would do with it (`policy`, `grants`). Out comes a [`CheckedPlan`].
//! 3. [`apply`]: its files are written, all of them or none.
//! 4. [`PluginHost::start_run`]: one instance reads the output of the agent ([`AgentRun`]).
//! 5. [`PluginHost::pre_job`] and [`PluginHost::post_job`]: hook plugins judge; [`PluginHost::redact`]: they clean what is kept.
//!
//! Left to others: where components and profiles come from, secrets, processes, records.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use wasmtime::component::{Instance, Linker};
use wasmtime::{Engine, Store};

use self::call::Guest;
use self::compile::cache::CompiledCache;
use self::engine::Ticker;
use self::state::State;

pub mod apply;
mod bindings;
mod call;
mod capture;
mod check;
mod compile;
mod digest;
mod engine;
mod error;
pub mod fuzz;
mod grants;
mod hooks;
mod imports;
mod inspect;
mod limits;
mod load;
mod metrics;
mod path;
mod plan;
mod policy;
mod redact;
mod request;
mod run;
mod schema;
mod state;
pub(crate) mod text;
mod tree;
mod virtual_time;
mod wit;

#[cfg(test)]
mod tests;

pub use self::bindings::types;
pub use self::call::CallReport;
pub use self::check::CheckReport;
pub use self::compile::{ChildCompiler, Compiler, compile_here};
pub use self::digest::Digest;
pub use self::error::{Code, ErrorReport, LimitUse, Party, PluginError};
pub use self::grants::{EffectiveGrants, Grant, GrantKind, Grants, Role};
pub use self::hooks::PreJob;
pub use self::imports::Import;
pub(crate) use self::limits::millis;
pub use self::limits::{Limits, LimitsPatch};
pub use self::load::{Exports, Plugin};
pub(crate) use self::plan::shown_location;
pub use self::plan::{CheckedPlan, Places, ResolvedEnv, ResolvedPlan, StopFile};
pub use self::policy::Policies;
pub use self::request::{CallContext, Layer, LayerFile, PlanRequest};
pub use self::run::{AgentRun, RunRequest};
pub(crate) use self::schema::check_schema;
pub use self::tree::{CheckedTree, Origin, TreeFile};

/// Loaded plugins that are kept; the least recently used goes first.
const KEPT_PLUGINS: usize = 64;

/// What a host is made from.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// The operator's limits.
    pub limits: Limits,
    /// The most that any plugin can be granted.
    pub ceiling: Grants,
    /// The policy documents.
    pub policies: Policies,
    /// Compilations at one time.
    pub max_parallel_compiles: usize,
    /// Where components are compiled.
    pub compiler: Compiler,
    /// Where compiled code is kept for the next process: a directory of this user alone. None: nowhere.
    pub compiled_dir: Option<PathBuf>,
    /// Calls into plugins at one time, over all plugins.
    pub max_calls: usize,
    /// Calls into one plugin at one time; fewer than `max_calls`, so that one that sleeps does not block the rest.
    pub max_calls_per_plugin: usize,
    /// Whether `debug` lines of plugins are kept.
    pub log_debug: bool,
}

impl Default for HostOptions {
    /// The default limits, an empty ceiling, no policies.
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            ceiling: Grants::default(),
            policies: Policies::default(),
            max_parallel_compiles: 2,
            compiler: Compiler::default(),
            compiled_dir: None,
            max_calls: 64,
            max_calls_per_plugin: 16,
            log_debug: false,
        }
    }
}

/// The plugin host of a process.
#[derive(Debug)]
pub struct PluginHost {
    core: Arc<Core>,
    plugins: Mutex<Cache>,
}

/// What loading and calling share.
pub(crate) struct Core {
    engine: Engine,
    ticker: Ticker,
    linker: Linker<State>,
    limits: Limits,
    ceiling: Grants,
    policies: Policies,
    compiles: Arc<Semaphore>,
    compiler: Compiler,
    compiled: Option<Arc<CompiledCache>>,
    calls: Arc<Semaphore>,
    calls_per_plugin: usize,
    log_debug: bool,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("limits", &self.limits)
            .field("ceiling", &self.ceiling)
            .finish_non_exhaustive()
    }
}

/// A plugin, or why its bytes will never be one. Failures that may pass, such as a slow machine, are not kept.
type Slot = Arc<OnceCell<Result<Arc<Plugin>, PluginError>>>;

#[derive(Debug, Default)]
struct Cache {
    slots: HashMap<Digest, (u64, Slot)>,
    uses: u64,
}

impl Cache {
    fn slot(&mut self, digest: Digest) -> Slot {
        self.uses += 1;
        let uses = self.uses;
        let (used, slot) = self.slots.entry(digest).or_default();
        *used = uses;
        let slot = Arc::clone(slot);
        if self.slots.len() > KEPT_PLUGINS
            && let Some(oldest) = self
                .slots
                .iter()
                .min_by_key(|(_, (used, _))| *used)
                .map(|(digest, _)| *digest)
        {
            self.slots.remove(&oldest);
        }
        slot
    }
}

impl PluginHost {
    /// Starts the engine.
    ///
    /// # Errors
    ///
    /// [`Code::Host`] if the engine does not take the limits or the system refuses a thread.
    pub fn new(options: HostOptions) -> Result<Arc<Self>, PluginError> {
        let engine = engine::engine(&options.limits)?;
        let linker = imports::linker(&engine)
            .map_err(|error| PluginError::new(Code::Host, format!("linking failed: {error:#}")))?;
        let core = Core {
            ticker: Ticker::start(&engine)?,
            engine,
            linker,
            limits: options.limits,
            ceiling: options.ceiling,
            policies: options.policies,
            compiles: Arc::new(Semaphore::new(options.max_parallel_compiles.max(1))),
            compiler: options.compiler,
            compiled: options.compiled_dir.as_deref().and_then(open_cache),
            calls: Arc::new(Semaphore::new(options.max_calls.max(1))),
            calls_per_plugin: options.max_calls_per_plugin.max(1),
            log_debug: options.log_debug,
        };
        Ok(Arc::new(Self {
            core: Arc::new(core),
            plugins: Mutex::default(),
        }))
    }

    /// The operator's limits, for [`Limits::lower_to`].
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.core.limits
    }

    /// What a plugin may do in a job of a profile with these grants: its request, the profile and the ceiling intersected.
    #[must_use]
    pub fn effective_grants(
        &self,
        plugin: &Plugin,
        profile: &Grants,
        role: Role,
    ) -> EffectiveGrants {
        EffectiveGrants::new(plugin.requests(), profile, &self.core.ceiling, role)
    }

    /// Loads a component from memory. The same bytes are compiled once, however many callers ask at the same time.
    ///
    /// # Errors
    ///
    /// Why the bytes are no usable plugin. The answer is kept, except where it depends on time.
    pub async fn load(&self, bytes: impl Into<Arc<[u8]>>) -> Result<Arc<Plugin>, PluginError> {
        let bytes: Arc<[u8]> = bytes.into();
        inspect::check_size(bytes.len() as u64, &self.core.limits)?;
        let digest = Digest::of(&bytes);
        let slot = self
            .plugins
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .slot(digest);
        let load = async || match load::load(&self.core, bytes, digest).await {
            Ok(plugin) => Ok(Ok(Arc::new(plugin))),
            Err(error) if is_passing(error.code) => Err(error),
            Err(error) => Ok(Err(error)),
        };
        slot.get_or_try_init(load).await?.clone()
    }

    /// The imports and exports of a component as WIT. It is compiled for that, and not run.
    ///
    /// # Errors
    ///
    /// Why the bytes are no component that compiles.
    pub async fn interfaces(&self, bytes: Arc<[u8]>) -> Result<String, PluginError> {
        inspect::inspect(&bytes, &self.core.limits)?;
        let digest = Digest::of(&bytes);
        let component = compile::compile(&self.core, bytes, digest).await?;
        Ok(wit::of(&self.core.engine, &component))
    }

    /// As [`Self::load`], for bytes that must have this digest.
    ///
    /// # Errors
    ///
    /// [`Code::Digest`] if they have another; nothing is compiled then.
    pub async fn load_pinned(
        &self,
        bytes: impl Into<Arc<[u8]>>,
        pin: Digest,
    ) -> Result<Arc<Plugin>, PluginError> {
        let bytes: Arc<[u8]> = bytes.into();
        inspect::check_size(bytes.len() as u64, &self.core.limits)?;
        let found = Digest::of(&bytes);
        if found != pin {
            let message = format!("the component has the digest {found}, and {pin} is pinned");
            return Err(PluginError::new(Code::Digest, message));
        }
        self.load(bytes).await
    }

    /// The plugin of that digest, if it is loaded.
    #[must_use]
    pub fn loaded(&self, digest: Digest) -> Option<Arc<Plugin>> {
        let plugins = self.plugins.lock().unwrap_or_else(PoisonError::into_inner);
        plugins.slots.get(&digest)?.1.get()?.as_ref().ok().cloned()
    }

    /// Asks a plugin for the launch plan of one attempt, and checks it.
    ///
    /// # Errors
    ///
    /// What ended the call, the plugin's own refusal, or the rule that the plan breaks. Nothing has been written then.
    pub async fn materialize(
        &self,
        plugin: &Arc<Plugin>,
        context: &CallContext,
        request: &PlanRequest,
    ) -> Result<(CheckedPlan, CallReport), PluginError> {
        let core = &self.core;
        let Some(indices) = &plugin.indices.profile else {
            return Err(run::missing(plugin, "profile"));
        };
        let guest_request = request.for_guest(plugin.reads());
        let deadline = ("time", context.limits.time);
        let call = self.call_fresh(
            plugin,
            context,
            "materialize",
            deadline,
            async |store, i| {
                let functions = indices.load(&mut *store, i)?;
                functions.call_materialize(store, &guest_request).await
            },
        );
        let (answer, report) = call.await?;
        let label = plugin.label();
        let grants = self.effective_grants(plugin, &context.grants, Role::Plugin);
        let checked = answer
            .map_err(|refusal| refused(&refusal))
            .and_then(|plan| {
                CheckedPlan::new(
                    plan,
                    &request.layers,
                    &context.limits,
                    &core.policies,
                    &grants,
                )
            });
        match checked {
            Ok(plan) => {
                metrics::written(&label, plan.tree.total_bytes());
                Ok((plan, report))
            }
            Err(mut error) => {
                metrics::refused(&label, &error);
                error.report = Some(report);
                Err(error)
            }
        }
    }
}

impl PluginHost {
    /// One call in an instance made for it, under this limit of time.
    async fn call_fresh<R>(
        &self,
        plugin: &Plugin,
        context: &CallContext,
        name: &str,
        (limit, deadline): (&'static str, Duration),
        call: impl AsyncFnOnce(&mut Store<State>, &Instance) -> wasmtime::Result<R>,
    ) -> Result<(R, CallReport), PluginError> {
        let core = &self.core;
        let _permits = core.permits(plugin).await?;
        let guest = core.guest(plugin, context);
        let called = guest.call(&core.ticker, name, limit, deadline, async |store| {
            let instance = plugin.pre.instantiate_async(&mut *store).await?;
            call(store, &instance).await
        });
        let (_, answer, report) = called.await?;
        Ok((answer, report))
    }

    /// As [`Self::call_fresh`], for a hook.
    async fn call_hook<R>(
        &self,
        plugin: &Plugin,
        context: &CallContext,
        name: &str,
        call: impl AsyncFnOnce(&mut Store<State>, &Instance) -> wasmtime::Result<R>,
    ) -> Result<(R, CallReport), PluginError> {
        let deadline = ("hook_time", context.limits.hook_time);
        self.call_fresh(plugin, context, name, deadline, call).await
    }
}

/// A cache that cannot be used only costs time.
fn open_cache(dir: &Path) -> Option<Arc<CompiledCache>> {
    match CompiledCache::open(dir) {
        Ok(cache) => Some(Arc::new(cache)),
        Err(error) => {
            tracing::warn!(%error, "compiled plugins are not kept: every start compiles them again");
            None
        }
    }
}

impl Core {
    /// What an instance of the plugin is made with for one job.
    fn guest(&self, plugin: &Plugin, context: &CallContext) -> Guest {
        Guest::new(
            &self.engine,
            plugin.label(),
            &context.job_id,
            &context.limits,
            self.log_debug,
        )
    }

    /// Waits for a free place, of the plugin first: a plugin that is busy holds no place of the others.
    async fn permits(
        &self,
        plugin: &Plugin,
    ) -> Result<(OwnedSemaphorePermit, OwnedSemaphorePermit), PluginError> {
        let closed = |_| PluginError::new(Code::Host, "the host is shutting down");
        let own = Arc::clone(&plugin.calls)
            .acquire_owned()
            .await
            .map_err(closed)?;
        let any = Arc::clone(&self.calls)
            .acquire_owned()
            .await
            .map_err(closed)?;
        Ok((own, any))
    }
}

/// Whether trying again with the same bytes may end in another way.
fn is_passing(code: Code) -> bool {
    matches!(code, Code::Time | Code::CompileTime | Code::Host)
}

/// The plugin's own refusal.
fn refused(error: &types::Error) -> PluginError {
    let code = match error.code {
        types::ErrorCode::InvalidConfig => Code::Config,
        types::ErrorCode::InvalidProfile => Code::ProfileInvalid,
        types::ErrorCode::Unsupported => Code::Unsupported,
        types::ErrorCode::Internal => Code::Internal,
    };
    PluginError::new(code, text::block(&error.message, 4 * 1024))
}

/// Checks a path that somebody else wrote against the rules for paths of plans; `what` says in the error which one it is.
pub(crate) fn check_path(what: &str, path: &str) -> Result<(), PluginError> {
    path::check(what, path)
}

/// Looks at a component's form without compiling it: whether it is one, and how much there is to it.
pub(crate) fn inspect_bytes(bytes: &[u8], limits: &Limits) -> Result<(), PluginError> {
    inspect::inspect(bytes, limits)
}

/// Reads a component's file once. The size is looked at before and while reading, so a file that grows is cut off too.
///
/// # Errors
///
/// [`Code::File`] if it cannot be read, [`Code::Size`] if it has more than `limits.component_bytes`.
pub async fn read_component(path: &Path, limits: &Limits) -> Result<Arc<[u8]>, PluginError> {
    let unread = |error: std::io::Error| {
        let path = text::line(&path.to_string_lossy(), 300);
        PluginError::new(
            Code::File,
            format!("the component {path} cannot be read: {error}"),
        )
    };
    // Without waiting, because opening a pipe would wait for its other end.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut options = tokio::fs::OpenOptions::new();
    let file = options
        .read(true)
        .custom_flags(nonblocking)
        .open(path)
        .await
        .map_err(unread)?;
    let metadata = file.metadata().await.map_err(unread)?;
    if !metadata.is_file() {
        return Err(unread(std::io::Error::other("it is not a regular file")));
    }
    inspect::check_size(metadata.len(), limits)?;
    let mut bytes = Vec::new();
    let most = limits.component_bytes.0.saturating_add(1);
    file.take(most)
        .read_to_end(&mut bytes)
        .await
        .map_err(unread)?;
    inspect::check_size(bytes.len() as u64, limits)?;
    Ok(bytes.into())
}
