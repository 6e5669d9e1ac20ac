//! The YAML head of Markdown files that agents read settings from.

use serde_json::Value;

/// Bytes of a head; a longer one is not read and needs whatever its words might mean.
const MAX_HEAD: usize = 64 * 1024;

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
    if head.len() > MAX_HEAD {
        return FrontMatter::Unreadable(head.to_owned());
    }
    match parse(head) {
        Some(value) => FrontMatter::Read(value),
        None => FrontMatter::Unreadable(head.to_owned()),
    }
}

fn parse(head: &str) -> Option<Value> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: 1,
            max_depth: 32,
            max_events: 50_000,
            max_nodes: 20_000,
            max_aliases: 100,
            max_anchors: 100,
            max_merge_keys: 100,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 10_000,
            max_replay_stack_depth: 8,
        },
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(head, options).ok()
}

/// Whether a head that could not be read may set this key.
pub(super) fn may_set(head: &str, key: &str) -> bool {
    // Escapes in quoted keys could spell it in another way.
    head.contains('\\') || head.to_lowercase().contains(&key.to_lowercase())
}
