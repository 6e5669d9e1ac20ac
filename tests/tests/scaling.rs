//! Scaling: what the shipped triggers make an autoscaler do to pods that work.
//!
//! `hpa` is the autoscaler's rule, read from the manifest; `pool` is a StatefulSet with jobs on it. Together they are run through
//! random histories, and once with a trigger less to see that the properties can fail.

mod hpa;
mod pods;
mod pool;

use agenticore_tests::{Manifests, workspace};
use proptest::prelude::*;

use self::hpa::Hpa;
use self::pool::{Pool, Removed, Step};

/// How often the autoscaler looks.
const PERIOD: u64 = 15;

/// The autoscaler of `k8s/`, with these triggers only; none named: all.
fn shipped(only: &[&str]) -> Hpa {
    let file = workspace().join("k8s/keda-scaledobject.yaml");
    let mut hpa = Hpa::of(Manifests::file(&file).the("ScaledObject"));
    hpa.triggers
        .retain(|trigger| only.is_empty() || only.contains(&trigger.name.as_str()));
    assert!(!hpa.triggers.is_empty());
    hpa
}

/// What a history came to.
#[derive(Debug, Default)]
struct Seen {
    /// Pods that were told to go.
    removed: Vec<Removed>,
    /// Times at which the pool shrank although it was behind.
    shrank_behind: Vec<u64>,
    /// The most pods.
    most: u32,
}

/// Runs a history: each step is followed by some time, in which the autoscaler looks every [`PERIOD`]. It decides on what it saw `lag`
/// seconds before.
fn run(hpa: &mut Hpa, pool: &mut Pool, history: &[(Step, u64)], lag: u64) -> Seen {
    let mut seen = Seen::default();
    for (step, seconds) in history {
        pool.step(*step);
        for _ in 0..*seconds {
            pool.second();
            if (pool.now + lag).is_multiple_of(PERIOD) {
                pool.sample(&hpa.triggers);
            }
            if pool.now.is_multiple_of(PERIOD) {
                let Some((sampled_at, metrics)) = pool.sampled() else {
                    continue;
                };
                let behind = pool.is_behind();
                let before = pool.replicas;
                let after = hpa.decide(pool.now, before, &metrics);
                if after < before && behind {
                    seen.shrank_behind.push(pool.now);
                }
                seen.removed.extend(pool.scale(after, sampled_at));
            }
            seen.most = seen.most.max(pool.replicas);
        }
    }
    seen
}

fn steps() -> impl Strategy<Value = Vec<(Step, u64)>> {
    let step = prop_oneof![
        4 => (1..40_u32).prop_map(Step::Submit),
        6 => (0..12_usize).prop_map(Step::Finish),
        4 => (1..20_usize).prop_map(Step::FinishMany),
        1 => (0..10_u32).prop_map(Step::Kill),
        2 => Just(Step::Nothing),
    ];
    prop::collection::vec((step, 1..400_u64), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// The autoscaler looks and decides: what it saw busy stays, and a pool that is behind does not shrink.
    #[test]
    fn a_busy_pod_is_never_removed_and_a_pool_that_is_behind_never_shrinks(history in steps(), slots in 3..=3_usize) {
        let seen = run(&mut shipped(&[]), &mut Pool::new(1, slots), &history, 0);
        let busy: Vec<_> = seen.removed.iter().filter(|pod| pod.busy > 0).collect();
        prop_assert!(busy.is_empty(), "{busy:?}");
        prop_assert!(seen.shrank_behind.is_empty(), "{:?}", seen.shrank_behind);
    }

    /// Between a look and the decision a pod may take a job. Such a job was taken after the look, and is handed off.
    #[test]
    fn a_pod_that_took_a_job_behind_the_autoscaler_s_back_had_been_idle(history in steps(), lag in 1..PERIOD) {
        let seen = run(&mut shipped(&[]), &mut Pool::new(1, 3), &history, lag);
        for pod in seen.removed.iter().filter(|pod| pod.busy > 0) {
            prop_assert!(pod.oldest_claim > Some(pod.sampled_at), "{pod:?}");
        }
    }

    /// Whatever happened, a pool without jobs comes back to one pod, dead pods or not.
    #[test]
    fn a_dead_pod_does_not_pin_the_floor(history in steps(), dead in 0..10_u32) {
        let (mut hpa, mut pool) = (shipped(&[]), Pool::new(1, 3));
        run(&mut hpa, &mut pool, &history, 0);
        let end = [(Step::Kill(dead), 60), (Step::FinishAll, 1_800)];
        run(&mut hpa, &mut pool, &end, 0);
        prop_assert_eq!((pool.outstanding(), pool.floor(), pool.replicas), (0, 0, 1));
    }

    /// Jobs that wait get the pods they need, up to the bound. An autoscaler does nothing about a tenth more than its target.
    #[test]
    fn a_pool_grows_to_what_is_asked_of_it(jobs in 1..60_u32) {
        let (mut hpa, mut pool) = (shipped(&[]), Pool::new(1, 3));
        run(&mut hpa, &mut pool, &[(Step::Submit(jobs), 300)], 0);
        let slots = f64::from(pool.replicas * 3);
        prop_assert!(pool.replicas == 10 || f64::from(jobs) <= slots * 1.1, "{} pods for {jobs} jobs", pool.replicas);
        prop_assert!(pool.replicas <= jobs.div_ceil(3).max(1), "{} pods for {jobs} jobs", pool.replicas);
    }
}

/// The history that the two further triggers are there for: all jobs run, so the queue is empty.
fn all_jobs_run() -> Vec<(Step, u64)> {
    vec![
        (Step::Submit(30), 120),
        (Step::Finish(0), 700),
        (Step::Finish(1), 700),
    ]
}

#[test]
fn the_queue_s_trigger_alone_removes_pods_that_work() {
    let seen = run(
        &mut shipped(&["queue"]),
        &mut Pool::new(1, 3),
        &all_jobs_run(),
        0,
    );
    assert!(seen.removed.iter().any(|pod| pod.busy > 0), "{seen:?}");
    let seen = run(&mut shipped(&[]), &mut Pool::new(1, 3), &all_jobs_run(), 0);
    assert!(seen.removed.is_empty() && seen.most == 10, "{seen:?}");
}

#[test]
fn without_the_busy_floor_a_high_pod_that_works_alone_is_removed() {
    // Ten pods work; then all jobs but one on the highest pod end.
    let history = [(Step::Submit(30), 120), (Step::FinishBelow(9), 900)];
    let seen = run(
        &mut shipped(&["queue", "demand"]),
        &mut Pool::new(1, 3),
        &history,
        0,
    );
    assert!(seen.removed.iter().any(|pod| pod.busy > 0), "{seen:?}");
    let seen = run(&mut shipped(&[]), &mut Pool::new(1, 3), &history, 0);
    assert_eq!(seen.removed, [], "the pod above them all works");
}

#[test]
fn a_dead_pod_that_stays_in_the_books_would_pin_the_floor() {
    let history = [
        (Step::Submit(30), 120),
        (Step::Kill(9), 60),
        (Step::FinishAll, 1_800),
    ];
    let mut pool = Pool::new(1, 3);
    pool.reclaims = false;
    run(&mut shipped(&[]), &mut pool, &history, 0);
    assert_eq!(
        (pool.floor(), pool.replicas),
        (10, 10),
        "nobody took the dead pod off the books"
    );
    let mut pool = Pool::new(1, 3);
    run(&mut shipped(&[]), &mut pool, &history, 0);
    assert_eq!((pool.floor(), pool.replicas), (0, 1));
}

#[test]
fn it_shrinks_by_one_pod_a_minute_after_five_minutes_of_quiet() {
    let (mut hpa, mut pool) = (shipped(&[]), Pool::new(1, 3));
    run(
        &mut hpa,
        &mut pool,
        &[(Step::Submit(30), 120), (Step::FinishAll, 285)],
        0,
    );
    assert_eq!(pool.replicas, 10, "nothing happens within the window");
    let mut sizes = Vec::new();
    for _ in 0..5 {
        run(&mut hpa, &mut pool, &[(Step::Nothing, 60)], 0);
        sizes.push(pool.replicas);
    }
    assert_eq!(sizes, [9, 8, 7, 6, 5]);
}
