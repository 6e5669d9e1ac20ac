//! Every plugin that a server knows, for people who ask what runs there and what it may do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde::Serialize;

use super::Plugins;
use super::admission::name;
use crate::bundled;
use crate::job::JobId;
use crate::plugin::types::Description;
use crate::plugin::{Code, Digest, Exports, Grants, Limits, Plugin, PluginError, Role};
use crate::profile::{Component, HookPoint, PluginRef, Profile};
use crate::trust::{Disabled, Standing};

/// Components whose last error is remembered.
const KEPT_ERRORS: usize = 256;

/// One component.
#[derive(Debug, Serialize)]
pub struct Listed {
    /// Where it comes from: the name of a bundled one, or a file.
    pub component: String,
    /// Whether it is part of the program.
    pub bundled: bool,
    /// What it calls itself; none: it does not say, or does not load.
    pub name: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// What it is for.
    pub summary: Option<String>,
    /// The digest of the bytes that are there now.
    pub sha256: Option<Digest>,
    /// Bytes of the component.
    pub size: Option<u64>,
    /// The version of the contract that it was built for.
    pub api: Option<String>,
    /// What it exports.
    pub exports: Option<Exports>,
    /// Imports that are refused when it uses them.
    pub refused_imports: Vec<String>,
    /// What it asks for; none: it has no way to ask.
    pub requests: Option<Grants>,
    /// Where this version stands with the operator; none: no job has asked for it yet, or it is part of the program.
    pub approval: Option<Standing>,
    /// That it is switched off, by its name or digest, and why.
    pub disabled: Option<Disabled>,
    /// The profiles that name it.
    pub uses: Vec<Usage>,
    /// What went wrong with it last, since the server started.
    pub last_error: Option<LastError>,
}

/// One profile's entry for a plugin.
#[derive(Debug, Serialize)]
pub struct Usage {
    /// The profile.
    pub profile: String,
    /// `plugin` or `hook`.
    pub role: Role,
    /// When a hook is called.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub on: Vec<HookPoint>,
    /// Whether a job fails where the hook does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub required: Option<bool>,
    /// What it may do there: its request, the profile's grant and the operator's ceiling.
    pub grants: Vec<String>,
    /// What it may use there.
    pub limits: Option<Limits>,
    /// Why it cannot be used there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// An error and when it was.
#[derive(Debug, Clone, Serialize)]
pub struct LastError {
    /// When.
    pub at: Timestamp,
    /// Its code.
    pub code: Code,
    /// What happened.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

impl LastError {
    fn now(error: &PluginError) -> Self {
        Self {
            at: Timestamp::now(),
            code: error.code,
            message: error.message.clone(),
            remedy: error.remedy.clone(),
        }
    }
}

/// The last error of each component.
#[derive(Debug, Default)]
pub(super) struct Errors(Mutex<HashMap<Component, LastError>>);

impl Errors {
    pub(super) fn note(&self, component: &Component, error: &PluginError) {
        let mut errors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if errors.len() >= KEPT_ERRORS
            && !errors.contains_key(component)
            && let Some(oldest) = errors
                .iter()
                .min_by_key(|(_, error)| error.at)
                .map(|(component, _)| component.clone())
        {
            errors.remove(&oldest);
        }
        errors.insert(component.clone(), LastError::now(error));
    }

    fn of(&self, component: &Component) -> Option<LastError> {
        let errors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        errors.get(component).cloned()
    }
}

/// A component and the entries that name it.
struct Named<'a> {
    component: Component,
    entries: Vec<Entry<'a>>,
}

struct Entry<'a> {
    profile: &'a Profile,
    reference: &'a PluginRef,
    role: Role,
    on: Vec<HookPoint>,
    required: Option<bool>,
}

impl Plugins {
    /// Remembers what went wrong with a component, for the list of plugins.
    pub fn note_error(&self, component: &Component, error: &PluginError) {
        self.errors.note(component, error);
    }

    /// The bundled plugins, these components, and those that these profiles name. Each is loaded if it is not yet.
    pub async fn overview(&self, profiles: &[Arc<Profile>], more: Vec<Component>) -> Vec<Listed> {
        let known = bundled::plugin_names().map(|name| Component::Bundled(name.to_owned()));
        let mut named: Vec<Named<'_>> = known
            .chain(more)
            .map(|component| Named {
                component,
                entries: Vec::new(),
            })
            .collect();
        for profile in profiles {
            for entry in entries(profile) {
                let component = &entry.reference.component;
                match named.iter_mut().find(|n| n.component == *component) {
                    Some(known) => known.entries.push(entry),
                    None => named.push(Named {
                        component: component.clone(),
                        entries: vec![entry],
                    }),
                }
            }
        }
        let mut listed = Vec::with_capacity(named.len());
        for named in named {
            listed.push(self.listed(named).await);
        }
        listed
    }

    async fn listed(&self, named: Named<'_>) -> Listed {
        let bare = PluginRef {
            component: named.component.clone(),
            sha256: None,
            config: serde_json::Value::Null,
            grants: std::collections::BTreeMap::new(),
            limits: serde_json::Map::new(),
        };
        // A failure is remembered by `load` itself.
        let plugin = self.load(&bare).await.ok();
        let plugin = plugin.as_deref();
        let about = |what: fn(&Description) -> &String| {
            plugin.and_then(Plugin::description).map(what).cloned()
        };
        let imports = plugin.map(Plugin::imports).unwrap_or_default();
        let mut listed = Listed {
            component: named.component.to_string(),
            bundled: matches!(named.component, Component::Bundled(_)),
            name: about(|d| &d.name),
            version: about(|d| &d.version),
            summary: about(|d| &d.summary),
            sha256: plugin.map(Plugin::digest),
            size: plugin.map(Plugin::size),
            api: plugin.map(|p| p.api().to_owned()),
            exports: plugin.map(Plugin::exports),
            refused_imports: imports
                .iter()
                .filter(|import| import.refused)
                .map(|import| import.name.clone())
                .collect(),
            requests: plugin
                .filter(|p| p.description().is_some())
                .map(|p| p.requests().clone()),
            approval: None,
            disabled: None,
            uses: named
                .entries
                .into_iter()
                .map(|entry| self.usage(plugin, entry))
                .collect(),
            last_error: self.errors.of(&named.component),
        };
        match (plugin, self.trust.decisions()) {
            (Some(plugin), Ok(decisions)) => {
                let (name, digest) = (name(plugin, &named.component), plugin.digest());
                listed.approval = decisions.approvals.get(&digest).map(|a| a.standing);
                listed.disabled = decisions.disabled(&name, digest).cloned();
            }
            // No plugin is called until they can be read.
            (_, Err(error)) => listed.last_error = Some(LastError::now(&error)),
            (None, Ok(_)) => {}
        }
        listed
    }

    fn usage(&self, plugin: Option<&Plugin>, entry: Entry<'_>) -> Usage {
        let mut usage = Usage {
            profile: entry.profile.name.to_string(),
            role: entry.role,
            on: entry.on,
            required: entry.required,
            grants: Vec::new(),
            limits: None,
            error: None,
        };
        let Some(plugin) = plugin else { return usage };
        // The id of no job: grants and limits do not depend on it.
        match self.context(plugin, entry.reference, JobId::random()) {
            Ok(context) => {
                let grants = self
                    .host
                    .effective_grants(plugin, &context.grants, entry.role);
                usage.grants = grants.effective.iter().map(|g| g.to_string()).collect();
                usage.limits = Some(context.limits);
            }
            Err(error) => usage.error = Some(error.to_string()),
        }
        if let Some(pin) = &entry.reference.sha256
            && *pin != plugin.digest().to_string()
        {
            usage.error = Some(format!("the profile pins {pin}"));
        }
        usage
    }
}

fn entries(profile: &Profile) -> Vec<Entry<'_>> {
    let plugin = Entry {
        profile,
        reference: &profile.plugin,
        role: Role::Plugin,
        on: Vec::new(),
        required: None,
    };
    let hooks = profile.hooks.iter().map(|hook| Entry {
        profile,
        reference: &hook.plugin,
        role: Role::Hook,
        on: hook.on.iter().copied().collect(),
        required: Some(hook.required),
    });
    std::iter::once(plugin).chain(hooks).collect()
}
