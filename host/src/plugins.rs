//! The plugins that profiles name: from a reference in a profile to a loaded plugin, its limits and its grants.
//!
//! The sandbox itself is [`crate::plugin`]; this module knows where components come from (the binary or a file), checks pins, and
//! holds the operator's ceiling. [`admission`] decides at submit which bytes a job runs with which grants; [`crate::trust`] holds what
//! the operator has decided.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt as _};
use serde_json::{Map, Value};

use crate::bundled;
use crate::config::Config;
use crate::job::JobId;
use crate::plugin::{
    self, CallContext, Code, Compiler, Digest, Grant, GrantKind, Grants, HostOptions, Layer,
    LayerFile, LimitsPatch, Party, Plugin, PluginError, PluginHost, Policies,
};
use crate::profile::{Component, PluginRef, Profile, ProfileStore};
use crate::trust::Trust;
use crate::workbench::signature::TrustedKeys;

use self::examination::Examined;
use self::overview::Errors;

pub mod admission;
mod examination;
pub mod overview;
#[cfg(test)]
mod tests;

/// Layers of profiles that are kept ready for plugins.
const KEPT_PROFILES: usize = 64;

/// What profiles may grant freely where the operator sets no ceiling. A program still needs a policy document, or to be named.
const OPEN_KINDS: [GrantKind; 5] = [
    GrantKind::Program,
    GrantKind::Settings,
    GrantKind::Mcp,
    GrantKind::Permissions,
    GrantKind::Env,
];

/// Loads plugins for profiles.
#[derive(Debug)]
pub struct Plugins {
    host: Arc<PluginHost>,
    bundled: Mutex<HashMap<String, Arc<Plugin>>>,
    layers: Mutex<HashMap<String, Arc<[Layer]>>>,
    examined: Examined,
    trust: Trust,
    /// What the last prewarm came to, for people.
    warmth: Mutex<Warmth>,
    /// The program that the operator set for a plugin, by the plugin's name. The operator's word is grant enough.
    programs: HashMap<String, Grant>,
    /// Whose components from files are accepted.
    keys: TrustedKeys,
    errors: Errors,
}

impl Plugins {
    /// A host with the bundled policies and the operator's ceiling, which keeps compiled code below `config.home`.
    ///
    /// # Errors
    /// [`PluginError`] when a bundled policy is malformed or the engine cannot start.
    pub fn new(config: &Config, compiler: Compiler) -> Result<Self, PluginError> {
        let documents: Vec<(&str, &str)> = bundled::policies()
            .iter()
            .map(|file| {
                (
                    file.path,
                    std::str::from_utf8(file.bytes).unwrap_or_default(),
                )
            })
            .collect();
        let programs = operator_programs(config);
        let options = HostOptions {
            ceiling: ceiling(config).union(&programs.values().cloned().collect()),
            policies: Policies::parse(&documents)?,
            compiler,
            compiled_dir: Some(config.home.join("cache/plugins")),
            limits: config.plugin_limits.clone(),
            max_calls: config.plugin_max_calls,
            max_calls_per_plugin: config.plugin_max_calls_each,
            ..HostOptions::default()
        };
        Ok(Self {
            host: PluginHost::new(options)?,
            bundled: Mutex::default(),
            layers: Mutex::default(),
            examined: Examined::default(),
            trust: Trust::new(config),
            warmth: Mutex::default(),
            programs,
            keys: config.plugin_keys.clone(),
            errors: Errors::default(),
        })
    }

    /// The sandbox.
    #[must_use]
    pub fn host(&self) -> &PluginHost {
        &self.host
    }

    /// What the operator has decided about plugins.
    #[must_use]
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Loads the component that `reference` names and checks its pin and its signature. Bundled ones are looked up once; files are
    /// read, hashed and compared each time, so that a changed file is never mistaken for the old one.
    ///
    /// # Errors
    /// [`PluginError`] when it cannot be read, is no plugin, is not the pinned one, or is not signed as the operator wants it.
    pub async fn load(&self, reference: &PluginRef) -> Result<Arc<Plugin>, PluginError> {
        let loaded = self.load_and_check(reference).await;
        loaded.inspect_err(|error| self.note_error(&reference.component, error))
    }

    async fn load_and_check(&self, reference: &PluginRef) -> Result<Arc<Plugin>, PluginError> {
        let plugin = match &reference.component {
            Component::Bundled(name) => self.load_bundled(name).await?,
            Component::File(path) => {
                let bytes = plugin::read_component(path, self.host.limits()).await?;
                self.keys.check_installed(&[path], Digest::of(&bytes))?;
                self.host.load(bytes).await?
            }
        };
        match &reference.sha256 {
            Some(pin) if *pin != plugin.digest().to_string() => Err(PluginError::new(
                Code::Digest,
                format!(
                    "the component {} has the digest {}, but profile.yml pins {pin}",
                    reference.component,
                    plugin.digest()
                ),
            )),
            _ => Ok(plugin),
        }
    }

    /// The bytes of a component as they are now.
    async fn bytes(&self, component: &Component) -> Result<Arc<[u8]>, PluginError> {
        match component {
            Component::Bundled(name) => bundled::require_plugin(name)
                .map(Into::into)
                .map_err(|e| PluginError::new(Code::File, e.to_string())),
            Component::File(path) => plugin::read_component(path, self.host.limits()).await,
        }
    }

    async fn load_bundled(&self, name: &str) -> Result<Arc<Plugin>, PluginError> {
        let known = self
            .bundled
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned();
        if let Some(plugin) = known {
            return Ok(plugin);
        }
        let bytes = bundled::require_plugin(name)
            .map_err(|e| PluginError::new(Code::File, e.to_string()))?;
        let plugin = self.host.load(bytes).await?;
        self.bundled
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.to_owned(), plugin.clone());
        Ok(plugin)
    }

    /// What a call of this plugin for a job may use.
    ///
    /// # Errors
    /// [`PluginError`] when the profile's grants or limits are malformed or above the operator's.
    pub fn context(
        &self,
        plugin: &Plugin,
        reference: &PluginRef,
        job: JobId,
    ) -> Result<CallContext, PluginError> {
        let patch: LimitsPatch = serde_json::from_value(Value::Object(reference.limits.clone()))
            .map_err(|e| {
                PluginError::new(Code::Limits, format!("`plugin.limits` of profile.yml: {e}"))
                    .with_remedy(Party::Profile, "correct `plugin.limits` in profile.yml")
            })?;
        Ok(CallContext {
            job_id: job.to_string(),
            limits: self.host.limits().lower_to(&patch)?,
            grants: self.granted(plugin, reference)?,
        })
    }

    /// What the profile grants, and the program that the operator set for the plugin.
    fn granted(&self, plugin: &Plugin, reference: &PluginRef) -> Result<Grants, PluginError> {
        let grants: Grants = serde_json::to_value(&reference.grants)
            .and_then(serde_json::from_value)
            .map_err(|e| {
                PluginError::new(Code::Grant, format!("`plugin.grants` of profile.yml: {e}"))
                    .with_remedy(Party::Profile, "correct `plugin.grants` in profile.yml")
            })?;
        let program = plugin
            .description()
            .and_then(|d| self.programs.get(&d.name));
        Ok(grants.union(&program.cloned().into_iter().collect()))
    }

    /// The profile's layers as plugins get them; the bytes are shared, not copied.
    #[must_use]
    pub fn layers(&self, profile: &Profile) -> Arc<[Layer]> {
        let mut kept = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() > KEPT_PROFILES {
            kept.clear();
        }
        kept.entry(profile.digest.clone())
            .or_insert_with(|| {
                profile
                    .layers
                    .iter()
                    .map(|layer| for_plugin(layer))
                    .collect()
            })
            .clone()
    }

    /// Loads the plugins that are part of the binary, those that profiles name, and the bytes that waiting jobs are pinned to, so that
    /// no job need wait for a compiler. One that fails, or is not ready in `time`, is left to the jobs that name it.
    pub async fn prewarm(&self, profiles: &ProfileStore, pinned: Vec<Digest>, time: Duration) {
        let mut wanted: Vec<(String, Wanted)> = bundled::plugin_names()
            .map(|name| (name.to_owned(), Wanted::Bundled(name)))
            .collect();
        for reference in named(profiles) {
            wanted.push((reference.component.to_string(), Wanted::Named(reference)));
        }
        wanted.extend(pinned.into_iter().map(|d| (d.short(), Wanted::Pinned(d))));
        let all = wanted.len();
        let warming = wanted.into_iter().map(async |(name, wanted)| {
            let loaded = match wanted {
                Wanted::Bundled(name) => self.load_bundled(name).await.map(drop),
                Wanted::Named(reference) => self.load(&reference).await.map(drop),
                Wanted::Pinned(digest) => self.load_kept(digest).await.map(drop),
            };
            loaded.map_err(|error| (name, error))
        });
        let warmed = async {
            let mut warming: FuturesUnordered<_> = warming.collect();
            while let Some(loaded) = warming.next().await {
                self.note_warm(all, loaded.err());
            }
        };
        if tokio::time::timeout(time, warmed).await.is_err() {
            tracing::warn!(
                seconds = time.as_secs(),
                "not every plugin was loaded in time (AGENTICORE_PLUGIN_PREWARM_SECONDS); jobs that name the others wait for them"
            );
        }
    }

    fn note_warm(&self, all: usize, failed: Option<(String, PluginError)>) {
        let mut warmth = self.warmth.lock().unwrap_or_else(PoisonError::into_inner);
        warmth.done += 1;
        warmth.all = all;
        if let Some((name, error)) = failed {
            tracing::error!(plugin = name, %error, "a plugin does not load; profiles that name it cannot run");
            warmth.failed.push(format!("{name} ({})", error.code));
        }
    }

    /// Warns of settings below `agents` that are for plugins which are not here: most likely their names are wrong.
    pub async fn warn_of_absent(
        &self,
        agents: &BTreeMap<String, Map<String, Value>>,
        profiles: &ProfileStore,
    ) {
        for problem in self.absent(agents, profiles).await {
            tracing::warn!("{problem}");
        }
    }

    async fn absent(
        &self,
        agents: &BTreeMap<String, Map<String, Value>>,
        profiles: &ProfileStore,
    ) -> Vec<String> {
        let mut known: BTreeSet<String> = bundled::plugin_names().map(str::to_owned).collect();
        let is_known = |name: &String, known: &BTreeSet<String>| known.contains(name);
        if agents.keys().all(|name| is_known(name, &known)) {
            return Vec::new();
        }
        for reference in named(profiles) {
            // One that does not load was told of when it was loaded ahead.
            if let Ok(plugin) = self.load(&reference).await {
                known.insert(admission::name(&plugin, &reference.component));
            }
        }
        let absent = agents.keys().filter(|name| !is_known(name, &known));
        let names = known
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(", ");
        absent
            .map(|name| format!("nothing reads the settings `agents.{name}`: no profile uses a plugin of that name; known are: {names}"))
            .collect()
    }

    /// What the prewarm came to, for people.
    #[must_use]
    pub fn warmth(&self) -> String {
        self.warmth
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .to_string()
    }

    async fn load_kept(&self, digest: Digest) -> Result<Arc<Plugin>, PluginError> {
        if let Some(plugin) = self.host.loaded(digest) {
            return Ok(plugin);
        }
        match self.trust.kept(digest) {
            Some(bytes) => self.host.load_pinned(bytes, digest).await,
            None => Err(PluginError::new(
                Code::Pinned,
                format!("the bytes of {} are not kept", digest.short()),
            )),
        }
    }
}

/// A plugin to load ahead.
enum Wanted {
    Bundled(&'static str),
    Named(PluginRef),
    Pinned(Digest),
}

/// What a prewarm came to so far.
#[derive(Debug, Default)]
struct Warmth {
    all: usize,
    done: usize,
    failed: Vec<String>,
}

impl std::fmt::Display for Warmth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let loaded = self.done.saturating_sub(self.failed.len());
        write!(f, "{loaded} of {} plugins are loaded", self.all)?;
        if !self.failed.is_empty() {
            write!(f, "; these cannot be used: {}", self.failed.join(", "))?;
        }
        Ok(())
    }
}

/// The profiles that jobs can have.
#[must_use]
pub fn usable(profiles: &ProfileStore) -> Vec<Arc<Profile>> {
    let listed = profiles.list().into_iter().filter(|p| p.error.is_none());
    listed.filter_map(|p| profiles.load(&p.name).ok()).collect()
}

/// The component files that the usable profiles name, each once.
fn named(profiles: &ProfileStore) -> Vec<PluginRef> {
    let mut found: BTreeMap<PathBuf, PluginRef> = BTreeMap::new();
    for profile in usable(profiles) {
        let hooks = profile.hooks.iter().map(|hook| &hook.plugin);
        for reference in std::iter::once(&profile.plugin).chain(hooks) {
            if let Component::File(path) = &reference.component {
                found
                    .entry(path.clone())
                    .or_insert_with(|| reference.clone());
            }
        }
    }
    found.into_values().collect()
}

fn for_plugin(layer: &crate::profile::Layer) -> Layer {
    let file = |file: &crate::profile::LayerFile| LayerFile {
        path: file.path.clone(),
        executable: file.executable,
        bytes: Bytes::from_owner(file.bytes.clone()),
    };
    Layer {
        name: layer.name.to_string(),
        settings: Value::Object(layer.settings.clone()),
        files: layer.files.iter().map(file).collect(),
    }
}

/// What the operator lets profiles grant. Without a word from the operator: all but secrets, and of those the ones that the default
/// plugin block and the bundled profiles name.
fn ceiling(config: &Config) -> Grants {
    let secrets = config
        .secrets
        .iter()
        .map(|name| Grant::new(GrantKind::Secrets, name));
    let base: Grants = match &config.ceiling {
        Some(grants) => grants.iter().cloned().collect(),
        None => {
            let open = OPEN_KINDS.into_iter().map(|kind| Grant::new(kind, "*"));
            open.chain(
                default_secrets()
                    .into_iter()
                    .map(|name| Grant::new(GrantKind::Secrets, name)),
            )
            .collect()
        }
    };
    base.union(&secrets.collect())
}

fn operator_programs(config: &Config) -> HashMap<String, Grant> {
    let program = |settings: &serde_json::Map<String, Value>| {
        let binary = settings.get("binary")?.as_str()?;
        Some(Grant::new(GrantKind::Program, binary))
    };
    let named = config.agents.iter();
    named
        .filter_map(|(name, settings)| Some((name.clone(), program(settings)?)))
        .collect()
}

fn default_secrets() -> BTreeSet<String> {
    let profiles = bundled::profiles().iter();
    let profiles = profiles
        .filter(|file| file.path.ends_with("/profile.yml"))
        .filter_map(|file| std::str::from_utf8(file.bytes).ok());
    profiles
        .chain([bundled::defaults()])
        .flat_map(granted_secrets)
        .collect()
}

fn granted_secrets(yaml: &str) -> Vec<String> {
    let profile: Value = serde_saphyr::from_str(yaml).unwrap_or_default();
    let names = profile
        .pointer("/plugin/grants/secrets")
        .and_then(Value::as_array);
    names
        .into_iter()
        .flatten()
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect()
}
