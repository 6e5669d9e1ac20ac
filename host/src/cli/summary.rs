//! A job in words: the last line of a command that waited, and the page of `agenticore job`.

use std::fmt::Write as _;
use std::time::Duration;

use super::text;
use crate::job::{Failure, PullRequest, Record, Status};

/// How a job ended, from its record or, where that cannot be had, from its last event.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Summary<'a> {
    pub(super) status: Status,
    pub(super) took: Option<Duration>,
    pub(super) cost_usd: f64,
    pub(super) pr_url: Option<&'a str>,
    pub(super) pull_request: Option<&'a PullRequest>,
    pub(super) attempt: u32,
    pub(super) failure: Option<&'a Failure>,
}

impl<'a> From<&'a Record> for Summary<'a> {
    fn from(record: &'a Record) -> Self {
        Self {
            status: record.status,
            took: text::between(record.started_at.or(record.created_at), record.ended_at),
            cost_usd: record.cost_usd,
            pr_url: record.pr_url.as_deref(),
            pull_request: record.pull_request.as_ref(),
            attempt: record.attempt,
            failure: record.failure.as_ref(),
        }
    }
}

impl Summary<'_> {
    /// One line; a failure adds what happened and what to do.
    pub(super) fn text(&self) -> String {
        let mut text = self.status.to_string();
        if let Some(took) = self.took {
            let _ = write!(text, " after {}", text::duration(took));
        }
        if self.cost_usd > 0.0 {
            let _ = write!(text, ", {}", text::cost(self.cost_usd));
        }
        if self.attempt > 1 {
            let _ = write!(text, ", attempt {}", self.attempt);
        }
        if let Some(url) = self.pr_url {
            let _ = write!(text, ", {}", text::lines(url));
        }
        if let Some(reason) = self.pull_request.and_then(|pr| pr.reason.as_ref()) {
            let _ = write!(text, "\npull request: {}", text::lines(reason));
        }
        let of_pull_request = self.pull_request.and_then(|pr| pr.failure.as_ref());
        for failure in self.failure.into_iter().chain(of_pull_request) {
            let _ = write!(
                text,
                "\n{}: {}",
                failure.code.as_deref().unwrap_or(failure.class.as_str()),
                text::lines(&failure.message)
            );
            if !failure.remedy.is_empty() {
                let _ = write!(text, "\nwhat to do: {}", text::lines(&failure.remedy));
            }
        }
        text
    }
}

/// The page about one job: what is known, a line each; its output at the end.
pub(super) fn page(record: &Record) -> String {
    let mut page = String::new();
    for (name, value) in facts(record) {
        if !value.is_empty() {
            let _ = writeln!(page, "{name:<10}  {}", text::lines(&value));
        }
    }
    for warning in &record.warnings {
        let _ = writeln!(page, "{:<10}  {}", "warning", text::lines(warning));
    }
    for (name, value) in &record.annotations {
        let _ = writeln!(
            page,
            "{:<10}  {}={}",
            "note",
            text::lines(name),
            text::lines(value)
        );
    }
    if let Some(output) = record.output.as_deref().filter(|o| !o.is_empty()) {
        let cut = match record.output_cut {
            0 => String::new(),
            bytes => format!(" ({bytes} bytes were cut out of the middle)"),
        };
        let _ = write!(page, "\noutput{cut}:\n{}", text::lines(output));
        if !output.ends_with('\n') {
            page.push('\n');
        }
    }
    page
}

fn facts(record: &Record) -> Vec<(&'static str, String)> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let moment = |at: Option<jiff::Timestamp>| at.map(text::moment).unwrap_or_default();
    let took = text::between(record.started_at, record.ended_at).map(text::duration);
    let usage = &record.usage;
    let tokens = usage.input_tokens
        + usage.output_tokens
        + usage.cache_read_tokens
        + usage.cache_write_tokens;
    let failure = |of: fn(&Failure) -> &str| {
        record
            .failure
            .as_ref()
            .map(|f| of(f).to_owned())
            .unwrap_or_default()
    };
    vec![
        ("id", record.id.clone()),
        ("status", status(record)),
        ("task", record.task.clone()),
        ("profile", record.profile.clone()),
        ("repo", record.repo_url.clone()),
        ("base ref", record.base_ref.clone()),
        ("branch", text(&record.branch)),
        ("pr", text(&record.pr_url)),
        ("pod", record.pod_name.clone()),
        ("created", moment(record.created_at)),
        ("started", moment(record.started_at)),
        ("ended", moment(record.ended_at)),
        ("took", took.unwrap_or_default()),
        (
            "exit code",
            record.exit_code.map(|c| c.to_string()).unwrap_or_default(),
        ),
        (
            "error",
            record
                .error
                .clone()
                .unwrap_or_else(|| failure(|f| &f.message)),
        ),
        ("what to do", failure(|f| &f.remedy)),
        ("session", text(&record.session_id)),
        ("model", text(&record.model)),
        (
            "cost",
            if record.cost_usd > 0.0 {
                text::cost(record.cost_usd)
            } else {
                String::new()
            },
        ),
        (
            "tokens",
            if tokens > 0 {
                format!("{tokens} ({} out)", usage.output_tokens)
            } else {
                String::new()
            },
        ),
        ("worktree", text(&record.worktree_path)),
        ("config", text(&record.job_config_dir)),
        (
            "plugin",
            record
                .plugin
                .as_ref()
                .map(|p| format!("{} {}", p.name, p.version))
                .unwrap_or_default(),
        ),
    ]
}

fn status(record: &Record) -> String {
    match (record.attempt, record.cancel_requested_at) {
        (_, Some(_)) if !record.status.is_ended() => {
            format!("{} (cancel requested)", record.status)
        }
        (0 | 1, _) => record.status.to_string(),
        (attempt, _) => format!("{} (attempt {attempt})", record.status),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::job::FailureClass;

    fn record() -> Record {
        Record {
            id: "0b6ad2a4-6d0a-4f0e-9a49-3d7f4b8f2c11".into(),
            task: "mend \u{1b}[31mit".into(),
            profile: "code".into(),
            status: Status::Failed,
            created_at: Some("2026-11-22T10:00:00Z".parse().unwrap()),
            started_at: Some("2026-11-22T10:00:01Z".parse().unwrap()),
            ended_at: Some("2026-11-22T10:01:13Z".parse().unwrap()),
            attempt: 2,
            cost_usd: 0.25,
            output: Some("half".into()),
            output_cut: 12,
            failure: Some(Failure::new(
                FailureClass::Clone,
                "no such branch",
                "name another one",
            )),
            ..Record::default()
        }
    }

    #[test]
    fn the_last_line_says_how_it_ended_and_what_to_do() {
        insta::assert_snapshot!(Summary::from(&record()).text(), @r"
        failed after 1m 12s, $0.2500, attempt 2
        clone: no such branch
        what to do: name another one
        ");
        let fine = Record {
            status: Status::Succeeded,
            ..Record::default()
        };
        assert_eq!(Summary::from(&fine).text(), "succeeded");
    }

    #[test]
    fn the_page_leaves_out_what_is_not_known() {
        insta::assert_snapshot!(page(&record()), @r"
        id          0b6ad2a4-6d0a-4f0e-9a49-3d7f4b8f2c11
        status      failed (attempt 2)
        task        mend \u{1b}[31mit
        profile     code
        created     2026-11-22T10:00:00Z
        started     2026-11-22T10:00:01Z
        ended       2026-11-22T10:01:13Z
        took        1m 12s
        error       no such branch
        what to do  name another one
        cost        $0.2500

        output (12 bytes were cut out of the middle):
        half
        ");
    }
}
