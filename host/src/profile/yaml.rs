//! Reads one YAML document into a JSON object, with limits far below what a settings file needs.

use std::path::Path;

use serde_json::{Map, Value};
use serde_saphyr::UserMessageFormatter;

use super::ProfileError;

/// The largest document, in bytes.
pub(super) const MAX_DOCUMENT: u64 = 256 * 1024;

/// Reads the bytes of `file`, which is only named in errors. An empty document is an empty object.
///
/// Words are read as YAML 1.1 does (`yes` is a boolean), because profiles written for the system this one follows were read that way.
/// Refused are duplicate keys, more than one document, deep nesting and documents that grow when their aliases are expanded.
pub(super) fn read(file: &Path, bytes: &[u8]) -> Result<Map<String, Value>, ProfileError> {
    let problem = |problem: String| ProfileError::Yaml {
        file: file.to_owned(),
        problem,
    };
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
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(ProfileError::Limit {
            path: file.to_owned(),
            what: "the document is too large",
            limit: format!("{} KiB", MAX_DOCUMENT / 1024),
        });
    }
    // The parser takes no document for null, and so do we: a file of comments is a profile without settings.
    let value: Option<Value> = serde_saphyr::from_slice_with_options(bytes, options)
        .map_err(|error| problem(error.render_with_formatter(&UserMessageFormatter)))?;
    match value {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(map)) => Ok(map),
        Some(other) => Err(problem(format!(
            "a mapping of keys to values is expected, but it is {}",
            kind(&other)
        ))),
    }
}

/// A value's type, with its article and the value itself where it is short.
pub(super) fn kind(value: &Value) -> String {
    match value {
        Value::Null => "empty".to_owned(),
        Value::Bool(value) => format!("the boolean `{value}`"),
        Value::Number(number) => format!("the number `{number}`"),
        Value::String(text) if text.chars().count() <= 40 => {
            format!("the text `{}`", text.escape_debug())
        }
        Value::String(_) => "a text".to_owned(),
        Value::Array(items) if items.is_empty() => "an empty list".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Map<String, Value>, ProfileError> {
        read(Path::new("x.yml"), text.as_bytes())
    }

    #[test]
    fn documents_without_settings_are_empty_objects() {
        for text in ["", "# only a comment\n", "---\n", "null\n"] {
            assert!(parse(text).unwrap().is_empty(), "{text:?}");
        }
    }

    #[test]
    fn keys_keep_their_spelling_and_order() {
        let map = parse("zeta: 1\non: [pre-job]\nalpha: yes\n").unwrap();
        assert_eq!(map.keys().collect::<Vec<_>>(), ["zeta", "on", "alpha"]);
        assert_eq!(map.get("alpha"), Some(&Value::Bool(true)));
    }

    #[test]
    fn hostile_documents_are_refused() {
        let deep = format!("a: {}{}", "[".repeat(100), "]".repeat(100));
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for n in 1..9 {
            let refs = vec![format!("*a{}", n - 1); 9].join(", ");
            bomb.push_str(&format!("a{n}: &a{n} [{refs}]\n"));
        }
        let large = format!("a: {}", "x".repeat(300 * 1024));
        for text in [
            "a: 1\na: 2\n",
            "a: 1\n---\nb: 2\n",
            "- a\n",
            "just text",
            "a: [1",
            "a: \u{0}",
            &deep,
            &bomb,
            &large,
        ] {
            assert!(parse(text).is_err(), "{}", &text[..text.len().min(60)]);
        }
    }

    #[test]
    fn errors_name_the_file_and_the_line() {
        let message = parse("a: 1\nb: [\n").unwrap_err().to_string();
        assert!(
            message.starts_with("x.yml: ") && message.contains("line"),
            "{message}"
        );
        let message = parse("a: 1\na: 2\n").unwrap_err().to_string();
        assert!(
            message.contains("duplicate") && message.contains('a') && !message.contains("Options"),
            "{message}"
        );
    }
}
