//! The `redact` hook: keeps secrets that an agent printed out of the record and the pull request.
//!
//! Before the words of a job are kept or published, each thing in them that looks like a secret becomes `[redacted KIND]`. Before the
//! agent starts a task that holds one may be rejected; after its end the record gets the number of each kind, and the pull request may be
//! held back. The server itself already keeps the values of the secrets that it knows out of everything.

mod secrets;

use agenticore_plugin::{
    Hooks, Job, Passage, PlanView, Redact, Review, RunResult, Verdict, export_hooks, export_redact,
};
use serde::Deserialize;

use secrets::{Finder, Kinds};

/// The hook.
#[derive(Debug)]
pub struct Plugin(Finder);

/// The hook's `config` in `profile.yml`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// More kinds of secrets: a name and a regular expression each.
    patterns: Vec<Pattern>,
    /// What to do with the pull request of a job that printed a secret.
    on_secret: OnSecret,
    /// Whether a task that holds a secret is rejected before the agent starts.
    reject_tasks: bool,
}

/// A kind of secret.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pattern {
    name: String,
    regex: String,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum OnSecret {
    /// Open it, without them.
    #[default]
    Amend,
    /// Do not open it.
    Veto,
}

impl Redact for Plugin {
    type Config = Config;

    fn new(_: &Job, config: Config) -> Result<Self, String> {
        Finder::new(&config.patterns).map(Self)
    }

    fn clean(&self, passage: &Passage) -> Option<String> {
        let found = self.0.clean(&passage.text);
        found.kinds.any().then_some(found.text)
    }
}

impl Hooks for Plugin {
    type Config = Config;

    fn pre_job(job: &Job, config: Config, _: &PlanView) -> Verdict {
        let finder = match Finder::new(&config.patterns) {
            Ok(finder) => finder,
            Err(problem) => return Verdict::Reject(problem),
        };
        let found = finder.clean(&job.task).kinds;
        if config.reject_tasks && found.any() {
            return Verdict::Reject(format!(
                "the task holds what looks like a secret ({}); tasks are stored and shown, so take it out, replace the secret where it is \
                 valid, and submit the job again",
                found.summary()
            ));
        }
        Verdict::Proceed
    }

    fn post_job(job: &Job, config: Config, run: &RunResult) -> Review {
        let finder = match Finder::new(&config.patterns) {
            Ok(finder) => finder,
            Err(problem) => return Review::keep().veto(problem),
        };
        let (left, task) = (finder.clean(&run.output).kinds, finder.clean(&job.task));
        let found = Kinds::marked(&run.output).and(&left).and(&task.kinds);
        if !found.any() {
            return Review::keep();
        }
        let review = Review::keep().with("redacted", found.summary());
        if left.any() {
            return review.veto(format!(
                "the job's words hold what looks like a secret ({}), and nothing took it out: the profile must list this hook with `redact` in `on`",
                left.summary()
            ));
        }
        match config.on_secret {
            OnSecret::Veto => review.veto(format!(
                "the job's words held what looks like a secret: {}",
                found.summary()
            )),
            OnSecret::Amend => review,
        }
    }
}

export_hooks!(Plugin);
export_redact!(Plugin);

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use agenticore_plugin::{PassageKind, PullRequestVerdict, Usage};
    use serde_json::{Value, json};

    use super::*;

    const TOKEN: &str = "ghp_0123456789abcdefghijABCDEFGHIJ012345";

    fn review(config: Value, task: &str, output: &str) -> Review {
        let run = RunResult {
            status: "succeeded".to_owned(),
            failure: String::new(),
            message: String::new(),
            output: output.to_owned(),
            usage: Usage {
                input_tokens: 0,
                output_tokens: 0,
                cache_read_tokens: 0,
                cache_write_tokens: 0,
            },
            cost_usd: 0.0,
            turns: 1,
            changed_files: vec!["a".to_owned()],
        };
        Plugin::post_job(&job(task), serde_json::from_value(config).unwrap(), &run)
    }

    fn job(task: &str) -> Job {
        Job {
            id: "8f14e45f-ceea-467f-a8d3-000000000000".to_owned(),
            attempt: 1,
            task: task.to_owned(),
            repo_url: None,
            base_ref: None,
            branch: None,
            profile: "p".to_owned(),
        }
    }

    fn cleaned(config: Value, text: &str) -> Option<String> {
        let config = serde_json::from_value(config).unwrap();
        let passage = Passage {
            kind: PassageKind::PullRequestTitle,
            text: text.to_owned(),
        };
        Plugin::new(&job("fix it"), config).unwrap().clean(&passage)
    }

    fn redacted(review: &Review) -> &str {
        let annotation = review.annotations.first().unwrap();
        assert_eq!(annotation.key, "redacted");
        &annotation.value
    }

    #[test]
    fn a_secret_is_taken_out_of_a_passage_and_counted_afterwards() {
        let text = cleaned(json!({}), &format!("pushed with {TOKEN}, done")).unwrap();
        assert_eq!(text, "pushed with [redacted github-token], done");
        let seen = review(json!({}), "fix it", &text);
        assert_eq!(redacted(&seen), "1 github-token");
        assert_eq!(seen.pull_request, PullRequestVerdict::Keep);
        let strict = review(json!({"on_secret": "veto"}), "fix it", &text);
        assert!(
            matches!(strict.pull_request, PullRequestVerdict::Veto(reason) if reason.contains("github-token"))
        );
    }

    #[test]
    fn a_secret_that_nothing_took_out_holds_the_pull_request_back() {
        let review = review(json!({}), "fix it", TOKEN);
        assert!(
            matches!(&review.pull_request, PullRequestVerdict::Veto(reason) if reason.contains("`redact` in `on`") && !reason.contains("ghp_")),
            "{review:?}"
        );
    }

    #[test]
    fn a_secret_of_the_task_is_counted_or_rejects_the_job() {
        let task = format!("use {TOKEN}\nand push");
        assert_eq!(
            redacted(&review(json!({}), &task, "done")),
            "1 github-token"
        );
        let plan = PlanView {
            program: String::new(),
            arguments: Vec::new(),
            env: Vec::new(),
            files: Vec::new(),
            time_limit: None,
        };
        let strict = serde_json::from_value(json!({"reject_tasks": true})).unwrap();
        let Verdict::Reject(reason) = Plugin::pre_job(&job(&task), strict, &plan) else {
            panic!("it is rejected");
        };
        assert!(
            reason.contains("1 github-token") && !reason.contains("ghp_"),
            "{reason}"
        );
        assert_eq!(
            Plugin::pre_job(&job(&task), Config::default(), &plan),
            Verdict::Proceed
        );
    }

    #[test]
    fn clean_words_are_left_alone() {
        let words = "all done, see commit 3f5a9c";
        assert_eq!(cleaned(json!({}), words), None);
        assert_eq!(review(json!({}), "fix it", words), Review::keep());
    }

    #[test]
    fn own_patterns_count_and_a_wrong_one_is_named() {
        let own = json!({"patterns": [{"name": "badge", "regex": "BADGE-[0-9]{4}"}]});
        assert_eq!(
            cleaned(own, "BADGE-1234 and BADGE-9999").unwrap(),
            "[redacted badge] and [redacted badge]"
        );
        let wrong = || json!({"patterns": [{"name": "badge", "regex": "("}]});
        let reviewed = review(wrong(), "x", "x");
        assert!(
            matches!(reviewed.pull_request, PullRequestVerdict::Veto(reason) if reason.contains("`badge`"))
        );
        let config = serde_json::from_value(wrong()).unwrap();
        assert!(
            Plugin::new(&job("x"), config)
                .unwrap_err()
                .contains("`badge`")
        );
    }
}
