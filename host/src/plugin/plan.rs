//! The launch plan after every check: the only form in which a plugin's wishes reach the rest of the host.
//!
//! Its paths are still relative to places; [`CheckedPlan::resolve`] makes them absolute. Secrets are still names.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions};

use super::bindings::types::{
    Argument, Budget, EnvValue, EnvVar, LaunchPlan, Location, Place, PlanView, SessionPlan,
    StopPlan,
};
use super::error::PluginError;
use super::grants::{EffectiveGrants, Grants};
use super::limits::Limits;
use super::policy::Policies;
use super::request::Layer;
use super::tree::CheckedTree;

use self::checks::{
    check_arguments, check_budget, check_keep, check_program, check_session, check_stdin,
    check_stop,
};

mod checks;

pub(super) use self::checks::check_env;

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
    /// The plan's own limit of wall time, over all attempts of the job.
    pub time_limit: Option<Duration>,
    /// What the job may spend over all of its attempts.
    pub budget: Budget,
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
    pub stop_file: Option<StopFile>,
}

/// A file whose creation asks an agent to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopFile {
    place: PathBuf,
    path: String,
}

impl StopFile {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.place.join(&self.path)
    }

    /// Makes it, empty; one that is there will do. The agent and its repository can write there, so no link is followed out of the
    /// place and nothing is written over. Blocks.
    ///
    /// # Errors
    ///
    /// Why the file is not there.
    pub fn create(&self) -> io::Result<()> {
        let place = Dir::open_ambient_dir(&self.place, ambient_authority())?;
        let mut new = OpenOptions::new();
        new.write(true).create_new(true);
        match place.open_with(&self.path, &new) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other.map(drop),
        }
    }
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
    fn place(&self, location: &Location) -> &Path {
        match location.place {
            Place::ConfigDir => &self.config_dir,
            Place::WorkDir => &self.work_dir,
            Place::TempDir => &self.temp_dir,
        }
    }

    fn path(&self, location: &Location) -> PathBuf {
        let place = self.place(location);
        if location.path.is_empty() {
            place.to_owned()
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
        let mut plan = Self::well_formed(plan, layers, limits)?;
        let (tree, arguments) = (&mut plan.tree, &mut plan.arguments);
        policies.inspect(&plan.program, tree, arguments, &plan.env, grants)?;
        plan.tree.recheck_bytes(limits)?;
        plan.grants = grants.effective.clone();
        Ok(plan)
    }

    /// The plan under every rule of form, and no policy: it has no grants and must not be started. For a hook's author, who writes
    /// down a plan to be judged.
    pub(crate) fn well_formed(
        plan: LaunchPlan,
        layers: &[Layer],
        limits: &Limits,
    ) -> Result<Self, PluginError> {
        let tree = CheckedTree::new(plan.files, layers, limits)?;
        check_program(&plan.program)?;
        check_arguments(&plan.arguments)?;
        check_env(&plan.env)?;
        check_stdin(plan.stdin.as_deref(), limits)?;
        check_keep(&plan.keep, &tree)?;
        check_budget(&plan.budget)?;
        check_session(&plan.session)?;
        check_stop(&plan.stop, &tree)?;
        Ok(Self {
            tree,
            keep: plan.keep,
            program: plan.program,
            arguments: plan.arguments,
            env: plan.env,
            stdin: plan.stdin.map(Bytes::from),
            time_limit: plan
                .time_limit
                .map(|seconds| Duration::from_secs(seconds.into())),
            budget: plan.budget,
            session: plan.session,
            stop: plan.stop,
            grants: Grants::default(),
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
                StopPlan::CreateFile(location) => Some(StopFile {
                    place: places.place(location).to_owned(),
                    path: location.path.clone(),
                }),
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
        Argument::Path(location) => shown_location(location),
    }
}

/// A path with its place in braces, for people: only a job has absolute ones.
pub(crate) fn shown_location(location: &Location) -> String {
    let place = match location.place {
        Place::ConfigDir => "{config-dir}",
        Place::WorkDir => "{work-dir}",
        Place::TempDir => "{temp-dir}",
    };
    let slash = if location.path.is_empty() { "" } else { "/" };
    format!("{}{place}{slash}{}", location.prefix, location.path)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_stop_file_follows_no_link_out_and_writes_over_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (place, outside) = (dir.path().join("place"), dir.path().join("outside"));
        for dir in [&place, &outside] {
            std::fs::create_dir(dir).unwrap();
        }
        let at = |path: &str| StopFile {
            place: place.clone(),
            path: path.to_owned(),
        };
        at("stop").create().unwrap();
        assert!(at("stop").path().exists());
        at("stop").create().unwrap();

        let victim = outside.join("victim");
        std::fs::write(&victim, "kept").unwrap();
        std::os::unix::fs::symlink(&victim, place.join("link")).unwrap();
        at("link").create().unwrap();
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "kept");

        std::os::unix::fs::symlink(&outside, place.join("folder")).unwrap();
        assert!(at("folder/new").create().is_err());
        assert!(!outside.join("new").exists());
    }
}
