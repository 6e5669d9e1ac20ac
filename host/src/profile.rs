//! Profiles: what a job's agent is told, allowed and given, as folders that people write.
//!
//! This module finds profile folders, reads them, follows `extends` and checks the keys that the host itself acts on. It owns
//! the rules of a profile's form; what its other keys and files mean is the concern of the plugin it names, and what a plugin may
//! do with them that of [`crate::plugin`].
//!
//! A profile is a folder `NAME/` with a `profile.yml` and any other files, or a single file `NAME.yml` of the older form. Everything
//! is read once into memory and shared from there until it changes on disk.

mod chain;
mod delivery;
mod error;
mod folder;
mod keys;
mod root;
mod slips;
mod store;
#[cfg(test)]
mod tests;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::job::{InvalidName, ProfileName};
pub use delivery::Delivery;
pub use error::ProfileError;
pub use root::{ProfileRoot, SHARED_COMPONENTS, Source};
pub use store::ProfileStore;

/// For the fuzz target of `profile.yml`: reads the bytes as one, its host keys too. Anything but a panic is fine.
pub fn fuzz_document(bytes: &[u8]) {
    let file = std::path::Path::new("profile.yml");
    if let Ok(settings) = yaml::read(file, bytes) {
        drop(keys::HostKeys::read(file, &settings));
    }
}

/// A profile, ready for a job: its whole `extends` chain and what the host keys along it add up to.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Its name.
    pub name: ProfileName,
    /// One sentence for people, empty if it has none.
    pub description: String,
    /// Where it was found.
    pub source: Source,
    /// The chain, the root first and the profile itself last; never empty.
    pub layers: Vec<Arc<Layer>>,
    /// The plugin that turns it into a launch plan.
    pub plugin: PluginRef,
    /// The plugins that judge its jobs, in the order they are called.
    pub hooks: Vec<HookRef>,
    /// Whether a finished job opens a pull request.
    pub auto_pr: bool,
    /// What becomes of a job that was interrupted and whose session cannot go on.
    pub on_interrupt: OnInterrupt,
    /// How often a job may be started at most, the first time included; at least 1.
    pub max_attempts: u32,
    /// Whether a server that others can reach refuses it.
    pub local_only: bool,
    /// Seconds of wall time for a job, where the profile limits it itself beside its plugin.
    pub timeout: Option<u32>,
    /// What becomes of the work of a job that succeeded.
    pub delivery: Delivery,
    /// SHA-256 over the layers' names, settings and files, in hexadecimal: two profiles with the same digest behave the same.
    pub digest: String,
    /// What its author should change, for people.
    pub warnings: Vec<String>,
}

/// One profile folder of an `extends` chain.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// The profile's name.
    pub name: ProfileName,
    /// `profile.yml` with only the keys that this layer sets itself, in their order.
    pub settings: Map<String, Value>,
    /// Every file of the folder except `profile.yml` and components (`*.wasm`), sorted by path.
    pub files: Vec<LayerFile>,
}

/// A file of a layer.
#[derive(Clone, PartialEq, Eq)]
pub struct LayerFile {
    /// Its path below the profile folder, with `/` between the names.
    pub path: String,
    /// Its length in bytes.
    pub size: u64,
    /// Whether its owner may execute it.
    pub executable: bool,
    /// Its bytes.
    pub bytes: Arc<[u8]>,
}

impl std::fmt::Debug for LayerFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LayerFile")
            .field("path", &self.path)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// What becomes of work that an agent did not commit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Uncommitted {
    /// The host commits it.
    #[default]
    Commit,
    /// It stays in the worktree, and the pull request goes without it.
    Leave,
    /// There is no pull request then.
    Fail,
}

/// A plugin as a profile names it.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginRef {
    /// Its component.
    pub component: Component,
    /// The SHA-256 that the component must have, in lower-case hexadecimal.
    pub sha256: Option<String>,
    /// The `config` object for the plugin; an empty object if there is none.
    pub config: Value,
    /// What the profile grants it: names by kind, as in `{secrets: [NAME]}`. `*` stands for every name of the kind.
    pub grants: BTreeMap<String, BTreeSet<String>>,
    /// Limits below the operator's, as written, such as `{memory: 64MiB, time: 5s}`.
    pub limits: Map<String, Value>,
}

/// Where a plugin's component is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Component {
    /// Part of the binary, under this name.
    Bundled(String),
    /// This file.
    File(PathBuf),
}

impl std::fmt::Display for Component {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bundled(name) => f.write_str(name),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A hook plugin as a profile names it.
#[derive(Debug, Clone, PartialEq)]
pub struct HookRef {
    /// The plugin.
    pub plugin: PluginRef,
    /// When it is called; never empty.
    pub on: BTreeSet<HookPoint>,
    /// Whether the job fails where the hook does.
    pub required: bool,
}

/// When a hook is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HookPoint {
    /// Before the agent starts.
    PreJob,
    /// After the agent ended.
    PostJob,
    /// Before words of the job are kept and published.
    Redact,
}

impl HookPoint {
    /// The word in `on:`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PreJob => "pre-job",
            Self::PostJob => "post-job",
            Self::Redact => "redact",
        }
    }
}

/// What becomes of a job that was interrupted and whose session cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnInterrupt {
    /// It is run again from the start.
    Rerun,
    /// It fails.
    Fail,
}

/// A profile in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileSummary {
    /// Its name; for a broken profile the folder's, whatever it is.
    pub name: String,
    /// One sentence for people, empty if it has none or cannot be read.
    pub description: String,
    /// Where it was found.
    pub source: Source,
    /// Its plugin's component, empty if it is broken.
    pub plugin: String,
    /// The profile it extends.
    pub extends: Option<String>,
    /// Whether a server that others can reach refuses it.
    pub local_only: bool,
    /// Why it cannot be used.
    pub error: Option<String>,
    /// What its author should change.
    #[serde(default)]
    pub warnings: Vec<String>,
}
