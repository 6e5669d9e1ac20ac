//! Plugins in an OCI registry: an artifact in the layout for WebAssembly components, found by digest.
//!
//! The first layer is the component as it is, so other tools can use it. What else a bundle has travels in layers of our own types. A
//! bundle that is pulled is the one that was pushed, to the byte. Nothing in here is ever called for a job.
//!
//! The protocol is a handful of requests, made with the HTTP client that is there anyway.

mod http;

use std::sync::Arc;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Unusable;
use super::bundle::Bundle;
use crate::plugin::{CheckReport, Code, Digest, Limits, PluginError, text};

pub use self::http::Reference;
use self::http::Session;

/// The type of an artifact's own document.
const INDEX: &str = "application/vnd.oci.image.manifest.v1+json";
/// The configuration of an artifact with a component.
const CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// A component.
const WASM: &str = "application/wasm";
/// A bundle's manifest.
const MANIFEST: &str = "application/vnd.agenticore.plugin.manifest.v1+json";
/// A bundle's profile.
const PROFILE: &str = "application/vnd.agenticore.plugin.profile.v1.tar";
/// A bundle's signatures.
const SIGNATURES: &str = "application/vnd.agenticore.plugin.signatures.v1+json";
/// Artifacts carry no time of their making: the same bundle is the same artifact.
const NO_TIME: &str = "1970-01-01T00:00:00Z";
/// Bytes of a document.
const MAX_DOCUMENT: u64 = 1 << 20;

/// Who asks registries.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    login: Option<(String, SecretString)>,
}

/// An artifact in a registry.
#[derive(Debug, Clone, Serialize)]
pub struct Artifact {
    /// `HOST/NAME@sha256:DIGEST`: always the same bytes.
    pub reference: String,
    /// The digest of the artifact's manifest.
    pub digest: String,
}

/// What was pulled.
#[derive(Debug)]
pub enum Pulled {
    /// A bundle of ours.
    Bundle(Box<Bundle>),
    /// A component that somebody pushed with another tool.
    Component(Arc<[u8]>),
}

/// One part of an artifact.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
}

/// An artifact's own document, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Document {
    #[serde(default)]
    layers: Vec<Descriptor>,
}

impl Registry {
    /// Registries that ask get this user and password.
    #[must_use]
    pub fn new(user: Option<&str>, password: Option<&SecretString>) -> Self {
        let login = user.zip(password);
        Self {
            login: login.map(|(user, password)| (user.to_owned(), password.clone())),
        }
    }

    /// Pushes a bundle.
    ///
    /// # Errors
    /// [`Code::Registry`] with the registry's answer.
    pub async fn push(&self, bundle: &Bundle, to: &Reference) -> Result<Artifact, PluginError> {
        let layers = layers(bundle).map_err(|e| PluginError::new(Code::Bundle, e.0))?;
        let mut session = Session::open(to, self.login.as_ref())?;
        let mut parts = Vec::new();
        for (kind, bytes) in &layers {
            parts.push(session.put_blob(kind, bytes).await?);
        }
        let config = session.put_blob(CONFIG, &config(bundle, &parts)).await?;
        let manifest = &bundle.manifest;
        let document = json!({
            "schemaVersion": 2, "mediaType": INDEX, "config": config, "layers": parts,
            "annotations": {
                "org.opencontainers.image.title": manifest.name,
                "org.opencontainers.image.version": manifest.version,
                "org.opencontainers.image.description": manifest.summary,
            },
        });
        let bytes = document.to_string().into_bytes();
        session.put_manifest(&bytes).await?;
        Ok(artifact(to, &bytes))
    }

    /// Pulls what a reference names, by tag or digest. Everything is checked against its digest.
    ///
    /// # Errors
    /// [`Code::Registry`] with the registry's answer, [`Code::Digest`] for bytes that are not those, [`Code::Bundle`] and
    /// [`Code::Size`] for what cannot be used.
    pub async fn pull(
        &self,
        from: &Reference,
        limits: &Limits,
    ) -> Result<(Pulled, Artifact), PluginError> {
        let mut session = Session::open(from, self.login.as_ref())?;
        let bytes = session.get_manifest(MAX_DOCUMENT).await?;
        let document: Document = serde_json::from_slice(&bytes).map_err(|e| {
            PluginError::new(
                Code::Bundle,
                format!("{from} has no manifest that can be read: {e}"),
            )
        })?;
        let layer = |kind: &str| {
            document
                .layers
                .iter()
                .find(|layer| layer.media_type == kind)
        };
        let Some(component) = layer(WASM) else {
            let kinds: Vec<_> = document
                .layers
                .iter()
                .map(|l| l.media_type.as_str())
                .collect();
            let kinds = text::line(&kinds.join(", "), 300);
            return Err(PluginError::new(
                Code::Bundle,
                format!("{from} holds no component: its layers are `{kinds}`, and none is {WASM}"),
            ));
        };
        let component = session
            .get_blob(component, limits.component_bytes.0)
            .await?;
        let artifact = artifact(from, &bytes);
        let Some(ours) = layer(MANIFEST) else {
            return Ok((Pulled::Component(component.into()), artifact));
        };
        let manifest = session.get_blob(ours, MAX_DOCUMENT).await?;
        let profile = match layer(PROFILE) {
            Some(layer) => Some(session.get_blob(layer, 2 * limits.output_bytes.0).await?),
            None => None,
        };
        let signatures = match layer(SIGNATURES) {
            Some(layer) => Some(session.get_blob(layer, MAX_DOCUMENT).await?),
            None => None,
        };
        let bundle =
            Bundle::from_parts(manifest, component, profile.as_deref(), signatures, limits)?;
        Ok((Pulled::Bundle(Box::new(bundle)), artifact))
    }
}

fn artifact(at: &Reference, manifest: &[u8]) -> Artifact {
    let digest = format!("sha256:{}", Digest::of(manifest));
    Artifact {
        reference: at.by_digest(&digest),
        digest,
    }
}

fn layers(bundle: &Bundle) -> Result<Vec<(&'static str, Vec<u8>)>, Unusable> {
    let mut layers = vec![
        (WASM, bundle.component.to_vec()),
        (MANIFEST, bundle.text.clone().into_bytes()),
    ];
    if !bundle.profile.is_empty() {
        layers.push((PROFILE, bundle.profile_tar()?));
    }
    if !bundle.signatures.is_empty() {
        layers.push((SIGNATURES, bundle.signatures_text()?));
    }
    Ok(layers)
}

/// What tools that know nothing of us want to know of a component.
fn config(bundle: &Bundle, layers: &[Descriptor]) -> Vec<u8> {
    let manifest = &bundle.manifest;
    let exports: Vec<String> = manifest
        .exports
        .names()
        .iter()
        .map(|name| format!("agenticore:plugin/{name}@{}", manifest.api))
        .collect();
    let digests: Vec<&str> = layers.iter().map(|layer| layer.digest.as_str()).collect();
    let document = json!({
        "created": NO_TIME, "architecture": "wasm", "os": "wasip2", "layerDigests": digests,
        "component": {"exports": exports, "imports": [], "target": null},
    });
    document.to_string().into_bytes()
}

/// The bundle of a component that came without a manifest.
///
/// # Errors
/// As [`Bundle::pack`].
pub fn adopt(report: &CheckReport, component: Arc<[u8]>, name: &str) -> Result<Bundle, Unusable> {
    let packing = super::bundle::Packing {
        name: Some(name),
        ..super::bundle::Packing::default()
    };
    Bundle::pack(report, component, &packing)
}
