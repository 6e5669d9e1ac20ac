//! What a caller hands over for one call: the job, the profile's layers, limits and grants.

use bytes::Bytes;
use globset::GlobSet;
use serde_json::Value;

use super::bindings::types;
use super::grants::Grants;
use super::limits::Limits;

/// Whose call it is and what it may use.
#[derive(Clone, Debug)]
pub struct CallContext {
    /// The job's id; the virtual clock and the random numbers follow from it.
    pub job_id: String,
    /// The limits, see [`Limits::lower_to`].
    pub limits: Limits,
    /// What the profile grants to this plugin; the host intersects it with what the plugin requests and its own ceiling.
    pub grants: Grants,
}

/// One profile folder of the `extends` chain, held in memory.
#[derive(Clone, Debug)]
pub struct Layer {
    /// The profile's name.
    pub name: String,
    /// The keys that this layer's `profile.yml` sets itself.
    pub settings: Value,
    /// Its files, sorted by path.
    pub files: Vec<LayerFile>,
}

/// One file of a layer.
#[derive(Clone, Debug)]
pub struct LayerFile {
    /// Its path below the profile folder.
    pub path: String,
    /// Whether its owner may execute it.
    pub executable: bool,
    /// Its bytes; clones share them.
    pub bytes: Bytes,
}

/// One job's request for a launch plan.
#[derive(Clone, Debug)]
pub struct PlanRequest {
    /// The job.
    pub job: types::Job,
    /// The layers, the root first.
    pub layers: std::sync::Arc<[Layer]>,
    /// The `plugin.config` object.
    pub config: Value,
    /// What the operator set for this plugin.
    pub operator: Value,
    /// How the session starts.
    pub session: types::SessionStart,
    /// What earlier attempts used up.
    pub spent: types::Spent,
}

impl PlanRequest {
    /// The request as the guest gets it: with the bytes of those files only that it declared to read.
    pub(super) fn for_guest(&self, reads: &GlobSet) -> types::MaterializeRequest {
        types::MaterializeRequest {
            job: self.job.clone(),
            layers: self
                .layers
                .iter()
                .map(|layer| layer.for_guest(reads))
                .collect(),
            config: self.config.to_string(),
            operator: self.operator.to_string(),
            session: self.session.clone(),
            spent: self.spent,
        }
    }
}

impl Layer {
    fn for_guest(&self, reads: &GlobSet) -> types::Layer {
        let file = |file: &LayerFile| types::LayerFile {
            path: file.path.clone(),
            size: file.bytes.len() as u64,
            executable: file.executable,
            content: reads.is_match(&file.path).then(|| file.bytes.to_vec()),
        };
        types::Layer {
            name: self.name.clone(),
            settings: self.settings.to_string(),
            files: self.files.iter().map(file).collect(),
        }
    }
}

/// The settings of all layers as one JSON array, as `run-start` has them.
pub(super) fn settings_array(layers: &[Layer]) -> String {
    let settings: Vec<_> = layers
        .iter()
        .map(|layer| layer.settings.to_string())
        .collect();
    format!("[{}]", settings.join(","))
}
