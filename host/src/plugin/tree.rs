//! The files of a plan, checked: every path against the rules, all of them against each other and the limits.
//!
//! A [`CheckedTree`] can only be made here, so whoever has one need not check again. Nothing but regular files can be in
//! it, since the contract has no word for anything else.

use std::collections::HashMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::bindings::types::{Content, FileEntry, FileMode};
use super::digest::Digest;
use super::error::{Code, PluginError};
use super::limits::Limits;
use super::request::Layer;
use super::{path, text};

/// Where a file came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The plugin made its bytes.
    Generated,
    /// The host copied it from a layer of the profile.
    Copied {
        /// The layer's name.
        layer: String,
        /// The path in that layer.
        path: String,
    },
    /// A hook plugin added it.
    Hook,
}

/// One file to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeFile {
    /// Its path below the config directory.
    pub path: String,
    /// Whether it may be executed.
    pub mode: FileMode,
    /// Its bytes, as they will be written.
    pub bytes: Bytes,
    /// Where it came from.
    pub origin: Origin,
}

/// Files that keep all rules, sorted by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckedTree {
    files: Vec<TreeFile>,
}

impl CheckedTree {
    /// Checks the files of a plan and takes the bytes of copied ones out of the layers.
    pub(super) fn new(
        entries: Vec<FileEntry>,
        layers: &[Layer],
        limits: &Limits,
    ) -> Result<Self, PluginError> {
        check_count(entries.len(), limits)?;
        let mut files = resolve(entries, layers)?;
        files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        let tree = Self { files };
        tree.check(limits)?;
        Ok(tree)
    }

    /// Checks files that copy nothing, such as those of a bundle.
    pub(crate) fn of_files(entries: Vec<FileEntry>, limits: &Limits) -> Result<Self, PluginError> {
        Self::new(entries, &[], limits)
    }

    /// Adds files, under the rules for the whole.
    pub(super) fn extended(&self, added: Self, limits: &Limits) -> Result<Self, PluginError> {
        check_count(self.files.len().saturating_add(added.files.len()), limits)?;
        let mut files = self.files.clone();
        files.extend(added.files);
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let tree = Self { files };
        tree.check(limits)?;
        Ok(tree)
    }

    fn check(&self, limits: &Limits) -> Result<(), PluginError> {
        check_bytes(&self.files, limits)?;
        check_names(&self.files)
    }

    /// Checks the sum of bytes again, after the policy wrote JSON in its own form.
    pub(super) fn recheck_bytes(&self, limits: &Limits) -> Result<(), PluginError> {
        check_bytes(&self.files, limits)
    }

    /// Marks all files as added by a hook.
    pub(super) fn marked_as_added(mut self) -> Self {
        self.files
            .iter_mut()
            .for_each(|file| file.origin = Origin::Hook);
        self
    }

    /// The files, sorted by path.
    #[must_use]
    pub fn files(&self) -> &[TreeFile] {
        &self.files
    }

    /// The file at that path.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&TreeFile> {
        let at = self
            .files
            .binary_search_by(|file| file.path.as_str().cmp(path))
            .ok()?;
        self.files.get(at)
    }

    /// Bytes of all files.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes.len() as u64).sum()
    }

    /// The digest of all paths, modes and bytes: the same tree has the same digest on every host.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut sha = Sha256::new();
        for file in &self.files {
            sha.update((file.path.len() as u64).to_le_bytes());
            sha.update(&file.path);
            sha.update([u8::from(file.mode == FileMode::Executable)]);
            sha.update((file.bytes.len() as u64).to_le_bytes());
            sha.update(&file.bytes);
        }
        Digest::from(sha)
    }

    /// The bytes of each file, so that the policy can put the checked form in their place.
    pub(super) fn files_mut(&mut self) -> &mut [TreeFile] {
        &mut self.files
    }
}

fn check_count(count: usize, limits: &Limits) -> Result<(), PluginError> {
    let (used, allowed) = (count as u64, u64::from(limits.files));
    if used > allowed {
        let message = "the plan has too many files";
        return Err(PluginError::limit(
            Code::Files,
            "files",
            used,
            allowed,
            message,
        ));
    }
    Ok(())
}

fn check_bytes(files: &[TreeFile], limits: &Limits) -> Result<(), PluginError> {
    let used = files.iter().fold(0_u64, |sum, file| {
        sum.saturating_add(file.bytes.len() as u64)
    });
    let allowed = limits.output_bytes.0;
    if used > allowed {
        let message = "the files of the plan have too many bytes";
        return Err(PluginError::limit(
            Code::Output,
            "output_bytes",
            used,
            allowed,
            message,
        ));
    }
    Ok(())
}

/// Paths and modes of the entries with their bytes. Paths are checked first, so that errors may quote them.
fn resolve(entries: Vec<FileEntry>, layers: &[Layer]) -> Result<Vec<TreeFile>, PluginError> {
    let mut sources = Sources {
        layers,
        indices: HashMap::new(),
    };
    entries
        .into_iter()
        .map(
            |FileEntry {
                 path,
                 content,
                 mode,
             }| {
                path::check("the file", &path)?;
                let (bytes, origin) = match content {
                    Content::Bytes(bytes) => (Bytes::from(bytes), Origin::Generated),
                    Content::Copy(source) => sources.find(source.layer, &source.path)?,
                };
                Ok(TreeFile {
                    path,
                    mode,
                    bytes,
                    origin,
                })
            },
        )
        .collect()
}

/// Finds files of layers by path; each layer that is asked for is indexed once.
struct Sources<'a> {
    layers: &'a [Layer],
    indices: HashMap<u32, HashMap<&'a str, &'a Bytes>>,
}

impl Sources<'_> {
    fn find(&mut self, layer: u32, path: &str) -> Result<(Bytes, Origin), PluginError> {
        let Some(named) = usize::try_from(layer)
            .ok()
            .and_then(|at| self.layers.get(at))
        else {
            let message = format!(
                "the plan copies from layer {layer}, and there are {}",
                self.layers.len()
            );
            return Err(PluginError::new(Code::Plan, message));
        };
        let index = self.indices.entry(layer).or_insert_with(|| {
            named
                .files
                .iter()
                .map(|f| (f.path.as_str(), &f.bytes))
                .collect()
        });
        let Some(bytes) = index.get(path) else {
            let path = text::line(path, 200);
            let message = format!(
                "the plan copies `{path}`, which layer `{}` has not",
                named.name
            );
            return Err(PluginError::new(Code::Plan, message));
        };
        let origin = Origin::Copied {
            layer: named.name.clone(),
            path: path.to_owned(),
        };
        Ok(((*bytes).clone(), origin))
    }
}

/// Refuses two paths that are or may become the same, and a path that is a file here and a directory there.
fn check_names(files: &[TreeFile]) -> Result<(), PluginError> {
    let mut seen: HashMap<String, (&str, bool)> = HashMap::with_capacity(files.len() * 2);
    for file in files {
        let folded = path::fold(&file.path);
        if let Some((other, is_dir)) = seen.insert(folded, (&file.path, false)) {
            return Err(clash(&file.path, other, is_dir));
        }
        let mut dir = file.path.as_str();
        while let Some((parent, _)) = dir.rsplit_once('/') {
            dir = parent;
            match seen.insert(path::fold(dir), (dir, true)) {
                None => {}
                // The same directory: its own parents are known too.
                Some((other, true)) if other == dir => break,
                Some((other, _)) => return Err(clash(dir, other, true)),
            }
        }
    }
    Ok(())
}

fn clash(path: &str, other: &str, is_dir: bool) -> PluginError {
    let message = match (path == other, is_dir) {
        (true, false) => format!("the path `{path}` is there twice"),
        (true, true) => format!("the path `{path}` is a file and a directory"),
        (false, _) => {
            format!("the paths `{other}` and `{path}` differ only in case or Unicode form")
        }
    };
    PluginError::new(Code::Path, message)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn entry(path: &str) -> FileEntry {
        FileEntry {
            path: path.to_owned(),
            content: Content::Bytes(b"x".to_vec()),
            mode: FileMode::Regular,
        }
    }

    fn tree(paths: &[&str]) -> Result<CheckedTree, PluginError> {
        CheckedTree::new(
            paths.iter().map(|path| entry(path)).collect(),
            &[],
            &Limits::default(),
        )
    }

    #[test]
    fn paths_that_may_become_one_are_refused_in_any_order() {
        let cases: &[&[&str]] = &[
            &["a", "a"],
            &["a", "A"],
            &["a", "a/b"],
            &["a/b", "a"],
            &["a/b", "A"],
            &["x/a", "X/b"],
            &["caf\u{e9}", "cafe\u{301}"],
            &["d/caf\u{e9}/a", "d/cafe\u{301}/b"],
            &["a/b/c", "a/b"],
        ];
        for paths in cases {
            let mut paths = paths.to_vec();
            for _ in 0..2 {
                assert_eq!(tree(&paths).unwrap_err().code, Code::Path, "{paths:?}");
                paths.reverse();
            }
        }
    }

    #[test]
    fn a_common_directory_is_no_clash() {
        let tree = tree(&["a/b/c", "a/b/d", "a/e", "f"]).unwrap();
        assert_eq!(tree.files().len(), 4);
    }

    #[test]
    fn the_digest_follows_paths_modes_and_bytes_alone() {
        let one = tree(&["a", "b/c"]).unwrap();
        assert_eq!(one.digest(), tree(&["b/c", "a"]).unwrap().digest());
        assert_ne!(one.digest(), tree(&["a", "b/d"]).unwrap().digest());
        let mut executable = entry("a");
        executable.mode = FileMode::Executable;
        let other =
            CheckedTree::new(vec![executable, entry("b/c")], &[], &Limits::default()).unwrap();
        assert_ne!(one.digest(), other.digest());
    }
}
