//! Whether a fleet kept its promises, from what its agents did themselves, its records and its event streams.
//!
//! - Every accepted job has a record, and the record says that it is over.
//! - Its events are numbered from 1 without a gap, and the last one, and no other, is its end; it says what the record says, and follows
//!   the change of the status that the pod made with it.
//! - No attempt ran twice, and none ran that the record does not know.
//! - A job that succeeded has an attempt that came to its end.
//! - **No two attempts overlap**: the first line of a later attempt is not before the last line of an earlier one. Lines that an
//!   earlier attempt wrote while its pod was frozen, or in the moment after it woke up, do not count ([`Frozen`]): nobody can stop
//!   a process that does not run, and what it does next it does before anybody can tell it.
//! - Nothing that was asked for once became two jobs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use crate::ledger::{Deed, Entry};
use crate::{number, text};

/// Everything that is known of a run of a fleet.
#[derive(Debug, Default, Clone)]
pub struct History {
    /// The jobs whose submitters were told that they are accepted.
    pub accepted: BTreeSet<String>,
    /// Every job that has a record at the end, by its id.
    pub jobs: BTreeMap<String, Seen>,
    /// What agents wrote down.
    pub ledger: Vec<Entry>,
    /// When pods were frozen.
    pub frozen: Vec<Frozen>,
}

/// A job as it is seen at the end.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its record.
    pub record: Value,
    /// Its events.
    pub events: Vec<Value>,
}

/// A time in which what a pod's agents did does not count: it was frozen, or had just woken up.
#[derive(Debug, Clone)]
pub struct Frozen {
    /// Whose.
    pub instance: String,
    /// From when.
    pub from: Duration,
    /// Until when.
    pub until: Duration,
}

/// A promise that was broken, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The job.
    pub job: String,
    /// Which promise.
    pub kind: Kind,
    /// The particulars.
    pub detail: String,
}

/// Which promise was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An accepted job is gone.
    Lost,
    /// A job is not over.
    NotEnded,
    /// Its events are not numbered from 1 without gaps.
    Gap,
    /// It has no end, more than one, or one that is not the last event.
    Ends,
    /// Its end and its record say different things.
    Disagrees,
    /// What its pod said with the end is not there.
    Untold,
    /// One attempt ran twice.
    Twice,
    /// Two attempts were alive at once.
    Overlap,
    /// An attempt ran that the record does not know.
    Unknown,
    /// It succeeded without any attempt that came to its end.
    Hollow,
    /// One request became two jobs.
    Duplicate,
}

/// Every promise that was broken.
#[must_use]
pub fn check(history: &History) -> Vec<Violation> {
    let mut found = Found::default();
    for id in &history.accepted {
        if !history.jobs.contains_key(id) {
            found.add(id, Kind::Lost, "it was accepted and has no record".into());
        }
    }
    let runs = runs(&history.ledger);
    for (id, seen) in &history.jobs {
        record_and_events(id, seen, &mut found);
        if let Some(attempts) = runs.get(id.as_str()) {
            attempts_of(id, attempts, history, seen, &mut found);
        } else if status(&seen.record) == "succeeded" {
            found.add(id, Kind::Hollow, "no attempt wrote anything".into());
        }
    }
    duplicates(history, &mut found);
    found.0
}

#[derive(Default)]
struct Found(Vec<Violation>);

impl Found {
    fn add(&mut self, job: &str, kind: Kind, detail: String) {
        self.0.push(Violation {
            job: job.to_owned(),
            kind,
            detail,
        });
    }
}

fn record_and_events(id: &str, seen: &Seen, found: &mut Found) {
    let status = status(&seen.record);
    if matches!(status, "queued" | "running" | "") {
        found.add(id, Kind::NotEnded, format!("its record says {status:?}"));
        return;
    }
    let seqs: Vec<u64> = seen.events.iter().map(|e| number(e, "seq")).collect();
    if !seqs.iter().copied().eq(1..=seqs.len() as u64) {
        found.add(id, Kind::Gap, format!("its events are {seqs:?}"));
    }
    let is_end = |event: &&Value| text(event, "type") == "end";
    let ends: Vec<&Value> = seen.events.iter().filter(is_end).collect();
    match (ends.as_slice(), seen.events.last()) {
        ([end], Some(last)) if last == *end => {
            let before = seen.events.iter().nth_back(1);
            let is_told = |event: &Value| {
                text(event, "type") == "status" && text(event, "status") == text(end, "status")
            };
            if !before.is_some_and(is_told) {
                let detail = format!("the end follows {before:?}");
                found.add(id, Kind::Untold, detail);
            }
            let same =
                text(end, "status") == status && number(end, "attempt") == attempt(&seen.record);
            if !same {
                let detail = format!("{end} and a record of attempt {}", attempt(&seen.record));
                found.add(id, Kind::Disagrees, detail);
            }
        }
        (ends, _) => {
            let detail = format!("{} ends in {} events", ends.len(), seqs.len());
            found.add(id, Kind::Ends, detail);
        }
    }
}

/// What the attempts of each job wrote.
type Runs<'a> = BTreeMap<&'a str, BTreeMap<u32, Vec<&'a Entry>>>;

fn runs(ledger: &[Entry]) -> Runs<'_> {
    let mut runs = Runs::new();
    for entry in ledger {
        let attempts = runs.entry(entry.job.as_str()).or_default();
        attempts.entry(entry.attempt).or_default().push(entry);
    }
    runs
}

fn attempts_of(
    id: &str,
    attempts: &BTreeMap<u32, Vec<&Entry>>,
    history: &History,
    seen: &Seen,
    found: &mut Found,
) {
    let deeds = |deed: Deed| {
        attempts.iter().map(move |(number, entries)| {
            (*number, entries.iter().filter(|e| e.deed == deed).count())
        })
    };
    for (number, starts) in deeds(Deed::Start) {
        if starts > 1 {
            found.add(
                id,
                Kind::Twice,
                format!("attempt {number} started {starts} times"),
            );
        }
        if u64::from(number) > attempt(&seen.record) {
            let detail = format!("attempt {number} of {}", attempt(&seen.record));
            found.add(id, Kind::Unknown, detail);
        }
    }
    if status(&seen.record) == "succeeded" && deeds(Deed::End).all(|(_, ends)| ends == 0) {
        found.add(id, Kind::Hollow, "no attempt came to its end".into());
    }
    let counts = |entry: &&&Entry| {
        !history.frozen.iter().any(|frozen| {
            frozen.instance == entry.instance && (frozen.from..=frozen.until).contains(&entry.at)
        })
    };
    let mut last: Option<(u32, Duration)> = None;
    for (number, entries) in attempts {
        let first = entries.iter().map(|e| e.at).min();
        if let (Some((earlier, last)), Some(first)) = (last, first)
            && first < last
        {
            let detail = format!(
                "attempt {number} began at {first:?}, and attempt {earlier} still wrote at {last:?}"
            );
            found.add(id, Kind::Overlap, detail);
        }
        let own = entries.iter().filter(counts).map(|e| e.at).max();
        if let Some(own) = own.filter(|own| last.is_none_or(|(_, at)| *own >= at)) {
            last = Some((*number, own));
        }
    }
}

/// Tasks are different from each other, so two jobs of one task were one request.
fn duplicates(history: &History, found: &mut Found) {
    let mut tasks: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (id, seen) in &history.jobs {
        tasks
            .entry(text(&seen.record, "task"))
            .or_default()
            .push(id);
    }
    for ids in tasks.values() {
        if let [first, _, ..] = ids.as_slice() {
            found.add(first, Kind::Duplicate, format!("one task, jobs {ids:?}"));
        }
    }
}

fn status(record: &Value) -> &str {
    text(record, "status")
}

fn attempt(record: &Value) -> u64 {
    number(record, "attempt")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(pod: &str, attempt: u32, deed: Deed, at: u64) -> Entry {
        Entry {
            instance: pod.into(),
            job: "j".into(),
            attempt,
            deed,
            at: Duration::from_millis(at),
        }
    }

    /// One job: attempt 1 on pod a was cut short, attempt 2 on pod b came to its end.
    fn good() -> History {
        let events = json!([
            {"seq": 1, "type": "status", "status": "queued"},
            {"seq": 2, "type": "status", "status": "running"},
            {"seq": 3, "type": "status", "status": "succeeded"},
            {"seq": 4, "type": "end", "status": "succeeded", "attempt": 2},
        ]);
        let seen = Seen {
            record: json!({"status": "succeeded", "attempt": 2, "task": "t"}),
            events: events.as_array().unwrap().clone(),
        };
        History {
            accepted: ["j".to_owned()].into(),
            jobs: [("j".to_owned(), seen)].into(),
            ledger: vec![
                entry("a", 1, Deed::Start, 100),
                entry("a", 1, Deed::Tick, 150),
                entry("b", 2, Deed::Start, 9_000),
                entry("b", 2, Deed::Tick, 9_050),
                entry("b", 2, Deed::End, 9_100),
            ],
            frozen: Vec::new(),
        }
    }

    fn kinds(history: &History) -> Vec<Kind> {
        check(history).into_iter().map(|v| v.kind).collect()
    }

    /// The good history with one thing changed.
    fn bad(change: impl FnOnce(&mut History)) -> Vec<Kind> {
        let mut history = good();
        change(&mut history);
        kinds(&history)
    }

    fn job(history: &mut History) -> &mut Seen {
        history.jobs.get_mut("j").unwrap()
    }

    fn set(history: &mut History, field: &str, value: Value) {
        let record = job(history).record.as_object_mut().unwrap();
        record.insert(field.into(), value);
    }

    #[test]
    fn a_history_in_which_every_promise_is_kept_passes() {
        assert_eq!(check(&good()), []);
    }

    #[test]
    fn a_job_that_is_gone_or_not_over_is_found() {
        assert_eq!(bad(|h| h.jobs.clear()), [Kind::Lost]);
        for status in ["running", "queued"] {
            assert_eq!(bad(|h| set(h, "status", json!(status))), [Kind::NotEnded]);
        }
    }

    #[test]
    fn a_gap_a_repeated_and_a_swapped_event_are_found() {
        assert_eq!(bad(|h| drop(job(h).events.remove(1))), [Kind::Gap]);
        let repeated = bad(|h| {
            let again = job(h).events[1].clone();
            job(h).events.insert(1, again);
        });
        assert_eq!(repeated, [Kind::Gap]);
        assert_eq!(bad(|h| job(h).events.swap(0, 1)), [Kind::Gap]);
    }

    #[test]
    fn no_end_two_ends_and_an_event_after_the_end_are_found() {
        assert_eq!(bad(|h| drop(job(h).events.pop())), [Kind::Ends]);
        let two = bad(|h| {
            let mut end = job(h).events[3].clone();
            end["seq"] = json!(5);
            job(h).events.push(end);
        });
        assert_eq!(two, [Kind::Ends]);
        let after = bad(|h| job(h).events.push(json!({"seq": 5, "type": "log"})));
        assert_eq!(after, [Kind::Ends]);
    }

    #[test]
    fn an_end_that_contradicts_the_record_is_found() {
        assert_eq!(
            bad(|h| set(h, "status", json!("failed"))),
            [Kind::Disagrees]
        );
        assert_eq!(bad(|h| set(h, "attempt", json!(3))), [Kind::Disagrees]);
    }

    #[test]
    fn an_end_without_the_status_that_was_told_with_it_is_found() {
        let untold = bad(|h| {
            drop(job(h).events.remove(2));
            job(h).events[2]["seq"] = json!(3);
        });
        assert_eq!(untold, [Kind::Untold]);
    }

    #[test]
    fn an_attempt_that_ran_twice_or_that_nobody_knows_is_found() {
        let twice = bad(|h| h.ledger.insert(3, entry("c", 2, Deed::Start, 9_020)));
        assert_eq!(twice, [Kind::Twice]);
        let unknown = bad(|h| h.ledger.push(entry("c", 3, Deed::Start, 9_500)));
        assert_eq!(unknown, [Kind::Unknown]);
    }

    #[test]
    fn attempts_that_overlap_are_found() {
        let overlap = |at| bad(move |h| h.ledger.push(entry("a", 1, Deed::Tick, at)));
        assert_eq!(overlap(9_010), [Kind::Overlap]);
        assert_eq!(overlap(9_000), [], "one ends as the other begins");
        // Also one that is two attempts back.
        let far = bad(|h| {
            h.ledger.push(entry("a", 1, Deed::Tick, 20_000));
            h.ledger.push(entry("c", 3, Deed::Start, 19_000));
            set(h, "attempt", json!(3));
            job(h).events[3]["attempt"] = json!(3);
        });
        assert_eq!(far, [Kind::Overlap, Kind::Overlap]);
    }

    #[test]
    fn what_a_frozen_pod_does_as_it_wakes_up_is_no_overlap_and_what_it_does_later_is() {
        let woke = |instance: &str, at| {
            let instance = instance.to_owned();
            bad(move |h| {
                h.ledger.push(entry("a", 1, Deed::Tick, at));
                h.frozen.push(Frozen {
                    instance,
                    from: Duration::from_millis(160),
                    until: Duration::from_millis(10_000),
                });
            })
        };
        assert_eq!(woke("a", 9_500), []);
        assert_eq!(woke("a", 10_500), [Kind::Overlap]);
        assert_eq!(woke("b", 9_500), [Kind::Overlap], "another pod was frozen");
    }

    #[test]
    fn a_success_that_no_attempt_earned_is_found() {
        assert_eq!(bad(|h| drop(h.ledger.pop())), [Kind::Hollow]);
        assert_eq!(bad(|h| h.ledger.clear()), [Kind::Hollow]);
    }

    #[test]
    fn a_request_that_became_two_jobs_is_found() {
        let two = bad(|h| {
            let copy = job(h).clone();
            h.jobs.insert("k".into(), copy);
            let entries: Vec<Entry> = h.ledger.clone();
            h.ledger.extend(entries.into_iter().map(|mut e| {
                e.job = "k".into();
                e
            }));
        });
        assert_eq!(two, [Kind::Duplicate]);
    }
}
