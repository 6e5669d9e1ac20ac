//! Hook plugins: the trait, its defaults, and the way from the contract's functions to it.

use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use crate::bindings::hook_plugin::exports::agenticore::plugin::hooks::Guest;
pub use crate::bindings::hook_plugin::exports::agenticore::plugin::hooks::{
    Annotation, PlanPatch, PlanView, PullRequestText, PullRequestVerdict, Review, RunResult,
    Verdict,
};
use crate::bindings::types::Job;

/// A plugin that judges jobs before they start and after they end.
///
/// Both functions may be called again for the same job, in a fresh instance, so they must be free of effects. A panic is a trap: a
/// required hook then fails the job before its start, or holds back the pull request after its end.
pub trait Hooks {
    /// The hook's `config` in `profile.yml`, `{}` where it has none. One that does not fit rejects the job, with the place and the
    /// reason; after a job it holds the pull request back.
    type Config: DeserializeOwned;

    /// Judges a job before its agent starts.
    fn pre_job(job: &Job, config: Self::Config, plan: &PlanView) -> Verdict {
        let _ = (job, config, plan);
        Verdict::Proceed
    }

    /// Looks at a job after its agent ended, before the pull request is opened. It never changes the result.
    fn post_job(job: &Job, config: Self::Config, run: &RunResult) -> Review {
        let _ = (job, config, run);
        Review::keep()
    }
}

impl Review {
    /// Nothing to say.
    #[must_use]
    pub fn keep() -> Self {
        Self {
            annotations: Vec::new(),
            pull_request: PullRequestVerdict::Keep,
        }
    }

    /// The same, with one more annotation for the job's record.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.annotations.push(Annotation {
            key: key.to_owned(),
            value: value.into(),
        });
        self
    }

    /// The same, but no pull request is opened, for this reason.
    #[must_use]
    pub fn veto(mut self, reason: impl Into<String>) -> Self {
        self.pull_request = PullRequestVerdict::Veto(reason.into());
        self
    }

    /// The same, with other words for the pull request.
    #[must_use]
    pub fn amend(mut self, title: Option<String>, body: Option<String>) -> Self {
        self.pull_request = PullRequestVerdict::Amend(PullRequestText { title, body });
        self
    }
}

impl PlanPatch {
    /// Changes nothing.
    #[must_use]
    pub fn none() -> Self {
        Self {
            files: Vec::new(),
            env: Vec::new(),
            time_limit: None,
        }
    }
}

/// The component of a [`Hooks`].
#[doc(hidden)]
#[derive(Debug)]
pub struct HookComponent<H>(PhantomData<H>);

impl<H: Hooks> Guest for HookComponent<H> {
    fn pre_job(job: Job, config: String, plan: PlanView) -> Verdict {
        match parse(&config) {
            Ok(config) => H::pre_job(&job, config, &plan),
            Err(problem) => Verdict::Reject(problem),
        }
    }

    fn post_job(job: Job, config: String, run: RunResult) -> Review {
        match parse(&config) {
            Ok(config) => H::post_job(&job, config, &run),
            Err(problem) => Review::keep().veto(problem),
        }
    }
}

pub(crate) fn parse<C: DeserializeOwned>(config: &str) -> Result<C, String> {
    serde_json::from_str(config).map_err(|error| {
        format!("the hook's `config` in profile.yml does not fit: {error}; this is for whoever keeps the profile")
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    struct Strict;

    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        word: String,
    }

    impl Hooks for Strict {
        type Config = Config;

        fn pre_job(_: &Job, config: Config, _: &PlanView) -> Verdict {
            Verdict::Reject(config.word)
        }
    }

    pub(crate) fn job() -> Job {
        Job {
            id: String::new(),
            attempt: 1,
            task: "do it".to_owned(),
            repo_url: None,
            base_ref: None,
            branch: None,
            profile: "p".to_owned(),
        }
    }

    fn plan() -> PlanView {
        PlanView {
            program: "sh".to_owned(),
            arguments: Vec::new(),
            env: Vec::new(),
            files: Vec::new(),
            time_limit: None,
        }
    }

    #[test]
    fn the_configuration_arrives_with_its_type_or_rejects_the_job() {
        let decide =
            |config: &str| HookComponent::<Strict>::pre_job(job(), config.to_owned(), plan());
        assert_eq!(
            decide(r#"{"word": "no"}"#),
            Verdict::Reject("no".to_owned())
        );
        let Verdict::Reject(reason) = decide(r#"{"wrod": "no"}"#) else {
            unreachable!("it is rejected");
        };
        assert!(reason.contains("unknown field `wrod`"), "{reason}");
    }
}
