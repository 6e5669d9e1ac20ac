//! The profiles that a server knows: looked up by name, kept in memory, read again when they change.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};

use super::chain::{self, Entries, Entry};
use super::folder::{Mark, Place, Stored};
use super::keys::HostKeys;
use super::root::{Form, ProfileRoot};
use super::{Component, Layer, Profile, ProfileError, ProfileName, ProfileSummary, yaml};
use crate::bundled;

/// The profiles below a list of roots.
///
/// Every lookup asks the file system whether something has changed, and reads only what has; the contents are shared by all jobs
/// that use them. The calls block for a few file system operations, so async code should make them on a blocking thread where the
/// roots may be on a network.
#[derive(Debug)]
pub struct ProfileStore {
    roots: Vec<ProfileRoot>,
    defaults: HostKeys,
    entries: Mutex<HashMap<ProfileName, Cached>>,
    profiles: Mutex<HashMap<ProfileName, AddedUp>>,
}

/// A profile and the chain it was made of.
type AddedUp = (Vec<Arc<Entry>>, Arc<Profile>);

/// An entry in memory, and how to tell that it is still what is stored.
#[derive(Debug, Clone)]
struct Cached {
    root: usize,
    form: Form,
    mark: Mark,
    settled: bool,
    entry: Arc<Entry>,
}

impl ProfileStore {
    /// Takes the roots, of which later ones win over earlier ones. Nothing is read yet.
    ///
    /// # Errors
    /// If the binary's own defaults are broken.
    pub fn new(roots: Vec<ProfileRoot>) -> Result<Self, ProfileError> {
        let file = Path::new("(bundled)/defaults.yml");
        let defaults = HostKeys::read(file, &yaml::read(file, bundled::defaults().as_bytes())?)?;
        Ok(Self {
            roots,
            defaults,
            entries: Mutex::default(),
            profiles: Mutex::default(),
        })
    }

    /// The profile of that name. As long as nothing changes on disk, every call returns the same one.
    ///
    /// # Errors
    /// A name that is none or unknown ([`ProfileError::is_unknown`]), or whatever is wrong with the profile or its chain.
    pub fn load(&self, name: &str) -> Result<Arc<Profile>, ProfileError> {
        let name: ProfileName = name.parse()?;
        let chain = chain::resolve(self, &name)?;
        let cached = added_up(&lock(&self.profiles), &name, &chain);
        if let Some(cached) = cached.filter(|cached| is_self_contained(cached)) {
            return Ok(cached);
        }
        let profile = chain::add_up(self, &self.defaults, &chain)?;
        let mut profiles = lock(&self.profiles);
        // A component may have appeared or gone while no document changed.
        let same = |cached: &Arc<Profile>| {
            cached.plugin == profile.plugin && cached.hooks == profile.hooks
        };
        if let Some(cached) = added_up(&profiles, &name, &chain).filter(same) {
            return Ok(cached);
        }
        let profile = Arc::new(profile);
        profiles.insert(name, (chain, Arc::clone(&profile)));
        Ok(profile)
    }

    /// Every profile of every root, sorted by name. A broken one is listed with what is wrong with it.
    #[must_use]
    pub fn list(&self) -> Vec<ProfileSummary> {
        let names = self.known();
        let stored: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        lock(&self.entries).retain(|name, _| stored.contains(name.as_str()));
        lock(&self.profiles).retain(|name, _| stored.contains(name.as_str()));
        names.into_iter().map(|name| self.summary(name)).collect()
    }

    fn summary(&self, name: String) -> ProfileSummary {
        let entry = name
            .parse()
            .ok()
            .and_then(|name| self.entry(&name).ok().flatten());
        let extends = entry
            .as_ref()
            .and_then(|entry| entry.keys.extends.as_ref())
            .map(ToString::to_string);
        match self.load(&name) {
            Ok(profile) => ProfileSummary {
                name,
                description: profile.description.clone(),
                source: profile.source,
                plugin: profile.plugin.component.to_string(),
                extends,
                local_only: profile.local_only,
                error: None,
                warnings: profile.warnings.clone(),
            },
            Err(error) => ProfileSummary {
                source: self.source_of(&name),
                name,
                description: entry
                    .and_then(|entry| entry.keys.description.clone())
                    .unwrap_or_default(),
                plugin: String::new(),
                extends,
                local_only: false,
                error: Some(error.full_message()),
                warnings: Vec::new(),
            },
        }
    }

    /// The last root that has something of that name, whether it can be used or not.
    fn source_of(&self, name: &str) -> super::Source {
        let has = |root: &&ProfileRoot| root.names().is_ok_and(|names| names.contains(name));
        self.roots
            .iter()
            .rev()
            .find(has)
            .map_or(super::Source::Bundled, |root| root.source)
    }

    fn cached(&self, name: &ProfileName, root: usize, form: Form) -> Option<Cached> {
        lock(&self.entries)
            .get(name)
            .filter(|cached| cached.root == root && cached.form == form)
            .cloned()
    }

    fn read(
        &self,
        root: usize,
        name: &ProfileName,
        form: Form,
    ) -> Result<Arc<Entry>, ProfileError> {
        let Some(at) = self.roots.get(root) else {
            return Err(ProfileError::NotFound {
                name: name.clone(),
                known: self.known(),
            });
        };
        let place = Place::open(at, name, form)?;
        let cached = self.cached(name, root, form);
        if let Some(cached) = cached
            .as_ref()
            .filter(|cached| cached.settled && place.is_as(&cached.mark))
        {
            return Ok(Arc::clone(&cached.entry));
        }
        let now = SystemTime::now();
        let mark = place.mark()?;
        let stored = place.read(&mark)?;
        let digest = digest(name, &stored);
        let entry = match cached {
            Some(cached) if cached.entry.digest == digest => cached.entry,
            _ => Arc::new(check(name, root, at, form, stored, digest)?),
        };
        let cached = Cached {
            root,
            form,
            settled: mark.settled(now),
            mark,
            entry: Arc::clone(&entry),
        };
        lock(&self.entries).insert(name.clone(), cached);
        Ok(entry)
    }
}

impl Entries for ProfileStore {
    fn entry(&self, name: &ProfileName) -> Result<Option<Arc<Entry>>, ProfileError> {
        for (index, root) in self.roots.iter().enumerate().rev() {
            // An error ends the search: a root that cannot be read must not let a weaker profile of the same name through.
            if let Some(form) = root.find(name)? {
                return self.read(index, name, form).map(Some);
            }
        }
        Ok(None)
    }

    fn known(&self) -> Vec<String> {
        let mut names = BTreeSet::new();
        for root in &self.roots {
            match root.names() {
                Ok(found) => names.extend(found),
                Err(error) => {
                    tracing::warn!(root = %root.shown().display(), %error, "cannot list the profiles of a root")
                }
            }
        }
        names.into_iter().collect()
    }

    fn own_component(&self, entry: &Entry, path: &str) -> Option<PathBuf> {
        let root = self.roots.get(entry.root)?;
        Place::open(root, &entry.layer.name, Form::Folder)
            .ok()?
            .component(path)
    }

    fn roots(&self) -> &[ProfileRoot] {
        &self.roots
    }
}

/// Checks one stored profile by itself.
fn check(
    name: &ProfileName,
    root: usize,
    at: &ProfileRoot,
    form: Form,
    stored: Stored,
    digest: [u8; 32],
) -> Result<Entry, ProfileError> {
    let settings = yaml::read(&stored.file, &stored.document)?;
    let keys = HostKeys::read(&stored.file, &settings)?;
    if let Some(found) = keys.name.clone().filter(|found| found != name.as_str()) {
        return Err(ProfileError::NameMismatch {
            file: stored.file,
            found,
            stored: name.clone(),
        });
    }
    let mut warnings = Vec::new();
    if form == Form::SingleFile {
        let file = stored.file.display();
        let warning = format!(
            "{file}: profiles in a single file are deprecated; move it to a folder, as `{name}/profile.yml`"
        );
        tracing::warn!(profile = %name, "{warning}");
        warnings.push(warning);
    }
    let layer = Arc::new(Layer {
        name: name.clone(),
        settings,
        files: stored.files,
    });
    Ok(Entry {
        layer,
        keys,
        file: stored.file,
        root,
        source: at.source,
        digest,
        warnings,
    })
}

fn digest(name: &ProfileName, stored: &Stored) -> [u8; 32] {
    let mut digest = Sha256::new();
    let mut part = |bytes: &[u8]| {
        digest.update((bytes.len() as u64).to_le_bytes());
        digest.update(bytes);
    };
    part(name.as_str().as_bytes());
    part(&stored.document);
    for file in &stored.files {
        part(file.path.as_bytes());
        part(&[u8::from(file.executable)]);
        part(&file.bytes);
    }
    digest.finalize().into()
}

/// What this chain added up to the last time.
fn added_up(
    profiles: &HashMap<ProfileName, AddedUp>,
    name: &ProfileName,
    chain: &[Arc<Entry>],
) -> Option<Arc<Profile>> {
    let (known, cached) = profiles.get(name)?;
    let same =
        known.len() == chain.len() && known.iter().zip(chain).all(|(a, b)| Arc::ptr_eq(a, b));
    same.then(|| Arc::clone(cached))
}

/// Whether nothing but the documents decides which components it has.
fn is_self_contained(profile: &Profile) -> bool {
    let hooks = profile.hooks.iter().map(|hook| &hook.plugin);
    std::iter::once(&profile.plugin)
        .chain(hooks)
        .all(|plugin| matches!(plugin.component, Component::Bundled(_)))
}

/// Nothing is left half done under these locks, so a panic elsewhere does not spoil them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
