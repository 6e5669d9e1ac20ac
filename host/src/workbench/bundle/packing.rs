//! What a bundle is made from: a name and a version that may have to be given, and the folder of a profile.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::{ProfileFile, is_name};
use crate::plugin::{check_path, text};
use crate::workbench::Unusable;

/// What a bundle is made from, beside the component.
#[derive(Debug, Clone, Default)]
pub struct Packing<'a> {
    /// The name, for a component that says none.
    pub name: Option<&'a str>,
    /// The name where nobody gave one.
    pub stem: Option<&'a str>,
    /// The version, for a component that says none.
    pub version: Option<&'a str>,
    /// The folder of a profile to take along.
    pub profile: Option<&'a Path>,
}

impl<'a> Packing<'a> {
    pub(super) fn name_of(&self, own: Option<&'a str>) -> Result<&'a str, Unusable> {
        let given = self.name;
        if let (Some(own), Some(given)) = (own, given)
            && own != given
        {
            return Err(Unusable(format!(
                "the component says that its name is `{own}`, and --name says `{}`: leave --name out",
                text::line(given, 80)
            )));
        }
        match (own.or(given).or(self.stem), given) {
            (Some(name), _) if is_name(name) => Ok(name),
            (_, Some(given)) => Err(Unusable(format!(
                "`{}` is not a plugin's name: --name takes kebab-case of at most 64 letters",
                text::line(given, 80)
            ))),
            _ => Err(Unusable(
                "the component does not say its name: give one with --name, kebab-case of at most 64 letters"
                    .to_owned(),
            )),
        }
    }

    pub(super) fn version_of(&self, own: Option<&'a str>) -> Result<&'a str, Unusable> {
        match (own, self.version) {
            (Some(own), Some(given)) if own != given => Err(Unusable(format!(
                "the component says that its version is {}, and --plugin-version says {}: leave --plugin-version out",
                text::line(own, 80),
                text::line(given, 80)
            ))),
            (Some(own), _) => Ok(own),
            (None, Some(given)) if semver::Version::parse(given).is_err() => {
                Err(Unusable(format!(
                    "`{}` is not a version: --plugin-version takes one such as 1.2.0 or 1.2.0-rc.1",
                    text::line(given, 80)
                )))
            }
            (None, given) => Ok(given.unwrap_or("0.0.0")),
        }
    }
}

pub(super) fn folder_name(folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    folder
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// The files of a profile's folder but for components. The document must name the component by the file's name once it is installed.
pub(super) fn read_profile(
    folder: &Path,
    plugin: &str,
) -> Result<BTreeMap<String, ProfileFile>, Unusable> {
    let mut files = BTreeMap::new();
    read_below(folder, folder, &mut files)?;
    let Some(document) = files.get("profile.yml") else {
        return Err(Unusable::at(folder, "it has no profile.yml"));
    };
    let file = format!("{plugin}.wasm");
    let says = String::from_utf8_lossy(&document.bytes).into_owned();
    if !says.contains(&file) {
        return Err(Unusable::at(
            &folder.join("profile.yml"),
            format!(
                "no entry names the component as it will be installed: write `component: {file}`"
            ),
        ));
    }
    Ok(files)
}

fn read_below(
    root: &Path,
    folder: &Path,
    files: &mut BTreeMap<String, ProfileFile>,
) -> Result<(), Unusable> {
    let wrong = |e: std::io::Error| Unusable::at(folder, e);
    for entry in fs::read_dir(folder).map_err(wrong)? {
        let path = entry.map_err(wrong)?.path();
        let metadata = fs::symlink_metadata(&path).map_err(|e| Unusable::at(&path, e))?;
        let below = path.strip_prefix(root).unwrap_or(&path);
        let name = below
            .to_str()
            .ok_or_else(|| Unusable::at(&path, "its name is not UTF-8"))?
            .to_owned();
        if metadata.is_dir() {
            read_below(root, &path, files)?;
            continue;
        }
        if !metadata.is_file() {
            return Err(Unusable::at(&path, "it is not a regular file"));
        }
        if name.ends_with(".wasm") || name.ends_with(".wasm.json") {
            continue;
        }
        check_path("the profile's file", &name).map_err(|e| Unusable::at(&path, &e.message))?;
        let bytes = fs::read(&path).map_err(|e| Unusable::at(&path, e))?;
        let executable = metadata.permissions().mode() & 0o100 != 0;
        files.insert(name, ProfileFile { executable, bytes });
    }
    Ok(())
}
