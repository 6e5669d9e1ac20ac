//! The form of a policy document, `policies/NAME.yml`: what of one agent program needs which grant.

use std::collections::BTreeMap;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde::{Deserialize, Deserializer, de};

use super::super::bindings::types::Place;
use super::super::grants::{Grant, GrantKind};

/// One document.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Document {
    /// The names of the program.
    pub(super) programs: Vec<String>,
    /// Files below the config directory, looked through in this order; the first that matches decides.
    #[serde(default)]
    pub(super) files: Vec<FileRule>,
    /// Rules for JSON objects, by a name that files, arguments and other rules refer to.
    #[serde(default)]
    pub(super) objects: BTreeMap<String, ObjectRules>,
    /// The command line; none: every argument is free.
    #[serde(default)]
    pub(super) arguments: Option<ArgumentRules>,
    /// Environment variables beyond those that are guarded for every program.
    #[serde(default)]
    pub(super) env: EnvRules,
}

/// What files of some paths are.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct FileRule {
    /// Globs over paths, without regard to case; `*` stays within one name.
    pub(super) paths: Globs,
    /// How to read them; none: they are not read.
    #[serde(default)]
    pub(super) format: Option<Format>,
    /// The rules for their top level.
    #[serde(default)]
    pub(super) rules: Option<String>,
    /// The grant that writing them needs.
    #[serde(default)]
    pub(super) grant: Option<Grant>,
}

/// How a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Format {
    /// Strict JSON, written in its re-serialized form.
    Json,
    /// TOML without dates, written in its re-serialized form.
    Toml,
    /// Text that may start with YAML between two lines `---`.
    FrontMatter,
}

/// Which keys of an object need which grant. Values that say nothing (`null`, `false`, empty) need none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ObjectRules {
    /// Keys that need no grant.
    #[serde(default)]
    pub(super) known: Vec<String>,
    /// Keys with a rule; `*` is for all others.
    #[serde(default)]
    pub(super) keys: BTreeMap<String, KeyRule>,
    /// The kind of grant that a key needs which is neither known nor has a rule; its name is the key. None: it is free.
    #[serde(default)]
    pub(super) unknown: Option<GrantKind>,
    /// Whether `${NAME}` in strings below is replaced by the variable's value, which then needs the grant
    /// `secrets:NAME` or `env:NAME` unless the plan sets the variable to a text of its own.
    #[serde(default)]
    pub(super) expands: bool,
}

/// What one key needs: all that is set applies.
#[derive(Debug, Default)]
pub(super) struct KeyRule {
    pub(super) grant: Option<Grant>,
    pub(super) values: Option<BTreeMap<String, Option<Grant>>>,
    pub(super) env: bool,
    pub(super) rules: Option<String>,
    pub(super) each: Option<String>,
    pub(super) always: bool,
}

impl<'de> Deserialize<'de> for KeyRule {
    /// A text is short for `{grant: TEXT}`.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case")]
        struct Long {
            #[serde(default)]
            grant: Option<Grant>,
            /// The grant for a value, or `~` for none; `*` is for all other values.
            #[serde(default)]
            values: Option<BTreeMap<String, Option<Grant>>>,
            /// The value is an object of environment variables.
            #[serde(default)]
            env: bool,
            /// The rules for the value.
            #[serde(default)]
            rules: Option<String>,
            /// The rules for each value in the value.
            #[serde(default)]
            each: Option<String>,
            /// Also for values that say nothing.
            #[serde(default)]
            always: bool,
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Short(Grant),
            Long(Long),
        }
        Ok(match Form::deserialize(deserializer)? {
            Form::Short(grant) => Self {
                grant: Some(grant),
                ..Self::default()
            },
            Form::Long(Long {
                grant,
                values,
                env,
                rules,
                each,
                always,
            }) => Self {
                grant,
                values,
                env,
                rules,
                each,
                always,
            },
        })
    }
}

/// The options of a command line.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ArgumentRules {
    /// The kind of grant for an option that is not listed; its name is the option's, without dashes.
    pub(super) unknown: GrantKind,
    /// The grant for an argument that is neither an option nor the value of one.
    pub(super) positional: Grant,
    /// Globs over such arguments that need none, such as the names of subcommands.
    #[serde(default)]
    pub(super) words: Globs,
    /// The options.
    pub(super) options: BTreeMap<String, OptionRule>,
    /// Options whose absence needs a grant.
    #[serde(default)]
    pub(super) required: Vec<RequiredOption>,
}

/// One option.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct OptionRule {
    /// How many values follow.
    pub(super) takes: Takes,
    /// The grant that it needs.
    pub(super) grant: Option<Grant>,
    /// The grant that a value needs, or `~` for none; `*` is for all others. Values may be lists with commas.
    pub(super) values: Option<BTreeMap<String, Option<Grant>>>,
    /// The value is JSON or the path of a JSON file that the plan writes, under these rules.
    pub(super) rules: Option<String>,
    /// The value is a path, which must be in one of these places.
    pub(super) places: Option<Vec<PlaceName>>,
}

/// How many values an option has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Takes {
    /// It has no value.
    #[default]
    None,
    /// It has one.
    One,
    /// It has one or none.
    Optional,
    /// It has all that follow up to the next option.
    Many,
}

/// An option that must be there.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RequiredOption {
    pub(super) option: String,
    /// Where set, its value must be this one.
    #[serde(default)]
    pub(super) value: Option<String>,
    /// The grant for leaving it out.
    pub(super) grant: Grant,
}

/// The name of a place, as in `wit/types.wit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum PlaceName {
    #[serde(rename = "config-dir")]
    Config,
    #[serde(rename = "work-dir")]
    Work,
    #[serde(rename = "temp-dir")]
    Temp,
}

impl PlaceName {
    pub(super) fn is(self, place: Place) -> bool {
        matches!(
            (self, place),
            (Self::Config, Place::ConfigDir)
                | (Self::Work, Place::WorkDir)
                | (Self::Temp, Place::TempDir)
        )
    }
}

/// Variables of one program.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct EnvRules {
    /// Globs over names that need the grant `env:NAME`.
    #[serde(deserialize_with = "globs_of_names")]
    pub(super) guarded: Globs,
    /// Globs over names that match the globs above and need none.
    #[serde(deserialize_with = "globs_of_names")]
    pub(super) free: Globs,
}

/// A set of globs without regard to the case of ASCII letters.
#[derive(Clone, Debug, Default)]
pub(super) struct Globs(GlobSet);

impl Globs {
    pub(super) fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text.to_ascii_lowercase())
    }

    /// Globs over paths: `*` stays within one name.
    pub(super) fn new<'a>(
        patterns: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, globset::Error> {
        Self::built(patterns, true)
    }

    /// Globs over names that are no paths, which are matched without any regular expression where the pattern is simple.
    pub(super) fn of_names<'a>(
        patterns: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, globset::Error> {
        Self::built(patterns, false)
    }

    fn built<'a>(
        patterns: impl IntoIterator<Item = &'a str>,
        are_paths: bool,
    ) -> Result<Self, globset::Error> {
        let mut set = GlobSetBuilder::new();
        for pattern in patterns {
            set.add(
                GlobBuilder::new(&pattern.to_ascii_lowercase())
                    .literal_separator(are_paths)
                    .build()?,
            );
        }
        Ok(Self(set.build()?))
    }
}

impl<'de> Deserialize<'de> for Globs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let patterns = Vec::<String>::deserialize(deserializer)?;
        Self::new(patterns.iter().map(String::as_str)).map_err(de::Error::custom)
    }
}

fn globs_of_names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Globs, D::Error> {
    let patterns = Vec::<String>::deserialize(deserializer)?;
    Globs::of_names(patterns.iter().map(String::as_str)).map_err(de::Error::custom)
}

impl Document {
    /// The names of rules that something refers to and that are not there.
    pub(super) fn dangling(&self) -> Vec<&str> {
        let files = self.files.iter().filter_map(|file| file.rules.as_deref());
        let keys = self
            .objects
            .values()
            .flat_map(|object| object.keys.values());
        let keys = keys.flat_map(|key| key.rules.as_deref().into_iter().chain(key.each.as_deref()));
        let options = self
            .arguments
            .iter()
            .flat_map(|arguments| arguments.options.values());
        let options = options.filter_map(|option| option.rules.as_deref());
        files
            .chain(keys)
            .chain(options)
            .filter(|name| !self.objects.contains_key(*name))
            .collect()
    }
}
