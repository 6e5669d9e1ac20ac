//! Reads a command line along the options of a document.
//!
//! Two readers of one command line may disagree about which word is a value. So a word that starts with a dash is always
//! looked at as an option too, and a word that no option takes needs a grant.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::document::{ArgumentRules, Document, OptionRule, Takes};
use super::objects::Walk;
use super::{Findings, json, text};
use crate::plugin::bindings::types::{Argument, Location, Place};
use crate::plugin::error::{Code, PluginError};
use crate::plugin::grants::Grant;
use crate::plugin::tree::CheckedTree;

/// The value of an option, or a word by itself.
#[derive(Clone, Copy)]
enum Word<'a> {
    Text(&'a str),
    Path(&'a Location),
    /// Text and a path in one, which only the program can take apart.
    Mixed,
}

/// What the reader expects next.
enum Expect<'a> {
    Option,
    Value {
        name: &'a str,
        rule: &'a OptionRule,
        rest: Takes,
    },
}

pub(super) fn inspect(
    document: &Document,
    arguments: &mut [Argument],
    tree: &mut CheckedTree,
    findings: &mut Findings,
) {
    let Some(rules) = &document.arguments else {
        return;
    };
    let mut reader = Reader {
        document,
        rules,
        tree,
        findings,
        seen: BTreeMap::new(),
        read: BTreeSet::new(),
    };
    let mut expect = Expect::Option;
    for argument in arguments {
        let (next, replaced) = reader.argument(expect, argument);
        if let Some(text) = replaced {
            *argument = Argument::Literal(text);
        }
        expect = next;
    }
    if let Expect::Value {
        name,
        rest: Takes::One,
        ..
    } = expect
    {
        reader
            .findings
            .malformed(format!("the argument `{name}` has no value"));
    }
    reader.required();
}

struct Reader<'a, 'f> {
    document: &'a Document,
    rules: &'a ArgumentRules,
    tree: &'f mut CheckedTree,
    findings: &'f mut Findings,
    /// The options that were there, with their last text.
    seen: BTreeMap<String, String>,
    /// The files that were read already, each with the rules it was read under.
    read: BTreeSet<(String, &'a str)>,
}

impl<'a> Reader<'a, '_> {
    /// Reads one argument. Gives back what comes next, and a text to put in the argument's place.
    fn argument(
        &mut self,
        expect: Expect<'a>,
        argument: &Argument,
    ) -> (Expect<'a>, Option<String>) {
        let (head, word) = match argument {
            Argument::Literal(text) => (text.as_str(), Word::Text(text)),
            Argument::Path(location) if location.prefix.is_empty() => ("", Word::Path(location)),
            Argument::Path(location) => (location.prefix.as_str(), Word::Mixed),
        };
        if head.starts_with('-') && head != "-" {
            if let Expect::Value {
                name,
                rest: Takes::One,
                ..
            } = expect
            {
                let message =
                    format!("the value of `{name}` starts with a dash; write `{name}=VALUE`");
                self.findings.malformed(message);
            }
            return self.option(argument, head);
        }
        match expect {
            Expect::Option => {
                self.positional(word);
                (Expect::Option, None)
            }
            Expect::Value { name, rule, rest } => {
                let replaced = self.value(name, rule, word);
                let next = match rest {
                    Takes::Many => Expect::Value { name, rule, rest },
                    _ => Expect::Option,
                };
                (next, replaced)
            }
        }
    }

    fn option(&mut self, argument: &Argument, head: &str) -> (Expect<'a>, Option<String>) {
        let (name, joined) = match head.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value)),
            _ => (head, None),
        };
        self.seen
            .insert(name.to_owned(), joined.unwrap_or_default().to_owned());
        let Some((name, rule)) = self.rules.options.get_key_value(name) else {
            let plain = text::line(name.trim_start_matches('-'), 100);
            let plain = if plain.is_empty() {
                "--".to_owned()
            } else {
                plain
            };
            let what = format!("the argument `{}`", text::line(name, 100));
            self.findings
                .need(Grant::new(self.rules.unknown, plain), what);
            return (Expect::Option, None);
        };
        if let Some(grant) = &rule.grant {
            self.findings
                .need(grant.clone(), format!("the argument `{name}`"));
        }
        let word = match (argument, joined) {
            (Argument::Literal(_), None) => None,
            (Argument::Literal(_), Some(value)) => Some(Word::Text(value)),
            (Argument::Path(location), Some("")) => Some(Word::Path(location)),
            (Argument::Path(_), _) => Some(Word::Mixed),
        };
        match (word, rule.takes) {
            (Some(_), Takes::None) => {
                self.findings
                    .malformed(format!("the argument `{name}` takes no value"));
                (Expect::Option, None)
            }
            (Some(word), Takes::Many) => {
                let replaced = self
                    .value(name, rule, word)
                    .map(|text| format!("{name}={text}"));
                (
                    Expect::Value {
                        name,
                        rule,
                        rest: Takes::Many,
                    },
                    replaced,
                )
            }
            (Some(word), _) => {
                let replaced = self
                    .value(name, rule, word)
                    .map(|text| format!("{name}={text}"));
                (Expect::Option, replaced)
            }
            (None, Takes::None) => (Expect::Option, None),
            (None, takes) => (
                Expect::Value {
                    name,
                    rule,
                    rest: takes,
                },
                None,
            ),
        }
    }

    fn positional(&mut self, word: Word<'_>) {
        let shown = match word {
            Word::Text(text) if self.rules.words.is_match(text) => return,
            Word::Text(text) => text::line(text, 60),
            Word::Path(location) => text::line(&location.path, 60),
            Word::Mixed => "...".to_owned(),
        };
        self.findings.need(
            self.rules.positional.clone(),
            format!("the argument `{shown}`"),
        );
    }

    /// Checks one value. Gives back its strict form where it is JSON.
    fn value(&mut self, name: &str, rule: &'a OptionRule, word: Word<'_>) -> Option<String> {
        if let Word::Text(text) = word {
            self.seen.insert(name.to_owned(), text.to_owned());
        }
        if let Some(values) = &rule.values {
            self.listed(name, values, word);
        }
        if let Some(places) = &rule.places {
            let inside =
                matches!(word, Word::Path(location) if places.iter().any(|p| p.is(location.place)));
            if !inside {
                self.findings.malformed(format!(
                    "the argument `{name}` must be a path in a place of the job"
                ));
            }
        }
        let rules = rule.rules.as_deref()?;
        match word {
            Word::Text(text) => self.inline(name, rules, text),
            Word::Path(location) if location.place == Place::ConfigDir => {
                self.file(name, rules, &location.path);
                None
            }
            Word::Path(_) | Word::Mixed => {
                self.findings.malformed(format!(
                    "the argument `{name}` must be JSON, or a file that the plan writes"
                ));
                None
            }
        }
    }

    fn listed(&mut self, name: &str, values: &BTreeMap<String, Option<Grant>>, word: Word<'_>) {
        let Word::Text(text) = word else {
            self.findings
                .malformed(format!("the argument `{name}` must not be a path"));
            return;
        };
        for item in text.split(',').map(str::trim) {
            if let Some(Some(grant)) = values.get(item).or_else(|| values.get("*")) {
                let what = format!("the argument `{name}={}`", text::line(item, 80));
                self.findings.need(grant.clone(), what);
            }
        }
    }

    fn inline(&mut self, name: &str, rules: &str, text: &str) -> Option<String> {
        let value = match json::parse(text.as_bytes()) {
            Ok(value @ Value::Object(_)) => value,
            Ok(_) => {
                self.findings
                    .malformed(format!("the argument `{name}` must be a JSON object"));
                return None;
            }
            Err(error) => {
                let error = text::line(&error, 300);
                let message = format!(
                    "the argument `{name}` is neither strict JSON ({error}) nor a path in the config directory"
                );
                self.findings.fail(PluginError::new(Code::Json, message));
                return None;
            }
        };
        let origin = format!("the argument `{name}`");
        Walk {
            document: self.document,
            origin,
            findings: self.findings,
        }
        .apply(rules, &value);
        Some(value.to_string())
    }

    /// A file that an option names is read under the option's rules, whatever rules its path has.
    fn file(&mut self, name: &str, rules: &'a str, path: &str) {
        if !self.read.insert((path.to_owned(), rules)) {
            return;
        }
        let Some(file) = self
            .tree
            .files_mut()
            .iter_mut()
            .find(|file| file.path == path)
        else {
            self.findings.malformed(format!(
                "the argument `{name}` names `{path}`, which the plan does not write"
            ));
            return;
        };
        let origin = format!("the file `{path}`");
        let read = super::strict_json(file, &origin, self.findings);
        super::walk(self.document, Some(rules), read, origin, self.findings);
    }

    fn required(&mut self) {
        for required in &self.rules.required {
            let given = self.seen.get(&required.option);
            let right = given
                .is_some_and(|given| required.value.as_ref().is_none_or(|value| value == given));
            if !right {
                let value = required
                    .value
                    .as_ref()
                    .map(|value| format!("={value}"))
                    .unwrap_or_default();
                let what = format!("leaving out the argument `{}{value}`", required.option);
                self.findings.need(required.grant.clone(), what);
            }
        }
    }
}
