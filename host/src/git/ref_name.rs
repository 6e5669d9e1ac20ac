//! The name of a branch, tag or commit to start from. The rules are those of `git check-ref-format`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest name, in bytes: what fits into a file name, as git stores refs in files.
const MAX_BYTES: usize = 244;

/// A branch, a tag, a full ref name such as `refs/heads/main`, or a commit's (abbreviated) object id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BaseRef(String);

/// A name that no branch, tag or commit can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("base_ref {given:?} is not valid: {rule}")]
pub struct InvalidRef {
    given: String,
    rule: &'static str,
}

impl BaseRef {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it can be an object id: 4 to 64 hexadecimal digits.
    #[must_use]
    pub fn may_be_commit(&self) -> bool {
        (4..=64).contains(&self.0.len()) && self.0.bytes().all(|b| b.is_ascii_hexdigit())
    }

    /// Whether it stands for the remote's default branch.
    #[must_use]
    pub fn is_head(&self) -> bool {
        self.0 == "HEAD"
    }
}

fn broken_rule(name: &str) -> Option<&'static str> {
    let forbidden = |c: char| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c);
    Some(match name {
        "" => "it is empty",
        "@" => "`@` alone is not a name",
        _ if name.len() > MAX_BYTES => "it is too long",
        _ if name.starts_with('-') => "it must not start with `-`",
        _ if name.chars().any(forbidden) => {
            "it must not hold blanks, control characters or any of ~ ^ : ? * [ \\"
        }
        _ if name.contains("..") => "it must not hold `..`",
        _ if name.contains("@{") => "it must not hold `@{`",
        _ if name.ends_with('.') => "it must not end with a dot",
        _ if name.split('/').any(str::is_empty) => {
            "it must not start or end with a slash or hold two in a row"
        }
        _ if name.split('/').any(|part| part.starts_with('.')) => {
            "no part of it may start with a dot"
        }
        _ if name.split('/').any(|part| part.ends_with(".lock")) => {
            "no part of it may end with `.lock`"
        }
        _ => return None,
    })
}

impl FromStr for BaseRef {
    type Err = InvalidRef;

    fn from_str(text: &str) -> Result<Self, InvalidRef> {
        match broken_rule(text) {
            None => Ok(Self(text.to_owned())),
            Some(rule) => Err(InvalidRef {
                given: text.chars().filter(|c| !c.is_control()).take(80).collect(),
                rule,
            }),
        }
    }
}

impl TryFrom<String> for BaseRef {
    type Error = InvalidRef;

    fn try_from(text: String) -> Result<Self, InvalidRef> {
        text.parse()
    }
}

impl From<BaseRef> for String {
    fn from(name: BaseRef) -> String {
        name.0
    }
}

impl fmt::Display for BaseRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::process::Command;

    use super::*;

    const GOOD: [&str; 9] = [
        "main",
        "feature/x-1",
        "v1.2.3",
        "refs/heads/main",
        "a@b",
        "ümlaut",
        "0b6ad2a4",
        "HEAD",
        "user/a_b+c",
    ];
    const BAD: [&str; 22] = [
        "",
        "@",
        "-x",
        "--upload-pack=id",
        "a..b",
        "a b",
        "a\tb",
        "a\0b",
        "a~1",
        "a^",
        "a:b",
        "a?",
        "a*",
        "a[b",
        "a\\b",
        "a@{1}",
        "/a",
        "a/",
        "a//b",
        ".a",
        "a/.b",
        "a.lock",
    ];

    #[test]
    fn names_are_judged_by_the_rules() {
        for name in GOOD {
            assert_eq!(name.parse::<BaseRef>().unwrap().as_str(), name);
        }
        for name in BAD {
            assert!(name.parse::<BaseRef>().is_err(), "{name:?}");
        }
        assert!("a".repeat(300).parse::<BaseRef>().is_err());
        assert!(
            serde_json::from_str::<BaseRef>(r#""--x""#)
                .unwrap_err()
                .to_string()
                .contains("must not start")
        );
    }

    #[test]
    fn git_agrees() {
        for (names, good) in [(&GOOD[..], true), (&BAD[..], false)] {
            for name in names
                .iter()
                .filter(|n| !n.contains('\0') && !n.starts_with('-'))
            {
                let status = Command::new("git")
                    .args(["check-ref-format", &format!("refs/heads/{name}")])
                    .status()
                    .unwrap();
                // Git allows `refs/heads/@`; alone it means HEAD.
                assert!(status.success() == good || *name == "@", "{name:?}");
            }
        }
    }
}
