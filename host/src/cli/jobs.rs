//! `agenticore jobs`.

use anyhow::Context as _;
use jiff::{Span, Timestamp, tz::TimeZone};

use super::context::Context;
use super::exit::{ExitCode, UsageError};
use super::output::Rows;
use super::text;
use crate::client::{Client, JobQuery};
use crate::job::{Record, Status};

/// The most jobs that one request may ask for.
const PAGE: usize = 200;

/// List jobs, the newest first
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How many at most
    #[arg(short = 'n', long, default_value_t = 20, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    limit: usize,
    /// Only jobs of this status; may be given again, or as a comma list
    #[arg(short, long = "status", value_name = "STATUS", value_delimiter = ',')]
    statuses: Vec<Status>,
    /// Only jobs of this profile
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Only jobs in this repository
    #[arg(long, value_name = "URL")]
    repo: Option<String>,
    /// Only jobs of this pod
    #[arg(long, value_name = "NAME")]
    pod: Option<String>,
    /// Only jobs since then: a time such as 2026-08-01T10:00:00Z, or how long ago, such as 2h or 3d
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only jobs whose task holds this text
    #[arg(long)]
    text: Option<String>,
}

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let now = Timestamp::now();
    let query = JobQuery {
        limit: None,
        since: args.since.as_deref().map(|s| since(s, now)).transpose()?,
        statuses: args.statuses,
        profile: args.profile,
        repo: args.repo,
        pod: args.pod,
        text: args.text,
        cursor: None,
    };
    let jobs = list(&context.client()?, query, args.limit).await?;
    let output = &context.output;
    output.list(
        &jobs,
        |job| job.id.clone(),
        || rows(&jobs, output.terminal, now),
    )?;
    Ok(ExitCode::Success)
}

/// As many jobs as were asked for, over as many pages as that takes.
async fn list(client: &Client, mut query: JobQuery, limit: usize) -> anyhow::Result<Vec<Record>> {
    let mut jobs: Vec<Record> = Vec::new();
    loop {
        query.limit = Some((limit - jobs.len()).min(PAGE));
        let page = client.list(&query).await?;
        jobs.extend(page.jobs);
        query.cursor = page.next_cursor;
        if query.cursor.is_none() || jobs.len() >= limit {
            jobs.truncate(limit);
            return Ok(jobs);
        }
    }
}

fn since(text: &str, now: Timestamp) -> anyhow::Result<Timestamp> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    let wrong = || {
        UsageError(format!(
            "--since {text:?} is neither a time such as 2026-08-01T10:00:00Z nor a duration such as 2h"
        ))
    };
    let span: Span = text.parse().map_err(|_| wrong())?;
    let at = now.to_zoned(TimeZone::UTC).checked_sub(span.abs());
    Ok(at.with_context(|| wrong().0)?.timestamp())
}

/// On a terminal ids are short and times relative; elsewhere both are whole.
fn rows(jobs: &[Record], terminal: bool, now: Timestamp) -> Rows {
    let row = |job: &Record| {
        let created = match (terminal, job.created_at) {
            (true, at) => {
                text::between(at, Some(now)).map(|age| format!("{} ago", text::duration(age)))
            }
            (false, at) => at.map(text::moment),
        };
        let end = job
            .ended_at
            .or((job.status == Status::Running).then_some(now));
        let took = text::between(job.started_at, end).map(text::duration);
        let id = if terminal {
            job.id.chars().take(8).collect()
        } else {
            job.id.clone()
        };
        let dash =
            |text: Option<String>| text.filter(|t| !t.is_empty()).unwrap_or_else(|| "-".into());
        vec![
            id,
            job.status.to_string(),
            text::line(&dash(Some(job.profile.clone())), 64),
            text::line(&dash(Some(job.pod_name.clone())), 64),
            dash(created),
            dash(took),
            text::line(&job.task, 60),
        ]
    };
    Rows {
        heading: &["ID", "STATUS", "PROFILE", "POD", "CREATED", "TOOK", "TASK"],
        rows: jobs.iter().map(row).collect(),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn since_takes_times_and_durations() {
        let now: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        let of = |text| since(text, now).unwrap().to_string();
        assert_eq!(of("2026-08-01T10:00:00Z"), "2026-08-01T10:00:00Z");
        assert_eq!(of("2h"), "2026-11-22T08:00:00Z");
        assert_eq!(of("3d"), "2026-11-19T10:00:00Z");
        assert_eq!(of("1h 30m"), "2026-11-22T08:30:00Z");
        assert!(since("soon", now).unwrap_err().is::<UsageError>());
    }

    #[test]
    fn rows_fit_their_reader() {
        let now = "2026-11-22T10:02:00Z".parse().unwrap();
        let job = Record {
            id: "0b6ad2a4-6d0a-4f0e-9a49-3d7f4b8f2c11".into(),
            task: "two\nlines\u{7}".into(),
            profile: "code".into(),
            status: Status::Running,
            created_at: Some("2026-11-22T10:00:00Z".parse().unwrap()),
            started_at: Some("2026-11-22T10:01:00Z".parse().unwrap()),
            ..Record::default()
        };
        let of = |terminal| {
            rows(std::slice::from_ref(&job), terminal, now)
                .rows
                .concat()
                .join(" | ")
        };
        assert_eq!(
            of(true),
            "0b6ad2a4 | running | code | - | 2m 00s ago | 1m 00s | two lines\\u{7}"
        );
        assert_eq!(
            of(false),
            "0b6ad2a4-6d0a-4f0e-9a49-3d7f4b8f2c11 | running | code | - | 2026-11-22T10:00:00Z | 1m 00s | two lines\\u{7}"
        );
    }
}
