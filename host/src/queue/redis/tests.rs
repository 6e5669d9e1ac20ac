#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]
//! The store over a real redis-server, started by the test on a free port and ended with it.

mod claiming;
mod keeping;
mod server;

use std::cell::RefCell;
use std::collections::HashSet;
use std::time::Duration;

use self::server::TestRedis;
use super::*;
use crate::job::{EventBody, Status};
use crate::queue::suite::{self, all_events, assert_whole, claim, job, log};
use crate::testing::until;

/// A lease that a busy machine keeps and a test can wait for.
const LEASE: Duration = Duration::from_secs(2);

struct Fleet {
    redis: TestRedis,
    volume: tempfile::TempDir,
}

impl Fleet {
    fn start() -> Option<Self> {
        Some(Self {
            redis: TestRedis::start()?,
            volume: tempfile::tempdir().unwrap(),
        })
    }

    fn settings(&self, pod: &str) -> Settings {
        Settings {
            address: Address::plain(self.redis.url()),
            prefix: "test".into(),
            jobs_dir: self.volume.path().to_owned(),
            shared: true,
            pod: pod.parse().unwrap(),
            slots: 4,
            lease: LEASE,
        }
    }

    async fn pod(&self, name: &str) -> RedisStore {
        RedisStore::open(self.settings(name)).await.unwrap()
    }

    /// Two pods, and a job that the first one runs.
    async fn at_work(&self) -> (RedisStore, RedisStore, JobId, Claim) {
        let (a, b) = (self.pod("pod-0").await, self.pod("pod-1").await);
        let id = a.submit(job("x")).await.unwrap().id.parse().unwrap();
        let held = claim(&a).await;
        (a, b, id, held)
    }

    /// A whole stream in Redis, and the same one on the volume.
    async fn assert_whole(&self, store: &RedisStore, id: JobId) -> Vec<Event> {
        let events = all_events(store, id).await;
        assert_whole(&events);
        let copied = store.inner.mirror.tail(id, u64::MAX).unwrap();
        assert_eq!(copied, events, "the copy on the volume");
        events
    }
}

async fn status(store: &RedisStore, id: JobId) -> Status {
    store.get(id).await.unwrap().status
}

/// The texts that an agent wrote.
fn texts(events: &[Event]) -> Vec<&str> {
    events
        .iter()
        .filter_map(|event| match &event.body {
            EventBody::Log { text, .. } => Some(text.as_str()),
            _ => None,
        })
        .collect()
}

/// Ends a pod as kill -9 would: nothing more is done or said.
fn kill(store: &RedisStore) {
    store._tasks.0.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn passes_the_suite_of_all_stores() {
    let Some(redis) = TestRedis::start() else {
        return;
    };
    let root = tempfile::tempdir().unwrap();
    let count = std::sync::atomic::AtomicU32::new(0);
    suite::run(async || {
        let n = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        RedisStore::open(Settings {
            address: Address::plain(redis.url()),
            prefix: format!("suite-{n}"),
            jobs_dir: root.path().join(n.to_string()),
            shared: true,
            pod: suite::pod(),
            slots: 4,
            lease: Duration::from_secs(30),
        })
        .await
        .unwrap()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_pods_job_runs_again_and_its_old_fence_is_refused() {
    let Some(fleet) = Fleet::start() else { return };
    let (a, b, id, old) = fleet.at_work().await;
    a.append(&old.lease, vec![log("from a")]).await.unwrap();
    kill(&a);
    let new = claim(&b).await;
    assert_eq!(
        (new.job.id, new.job.attempt, new.job.run.interruptions),
        (id, 2, 1)
    );
    for refused in [
        a.append(&old.lease, vec![log("late")]).await.map(drop),
        a.finish(&old.lease, &old.job.run, Outcome::Succeeded, vec![])
            .await
            .map(drop),
    ] {
        assert!(
            matches!(refused, Err(QueueError::LostClaim(_))),
            "{refused:?}"
        );
    }
    assert!(old.lease.lost.is_cancelled());
    b.finish(&new.lease, &new.job.run, Outcome::Succeeded, vec![])
        .await
        .unwrap();
    fleet.assert_whole(&b, id).await;
    until("the dead pod is forgotten", async || {
        (b.pods().len() == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_pod_that_wakes_up_is_told_that_its_jobs_are_gone() {
    let Some(fleet) = Fleet::start() else { return };
    let (a, b, _, old) = fleet.at_work().await;
    // What a pod in SIGSTOP does: nothing; then it goes on where it was.
    kill(&a);
    let new = claim(&b).await;
    assert!(!old.lease.lost.is_cancelled());
    let mut keeper = lease::Keeper::new(a.inner.clone());
    keeper.beat().await;
    assert!(old.lease.lost.is_cancelled());
    assert!(!new.lease.lost.is_cancelled());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_condemned_cannot_renew_its_lease_in_silence() {
    let Some(fleet) = Fleet::start() else { return };
    let (a, b, _, held) = fleet.at_work().await;
    kill(&a);
    kill(&b);
    let mut keeper = lease::Keeper::new(a.inner.clone());
    let condemn = async || lease::condemn(&b.inner, &a.inner.life).await.unwrap();
    let pods = a.inner.keys.pods();
    let over = async || fleet.redis.is_over(pods, &a.inner.life).then_some(());
    assert!(!condemn().await, "its lease is not over");
    // Late, and nobody has decided yet: it goes on.
    until("the lease is over", over).await;
    keeper.beat().await;
    assert!(!held.lease.lost.is_cancelled());
    assert!(!condemn().await, "it was renewed");
    // It was decided, and its jobs are about to be taken back.
    until("the lease is over again", over).await;
    assert!(condemn().await);
    keeper.beat().await;
    assert!(held.lease.lost.is_cancelled());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_lost_redis_and_lives_on_the_volume_keeps_its_jobs() {
    let Some(fleet) = Fleet::start() else { return };
    let (a, b, id, held) = fleet.at_work().await;
    kill(&a);
    // The pod's network is cut: it counts on the volume, and does not reach Redis.
    let mut counter = witness::Counter::new(fleet.volume.path(), &a.inner.life);
    let expired = async || {
        b.pods()
            .iter()
            .any(|pod| pod.life == a.inner.life && pod.expired)
            .then_some(())
    };
    // The other pod renews its own lease a few times since it knows that this one is over, and looks after the dead each time.
    let (counter, seen) = (RefCell::new(&mut counter), RefCell::new(HashSet::new()));
    until("the other pod could have taken it", async || {
        counter.borrow_mut().beat().unwrap();
        expired().await?;
        let pods = b.pods();
        let own = pods.iter().find(|pod| pod.life == b.inner.life)?;
        let mut seen = seen.borrow_mut();
        seen.insert(own.facts.seen_at);
        (seen.len() > 4).then_some(())
    })
    .await;
    assert_eq!(status(&b, id).await, Status::Running, "nobody took it");
    let again = claim(&b).await;
    assert_eq!(
        (again.job.id, again.job.attempt),
        (id, 2),
        "once it counts no more"
    );
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_seen_and_cancelled_from_any_pod() {
    let Some(fleet) = Fleet::start() else { return };
    let (a, b) = (fleet.pod("pod-0").await, fleet.pod("pod-1").await);
    let id: JobId = b.submit(job("x")).await.unwrap().id.parse().unwrap();
    let mut news = b.watch(id).await.unwrap();
    let held = claim(&a).await;
    news.wait_for(|seq| *seq >= 2).await.unwrap();
    assert_eq!(b.get(id).await.unwrap().pod_name, "pod-0");
    b.cancel(id).await.unwrap();
    held.lease.cancelled.cancelled().await;
    let record = a
        .finish(&held.lease, &held.job.run, Outcome::Cancelled, vec![])
        .await
        .unwrap();
    assert_eq!(record.status, Status::Cancelled);
    news.wait_for(|seq| *seq >= 5).await.unwrap();
    let events = fleet.assert_whole(&b, id).await;
    assert!(matches!(events.last().unwrap().body, EventBody::End { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_gone_runs_go_on_and_jobs_are_accepted_once() {
    let Some(mut fleet) = Fleet::start() else {
        return;
    };
    let (a, b) = (fleet.pod("pod-0").await, fleet.pod("pod-1").await);
    let id: JobId = a.submit(job("runs")).await.unwrap().id.parse().unwrap();
    let held = claim(&a).await;
    a.append(&held.lease, vec![log("before")]).await.unwrap();
    fleet.redis.stop(); // It saves what it has.
    a.append(&held.lease, vec![log("meanwhile"), log("and more")])
        .await
        .unwrap();
    let mut run = held.job.run.clone();
    run.exit_code = Some(0);
    a.update(&held.lease, &run).await.unwrap();
    let record = a
        .finish(&held.lease, &run, Outcome::Succeeded, vec![])
        .await
        .unwrap();
    assert_eq!(
        (record.status, record.exit_code),
        (Status::Succeeded, Some(0))
    );
    assert_eq!(
        status(&a, id).await,
        Status::Succeeded,
        "read from the volume"
    );
    assert_eq!(status(&b, id).await, Status::Succeeded, "by any pod");
    let accepted: JobId = b.submit(job("later")).await.unwrap().id.parse().unwrap();
    assert_eq!(status(&a, accepted).await, Status::Queued);
    assert_eq!(
        a.list(&Filter {
            limit: 10,
            ..Filter::default()
        })
        .await
        .unwrap()
        .jobs
        .len(),
        2
    );

    fleet.redis.again();
    let next = claim(&b).await;
    assert_eq!(next.job.id, accepted);
    until("the end is told", async || {
        let (job, _) = reads::load(&b.inner, id).await.ok()?;
        job.state.is_ended().then_some(())
    })
    .await;
    let events = fleet.assert_whole(&b, id).await;
    assert_eq!(texts(&events), ["before", "meanwhile", "and more"]);
    b.finish(&next.lease, &next.job.run, Outcome::Succeeded, vec![])
        .await
        .unwrap();
    fleet.assert_whole(&b, accepted).await;
    until("the spool is empty", async || {
        let left = std::fs::read_dir(fleet.volume.path().join("spool/submit"))
            .unwrap()
            .count();
        (left == 0 && a.depth().await == Depth::default()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pod_kept_before_it_died_is_told_by_another() {
    let Some(mut fleet) = Fleet::start() else {
        return;
    };
    let (a, b, id, held) = fleet.at_work().await;
    fleet.redis.stop();
    a.append(&held.lease, vec![log("kept")]).await.unwrap();
    a.finish(&held.lease, &held.job.run, Outcome::Succeeded, vec![])
        .await
        .unwrap();
    kill(&a);
    fleet.redis.again();
    until("the end is told", async || {
        let (job, _) = reads::load(&b.inner, id).await.ok()?;
        job.state.is_ended().then_some(())
    })
    .await;
    let record = b.get(id).await.unwrap();
    assert_eq!(
        (record.status, record.attempt),
        (Status::Succeeded, 1),
        "it did not run again"
    );
    fleet.assert_whole(&b, id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_redis_is_rebuilt_with_queue_runs_and_streams() {
    let Some(fleet) = Fleet::start() else { return };
    let (a, b) = (fleet.pod("pod-0").await, fleet.pod("pod-1").await);
    let mut ids = Vec::new();
    for n in 0..5 {
        let id: JobId = a
            .submit(job(&n.to_string()))
            .await
            .unwrap()
            .id
            .parse()
            .unwrap();
        ids.push(id);
    }
    let done = claim(&a).await;
    a.finish(&done.lease, &done.job.run, Outcome::Succeeded, vec![])
        .await
        .unwrap();
    let held = claim(&a).await;
    a.append(&held.lease, vec![log("one")]).await.unwrap();
    let handed = claim(&b).await;
    b.requeue(&handed.lease, &handed.job.run, Requeue::HandOff, vec![])
        .await
        .unwrap();

    fleet.redis.flush();
    a.append(&held.lease, vec![log("two")]).await.unwrap();
    until("it is rebuilt", async || {
        (b.depth().await.queued == 3).then_some(())
    })
    .await;
    let page = b
        .list(&Filter {
            limit: 10,
            ..Filter::default()
        })
        .await
        .unwrap();
    assert_eq!(page.jobs.len(), 5);
    for expected in [ids[2], ids[3], ids[4]] {
        let next = claim(&b).await;
        assert_eq!(next.job.id, expected, "in the old order");
        b.finish(&next.lease, &next.job.run, Outcome::Succeeded, vec![])
            .await
            .unwrap();
    }
    assert!(!held.lease.lost.is_cancelled(), "the run goes on");
    a.finish(&held.lease, &held.job.run, Outcome::Succeeded, vec![])
        .await
        .unwrap();
    until("everything is told", async || {
        (b.depth().await == Depth::default()).then_some(())
    })
    .await;
    for id in ids {
        assert_eq!(status(&b, id).await, Status::Succeeded);
        let events = fleet.assert_whole(&b, id).await;
        let ends = events
            .iter()
            .filter(|e| matches!(e.body, EventBody::End { .. }))
            .count();
        assert_eq!(ends, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keys_that_autoscalers_watch_follow_the_jobs() {
    let Some(fleet) = Fleet::start() else { return };
    let pod = fleet.pod("agenticore-3").await;
    let count = async || -> (usize, usize, usize) {
        pod.inner
            .link
            .call("count", async |c| {
                redis::pipe()
                    .llen("test:queue")
                    .scard("test:demand")
                    .llen("test:busy-floor")
                    .query_async(c)
                    .await
            })
            .await
            .unwrap()
    };
    assert_eq!(count().await, (0, 0, 0));
    pod.submit(job("one")).await.unwrap();
    pod.submit(job("two")).await.unwrap();
    assert_eq!(count().await, (2, 2, 0));
    let held = claim(&pod).await;
    assert_eq!(count().await, (1, 2, 4), "pod 3 and all below it must stay");
    pod.finish(&held.lease, &held.job.run, Outcome::Succeeded, vec![])
        .await
        .unwrap();
    assert_eq!(count().await, (1, 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_higher_pod_lets_lower_ones_go_first() {
    let Some(fleet) = Fleet::start() else { return };
    let (high, low) = (
        fleet.pod("agenticore-1").await,
        fleet.pod("agenticore-0").await,
    );
    until("they know each other", async || {
        (high.pods().len() == 2).then_some(())
    })
    .await;
    let waiting = tokio::spawn({
        let high = high.clone();
        async move { claim(&high).await }
    });
    let mut taken = Vec::new();
    for n in 0..3 {
        let first = tokio::spawn({
            let low = low.clone();
            async move { claim(&low).await }
        });
        // The lower pod waits at the queue itself; the higher one only listens for news.
        until("the lower pod waits", async || {
            fleet.redis.clients().contains("cmd=blmove").then_some(())
        })
        .await;
        low.submit(job(&n.to_string())).await.unwrap();
        taken.push(first.await.unwrap());
    }
    assert!(!waiting.is_finished());
    low.submit(job("more")).await.unwrap();
    assert_eq!(
        waiting.await.unwrap().job.request.task,
        "more",
        "when the lower one does not come"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_has_one_writer_and_a_lost_lock_is_told() {
    use crate::git::CloneLock;
    let Some(fleet) = Fleet::start() else { return };
    let (a, b) = (
        fleet.pod("pod-0").await.clone_lock(),
        fleet.pod("pod-1").await.clone_lock(),
    );
    let never = CancellationToken::new();
    let quiet = |_: Duration| {};
    let first = a.acquire("k", &quiet, &never).await.unwrap();
    let waited = std::sync::atomic::AtomicBool::new(false);
    let on_wait = |_: Duration| waited.store(true, std::sync::atomic::Ordering::Relaxed);
    let gave_up = CancellationToken::new();
    gave_up.cancel();
    assert!(b.acquire("k", &on_wait, &gave_up).await.is_err());
    assert!(
        waited.load(std::sync::atomic::Ordering::Relaxed),
        "waiting is visible"
    );
    // Longer than the lease: it is renewed.
    assert!(
        tokio::time::timeout(LEASE * 2, b.acquire("k", &quiet, &never))
            .await
            .is_err()
    );
    drop(first);
    let second = b.acquire("k", &quiet, &never).await.unwrap();
    fleet.redis.flush();
    second.lost().cancelled().await;
    let third = a.acquire("k", &quiet, &never).await.unwrap();
    drop(second);
    assert!(
        tokio::time::timeout(LEASE, b.acquire("k", &quiet, &never))
            .await
            .is_err(),
        "the loser gives up only its own"
    );
    assert!(!third.lost().is_cancelled());
}
