//! What every store must do, as a suite that runs over each of them.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod claims;
mod reads;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use jiff::Timestamp;

use super::{Claim, Cursor, Filter, Queue, QueueError};
use crate::git::UrlPolicy;
use crate::job::{
    Event, EventBody, Failure, FailureClass, Idempotency, Job, JobId, LogStream, Outcome, PodName,
    Request, RequestBody, RequestPolicy, Requeue, Status,
};
use crate::testing::until;

pub(crate) fn request(task: &str) -> Request {
    let policy = RequestPolicy {
        urls: UrlPolicy { allow_file: false },
        default_profile: "code".parse().unwrap(),
        ttl_seconds: 60,
    };
    RequestBody {
        task: task.into(),
        ..RequestBody::default()
    }
    .parse(&policy)
    .unwrap()
}

pub(crate) fn job(task: &str) -> Job {
    Job::new(JobId::random(), request(task), Timestamp::now())
}

pub(crate) fn pod() -> PodName {
    "pod-0".parse().unwrap()
}

pub(crate) fn log(text: impl Into<String>) -> EventBody {
    EventBody::Log {
        stream: LogStream::Agent,
        text: text.into(),
    }
}

/// Every event of a job.
pub(crate) async fn all_events(queue: &dyn Queue, id: JobId) -> Vec<Event> {
    let (mut all, mut cursor) = (Vec::new(), Cursor::default());
    loop {
        let (page, next) = queue.events(id, cursor).await.unwrap();
        if page.is_empty() {
            return all;
        }
        all.extend(page);
        cursor = next;
    }
}

pub(crate) fn assert_whole(events: &[Event]) {
    let seqs: Vec<u64> = events.iter().map(|e| e.seq).collect();
    assert_eq!(seqs, (1..=events.len() as u64).collect::<Vec<_>>());
    let ends: Vec<usize> = events
        .iter()
        .enumerate()
        .filter(|(_, e)| matches!(e.body, EventBody::End { .. }))
        .map(|(i, _)| i)
        .collect();
    assert!(
        ends.is_empty() || ends == [events.len() - 1],
        "one end, and nothing after it: {ends:?}"
    );
}

fn statuses(events: &[Event]) -> Vec<String> {
    let name = |e: &Event| match &e.body {
        EventBody::Status {
            status,
            attempt,
            reason,
            ..
        } => Some(format!(
            "{status}/{attempt}{}",
            reason.as_ref().map(|r| format!("/{r}")).unwrap_or_default()
        )),
        EventBody::End { status, .. } => Some(format!("end {status}")),
        _ => None,
    };
    events.iter().filter_map(name).collect()
}

/// Runs the whole suite over stores that `open` makes; each is empty.
pub(crate) async fn run<Q: Queue>(open: impl AsyncFn() -> Q) {
    a_job_goes_through_its_life(&open().await).await;
    claims::jobs_are_claimed_in_order_and_once(Arc::new(open().await)).await;
    claims::a_waiting_claim_gets_the_next_job(Arc::new(open().await)).await;
    claims::a_dropped_claim_claims_nothing(&open().await).await;
    claims::a_claim_that_nobody_takes_goes_back(&open().await).await;
    claims::a_lost_claim_writes_nothing(&open().await).await;
    cancelling_works_in_every_state(&open().await).await;
    a_handed_off_job_is_next(&open().await).await;
    the_last_events_come_before_what_ends_the_run(&open().await).await;
    reads::any_event_can_be_the_first_that_is_read(&open().await).await;
    reads::readers_see_every_event_once(Arc::new(open().await)).await;
    reads::lists_are_paged_and_filtered(&open().await).await;
    time_to_live_is_kept(&open().await).await;
    a_key_makes_a_submission_count_once(Arc::new(open().await)).await;
    the_depth_follows_every_step(&open().await).await;
}

pub(crate) async fn claim(queue: &dyn Queue) -> Claim {
    tokio::time::timeout(Duration::from_secs(20), queue.claim(&pod()))
        .await
        .unwrap()
        .unwrap()
}

async fn a_job_goes_through_its_life(queue: &dyn Queue) {
    let job = job("one");
    let id = job.id;
    assert_eq!(queue.submit(job).await.unwrap().status, Status::Queued);
    let Claim { job, lease } = claim(queue).await;
    assert_eq!((job.id, job.attempt), (id, 1));
    assert_eq!(queue.get(id).await.unwrap().pod_name, "pod-0");
    let mut run = job.run.clone();
    run.exit_code = Some(3);
    queue.update(&lease, &run).await.unwrap();
    assert_eq!(
        queue
            .append(&lease, vec![log("a"), log("b")])
            .await
            .unwrap(),
        4
    );
    let failure = Failure::new(FailureClass::Agent, "exit code 3", "look at the log");
    let record = queue
        .finish(&lease, &run, Outcome::Failed(failure), vec![])
        .await
        .unwrap();
    assert_eq!(
        (record.status, record.error.as_deref()),
        (Status::Failed, Some("exit code 3"))
    );
    assert_eq!(queue.get(id).await.unwrap(), record);
    let events = all_events(queue, id).await;
    assert_whole(&events);
    assert_eq!(
        statuses(&events),
        ["queued/0", "running/1", "failed/1", "end failed"]
    );
    assert!(matches!(
        queue.append(&lease, vec![log("late")]).await,
        Err(QueueError::LostClaim(_))
    ));
    assert!(matches!(
        queue.get(JobId::random()).await,
        Err(QueueError::NotFound(_))
    ));
    assert_eq!(queue.find(&id.to_string()[..8], 2).await.unwrap(), [id]);
}

async fn cancelling_works_in_every_state(queue: &dyn Queue) {
    let waiting: JobId = queue
        .submit(job("waits"))
        .await
        .unwrap()
        .id
        .parse()
        .unwrap();
    assert_eq!(
        queue.cancel(waiting).await.unwrap().status,
        Status::Cancelled
    );
    assert_eq!(
        queue.cancel(waiting).await.unwrap().status,
        Status::Cancelled
    );
    assert_whole(&all_events(queue, waiting).await);

    let running: JobId = queue.submit(job("runs")).await.unwrap().id.parse().unwrap();
    let held = claim(queue).await;
    assert_eq!(held.job.id, running, "the cancelled job is not claimed");
    let record = queue.cancel(running).await.unwrap();
    assert_eq!(record.status, Status::Running);
    assert!(record.cancel_requested_at.is_some() && held.lease.cancelled.is_cancelled());
    // The pod dies before it can finish: the wish must hold.
    let record = queue
        .requeue(&held.lease, &held.job.run, Requeue::Reclaimed, vec![])
        .await
        .unwrap();
    assert_eq!(record.status, Status::Cancelled);
    assert_whole(&all_events(queue, running).await);
    assert_eq!(queue.depth().await.queued, 0);
    assert!(matches!(
        queue.cancel(JobId::random()).await,
        Err(QueueError::NotFound(_))
    ));
}

async fn a_handed_off_job_is_next(queue: &dyn Queue) {
    let first = queue.submit(job("first")).await.unwrap().id;
    queue.submit(job("second")).await.unwrap();
    let held = claim(queue).await;
    queue
        .requeue(&held.lease, &held.job.run, Requeue::HandOff, vec![])
        .await
        .unwrap();
    let again = claim(queue).await;
    assert_eq!(
        (
            again.job.id.to_string(),
            again.job.attempt,
            again.job.run.interruptions
        ),
        (first, 2, 0)
    );
}

async fn the_last_events_come_before_what_ends_the_run(queue: &dyn Queue) {
    let id = queue.submit(job("one")).await.unwrap().id.parse().unwrap();
    let first = claim(queue).await;
    let (lease, run) = (&first.lease, &first.job.run);
    let last = vec![log("a"), log("b")];
    queue
        .requeue(lease, run, Requeue::HandOff, last)
        .await
        .unwrap();
    let second = claim(queue).await;
    let (lease, run) = (&second.lease, &second.job.run);
    queue
        .finish(lease, run, Outcome::Succeeded, vec![log("c")])
        .await
        .unwrap();
    let events = all_events(queue, id).await;
    assert_whole(&events);
    let told: Vec<&str> = events
        .iter()
        .map(|event| match &event.body {
            EventBody::Log { text, .. } => text.as_str(),
            EventBody::Status { status, .. } => status.as_str(),
            _ => "end",
        })
        .collect();
    assert_eq!(
        told,
        [
            "queued",
            "running",
            "a",
            "b",
            "queued",
            "running",
            "c",
            "succeeded",
            "end"
        ]
    );
}

async fn time_to_live_is_kept(queue: &dyn Queue) {
    let waits: JobId = queue
        .submit(job("waits"))
        .await
        .unwrap()
        .id
        .parse()
        .unwrap();
    let now = Timestamp::now();
    let later = |s| now + jiff::SignedDuration::from_secs(s);
    assert!(queue.sweep(later(30)).await.unwrap().is_empty());
    assert_eq!(queue.get(waits).await.unwrap().status, Status::Queued);
    assert!(queue.sweep(later(90)).await.unwrap().is_empty());
    assert_eq!(queue.get(waits).await.unwrap().status, Status::Expired);
    assert_whole(&all_events(queue, waits).await);
    let gone = queue.sweep(later(300)).await.unwrap();
    assert_eq!(
        gone.iter().map(|r| r.id.as_str()).collect::<Vec<_>>(),
        [waits.to_string()]
    );
    assert!(matches!(
        queue.get(waits).await,
        Err(QueueError::NotFound(_))
    ));
    // A running job is never forgotten, however long it runs.
    let runs: JobId = queue.submit(job("runs")).await.unwrap().id.parse().unwrap();
    let _held = claim(queue).await;
    queue.sweep(later(100_000)).await.unwrap();
    assert_eq!(queue.get(runs).await.unwrap().status, Status::Running);
}

/// A job submitted under a key.
pub(crate) fn keyed(task: &str, key: &str) -> Job {
    let body = RequestBody {
        task: task.into(),
        ..RequestBody::default()
    };
    let mut job = job(task);
    job.origin.idempotency = Some(Idempotency::of(key, &body, None).unwrap());
    job
}

async fn a_key_makes_a_submission_count_once<Q: Queue>(queue: Arc<Q>) {
    let first = keyed("x", "k");
    let key = first.origin.idempotency.clone().unwrap();
    assert!(queue.submitted(&key).await.unwrap().is_none());
    let first = queue.submit(first).await.unwrap();
    for _ in 0..2 {
        let again = queue.submit(keyed("x", "k")).await.unwrap();
        assert_eq!(again.id, first.id);
    }
    assert_eq!(
        queue.submitted(&key).await.unwrap().map(|r| r.id),
        Some(first.id.clone())
    );
    let reused = queue.submit(keyed("y", "k")).await;
    assert!(
        matches!(&reused, Err(QueueError::KeyReused(id)) if id.to_string() == first.id),
        "{reused:?}"
    );
    assert_eq!(queue.depth().await.queued, 1);

    // Whoever comes at the same time gets the same job, or is told to wait.
    let rivals: Vec<_> = (0..16)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move { queue.submit(keyed("z", "other")).await })
        })
        .collect();
    let mut ids = HashSet::new();
    for rival in rivals {
        match rival.await.unwrap() {
            Ok(record) => drop(ids.insert(record.id)),
            Err(QueueError::KeyInUse) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((ids.len(), queue.depth().await.queued), (1, 2));

    // The key goes with its job.
    let now = Timestamp::now();
    let later = |s| now + jiff::SignedDuration::from_secs(s);
    queue.cancel(first.id.parse().unwrap()).await.unwrap();
    queue.sweep(later(90)).await.unwrap();
    assert!(queue.submitted(&key).await.unwrap().is_none());
    let next = queue.submit(keyed("y", "k")).await.unwrap();
    assert_ne!(next.id, first.id);
}

async fn the_depth_follows_every_step(queue: &dyn Queue) {
    let depth = async || {
        let depth = queue.depth().await;
        (depth.queued, depth.running, depth.oldest.is_some())
    };
    assert_eq!(depth().await, (0, 0, false));
    let first = queue.submit(job("first")).await.unwrap();
    queue.submit(job("second")).await.unwrap();
    assert_eq!(depth().await, (2, 0, true));
    assert_eq!(queue.depth().await.oldest, first.queued_at);
    let held = claim(queue).await;
    assert_eq!(depth().await, (1, 1, true));
    queue
        .requeue(&held.lease, &held.job.run, Requeue::HandOff, vec![])
        .await
        .unwrap();
    assert_eq!(depth().await, (2, 0, true));
    assert!(
        queue.depth().await.oldest < queue.get(held.job.id).await.unwrap().queued_at,
        "the second waits longer than the one that came back"
    );
    let held = claim(queue).await;
    queue
        .finish(&held.lease, &held.job.run, Outcome::Succeeded, vec![])
        .await
        .unwrap();
    assert_eq!(depth().await, (1, 0, true));
    let last = claim(queue).await;
    queue.cancel(last.job.id).await.unwrap();
    assert_eq!(depth().await, (0, 1, false));
    queue
        .requeue(&last.lease, &last.job.run, Requeue::Reclaimed, vec![])
        .await
        .unwrap();
    assert_eq!(depth().await, (0, 0, false));
}
