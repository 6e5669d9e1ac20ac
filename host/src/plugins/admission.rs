//! **admission**: which bytes a job runs, and what they may do, decided when the job is submitted and the same for every attempt.
//!
//! What a plugin gets is what it asks for, the profile grants and the operator's ceiling allows. That, the digest and the limits go on the
//! job's record, and the bytes are kept beside it. An attempt takes those bytes, wherever it runs, or fails with a code that says why.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::Plugins;
use crate::job::{Admitted, JobId, PluginPlace};
use crate::plugin::{
    CallContext, Code, Digest, EffectiveGrants, Grants, Party, Plugin, PluginError, Role,
};
use crate::profile::{Component, HookPoint, PluginRef, Profile};
use crate::trust::Subject;
use crate::workbench::signature::Provenance;

/// A plugin for one job, and what its calls may use.
#[derive(Debug, Clone)]
pub struct Ready {
    /// The plugin.
    pub plugin: Arc<Plugin>,
    /// What its calls may use.
    pub context: CallContext,
    /// Its name, for people.
    pub name: String,
}

impl Plugins {
    /// Admits the plugins of a profile: each loads, is switched on and approved, and its bytes are kept.
    ///
    /// # Errors
    /// [`PluginError`], whose message says which plugin it is about and, where the operator must act, holds the command.
    pub async fn admit(&self, profile: &Profile) -> Result<Vec<Admitted>, PluginError> {
        let mut admitted = Vec::new();
        for named in named(profile) {
            admitted.push(self.admit_one(named).await?);
        }
        Ok(admitted)
    }

    async fn admit_one(&self, named: Named<'_>) -> Result<Admitted, PluginError> {
        let (place, reference) = (named.place(), named.reference);
        let plugin = self.load(reference).await?;
        named.check_exports(&plugin)?;
        let (name, digest) = (name(&plugin, &reference.component), plugin.digest());
        self.trust.check_enabled(&name, digest)?;
        let component = reference.component.to_string();
        if matches!(reference.component, Component::File(_)) {
            self.trust.admit(Subject {
                name: &name,
                digest,
                component: &component,
                requests: plugin.requests(),
            })?;
        }
        self.keep(&plugin, reference).await?;
        let context = self.context(&plugin, reference, JobId::random())?;
        let grants = self.grants(&plugin, &context.grants, place);
        let limits = serde_json::to_value(&context.limits).unwrap_or_default();
        Ok(Admitted {
            place,
            component,
            name,
            version: plugin
                .description()
                .map(|d| d.version.clone())
                .unwrap_or_default(),
            digest: digest.to_string(),
            api: plugin.api().to_owned(),
            requested: texts(plugin.requests()),
            granted: texts(&context.grants),
            effective: texts(&grants.effective),
            limits: match limits {
                Value::Object(limits) => limits,
                _ => serde_json::Map::new(),
            },
        })
    }

    async fn keep(&self, plugin: &Plugin, reference: &PluginRef) -> Result<(), PluginError> {
        if self.trust.is_kept(plugin.digest()) {
            return Ok(());
        }
        let bytes = self.bytes(&reference.component).await?;
        if Digest::of(&bytes) != plugin.digest() {
            let message = format!(
                "the component {} was replaced while it was read",
                reference.component
            );
            return Err(PluginError::new(Code::File, message));
        }
        let provenance = match &reference.component {
            Component::Bundled(_) => None,
            Component::File(path) => tokio::fs::read(Provenance::path(path)).await.ok(),
        };
        self.trust
            .keep(plugin.digest(), &bytes, provenance.as_deref())
    }

    fn grants(&self, plugin: &Plugin, granted: &Grants, place: PluginPlace) -> EffectiveGrants {
        let role = match place {
            PluginPlace::Plugin => Role::Plugin,
            PluginPlace::Hook => Role::Hook,
        };
        self.host.effective_grants(plugin, granted, role)
    }

    /// The plugin that a job was admitted with, for one of its attempts.
    ///
    /// # Errors
    /// [`Code::Pinned`] if the job was not admitted with it or its bytes are gone, [`Code::Disabled`], [`Code::Approval`] and
    /// [`Code::Signature`] if the operator has decided otherwise since.
    pub async fn ready(
        &self,
        admitted: &[Admitted],
        place: PluginPlace,
        reference: &PluginRef,
        job: JobId,
    ) -> Result<Ready, PluginError> {
        // A job of an earlier version was admitted without a word about its plugins.
        let pin = match admitted {
            [] => None,
            some => Some(find(some, place, &reference.component)?),
        };
        let plugin = match pin {
            Some(pin) => self.load_pin(pin, reference).await?,
            None => self.load(reference).await?,
        };
        let (name, digest) = (name(&plugin, &reference.component), plugin.digest());
        self.trust.check_enabled(&name, digest)?;
        if matches!(reference.component, Component::File(_)) {
            self.trust.check_not_revoked(Subject {
                name: &name,
                digest,
                component: &reference.component.to_string(),
                requests: plugin.requests(),
            })?;
        }
        let mut context = self.context(&plugin, reference, job)?;
        if let Some(pin) = pin {
            context.grants = self.granted_then(&plugin, pin, place);
        }
        Ok(Ready {
            plugin,
            context,
            name,
        })
    }

    /// What the profile granted when the job was submitted. Where the operator's ceiling is another one now, what the job got then, which
    /// the ceiling of now narrows further.
    fn granted_then(&self, plugin: &Plugin, pin: &Admitted, place: PluginPlace) -> Grants {
        let (granted, effective) = (grants(&pin.granted), grants(&pin.effective));
        if self.grants(plugin, &granted, place).effective == effective {
            granted
        } else {
            effective
        }
    }

    /// The pinned bytes: loaded already, kept, or still in their place.
    async fn load_pin(
        &self,
        pin: &Admitted,
        reference: &PluginRef,
    ) -> Result<Arc<Plugin>, PluginError> {
        let digest: Digest = pin.digest.parse().map_err(|_| {
            let message = format!(
                "the record pins {} to {:?}, which is no digest",
                pin.component, pin.digest
            );
            PluginError::new(Code::Host, message)
        })?;
        // The operator may have taken back a key since the job was submitted.
        if let Component::File(path) = &reference.component {
            let copies = [self.trust.kept_path(digest), path.clone()];
            let signed = self
                .keys
                .check_installed(&copies.each_ref().map(PathBuf::as_path), digest);
            signed.map_err(|mut error| {
                error.message = format!(
                    "{}, which the job is pinned to: {}",
                    pin.component, error.message
                );
                error
            })?;
        }
        if let Some(plugin) = self.host.loaded(digest) {
            return Ok(plugin);
        }
        if let Some(bytes) = self.trust.kept(digest) {
            return self.host.load_pinned(bytes, digest).await;
        }
        let now = self.bytes(&reference.component).await.ok();
        if let Some(bytes) = now.filter(|bytes| Digest::of(bytes) == digest) {
            return self.host.load_pinned(bytes, digest).await;
        }
        let message = format!(
            "the job is pinned to {} with the digest {digest}; the component is another one now, and no copy of those bytes is kept",
            pin.component
        );
        Err(PluginError::new(Code::Pinned, message))
    }
}

/// A plugin as a profile names it.
#[derive(Clone, Copy)]
pub(super) struct Named<'a> {
    pub(super) reference: &'a PluginRef,
    /// Where a hook is called; none: it is the plugin that makes the plan.
    on: Option<&'a BTreeSet<HookPoint>>,
}

/// The plugins of a profile, in the order they are called.
pub(super) fn named(profile: &Profile) -> impl Iterator<Item = Named<'_>> {
    let plugin = Named {
        reference: &profile.plugin,
        on: None,
    };
    let hooks = profile.hooks.iter().map(|hook| Named {
        reference: &hook.plugin,
        on: Some(&hook.on),
    });
    std::iter::once(plugin).chain(hooks)
}

impl Named<'_> {
    pub(super) fn place(&self) -> PluginPlace {
        match self.on {
            None => PluginPlace::Plugin,
            Some(_) => PluginPlace::Hook,
        }
    }

    /// Refuses a component that cannot be called where the profile lists it: nobody would know before the job is half over.
    pub(super) fn check_exports(&self, plugin: &Plugin) -> Result<(), PluginError> {
        let (component, exports) = (&self.reference.component, plugin.exports());
        let Some(on) = self.on else {
            if exports.profile && exports.agent {
                return Ok(());
            }
            let message = format!(
                "the plugin {component} cannot run an agent: it exports {}, and `profile` and `agent` are needed",
                exports.names().join(", ")
            );
            let remedy = "name another component in `plugin.component` of profile.yml; a hook goes below `hooks`";
            return Err(PluginError::new(Code::Export, message).with_remedy(Party::Profile, remedy));
        };
        let can = |point: &HookPoint| match point {
            HookPoint::PreJob | HookPoint::PostJob => exports.hooks,
            HookPoint::Redact => exports.redact,
        };
        let Some(lacking) = on.iter().find(|point| !can(point)) else {
            return Ok(());
        };
        let points = [HookPoint::PreJob, HookPoint::PostJob, HookPoint::Redact];
        let points: Vec<_> = points
            .iter()
            .filter(|point| can(point))
            .map(|point| point.as_str())
            .collect();
        let (message, remedy) = if points.is_empty() {
            let message = format!(
                "the hook {component} is no hook: it exports {}",
                exports.names().join(", ")
            );
            (
                message,
                "name another component in `hooks` of profile.yml".to_owned(),
            )
        } else {
            let (lacking, points) = (lacking.as_str(), points.join(", "));
            let message = format!(
                "the hook {component} cannot be called at `{lacking}`; what it exports is for: {points}"
            );
            (
                message,
                format!("list it with `on: [{points}]` or fewer in profile.yml"),
            )
        };
        Err(PluginError::new(Code::Export, message).with_remedy(Party::Profile, remedy))
    }
}

/// The entry of this component. Its file may lie in another folder on another pod, where its name decides.
fn find<'a>(
    admitted: &'a [Admitted],
    place: PluginPlace,
    component: &Component,
) -> Result<&'a Admitted, PluginError> {
    let plain = |text: &str| {
        let name = Path::new(text).file_name();
        name.map(|name| name.to_string_lossy().into_owned())
    };
    let whole = component.to_string();
    let wanted = plain(&whole);
    let of_place = || admitted.iter().filter(|a| a.place == place);
    let found = of_place().find(|a| a.component == whole);
    let found = found.or_else(|| of_place().find(|a| plain(&a.component) == wanted));
    found.ok_or_else(|| {
        let message = format!(
            "the profile was changed since the job was submitted: it names {component} now, which the job was not admitted with"
        );
        PluginError::new(Code::Pinned, message)
    })
}

/// The name that people and the operator's switches know a plugin by: its own, or that of its file.
#[must_use]
pub fn name(plugin: &Plugin, component: &Component) -> String {
    if let Some(description) = plugin.description() {
        return description.name.clone();
    }
    match component {
        Component::Bundled(name) => name.clone(),
        Component::File(path) => path
            .file_stem()
            .map(|stem| stem.to_string_lossy().to_lowercase())
            .unwrap_or_default(),
    }
}

fn texts(grants: &Grants) -> Vec<String> {
    grants.iter().map(|grant| grant.to_string()).collect()
}

fn grants(texts: &[String]) -> Grants {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}
