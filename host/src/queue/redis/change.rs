//! What happens to a job, worked out before anybody is asked: the job after it, its record, and the events that tell of it. Pure.

use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;

use jiff::Timestamp;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::to_string;
use serde_json::value::RawValue;

use super::scripts::{Kind, NewRecord, Outstanding, Place};
use crate::job::{
    Event, EventBody, Fence, Job, Outcome, Record, Requeue, Run, State, Status, Transition,
};
use crate::queue::{QueueError, end_event, status_event};
use crate::telemetry;

/// How much longer than its time to live an ended job stays in Redis if nobody sweeps it away.
const MARGIN_SECONDS: u64 = 86_400;

/// What happens to a job.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// It has more events; each is a line without its number, as [`unnumbered`] makes it.
    Events(Vec<String>),
    /// What is known of its run.
    Run(Box<Run>),
    /// Its state changes.
    Move(Box<Move>),
}

/// A change of a job's state.
#[derive(Debug, Clone)]
pub(super) struct Move {
    pub(super) transition: Transition,
    /// What is known of its run by then.
    run: Option<Run>,
    /// What the event says of why.
    reason: Option<String>,
    /// Events that come before that one, as in [`Change::Events`].
    last: Vec<String>,
}

/// A job after a change.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) job: Job,
    /// None: it is unchanged.
    pub(super) record: Option<Record>,
    /// The record as JSON, empty where it is unchanged.
    pub(super) json: String,
    pub(super) events: Vec<String>,
    pub(super) place: Place,
    pub(super) drop_claim: bool,
    pub(super) outstanding: Outstanding,
    pub(super) kind: Kind,
}

impl Next {
    /// Leaves the events to Redis where the change was made `before`: theirs need not be the last numbers any more.
    pub(super) fn forget_numbers(&mut self, before: bool) {
        if before {
            self.events.clear();
        }
    }
}

impl Change {
    /// Counts the change, once Redis has it.
    pub(super) fn count(&self, before: &Job, after: &Job) {
        if let Self::Move(moved) = self {
            telemetry::moved(&before.state, &moved.transition, after);
        }
    }

    /// A transition that is not the end of a run.
    pub(super) fn transition(transition: Transition, reason: Option<String>) -> Self {
        Self::Move(Box::new(Move {
            transition,
            run: None,
            reason,
            last: Vec::new(),
        }))
    }

    pub(super) fn finish(fence: Fence, run: &Run, outcome: Outcome, last: Vec<EventBody>) -> Self {
        let at = Timestamp::now();
        Self::Move(Box::new(Move {
            transition: Transition::Finish { fence, outcome, at },
            run: Some(run.clone()),
            reason: None,
            last: texts(last),
        }))
    }

    pub(super) fn requeue(
        fence: Fence,
        run: Option<&Run>,
        why: Requeue,
        last: Vec<EventBody>,
    ) -> Self {
        let at = Timestamp::now();
        Self::Move(Box::new(Move {
            transition: Transition::Requeue { fence, why, at },
            run: run.cloned(),
            reason: Some(why.as_str().to_owned()),
            last: texts(last),
        }))
    }

    pub(super) fn events(bodies: Vec<EventBody>) -> Self {
        Self::Events(texts(bodies))
    }

    /// Whether the claim is over with it.
    pub(super) fn ends_claim(&self) -> bool {
        let Self::Move(moved) = self else {
            return false;
        };
        matches!(
            moved.transition,
            Transition::Finish { .. } | Transition::Requeue { .. }
        )
    }

    /// The job after it, when `version` is the record's now.
    pub(super) fn apply(&self, job: &Job, version: u64) -> Result<Next, QueueError> {
        let mut job = job.clone();
        match self {
            Self::Events(events) => Ok(Next {
                job,
                record: None,
                json: String::new(),
                events: events.clone(),
                place: Place::Stay,
                drop_claim: false,
                outstanding: Outstanding::Stay,
                kind: Kind::Events,
            }),
            Self::Run(run) => {
                set_run(&mut job, run);
                let record = record(&job, version);
                Ok(Next {
                    json: json(&record)?,
                    record: Some(record),
                    job,
                    events: Vec::new(),
                    place: Place::Stay,
                    drop_claim: false,
                    outstanding: Outstanding::Stay,
                    kind: Kind::Run,
                })
            }
            Self::Move(moved) => {
                let Move {
                    transition,
                    run,
                    reason,
                    last,
                } = moved.as_ref();
                let was_queued = matches!(job.state, State::Queued { .. });
                let first = (was_queued && version == FIRST).then(|| first_event(&job));
                if let Some(run) = run {
                    set_run(&mut job, run);
                }
                job.apply(transition)?;
                let record = record(&job, version);
                let ended = job.state.is_ended();
                let at = Timestamp::now();
                let reason = reason.as_deref().filter(|_| !ended);
                let mut events: Vec<String> = first.into_iter().chain(last.clone()).collect();
                events.push(unnumbered(at, status_event(&job, reason)));
                if ended {
                    events.push(unnumbered(at, end_event(&record)));
                }
                let queued = matches!(job.state, State::Queued { .. });
                Ok(Next {
                    place: match (was_queued, queued) {
                        (false, true) => Place::Front,
                        (true, false) if ended => Place::Out,
                        _ => Place::Stay,
                    },
                    drop_claim: !was_queued && (queued || ended),
                    outstanding: if ended {
                        Outstanding::Out
                    } else {
                        Outstanding::Stay
                    },
                    kind: match transition {
                        Transition::Cancel { .. } if !ended => Kind::Cancel,
                        _ if queued => Kind::Queued,
                        _ => Kind::Status,
                    },
                    json: json(&record)?,
                    record: Some(record),
                    events,
                    job,
                })
            }
        }
    }
}

/// Whose the claim is does not change with what is known of its run.
fn set_run(job: &mut Job, run: &Run) {
    let life = job.run.life.take();
    job.run = run.clone();
    job.run.life = life;
}

/// The record of a job whose version was `before`.
pub(super) fn record(job: &Job, before: u64) -> Record {
    let mut record = Record::from(job);
    record.version = before + 1;
    record
}

/// The version of the record of a job that nothing happened to. Its one event is not stored: [`first_event`] says what it is.
pub(super) const FIRST: u64 = 1;

/// The first event of a job, which follows from its record.
pub(super) fn first_event(job: &Job) -> String {
    let body = EventBody::Status {
        status: Status::Queued,
        attempt: 0,
        pod: None,
        reason: None,
    };
    unnumbered(job.created_at, body)
}

/// The record as the volume keeps it.
pub(super) fn json(record: &Record) -> Result<String, QueueError> {
    to_string(record).map_err(unwritable)
}

fn unwritable(error: serde_json::Error) -> QueueError {
    QueueError::Redis {
        doing: "write the record of a job",
        address: String::new(),
        detail: error.to_string(),
    }
}

/// A fence as Redis compares it: which attempt, and whose.
pub(super) fn token(fence: Fence, life: &str) -> String {
    format!("{}@{life}", fence.0)
}

/// The life that runs a job, or ran it last. A job of an embedded store has none; its runs are taken back as those of a dead pod.
pub(super) fn life_of(job: &Job) -> &str {
    job.run.life.as_deref().unwrap_or(NO_LIFE)
}

/// Stands for the life that runs a job where that is not known.
pub(super) const NO_LIFE: &str = "unknown";

/// The place of a job in the index.
pub(super) fn score(job: &Job) -> i64 {
    job.created_at.as_microsecond()
}

/// What Redis keeps of a record; `json` is all of it.
pub(super) fn stored(job: &Job, record: &Record, json: &str) -> Result<NewRecord, QueueError> {
    let json = compact(record, json).map_err(unwritable)?;
    let ttl = job.request.ttl_seconds;
    let from = match &job.state {
        State::Queued { since } => Some(*since),
        State::Running { .. } => None,
        State::Ended { at, .. } => Some(*at),
    };
    let due = |from: Timestamp| {
        from.as_millisecond().saturating_add(
            i64::try_from(ttl)
                .unwrap_or(i64::MAX / 2_000)
                .saturating_mul(1_000),
        )
    };
    Ok(NewRecord {
        json,
        status: match record.status {
            Status::Queued => "",
            status => status.as_str(),
        },
        due: from.map(due),
        expires: job
            .state
            .is_ended()
            .then(|| ttl.saturating_add(MARGIN_SECONDS).min(u64::from(u32::MAX))),
        session: record.session_id.clone(),
        fence: (job.state.fence()).map(|fence| token(fence, life_of(job))),
    })
}

/// The record without the fields that say nothing, which is most of them while a job waits: a queue of many thousand is memory of Redis.
/// Its id is that of its key, its version the first where none is named.
fn compact(record: &Record, full: &str) -> serde_json::Result<String> {
    static BLANK: LazyLock<HashMap<String, String>> = LazyLock::new(|| {
        let blank = serde_json::from_str::<Record>("{}").and_then(|blank| to_string(&blank));
        let blank = blank.unwrap_or_default();
        let fields = serde_json::from_str::<Fields<'_>>(&blank).map(|fields| fields.0);
        let fields = fields.unwrap_or_default().into_iter();
        fields
            .map(|(name, value)| (name.to_owned(), value.get().to_owned()))
            .collect()
    });
    let is_fresh = record.queued_at == record.created_at;
    let mut json = String::with_capacity(full.len());
    for (name, value) in serde_json::from_str::<Fields<'_>>(full)?.0 {
        let follows = match name {
            "id" => true,
            "queued_at" => is_fresh,
            "version" => record.version == FIRST,
            _ => false,
        };
        if !follows && BLANK.get(name).map(String::as_str) != Some(value.get()) {
            json.push(if json.is_empty() { '{' } else { ',' });
            json.push('"');
            json.push_str(name);
            json.push_str("\":");
            json.push_str(value.get());
        }
    }
    json.push_str(if json.is_empty() { "{}" } else { "}" });
    Ok(json)
}

/// The record of a job from what Redis keeps of it.
pub(super) fn unpack(id: &str, json: &str) -> Result<Record, QueueError> {
    let record = serde_json::from_str::<Record>(json).map_err(|e| QueueError::Damaged {
        path: id.into(),
        problem: e.to_string(),
    })?;
    let waits = record.status == Status::Queued;
    Ok(Record {
        id: id.to_owned(),
        version: record.version.max(FIRST),
        queued_at: record.queued_at.or(record.created_at.filter(|_| waits)),
        ..record
    })
}

/// The names and values of an object, in their order and as they are written.
struct Fields<'a>(Vec<(&'a str, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Vec<(&'de str, &'de RawValue)>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::with_capacity(64);
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Object).map(Self)
    }
}

const HEAD: &str = r#"{"seq":0,"#;

fn texts(bodies: Vec<EventBody>) -> Vec<String> {
    let ts = Timestamp::now();
    bodies
        .into_iter()
        .map(|body| unnumbered(ts, body))
        .collect()
}

/// An event's line without the number, which the store gives: the text after `{"seq":N,`.
pub(super) fn unnumbered(ts: Timestamp, body: EventBody) -> String {
    let event = Event { seq: 0, ts, body };
    let line = serde_json::to_string(&event).unwrap_or_default();
    line.strip_prefix(HEAD).map(str::to_owned).unwrap_or(line)
}

/// The whole line of event number `seq`.
pub(super) fn numbered(seq: u64, rest: &str) -> String {
    format!(r#"{{"seq":{seq},{rest}"#)
}

/// A change as the spool keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Line {
    /// Its name.
    pub(super) name: String,
    /// The fence of the claim it was made under.
    pub(super) fence: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    events: Vec<String>,
    /// The job after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    record: Option<Box<Record>>,
    /// Set when the job went back to the queue, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    requeue: Option<String>,
}

impl Line {
    pub(super) fn new(name: &str, fence: Fence, change: &Change, after: &Job) -> Self {
        let (events, requeue) = match change {
            Change::Events(events) => (events.clone(), None),
            Change::Run(_) => (Vec::new(), None),
            Change::Move(moved) => match moved.transition {
                Transition::Requeue { why, .. } => {
                    (moved.last.clone(), Some(why.as_str().to_owned()))
                }
                _ => (moved.last.clone(), None),
            },
        };
        let only_events = matches!(change, Change::Events(_));
        Self {
            name: name.to_owned(),
            fence: fence.0,
            record: (!only_events).then(|| Box::new(Record::from(after))),
            events,
            requeue,
        }
    }

    /// Whether it was kept in this attempt: the number of an attempt is that of its fence.
    pub(super) fn is_of(&self, attempt: u32) -> bool {
        self.fence == u64::from(attempt)
    }

    /// Its events, without their numbers.
    pub(super) fn events(&self) -> &[String] {
        &self.events
    }

    /// Why the job went back to the queue, where it did.
    pub(super) fn requeue(&self) -> Option<&str> {
        self.requeue.as_deref()
    }

    /// The change again.
    pub(super) fn change(self) -> Result<Change, String> {
        let fence = Fence(self.fence);
        let Some(record) = self.record else {
            return Ok(Change::Events(self.events));
        };
        let job = Job::try_from(*record)?;
        let run = job.run;
        let (transition, reason) = match (job.state, self.requeue) {
            (_, Some(why)) => {
                let why = if why == Requeue::HandOff.as_str() {
                    Requeue::HandOff
                } else {
                    Requeue::Reclaimed
                };
                let at = Timestamp::now();
                let reason = Some(why.as_str().to_owned());
                (Transition::Requeue { fence, why, at }, reason)
            }
            (State::Ended { at, outcome, .. }, None) => {
                (Transition::Finish { fence, outcome, at }, None)
            }
            (_, None) => return Ok(Change::Run(Box::new(run))),
        };
        Ok(Change::Move(Box::new(Move {
            transition,
            run: Some(run),
            reason,
            last: self.events,
        })))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::job::{Failure, FailureClass};
    use crate::queue::suite;

    fn running() -> Job {
        let mut job = suite::job("x");
        let claim = Transition::Claim {
            pod: suite::pod(),
            fence: Fence(1),
            at: Timestamp::now(),
        };
        job.apply(&claim).unwrap();
        job
    }

    #[test]
    fn a_record_without_what_says_nothing_is_the_same_record() {
        let mut job = running();
        job.run.exit_code = Some(0);
        for (job, before) in [(suite::job("x"), FIRST - 1), (suite::job("x"), 1), (job, 1)] {
            let record = record(&job, before);
            let json = compact(&record, &to_string(&record).unwrap()).unwrap();
            assert!(!json.contains("null") && !json.contains("[]"), "{json}");
            assert_eq!(unpack(&record.id, &json).unwrap(), record);
        }
    }

    #[test]
    fn a_number_makes_a_whole_event() {
        let event = Event {
            seq: 17,
            ts: Timestamp::now(),
            body: suite::log("a\nb"),
        };
        let line = numbered(17, &unnumbered(event.ts, event.body.clone()));
        assert_eq!(line, serde_json::to_string(&event).unwrap());
    }

    #[test]
    fn places_follow_from_what_happened() {
        let fence = Fence(1);
        let requeued = Change::requeue(fence, None, Requeue::HandOff, vec![])
            .apply(&running(), 4)
            .unwrap();
        assert_eq!((requeued.place, requeued.drop_claim), (Place::Front, true));
        assert_eq!(requeued.record.unwrap().version, 5);
        let at = Timestamp::now();
        let cancel = Change::transition(Transition::Cancel { at }, None);
        let waiting = cancel.apply(&suite::job("x"), FIRST).unwrap();
        assert_eq!(
            (
                waiting.place,
                waiting.drop_claim,
                waiting.outstanding,
                waiting.events.len()
            ),
            // With the first one, which was not stored.
            (Place::Out, false, Outstanding::Out, 3)
        );
        let wished = cancel.apply(&running(), 1).unwrap();
        assert_eq!((wished.place, wished.kind), (Place::Stay, Kind::Cancel));
    }

    #[test]
    fn the_spool_gives_back_what_it_was_given() {
        let job = running();
        let mut run = job.run.clone();
        run.exit_code = Some(3);
        let failure = Failure::new(FailureClass::Agent, "exit code 3", "look");
        let changes = [
            Change::events(vec![suite::log("x")]),
            Change::Run(Box::new(run.clone())),
            Change::finish(
                Fence(1),
                &run,
                Outcome::Failed(failure),
                vec![suite::log("y")],
            ),
            Change::requeue(
                Fence(1),
                Some(&run),
                Requeue::HandOff,
                vec![suite::log("z")],
            ),
        ];
        for change in changes {
            let after = change.apply(&job, 1).unwrap();
            let line = Line::new("n", Fence(1), &change, &after.job);
            let text = serde_json::to_string(&line).unwrap();
            let again: Line = serde_json::from_str(&text).unwrap();
            let again = again.change().unwrap().apply(&job, 1).unwrap();
            assert_eq!(again.job.run, after.job.run);
            assert_eq!(again.job.state.name(), after.job.state.name());
            assert_eq!(again.events.len(), after.events.len());
        }
    }
}
