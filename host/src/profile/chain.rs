//! Adds up an `extends` chain: the root's keys first, then each child's over them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::delivery::DeliveryKeys;
use super::keys::{ComponentName, HookKeys, HostKeys, PluginKeys};
use super::{
    Component, HookRef, Layer, OnInterrupt, PluginRef, Profile, ProfileError, ProfileName,
    ProfileRoot, Source,
};

/// The longest chain.
const MAX_CHAIN: usize = 16;

/// One profile as it is stored, checked by itself.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) layer: Arc<Layer>,
    pub(super) keys: HostKeys,
    /// The document's path.
    pub(super) file: PathBuf,
    /// The index of its root.
    pub(super) root: usize,
    pub(super) source: Source,
    pub(super) digest: [u8; 32],
    pub(super) warnings: Vec<String>,
}

/// Looks entries up by name.
pub(super) trait Entries {
    /// The entry of that name, none if there is none.
    fn entry(&self, name: &ProfileName) -> Result<Option<Arc<Entry>>, ProfileError>;
    /// The names of all profiles, sorted.
    fn known(&self) -> Vec<String>;
    /// The component of that relative path in the entry's own folder.
    fn own_component(&self, entry: &Entry, path: &str) -> Option<PathBuf>;
    /// The roots.
    fn roots(&self) -> &[ProfileRoot];
}

/// The chain of `name`, the root first.
pub(super) fn resolve(
    entries: &impl Entries,
    name: &ProfileName,
) -> Result<Vec<Arc<Entry>>, ProfileError> {
    let Some(mut entry) = entries.entry(name)? else {
        return Err(ProfileError::NotFound {
            name: name.clone(),
            known: entries.known(),
        });
    };
    let mut chain: Vec<Arc<Entry>> = Vec::new();
    loop {
        chain.push(Arc::clone(&entry));
        let Some(parent) = &entry.keys.extends else {
            break;
        };
        let file = entry.file.clone();
        if chain.iter().any(|entry| entry.layer.name == *parent) {
            let names = chain.iter().map(|entry| &entry.layer.name).chain([parent]);
            return Err(ProfileError::Loop {
                file,
                chain: names.map(ToString::to_string).collect(),
            });
        }
        if chain.len() == MAX_CHAIN {
            return Err(ProfileError::TooDeep {
                file,
                limit: MAX_CHAIN,
            });
        }
        entry = match entries.entry(parent) {
            Ok(Some(found)) => found,
            Ok(None) => {
                return Err(ProfileError::MissingParent {
                    file,
                    parent: parent.clone(),
                    known: entries.known(),
                });
            }
            Err(source) => {
                return Err(ProfileError::BrokenParent {
                    file,
                    parent: parent.clone(),
                    source: Box::new(source),
                });
            }
        };
    }
    chain.reverse();
    Ok(chain)
}

/// What a chain adds up to. `defaults` stand below the root.
pub(super) fn add_up(
    entries: &impl Entries,
    defaults: &HostKeys,
    chain: &[Arc<Entry>],
) -> Result<Profile, ProfileError> {
    let Some(last) = chain.last() else {
        return Err(ProfileError::Entry {
            path: PathBuf::new(),
            problem: "a chain has at least one profile".to_owned(),
        });
    };
    let mut keys = Keys::new(defaults);
    for entry in chain {
        keys.lay_over(&entry.keys, Some(entry));
    }
    let mut digest = Sha256::new();
    for entry in chain {
        digest.update(entry.digest);
    }
    Ok(Profile {
        name: last.layer.name.clone(),
        description: last.keys.description.clone().unwrap_or_default(),
        source: last.source,
        layers: chain.iter().map(|entry| Arc::clone(&entry.layer)).collect(),
        plugin: keys.plugin.resolve(entries, "plugin", &last.file)?,
        hooks: resolve_hooks(entries, &keys)?,
        auto_pr: keys.auto_pr.unwrap_or(true),
        on_interrupt: keys.on_interrupt.unwrap_or(OnInterrupt::Rerun),
        max_attempts: keys.max_attempts.unwrap_or(2),
        local_only: keys.local_only.unwrap_or(false),
        timeout: keys.timeout,
        delivery: keys.delivery.resolve(),
        digest: hex(&digest.finalize()),
        warnings: chain
            .iter()
            .flat_map(|entry| entry.warnings.iter().cloned())
            .collect(),
    })
}

/// Host keys along a chain, each the nearest one that was set.
#[derive(Default)]
struct Keys<'a> {
    auto_pr: Option<bool>,
    on_interrupt: Option<OnInterrupt>,
    max_attempts: Option<u32>,
    local_only: Option<bool>,
    timeout: Option<u32>,
    delivery: DeliveryKeys,
    plugin: Plugin<'a>,
    /// The list stands as a whole; a child that sets one replaces its parent's.
    hooks: (&'a [HookKeys], Option<&'a Entry>),
}

impl<'a> Keys<'a> {
    fn new(defaults: &'a HostKeys) -> Self {
        let mut keys = Self::default();
        keys.lay_over(defaults, None);
        keys
    }

    fn lay_over(&mut self, keys: &'a HostKeys, entry: Option<&'a Entry>) {
        self.auto_pr = keys.auto_pr.or(self.auto_pr);
        self.on_interrupt = keys.on_interrupt.or(self.on_interrupt);
        self.max_attempts = keys.max_attempts.or(self.max_attempts);
        self.local_only = keys.local_only.or(self.local_only);
        self.timeout = keys.timeout.or(self.timeout);
        self.delivery.lay_over(&keys.delivery);
        if let Some(plugin) = &keys.plugin {
            self.plugin.lay_over(plugin, entry);
        }
        if let Some(hooks) = &keys.hooks {
            self.hooks = (hooks, entry);
        }
    }
}

/// A plugin block along a chain.
#[derive(Default, Clone)]
struct Plugin<'a> {
    keys: PluginKeys,
    /// The entry that names the component; none for the defaults'.
    owner: Option<&'a Entry>,
}

impl<'a> Plugin<'a> {
    /// A block that names a component stands by itself: what was granted to one component says nothing about another. A block
    /// that does not goes on with its parent's, key by key; only `config` is laid over key by key inside, too.
    fn lay_over(&mut self, keys: &PluginKeys, entry: Option<&'a Entry>) {
        if keys.component.is_some() {
            *self = Self {
                keys: keys.clone(),
                owner: entry,
            };
            return;
        }
        let own = &mut self.keys;
        own.sha256 = keys.sha256.clone().or(own.sha256.take());
        own.grants = keys.grants.clone().or(own.grants.take());
        own.limits = keys.limits.clone().or(own.limits.take());
        if let Some(config) = &keys.config {
            own.config.get_or_insert_default().extend(config.clone());
        }
    }

    /// `file` is named where no profile of the chain names a component.
    fn resolve(
        &self,
        entries: &impl Entries,
        key: &str,
        file: &Path,
    ) -> Result<PluginRef, ProfileError> {
        let file = self.owner.map_or(file, |owner| &owner.file);
        let key = format!("{key}.component");
        let component = match &self.keys.component {
            Some(ComponentName::Bundled(name)) => Component::Bundled(name.clone()),
            Some(ComponentName::File(path)) => {
                Component::File(find_component(entries, self.owner, file, &key, path)?)
            }
            None => {
                let problem = "there is no default plugin either".to_owned();
                return Err(ProfileError::Component {
                    file: file.to_owned(),
                    key,
                    component: String::new(),
                    problem,
                });
            }
        };
        Ok(PluginRef {
            component,
            sha256: self.keys.sha256.clone(),
            config: Value::Object(self.keys.config.clone().unwrap_or_default()),
            grants: self.keys.grants.clone().unwrap_or_default(),
            limits: self.keys.limits.clone().unwrap_or_default(),
        })
    }
}

fn resolve_hooks(entries: &impl Entries, keys: &Keys<'_>) -> Result<Vec<HookRef>, ProfileError> {
    let (hooks, owner) = keys.hooks;
    let resolved = hooks.iter().enumerate().map(|(n, hook)| {
        let plugin = Plugin {
            keys: hook.plugin.clone(),
            owner,
        };
        Ok(HookRef {
            plugin: plugin.resolve(entries, &format!("hooks[{n}]"), Path::new("defaults"))?,
            on: hook.on.clone(),
            required: hook.required,
        })
    });
    resolved.collect()
}

/// In the profile's own folder, then among the shared components of its own root, then of the others, the last first.
fn find_component(
    entries: &impl Entries,
    owner: Option<&Entry>,
    file: &Path,
    key: &str,
    path: &str,
) -> Result<PathBuf, ProfileError> {
    if let Some(found) = owner.and_then(|owner| entries.own_component(owner, path)) {
        return Ok(found);
    }
    let own_root = owner.and_then(|owner| entries.roots().get(owner.root));
    let mut roots = own_root.into_iter().chain(entries.roots().iter().rev());
    roots.find_map(|root| root.shared_component(path)).ok_or_else(|| ProfileError::Component {
        file: file.to_owned(),
        key: key.to_owned(),
        component: path.to_owned(),
        problem: "there is no such file in the profile's folder or in a `_plugins` folder beside the profiles".to_owned(),
    })
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
