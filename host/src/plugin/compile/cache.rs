//! Compiled code on disk, sealed: what was compiled once need not be compiled by the next process.
//!
//! Loading compiled code is running it, so a file counts only with a seal: an HMAC-SHA-256 (RFC 2104) over what it is for and its
//! bytes, with a key that is made once and that only this user can read. The directory must be ours and writable by nobody else,
//! else there is no cache. A file that is missing, cut off, changed, or from another version is a miss and never an error.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use wasmtime::Engine;

use crate::plugin::Digest;

const SEAL: usize = 32;
const KEY: &str = "key";
const SUFFIX: &str = ".code";
const TEMPORARY: &str = ".tmp-";
/// The most code that is kept, in bytes; the oldest files go first.
const MAX_BYTES: u64 = 1 << 30;

/// A directory of sealed code.
#[derive(Debug)]
pub(in crate::plugin) struct CompiledCache {
    dir: PathBuf,
    key: [u8; SEAL],
}

impl CompiledCache {
    /// Opens the cache in `dir`, which is made with its key if it is not there.
    ///
    /// # Errors
    /// When it cannot be made or read, or somebody else could write to it.
    pub(in crate::plugin) fn open(dir: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let metadata = fs::symlink_metadata(dir)?;
        let ours = metadata.uid() == rustix::process::geteuid().as_raw();
        if !metadata.is_dir() || !ours || metadata.mode() & 0o077 != 0 {
            return Err(io::Error::other(format!(
                "{} must be a directory of this user with mode 0700",
                dir.display()
            )));
        }
        Ok(Self {
            dir: dir.to_owned(),
            key: key(&dir.join(KEY))?,
        })
    }

    /// The code of a component for this engine, if there is any that we sealed.
    pub(super) fn load(&self, engine: &Engine, digest: Digest) -> Option<Vec<u8>> {
        let name = name(engine, digest);
        let mut sealed = Vec::new();
        let mut options = OpenOptions::new();
        let no_follow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        options
            .read(true)
            .custom_flags(no_follow)
            .open(self.dir.join(&name))
            .and_then(|mut file| file.read_to_end(&mut sealed))
            .ok()?;
        let code = sealed.split_off(SEAL.min(sealed.len()));
        if self.mac(&name, &code)?.verify_slice(&sealed).is_err() {
            tracing::warn!(
                file = name,
                "code in the cache is not what this server put there; it is compiled again"
            );
            return None;
        }
        Some(code)
    }

    /// Keeps code for later; that it cannot be kept is not worth failing for.
    pub(super) fn store(&self, engine: &Engine, digest: Digest, code: &[u8]) {
        let name = name(engine, digest);
        if let Err(error) = self.write(&name, code).and_then(|()| self.tidy()) {
            tracing::warn!(dir = %self.dir.display(), %error, "compiled code cannot be kept; it is compiled again at the next start");
        }
    }

    fn write(&self, name: &str, code: &[u8]) -> io::Result<()> {
        let Some(mac) = self.mac(name, code) else {
            return Ok(());
        };
        let mut file = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .tempfile_in(&self.dir)?;
        file.write_all(&mac.finalize().into_bytes())?;
        file.write_all(code)?;
        file.persist(self.dir.join(name))?;
        Ok(())
    }

    /// Removes the oldest files beyond what may be kept.
    fn tidy(&self) -> io::Result<()> {
        let mut files: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if entry.file_name().to_string_lossy().ends_with(SUFFIX) {
                files.push((metadata.modified()?, metadata.len(), entry.path()));
            }
        }
        files.sort();
        let mut all: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, path) in files {
            if all <= MAX_BYTES {
                break;
            }
            fs::remove_file(path)?;
            all -= bytes;
        }
        Ok(())
    }

    /// The seal of this code under this name; the name says which component and which engine it is for.
    fn mac(&self, name: &str, code: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).ok()?;
        mac.update(name.as_bytes());
        mac.update(&[0]);
        mac.update(code);
        Some(mac)
    }
}

fn name(engine: &Engine, digest: Digest) -> String {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{digest}-{:016x}{SUFFIX}", hasher.finish())
}

/// The key in this file, which is made if it is not there. Of two processes that make it at once, one wins and both read it.
fn key(path: &Path) -> io::Result<[u8; SEAL]> {
    let mut key = [0; SEAL];
    if !path.exists() {
        File::open("/dev/urandom")?.read_exact(&mut key)?;
        let dir = path.parent().unwrap_or(path);
        // Private from the start, and there as a whole or not at all.
        let mut file = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .tempfile_in(dir)?;
        file.write_all(&key)?;
        file.as_file().sync_all()?;
        if let Err(error) = file.persist_noclobber(path)
            && error.error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(error.error);
        }
    }
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_file() || metadata.len() != SEAL as u64 || metadata.mode() & 0o077 != 0 {
        return Err(io::Error::other(format!(
            "{} must be a file of {SEAL} bytes with mode 0600; remove it to get a new one",
            path.display()
        )));
    }
    File::open(path)?.read_exact(&mut key)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(dir: &Path) -> PathBuf {
        let mut all = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        all.find(|path| path.to_string_lossy().ends_with(SUFFIX))
            .unwrap()
    }

    #[test]
    fn only_what_was_sealed_with_our_key_for_this_component_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("cache");
        let (engine, one, other) = (Engine::default(), Digest::of(b"1"), Digest::of(b"2"));
        let cache = CompiledCache::open(&dir).unwrap();
        assert_eq!(cache.load(&engine, one), None);
        cache.store(&engine, one, b"code");
        let again = CompiledCache::open(&dir).unwrap();
        assert_eq!(again.load(&engine, one).as_deref(), Some(&b"code"[..]));

        let whole = fs::read(file(&dir)).unwrap();
        // Under another name it is somebody else's code.
        fs::copy(file(&dir), dir.join(name(&engine, other))).unwrap();
        assert_eq!(cache.load(&engine, other), None);
        fs::remove_file(dir.join(name(&engine, other))).unwrap();
        for at in [0, SEAL, whole.len() - 1] {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(file(&dir), &changed).unwrap();
            assert_eq!(cache.load(&engine, one), None, "a bit at {at}");
        }
        for length in [0, SEAL - 1, SEAL, whole.len() - 1] {
            fs::write(file(&dir), &whole[..length]).unwrap();
            assert_eq!(cache.load(&engine, one), None, "cut to {length}");
        }
        fs::write(file(&dir), &whole).unwrap();
        assert!(cache.load(&engine, one).is_some());
        fs::remove_file(dir.join(KEY)).unwrap();
        let other_key = CompiledCache::open(&dir).unwrap();
        assert_eq!(other_key.load(&engine, one), None, "another key");
        let planted = dir.join("planted");
        fs::rename(file(&dir), &planted).unwrap();
        std::os::unix::fs::symlink(&planted, dir.join(name(&engine, one))).unwrap();
        assert_eq!(cache.load(&engine, one), None, "a link");
    }

    #[test]
    fn a_directory_that_others_can_reach_is_no_cache() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("cache");
        drop(CompiledCache::open(&dir).unwrap());
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o770)).unwrap();
        assert!(CompiledCache::open(&dir).is_err());
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        fs::set_permissions(dir.join(KEY), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(CompiledCache::open(&dir).is_err());
    }
}
