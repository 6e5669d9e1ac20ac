//! The name of a profile, checked once.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest name, in bytes.
const MAX_LEN: usize = 64;

/// A profile's name: 1 to 64 of the characters `A-Za-z0-9._-`, the first of them a letter or digit. It is a single folder name on
/// any file system and no option on any command line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProfileName(String);

/// Why a text is not a profile's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a profile name: {problem}", .text.escape_debug())]
pub struct NameError {
    text: String,
    problem: &'static str,
}

impl ProfileName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ProfileName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let problem = if text.is_empty() {
            "it is empty"
        } else if text.len() > MAX_LEN {
            "it is longer than 64 bytes"
        } else if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            "it must begin with a letter or digit"
        } else if !text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        {
            "it may only hold letters, digits, `.`, `_` and `-`"
        } else {
            return Ok(Self(text.to_owned()));
        };
        // An answer should not repeat a megabyte that somebody sent.
        Err(NameError {
            text: text.chars().take(MAX_LEN).collect(),
            problem,
        })
    }
}

impl TryFrom<String> for ProfileName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<ProfileName> for String {
    fn from(name: ProfileName) -> Self {
        name.0
    }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn names_are_single_plain_folder_names() {
        for good in ["code", "a", "9", "Team.review_2-x", &"x".repeat(64)] {
            assert_eq!(good.parse::<ProfileName>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            ".",
            "..",
            ".x",
            "-x",
            "_plugins",
            "a/b",
            "a\\b",
            "a\0",
            "a b",
            "ä",
            "a\n",
            &"x".repeat(65),
        ] {
            assert!(bad.parse::<ProfileName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_error_neither_echoes_control_characters_nor_whole_uploads() {
        let text = format!("\u{1b}[31m{}", "x".repeat(1000));
        let message = text.parse::<ProfileName>().unwrap_err().to_string();
        assert!(
            !message.contains('\u{1b}') && message.len() < 300,
            "{message}"
        );
    }
}
