//! The launch plan after every check: the only form in which a plugin's wishes reach the rest of the host.
//!
//! Its paths are still relative to places; [`CheckedPlan::resolve`] makes them absolute. Secrets are still names.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;

use super::bindings::types::{
    Argument, EnvValue, EnvVar, LaunchPlan, Location, Place, PlanView, SessionPlan, StopPlan,
    Transcript,
};
use super::error::{Code, PluginError};
use super::grants::{EffectiveGrants, Grants};
use super::limits::Limits;
use super::policy::{Policies, env};
use super::request::Layer;
use super::tree::CheckedTree;
use super::{path, text};

/// Bytes of one argument or variable that Linux can pass to a program.
const MAX_ARGUMENT: usize = 128 * 1024 - 1;
/// Bytes of all of them together, well below what Linux allows.
const MAX_ARGUMENTS: usize = 1024 * 1024;
/// Arguments, and variables.
const MAX_ITEMS: usize = 1_000;
/// Kept paths.
const MAX_KEPT: usize = 100;
/// Variables that are the host's own.
const RESERVED_ENV: &str = "AGENTICORE_";

/// A plan that keeps all rules and needs no more than its grants.
#[derive(Clone, Debug)]
pub struct CheckedPlan {
    /// The files to write below the config directory.
    pub tree: CheckedTree,
    /// Paths below the config directory that survive when the files are written again.
    pub keep: Vec<String>,
    /// The program: a name to look up, or an absolute path.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<Argument>,
    /// Its variables, each name once.
    pub env: Vec<EnvVar>,
    /// Its standard input.
    pub stdin: Option<Bytes>,
    /// The plan's own limit of wall time.
    pub time_limit: Option<Duration>,
    /// The session.
    pub session: SessionPlan,
    /// How to stop it gently.
    pub stop: StopPlan,
    /// What the plugin was allowed, for the record.
    pub grants: Grants,
}

/// The directories of a job, absolute.
#[derive(Clone, Debug)]
pub struct Places {
    /// Where the plan's files are.
    pub config_dir: PathBuf,
    /// Where the agent works.
    pub work_dir: PathBuf,
    /// For temporary files.
    pub temp_dir: PathBuf,
}

/// A plan with absolute paths, ready to be started once the secrets are known.
#[derive(Clone, Debug)]
pub struct ResolvedPlan {
    /// The program.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Its variables.
    pub env: Vec<(String, ResolvedEnv)>,
    /// The file whose creation asks the agent to stop, where the plan stops it so.
    pub stop_file: Option<PathBuf>,
}

/// The value of a variable, as far as a plan knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResolvedEnv {
    /// This value.
    Value(OsString),
    /// The secret of this name; the job fails without it.
    Secret(String),
    /// The secret of this name; the variable is left out without it.
    OptionalSecret(String),
    /// The host's own variable of this name; left out where it is unset.
    Inherit(String),
}

impl Places {
    fn path(&self, location: &Location) -> PathBuf {
        let place = match location.place {
            Place::ConfigDir => &self.config_dir,
            Place::WorkDir => &self.work_dir,
            Place::TempDir => &self.temp_dir,
        };
        if location.path.is_empty() {
            place.clone()
        } else {
            place.join(Path::new(&location.path))
        }
    }

    fn text(&self, location: &Location) -> OsString {
        let mut text = OsString::from(&location.prefix);
        text.push(self.path(location));
        text
    }
}

impl CheckedPlan {
    pub(super) fn new(
        plan: LaunchPlan,
        layers: &[Layer],
        limits: &Limits,
        policies: &Policies,
        grants: &EffectiveGrants,
    ) -> Result<Self, PluginError> {
        let mut tree = CheckedTree::new(plan.files, layers, limits)?;
        check_program(&plan.program)?;
        check_arguments(&plan.arguments)?;
        check_env(&plan.env)?;
        check_stdin(plan.stdin.as_deref(), limits)?;
        check_keep(&plan.keep, &tree)?;
        check_session(&plan.session)?;
        check_stop(&plan.stop, &tree)?;
        let mut arguments = plan.arguments;
        policies.inspect(&plan.program, &mut tree, &mut arguments, &plan.env, grants)?;
        tree.recheck_bytes(limits)?;
        Ok(Self {
            tree,
            keep: plan.keep,
            program: plan.program,
            arguments,
            env: plan.env,
            stdin: plan.stdin.map(Bytes::from),
            time_limit: plan
                .time_limit
                .map(|seconds| Duration::from_secs(seconds.into())),
            session: plan.session,
            stop: plan.stop,
            grants: grants.effective.clone(),
        })
    }

    /// Makes the paths absolute.
    #[must_use]
    pub fn resolve(&self, places: &Places) -> ResolvedPlan {
        let argument = |argument: &Argument| match argument {
            Argument::Literal(text) => text.into(),
            Argument::Path(location) => places.text(location),
        };
        let value = |value: &EnvValue| match value {
            EnvValue::Literal(text) => ResolvedEnv::Value(text.into()),
            EnvValue::Path(location) => ResolvedEnv::Value(places.text(location)),
            EnvValue::Secret(name) => ResolvedEnv::Secret(name.clone()),
            EnvValue::OptionalSecret(name) => ResolvedEnv::OptionalSecret(name.clone()),
            EnvValue::Inherit(name) => ResolvedEnv::Inherit(name.clone()),
        };
        ResolvedPlan {
            program: self.program.clone(),
            arguments: self.arguments.iter().map(argument).collect(),
            env: self
                .env
                .iter()
                .map(|var| (var.name.clone(), value(&var.value)))
                .collect(),
            stop_file: match &self.stop {
                StopPlan::CreateFile(location) => Some(places.path(location)),
                StopPlan::Terminate | StopPlan::Interrupt => None,
            },
        }
    }

    /// Checks what a hook added against what the plan keeps and stops with.
    pub(super) fn check_overlaps(&self) -> Result<(), PluginError> {
        check_keep(&self.keep, &self.tree)?;
        check_stop(&self.stop, &self.tree)
    }

    /// What a hook may know of the plan: names, and nothing of values or contents.
    #[must_use]
    pub fn view(&self) -> PlanView {
        let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        PlanView {
            program: self.program.clone(),
            arguments: self.arguments.iter().map(shown).collect(),
            env: self.env.iter().map(|var| var.name.clone()).collect(),
            files: self
                .tree
                .files()
                .iter()
                .map(|file| file.path.clone())
                .collect(),
            time_limit: self.time_limit.map(seconds),
        }
    }
}

/// An argument with its place in braces.
fn shown(argument: &Argument) -> String {
    match argument {
        Argument::Literal(text) => text.clone(),
        Argument::Path(location) => {
            let place = match location.place {
                Place::ConfigDir => "{config-dir}",
                Place::WorkDir => "{work-dir}",
                Place::TempDir => "{temp-dir}",
            };
            let slash = if location.path.is_empty() { "" } else { "/" };
            format!("{}{place}{slash}{}", location.prefix, location.path)
        }
    }
}

fn wrong(message: impl Into<String>) -> PluginError {
    PluginError::new(Code::Plan, message)
}

fn check_program(program: &str) -> Result<(), PluginError> {
    let shown = text::line(program, 100);
    let name = |name: &str| {
        !name.is_empty() && !name.starts_with('-') && !name.contains(char::is_whitespace)
    };
    match program.strip_prefix('/') {
        Some(rest) => path::check("the program", rest)?,
        None if program.contains('/') => {
            return Err(wrong(format!(
                "the program `{shown}` is a relative path; use a name or an absolute path"
            )));
        }
        None => path::check("the program", program)?,
    }
    if name(program) {
        Ok(())
    } else {
        Err(wrong(format!("`{shown}` is not the name of a program")))
    }
}

pub(super) fn check_location(what: &str, location: &Location) -> Result<(), PluginError> {
    if location.prefix.chars().any(text::is_deceptive) {
        return Err(wrong(format!(
            "{what} has a prefix with control or invisible characters"
        )));
    }
    if location.path.is_empty() {
        Ok(())
    } else {
        path::check(what, &location.path)
    }
}

fn check_text(what: &str, text: &str) -> Result<usize, PluginError> {
    if text.contains('\0') {
        return Err(wrong(format!("{what} has a NUL character")));
    }
    if text.len() > MAX_ARGUMENT {
        return Err(wrong(format!(
            "{what} has {} bytes, and the system takes at most {MAX_ARGUMENT}; pass it over standard input or in a file",
            text.len()
        )));
    }
    Ok(text.len())
}

fn check_total(what: &str, count: usize, bytes: usize) -> Result<(), PluginError> {
    if count > MAX_ITEMS {
        return Err(wrong(format!(
            "the plan has {count} {what}, at most {MAX_ITEMS} are allowed"
        )));
    }
    if bytes > MAX_ARGUMENTS {
        return Err(wrong(format!(
            "the {what} have {bytes} bytes, at most {MAX_ARGUMENTS} are allowed"
        )));
    }
    Ok(())
}

fn check_arguments(arguments: &[Argument]) -> Result<(), PluginError> {
    let mut bytes = 0_usize;
    for argument in arguments {
        bytes += match argument {
            Argument::Literal(text) => check_text("an argument", text)?,
            Argument::Path(location) => {
                check_location("the argument", location)?;
                location.prefix.len() + location.path.len()
            }
        };
    }
    check_total("arguments", arguments.len(), bytes)
}

pub(super) fn check_env(vars: &[EnvVar]) -> Result<(), PluginError> {
    let mut names = HashSet::new();
    let mut bytes = 0_usize;
    for EnvVar { name, value } in vars {
        if !env::is_name(name) {
            return Err(wrong(format!(
                "`{}` is not the name of a variable",
                text::line(name, 100)
            )));
        }
        if name.to_ascii_uppercase().starts_with(RESERVED_ENV) {
            return Err(wrong(format!("the variable `{name}` is the host's own")));
        }
        if !names.insert(name) {
            return Err(wrong(format!("the variable `{name}` is there twice")));
        }
        bytes += name.len() + check_env_value(name, value)?;
    }
    check_total("variables", vars.len(), bytes)
}

fn check_env_value(name: &str, value: &EnvValue) -> Result<usize, PluginError> {
    match value {
        EnvValue::Literal(text) => check_text(&format!("the variable `{name}`"), text),
        EnvValue::Path(location) => {
            check_location(&format!("the variable `{name}`"), location)?;
            Ok(location.prefix.len() + location.path.len())
        }
        EnvValue::Secret(source) | EnvValue::OptionalSecret(source) | EnvValue::Inherit(source) => {
            if env::is_name(source) {
                Ok(0)
            } else {
                let source = text::line(source, 100);
                Err(wrong(format!(
                    "the variable `{name}` takes its value from `{source}`, which is not a name"
                )))
            }
        }
    }
}

fn check_stdin(stdin: Option<&[u8]>, limits: &Limits) -> Result<(), PluginError> {
    let (used, allowed) = (stdin.map_or(0, <[u8]>::len) as u64, limits.output_bytes.0);
    if used > allowed {
        let message = "the standard input of the plan is too large";
        return Err(PluginError::limit(
            Code::Output,
            "output_bytes",
            used,
            allowed,
            message,
        ));
    }
    Ok(())
}

/// Kept paths and written files must not overlap: one of the two would be lost.
fn check_keep(keep: &[String], tree: &CheckedTree) -> Result<(), PluginError> {
    if keep.len() > MAX_KEPT {
        return Err(wrong(format!(
            "the plan keeps {} paths, at most {MAX_KEPT} are allowed",
            keep.len()
        )));
    }
    let mut taken: Vec<_> = tree
        .files()
        .iter()
        .map(|file| path::fold(&file.path))
        .collect();
    for kept in keep {
        path::check("the kept path", kept)?;
        let folded = path::fold(kept);
        if let Some(other) = taken.iter().find(|other| overlaps(&folded, other)) {
            return Err(wrong(format!(
                "the kept path `{kept}` overlaps with `{other}`"
            )));
        }
        taken.push(folded);
    }
    Ok(())
}

fn overlaps(a: &str, b: &str) -> bool {
    let inside = |a: &str, b: &str| {
        a.strip_prefix(b)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    inside(a, b) || inside(b, a)
}

fn check_session(session: &SessionPlan) -> Result<(), PluginError> {
    if let Some(id) = &session.id {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
        if id.is_empty() || id.len() > 200 || id.starts_with('-') || !id.chars().all(plain) {
            return Err(wrong(format!(
                "`{}` is not a session id",
                text::line(id, 100)
            )));
        }
    }
    if let Some(Transcript { pattern, marker }) = &session.transcript {
        path::check("the transcript pattern", pattern)?;
        if globset::Glob::new(pattern).is_err() {
            return Err(wrong(format!(
                "the transcript pattern `{pattern}` is not a glob"
            )));
        }
        if marker.is_empty() || marker.len() > 1024 {
            return Err(wrong("the transcript marker must have 1 to 1,024 bytes"));
        }
    }
    Ok(())
}

fn check_stop(stop: &StopPlan, tree: &CheckedTree) -> Result<(), PluginError> {
    let StopPlan::CreateFile(location) = stop else {
        return Ok(());
    };
    if location.path.is_empty() || !location.prefix.is_empty() {
        return Err(wrong("the stop file must have a path and no prefix"));
    }
    path::check("the stop file", &location.path)?;
    let folded = path::fold(&location.path);
    let written = tree
        .files()
        .iter()
        .any(|file| overlaps(&folded, &path::fold(&file.path)));
    if location.place == Place::ConfigDir && written {
        return Err(wrong(format!(
            "the stop file `{}` is also a file of the plan",
            location.path
        )));
    }
    Ok(())
}
