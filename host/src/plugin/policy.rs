//! What a plan would make the agent do, and which grants that needs.
//!
//! The host knows no agent: what is dangerous about one is data, a document `policies/NAME.yml` for each program. This
//! module reads the files, arguments and variables of a plan along such a document, puts strict JSON in the place of what
//! it read, and refuses the plan if a grant is missing. A program without a document is an unknown: it needs the operator
//! to name that very program.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use self::document::{Document, FileRule, Format};
use self::front_matter::FrontMatter;
use self::objects::Walk;
use super::bindings::types::{Argument, EnvValue, EnvVar};
use super::error::{Code, PluginError};
use super::grants::{EffectiveGrants, Grant, GrantKind};
use super::text;
use super::tree::{CheckedTree, Origin, TreeFile};

mod arguments;
mod document;
pub(super) mod env;
mod front_matter;
mod json;
mod objects;
mod toml;

/// The policy documents, by program.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    programs: HashMap<String, Arc<Document>>,
}

impl Policies {
    /// Reads documents, each a name for errors and its YAML text.
    ///
    /// # Errors
    ///
    /// [`Code::Policy`] naming the document, where one is not valid or two are for the same program.
    pub fn parse(documents: &[(&str, &str)]) -> Result<Self, PluginError> {
        let mut programs = HashMap::new();
        for (name, yaml) in documents {
            let wrong = |what: String| {
                PluginError::new(Code::Policy, format!("the policy document {name} {what}"))
            };
            let document: Document = serde_saphyr::from_str(yaml)
                .map_err(|error| wrong(format!("is not valid: {error}")))?;
            if let Some(missing) = document.dangling().first() {
                return Err(wrong(format!(
                    "refers to the rules `{missing}`, which it does not have"
                )));
            }
            let document = Arc::new(document);
            for program in &document.programs {
                if programs
                    .insert(program.clone(), Arc::clone(&document))
                    .is_some()
                {
                    return Err(wrong(format!(
                        "is the second one for the program `{program}`"
                    )));
                }
            }
        }
        Ok(Self { programs })
    }

    /// The documents that are part of this binary.
    ///
    /// # Errors
    ///
    /// As for [`Self::parse`].
    pub fn bundled() -> Result<Self, PluginError> {
        let text =
            |file: &crate::bundled::File| str::from_utf8(file.bytes).map(|text| (file.path, text));
        let documents: Result<Vec<_>, _> = crate::bundled::policies().iter().map(text).collect();
        let documents = documents.map_err(|error| {
            PluginError::new(
                Code::Policy,
                format!("a policy document is not text: {error}"),
            )
        })?;
        Self::parse(&documents)
    }

    /// The programs that the documents are about.
    pub fn programs(&self) -> impl Iterator<Item = &str> {
        self.programs.keys().map(String::as_str)
    }

    fn of(&self, program: &str) -> Option<&Document> {
        let name = program.rsplit('/').next().unwrap_or(program);
        self.programs.get(name).map(Arc::as_ref)
    }

    /// Checks all of a plan under the grants of the plugin that made it.
    pub(super) fn inspect(
        &self,
        program: &str,
        tree: &mut CheckedTree,
        arguments: &mut [Argument],
        env: &[EnvVar],
        grants: &EffectiveGrants,
    ) -> Result<(), PluginError> {
        let document = self.of(program);
        let mut findings = Findings::default();
        program_grant(program, document, grants, &mut findings);
        inspect_files(document, tree.files_mut(), &mut findings);
        if let Some(document) = document {
            arguments::inspect(document, arguments, tree, &mut findings);
        }
        inspect_env(document, env, &mut findings);
        findings.settle(env, grants)
    }

    /// Checks what a hook adds to a plan, under the grants of the hook.
    pub(super) fn inspect_patch(
        &self,
        program: &str,
        added: &mut CheckedTree,
        env: &[EnvVar],
        all_env: &[EnvVar],
        grants: &EffectiveGrants,
    ) -> Result<(), PluginError> {
        let document = self.of(program);
        let mut findings = Findings::default();
        inspect_files(document, added.files_mut(), &mut findings);
        inspect_env(document, env, &mut findings);
        findings.settle(all_env, grants)
    }
}

/// What was found on the way through a plan.
///
/// Each grant is noted once, with the first thing that needs it, and no more than a plan for people can need: a plan must
/// not make the host remember megabytes.
#[derive(Debug, Default)]
pub(super) struct Findings {
    needs: BTreeMap<Grant, String>,
    /// As `needs`, for programs that the operator must name.
    exact: BTreeMap<Grant, String>,
    expansions: BTreeMap<String, String>,
    error: Option<PluginError>,
}

/// Grants and expanded variables that one plan may need.
const MAX_NEEDS: usize = 500;

impl Findings {
    fn need(&mut self, grant: Grant, what: String) {
        self.needs.entry(grant).or_insert(what);
        self.bound();
    }

    fn expansion(&mut self, variable: String, what: String) {
        self.expansions.entry(variable).or_insert(what);
        self.bound();
    }

    fn bound(&mut self) {
        if self.needs.len() > MAX_NEEDS || self.expansions.len() > MAX_NEEDS {
            self.malformed(format!("the plan needs more than {MAX_NEEDS} grants"));
            self.needs.clear();
            self.expansions.clear();
        }
    }

    fn malformed(&mut self, message: String) {
        self.fail(PluginError::new(Code::Policy, message));
    }

    fn fail(&mut self, error: PluginError) {
        self.error.get_or_insert(error);
    }

    fn settle(self, env: &[EnvVar], grants: &EffectiveGrants) -> Result<(), PluginError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let mut missing: Vec<_> = self.needs.into_iter().collect();
        missing.retain(|(grant, _)| !grants.allows(grant));
        missing.extend(
            self.exact
                .into_iter()
                .filter(|(grant, _)| !grants.allows_exactly(grant)),
        );
        for (variable, what) in self.expansions {
            let own = env.iter().any(|v| {
                v.name == variable && matches!(v.value, EnvValue::Literal(_) | EnvValue::Path(_))
            });
            let secret = Grant::new(GrantKind::Secrets, &variable);
            if !own
                && !grants.allows(&secret)
                && !grants.allows(&Grant::new(GrantKind::Env, &variable))
            {
                missing.push((secret, format!("{what}: `${{{variable}}}`")));
            }
        }
        if missing.is_empty() {
            Ok(())
        } else {
            Err(grants.refusal(&missing))
        }
    }
}

/// A name with a document needs its grant; anything else is whatever a file of that path is, so the operator must name it.
fn program_grant(
    program: &str,
    document: Option<&Document>,
    grants: &EffectiveGrants,
    findings: &mut Findings,
) {
    let grant = Grant::new(GrantKind::Program, program);
    let what = format!("the program `{program}`");
    if document.is_some() && !program.contains('/') {
        findings.need(grant, what);
    } else if !grants.allows_exactly(&grant) {
        findings.exact.insert(grant, what);
    }
}

fn inspect_files(document: Option<&Document>, files: &mut [TreeFile], findings: &mut Findings) {
    for file in files {
        let rule = document.and_then(|document| {
            document
                .files
                .iter()
                .find(|rule| rule.paths.is_match(&file.path))
        });
        let origin = format!("the file `{}`", file.path);
        if let (Some(document), Some(rule)) = (document, rule) {
            if let Some(grant) = &rule.grant {
                findings.need(grant.clone(), origin.clone());
            }
            match rule.format {
                Some(Format::Json) => {
                    let read = strict_json(file, &origin, findings);
                    walk(document, rule.rules.as_deref(), read, origin, findings);
                }
                Some(Format::Toml) => {
                    let read = strict_toml(file, &origin, findings);
                    walk(document, rule.rules.as_deref(), read, origin, findings);
                }
                Some(Format::FrontMatter) => inspect_head(document, rule, file, &origin, findings),
                None => {}
            }
        } else if is_generated_json(file) {
            strict_json(file, &origin, findings);
        }
    }
}

/// JSON that a plugin makes is strict even where no rule reads it; what a profile brings may be any text.
fn is_generated_json(file: &TreeFile) -> bool {
    !matches!(file.origin, Origin::Copied { .. })
        && file.path.to_ascii_lowercase().ends_with(".json")
}

/// Puts the re-serialized form in the place of the file's bytes.
fn strict_json(file: &mut TreeFile, origin: &str, findings: &mut Findings) -> Option<Value> {
    match json::parse(&file.bytes) {
        Ok(value) => {
            file.bytes = Bytes::from(json::print(&value));
            Some(value)
        }
        Err(error) => {
            let message = format!("{origin} is not strict JSON: {}", text::line(&error, 300));
            findings.fail(PluginError::new(Code::Json, message));
            None
        }
    }
}

/// As [`strict_json`], for TOML.
fn strict_toml(file: &mut TreeFile, origin: &str, findings: &mut Findings) -> Option<Value> {
    match toml::parse(&file.bytes) {
        Ok((value, text)) => {
            file.bytes = Bytes::from(text);
            Some(value)
        }
        Err(error) => {
            let message = format!("{origin} is not plain TOML: {}", text::line(&error, 300));
            findings.fail(PluginError::new(Code::Toml, message));
            None
        }
    }
}

fn walk(
    document: &Document,
    rules: Option<&str>,
    value: Option<Value>,
    origin: String,
    findings: &mut Findings,
) {
    if let (Some(value), Some(rules)) = (value, rules) {
        Walk {
            document,
            origin,
            findings,
        }
        .apply(rules, &value);
    }
}

fn inspect_head(
    document: &Document,
    rule: &FileRule,
    file: &TreeFile,
    origin: &str,
    findings: &mut Findings,
) {
    let Some(rules) = &rule.rules else { return };
    match front_matter::read(&file.bytes) {
        FrontMatter::Absent => {}
        FrontMatter::Read(value) => {
            let origin = origin.to_owned();
            Walk {
                document,
                origin,
                findings,
            }
            .apply(rules, &value);
        }
        FrontMatter::Unreadable(head) => {
            let keys = document
                .objects
                .get(rules)
                .into_iter()
                .flat_map(|rules| &rules.keys);
            for (key, rule) in keys.filter(|(key, _)| front_matter::may_set(&head, key)) {
                if let Some(grant) = first_grant(rule) {
                    findings.need(
                        grant,
                        format!("{origin}: `{key}` in a head that is not plain YAML"),
                    );
                }
            }
        }
    }
}

/// The grant that stands for a key when its value could not be read.
fn first_grant(rule: &document::KeyRule) -> Option<Grant> {
    rule.grant
        .clone()
        .or_else(|| {
            rule.values
                .iter()
                .flat_map(|values| values.values().flatten())
                .next()
                .cloned()
        })
        .or_else(|| {
            (rule.rules.is_some() || rule.each.is_some())
                .then(|| Grant::new(GrantKind::Settings, "front-matter"))
        })
}

fn inspect_env(document: Option<&Document>, env: &[EnvVar], findings: &mut Findings) {
    for EnvVar { name, value } in env {
        let what = format!("the variable `{name}`");
        if env::is_guarded(name, document.map(|document| &document.env)) {
            findings.need(Grant::new(GrantKind::Env, name), what.clone());
        }
        match value {
            EnvValue::Literal(_) | EnvValue::Path(_) => {}
            EnvValue::Secret(secret) | EnvValue::OptionalSecret(secret) => {
                findings.need(
                    Grant::new(GrantKind::Secrets, text::line(secret, 100)),
                    what,
                );
            }
            EnvValue::Inherit(host) => {
                findings.need(Grant::new(GrantKind::Env, text::line(host, 100)), what);
            }
        }
    }
}
