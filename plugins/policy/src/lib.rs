//! The `policy` hook: which jobs may run, by repository, branch and words of the task; how long; and which results become pull requests.
//!
//! Every list is of patterns, in which `*` stands for any text and `?` for one letter. `deny` wins over `allow`; a list that is not
//! there allows everything. A reason names the value, the list and the pattern, so that a submitter knows what to change and whom to ask.

mod rules;

use agenticore_plugin::{
    Hooks, Job, PlanPatch, PlanView, Review, RunResult, Verdict, export_hooks,
};
use serde::Deserialize;

use rules::Rules;

/// The hook.
#[derive(Debug)]
pub struct Policy;

/// The hook's `config` in `profile.yml`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Repositories, written as `HOST/PATH`: no scheme, no `.git`.
    repositories: Rules,
    /// The branch or commit that work starts from.
    branches: Rules,
    /// The whole text of the task; letters of both cases are the same.
    tasks: Rules,
    /// Paths that the job changed: anything but allowed ones holds the pull request back.
    changes: Rules,
    /// Seconds that a job may take; a plan with more is cut down to it.
    max_seconds: Option<u32>,
    /// Dollars; a job that cost more opens no pull request.
    max_cost_usd: Option<f64>,
    /// Changed files; a job with more opens no pull request.
    max_changed_files: Option<usize>,
}

impl Hooks for Policy {
    type Config = Config;

    fn pre_job(job: &Job, config: Config, plan: &PlanView) -> Verdict {
        let repository = job.repo_url.as_deref().map(plain);
        let checks = [
            config
                .repositories
                .judge("repositories", "the repository", repository.as_deref()),
            config
                .branches
                .judge("branches", "the branch", job.base_ref.as_deref()),
            config.tasks.judge("tasks", "the task", Some(&job.task)),
        ];
        if let Some(reason) = checks.into_iter().find_map(Result::err) {
            return Verdict::Reject(reason);
        }
        match config.max_seconds {
            Some(most) if plan.time_limit.is_none_or(|planned| planned > most) => {
                Verdict::Patch(PlanPatch {
                    time_limit: Some(most),
                    ..PlanPatch::none()
                })
            }
            _ => Verdict::Proceed,
        }
    }

    fn post_job(_: &Job, config: Config, run: &RunResult) -> Review {
        match objection(&config, run) {
            Some(reason) => Review::keep().with("policy", reason.clone()).veto(reason),
            None => Review::keep(),
        }
    }
}

/// Why the result must not become a pull request.
fn objection(config: &Config, run: &RunResult) -> Option<String> {
    if let Some(most) = config.max_cost_usd
        && run.cost_usd > most
    {
        return Some(format!(
            "it cost ${:.2}, and `max_cost_usd` is ${most:.2}",
            run.cost_usd
        ));
    }
    if let Some(most) = config.max_changed_files
        && run.changed_files.len() > most
    {
        let changed = run.changed_files.len();
        return Some(format!(
            "it changed {changed} files, and `max_changed_files` is {most}"
        ));
    }
    let judged = |path: &String| {
        config
            .changes
            .judge("changes", "the changed file", Some(path))
            .err()
    };
    run.changed_files.iter().find_map(judged)
}

/// `https://github.com/acme/app.git` and `git@github.com:acme/app` as `github.com/acme/app`.
fn plain(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (user_and_host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = user_and_host.rsplit('@').next().unwrap_or(user_and_host);
    let path = path.trim_end_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    // Only the short form of ssh has no scheme and a colon that is no port's.
    let host = if url.contains("://") {
        host.to_owned()
    } else {
        host.replacen(':', "/", 1)
    };
    format!("{}/{path}", host.to_lowercase())
}

export_hooks!(Policy);

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use agenticore_plugin::{PullRequestVerdict, Usage};
    use serde_json::{Value, json};

    use super::*;

    fn config(value: Value) -> Config {
        serde_json::from_value(value).unwrap()
    }

    fn job(repo: Option<&str>, branch: Option<&str>, task: &str) -> Job {
        Job {
            id: "8f14e45f-ceea-467f-a8d3-000000000000".to_owned(),
            attempt: 1,
            task: task.to_owned(),
            repo_url: repo.map(str::to_owned),
            base_ref: branch.map(str::to_owned),
            branch: None,
            profile: "p".to_owned(),
        }
    }

    fn plan(time_limit: Option<u32>) -> PlanView {
        PlanView {
            program: "sh".to_owned(),
            arguments: Vec::new(),
            env: Vec::new(),
            files: Vec::new(),
            time_limit,
        }
    }

    fn run(cost_usd: f64, changed: &[&str]) -> RunResult {
        RunResult {
            status: "succeeded".to_owned(),
            failure: String::new(),
            message: String::new(),
            output: String::new(),
            usage: Usage {
                input_tokens: 0,
                output_tokens: 0,
                cache_read_tokens: 0,
                cache_write_tokens: 0,
            },
            cost_usd,
            turns: 1,
            changed_files: changed.iter().map(|path| (*path).to_owned()).collect(),
        }
    }

    fn reason(verdict: Verdict) -> String {
        match verdict {
            Verdict::Reject(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_rejection_names_the_value_the_list_and_the_pattern() {
        let acme = || {
            config(
                json!({"repositories": {"allow": ["github.com/acme/*"]}, "branches": {"deny": ["release/*"]}}),
            )
        };
        let url = Some("https://GitHub.com/acme/app.git");
        assert_eq!(
            Policy::pre_job(&job(url, Some("main"), "x"), acme(), &plan(None)),
            Verdict::Proceed
        );
        let other = job(Some("git@github.com:evil/app"), None, "x");
        assert_eq!(
            reason(Policy::pre_job(&other, acme(), &plan(None))),
            "the repository `github.com/evil/app` is not among the allowed ones; `repositories.allow` is github.com/acme/*"
        );
        assert_eq!(
            reason(Policy::pre_job(
                &job(url, Some("release/1"), "x"),
                acme(),
                &plan(None)
            )),
            "the branch `release/1` is denied: it matches `release/*` of `branches.deny`"
        );
        assert_eq!(
            reason(Policy::pre_job(&job(None, None, "x"), acme(), &plan(None))),
            "the repository is not set, and `repositories.allow` is github.com/acme/*"
        );
    }

    #[test]
    fn words_of_the_task_are_found_in_any_case_and_long_tasks_are_cut_short() {
        let words = || config(json!({"tasks": {"deny": ["*drop table*"]}}));
        let task = format!("{} please DROP TABLE users", "x".repeat(500));
        let said = reason(Policy::pre_job(
            &job(None, None, &task),
            words(),
            &plan(None),
        ));
        assert!(
            said.contains("`*drop table*` of `tasks.deny`") && said.len() < 300,
            "{said}"
        );
    }

    #[test]
    fn a_time_limit_is_only_ever_shortened() {
        let limit = |planned| match Policy::pre_job(
            &job(None, None, "x"),
            config(json!({"max_seconds": 60})),
            &plan(planned),
        ) {
            Verdict::Patch(patch) => patch.time_limit,
            Verdict::Proceed => planned,
            Verdict::Reject(reason) => panic!("{reason}"),
        };
        assert_eq!(
            (limit(None), limit(Some(90)), limit(Some(30))),
            (Some(60), Some(60), Some(30))
        );
    }

    #[test]
    fn results_over_the_budget_or_outside_of_the_allowed_files_open_nothing() {
        let rules = || {
            config(
                json!({"max_cost_usd": 1.0, "max_changed_files": 2, "changes": {"deny": [".github/*"]}}),
            )
        };
        let said =
            |result: RunResult| match Policy::post_job(&job(None, None, "x"), rules(), &result)
                .pull_request
            {
                PullRequestVerdict::Veto(reason) => Some(reason),
                _ => None,
            };
        assert_eq!(said(run(0.5, &["src/a", "src/b"])), None);
        assert_eq!(
            said(run(1.5, &[])).unwrap(),
            "it cost $1.50, and `max_cost_usd` is $1.00"
        );
        assert_eq!(
            said(run(0.0, &["a", "b", "c"])).unwrap(),
            "it changed 3 files, and `max_changed_files` is 2"
        );
        assert!(
            said(run(0.0, &[".github/workflows/x.yml"]))
                .unwrap()
                .contains("changes.deny")
        );
    }
}
