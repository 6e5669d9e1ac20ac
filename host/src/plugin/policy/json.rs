//! Strict JSON: what two parsers could read in two ways is refused, so that the agent reads what was checked.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Levels of arrays and objects.
const MAX_DEPTH: usize = 64;

/// Bytes of one text. Its values take up to 32 times as much memory, and no settings file comes near.
const MAX_BYTES: usize = 1 << 20;

/// Parses one JSON text.
///
/// # Errors
///
/// What is wrong and where, for duplicate keys, comments, a byte order mark, trailing text, invalid UTF-8, more than 64
/// levels or more than 1 MiB.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, String> {
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err("it starts with a byte order mark".to_owned());
    }
    if bytes.len() > MAX_BYTES {
        return Err(format!(
            "it has {} bytes, at most {MAX_BYTES} are read",
            bytes.len()
        ));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth: 0 }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| error.to_string())?;
    Ok(value)
}

/// The form that is written: as the tools of agents write it, indented, with a line end.
pub(super) fn print(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        if self.depth >= MAX_DEPTH {
            return Err(E::custom(format!("it has more than {MAX_DEPTH} levels")));
        }
        Ok(Self {
            depth: self.depth + 1,
        })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("a number is too large"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            array.push(item);
        }
        Ok(array.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if object.contains_key(&key) {
                let key = super::text::line(&key, 80);
                return Err(A::Error::custom(format!("the key `{key}` is there twice")));
            }
            let value = entries.next_value_seed(inner)?;
            object.insert(key, value);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_parsers_disagree_about_is_refused() {
        let deep = "[".repeat(65) + &"]".repeat(65);
        let large = format!("[{}1]", "1,".repeat(600_000));
        let cases = [
            (r#"{"a": 1, "a": 2}"#, "twice"),
            (r#"{"x": {"hooks": 1, "h\u006foks": 2}}"#, "twice"),
            ("{} // no", "trailing"),
            ("/* no */ {}", "expected value"),
            ("\u{feff}{}", "byte order mark"),
            ("{}{}", "trailing"),
            (r#"{"a": 1,}"#, "trailing comma"),
            ("{'a': 1}", "key must be a string"),
            ("NaN", "expected"),
            (r#"{"a": 1e999}"#, "number out of range"),
            (r#""\ud800""#, "hex escape"),
            (deep.as_str(), "64 levels"),
            ("", "EOF"),
            (large.as_str(), "at most 1048576"),
        ];
        for (text, wrong) in cases {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(wrong), "{text}: {error}");
        }
        assert!(parse(b"{\"a\": \"\xff\"}").is_err());
    }

    #[test]
    fn strict_text_keeps_its_meaning_and_order() {
        let text = r#"{"b": [1, -2, 2.5, null, true], "a": {"c": "\u00e9"}}"#;
        let value = parse(text.as_bytes()).unwrap();
        assert_eq!(value, serde_json::from_str::<Value>(text).unwrap());
        assert_eq!(parse(&print(&value)).unwrap(), value);
        assert_eq!(
            value.as_object().unwrap().keys().collect::<Vec<_>>(),
            ["b", "a"]
        );
        assert!(parse(("[".repeat(64) + &"]".repeat(64)).as_bytes()).is_ok());
    }
}
