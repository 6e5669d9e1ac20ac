//! Merges the JSON files of a chain: rules and hooks add up, of everything else the child's is in force.

use serde_json::{Map, Value};

use crate::settings::add;

/// Lists below `permissions` that add up along a chain.
pub(super) const ADDED_UP: [&str; 4] = ["deny", "ask", "allow", "additionalDirectories"];

/// Merges a child's settings over its parent's.
pub(super) fn settings(
    parent: Map<String, Value>,
    child: Map<String, Value>,
) -> Map<String, Value> {
    merge(parent, child, &mut |path, parent, child| match path {
        ["permissions", list] if ADDED_UP.contains(list) => append(parent, child),
        ["hooks", _event] => append(parent, child),
        // A server that a parent turned off stays off.
        ["disabledMcpjsonServers" | "deniedMcpServers"] => append(parent, child),
        _ => child,
    })
}

/// Merges a child's MCP file over its parent's: a server of the same name is the child's, whole.
pub(super) fn servers(
    parent: Map<String, Value>,
    mut child: Map<String, Value>,
) -> Map<String, Value> {
    let mut merged = parent;
    if let (Some(Value::Object(all)), Some(Value::Object(own))) =
        (merged.get_mut("mcpServers"), child.get_mut("mcpServers"))
    {
        all.extend(std::mem::take(own));
        child.remove("mcpServers");
    }
    merged.extend(child);
    merged
}

/// Merges mappings key by key; `leaf` settles what is no mapping on both sides.
fn merge(
    parent: Map<String, Value>,
    child: Map<String, Value>,
    leaf: &mut dyn FnMut(&[&str], Value, Value) -> Value,
) -> Map<String, Value> {
    fn go(
        path: &[&str],
        mut parent: Map<String, Value>,
        child: Map<String, Value>,
        leaf: &mut dyn FnMut(&[&str], Value, Value) -> Value,
    ) -> Map<String, Value> {
        for (key, value) in child {
            let path = [path, &[key.as_str()]].concat();
            let merged = match (parent.get_mut(&key).map(Value::take), value) {
                (None, value) => value,
                (Some(Value::Object(a)), Value::Object(b)) => Value::Object(go(&path, a, b, leaf)),
                (Some(a), b) => leaf(&path, a, b),
            };
            drop(path);
            parent.insert(key, merged);
        }
        parent
    }
    go(&[], parent, child, leaf)
}

fn append(parent: Value, child: Value) -> Value {
    match (parent, child) {
        (Value::Array(mut list), Value::Array(more)) => {
            add(&mut list, more);
            Value::Array(list)
        }
        (_, child) => child,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Settings with and without the keys that are special.
    fn any_settings() -> impl Strategy<Value = Map<String, Value>> {
        let rules = || prop::collection::vec("[a-d]", 0..4).prop_map(|rules| json!(rules));
        let permissions = prop::collection::btree_map(
            prop::sample::select(vec!["deny", "ask", "allow"]),
            rules(),
            0..4,
        );
        let hooks = prop::collection::btree_map("[AB]", rules(), 0..3);
        let other = prop::collection::btree_map("[xyz]", any::<bool>(), 0..3);
        (permissions, hooks, other, any::<Option<bool>>()).prop_map(
            |(permissions, hooks, other, top)| {
                let mut map = Map::new();
                map.insert("permissions".to_owned(), json!(permissions));
                map.insert("hooks".to_owned(), json!(hooks));
                map.insert("other".to_owned(), json!(other));
                map.extend(top.map(|top| ("top".to_owned(), json!(top))));
                map
            },
        )
    }

    fn list(settings: &Map<String, Value>, pointer: &str) -> Vec<Value> {
        let value = Value::Object(settings.clone());
        value
            .pointer(pointer)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    }

    proptest! {
        #[test]
        fn no_rule_and_no_hook_is_ever_lost(a in any_settings(), b in any_settings(), c in any_settings()) {
            let merged = settings(settings(a.clone(), b.clone()), c.clone());
            for pointer in ["/permissions/deny", "/permissions/ask", "/permissions/allow", "/hooks/A", "/hooks/B"] {
                let all = list(&merged, pointer);
                for rule in [&a, &b, &c].into_iter().flat_map(|layer| list(layer, pointer)) {
                    prop_assert!(all.contains(&rule), "{} lost {}", pointer, rule);
                }
            }
        }

        #[test]
        fn everything_else_is_the_nearest_layers(a in any_settings(), b in any_settings()) {
            let merged = Value::Object(settings(a.clone(), b.clone()));
            for pointer in ["/top", "/other/x", "/other/y", "/other/z"] {
                let [a, b] = [&a, &b].map(|layer| Value::Object(layer.clone()).pointer(pointer).cloned());
                prop_assert_eq!(merged.pointer(pointer).cloned(), b.or(a));
            }
        }

        #[test]
        fn merging_is_associative_and_an_empty_layer_changes_nothing(a in any_settings(), b in any_settings(), c in any_settings()) {
            let left = settings(settings(a.clone(), b.clone()), c.clone());
            let right = settings(a.clone(), settings(b, c));
            prop_assert_eq!(left, right);
            // A layer's own repetitions go when something is laid over it, and nothing else does.
            prop_assert_eq!(&settings(a.clone(), Map::new()), &a);
            prop_assert_eq!(&settings(Map::new(), a.clone()), &a);
        }
    }

    #[test]
    fn servers_merge_by_name_and_each_is_one_layers() {
        let object = |value: Value| value.as_object().unwrap().clone();
        let parent = object(
            json!({"mcpServers": {"a": {"command": "x", "args": ["1"]}, "b": {"command": "y"}}, "k": 1}),
        );
        let child = object(
            json!({"mcpServers": {"a": {"type": "http", "url": "u"}, "c": {"command": "z"}}}),
        );
        let merged = Value::Object(servers(parent, child));
        let expected = json!({"mcpServers": {"a": {"type": "http", "url": "u"}, "b": {"command": "y"}, "c": {"command": "z"}}, "k": 1});
        assert_eq!(merged, expected);
    }
}
