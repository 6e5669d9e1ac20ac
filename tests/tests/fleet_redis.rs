//! The ways to a Redis: over TLS, and by way of a sentinel that lets a replica take over.

use agenticore_tests::sentinel::{MASTER, Sentinel};
use agenticore_tests::{Fleet, Gate, Redis, World, free_port, needs_redis, until};

use crate::text;

/// Submits a job to one pod and sees it end on another.
async fn a_job_goes_through(fleet: &Fleet, task: &str) {
    let id = fleet.pod(0).submit(task).await;
    let job = fleet.pod(1).ended(&id).await;
    assert_eq!(text(&job, "status"), "succeeded", "{job}");
}

#[tokio::test]
async fn a_fleet_works_over_tls_and_trusts_nobody_else() {
    needs_redis!();
    let redis = Redis::tls();
    let ca = redis.ca().display().to_string();
    let fleet = Fleet::start(2, redis, |_, builder| builder.env("REDIS_CA_FILE", &ca));
    a_job_goes_through(&fleet, "echo over tls").await;
    // Accepted by Redis, and not into the folder of what waits for it.
    let runs: usize = fleet.redis.ask(&["DBSIZE"]);
    assert!(runs > 0, "nothing is in Redis");

    // A certificate that only this test's authority vouches for is refused by a server that was not told of it.
    let stranger = World::builder();
    let shared = stranger.path("shared").display().to_string();
    let stranger = stranger
        .env("REDIS_URL", &fleet.redis.url())
        .env("AGENTICORE_SHARED_FS_ROOT", &shared)
        .env("AGENTICORE_JOBS_DIR", &format!("{shared}/job-state"))
        .port(free_port())
        .start();
    until("it says why Redis cannot be used", || async {
        stranger
            .log()
            .contains("invalid peer certificate")
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_replica_takes_over_and_no_job_is_lost() {
    needs_redis!();
    let master = Redis::durable();
    let replica = Redis::replica_of(&master);
    let sentinel = Sentinel::over(&master);
    until("the sentinel knows the replica", || async {
        sentinel.has_replica().then_some(())
    })
    .await;
    let mut fleet = Fleet::start(2, master, |_, builder| {
        builder
            .env("REDIS_SENTINELS", &sentinel.address())
            .env("REDIS_SENTINEL_MASTER", MASTER)
    });
    a_job_goes_through(&fleet, "echo before").await;
    let gate = Gate::new(fleet.shared_path("go"));
    let task = format!("echo begun; {}", gate.wait());
    let runs = fleet.pod(0).submit(&task).await;
    fleet.pod(1).logged(&runs, "begun").await;

    fleet.redis.kill();
    let meanwhile = fleet.pod(1).submit("echo meanwhile").await;
    until("the sentinel makes the replica the master", || async {
        (sentinel.master() == Some(replica.port())).then_some(())
    })
    .await;
    gate.open();
    for id in [&runs, &meanwhile] {
        let job = fleet.pod(0).ended(id).await;
        assert_eq!(text(&job, "status"), "succeeded", "{job}");
        assert_eq!(crate::number(&job, "attempt"), 1, "it ran once: {job}");
    }
    a_job_goes_through(&fleet, "echo after").await;
    until("the replica has the jobs", || async {
        let length: usize = replica.try_ask(&["DBSIZE"]).ok()?;
        (length > 0).then_some(())
    })
    .await;
    // The old master comes back as a replica, and nobody is fooled by it.
    fleet.redis.start_again();
    until("the old master follows the new one", || async {
        // Who is told to follow another closes all connections.
        let told: String = fleet.redis.try_ask(&["INFO", "replication"]).ok()?;
        told.contains("role:slave").then_some(())
    })
    .await;
    a_job_goes_through(&fleet, "echo later").await;
}
