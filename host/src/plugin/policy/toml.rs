//! Plain TOML: what the rules for JSON objects can be applied to, and nothing that they have no word for.

use serde_json::{Map, Number, Value};
use toml::Table;

/// Levels of lists and tables.
const MAX_DEPTH: usize = 64;

/// Bytes of one text.
const MAX_BYTES: usize = 1 << 20;

/// Parses one TOML text. Gives back its value as JSON has it, and the form that is written: the same without comments, each table
/// under its full name. That a key stands twice is an error in TOML itself.
///
/// # Errors
///
/// What is wrong and where, for what is no TOML, dates, numbers that are none, more than 64 levels or more than 1 MiB.
pub(super) fn parse(bytes: &[u8]) -> Result<(Value, String), String> {
    if bytes.len() > MAX_BYTES {
        return Err(format!(
            "it has {} bytes, at most {MAX_BYTES} are read",
            bytes.len()
        ));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    if text.starts_with('\u{feff}') {
        return Err("it starts with a byte order mark".to_owned());
    }
    let table: Table = toml::from_str(text).map_err(|error| error.to_string())?;
    let written = toml::to_string(&table).map_err(|error| error.to_string())?;
    Ok((object(table, 0)?, written))
}

fn object(table: Table, depth: usize) -> Result<Value, String> {
    let entries = table
        .into_iter()
        .map(|(key, item)| Ok((key, value(item, depth)?)));
    Ok(Value::Object(
        entries.collect::<Result<Map<_, _>, String>>()?,
    ))
}

fn value(item: toml::Value, depth: usize) -> Result<Value, String> {
    if depth >= MAX_DEPTH {
        return Err(format!("it has more than {MAX_DEPTH} levels"));
    }
    Ok(match item {
        toml::Value::String(text) => Value::String(text),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Boolean(flag) => flag.into(),
        toml::Value::Float(number) => Number::from_f64(number)
            .map(Value::Number)
            .ok_or_else(|| format!("{number} is no number"))?,
        toml::Value::Datetime(date) => return Err(format!("{date} is a date; write it as a text")),
        toml::Value::Array(items) => {
            let items = items.into_iter().map(|item| value(item, depth + 1));
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        toml::Value::Table(table) => object(table, depth + 1)?,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_the_rules_have_no_word_for_is_refused() {
        let deep = format!("a = {}{}", "[".repeat(70), "]".repeat(70));
        let tables = format!("[{}]\n", vec!["a"; 70].join("."));
        let bomb = format!("a = {}", "[".repeat(200_000));
        let large = format!("a = '{}'", "x".repeat(MAX_BYTES));
        for (text, says) in [
            ("a = ", "TOML"),
            ("a = 1\na = 2", "duplicate"),
            ("\"h\\u006foks\" = 1\nhooks = 2", "duplicate"),
            ("a = 2020-01-01", "date"),
            ("a = [{b = nan}]", "no number"),
            ("\u{feff}a = 1", "byte order mark"),
            (deep.as_str(), ""),
            (tables.as_str(), ""),
            (bomb.as_str(), ""),
            (large.as_str(), "at most"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(
                error.contains(says),
                "{}: {error}",
                text.get(..40).unwrap_or(text)
            );
        }
        assert!(parse(b"a = '\xff'").is_err());
    }

    #[test]
    fn the_written_form_means_the_same_without_comments() {
        let text = "# note\nz.y = 1\nx = [1, 2.5, true, {k = 'v'}]\n\"a b\" = \"\"\"two\nlines\"\"\"\n[z.w]\nq = 'r'\n";
        let (value, written) = parse(text.as_bytes()).unwrap();
        assert_eq!(
            value,
            serde_json::json!({"z": {"y": 1, "w": {"q": "r"}}, "x": [1, 2.5, true, {"k": "v"}], "a b": "two\nlines"})
        );
        assert!(!written.contains("note"), "{written}");
        assert_eq!(parse(written.as_bytes()).unwrap().0, value);
    }
}
