//! The plugins that profiles name: from a reference in a profile to a loaded plugin, its limits and its grants.
//!
//! The sandbox itself is [`crate::plugin`]; this module knows where components come from (the binary or a file), checks pins, and
//! holds the operator's ceiling.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde_json::Value;

use crate::bundled;
use crate::config::Config;
use crate::job::JobId;
use crate::plugin::{
    self, CallContext, Code, Compiler, Digest, Grant, GrantKind, Grants, HostOptions, Layer,
    LayerFile, LimitsPatch, Plugin, PluginError, PluginHost, Policies,
};
use crate::profile::{Component, PluginRef, Profile};
use crate::workbench::signature::TrustedKeys;

use self::overview::Errors;

pub mod overview;

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
    /// [`PluginError`] when a capability in the settings is malformed or the engine cannot start.
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
            limits: config.plugin_limits.clone(),
            ceiling: ceiling(config)?.union(&programs.values().cloned().collect()),
            policies: Policies::parse(&documents)?,
            compiler,
            compiled_dir: Some(config.home.join("cache/plugins")),
            ..HostOptions::default()
        };
        Ok(Self {
            host: PluginHost::new(options)?,
            bundled: Mutex::default(),
            layers: Mutex::default(),
            programs,
            keys: TrustedKeys::parse(&config.plugin_keys).map_err(|problem| {
                PluginError::new(
                    Code::Signature,
                    format!("AGENTICORE_PLUGIN_KEYS: {problem}"),
                )
            })?,
            errors: Errors::default(),
        })
    }

    /// The sandbox.
    #[must_use]
    pub fn host(&self) -> &PluginHost {
        &self.host
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
                self.keys.check_installed(path, Digest::of(&bytes))?;
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
            })?;
        let grants: Grants = serde_json::to_value(&reference.grants)
            .and_then(serde_json::from_value)
            .map_err(|e| {
                PluginError::new(Code::Grant, format!("`plugin.grants` of profile.yml: {e}"))
            })?;
        let program = plugin
            .description()
            .and_then(|d| self.programs.get(&d.name));
        let grants = grants.union(&program.cloned().into_iter().collect());
        Ok(CallContext {
            job_id: job.to_string(),
            limits: self.host.limits().lower_to(&patch)?,
            grants,
        })
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

    /// Loads every bundled plugin, so that the first job need not wait for a compiler. One that fails is left to the jobs that name it.
    pub async fn prewarm(&self) {
        for name in bundled::plugin_names() {
            if let Err(error) = self.load_bundled(name).await {
                tracing::error!(plugin = name, %error, "a bundled plugin does not load; profiles that name it cannot run");
            }
        }
    }
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
/// plugin block names.
fn ceiling(config: &Config) -> Result<Grants, PluginError> {
    let parse = |text: &String| -> Result<Grant, PluginError> {
        text.parse()
            .map_err(|e| PluginError::new(Code::Grant, format!("AGENTICORE_GRANTS: {e}")))
    };
    let secrets = config
        .secrets
        .iter()
        .map(|name| Grant::new(GrantKind::Secrets, name));
    let base: Grants = match &config.ceiling {
        Some(grants) => grants.iter().map(parse).collect::<Result<_, _>>()?,
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
    Ok(base.union(&secrets.collect()))
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

fn default_secrets() -> Vec<String> {
    let defaults: Value = serde_saphyr::from_str(bundled::defaults()).unwrap_or_default();
    let names = defaults
        .pointer("/plugin/grants/secrets")
        .and_then(Value::as_array);
    names
        .into_iter()
        .flatten()
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect()
}
