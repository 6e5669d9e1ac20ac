//! What the operator has decided about plugins, and the bytes that jobs are pinned to.
//!
//! Everything is a small file below one directory that all pods share: `approvals/DIGEST.json` for a version of a plugin and where it
//! stands, `disabled/KEY.json` for a name or digest that is switched off, `components/DIGEST.wasm` for the bytes that jobs were admitted
//! with. Files are replaced as a whole, so no reader ever sees half of one, and nothing but the shared directory is needed: decisions
//! hold also while no queue server answers. They are read again when they are older than [`FRESH`], so every pod follows within seconds.
//!
//! Whoever can write there decides about plugins. What a plugin may do at most is not decided here but by the ceiling in the settings.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::plugin::{Code, Digest, Grants, PluginError};

mod decide;
#[cfg(test)]
mod tests;

pub use decide::{Subject, Target, UnknownTarget};

/// How old what was read may be.
pub const FRESH: Duration = Duration::from_secs(1);
/// How often the bytes of a component are marked as still in use.
const TOUCH: Duration = Duration::from_secs(3_600);

/// Which versions of a plugin need the operator's word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ApprovalRule {
    /// The first version of a plugin is taken as approved, and a later one that asks for no more than an approved one.
    #[default]
    FirstUse,
    /// Every version.
    Always,
}

impl std::str::FromStr for ApprovalRule {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "first-use" => Ok(Self::FirstUse),
            "always" => Ok(Self::Always),
            _ => Err(()),
        }
    }
}

/// Where a version of a plugin stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Jobs may use it.
    Approved,
    /// It asks for more than what was approved, and waits for the operator.
    Waiting,
    /// The operator took the approval back.
    Revoked,
}

impl Standing {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Waiting => "waiting",
            Self::Revoked => "revoked",
        }
    }
}

/// One version of a plugin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Approval {
    /// Its digest.
    pub digest: Digest,
    /// The plugin's name; empty for one that was approved before anybody used it.
    #[serde(default)]
    pub name: String,
    /// Where its component was found.
    #[serde(default)]
    pub component: String,
    /// What it asks for.
    #[serde(default)]
    pub requests: Grants,
    /// Where it stands.
    pub standing: Standing,
    /// Why, for people.
    #[serde(default)]
    pub why: String,
    /// Since when.
    pub at: Timestamp,
}

/// A plugin that is switched off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disabled {
    /// The name or digest.
    pub what: String,
    /// Why, for people.
    #[serde(default)]
    pub reason: String,
    /// Since when.
    pub at: Timestamp,
}

/// All decisions at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decisions {
    /// The known versions.
    pub approvals: BTreeMap<Digest, Approval>,
    /// What is switched off, by name or digest.
    pub disabled: BTreeMap<String, Disabled>,
}

/// The operator's decisions and the pinned bytes.
#[derive(Debug)]
pub struct Trust {
    dir: PathBuf,
    rule: ApprovalRule,
    read: Mutex<Option<(Instant, Arc<Decisions>)>>,
    kept: Mutex<HashMap<Digest, Instant>>,
}

impl Trust {
    /// The decisions of these settings: on the shared file system, or else below the home.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let root = config.shared_root.as_ref().unwrap_or(&config.home);
        Self::in_dir(root.join("plugin-trust"), config.plugin_approval)
    }

    /// The decisions in this directory, which need not be there.
    #[must_use]
    pub fn in_dir(dir: PathBuf, rule: ApprovalRule) -> Self {
        Self {
            dir,
            rule,
            read: Mutex::default(),
            kept: Mutex::default(),
        }
    }

    /// The directory of the decisions.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The decisions, at most [`FRESH`] old.
    ///
    /// # Errors
    /// [`Code::Host`] when they cannot be read: what is not known to be allowed is not done.
    pub fn decisions(&self) -> Result<Arc<Decisions>, PluginError> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, decisions)) = &*read
            && at.elapsed() < FRESH
        {
            return Ok(decisions.clone());
        }
        let decisions = Arc::new(self.read_all().map_err(|e| self.unusable(&e))?);
        *read = Some((Instant::now(), decisions.clone()));
        Ok(decisions)
    }

    fn read_all(&self) -> io::Result<Decisions> {
        let approvals: Vec<Approval> = self.read_dir("approvals")?;
        let disabled: Vec<Disabled> = self.read_dir("disabled")?;
        Ok(Decisions {
            approvals: approvals.into_iter().map(|a| (a.digest, a)).collect(),
            disabled: disabled.into_iter().map(|d| (d.what.clone(), d)).collect(),
        })
    }

    fn read_dir<T: DeserializeOwned>(&self, below: &str) -> io::Result<Vec<T>> {
        let dir = self.dir.join(below);
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            let text = match fs::read(&path) {
                Ok(text) => text,
                // Somebody took the decision back at this moment.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            let decision = serde_json::from_slice(&text).map_err(|e| {
                io::Error::other(format!(
                    "{} is damaged ({e}): remove it and decide again",
                    path.display()
                ))
            })?;
            found.push(decision);
        }
        Ok(found)
    }

    fn unusable(&self, error: &io::Error) -> PluginError {
        let message = format!(
            "the operator's decisions about plugins in {} cannot be read or written: {error}",
            self.dir.display()
        );
        let mut error = PluginError::new(Code::Host, message);
        error.remedy =
            "the operator must look at the permissions and the space of this directory".into();
        error
    }

    /// Replaces a file as a whole and makes the change seen here at once.
    fn write(&self, below: &str, bytes: &[u8]) -> io::Result<()> {
        let target = self.dir.join(below);
        let dir = target.parent().unwrap_or(&self.dir);
        fs::create_dir_all(dir)?;
        let mut file = tempfile::Builder::new().prefix(".tmp-").tempfile_in(dir)?;
        io::Write::write_all(&mut file, bytes)?;
        file.as_file().sync_all()?;
        file.persist(&target)?;
        fs::File::open(dir)?.sync_all()?;
        self.forget();
        Ok(())
    }

    fn remove(&self, below: &str) -> io::Result<bool> {
        let removed = match fs::remove_file(self.dir.join(below)) {
            Ok(()) => true,
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            Err(e) => return Err(e),
        };
        self.forget();
        Ok(removed)
    }

    fn forget(&self) {
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn put(&self, below: &str, decision: &impl Serialize) -> Result<(), PluginError> {
        let text = serde_json::to_vec_pretty(decision)
            .map_err(|e| PluginError::new(Code::Host, e.to_string()))?;
        self.write(below, &text).map_err(|e| self.unusable(&e))
    }

    /// Keeps the bytes that a job is pinned to, for later attempts and other pods, and the file with their signatures where there is one.
    ///
    /// # Errors
    /// [`Code::Host`] when they cannot be written.
    pub fn keep(
        &self,
        digest: Digest,
        bytes: &[u8],
        provenance: Option<&[u8]>,
    ) -> Result<(), PluginError> {
        if self.is_kept(digest) {
            return Ok(());
        }
        let below = component(digest);
        let kept = || {
            if let Some(provenance) = provenance {
                self.write(&format!("{below}.json"), provenance)?;
            }
            match self.kept(digest) {
                Some(_) => touch(&self.dir.join(&below)),
                None => self.write(&below, bytes),
            }
        };
        kept().map_err(|e| self.unusable(&e))?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.insert(digest, Instant::now());
        Ok(())
    }

    /// Where the bytes of this digest are kept, if they are.
    #[must_use]
    pub fn kept_path(&self, digest: Digest) -> PathBuf {
        self.dir.join(component(digest))
    }

    /// Whether the bytes were kept a short while ago.
    pub(crate) fn is_kept(&self, digest: Digest) -> bool {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(&digest).is_some_and(|at| at.elapsed() < TOUCH)
    }

    /// The kept bytes of this digest. What lies there is believed only if it has the digest.
    #[must_use]
    pub fn kept(&self, digest: Digest) -> Option<Arc<[u8]>> {
        let path = self.kept_path(digest);
        let bytes = fs::read(&path).ok()?;
        if Digest::of(&bytes) == digest {
            return Some(bytes.into());
        }
        tracing::error!(file = %path.display(), "the kept component is not what was put there; it is not used");
        None
    }

    /// Removes the bytes that no job was admitted with for this long.
    pub fn tidy(&self, age: Duration) {
        let Ok(entries) = fs::read_dir(self.dir.join("components")) else {
            return;
        };
        for entry in entries.flatten() {
            let used = entry.metadata().and_then(|m| m.modified());
            let old = used.is_ok_and(|at| at.elapsed().is_ok_and(|since| since > age));
            if old && let Err(error) = fs::remove_file(entry.path()) {
                tracing::warn!(%error, "cannot remove {}", entry.path().display());
            }
        }
    }
}

fn component(digest: Digest) -> String {
    format!("components/{digest}.wasm")
}

fn touch(path: &Path) -> io::Result<()> {
    fs::File::options()
        .append(true)
        .open(path)?
        .set_modified(SystemTime::now())
}
