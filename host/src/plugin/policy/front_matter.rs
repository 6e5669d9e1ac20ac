//! The YAML head of Markdown files that agents read settings from.

use serde_json::Value;

/// The head of a file.
pub(super) enum FrontMatter {
    /// There is none.
    Absent,
    /// It was read.
    Read(Value),
    /// It is there, and not YAML that can be trusted to be read alike everywhere; this is its text.
    Unreadable(String),
}

/// Finds and reads the head. A file that only nearly starts with one counts as having one.
pub(super) fn read(bytes: &[u8]) -> FrontMatter {
    let text = String::from_utf8_lossy(bytes);
    let start = text.trim_start_matches('\u{feff}').trim_start();
    let Some(rest) = start.strip_prefix("---") else {
        return FrontMatter::Absent;
    };
    let head = rest
        .find("\n---")
        .or_else(|| rest.find("\r---"))
        .and_then(|end| rest.get(..end));
    let Some(head) = head else {
        return FrontMatter::Unreadable(rest.to_owned());
    };
    match serde_saphyr::from_str::<Value>(head) {
        Ok(value) => FrontMatter::Read(value),
        Err(_) => FrontMatter::Unreadable(head.to_owned()),
    }
}

/// Whether a head that could not be read may set this key.
pub(super) fn may_set(head: &str, key: &str) -> bool {
    // Escapes in quoted keys could spell it in another way.
    head.contains('\\') || head.to_lowercase().contains(&key.to_lowercase())
}
