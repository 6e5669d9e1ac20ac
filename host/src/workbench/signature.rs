//! Signatures of plugins: Ed25519 over a bundle's manifest, with keys in the files that `openssl` reads and writes.
//!
//! The manifest holds the digest of everything else, so one signature covers all of a bundle. An operator who names keys
//! (`AGENTICORE_PLUGIN_KEYS`) gets no component from a file that none of them signed, neither at installation nor in a job.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use super::Unusable;
use super::bundle::Manifest;
use crate::plugin::{Code, Digest, PluginError, text};

/// What is signed begins with this, so that a signature can be taken for nothing else.
const CONTEXT: &[u8] = b"agenticore plugin bundle v1\n";
/// Bytes of a public key.
const KEY_BYTES: usize = 32;
/// What DER has before the key in a file with a public key (`openssl pkey -pubout`).
const PUBLIC_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];
/// The most signatures that a bundle may have.
pub(super) const MAX_SIGNATURES: usize = 16;

/// One signature and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// The public key, 32 bytes in base64.
    pub key: String,
    /// The signature, 64 bytes in base64.
    pub signature: String,
}

/// A private key.
#[derive(Debug)]
pub struct SigningKey(Ed25519KeyPair);

/// The keys whose signatures an operator accepts; none: signatures do not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedKeys(Vec<[u8; KEY_BYTES]>);

/// What lies beside an installed component: the manifests that its bytes came with, and their signatures.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// The newest first. The one before it stays, so that no moment of a replacement is without the right one.
    pub bundles: Vec<Signed>,
}

/// A manifest as it was signed, to the byte.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signed {
    /// The manifest's text.
    pub manifest: String,
    /// The signatures.
    pub signatures: Vec<Signature>,
}

impl SigningKey {
    /// Makes a key: the private one at `path`, which must not exist and only its owner can read, the public one at `path.pub`.
    ///
    /// # Errors
    /// [`Unusable`] when a file is there already or cannot be written.
    pub fn generate(path: &Path) -> Result<Self, Unusable> {
        let failed = |what: &str| Unusable::at(path, what);
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| failed("the system has no random numbers"))?;
        let pair = Ed25519KeyPair::from_pkcs8(document.as_ref())
            .map_err(|_| failed("the new key cannot be used"))?;
        let key = Self(pair);
        create(path, 0o600, &pem("PRIVATE KEY", document.as_ref()))?;
        let public = [&PUBLIC_PREFIX[..], key.0.public_key().as_ref()].concat();
        let told = create(&public_path(path), 0o644, &pem("PUBLIC KEY", &public));
        if told.is_err() {
            // Half a pair would be in the way of the next try. Nobody has used it yet.
            drop(fs::remove_file(path));
        }
        told.map(|()| key)
    }

    /// Reads a private key, as [`SigningKey::generate`] or `openssl genpkey -algorithm ed25519` write it.
    ///
    /// # Errors
    /// [`Unusable`] when it cannot be read or is no such key.
    pub fn read(path: &Path) -> Result<Self, Unusable> {
        let der = read_pem(path, "PRIVATE KEY")?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der)
            .map_err(|_| Unusable::at(path, "it holds no private Ed25519 key"))?;
        Ok(Self(pair))
    }

    /// The public key in base64.
    #[must_use]
    pub fn public(&self) -> String {
        BASE64.encode(self.0.public_key())
    }

    /// Signs a manifest's text.
    #[must_use]
    pub fn sign(&self, manifest: &str) -> Signature {
        let signature = self.0.sign(&message(manifest));
        Signature {
            key: self.public(),
            signature: BASE64.encode(signature),
        }
    }
}

fn public_path(path: &Path) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

/// Makes a file that is there as a whole or not at all, and takes the place of none.
fn create(path: &Path, mode: u32, text: &str) -> Result<(), Unusable> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let written = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(mode))
            .tempfile_in(folder.unwrap_or(Path::new(".")))?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist_noclobber(path)?;
        Ok(())
    };
    written().map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => Unusable::at(
            path,
            "it exists already, and a key takes the place of no file",
        ),
        _ => Unusable::at(path, format!("it cannot be written: {e}")),
    })
}

fn pem(label: &str, der: &[u8]) -> String {
    let body = BASE64.encode(der);
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

fn read_pem(path: &Path, label: &str) -> Result<Vec<u8>, Unusable> {
    let text = super::read_text(path)?;
    let (begin, end) = (
        format!("-----BEGIN {label}-----"),
        format!("-----END {label}-----"),
    );
    let body = text
        .split_once(&begin)
        .and_then(|(_, rest)| rest.split_once(&end))
        .map(|(body, _)| body.split_whitespace().collect::<String>());
    body.and_then(|body| BASE64.decode(body).ok())
        .ok_or_else(|| Unusable::at(path, format!("it holds no {label} in PEM form")))
}

fn message(manifest: &str) -> Vec<u8> {
    [CONTEXT, manifest.as_bytes()].concat()
}

impl TrustedKeys {
    /// Reads keys, each in base64 or the path of a PEM file.
    ///
    /// # Errors
    /// [`Unusable`] naming the entry that is no key.
    pub fn parse(entries: &[String]) -> Result<Self, Unusable> {
        entries
            .iter()
            .map(|entry| parse_key(entry))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether signatures do not matter.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The trusted key, in base64, that signed this manifest; none where signatures do not matter.
    ///
    /// # Errors
    /// [`Code::Signature`] where no trusted key did.
    pub fn check(
        &self,
        manifest: &str,
        signatures: &[Signature],
    ) -> Result<Option<String>, PluginError> {
        if self.is_empty() {
            return Ok(None);
        }
        let signed = message(manifest);
        for one in signatures.iter().take(MAX_SIGNATURES) {
            let (Ok(key), Ok(signature)) = (BASE64.decode(&one.key), BASE64.decode(&one.signature))
            else {
                continue;
            };
            let is_trusted = self.0.iter().any(|trusted| trusted[..] == key[..]);
            let verifier = UnparsedPublicKey::new(&ED25519, &key);
            if is_trusted && verifier.verify(&signed, &signature).is_ok() {
                return Ok(Some(one.key.clone()));
            }
        }
        let message = match signatures.first() {
            None => {
                "the plugin is not signed, and the operator accepts signed ones alone".to_owned()
            }
            Some(first) => format!(
                "no key that the operator accepts signed the plugin; it is signed by {}",
                text::line(&first.key, 100)
            ),
        };
        Err(PluginError::new(Code::Signature, message))
    }

    /// Checks a component against what lies beside copies of it.
    ///
    /// # Errors
    /// [`Code::Signature`] where no trusted key signed these bytes.
    pub fn check_installed(&self, copies: &[&Path], digest: Digest) -> Result<(), PluginError> {
        if self.is_empty() {
            return Ok(());
        }
        let of_these_bytes = |signed: &Signed| {
            Manifest::parse(&signed.manifest)
                .is_ok_and(|manifest| manifest.component.sha256 == digest)
        };
        let beside = copies.iter().map(|path| Provenance::read_beside(path));
        let bundles = beside.flat_map(|provenance| provenance.bundles);
        let mut checked = self.check("", &[]).map(drop);
        for signed in bundles.filter(of_these_bytes) {
            checked = self.check(&signed.manifest, &signed.signatures).map(drop);
            if checked.is_ok() {
                break;
            }
        }
        checked
    }
}

impl Provenance {
    /// Where it lies, seen from the component.
    #[must_use]
    pub fn path(component: &Path) -> std::path::PathBuf {
        let mut name = component.as_os_str().to_owned();
        name.push(".json");
        name.into()
    }

    /// What lies beside a component; nothing where there is nothing that can be read.
    #[must_use]
    pub fn read_beside(component: &Path) -> Self {
        super::read_text(&Self::path(component))
            .ok()
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default()
    }
}

fn parse_key(entry: &str) -> Result<[u8; KEY_BYTES], Unusable> {
    let direct = BASE64.decode(entry).ok();
    if let Some(key) = direct.and_then(|bytes| bytes.try_into().ok()) {
        return Ok(key);
    }
    let path = Path::new(entry);
    if !fs::exists(path).unwrap_or(false) {
        return Err(Unusable(format!(
            "{entry:?} is neither a public Ed25519 key in base64 nor a file with one"
        )));
    }
    let der = read_pem(path, "PUBLIC KEY")?;
    der.strip_prefix(&PUBLIC_PREFIX)
        .and_then(|key| key.try_into().ok())
        .ok_or_else(|| Unusable::at(path, "it holds no public Ed25519 key"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_signature_counts_only_by_a_trusted_key_and_for_these_words() {
        let dir = tempfile::tempdir().unwrap();
        let (mine, other) = (dir.path().join("mine"), dir.path().join("other"));
        let key = SigningKey::generate(&mine).unwrap();
        let foreign = SigningKey::generate(&other).unwrap();
        let again = SigningKey::read(&mine).unwrap();
        assert_eq!(again.sign("words"), key.sign("words"));

        let public = dir.path().join("mine.pub").display().to_string();
        let trusted = TrustedKeys::parse(&[public]).unwrap();
        assert_eq!(trusted, TrustedKeys::parse(&[key.public()]).unwrap());
        let signed = key.sign("words");
        assert_eq!(
            trusted
                .check("words", std::slice::from_ref(&signed))
                .unwrap(),
            Some(key.public())
        );
        for (words, signatures) in [
            ("other words", vec![signed.clone()]),
            ("words", vec![foreign.sign("words")]),
            ("words", vec![]),
            (
                "words",
                vec![Signature {
                    key: key.public(),
                    ..foreign.sign("words")
                }],
            ),
        ] {
            let error = trusted.check(words, &signatures).unwrap_err();
            assert_eq!(error.code, Code::Signature, "{words}: {signatures:?}");
        }
        assert_eq!(TrustedKeys::default().check("words", &[]).unwrap(), None);
    }

    #[test]
    fn a_private_key_is_its_owners_alone_and_never_overwritten() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        SigningKey::generate(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0);
        assert!(SigningKey::generate(&path).is_err());
        assert!(TrustedKeys::parse(&["no key".to_owned()]).is_err());
        assert!(TrustedKeys::parse(&[path.display().to_string()]).is_err());
    }

    #[test]
    fn a_key_that_could_not_be_written_leaves_nothing_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let public = dir.path().join("key.pub");
        fs::create_dir(&public).unwrap();
        let error = SigningKey::generate(&path).unwrap_err().to_string();
        assert!(error.contains("key.pub"), "{error}");
        fs::remove_dir(&public).unwrap();
        let names = |dir: &Path| fs::read_dir(dir).unwrap().count();
        assert_eq!(names(dir.path()), 0);

        SigningKey::generate(&path).unwrap();
        assert_eq!(names(dir.path()), 2);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let before = fs::read(&path).unwrap();
        let error = SigningKey::generate(&path).unwrap_err().to_string();
        assert!(error.contains("it exists already"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before);
    }
}
