//! The rules for paths that a plugin names, all of them relative to a place only the host knows.

use unicode_normalization::UnicodeNormalization;

use super::error::{Code, PluginError};
use super::text;

/// Names between slashes.
const MAX_LEVELS: usize = 8;
/// Bytes of one name, which file systems have in common.
const MAX_NAME: usize = 255;

/// Checks one path; `what` says in the error which one it is.
///
/// # Errors
///
/// [`Code::Path`] naming the rule that is broken.
pub(super) fn check(what: &str, path: &str) -> Result<(), PluginError> {
    match broken_rule(path) {
        None => Ok(()),
        Some(rule) => {
            let path = text::line(path, 200);
            Err(PluginError::new(
                Code::Path,
                format!("{what} `{path}` {rule}"),
            ))
        }
    }
}

fn broken_rule(path: &str) -> Option<&'static str> {
    if path.is_empty() {
        return Some("is empty");
    }
    if path.starts_with('/') {
        return Some("is absolute");
    }
    if path.ends_with('/') {
        return Some("ends with a slash");
    }
    if path.len() > MAX_LEVELS * (MAX_NAME + 1) {
        return Some("is longer than 8 names of 255 bytes");
    }
    if path.chars().any(text::is_deceptive) {
        return Some("has a control, invisible or bidirectional character");
    }
    if path.contains('\\') {
        return Some("has a backslash");
    }
    if path.split('/').count() > MAX_LEVELS {
        return Some("has more than 8 levels");
    }
    path.split('/').find_map(broken_name_rule)
}

fn broken_name_rule(name: &str) -> Option<&'static str> {
    match name {
        "" => Some("has an empty name"),
        "." => Some("has the name `.`"),
        ".." => Some("leaves its directory with `..`"),
        _ if name.len() > MAX_NAME => Some("has a name longer than 255 bytes"),
        _ => None,
    }
}

/// What two paths share that a file system without case or with Unicode normalization may take for the same.
pub(super) fn fold(path: &str) -> String {
    if path.is_ascii() {
        return path.to_ascii_lowercase();
    }
    let folded = caseless::default_case_fold_str(&path.nfkc().collect::<String>());
    folded.nfc().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_refuses_what_it_is_for() {
        let long = "x".repeat(256);
        let deep = "a/".repeat(8) + "a";
        let cases = [
            ("", "is empty"),
            ("/etc/passwd", "is absolute"),
            ("a/", "ends with a slash"),
            ("a//b", "empty name"),
            ("./a", "the name `.`"),
            ("a/./b", "the name `.`"),
            ("../x", "leaves its directory"),
            ("a/../../x", "leaves its directory"),
            ("a\\..\\b", "backslash"),
            ("a\0b", "control"),
            ("a\nb", "control"),
            ("a\u{1b}[2Jb", "control"),
            ("a\u{202e}b", "bidirectional"),
            ("a\u{200b}b", "invisible"),
            ("\u{feff}a", "invisible"),
            (long.as_str(), "longer than 255"),
            (deep.as_str(), "more than 8 levels"),
        ];
        for (path, rule) in cases {
            let broken = broken_rule(path);
            assert!(
                broken.is_some_and(|broken| broken.contains(rule)),
                "{path:?}: {broken:?}"
            );
        }
    }

    #[test]
    fn ordinary_paths_pass() {
        let deep = "a/".repeat(7) + "a";
        for path in [
            "settings.json",
            ".mcp.json",
            "agents/ünï.md",
            "a b/~c",
            "..a/b..",
            deep.as_str(),
        ] {
            assert_eq!(broken_rule(path), None, "{path}");
        }
    }

    #[test]
    fn twins_fold_to_one() {
        for (a, b) in [
            ("README.md", "readme.MD"),
            ("straße", "STRASSE"),
            ("caf\u{e9}", "cafe\u{301}"),
            ("\u{212b}", "\u{e5}"),
            ("ﬁle", "FILE"),
        ] {
            assert_eq!(fold(a), fold(b));
        }
        assert_ne!(fold("a"), fold("b"));
    }
}
