//! Claims on their way: answers that are lost, pods that sleep, a store that forgets.

use super::*;
use crate::queue::files;

#[tokio::test(flavor = "multi_thread")]
async fn a_change_whose_answer_was_lost_is_not_made_twice() {
    let Some(fleet) = Fleet::start() else { return };
    let a = fleet.pod("pod-0").await;
    let id: JobId = a.submit(job("x")).await.unwrap().id.parse().unwrap();
    let held = claim(&a).await;
    let events = [change::unnumbered(Timestamp::now(), log("once"))];
    let commit = scripts::Commit {
        id,
        score: 0,
        name: "some/1".into(),
        expect: scripts::Expect::Any,
        fence: Some(change::token(held.lease.fence, &a.inner.life)),
        record: None,
        place: scripts::Place::Stay,
        life: None,
        drop_claim: false,
        kind: scripts::Kind::Events,
        outstanding: scripts::Outstanding::Stay,
        key: None,
        events: &events,
    };
    for _ in 0..2 {
        let made = a
            .inner
            .link
            .call("try", async |c| commit.run(a.keys(), c).await)
            .await
            .unwrap();
        assert!(
            matches!(made, scripts::Committed::Ok { seq: 3, .. }),
            "{made:?}"
        );
    }
    assert_eq!(all_events(&a, id).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_comes_after_the_job_was_put_back_is_refused() {
    let Some(fleet) = Fleet::start() else { return };
    let (a, b) = (fleet.pod("pod-0").await, fleet.pod("pod-1").await);
    let id: JobId = a.submit(job("x")).await.unwrap().id.parse().unwrap();
    let (taken, version) = claims::take(&a.inner, None, 1).await.unwrap().remove(0);
    // As a pod does that takes the first for dead.
    claims::unlist(&b.inner, id, &a.inner.life, true)
        .await
        .unwrap();
    assert!(
        claims::claim(&a.inner, taken, version)
            .await
            .unwrap()
            .is_none()
    );
    let claimed = claim(&b).await;
    assert_eq!((claimed.job.id, claimed.job.attempt), (id, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_agent_starts_under_a_claim_that_an_emptied_redis_has_forgotten() {
    let Some(fleet) = Fleet::start() else { return };
    let (a, b) = (fleet.pod("pod-0").await, fleet.pod("pod-1").await);
    let id: JobId = a.submit(job("x")).await.unwrap().id.parse().unwrap();
    let dir = a.inner.mirror.dir();
    let waiting = std::fs::read_to_string(files::record_path(dir, id)).unwrap();
    let old = claim(&a).await;
    // Asleep, so that nothing but the fence can tell it; as if the volume had not heard of the claim before Redis was emptied.
    kill(&a);
    a.inner.mirror.write(id, &waiting).unwrap();
    std::fs::remove_file(files::events_path(dir, id)).unwrap();
    fleet.redis.flush();
    let new = claim(&b).await;
    assert_eq!((new.job.id, new.lease.fence), (id, old.lease.fence));
    for refused in [
        a.confirm(&old.lease).await,
        a.append(&old.lease, vec![log("late")]).await.map(drop),
    ] {
        assert!(
            matches!(refused, Err(QueueError::LostClaim(_))),
            "{refused:?}"
        );
    }
    assert!(old.lease.lost.is_cancelled());
    b.confirm(&new.lease).await.unwrap();
    b.append(&new.lease, vec![log("still here")]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_slept_writes_no_end_of_a_job_that_may_be_anothers() {
    let Some(mut fleet) = Fleet::start() else {
        return;
    };
    let a = fleet.pod("pod-0").await;
    let id: JobId = a.submit(job("x")).await.unwrap().id.parse().unwrap();
    let held = claim(&a).await;
    // Asleep: nothing renews its lease, until it wakes up without Redis.
    kill(&a);
    fleet.redis.stop();
    until("it slept for too long", async || {
        a.inner.is_in_doubt().then_some(())
    })
    .await;
    let finished = a
        .finish(&held.lease, &held.job.run, Outcome::Succeeded, vec![])
        .await;
    assert!(
        matches!(finished, Err(QueueError::LostClaim(_))),
        "{finished:?}"
    );
    assert!(held.lease.lost.is_cancelled());
    assert_eq!(a.inner.mirror.read(id).unwrap().status, Status::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_whose_answer_was_lost_runs_elsewhere() {
    let Some(fleet) = Fleet::start() else { return };
    let (a, b) = (fleet.pod("pod-0").await, fleet.pod("pod-1").await);
    let id: JobId = a.submit(job("x")).await.unwrap().id.parse().unwrap();
    let (taken, version) = claims::take(&a.inner, None, 1).await.unwrap().remove(0);
    claims::claim(&a.inner, taken, version).await.unwrap();
    // The pod knows of no claim, and gives back what it took.
    a.inner.held.remove(&a.inner.held.any(id).unwrap());
    claims::give_back(&a.inner, id).await;
    let again = claim(&b).await;
    assert_eq!((again.job.id, again.job.attempt), (id, 2));
    fleet.assert_whole(&b, id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_stands_in_the_queue_twice_is_taken_once() {
    let Some(fleet) = Fleet::start() else { return };
    let a = fleet.pod("pod-0").await;
    let id = a.submit(job("x")).await.unwrap().id;
    let other = a.submit(job("y")).await.unwrap().id;
    let pushed: u32 = a
        .inner
        .link
        .call("try", async |c| {
            redis::cmd("LPUSH")
                .arg(a.keys().queue())
                .arg(&id)
                .query_async(c)
                .await
        })
        .await
        .unwrap();
    assert_eq!(pushed, 3);
    let taken = claims::take(&a.inner, None, 9).await.unwrap();
    let ids: Vec<String> = taken.iter().map(|(job, _)| job.id.to_string()).collect();
    assert_eq!(ids, [id, other]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_waits_has_no_stream_and_one_event_all_the_same() {
    let Some(fleet) = Fleet::start() else { return };
    let a = fleet.pod("pod-0").await;
    let id: JobId = a.submit(job("x")).await.unwrap().id.parse().unwrap();
    let has_stream = async || -> bool {
        let stream = a.keys().events(id);
        a.inner
            .link
            .call("try", async |c| {
                redis::cmd("EXISTS").arg(&stream).query_async(c).await
            })
            .await
            .unwrap()
    };
    assert!(!has_stream().await);
    assert_eq!(fleet.assert_whole(&a, id).await.len(), 1);
    let held = claim(&a).await;
    assert!(has_stream().await);
    a.append(&held.lease, vec![log("more")]).await.unwrap();
    assert_eq!(fleet.assert_whole(&a, id).await.len(), 3);
}
