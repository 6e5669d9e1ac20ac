//! What a secret looks like, and a text without any.

use std::collections::BTreeMap;

use regex_lite::Regex;

use crate::Pattern;

/// Kinds whose form gives them away, the most telling first. The first group, where there is one, is the secret; else all of the match is.
const KNOWN: &[(&str, &str)] = &[
    (
        "private-key",
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:[^-]|-[^-])*(?:-----END [A-Z ]*PRIVATE KEY-----)?",
    ),
    (
        "github-token",
        r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,})",
    ),
    ("gitlab-token", r"\bglpat-[A-Za-z0-9_-]{20,}"),
    ("aws-access-key", r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    ("slack-token", r"\bxox[abeprs]-[A-Za-z0-9-]{10,}"),
    ("google-api-key", r"\bAIza[A-Za-z0-9_-]{35}"),
    ("stripe-key", r"\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,}"),
    ("npm-token", r"\bnpm_[A-Za-z0-9]{36}\b"),
    ("api-key", r"\bsk-[A-Za-z0-9_-]{20,}"),
    (
        "jwt",
        r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",
    ),
    (
        "url-password",
        r"\b[a-z][a-z0-9+.-]*://[^\s/:@]+:([^\s/:@]{3,})@",
    ),
    ("bearer-token", r"(?i)\bbearer\s+([A-Za-z0-9._~+/-]{16,}=*)"),
    (
        "assigned-secret",
        r#"(?i)\b[a-z0-9_.-]*(?:password|passwd|secret|token|api[_-]?key)["']?\s*[:=]\s*["']?([A-Za-z0-9+/_.~-]{12,}=*)"#,
    ),
];

/// The patterns, compiled.
#[derive(Debug)]
pub(crate) struct Finder {
    kinds: Vec<(String, Regex)>,
}

/// A text without secrets, and what was taken out of it.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) text: String,
    pub(crate) kinds: Kinds,
}

/// How many secrets of each kind there were.
#[derive(Debug, Default)]
pub(crate) struct Kinds(BTreeMap<String, usize>);

/// What stands in the place of a secret: this, its kind, and `]`.
const MARK: &str = "[redacted ";

impl Finder {
    /// # Errors
    /// Which of the profile's own patterns is wrong, and how.
    pub(crate) fn new(own: &[Pattern]) -> Result<Self, String> {
        let own = own
            .iter()
            .map(|pattern| (pattern.name.as_str(), pattern.regex.as_str()));
        let compile = |(name, regex): (&str, &str)| match Regex::new(regex) {
            Ok(regex) => Ok((name.to_owned(), regex)),
            Err(error) => Err(format!(
                "the hook's `patterns`: the regular expression of `{name}` is wrong: {error}"
            )),
        };
        let kinds = own.chain(KNOWN.iter().copied()).map(compile);
        Ok(Self {
            kinds: kinds.collect::<Result<_, _>>()?,
        })
    }

    /// Takes the secrets out of a text.
    pub(crate) fn clean(&self, text: &str) -> Found {
        let mut found = Found {
            text: text.to_owned(),
            kinds: Kinds::default(),
        };
        for (kind, regex) in &self.kinds {
            found.take_out(kind, regex);
        }
        found
    }
}

impl Found {
    fn take_out(&mut self, kind: &str, regex: &Regex) {
        let (mut cleaned, mut kept_from, mut count) = (String::new(), 0, 0);
        for groups in regex.captures_iter(&self.text) {
            let Some(secret) = groups.get(1).or_else(|| groups.get(0)) else {
                continue;
            };
            // What an earlier kind took out is no secret.
            if secret.as_str().contains(MARK) {
                continue;
            }
            cleaned.push_str(self.text.get(kept_from..secret.start()).unwrap_or_default());
            cleaned.push_str(&format!("{MARK}{kind}]"));
            kept_from = secret.end();
            count += 1;
        }
        if count > 0 {
            cleaned.push_str(self.text.get(kept_from..).unwrap_or_default());
            self.text = cleaned;
            self.kinds.add(kind, count);
        }
    }
}

impl Kinds {
    /// What was taken out of a text before.
    pub(crate) fn marked(text: &str) -> Self {
        let mut kinds = Self::default();
        for rest in text.split(MARK).skip(1) {
            if let Some((kind, _)) = rest.split_once(']')
                && !kind.contains(char::is_control)
            {
                kinds.add(kind, 1);
            }
        }
        kinds
    }

    fn add(&mut self, kind: &str, count: usize) {
        *self.0.entry(kind.to_owned()).or_default() += count;
    }

    pub(crate) fn any(&self) -> bool {
        !self.0.is_empty()
    }

    /// `2 github-token, 1 jwt`.
    pub(crate) fn summary(&self) -> String {
        let parts = self.0.iter().map(|(kind, count)| format!("{count} {kind}"));
        parts.collect::<Vec<_>>().join(", ")
    }

    /// Those of two texts together.
    pub(crate) fn and(mut self, other: &Self) -> Self {
        for (kind, count) in &other.0 {
            self.add(kind, *count);
        }
        self
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_found_and_its_surroundings_stay() {
        let finder = Finder::new(&[]).unwrap();
        for (text, expected) in [
            (
                "key AKIAABCDEFGHIJKLMNOP.",
                "key [redacted aws-access-key].",
            ),
            (
                "url https://ann:hunter22@host/x",
                "url https://ann:[redacted url-password]@host/x",
            ),
            (
                "Authorization: Bearer abcdefghijklmnop1234",
                "Authorization: Bearer [redacted bearer-token]",
            ),
            (
                "DB_PASSWORD=correcthorsebattery",
                "DB_PASSWORD=[redacted assigned-secret]",
            ),
            (
                "\"api_key\": \"0123456789abcdef\"",
                "\"api_key\": \"[redacted assigned-secret]\"",
            ),
            (
                "a\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc=\n-----END RSA PRIVATE KEY-----\nb",
                "a\n[redacted private-key]\nb",
            ),
            (
                "token=ghp_0123456789abcdefghijABCDEFGHIJ012345",
                "token=[redacted github-token]",
            ),
        ] {
            let found = finder.clean(text);
            assert_eq!(found.text, expected);
            assert_eq!(
                found.kinds.summary(),
                Kinds::marked(&found.text).summary(),
                "the marks tell the same"
            );
            assert!(found.kinds.any());
        }
    }

    #[test]
    fn ordinary_words_are_no_secrets() {
        let finder = Finder::new(&[]).unwrap();
        for text in [
            "the password is asked for at the prompt",
            "commit 0123456789abcdef0123456789abcdef01234567",
            "token: none",
            "https://host:8080/path@v1",
            "secret: see the vault",
        ] {
            let found = finder.clean(text);
            assert!(!found.kinds.any(), "{text}: {}", found.kinds.summary());
        }
    }
}
