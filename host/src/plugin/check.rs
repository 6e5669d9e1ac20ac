//! What `agenticore plugin check FILE` says of a component, under the limits of the server.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bindings::types::Description;
use super::digest::Digest;
use super::error::PluginError;
use super::grants::Grants;
use super::imports::{self, Import};
use super::load::Exports;
use super::{PluginHost, load};

/// The findings; the JSON form is stable.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CheckReport {
    /// Whether it can be used.
    pub ok: bool,
    /// The digest, for `sha256:` in profile.yml.
    pub sha256: Digest,
    /// Bytes of the component.
    pub size: u64,
    /// The version of the contract that the host speaks.
    pub host_api: String,
    /// The version that the component was built for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<String>,
    /// The interfaces it exports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exports: Option<Exports>,
    /// What it imports; `refused` ones are stubs that end a call which uses them.
    pub imports: Vec<Import>,
    /// What it says of itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<Description>,
    /// What it asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<Grants>,
    /// The schema of its configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_schema: Option<Value>,
    /// Why it cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<PluginError>,
}

impl PluginHost {
    /// Loads a component afresh and says what it is; never fails, a failure is part of the report.
    pub async fn check(&self, bytes: impl Into<Arc<[u8]>>) -> CheckReport {
        let bytes: Arc<[u8]> = bytes.into();
        let (sha256, size) = (Digest::of(&bytes), bytes.len() as u64);
        let loaded = load::load(&self.core, bytes, sha256).await;
        let mut report = CheckReport {
            ok: loaded.is_ok(),
            sha256,
            size,
            host_api: imports::VERSION.to_string(),
            api: None,
            exports: None,
            imports: Vec::new(),
            description: None,
            requests: None,
            config_schema: None,
            error: None,
        };
        match loaded {
            Ok(plugin) => {
                report.api = Some(plugin.api().to_owned());
                report.exports = Some(plugin.exports());
                report.imports = plugin.imports().to_vec();
                report.description = plugin.description().cloned();
                report.requests = plugin
                    .description()
                    .is_some()
                    .then(|| plugin.requests().clone());
                report.config_schema = plugin.config_schema().cloned();
            }
            Err(error) => report.error = Some(error),
        }
        report
    }
}
