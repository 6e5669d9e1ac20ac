//! The `redact` hook: keeps secrets that an agent printed out of the pull request.
//!
//! After a job it looks through the stored output and the task. Where it finds something that looks like a secret, the pull request
//! gets a body of its own, with each one replaced by `[redacted KIND]`, or is not opened at all; the job's record gets the number of
//! each kind. Without a finding nothing changes. A hook cannot change the stored output itself; the server already keeps the values of the
//! secrets that it knows out of it.

mod secrets;

use agenticore_plugin::{Hooks, Job, PlanView, Review, RunResult, Verdict, export_hooks};
use serde::Deserialize;

use secrets::{Finder, Found};

/// Letters of a title.
const TITLE: usize = 72;

/// The hook.
#[derive(Debug)]
pub struct Redact;

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
    /// Open it with the secrets taken out.
    #[default]
    Amend,
    /// Do not open it.
    Veto,
}

impl Hooks for Redact {
    type Config = Config;

    fn pre_job(job: &Job, config: Config, _: &PlanView) -> Verdict {
        let finder = match Finder::new(&config.patterns) {
            Ok(finder) => finder,
            Err(problem) => return Verdict::Reject(problem),
        };
        let found = finder.clean(&job.task);
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
        let (output, task) = (finder.clean(&run.output), finder.clean(&job.task));
        if !output.any() && !task.any() {
            return Review::keep();
        }
        let summary = output.and(&task);
        let review = Review::keep().with("redacted", summary.clone());
        match config.on_secret {
            OnSecret::Veto => review.veto(format!(
                "the job's words hold what looks like a secret: {summary}"
            )),
            OnSecret::Amend => {
                let title = task.any().then(|| title(&task.text));
                review.amend(title, Some(body(job, run, &output, &summary)))
            }
        }
    }
}

/// The first line of a task, as a pull request is called.
fn title(task: &str) -> String {
    let line = task
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default();
    line.trim().chars().take(TITLE).collect()
}

fn body(job: &Job, run: &RunResult, output: &Found, summary: &str) -> String {
    format!(
        "{}\n\n---\nJob {} with the profile `{}`: {} changed, ${:.2}, {} turns. Taken out of these words: {summary}.\n",
        output.text.trim_end(),
        job.id,
        job.profile,
        match run.changed_files.len() {
            1 => "1 file".to_owned(),
            files => format!("{files} files"),
        },
        run.cost_usd,
        run.turns,
    )
}

export_hooks!(Redact);

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use agenticore_plugin::{PullRequestVerdict, Usage};
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
        Redact::post_job(&job(task), serde_json::from_value(config).unwrap(), &run)
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

    #[test]
    fn a_secret_is_taken_out_of_the_body_and_counted() {
        let review = review(json!({}), "fix it", &format!("pushed with {TOKEN}, done"));
        let PullRequestVerdict::Amend(words) = &review.pull_request else {
            panic!("{review:?}");
        };
        let body = words.body.clone().unwrap();
        assert!(
            body.contains("pushed with [redacted github-token], done") && !body.contains("ghp_"),
            "{body}"
        );
        assert_eq!(words.title, None, "the task is clean");
        let annotation = review.annotations.first().unwrap();
        assert_eq!(
            (annotation.key.as_str(), annotation.value.as_str()),
            ("redacted", "1 github-token")
        );
    }

    #[test]
    fn a_secret_of_the_task_is_taken_out_of_the_title_or_rejects_the_job() {
        let task = format!("use {TOKEN}\nand push");
        let PullRequestVerdict::Amend(words) = review(json!({}), &task, "done").pull_request else {
            panic!("it is amended");
        };
        assert_eq!(words.title.unwrap(), "use [redacted github-token]");
        let plan = PlanView {
            program: String::new(),
            arguments: Vec::new(),
            env: Vec::new(),
            files: Vec::new(),
            time_limit: None,
        };
        let strict = serde_json::from_value(json!({"reject_tasks": true})).unwrap();
        let Verdict::Reject(reason) = Redact::pre_job(&job(&task), strict, &plan) else {
            panic!("it is rejected");
        };
        assert!(
            reason.contains("1 github-token") && !reason.contains("ghp_"),
            "{reason}"
        );
        assert_eq!(
            Redact::pre_job(&job(&task), Config::default(), &plan),
            Verdict::Proceed
        );
    }

    #[test]
    fn clean_words_are_left_alone_and_a_profile_can_ask_for_a_veto() {
        assert_eq!(
            review(json!({}), "fix it", "all done, see commit 3f5a9c"),
            Review::keep()
        );
        let review = review(json!({"on_secret": "veto"}), "fix it", TOKEN);
        assert!(
            matches!(review.pull_request, PullRequestVerdict::Veto(reason) if reason.contains("github-token"))
        );
    }

    #[test]
    fn own_patterns_count_and_a_wrong_one_is_named() {
        let own = json!({"patterns": [{"name": "badge", "regex": "BADGE-[0-9]{4}"}]});
        let found = review(own, "x", "BADGE-1234 and BADGE-9999");
        assert_eq!(found.annotations.first().unwrap().value, "2 badge");
        let wrong = review(
            json!({"patterns": [{"name": "badge", "regex": "("}]}),
            "x",
            "x",
        );
        assert!(
            matches!(wrong.pull_request, PullRequestVerdict::Veto(reason) if reason.contains("`badge`"))
        );
    }
}
