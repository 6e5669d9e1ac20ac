//! A bundle put where profiles find it, in one step each: the component among the shared ones of a root, its profile beside them.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::bundle::Bundle;
use super::signature::{Provenance, Signed, TrustedKeys};
use crate::plugin::{Code, Digest, Limits, PluginError, apply};
use crate::profile::SHARED_COMPONENTS;

/// What was installed.
#[derive(Debug, Clone, Serialize)]
pub struct Installed {
    /// The plugin's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The component's digest.
    pub sha256: Digest,
    /// Where the component is.
    pub component: PathBuf,
    /// The digest of the component that was there before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced: Option<Digest>,
    /// Where its profile is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<PathBuf>,
    /// The trusted key that signed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<String>,
}

/// Installs a bundle below `root`, a folder of profiles. What is there already is kept unless `replace`.
///
/// Readers see the old component or the new one, at no moment a part of one; calls that run go on with the old one.
///
/// # Errors
/// [`Code::Signature`] when no trusted key signed it, [`Code::Bundle`] when something is there already, [`Code::Write`].
pub fn install(
    bundle: &Bundle,
    root: &Path,
    replace: bool,
    keys: &TrustedKeys,
    limits: &Limits,
) -> Result<Installed, PluginError> {
    let signed_by = keys.check(&bundle.text, &bundle.signatures)?;
    let manifest = &bundle.manifest;
    let plugins = root.join(SHARED_COMPONENTS);
    let component = plugins.join(format!("{}.wasm", manifest.name));
    let before = fs::read(&component).ok().map(|bytes| Digest::of(&bytes));
    let is_other = before.is_some_and(|digest| digest != manifest.component.sha256);
    if is_other && !replace {
        return Err(taken(&component));
    }
    let profile = match &manifest.profile {
        None => None,
        Some(profile) => {
            // The name comes from somebody else's file.
            profile
                .name
                .parse::<crate::job::ProfileName>()
                .map_err(|e| {
                    PluginError::new(Code::Bundle, format!("the name of its profile: {e}"))
                })?;
            let folder = root.join(&profile.name);
            if folder.exists() && !replace {
                return Err(taken(&folder));
            }
            Some((folder, bundle.profile_tree(limits)?))
        }
    };
    fs::create_dir_all(&plugins).map_err(|e| unwritten(&plugins, &e))?;
    put_provenance(bundle, &component)?;
    put(&component, &bundle.component)?;
    if let Some((folder, tree)) = &profile {
        // What an installation that was cut short left.
        apply::collect_stale(root, apply::ABANDONED)?;
        apply::apply(tree, folder, &[], apply::Sync::Full)?;
    }
    Ok(Installed {
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        sha256: manifest.component.sha256,
        component,
        replaced: before.filter(|_| is_other),
        profile: profile.map(|(folder, _)| folder),
        signed_by,
    })
}

/// Written before the component, with the manifest of the component that is still there.
fn put_provenance(bundle: &Bundle, component: &Path) -> Result<(), PluginError> {
    let mut provenance = Provenance::read_beside(component);
    provenance
        .bundles
        .retain(|signed| signed.manifest != bundle.text);
    provenance.bundles.insert(
        0,
        Signed {
            manifest: bundle.text.clone(),
            signatures: bundle.signatures.clone(),
        },
    );
    provenance.bundles.truncate(2);
    let path = Provenance::path(component);
    let text = serde_json::to_vec_pretty(&provenance)
        .map_err(|e| PluginError::new(Code::Host, e.to_string()))?;
    put(&path, &text)
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), PluginError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let written = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new()
            .prefix(".new-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        fs::File::open(folder)?.sync_all()
    };
    written().map_err(|e| unwritten(path, &e))
}

fn taken(path: &Path) -> PluginError {
    PluginError::new(
        Code::Bundle,
        format!(
            "{} is there already; see what the new one changes with `agenticore plugin diff`, then add --replace",
            path.display()
        ),
    )
}

fn unwritten(path: &Path, error: &std::io::Error) -> PluginError {
    PluginError::new(
        Code::Write,
        format!("writing {} failed: {error}", path.display()),
    )
}
