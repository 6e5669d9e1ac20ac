//! What a pod kept of a job for a Redis that was emptied before it heard it.
//!
//! A pod that ends a job, or hands it off, while Redis is away says so in the copy of the record; the events stay in its spool, since
//! Redis numbers them. Where Redis comes back empty the copy is what the job is, and nobody tells the spool any more: its events are
//! added to the copy of the stream before the job is put back.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use super::Mirror;
use super::change::{self, Line};
use super::held::Spool;
use crate::job::{Event, EventBody, Job, Record, State, Status};
use crate::queue::{QueueError, end_event, status_event};

/// Adds to the copy of a job's stream what the record proves and what the spool at `path` has. Returns whether anything was added.
pub(super) fn settle(
    mirror: &Mirror,
    job: &Job,
    record: &Record,
    path: &Path,
    known: &[Event],
) -> Result<bool, QueueError> {
    let lines = missing(job, record, &Spool::read(path), known);
    let last = known.last().map_or(0, |event| event.seq);
    let numbered: Vec<String> = lines
        .iter()
        .zip(last + 1..)
        .map(|(line, seq)| change::numbered(seq, line))
        .collect();
    if !numbered.is_empty() {
        mirror.append(job.id, &numbered)?;
    }
    // Whoever kept it holds the job no more, so it would stay for ever.
    drop(fs::remove_file(path));
    Ok(!numbered.is_empty())
}

/// The events that a stream lacks, without their numbers: those that were kept, and the one that says what became of the run.
fn missing(job: &Job, record: &Record, kept: &[Line], known: &[Event]) -> Vec<String> {
    let is_end = |event: &Event| matches!(event.body, EventBody::End { .. });
    if matches!(job.state, State::Running { .. }) || known.last().is_some_and(is_end) {
        return Vec::new();
    }
    let attempt: Vec<&Line> = kept.iter().filter(|line| line.is_of(job.attempt)).collect();
    let told: HashSet<String> = known
        .iter()
        .map(|event| change::unnumbered(event.ts, event.body.clone()))
        .collect();
    let mut lines: Vec<String> = attempt
        .iter()
        .flat_map(|line| line.events())
        .filter(|line| !told.contains(*line))
        .cloned()
        .collect();
    let says = |status: Status| {
        let last = known.last().map(|event| &event.body);
        matches!(last, Some(EventBody::Status { status: last, .. }) if *last == status)
    };
    match &job.state {
        State::Ended { at, .. } => {
            if !says(record.status) {
                lines.push(change::unnumbered(*at, status_event(job, None)));
            }
            lines.push(change::unnumbered(*at, end_event(record)));
        }
        State::Queued { since } => {
            let why = attempt.iter().find_map(|line| line.requeue());
            if why.is_some() && !says(Status::Queued) {
                lines.push(change::unnumbered(*since, status_event(job, why)));
            }
        }
        State::Running { .. } => {}
    }
    lines
}
