//! From bytes to a plugin that can be called.
//!
//! The bytes are read once, hashed, looked at and compiled (`compile`). Every component is instantiated once under the same limits as any
//! call, so that start functions and wrong types show here and not in a job.

use std::sync::Arc;

use globset::GlobSet;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Semaphore;
use wasmtime::Store;
use wasmtime::component::{Component, Instance, InstancePre};

use super::bindings::types::Description;
use super::bindings::{agent, hooks, profile, redact};
use super::digest::Digest;
use super::error::{Code, PluginError};
use super::grants::Grants;
use super::imports::{self, Import};
use super::state::State;
use super::{Core, compile, inspect, text};

mod describe;

/// The interfaces of the contract that a component exports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exports {
    /// `profile`.
    pub profile: bool,
    /// `agent`.
    pub agent: bool,
    /// `hooks`.
    pub hooks: bool,
    /// `redact`, since version 1.1.
    #[serde(default)]
    pub redact: bool,
}

impl Exports {
    /// The names of those it exports.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        let all = [
            (self.profile, "profile"),
            (self.agent, "agent"),
            (self.hooks, "hooks"),
            (self.redact, "redact"),
        ];
        let has = all.into_iter().filter(|(has, _)| *has);
        has.map(|(_, name)| name).collect()
    }
}

/// A compiled component that was instantiated once and said what it is. Cheap to share; calls make their own instances.
pub struct Plugin {
    digest: Digest,
    size: u64,
    api: String,
    imports: Vec<Import>,
    description: Option<Description>,
    schema: Option<Value>,
    reads: GlobSet,
    requests: Grants,
    pub(super) pre: InstancePre<State>,
    pub(super) indices: Indices,
    /// Calls of this plugin at one time.
    pub(super) calls: Arc<Semaphore>,
}

/// Where the functions of each exported interface are.
#[derive(Clone)]
pub(super) struct Indices {
    pub(super) profile: Option<profile::GuestIndices>,
    pub(super) agent: Option<agent::GuestIndices>,
    pub(super) hooks: Option<hooks::GuestIndices>,
    pub(super) redact: Option<redact::GuestIndices>,
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin")
            .field("digest", &self.digest)
            .field("exports", &self.exports())
            .finish_non_exhaustive()
    }
}

impl Plugin {
    /// The digest of the component's bytes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What metrics call it: its name, or the beginning of its digest.
    pub(super) fn label(&self) -> String {
        let name = self.description().map(|d| d.name.clone());
        name.unwrap_or_else(|| self.digest.short())
    }

    /// Bytes of the component.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The version of the contract that it was built for.
    #[must_use]
    pub fn api(&self) -> &str {
        &self.api
    }

    /// Which interfaces it exports.
    #[must_use]
    pub fn exports(&self) -> Exports {
        Exports {
            profile: self.indices.profile.is_some(),
            agent: self.indices.agent.is_some(),
            hooks: self.indices.hooks.is_some(),
            redact: self.indices.redact.is_some(),
        }
    }

    /// What it imports.
    #[must_use]
    pub fn imports(&self) -> &[Import] {
        &self.imports
    }

    /// What it says of itself; none without the export `profile`.
    #[must_use]
    pub fn description(&self) -> Option<&Description> {
        self.description.as_ref()
    }

    /// The JSON Schema of its configuration; none without the export `profile`.
    #[must_use]
    pub fn config_schema(&self) -> Option<&Value> {
        self.schema.as_ref()
    }

    /// The keys at the top of `profile.yml` that it reads, as its schema says in `x-profile-keys`; none: it does not say.
    #[must_use]
    pub fn profile_keys(&self) -> Option<Vec<&str>> {
        let keys = self.schema.as_ref()?.get("x-profile-keys")?.as_array()?;
        Some(keys.iter().filter_map(Value::as_str).collect())
    }

    /// What it asks for. A plugin without the export `profile` has no way to ask, and is taken to ask for whatever its
    /// profile grants.
    #[must_use]
    pub fn requests(&self) -> &Grants {
        &self.requests
    }

    /// The files of layers that it wants to read.
    pub(super) fn reads(&self) -> &GlobSet {
        &self.reads
    }
}

/// Loads a component, see the module's documentation.
pub(super) async fn load(
    core: &Core,
    bytes: Arc<[u8]>,
    digest: Digest,
) -> Result<Plugin, PluginError> {
    inspect::inspect(&bytes, &core.limits)?;
    let size = bytes.len() as u64;
    let component = compile::compile(core, bytes, digest).await?;
    let mut linker = core.linker.clone();
    let imports = imports::satisfy(&mut linker, &component)?;
    let (api, exported) = exported(&component)?;
    let pre = linker.instantiate_pre(&component).map_err(|error| {
        let cause = text::line(&format!("{error:#}"), 500);
        PluginError::new(
            Code::Import,
            format!("the component's imports do not fit: {cause}"),
        )
    })?;
    let indices = Indices::find(&pre, exported)?;
    let mut plugin = Plugin {
        digest,
        size,
        api,
        imports,
        description: None,
        schema: None,
        reads: GlobSet::empty(),
        requests: Grants::all(),
        pre,
        indices,
        calls: Arc::new(Semaphore::new(core.calls_per_plugin)),
    };
    describe::describe(core, &mut plugin).await?;
    Ok(plugin)
}

/// The interfaces of the contract among the exports, and their version.
fn exported(component: &Component) -> Result<(String, Exports), PluginError> {
    let mut exports = Exports::default();
    let mut api = None;
    for (name, _) in component.component_type().exports(component.engine()) {
        let Some(rest) = name
            .strip_prefix(imports::PACKAGE)
            .and_then(|rest| rest.strip_prefix('/'))
        else {
            continue;
        };
        let (interface, version) = rest.split_once('@').unwrap_or((rest, ""));
        imports::check_version(name, version)?;
        match interface {
            "profile" => exports.profile = true,
            "agent" => exports.agent = true,
            "hooks" => exports.hooks = true,
            "redact" => exports.redact = true,
            _ => continue,
        }
        api = Some(version.to_owned());
    }
    api.map(|api| (api, exports)).ok_or_else(|| {
        let message = format!(
            "the component exports none of {}/profile, agent, hooks and redact",
            imports::PACKAGE
        );
        PluginError::new(Code::Export, message)
    })
}

impl Indices {
    fn find(pre: &InstancePre<State>, exports: Exports) -> Result<Self, PluginError> {
        let profile = exports
            .profile
            .then(|| profile::GuestIndices::new(pre))
            .transpose();
        let agent = exports
            .agent
            .then(|| agent::GuestIndices::new(pre))
            .transpose();
        let hooks = exports
            .hooks
            .then(|| hooks::GuestIndices::new(pre))
            .transpose();
        let redact = exports
            .redact
            .then(|| redact::GuestIndices::new(pre))
            .transpose();
        Ok(Self {
            redact: redact.map_err(|error| mistyped(&error))?,
            profile: profile.map_err(|error| mistyped(&error))?,
            agent: agent.map_err(|error| mistyped(&error))?,
            hooks: hooks.map_err(|error| mistyped(&error))?,
        })
    }

    /// Checks the types of all exported functions.
    fn check(&self, store: &mut Store<State>, instance: &Instance) -> wasmtime::Result<()> {
        self.profile
            .as_ref()
            .map(|i| i.load(&mut *store, instance))
            .transpose()?;
        self.agent
            .as_ref()
            .map(|i| i.load(&mut *store, instance))
            .transpose()?;
        self.hooks
            .as_ref()
            .map(|i| i.load(&mut *store, instance))
            .transpose()?;
        self.redact
            .as_ref()
            .map(|i| i.load(&mut *store, instance))
            .transpose()?;
        Ok(())
    }
}

fn mistyped(error: &wasmtime::Error) -> PluginError {
    let cause = text::line(&format!("{error:#}"), 500);
    PluginError::new(
        Code::Export,
        format!("an export does not fit the contract: {cause}"),
    )
}
