//! The layout file: which layout the root has, and which digests the copies of bundled profiles had.
//!
//! It is written before a profile is copied and only ever grows, so a digest in it was certainly ours, and losing an entry to a run
//! of another version only means that a copy is taken for an edited one and left alone.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::io::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{InitError, LAYOUT_FILE, TEMPORARY, io_error, sync_folder};

/// The layout that this version makes.
pub(super) const VERSION: u32 = 1;

/// A version of agenticore, for comparing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Version(pub(super) [u64; 3]);

impl Version {
    pub(super) fn own() -> Self {
        env!("CARGO_PKG_VERSION")
            .to_owned()
            .try_into()
            .unwrap_or(Self([0; 3]))
    }
}

impl TryFrom<String> for Version {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a version such as 1.2.3");
        let plain = text.split(['-', '+']).next().unwrap_or_default();
        let numbers: Result<Vec<u64>, _> = plain.split('.').map(str::parse).collect();
        let numbers = numbers.map_err(|_| wrong())?;
        Ok(Self(numbers.try_into().map_err(|_| wrong())?))
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.0;
        write!(f, "{major}.{minor}.{patch}")
    }
}

/// A copy of a profile that some version makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    /// The digest of its files, see [`super::profile_dir::digest`].
    #[serde(rename = "sha256")]
    pub(super) digest: String,
    /// The newest version that makes it.
    pub(super) version: Version,
}

/// The known copies by profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Layout {
    layout: u32,
    #[serde(default)]
    profiles: BTreeMap<String, Vec<Known>>,
}

impl Layout {
    /// The newest version that makes this copy of the profile; none: no version does.
    pub(super) fn version_of(&self, name: &str, digest: &str) -> Option<Version> {
        let copies = self.profiles.get(name)?;
        copies
            .iter()
            .find(|k| k.digest == digest)
            .map(|k| k.version)
    }

    /// Adds what `other` knows; says whether that was anything new.
    fn absorb(&mut self, other: &Self) -> bool {
        let mut changed = self.layout != VERSION;
        self.layout = VERSION;
        for (name, copies) in &other.profiles {
            let own = self.profiles.entry(name.clone()).or_default();
            for copy in copies {
                match own.iter_mut().find(|k| k.digest == copy.digest) {
                    Some(k) if k.version >= copy.version => {}
                    Some(k) => {
                        k.version = copy.version;
                        changed = true;
                    }
                    None => {
                        own.push(copy.clone());
                        changed = true;
                    }
                }
            }
        }
        changed
    }
}

impl FromIterator<(String, Known)> for Layout {
    fn from_iter<I: IntoIterator<Item = (String, Known)>>(copies: I) -> Self {
        Self {
            layout: VERSION,
            profiles: copies.into_iter().map(|(n, k)| (n, vec![k])).collect(),
        }
    }
}

/// Reads the layout file; a root without one is new.
pub(super) fn read(root: &Path) -> Result<Layout, InitError> {
    #[derive(Deserialize)]
    struct Head {
        layout: u32,
    }
    let path = root.join(LAYOUT_FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Layout::default()),
        Err(e) => return Err(io_error("read", &path)(e)),
    };
    let damaged = |e: serde_json::Error| InitError::Damaged {
        path: path.clone(),
        problem: e.to_string(),
    };
    // The number alone at first: a newer layout may look different altogether.
    let Head { layout } = serde_json::from_slice(&bytes).map_err(damaged)?;
    if layout > VERSION {
        return Err(InitError::Newer {
            path,
            found: layout,
            known: VERSION,
        });
    }
    serde_json::from_slice(&bytes).map_err(damaged)
}

/// Adds `own` to the layout file, unless it is there already.
pub(super) fn note(root: &Path, own: &Layout) -> Result<(), InitError> {
    loop {
        let mut layout = read(root)?;
        if !layout.absorb(own) {
            return Ok(());
        }
        // Looked at again, because a run that could not lock may have written between our reading and writing.
        write(root, &layout)?;
    }
}

fn write(root: &Path, layout: &Layout) -> Result<(), InitError> {
    let path = root.join(LAYOUT_FILE);
    let failed = || io_error("write", &path);
    let mut text = serde_json::to_vec_pretty(layout).map_err(|e| failed()(io::Error::other(e)))?;
    text.push(b'\n');
    let mut file = tempfile::Builder::new()
        .prefix(LAYOUT_FILE)
        .suffix(TEMPORARY)
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(root)
        .map_err(failed())?;
    file.write_all(&text).map_err(failed())?;
    file.as_file().sync_all().map_err(failed())?;
    file.persist(&path).map_err(|e| failed()(e.error))?;
    sync_folder(root)
}
