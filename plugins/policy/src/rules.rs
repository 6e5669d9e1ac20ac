//! Lists of patterns, and what they say of a value.

use serde::Deserialize;
use wildmatch::WildMatch;

/// Letters of a value that a reason repeats.
const SHOWN: usize = 80;

/// What is allowed and what is denied; `deny` wins.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Rules {
    /// None: everything is.
    allow: Option<Vec<String>>,
    deny: Vec<String>,
}

impl Rules {
    /// Judges `value`, which people know as `what` and the configuration as `list`. A value that is not set matches no pattern.
    ///
    /// # Errors
    /// The reason to refuse it.
    pub(crate) fn judge(&self, list: &str, what: &str, value: Option<&str>) -> Result<(), String> {
        let matches = |pattern: &&String| value.is_some_and(|value| is_match(pattern, value));
        if let (Some(pattern), Some(value)) = (self.deny.iter().find(matches), value) {
            let value = shown(value);
            return Err(format!(
                "{what} `{value}` is denied: it matches `{pattern}` of `{list}.deny`"
            ));
        }
        let Some(allow) = &self.allow else {
            return Ok(());
        };
        if allow.iter().any(|pattern| matches(&pattern)) {
            return Ok(());
        }
        let allowed = if allow.is_empty() {
            "empty".to_owned()
        } else {
            allow.join(", ")
        };
        Err(match value {
            Some(value) => format!(
                "{what} `{}` is not among the allowed ones; `{list}.allow` is {allowed}",
                shown(value)
            ),
            None => format!("{what} is not set, and `{list}.allow` is {allowed}"),
        })
    }
}

fn is_match(pattern: &str, value: &str) -> bool {
    WildMatch::new(&pattern.to_lowercase()).matches(&value.to_lowercase())
}

/// The first line of a value, cut short.
fn shown(value: &str) -> String {
    let line = value.lines().next().unwrap_or_default();
    if line.chars().count() <= SHOWN && line.len() == value.len() {
        return line.to_owned();
    }
    format!("{}...", line.chars().take(SHOWN).collect::<String>())
}
