//! What people who write, ship and install plugins do with a component outside of a job.
//!
//! Everything that runs a guest here runs it in the sandbox of a server, under its limits: a [`Trial`] is a sample job ([`sample`]) up
//! to the point where a server would start the agent, and [`case`] compares such trials with what was expected of them. [`anatomy`]
//! takes a component apart without running it, [`compare`] says what differs between two, [`mod@bench`] what a call costs. A [`bundle`] is how
//! a plugin travels, with [`signature`]s on it, by file or through a [`registry`]; [`install`] puts it where profiles find it.
//!
//! It owns no command line: that is [`crate::cli`]'s.

pub mod anatomy;
pub mod bench;
pub mod bundle;
pub mod case;
pub mod compare;
pub mod document;
pub mod install;
pub mod registry;

pub mod sample;
pub mod signature;
mod trial;

use std::fmt::Display;
use std::path::{Path, PathBuf};

use crate::bundled;
use crate::profile::Component;

pub use self::trial::{Failed, Ran, Trial, Use, Workbench};

/// The largest document of a case, in bytes.
const MAX_DOCUMENT: u64 = 4 << 20;

/// Something that was asked for cannot even be tried: a file that is missing or malformed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(pub String);

impl Unusable {
    /// `what` is wrong with the file `path`.
    pub(crate) fn at(path: &Path, what: impl Display) -> Self {
        Self(format!("{}: {what}", path.display()))
    }
}

/// The component that a command line names: a file, or a plugin that is part of the binary.
///
/// # Errors
/// [`Unusable`] with the names that exist.
pub fn component(named: &Path) -> Result<Component, Unusable> {
    let name = named.to_string_lossy();
    // No folder is a component, so one of that name, such as the project of a plugin, does not hide the bundled one.
    let is_hidden = named.exists() && !named.is_dir();
    if !is_hidden && bundled::plugin(&name).is_some() {
        return Ok(Component::Bundled(name.into_owned()));
    }
    if named.exists() {
        return Ok(Component::File(named.to_owned()));
    }
    let known: Vec<_> = bundled::plugin_names().collect();
    Err(Unusable::at(
        named,
        format!(
            "there is no such file, and no bundled plugin of that name (bundled are: {})",
            known.join(", ")
        ),
    ))
}

/// A document of at most a few megabytes.
pub(crate) fn read_text(path: &Path) -> Result<String, Unusable> {
    let size = std::fs::metadata(path).map_err(|e| Unusable::at(path, e))?;
    if size.len() > MAX_DOCUMENT {
        return Err(Unusable::at(
            path,
            format!("it has more than {MAX_DOCUMENT} bytes"),
        ));
    }
    std::fs::read_to_string(path).map_err(|e| Unusable::at(path, e))
}

/// `path`, from the folder of the document that names it.
fn beside(document: &Path, path: &str) -> PathBuf {
    document.parent().unwrap_or(Path::new(".")).join(path)
}
