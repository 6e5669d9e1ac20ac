//! The archive of a bundle: writing it, and reading one that nobody vouches for.

use std::collections::BTreeMap;
use std::io::Read as _;

use super::{Bundle, COMPONENT, MANIFEST, Manifest, PROFILE, ProfileFile, SIGNATURES, broken};
use crate::plugin::{Digest, Limits, PluginError, check_path};
use crate::workbench::Unusable;
use crate::workbench::signature::{MAX_SIGNATURES, Signature};

/// Bytes of the manifest and of the signatures.
const MAX_DOCUMENT: u64 = 1 << 20;

/// An archive in the making.
#[derive(Default)]
pub(super) struct Archive(Option<tar::Builder<Vec<u8>>>);

impl Archive {
    pub(super) fn add(
        &mut self,
        path: &str,
        executable: bool,
        bytes: &[u8],
    ) -> Result<(), Unusable> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(bytes.len() as u64);
        header.set_mode(if executable { 0o755 } else { 0o644 });
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        self.0
            .get_or_insert_with(|| tar::Builder::new(Vec::new()))
            .append_data(&mut header, path, bytes)
            .map_err(|e| Unusable(format!("{path} does not fit into an archive: {e}")))
    }

    pub(super) fn finish(self) -> Result<Vec<u8>, Unusable> {
        self.0
            .unwrap_or_else(|| tar::Builder::new(Vec::new()))
            .into_inner()
            .map_err(|e| Unusable(format!("the archive cannot be written: {e}")))
    }
}

/// What was found in an archive so far.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) manifest: Option<Vec<u8>>,
    pub(super) component: Option<Vec<u8>>,
    pub(super) signatures: Option<Vec<u8>>,
    pub(super) profile: BTreeMap<String, ProfileFile>,
    pub(super) bytes: u64,
}

impl Parts {
    pub(super) fn read(&mut self, archive: &[u8], limits: &Limits) -> Result<(), PluginError> {
        let unread = |e: std::io::Error| broken(format!("it is no tar archive: {e}"));
        let mut archive = tar::Archive::new(archive);
        for entry in archive.entries().map_err(unread)? {
            let mut entry = entry.map_err(unread)?;
            let path = String::from_utf8(entry.path_bytes().into_owned())
                .map_err(|_| broken("a name in it is not UTF-8".to_owned()))?;
            if entry.header().entry_type() != tar::EntryType::Regular {
                return Err(broken(format!("`{path}` is not a regular file")));
            }
            let most = self.most(&path, limits)?;
            if entry.size() > most {
                return Err(broken(format!("`{path}` has more than {most} bytes")));
            }
            let executable = entry.header().mode().map_err(unread)? & 0o100 != 0;
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(unread)?;
            self.take(path, executable, bytes)?;
        }
        Ok(())
    }

    /// What a file of that name may have at most.
    fn most(&self, path: &str, limits: &Limits) -> Result<u64, PluginError> {
        match path {
            MANIFEST | SIGNATURES => Ok(MAX_DOCUMENT),
            COMPONENT => Ok(limits.component_bytes.0),
            _ => {
                let Some(below) = path.strip_prefix(PROFILE) else {
                    return Err(broken(format!("it has a file `{path}`")));
                };
                check_path("the profile's file", below)?;
                if self.profile.len() as u64 >= u64::from(limits.files) {
                    return Err(broken(format!(
                        "its profile has more than {} files",
                        limits.files
                    )));
                }
                Ok(limits.output_bytes.0.saturating_sub(self.bytes))
            }
        }
    }

    fn take(&mut self, path: String, executable: bool, bytes: Vec<u8>) -> Result<(), PluginError> {
        let was = match path.as_str() {
            MANIFEST => self.manifest.replace(bytes).is_some(),
            COMPONENT => self.component.replace(bytes).is_some(),
            SIGNATURES => self.signatures.replace(bytes).is_some(),
            _ => {
                self.bytes = self.bytes.saturating_add(bytes.len() as u64);
                let below = path.strip_prefix(PROFILE).unwrap_or(&path).to_owned();
                let file = ProfileFile { executable, bytes };
                self.profile.insert(below, file).is_some()
            }
        };
        if was {
            return Err(broken(format!("it has `{path}` twice")));
        }
        Ok(())
    }

    pub(super) fn assemble(self, limits: &Limits) -> Result<Bundle, PluginError> {
        let missing = |name: &str| broken(format!("it has no `{name}`"));
        let text = String::from_utf8(self.manifest.ok_or_else(|| missing(MANIFEST))?)
            .map_err(|_| broken("its manifest is not UTF-8".to_owned()))?;
        let manifest = Manifest::parse(&text)?;
        let component = self.component.ok_or_else(|| missing(COMPONENT))?;
        if component.len() as u64 > limits.component_bytes.0 {
            return Err(broken(format!(
                "its component has more than {} bytes",
                limits.component_bytes.0
            )));
        }
        let found = Digest::of(&component);
        if found != manifest.component.sha256 {
            return Err(broken(format!(
                "its component has the digest {found}, and the manifest says {}",
                manifest.component.sha256
            )));
        }
        check_profile(&manifest, &self.profile)?;
        let signatures: Vec<Signature> = match self.signatures {
            Some(bytes) => serde_json::from_slice(&bytes)
                .map_err(|e| broken(format!("its signatures: {e}")))?,
            None => Vec::new(),
        };
        if signatures.len() > MAX_SIGNATURES {
            return Err(broken(format!(
                "it has more than {MAX_SIGNATURES} signatures"
            )));
        }
        Ok(Bundle {
            manifest,
            text,
            component: component.into(),
            profile: self.profile,
            signatures,
        })
    }
}

/// The profile must be what the manifest lists, file by file.
fn check_profile(
    manifest: &Manifest,
    found: &BTreeMap<String, ProfileFile>,
) -> Result<(), PluginError> {
    let none = BTreeMap::new();
    let listed = manifest.profile.as_ref().map_or(&none, |p| &p.files);
    for (path, facts) in listed {
        match found.get(path) {
            None => return Err(broken(format!("its profile lacks `{path}`"))),
            Some(file) if file.facts() != *facts => {
                return Err(broken(format!(
                    "`{path}` of its profile is not what the manifest says"
                )));
            }
            Some(_) => {}
        }
    }
    match found.keys().find(|path| !listed.contains_key(*path)) {
        Some(path) => Err(broken(format!("its manifest does not list `{path}`"))),
        None => Ok(()),
    }
}
