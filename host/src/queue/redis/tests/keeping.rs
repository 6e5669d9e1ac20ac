//! Leases, spools and copies: what a pod owes to others, and what it must not take from them.

use std::collections::BTreeSet;

use super::*;
use crate::job::{Failure, FailureClass, Idempotency, State};
use crate::queue::files;

/// A job that is submitted under a key, `minutes` from now by the clock of its pod.
fn keyed(minutes: i64) -> Job {
    let mut job = job("keyed");
    job.created_at += jiff::SignedDuration::from_mins(minutes);
    job.state = State::Queued {
        since: job.created_at,
    };
    job.origin.idempotency = Some(Idempotency {
        key: "k".into(),
        request: "r".into(),
    });
    job
}

async fn claim_of(store: &RedisStore, task: &str) -> JobId {
    store.submit(job(task)).await.unwrap();
    claim(store).await.job.id
}

async fn ask<T: redis::FromRedisValue>(store: &RedisStore, command: &[&str]) -> T {
    store
        .inner
        .link
        .call("ask", async |c| {
            redis::cmd(command[0])
                .arg(&command[1..])
                .query_async(c)
                .await
        })
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_from_elsewhere_survives_what_the_holder_writes() {
    let Some(fleet) = Fleet::start() else { return };
    let (a, b, id, held) = fleet.at_work().await;
    // It hears no news: the wish must reach it by what Redis answers.
    kill(&a);
    b.cancel(id).await.unwrap();
    a.append(&held.lease, vec![log("more")]).await.unwrap();
    let record = a
        .requeue(&held.lease, &held.job.run, Requeue::HandOff, vec![])
        .await
        .unwrap();
    assert_eq!(record.status, Status::Cancelled);
    assert!(held.lease.cancelled.is_cancelled());
    fleet.assert_whole(&b, id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_reaches_a_claim_on_its_way() {
    let Some(fleet) = Fleet::start() else { return };
    let (a, b) = (fleet.pod("pod-0").await, fleet.pod("pod-1").await);
    let id: JobId = b.submit(job("x")).await.unwrap().id.parse().unwrap();
    let claimed = claim(&b).await;
    let on_its_way = CancellationToken::new();
    guard(&a.inner.claiming).insert(id, on_its_way.clone());
    b.cancel(id).await.unwrap();
    on_its_way.cancelled().await;
    claimed.lease.cancelled.cancelled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_renewed_whatever_else_there_is_to_do() {
    let Some(mut fleet) = Fleet::start() else {
        return;
    };
    let (a, b, id, held) = fleet.at_work().await;
    fleet.redis.stop();
    a.append(&held.lease, vec![log("kept")]).await.unwrap();
    // What is to be told takes very long.
    let job = a.inner.held.any(id).unwrap();
    let telling = job.state.lock().await;
    fleet.redis.again();
    let seen = async || {
        let pods = b.pods();
        let a = pods.iter().find(|pod| pod.life == a.inner.life)?;
        Some(a.facts.seen_at)
    };
    let from = until("the pod is back", seen).await;
    until("the pod goes on for two leases", async || {
        let since = seen().await?.duration_since(from);
        (since.unsigned_abs() > 2 * LEASE).then_some(())
    })
    .await;
    drop(telling);
    assert!(!held.lease.lost.is_cancelled());
    a.finish(&held.lease, &held.job.run, Outcome::Succeeded, vec![])
        .await
        .unwrap();
    until("everything is told", async || {
        let (job, _) = reads::load(&b.inner, id).await.ok()?;
        job.state.is_ended().then_some(())
    })
    .await;
    assert_eq!(b.get(id).await.unwrap().attempt, 1);
    fleet.assert_whole(&b, id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pod_told_of_its_spool_before_it_died_is_not_told_again() {
    let Some(mut fleet) = Fleet::start() else {
        return;
    };
    let (a, b, id, held) = fleet.at_work().await;
    fleet.redis.stop();
    for text in ["one", "two", "three"] {
        a.append(&held.lease, vec![log(text)]).await.unwrap();
    }
    kill(&a);
    kill(&b);
    fleet.redis.again();
    until("Redis is back", async || {
        reads::seq(&b.inner, id).await.ok().map(drop)
    })
    .await;
    // It came as far as the second line.
    let spool = held::Spool::read(&a.inner.spool_path(&a.inner.life, id));
    for line in spool.iter().take(2) {
        let (job, version) = reads::load(&a.inner, id).await.unwrap();
        let next = line.clone().change().unwrap().apply(&job, version).unwrap();
        let by = writes::By {
            name: &line.name,
            fence: Some((held.lease.fence, &a.inner.life)),
            life: None,
        };
        writes::commit(&a.inner, &next, version, by).await.unwrap();
    }
    // A wish of somebody else comes between.
    b.cancel(id).await.unwrap();
    let c = fleet.pod("pod-2").await;
    until("it is taken back", async || {
        c.get(id).await.ok()?.status.is_ended().then_some(())
    })
    .await;
    let events = fleet.assert_whole(&c, id).await;
    assert_eq!(texts(&events), ["one", "two", "three"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_tells_of_a_drain_hears_that_the_lease_was_over() {
    let Some(fleet) = Fleet::start() else { return };
    let (a, b, _, old) = fleet.at_work().await;
    kill(&a);
    let new = claim(&b).await;
    a.set_draining(true).await;
    assert!(old.lease.lost.is_cancelled());
    assert!(!new.lease.lost.is_cancelled());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_runs_is_not_taken_off_the_list_of_its_pod() {
    let Some(fleet) = Fleet::start() else { return };
    let (a, b, id, held) = fleet.at_work().await;
    // A pod that took the first for dead read the job before its claim came.
    let life = &a.inner.life;
    assert!(!claims::unlist(&b.inner, id, life, true).await.unwrap());
    assert_eq!(claims::listed(&b.inner, life).await.unwrap(), [id]);
    a.finish(&held.lease, &held.job.run, Outcome::Succeeded, vec![])
        .await
        .unwrap();
    assert_eq!(claims::listed(&b.inner, life).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_comes_to_a_pod_in_the_moment_it_leaves_is_found() {
    let Some(fleet) = Fleet::start() else { return };
    let (a, b) = (fleet.pod("pod-0").await, fleet.pod("pod-1").await);
    kill(&a);
    a.leave().await;
    let id = b.submit(job("x")).await.unwrap().id;
    let (queue, claimed) = (b.keys().queue(), b.keys().claimed(&a.inner.life));
    let moved: String = ask(&b, &["LMOVE", queue, &claimed, "LEFT", "RIGHT"]).await;
    assert_eq!(moved, id);
    let found = claim(&b).await;
    assert_eq!((found.job.id.to_string(), found.job.attempt), (id, 1));
    until("the pod is forgotten", async || {
        (b.pods().len() == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_left_stays_gone_and_one_that_runs_a_job_does_not_leave() {
    let Some(fleet) = Fleet::start() else { return };
    let (a, b, id, held) = fleet.at_work().await;
    a.leave().await;
    let (pods, life) = (b.keys().pods(), &a.inner.life);
    let lease: f64 = ask(&b, &["ZSCORE", pods, life]).await;
    assert!(lease > 1.0, "its job is its own");
    a.finish(&held.lease, &held.job.run, Outcome::Succeeded, vec![])
        .await
        .unwrap();
    a.leave().await;
    let alone = async || (b.pods().len() == 1).then(|| b.pods()[0].facts.seen_at);
    let from = until("the pod is forgotten", alone).await;
    // Its tasks are there still, as for a moment in a server that ends.
    until("the other goes on for a lease", async || {
        let since = alone().await.unwrap().duration_since(from);
        (since.unsigned_abs() > LEASE).then_some(())
    })
    .await;
    assert_eq!(status(&b, id).await, Status::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_others_do_not_see_is_put_back_into_no_store_that_is_whole() {
    let Some(fleet) = Fleet::start() else { return };
    let alone = Settings {
        shared: false,
        ..fleet.settings("pod-0")
    };
    let a = RedisStore::open(alone).await.unwrap();
    // Others ended it, and forgot it since.
    let old = job("old");
    let json = serde_json::to_string(&change::record(&old, 0)).unwrap();
    a.inner.mirror.write(old.id, &json).unwrap();
    assert!(rebuild::check_server(&a.inner).await);
    assert_eq!(a.depth().await.queued, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_no_known_life_is_taken_back() {
    let Some(fleet) = Fleet::start() else { return };
    let a = fleet.pod("pod-0").await;
    let id: JobId = a.submit(job("x")).await.unwrap().id.parse().unwrap();
    claim(&a).await;
    kill(&a);
    // As a job that ran in an embedded store and was imported.
    let mut record = a.inner.mirror.read(id).unwrap();
    record.pod_life = None;
    let json = serde_json::to_string(&record).unwrap();
    a.inner.mirror.write(id, &json).unwrap();
    fleet.redis.flush();
    let b = fleet.pod("pod-1").await;
    let again = claim(&b).await;
    assert_eq!((again.job.id, again.job.attempt), (id, 2));
    fleet.assert_whole(&b, id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_agent_starts_under_a_claim_that_was_heard_of_long_ago() {
    let Some(fleet) = Fleet::start() else { return };
    let (a, b, _, old) = fleet.at_work().await;
    a.append(&old.lease, vec![log("heard")]).await.unwrap();
    a.confirm(&old.lease).await.unwrap();
    kill(&a);
    let new = claim(&b).await;
    let confirmed = a.confirm(&old.lease).await;
    assert!(
        matches!(confirmed, Err(QueueError::LostClaim(_))),
        "{confirmed:?}"
    );
    b.confirm(&new.lease).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_accepted_is_not_put_beside_what_was() {
    let Some(fleet) = Fleet::start() else { return };
    let a = fleet.pod("pod-0").await;
    let accepted = a.submit(keyed(0)).await.unwrap().id;
    // A pod died between the copy and Redis, and its client asked another one.
    let ghost = keyed(-1);
    let json = serde_json::to_string(&change::record(&ghost, 0)).unwrap();
    a.inner.mirror.write(ghost.id, &json).unwrap();
    rebuild::put_back_now(&a.inner).await.unwrap();
    assert_eq!(a.depth().await.queued, 1);
    // What has no key is put back.
    let plain = job("plain");
    let json = serde_json::to_string(&change::record(&plain, 0)).unwrap();
    a.inner.mirror.write(plain.id, &json).unwrap();
    rebuild::put_back_now(&a.inner).await.unwrap();
    let mut taken = BTreeSet::new();
    for _ in 0..2 {
        taken.insert(claim(&a).await.job.id.to_string());
    }
    assert_eq!(taken, BTreeSet::from([accepted, plain.id.to_string()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_counts_once_while_redis_is_gone_whatever_the_clocks_say() {
    let Some(mut fleet) = Fleet::start() else {
        return;
    };
    let (a, b) = (fleet.pod("pod-0").await, fleet.pod("pod-1").await);
    fleet.redis.stop();
    let first = a.submit(keyed(60)).await.unwrap().id;
    assert_eq!(b.submit(keyed(0)).await.unwrap().id, first);
    fleet.redis.again();
    assert_eq!(claim(&b).await.job.id.to_string(), first);
    assert_eq!(b.depth().await.queued, 0);
}

#[test]
fn a_look_at_the_last_event_cuts_nothing_and_the_next_writer_repairs() {
    let dir = tempfile::tempdir().unwrap();
    let (mirror, id) = (Mirror::new(dir.path()), JobId::random());
    mirror.prepare().unwrap();
    let path = crate::queue::files::events_path(dir.path(), id);
    let line =
        |seq, text: &str| change::numbered(seq, &change::unnumbered(Timestamp::now(), log(text)));
    mirror.append(id, &[line(1, "one")]).unwrap();
    let half = format!("{}\n{}", line(1, "one"), r#"{"seq":2,"ts"#);
    std::fs::write(&path, &half).unwrap();
    assert_eq!(mirror.last_event(id).unwrap(), 1);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), half);
    mirror.append(id, &[line(2, "two")]).unwrap();
    let events = mirror.tail(id, 9).unwrap();
    assert_whole(&events);
    assert_eq!(texts(&events), ["one", "two"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_a_server_forgot_when_it_started_anew_is_put_back() {
    let Some(mut fleet) = Fleet::start() else {
        return;
    };
    let a = fleet.pod("pod-0").await;
    // A copy that nobody can read is no reason to leave out those after it.
    let broken = claim_of(&a, "broken").await;
    let events = crate::queue::files::events_path(fleet.volume.path(), broken);
    std::fs::write(events, "no event\n").unwrap();
    let id = a.submit(job("x")).await.unwrap().id;
    // As a replica that had not heard of it yet, and is promoted.
    let keys = a.keys();
    for forget in [
        ["DEL", &keys.job(id.parse().unwrap()), ""],
        ["LREM", keys.queue(), "0"],
        ["ZREM", keys.index(), &id],
        ["SREM", keys.outstanding(), &id],
    ] {
        let mut forget: Vec<&str> = forget.into_iter().filter(|word| !word.is_empty()).collect();
        if forget[0] == "LREM" {
            forget.push(&id);
        }
        let _: u64 = ask(&a, &forget).await;
    }
    assert_eq!(a.depth().await.queued, 0);
    fleet.redis.stop();
    fleet.redis.again();
    assert_eq!(claim(&a).await.job.id.to_string(), id);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_became_of_a_run_while_redis_was_emptied_is_told_whole() {
    let Some(mut fleet) = Fleet::start() else {
        return;
    };
    let (a, b) = (fleet.pod("pod-0").await, fleet.pod("pod-1").await);
    let mut claims = Vec::new();
    for n in 0..2 {
        a.submit(job(&n.to_string())).await.unwrap();
        let held = claim(&a).await;
        a.append(&held.lease, vec![log("one")]).await.unwrap();
        claims.push(held);
    }
    let [ends, moves] = &claims[..] else { panic!() };
    // Gone, and empty when it is back.
    fleet.redis.lose();
    for held in [ends, moves] {
        a.append(&held.lease, vec![log("two")]).await.unwrap();
    }
    a.finish(&ends.lease, &ends.job.run, Outcome::Succeeded, vec![])
        .await
        .unwrap();
    a.requeue(&moves.lease, &moves.job.run, Requeue::HandOff, vec![])
        .await
        .unwrap();
    fleet.redis.again();
    until("the job that was handed off is there again", async || {
        (b.depth().await.queued == 1).then_some(())
    })
    .await;
    let events = fleet.assert_whole(&b, ends.job.id).await;
    assert_eq!((texts(&events), events.len()), (vec!["one", "two"], 6));
    let last: Vec<&EventBody> = events.iter().rev().take(2).map(|e| &e.body).collect();
    assert!(
        matches!(
            last[..],
            [
                EventBody::End { .. },
                EventBody::Status {
                    status: Status::Succeeded,
                    ..
                }
            ]
        ),
        "{last:?}"
    );
    let again = claim(&b).await;
    assert_eq!((again.job.id, again.job.attempt), (moves.job.id, 2));
    let events = fleet.assert_whole(&b, moves.job.id).await;
    assert_eq!(texts(&events), ["one", "two"]);
    let reasons: Vec<&str> = events
        .iter()
        .filter_map(|event| match &event.body {
            EventBody::Status { reason, .. } => reason.as_deref(),
            _ => None,
        })
        .collect();
    assert_eq!(reasons, ["hand_off"]);
    let spool = spool_dir(fleet.volume.path(), &a.inner.life);
    let left = std::fs::read_dir(spool).map_or(0, Iterator::count);
    assert_eq!(left, 0, "nothing is left untold");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_watches_is_told_what_became_of_a_run_while_redis_was_empty() {
    let Some(fleet) = Fleet::start() else { return };
    let (a, b, id, held) = fleet.at_work().await;
    let mut watched = b.watch(id).await.unwrap();
    fleet.redis.flush_for(a.inner.keys.rebuild(), LEASE / 2);
    a.finish(&held.lease, &held.job.run, Outcome::Succeeded, vec![])
        .await
        .unwrap();
    // Nothing else is asked of the job, which would look for what it has by now: queued, running, succeeded, and its end.
    let heard = watched.wait_for(|last| *last == 4);
    let heard = tokio::time::timeout(LEASE * 20, heard).await;
    assert!(heard.is_ok_and(|heard| heard.is_ok()), "a change is told");
    fleet.assert_whole(&b, id).await;
}

/// An old record comes over a newer one: a pod was stopped in the moment between its look and its write.
fn put_over(store: &RedisStore, old: &Record, id: JobId) {
    let json = serde_json::to_string(old).unwrap();
    store.inner.mirror.write(id, &json).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_stream_is_over_does_not_run_again_whatever_its_record_says() {
    let Some(fleet) = Fleet::start() else { return };
    let a = fleet.pod("pod-0").await;
    let id: JobId = a.submit(job("x")).await.unwrap().id.parse().unwrap();
    let old = a.inner.mirror.read(id).unwrap();
    let held = claim(&a).await;
    let failure = Failure::new(FailureClass::Agent, "exit code 3", "look");
    a.finish(&held.lease, &held.job.run, Outcome::Failed(failure), vec![])
        .await
        .unwrap();
    put_over(&a, &old, id);
    fleet.redis.flush();
    until("it is put back", async || {
        reads::seq(&a.inner, id).await.ok().flatten()
    })
    .await;
    let record = a.get(id).await.unwrap();
    assert_eq!((record.status, record.attempt), (Status::Failed, 1));
    assert_eq!(record.error.as_deref(), Some("exit code 3"));
    assert!(record.ended_at.is_some());
    let copied = until("its record is brought up to it", async || {
        let record = a.inner.mirror.read(id).ok()?;
        record.status.is_ended().then_some(record)
    })
    .await;
    assert_eq!(copied, record);
    fleet.assert_whole(&a, id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_whose_claim_is_told_in_the_stream_alone_is_not_begun_a_second_time() {
    let Some(fleet) = Fleet::start() else { return };
    let a = fleet.pod("pod-0").await;
    let id: JobId = a.submit(job("x")).await.unwrap().id.parse().unwrap();
    let old = a.inner.mirror.read(id).unwrap();
    let held = claim(&a).await;
    put_over(&a, &old, id);
    fleet.redis.flush();
    // It writes nothing, and hears of it all the same.
    held.lease.lost.cancelled().await;
    let again = claim(&a).await;
    assert_eq!((again.job.id, again.job.attempt), (id, 2));
    a.finish(&again.lease, &again.job.run, Outcome::Succeeded, vec![])
        .await
        .unwrap();
    fleet.assert_whole(&a, id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gave_a_job_away_does_not_leave_its_copy_as_it_was_then() {
    let Some(fleet) = Fleet::start() else { return };
    let (a, b, id, held) = fleet.at_work().await;
    let old = a.inner.mirror.read(id).unwrap();
    let (before, version) = reads::load(&a.inner, id).await.unwrap();
    let given = Change::requeue(held.lease.fence, None, Requeue::HandOff, vec![]);
    let slow = given.apply(&before, version).unwrap();
    a.requeue(&held.lease, &held.job.run, Requeue::HandOff, vec![])
        .await
        .unwrap();
    let seq = reads::seq(&a.inner, id).await.unwrap().unwrap();
    let taken = claim(&b).await;
    b.finish(&taken.lease, &taken.job.run, Outcome::Succeeded, vec![])
        .await
        .unwrap();
    let over = a.inner.mirror.read(id).unwrap();
    let late = async || {
        copy::settle(&a.inner, &slow, seq, None, Instant::now()).await;
    };
    // The write of the pod that gave it away comes only now.
    late().await;
    assert_eq!(a.inner.mirror.read(id).unwrap(), over);
    // It looked at the record before the other pod wrote.
    put_over(&a, &old, id);
    late().await;
    assert_eq!(a.inner.mirror.read(id).unwrap(), over);
    fleet.assert_whole(&b, id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_events_were_not_written_is_put_back_with_its_first_one() {
    let Some(mut fleet) = Fleet::start() else {
        return;
    };
    let a = fleet.pod("pod-0").await;
    let id: JobId = a.submit(job("x")).await.unwrap().id.parse().unwrap();
    let held = claim(&a).await;
    fleet.redis.lose();
    let (lease, run) = (&held.lease, &held.job.run);
    a.requeue(lease, run, Requeue::HandOff, vec![log("kept")])
        .await
        .unwrap();
    // The volume took the records and no events.
    std::fs::remove_file(files::events_path(fleet.volume.path(), id)).unwrap();
    fleet.redis.again();
    let again = claim(&a).await;
    assert_eq!((again.job.id, again.job.attempt), (id, 2));
    a.finish(&again.lease, &again.job.run, Outcome::Succeeded, vec![])
        .await
        .unwrap();
    let events = fleet.assert_whole(&a, id).await;
    assert_eq!(texts(&events), ["kept"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_hears_that_a_job_it_runs_waits_again() {
    let Some(fleet) = Fleet::start() else { return };
    let a = fleet.pod("pod-0").await;
    a.submit(job("another")).await.unwrap();
    let other = claim(&a).await;
    let id: JobId = a.submit(job("x")).await.unwrap().id.parse().unwrap();
    let old = a.inner.mirror.read(id).unwrap();
    let held = claim(&a).await;
    // The volume took nothing of the claim.
    put_over(&a, &old, id);
    std::fs::remove_file(files::events_path(fleet.volume.path(), id)).unwrap();
    fleet.redis.flush();
    held.lease.lost.cancelled().await;
    let again = claim(&a).await;
    assert_eq!(again.job.id, id);
    assert!(!other.lease.lost.is_cancelled());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_repeats_a_submission_gets_a_job_that_the_volume_has() {
    let Some(fleet) = Fleet::start() else { return };
    let (a, b) = (fleet.pod("pod-0").await, fleet.pod("pod-1").await);
    let accepted = a.submit(keyed(0)).await.unwrap();
    let id: JobId = accepted.id.parse().unwrap();
    // The pod died before it had written the copy, and its answer is lost.
    kill(&a);
    a.inner.mirror.remove(id);
    let key = keyed(0).origin.idempotency.unwrap();
    let repeated = b.submitted(&key).await.unwrap();
    assert_eq!(repeated.as_ref(), Some(&accepted));
    assert_eq!(b.inner.mirror.read(id).unwrap(), accepted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_that_is_repeated_brings_the_copy_up_to_it() {
    let Some(fleet) = Fleet::start() else { return };
    let a = fleet.pod("pod-0").await;
    let id: JobId = a.submit(job("x")).await.unwrap().id.parse().unwrap();
    let old = a.inner.mirror.read(id).unwrap();
    let cancelled = a.cancel(id).await.unwrap();
    put_over(&a, &old, id);
    assert_eq!(a.cancel(id).await.unwrap(), cancelled);
    assert_eq!(a.inner.mirror.read(id).unwrap(), cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_kept_of_an_earlier_claim_does_not_hide_what_came_later() {
    let Some(mut fleet) = Fleet::start() else {
        return;
    };
    let (a, b, id, held) = fleet.at_work().await;
    fleet.redis.stop();
    a.append(&held.lease, vec![log("kept")]).await.unwrap();
    kill(&a);
    let path = a.inner.spool_path(&a.inner.life, id);
    let own = std::fs::read_to_string(&path).unwrap();
    let earlier = own.replacen("\"fence\":1", "\"fence\":0", 1);
    assert_ne!(earlier, own);
    std::fs::write(&path, format!("{earlier}{own}")).unwrap();
    fleet.redis.again();
    let again = claim(&b).await;
    b.finish(&again.lease, &again.job.run, Outcome::Succeeded, vec![])
        .await
        .unwrap();
    let events = fleet.assert_whole(&b, id).await;
    assert_eq!(texts(&events), ["kept"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_alone_gives_the_events_from_any_number_on() {
    let Some(fleet) = Fleet::start() else { return };
    let (a, _b, id, held) = fleet.at_work().await;
    let many = (0..50).map(|n| log(n.to_string())).collect();
    a.append(&held.lease, many).await.unwrap();
    let all = all_events(&a, id).await;
    assert_eq!(all.len(), 52);
    // What Redis does not give would come from there.
    std::fs::remove_file(files::events_path(fleet.volume.path(), id)).unwrap();
    for seq in 0..all.len() {
        let (events, _) = a.events(id, Cursor::after(seq as u64)).await.unwrap();
        assert_eq!(events, all[seq..], "after {seq}");
    }
}
