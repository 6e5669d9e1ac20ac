//! A plugin as it travels: a tar archive with a manifest, the component, maybe a profile, maybe signatures.
//!
//! The same input gives the same bytes: entries are sorted, and carry no times, owners or modes but one bit. Whatever is read is
//! held to its manifest: nothing missing, nothing more, every digest right.

mod archive;
mod packing;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use self::archive::{Archive, Parts};
pub use self::packing::Packing;
use self::packing::{folder_name, read_profile};
use super::Unusable;
use super::signature::{Signature, SigningKey};
use crate::plugin::types::{Content, FileEntry, FileMode};
use crate::plugin::{
    CheckReport, CheckedTree, Code, Digest, Exports, Grants, Limits, PluginError, text,
};

/// The version of the form below.
const FORMAT: u32 = 1;
/// The name of the manifest in the archive.
const MANIFEST: &str = "manifest.json";
/// The name of the component in the archive.
const COMPONENT: &str = "plugin.wasm";
/// The folder of the profile in the archive.
const PROFILE: &str = "profile/";
/// The name of the signatures in the archive.
const SIGNATURES: &str = "signatures.json";

/// What a bundle says of itself. Its text is what is signed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of this form.
    pub format: u32,
    /// The plugin's name, and the stem of its file once installed.
    pub name: String,
    /// Its version.
    pub version: String,
    /// One sentence for people.
    pub summary: String,
    /// The version of the contract it was built for.
    pub api: String,
    /// The interfaces it exports.
    pub exports: Exports,
    /// What it asks for; none: it has no way to ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<Grants>,
    /// The component.
    pub component: FileFacts,
    /// The profile that comes with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<ProfileFacts>,
}

/// A file of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileFacts {
    /// Its digest.
    pub sha256: Digest,
    /// Its bytes.
    pub size: u64,
    /// Whether it may be executed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
}

/// A profile of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileFacts {
    /// Its name.
    pub name: String,
    /// Its files by path.
    pub files: BTreeMap<String, FileFacts>,
}

/// A whole bundle.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// The manifest.
    pub manifest: Manifest,
    /// Its text, to the byte.
    pub text: String,
    /// The component.
    pub component: Arc<[u8]>,
    /// The profile's files by path.
    pub profile: BTreeMap<String, ProfileFile>,
    /// The signatures.
    pub signatures: Vec<Signature>,
}

/// A file of the profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileFile {
    /// Whether it may be executed.
    pub executable: bool,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// [`Code::Bundle`] when it is none, or one of a later form.
    pub fn parse(text: &str) -> Result<Self, PluginError> {
        #[derive(Deserialize)]
        struct Form {
            format: u32,
        }
        let form: Form =
            serde_json::from_str(text).map_err(|e| broken(format!("its manifest: {e}")))?;
        if form.format != FORMAT {
            return Err(broken(format!(
                "its form is {}, and this version reads {FORMAT}",
                form.format
            )));
        }
        let manifest: Self =
            serde_json::from_str(text).map_err(|e| broken(format!("its manifest: {e}")))?;
        if !is_name(&manifest.name) {
            let name = text::line(&manifest.name, 80);
            return Err(broken(format!(
                "its name `{name}` is not kebab-case of at most 64 letters"
            )));
        }
        Ok(manifest)
    }
}

/// As `describe` may name a plugin.
pub(super) fn is_name(name: &str) -> bool {
    let kebab = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(kebab)
}

fn broken(what: String) -> PluginError {
    PluginError::new(
        Code::Bundle,
        format!("the bundle cannot be used: {}", text::line(&what, 500)),
    )
}

impl Bundle {
    /// Packs a component that passed its check.
    ///
    /// # Errors
    /// [`Unusable`] when a name is missing or wrong, or the profile does not go with the component.
    pub fn pack(
        report: &CheckReport,
        component: Arc<[u8]>,
        packing: &Packing<'_>,
    ) -> Result<Self, Unusable> {
        let about = report.description.as_ref();
        let name = packing.name_of(about.map(|d| d.name.as_str()))?;
        let version = packing.version_of(about.map(|d| d.version.as_str()))?;
        let profile = match packing.profile {
            Some(folder) => read_profile(folder, name)?,
            None => BTreeMap::new(),
        };
        let manifest = Manifest {
            format: FORMAT,
            name: name.to_owned(),
            version: version.to_owned(),
            summary: about.map(|d| d.summary.clone()).unwrap_or_default(),
            api: report.api.clone().unwrap_or_default(),
            exports: report.exports.unwrap_or_default(),
            requests: report.requests.clone(),
            component: FileFacts {
                sha256: report.sha256,
                size: report.size,
                executable: false,
            },
            profile: packing.profile.map(|folder| ProfileFacts {
                name: folder_name(folder),
                files: profile
                    .iter()
                    .map(|(path, file)| (path.clone(), file.facts()))
                    .collect(),
            }),
        };
        let text = serde_json::to_string_pretty(&manifest)
            .map_err(|e| Unusable(format!("the manifest cannot be written: {e}")))?
            + "\n";
        Ok(Self {
            manifest,
            text,
            component,
            profile,
            signatures: Vec::new(),
        })
    }

    /// Adds a signature; one by the same key is replaced.
    pub fn sign(&mut self, key: &SigningKey) {
        let signature = key.sign(&self.text);
        self.signatures.retain(|other| other.key != signature.key);
        self.signatures.push(signature);
        self.signatures.sort_by(|a, b| a.key.cmp(&b.key));
    }

    /// The archive.
    ///
    /// # Errors
    /// [`Unusable`] when a name does not fit into one.
    pub fn to_tar(&self) -> Result<Vec<u8>, Unusable> {
        let mut archive = Archive::default();
        archive.add(MANIFEST, false, self.text.as_bytes())?;
        archive.add(COMPONENT, false, &self.component)?;
        for (path, file) in &self.profile {
            archive.add(&format!("{PROFILE}{path}"), file.executable, &file.bytes)?;
        }
        if !self.signatures.is_empty() {
            archive.add(SIGNATURES, false, &self.signatures_text()?)?;
        }
        archive.finish()
    }

    /// The profile alone, as an archive.
    ///
    /// # Errors
    /// As [`Bundle::to_tar`].
    pub fn profile_tar(&self) -> Result<Vec<u8>, Unusable> {
        let mut archive = Archive::default();
        for (path, file) in &self.profile {
            archive.add(&format!("{PROFILE}{path}"), file.executable, &file.bytes)?;
        }
        archive.finish()
    }

    /// The signatures as a document.
    ///
    /// # Errors
    /// [`Unusable`] when they cannot be written.
    pub fn signatures_text(&self) -> Result<Vec<u8>, Unusable> {
        let mut text = serde_json::to_vec_pretty(&self.signatures)
            .map_err(|e| Unusable(format!("the signatures cannot be written: {e}")))?;
        text.push(b'\n');
        Ok(text)
    }

    /// Reads an archive and holds everything in it to the manifest.
    ///
    /// # Errors
    /// [`Code::Bundle`] naming what is missing, too much, too large or not as the manifest says.
    pub fn from_tar(bytes: &[u8], limits: &Limits) -> Result<Self, PluginError> {
        let mut parts = Parts::default();
        parts.read(bytes, limits)?;
        parts.assemble(limits)
    }

    /// Puts a bundle together from parts that came one by one, as from a registry.
    ///
    /// # Errors
    /// As [`Bundle::from_tar`].
    pub fn from_parts(
        manifest: Vec<u8>,
        component: Vec<u8>,
        profile: Option<&[u8]>,
        signatures: Option<Vec<u8>>,
        limits: &Limits,
    ) -> Result<Self, PluginError> {
        let mut parts = Parts {
            manifest: Some(manifest),
            component: Some(component),
            signatures,
            ..Parts::default()
        };
        if let Some(archive) = profile {
            parts.read(archive, limits)?;
        }
        parts.assemble(limits)
    }

    /// The profile's files as a checked tree, ready to be written.
    ///
    /// # Errors
    /// What the rules for paths and the limits say against it.
    pub fn profile_tree(&self, limits: &Limits) -> Result<CheckedTree, PluginError> {
        let entry = |(path, file): (&String, &ProfileFile)| FileEntry {
            path: path.clone(),
            content: Content::Bytes(file.bytes.clone()),
            mode: if file.executable {
                FileMode::Executable
            } else {
                FileMode::Regular
            },
        };
        CheckedTree::of_files(self.profile.iter().map(entry).collect(), limits)
    }
}

impl ProfileFile {
    fn facts(&self) -> FileFacts {
        FileFacts {
            sha256: Digest::of(&self.bytes),
            size: self.bytes.len() as u64,
            executable: self.executable,
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn bundle() -> Bundle {
        let component: Arc<[u8]> = b"bytes".to_vec().into();
        let file = ProfileFile {
            executable: true,
            bytes: b"#!/bin/sh\n".to_vec(),
        };
        let profile = BTreeMap::from([("bin/run.sh".to_owned(), file.clone())]);
        let manifest = Manifest {
            format: FORMAT,
            name: "one".to_owned(),
            version: "1.0.0".to_owned(),
            summary: String::new(),
            api: "1.0.0".to_owned(),
            exports: Exports::default(),
            requests: None,
            component: FileFacts {
                sha256: Digest::of(&component),
                size: 5,
                executable: false,
            },
            profile: Some(ProfileFacts {
                name: "p".to_owned(),
                files: BTreeMap::from([("bin/run.sh".to_owned(), file.facts())]),
            }),
        };
        let text = serde_json::to_string(&manifest).unwrap();
        Bundle {
            manifest,
            text,
            component,
            profile,
            signatures: Vec::new(),
        }
    }

    fn reads(bytes: &[u8]) -> Result<Bundle, PluginError> {
        Bundle::from_tar(bytes, &Limits::default())
    }

    #[test]
    fn the_same_bundle_is_the_same_bytes_and_comes_back_whole() {
        let one = bundle();
        let bytes = one.to_tar().unwrap();
        assert_eq!(bytes, one.to_tar().unwrap());
        let back = reads(&bytes).unwrap();
        assert_eq!(back.manifest, one.manifest);
        assert_eq!(back.profile, one.profile);
        assert_eq!(back.to_tar().unwrap(), bytes);
        let parts = Bundle::from_parts(
            one.text.clone().into_bytes(),
            one.component.to_vec(),
            Some(&one.profile_tar().unwrap()),
            None,
            &Limits::default(),
        );
        assert_eq!(parts.unwrap().to_tar().unwrap(), bytes);
    }

    #[test]
    fn what_is_not_as_the_manifest_says_is_refused() {
        let change = |change: &dyn Fn(&mut Bundle)| {
            let mut one = bundle();
            change(&mut one);
            let error = reads(&one.to_tar().unwrap()).unwrap_err();
            assert_eq!(error.code, Code::Bundle, "{error}");
            error.message.clone()
        };
        let other = change(&|b| b.component = b"other".to_vec().into());
        assert!(other.contains("digest"), "{other}");
        let lacks = change(&|b| b.profile.clear());
        assert!(lacks.contains("lacks"), "{lacks}");
        let more = change(&|b| {
            let file = b.profile.values().next().unwrap().clone();
            b.profile.insert("more".to_owned(), file);
        });
        assert!(more.contains("does not list"), "{more}");
        let mode = change(&|b| b.profile.values_mut().for_each(|f| f.executable = false));
        assert!(mode.contains("not what the manifest says"), "{mode}");
        let later = change(&|b| b.text = b.text.replace("\"format\":1", "\"format\":2"));
        assert!(later.contains("this version reads 1"), "{later}");
        let name = change(&|b| b.text = b.text.replace("\"one\"", "\"../one\""));
        assert!(name.contains("kebab-case"), "{name}");
    }

    #[test]
    fn an_archive_cannot_leave_its_folder_or_hold_a_link() {
        let build = |kind: tar::EntryType, path: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(0);
            header.set_mode(0o644);
            let name = header.as_old_mut();
            for (to, from) in name.name.iter_mut().zip(path) {
                *to = *from;
            }
            header.set_cksum();
            let mut archive = tar::Builder::new(Vec::new());
            archive.append(&header, std::io::empty()).unwrap();
            reads(&archive.into_inner().unwrap()).unwrap_err()
        };
        let regular = tar::EntryType::Regular;
        assert_eq!(build(regular, b"profile/../x").code, Code::Path);
        assert_eq!(build(regular, b"/etc/passwd").code, Code::Bundle);
        assert_eq!(
            build(tar::EntryType::Symlink, b"profile/x").code,
            Code::Bundle
        );
        assert_eq!(reads(b"no archive").unwrap_err().code, Code::Bundle);
    }

    #[test]
    fn a_name_and_a_version_are_the_components_own_or_what_they_must_be() {
        let given = |name, version| Packing {
            name,
            version,
            stem: Some("file"),
            profile: None,
        };
        for version in ["1.2.0", "0.0.1-rc.1+linux", "10.20.30"] {
            let packing = given(Some("one"), Some(version));
            assert_eq!(packing.name_of(None).unwrap(), "one");
            assert_eq!(packing.version_of(None).unwrap(), version);
        }
        let nothing = given(None, None);
        assert_eq!(nothing.name_of(None).unwrap(), "file");
        assert_eq!(nothing.version_of(None).unwrap(), "0.0.0");
        for wrong in [
            "zz",
            "1.2",
            "1.2.x",
            "1.2.0-",
            "../../../evil",
            "1.2.0-a/b",
            "",
        ] {
            let error = given(None, Some(wrong)).version_of(None).unwrap_err();
            assert!(error.0.contains("is not a version"), "{wrong}: {error}");
        }
        for wrong in ["../evil", "Big", ""] {
            let error = given(Some(wrong), None).name_of(None).unwrap_err();
            assert!(
                error.0.contains("is not a plugin's name"),
                "{wrong}: {error}"
            );
        }
        let nameless = Packing {
            stem: Some("a b"),
            ..Packing::default()
        };
        assert!(
            nameless
                .name_of(None)
                .unwrap_err()
                .0
                .contains("does not say its name")
        );
    }

    #[test]
    fn what_a_component_says_of_itself_is_not_overruled_in_silence() {
        let (name, version) = (Some("own"), Some("1.0.0"));
        let given = |name, version| Packing {
            name,
            version,
            ..Packing::default()
        };
        let same = given(name, version);
        assert_eq!(same.name_of(name).unwrap(), "own");
        assert_eq!(same.version_of(version).unwrap(), "1.0.0");
        let other = given(Some("foo"), Some("2.0.0"));
        let error = other.name_of(name).unwrap_err();
        assert!(
            error.0.contains("`own`") && error.0.contains("`foo`"),
            "{error}"
        );
        let error = other.version_of(version).unwrap_err();
        assert!(error.0.contains("leave --plugin-version out"), "{error}");
    }
}
