//! Walks JSON objects along the rules of a document and notes what needs a grant.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::document::{Document, KeyRule, ObjectRules};
use super::{Findings, MAX_NEEDS, env, text};
use crate::plugin::grants::{Grant, GrantKind};

/// How deep rules may refer to rules; documents are data, and one that refers to itself must not end the server.
const MAX_DEPTH: usize = 64;

/// A walk over one JSON text; `origin` names it in the findings.
pub(super) struct Walk<'a> {
    pub(super) document: &'a Document,
    pub(super) origin: String,
    pub(super) findings: &'a mut Findings,
}

impl Walk<'_> {
    /// Applies the rules of that name to a value. Rules are for objects; the agent ignores or refuses anything else at
    /// such a place, and so does the host.
    pub(super) fn apply(&mut self, rules: &str, value: &Value) {
        self.walk(rules, value, "", 0);
    }

    fn walk(&mut self, name: &str, value: &Value, at: &str, depth: usize) {
        let Some(rules) = self.document.objects.get(name) else {
            return;
        };
        let Some(object) = value.as_object() else {
            if !is_silent(value) {
                self.findings
                    .malformed(format!("{}{} must be an object", self.origin, at_key(at)));
            }
            return;
        };
        if depth > MAX_DEPTH {
            self.findings
                .malformed(format!("{} is nested too deeply", self.origin));
            return;
        }
        for (key, value) in object {
            let at = if at.is_empty() {
                key.clone()
            } else {
                format!("{at}.{key}")
            };
            self.key(rules, key, value, &text::line(&at, 200), depth);
        }
        if rules.expands {
            self.expansions(object, at);
        }
    }

    fn key(&mut self, rules: &ObjectRules, key: &str, value: &Value, at: &str, depth: usize) {
        let rule = rules.keys.get(key).or_else(|| {
            let known = rules.known.iter().any(|known| known == key);
            if known { None } else { rules.keys.get("*") }
        });
        if is_silent(value) && !rule.is_some_and(|rule| rule.always) {
            return;
        }
        match rule {
            Some(rule) => self.ruled(rule, value, at, depth),
            None if rules.known.iter().any(|known| known == key) => {}
            None => {
                if let Some(kind) = rules.unknown {
                    self.need(Grant::new(kind, text::line(key, 100)), at);
                }
            }
        }
    }

    fn ruled(&mut self, rule: &KeyRule, value: &Value, at: &str, depth: usize) {
        if let Some(grant) = &rule.grant {
            self.need(grant.clone(), at);
        }
        if let Some(values) = &rule.values {
            for word in words(value) {
                if let Some(Some(grant)) = values.get(&word).or_else(|| values.get("*")) {
                    self.need(grant.clone(), &format!("{at}={}", text::line(&word, 80)));
                }
            }
        }
        if rule.env {
            self.env(value, at);
        }
        if let Some(rules) = &rule.rules {
            self.walk(rules, value, at, depth + 1);
        }
        if let Some(rules) = &rule.each {
            self.each(rules, value, at, depth + 1);
        }
    }

    fn each(&mut self, rules: &str, value: &Value, at: &str, depth: usize) {
        match value {
            Value::Object(object) => {
                for (key, value) in object {
                    let key = text::line(key, 80);
                    self.walk(rules, value, &format!("{at}.{key}"), depth);
                }
            }
            Value::Array(items) => {
                for (index, value) in items.iter().enumerate() {
                    self.walk(rules, value, &format!("{at}[{index}]"), depth);
                }
            }
            _ => self
                .findings
                .malformed(format!("{} must hold objects", self.place(at))),
        }
    }

    fn env(&mut self, value: &Value, at: &str) {
        let Some(object) = value.as_object() else {
            self.findings
                .malformed(format!("{} must be an object", self.place(at)));
            return;
        };
        for name in object.keys() {
            let shown = text::line(name, 80);
            if !env::is_name(name) {
                self.findings.malformed(format!(
                    "{}.{shown} is not the name of a variable",
                    self.place(at)
                ));
            } else if env::is_guarded(name, Some(&self.document.env)) {
                self.need(Grant::new(GrantKind::Env, name), &format!("{at}.{shown}"));
            }
        }
    }

    /// Notes the variables that strings at any depth expand.
    fn expansions(&mut self, object: &Map<String, Value>, at: &str) {
        let mut names = BTreeSet::new();
        object
            .values()
            .for_each(|value| strings(value, &mut |s| expanded(s, &mut names)));
        for name in names {
            let place = self.place(at);
            self.findings.expansion(name, place);
        }
    }

    fn need(&mut self, grant: Grant, at: &str) {
        let place = self.place(at);
        self.findings.need(grant, place);
    }

    fn place(&self, at: &str) -> String {
        format!("{}{}", self.origin, at_key(at))
    }
}

fn at_key(at: &str) -> String {
    if at.is_empty() {
        String::new()
    } else {
        format!(": `{at}`")
    }
}

/// Whether a value turns nothing on.
fn is_silent(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(object) => object.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

/// The values that a rule with `values` looks at.
fn words(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().flat_map(words).collect(),
        other => vec![other.to_string()],
    }
}

fn strings<'a>(value: &'a Value, found: &mut impl FnMut(&'a str)) {
    match value {
        Value::String(text) => found(text),
        Value::Array(items) => items.iter().for_each(|item| strings(item, found)),
        Value::Object(object) => object.iter().for_each(|(key, item)| {
            found(key);
            strings(item, found);
        }),
        _ => {}
    }
}

/// The names in `${NAME}`, `${NAME:-default}` and `$NAME`, the last because agents differ.
fn expanded(text: &str, names: &mut BTreeSet<String>) {
    for part in text.split('$').skip(1) {
        let part = part.strip_prefix('{').unwrap_or(part);
        let name: String = part
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect();
        // One more than are allowed is enough to refuse them all.
        if env::is_name(&name) && names.len() <= MAX_NEEDS {
            names.insert(name);
        }
    }
}
