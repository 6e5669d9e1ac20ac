//! The JSON Schema of `plugin.config`: the same keys as under `claude:`, and the nearest to the job.

use agenticore_plugin::{one_of, schema, with_profile_keys};
use serde_json::{Value, json};

use crate::settings::{EFFORTS, OUTPUT_FORMATS, PERMISSION_MODES, PROFILE_KEYS, SOURCES};

/// The schema.
pub(crate) fn config() -> Value {
    let text = json!({"type": ["string", "null"]});
    let boolean = json!({"type": ["boolean", "null"]});
    let count = json!({"type": ["integer", "null"], "minimum": 1, "maximum": u32::MAX});
    let list = json!({"type": ["array", "null"], "items": {"type": "string"}});
    let schema = schema(json!({
            "model": text,
            "max_turns": count,
            "permission_mode": one_of(&PERMISSION_MODES),
            "no_session_persistence": boolean,
            "output_format": one_of(&OUTPUT_FORMATS),
            "worktree": boolean,
            "effort": one_of(&EFFORTS),
            "timeout": count,
            "max_budget_usd": {"type": ["number", "null"], "exclusiveMinimum": 0},
            "fallback_model": text,
            "append_prompt": text,
            "allowed_tools": list,
            "disallowed_tools": list,
            "setting_sources": {"type": ["array", "null"], "items": {"enum": SOURCES}},
            "trust_repository": boolean,
            "env": {"type": ["object", "null"], "additionalProperties": {"type": ["string", "number", "boolean"]}},
            "secrets": list,
    }));
    with_profile_keys(schema, &PROFILE_KEYS)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::settings::KEYS;

    #[test]
    fn the_page_of_profiles_has_every_key() {
        let page = include_str!("../../../docs/profiles.md");
        let (_, own) = page.split_once("## Keys that `claude-code` reads").unwrap();
        let (own, _) = own.split_once("\n## ").unwrap();
        for key in KEYS {
            assert!(own.contains(&format!("`{key}`")), "{key} is missing");
        }
    }

    #[test]
    fn the_schema_has_every_key_and_no_other() {
        let schema = config();
        let properties: Vec<_> = schema
            .pointer("/properties")
            .unwrap()
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        assert_eq!(properties, KEYS);
    }
}
