//! The autoscaler's rule over the real keys, with real servers as pods. Its clock is the test's, so nothing waits for minutes.

use agenticore_tests::{Fleet, Redis, needs_redis, until};

use super::hpa::Hpa;
use super::{PERIOD, shipped};
use crate::{number, text};

/// What KEDA's redis scaler asks.
const LENGTH: &str = "local kind = redis.call('type', KEYS[1]).ok \
    local command = { zset = 'zcard', set = 'scard', list = 'llen', hash = 'hlen', none = 'llen' } \
    return redis.call(command[kind], KEYS[1])";

/// What the autoscaler sees.
fn metrics(redis: &Redis, hpa: &Hpa) -> Vec<u64> {
    let length = |key: &str| redis.ask(&["EVAL", LENGTH, "1", key]);
    hpa.triggers
        .iter()
        .map(|trigger| length(&trigger.key))
        .collect()
}

fn metric(redis: &Redis, hpa: &Hpa, name: &str) -> u64 {
    let place = hpa
        .triggers
        .iter()
        .position(|trigger| trigger.name == name)
        .unwrap();
    metrics(redis, hpa)[place]
}

async fn metric_is(redis: &Redis, hpa: &Hpa, name: &str, value: u64) {
    until(&format!("{name} is {value}"), || async {
        (metric(redis, hpa, name) == value).then_some(())
    })
    .await;
}

/// Lets the autoscaler look for this long, on a clock of its own, and returns how many pods it wants in the end and the least on the way.
fn look(hpa: &mut Hpa, now: &mut u64, replicas: u32, redis: &Redis, seconds: u64) -> (u32, u32) {
    let (mut replicas, mut least) = (replicas, replicas);
    for _ in 0..seconds / PERIOD {
        *now += PERIOD;
        replicas = hpa.decide(*now, replicas, &metrics(redis, hpa));
        least = least.min(replicas);
    }
    (replicas, least)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_pod_is_kept_and_a_dead_one_is_off_the_books() {
    needs_redis!();
    let mut fleet = Fleet::of(3);
    let (mut hpa, mut now) = (shipped(&[]), 0);

    // Nine jobs want three pods of three slots, and have them.
    let gates: Vec<_> = (0..9)
        .map(|job| fleet.pod(0).gate(&format!("job-{job}")))
        .collect();
    let mut jobs = Vec::new();
    for gate in &gates {
        let task = format!("echo begun; {}", gate.wait());
        jobs.push(fleet.pod(0).submit(&task).await);
    }
    metric_is(&fleet.redis, &hpa, "demand", 9).await;
    assert_eq!(look(&mut hpa, &mut now, 1, &fleet.redis, 60).0, 3);
    metric_is(&fleet.redis, &hpa, "queue", 0).await;
    metric_is(&fleet.redis, &hpa, "busy-floor", 3).await;

    // All jobs end but one on the highest pod. The queue is empty and demand is one, but that pod works.
    let mut last = None;
    for (job, gate) in jobs.iter().zip(&gates) {
        let record = fleet.pod(0).job(job).await;
        if last.is_none() && Fleet::number_of(&record) == Some(2) {
            last = Some((job.clone(), gate));
        } else {
            gate.open();
        }
    }
    let (last, gate) = last.expect("a job runs on the highest pod");
    metric_is(&fleet.redis, &hpa, "demand", 1).await;
    metric_is(&fleet.redis, &hpa, "busy-floor", 3).await;
    let looked = look(&mut hpa, &mut now, 3, &fleet.redis, 1_800);
    assert_eq!(looked, (3, 3), "a pod at work is not removed");

    // It dies. Its job is taken back by another pod, and what is above that one is spare.
    fleet.pod_mut(2).kill9();
    until("the job runs again", || async {
        let record = fleet.pod(0).job(&last).await;
        let again = text(&record, "status") == "running" && number(&record, "attempt") == 2;
        (again && Fleet::number_of(&record) != Some(2)).then_some(())
    })
    .await;
    let holder = Fleet::number_of(&fleet.pod(0).job(&last).await).unwrap();
    let floor = u32::try_from(holder).unwrap() + 1;
    metric_is(&fleet.redis, &hpa, "busy-floor", floor.into()).await;
    let (wanted, _) = look(&mut hpa, &mut now, 3, &fleet.redis, 1_800);
    assert_eq!(wanted, floor, "a dead pod does not pin the floor");

    gate.open();
    let record = fleet.pod(0).ended(&last).await;
    assert_eq!(text(&record, "status"), "succeeded", "{record}");
    metric_is(&fleet.redis, &hpa, "busy-floor", 0).await;
}
