//! What `agenticore plugin check FILE` says of a component, under the limits of the server.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bindings::types::Description;
use super::digest::Digest;
use super::error::{Code, Party, PluginError};
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
    /// What does not keep it from being used and yet may surprise: imports that are refused when it uses them, and capabilities that
    /// the operator lets no profile grant.
    #[serde(default)]
    pub findings: Vec<PluginError>,
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
            findings: Vec::new(),
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
                report.findings = refused_imports(plugin.imports())
                    .into_iter()
                    .chain(self.beyond_ceiling(report.requests.as_ref()))
                    .collect();
            }
            Err(error) => report.error = Some(error),
        }
        report
    }

    fn beyond_ceiling(&self, requests: Option<&Grants>) -> Option<PluginError> {
        let ceiling = &self.core.ceiling;
        let beyond: Vec<_> = requests?
            .iter()
            .filter(|grant| !ceiling.allows(grant))
            .map(|grant| format!("`{grant}`"))
            .collect();
        if beyond.is_empty() {
            return None;
        }
        let names = beyond.join(", ");
        let message = format!("it asks for {names}, which the operator lets no profile grant here");
        let remedy = "ask for less, or have the operator allow it: AGENTICORE_GRANTS for capabilities, AGENTICORE_SECRETS for secrets";
        Some(PluginError::new(Code::Grant, message).with_remedy(Party::Operator, remedy))
    }
}

/// One finding for the network, one for everything else.
fn refused_imports(imports: &[Import]) -> Vec<PluginError> {
    let refused = |network: bool| {
        let names: Vec<_> = imports
            .iter()
            .filter(|import| import.refused && import.is_network() == network)
            .map(|import| format!("`{}`", import.name))
            .collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    let network = refused(true).map(|names| {
        PluginError::new(
            Code::Network,
            format!("it imports the network ({names}), and a call that uses it ends there"),
        )
    });
    let other = refused(false).map(|names| {
        PluginError::new(
            Code::Import,
            format!("it imports {names}, and a call that uses it ends there"),
        )
    });
    network.into_iter().chain(other).collect()
}
