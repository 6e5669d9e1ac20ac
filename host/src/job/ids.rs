//! Names and ids that are parsed once, at the edge; after that nobody compares strings.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A text that is not a valid id or name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {given:?} is not valid: {rule}")]
pub struct InvalidName {
    what: &'static str,
    given: String,
    rule: &'static str,
}

impl InvalidName {
    fn new(what: &'static str, given: &str, rule: &'static str) -> Self {
        let mut given: String = given.chars().take(80).collect();
        given.retain(|c| !c.is_control());
        Self { what, given, rule }
    }
}

/// A job's id: a random UUID (version 4), so that its first eight digits tell jobs apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(Uuid);

impl JobId {
    /// A new id.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// The first eight hexadecimal digits, for branches and tables.
    #[must_use]
    pub fn short(&self) -> String {
        self.0.simple().to_string().chars().take(8).collect()
    }

    /// The UUID itself.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for JobId {
    type Err = InvalidName;

    /// Takes the hyphenated form only: other spellings of a UUID would name the same file twice.
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let bad = || {
            InvalidName::new(
                "job id",
                text,
                "it must be a UUID such as 0b6ad2a4-6d0a-4f0e-9a49-3d7f4b8f2c11",
            )
        };
        let uuid = Uuid::parse_str(text).map_err(|_| bad())?;
        if uuid.hyphenated().to_string() == text.to_ascii_lowercase() {
            Ok(Self(uuid))
        } else {
            Err(bad())
        }
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) { Ok(Self(text.to_owned())) } else { Err(InvalidName::new($what, text, $rule)) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

fn plain(text: &str, max: usize, extra: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphanumeric())
        && text.len() <= max
        && chars.all(|c| c.is_ascii_alphanumeric() || extra.contains(c))
}

name_type!(
    /// A profile's name, which is also its folder's name.
    ProfileName,
    "profile name",
    "it must be 1 to 64 letters, digits, '.', '_' or '-', and begin with a letter or digit",
    |text| plain(text, 64, "._-")
);

name_type!(
    /// The name of the pod (or host) that runs jobs.
    PodName,
    "pod name",
    "it must be 1 to 253 letters, digits, '.', '_' or '-', and begin with a letter or digit",
    |text| plain(text, 253, "._-")
);

name_type!(
    /// An agent's session id. It begins with a letter or digit, so that it can never be taken for an option.
    SessionId,
    "session id",
    "it must be 1 to 128 letters, digits, '.', '_', ':' or '-', and begin with a letter or digit",
    |text| plain(text, 128, "._:-")
);

/// Grows with every claim of a job. A write that names an older fence than the job's is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fence(pub u64);

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn job_ids_take_one_spelling_only() {
        let id = JobId::random();
        assert_eq!(id.to_string().parse::<JobId>().unwrap(), id);
        assert_eq!(id.short(), id.to_string()[..8]);
        for bad in [
            "",
            "..",
            "../../x",
            "a/b",
            "\0",
            &id.uuid().simple().to_string(),
            &format!("{{{id}}}"),
            &format!("urn:uuid:{id}"),
        ] {
            assert!(bad.parse::<JobId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_cannot_be_paths_or_options() {
        for good in ["code", "a", "my.profile-2_x"] {
            good.parse::<ProfileName>().unwrap();
        }
        for bad in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "a\0b",
            "-x",
            ".hidden",
            "a b",
            "ü",
            &"a".repeat(65),
        ] {
            assert!(bad.parse::<ProfileName>().is_err(), "{bad:?}");
        }
        assert!("--resume".parse::<SessionId>().is_err());
    }
}
