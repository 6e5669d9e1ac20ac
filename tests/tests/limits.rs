//! Never more agents at once than allowed, whatever is submitted.

use agenticore_tests::{World, until};
use futures::future::join_all;

use crate::text;

#[tokio::test]
async fn no_more_agents_run_at_once_than_allowed() {
    const ALLOWED: usize = 2;
    const JOBS: usize = 9;
    let world = World::builder()
        .env("AGENTICORE_MAX_PARALLEL_JOBS", &ALLOWED.to_string())
        .start();
    let gate = world.gate("all");
    let log = world.path("log");
    // One short append each: the order in the file is the order in time.
    let script = format!(
        "echo + >> '{0}'; {1}; sleep 0.05; echo - >> '{0}'",
        log.display(),
        gate.wait()
    );
    let ids = join_all((0..JOBS).map(|_| world.submit(&script))).await;

    until("all slots are taken", || async {
        (world.read("log").matches('+').count() >= ALLOWED).then_some(())
    })
    .await;
    let statuses: Vec<String> = world
        .jobs()
        .await
        .iter()
        .map(|j| text(j, "status").to_owned())
        .collect();
    let count = |status: &str| statuses.iter().filter(|s| *s == status).count();
    assert_eq!(
        (count("running"), count("queued")),
        (ALLOWED, JOBS - ALLOWED),
        "{statuses:?}"
    );
    let listed = world.get("/jobs?status=queued&limit=3").await;
    assert_eq!(listed.body["count"], 3, "{}", listed.text);

    gate.open();
    for id in &ids {
        assert_eq!(text(&world.ended(id).await, "status"), "succeeded");
    }
    let (mut now, mut most) = (0_i32, 0_i32);
    for line in world.read("log").lines() {
        now += if line == "+" { 1 } else { -1 };
        most = most.max(now);
    }
    assert_eq!((now, most), (0, 2), "agents at once");
}

#[tokio::test]
async fn jobs_start_in_the_order_of_their_submission() {
    let world = World::builder()
        .env("AGENTICORE_MAX_PARALLEL_JOBS", "1")
        .start();
    let gate = world.gate("first");
    let log = world.path("order");
    let mut ids = vec![world.submit(&gate.wait()).await];
    for number in 0..5 {
        ids.push(
            world
                .submit(&format!("echo {number} >> '{}'", log.display()))
                .await,
        );
    }
    gate.open();
    for id in &ids {
        world.ended(id).await;
    }
    assert_eq!(world.read("order"), "0\n1\n2\n3\n4\n");
}

#[tokio::test]
async fn a_queued_job_is_cancelled_without_ever_running() {
    let world = World::builder()
        .env("AGENTICORE_MAX_PARALLEL_JOBS", "1")
        .start();
    let gate = world.gate("busy");
    let busy = world.submit(&gate.wait()).await;
    let waiting = world
        .submit(&format!("echo ran > '{}'", world.path("ran").display()))
        .await;
    let reply = world.delete(&format!("/jobs/{waiting}")).await;
    assert_eq!(text(reply.job(), "status"), "cancelled");
    gate.open();
    assert_eq!(text(&world.ended(&busy).await, "status"), "succeeded");
    let next = world.submit("echo next").await;
    world.ended(&next).await;
    assert_eq!(world.read("ran"), "", "the cancelled job ran");
    assert_eq!(text(&world.job(&waiting).await, "status"), "cancelled");
}

#[tokio::test]
async fn more_jobs_can_wait_than_files_may_be_open() {
    let few = "ulimit -n 150; \"$@\"; exit $?";
    let world = World::builder()
        .through(&["sh", "-c", few, "sh"])
        .env("AGENTICORE_MAX_PARALLEL_JOBS", "1")
        .start();
    let gate = world.gate("all");
    let held = world.submit(&gate.wait()).await;
    let mut waiting = Vec::new();
    for _ in 0..200 {
        waiting.push(world.submit("true").await);
    }
    for id in &waiting {
        world.delete(&format!("/jobs/{id}")).await;
    }
    gate.open();
    assert_eq!(text(&world.ended(&held).await, "status"), "succeeded");
    for id in &waiting {
        assert_eq!(text(&world.job(id).await, "status"), "cancelled");
    }
}
