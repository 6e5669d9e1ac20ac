//! What plugins had to do with a job: which were admitted with what, and what each of their calls came to.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// The entry of `profile.yml` that named a plugin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PluginPlace {
    /// `plugin:`.
    #[default]
    Plugin,
    /// An entry of `hooks:`.
    Hook,
}

/// A plugin as it was when the job was submitted. Every attempt, on every pod, runs these bytes with at most these grants.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Admitted {
    /// Where the profile named it.
    pub place: PluginPlace,
    /// The component, as the profile named it.
    pub component: String,
    /// Its name.
    pub name: String,
    /// Its version, where it says one.
    pub version: String,
    /// SHA-256 of its bytes, hexadecimal.
    pub digest: String,
    /// The version of the contract that it was built for.
    pub api: String,
    /// What it asked for, each `KIND:NAME`.
    pub requested: Vec<String>,
    /// What the profile granted.
    pub granted: Vec<String>,
    /// What it got: asked for, granted, and allowed by the operator's ceiling.
    pub effective: Vec<String>,
    /// The limits of its calls.
    pub limits: Map<String, Value>,
}

/// Which plugin made the launch plan, and what it used.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct PluginUse {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of its bytes, hexadecimal.
    pub digest: String,
    /// The version of the contract that it was built for.
    pub api: String,
    /// The capabilities the job ran with, each `KIND:NAME`.
    pub grants: Vec<String>,
    /// SHA-256 over the files it had written, hexadecimal.
    pub tree: String,
    /// The files that were written and where each came from, at most [`PluginUse::MAX_FILES`].
    pub files: Vec<FileUse>,
    /// Files that are not listed.
    #[serde(skip_serializing_if = "is_zero")]
    pub files_left_out: u64,
    /// Milliseconds that `materialize` took.
    pub materialize_ms: f64,
    /// The most memory a call had, in bytes.
    pub peak_memory: u64,
    /// Calls into the host.
    pub host_calls: u64,
    /// What it was refused, and what to do about each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub denials: Vec<Denial>,
    /// The end of its log.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
}

impl PluginUse {
    /// Files that are listed at most; the tree's digest is over all of them.
    pub const MAX_FILES: usize = 200;
}

/// A file that was written for a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct FileUse {
    /// Its path below the config directory.
    pub path: String,
    /// Its bytes.
    pub bytes: u64,
    /// Who wrote it: `plugin`, `hook NAME`, or `layer NAME` for a file copied from a profile.
    pub by: String,
    /// Its path in that layer, where it was copied and has another name now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// Something that a plugin wanted and did not get.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Denial {
    /// The code, such as `plugin.grant`.
    pub code: String,
    /// What it wanted.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

/// One call of a hook plugin.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct HookUse {
    /// Its name.
    pub name: String,
    /// When it was called: `pre-job`, `post-job` or `redact`.
    pub at: String,
    /// The attempt it was called in.
    pub attempt: u32,
    /// What it decided, in a word or two; empty where it failed.
    pub decided: String,
    /// SHA-256 of its bytes, hexadecimal; empty where it was not loaded.
    pub digest: String,
    /// Milliseconds the call took.
    pub elapsed_ms: f64,
    /// The most memory it had, in bytes.
    pub peak_memory: u64,
    /// What it was refused, or why it failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub denials: Vec<Denial>,
    /// The end of its log.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature serde asks for"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
