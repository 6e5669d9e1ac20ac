//! Why a profile cannot be used.

use std::io;
use std::path::PathBuf;

use super::{InvalidName, ProfileName};

/// Why a profile cannot be used. Every message names the file and, where there is one, the key; none of them holds a file's content.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The text is not a profile's name.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// No root has a profile of that name.
    #[error("no profile is called `{name}`; {}", list("known are", .known))]
    NotFound {
        /// The name that was asked for.
        name: ProfileName,
        /// The names of all profiles, sorted.
        known: Vec<String>,
    },
    /// A document is not YAML, or goes beyond the limits of a settings file.
    #[error("{}: not a valid profile document: {problem}", .file.display())]
    Yaml {
        /// The document.
        file: PathBuf,
        /// What is wrong, with line and column.
        problem: String,
    },
    /// A key has a value of another type than expected.
    #[error("{}: `{key}` must be {expected}, but it is {found}", .file.display())]
    Type {
        /// The document.
        file: PathBuf,
        /// The key, with dots between the names of nested ones.
        key: String,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A key that has no meaning where it stands.
    #[error("{}: unknown key `{key}`; {hint}", .file.display())]
    UnknownKey {
        /// The document.
        file: PathBuf,
        /// The key, with dots between the names of nested ones.
        key: String,
        /// What was probably meant, or the keys that are known there.
        hint: String,
    },
    /// A profile's `name` is not that of its folder.
    #[error("{}: `name` is `{found}`, but the profile is stored as `{stored}`; give both the same name", .file.display())]
    NameMismatch {
        /// The document.
        file: PathBuf,
        /// The name in the document.
        found: String,
        /// The name of the folder or file.
        stored: ProfileName,
    },
    /// A chain of `extends` comes back to a profile that it has passed.
    #[error("{}: `extends` goes round in a circle: {}", .file.display(), .chain.join(" -> "))]
    Loop {
        /// The document whose `extends` closes the circle.
        file: PathBuf,
        /// The names along the chain, the asked-for profile first.
        chain: Vec<String>,
    },
    /// A chain of `extends` is longer than allowed.
    #[error("{}: the chain of `extends` is longer than {limit} profiles", .file.display())]
    TooDeep {
        /// The document at which the limit was reached.
        file: PathBuf,
        /// The limit.
        limit: usize,
    },
    /// A profile extends one that does not exist.
    #[error("{}: `extends` names `{parent}`, which does not exist; {}", .file.display(), list("known are", .known))]
    MissingParent {
        /// The document.
        file: PathBuf,
        /// The name in `extends`.
        parent: ProfileName,
        /// The names of all profiles, sorted.
        known: Vec<String>,
    },
    /// A profile extends one that is broken.
    #[error("{}: `extends` names `{parent}`, which cannot be used", .file.display())]
    BrokenParent {
        /// The document.
        file: PathBuf,
        /// The name in `extends`.
        parent: ProfileName,
        /// What is wrong with the parent.
        source: Box<ProfileError>,
    },
    /// Something in a profile folder is no plain file of the folder.
    #[error("{}: {problem}", .path.display())]
    Entry {
        /// What it is about.
        path: PathBuf,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A profile folder is larger than allowed.
    #[error("{}: {what}; the limit is {limit}", .path.display())]
    Limit {
        /// The file or folder.
        path: PathBuf,
        /// What is too large.
        what: &'static str,
        /// The limit with its unit.
        limit: String,
    },
    /// A component that a profile names is not there.
    #[error("{}: `{key}` names `{component}`: {problem}", .file.display())]
    Component {
        /// The document.
        file: PathBuf,
        /// The key, such as `plugin.component`.
        key: String,
        /// The component as written.
        component: String,
        /// What is wrong and where it was looked for.
        problem: String,
    },
    /// The file system refused.
    #[error("cannot read {}", .path.display())]
    Io {
        /// What was read.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl ProfileError {
    /// The message with those of its causes, in one line.
    #[must_use]
    pub fn full_message(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }

    /// Whether the name is at fault: it cannot be one, or nothing is called so. Anything else is the profile's fault or the server's.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Name(_) | Self::NotFound { .. })
    }
}

fn list(words: &str, names: &[String]) -> String {
    if names.is_empty() {
        "there are no profiles at all".to_owned()
    } else {
        format!("{words}: {}", names.join(", "))
    }
}
