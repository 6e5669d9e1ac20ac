//! What the operator set for this plugin.

use std::collections::BTreeMap;

use serde::Deserialize;

use agenticore_plugin::{Error, OperatorSettings};
use serde_json::Value;

/// How the operator sets this plugin.
pub(crate) const SETTINGS: OperatorSettings = OperatorSettings {
    plugin: "codex",
    known: &["binary", "timeout", "base_url", "env"],
    variables: &[],
};

/// The operator's settings. Keys that are not for this plugin are passed over.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Operator {
    /// The program, by name or absolute path.
    pub(crate) binary: Option<String>,
    /// Seconds of wall time for profiles that do not say.
    pub(crate) timeout: Option<u32>,
    /// The model's service, where it is not the usual one.
    pub(crate) base_url: Option<String>,
    /// Variables for every agent.
    pub(crate) env: BTreeMap<String, String>,
}

impl Operator {
    pub(crate) fn read(settings: &Value) -> Result<Self, Error> {
        let mut operator: Self = SETTINGS.read(settings)?;
        for text in [&mut operator.binary, &mut operator.base_url] {
            *text = text.take().filter(|text| !text.is_empty());
        }
        SETTINGS.check_program("binary", operator.binary.as_ref())?;
        Ok(operator)
    }
}
