//! Copies whose record is older than their stream.
//!
//! A pod that was stopped between a look at a record and the write of its own may put an old one over a newer one; the stream only grows,
//! so what it tells has happened. What a job is when an emptied Redis gets it back is read from both: a run that was begun is not begun
//! again, and a job that came to its end is over.

use super::change::FIRST;
use crate::job::{Event, EventBody, Record, Status};

/// The record as its stream proves it; none: it says no less than the stream.
pub(super) fn caught_up(record: &Record, events: &[Event]) -> Option<Record> {
    if record.status.is_ended() {
        return None;
    }
    let end = events.iter().rev().find_map(|event| ended(record, event));
    end.or_else(|| begun(record, events)).map(|now| Record {
        version: record.version.max(FIRST) + 1,
        ..now
    })
}

/// A record of a job that nothing happened to, and that has a stream or does not wait all the same: another store wrote it. Redis keeps its
/// events then, which it does not for such a job.
pub(super) fn counted(record: &Record, last: u64) -> Option<Record> {
    let is_fresh = record.version.max(FIRST) == FIRST;
    let is_told = last > 0 || record.status != Status::Queued;
    (is_fresh && is_told).then(|| Record {
        version: FIRST + 1,
        ..record.clone()
    })
}

fn ended(record: &Record, event: &Event) -> Option<Record> {
    let EventBody::End {
        status,
        exit_code,
        failure,
        attempt,
        cost_usd,
        pr_url,
    } = &event.body
    else {
        return None;
    };
    Some(Record {
        status: *status,
        exit_code: *exit_code,
        error: failure.as_ref().map(|failure| failure.message.clone()),
        failure: failure.clone(),
        attempt: *attempt,
        cost_usd: *cost_usd,
        pr_url: pr_url.clone(),
        ended_at: Some(event.ts),
        fence: None,
        ..record.clone()
    })
}

/// A later attempt than the record knows of. Which life runs it the stream does not tell, so it is taken back as that of a dead pod.
fn begun(record: &Record, events: &[Event]) -> Option<Record> {
    let told = events.iter().rev().find_map(|event| match &event.body {
        EventBody::Status {
            status,
            attempt,
            pod,
            reason,
        } => Some((*status, *attempt, (pod, reason), event.ts)),
        _ => None,
    });
    let may_be_cancelled = record.status == Status::Running && record.cancel_requested_at.is_none();
    match told? {
        (Status::Running, attempt, (Some(pod), _), at) if attempt > record.attempt => {
            Some(Record {
                status: Status::Running,
                attempt,
                fence: Some(u64::from(attempt)),
                pod_name: pod.clone(),
                pod_life: None,
                started_at: Some(at),
                ..record.clone()
            })
        }
        (Status::Queued, attempt, _, at) if attempt > record.attempt => Some(Record {
            status: Status::Queued,
            attempt,
            fence: None,
            queued_at: Some(at),
            ..record.clone()
        }),
        // The holder copies what others did with its own next change, and not their record.
        (Status::Running, _, (_, Some(reason)), at)
            if may_be_cancelled && reason == "cancel_requested" =>
        {
            Some(Record {
                cancel_requested_at: Some(at),
                ..record.clone()
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;
    use crate::job::{Fence, Job, State};

    fn queued(attempt: u32) -> Record {
        let mut record = Record::from(&crate::queue::suite::job("x"));
        record.attempt = attempt;
        record.version = 4;
        record
    }

    fn events(bodies: serde_json::Value) -> Vec<Event> {
        serde_json::from_value(bodies).unwrap()
    }

    fn running(seq: u64, attempt: u32) -> serde_json::Value {
        serde_json::json!({"seq": seq, "ts": "2026-01-01T00:00:00Z", "type": "status", "status": "running", "attempt": attempt, "pod": "a"})
    }

    fn end(seq: u64) -> serde_json::Value {
        serde_json::json!({"seq": seq, "ts": "2026-01-01T00:00:09Z", "type": "end", "status": "failed", "exit_code": 3, "attempt": 2,
            "failure": {"class": "agent", "message": "m", "remedy": "r"}, "cost_usd": 0.5})
    }

    #[test]
    fn a_stream_that_has_come_to_its_end_is_believed() {
        let stream = events(serde_json::json!([running(1, 2), end(2)]));
        let now = caught_up(&queued(1), &stream).unwrap();
        assert_eq!((now.version, now.attempt, now.cost_usd), (5, 2, 0.5));
        let job = Job::try_from(now).unwrap();
        let State::Ended { at, outcome, .. } = job.state else {
            panic!("{:?}", job.state);
        };
        assert_eq!(at.to_string(), "2026-01-01T00:00:09Z");
        assert!(matches!(outcome, crate::job::Outcome::Failed(failure) if failure.message == "m"));
    }

    #[test]
    fn an_attempt_that_was_begun_is_not_begun_again() {
        let stream = events(serde_json::json!([running(1, 1), running(2, 2)]));
        let job = Job::try_from(caught_up(&queued(1), &stream).unwrap()).unwrap();
        assert_eq!((job.attempt, job.run.life.as_deref()), (2, None));
        assert_eq!(job.state.fence(), Some(Fence(2)));
    }

    #[test]
    fn an_attempt_that_was_given_back_is_counted() {
        let given = serde_json::json!({"seq": 3, "ts": "2026-01-01T00:00:05Z", "type": "status", "status": "queued", "attempt": 2});
        let stream = events(serde_json::json!([running(2, 2), given]));
        let job = Job::try_from(caught_up(&queued(0), &stream).unwrap()).unwrap();
        assert!(matches!(job.state, State::Queued { .. }), "{:?}", job.state);
        assert_eq!(job.attempt, 2);
    }

    #[test]
    fn a_record_that_knows_as_much_stays_as_it_is() {
        assert_eq!(caught_up(&queued(0), &[]), None);
        let stream = events(serde_json::json!([running(1, 2)]));
        // It was put back, and that is not in the stream yet.
        assert_eq!(caught_up(&queued(2), &stream), None);
        let mut over = queued(2);
        over.status = Status::Cancelled;
        assert_eq!(caught_up(&over, &events(serde_json::json!([end(2)]))), None);
    }
}
