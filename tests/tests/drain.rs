//! `agenticore drain`: nothing more is claimed, running jobs may end, the rest goes back to the queue and nothing is lost.

use agenticore_tests::{World, until};
use serde_json::json;

use crate::{field, number, text};

#[tokio::test]
async fn a_drain_lets_jobs_end_and_claims_no_more() {
    let world = World::start();
    let gate = world.gate("running");
    let running = world
        .submit(&format!("echo begun; {}; echo it ended", gate.wait()))
        .await;
    world.logged(&running, "begun").await;

    let drain = world.cli_start(&["drain", "--timeout", "300"]).await;
    until("the drain has begun", || async {
        let status = world.get("/drain").await.body;
        (text(field(&status, "drain"), "phase") == "draining").then_some(())
    })
    .await;
    assert_eq!(world.get("/readyz").await.status, 503);
    let waiting = world.submit("echo later").await;
    let status = world.cli(&["drain", "--status", "--json"]).await.json();
    assert_eq!(
        (text(&status, "phase"), number(&status, "running")),
        ("draining", 1),
        "{status}"
    );
    // A stream of the running job is not cut by the drain.
    let mut stream = world.sse(&running, None).await;
    gate.open();
    let end = stream.rest().await;
    assert_eq!(end.last().map(|frame| frame.event.as_str()), Some("end"));

    let drained = drain.end().await;
    assert_eq!(drained.code, Some(0), "{drained:?}");
    assert!(
        drained.stdout.contains("drained: nothing runs"),
        "{drained:?}"
    );
    assert!(
        drained.stderr.contains("1 job still running"),
        "{drained:?}"
    );
    assert_eq!(text(&world.job(&waiting).await, "status"), "queued");
    // Draining a drained pod is fine, and so is taking it back.
    assert_eq!(world.cli(&["drain"]).await.code, Some(0));
    assert_eq!(world.cli(&["undrain"]).await.code, Some(0));
    assert_eq!(text(&world.ended(&waiting).await, "status"), "succeeded");
    // Plugins may still be loading, and that is all that may.
    until("the pod is ready again", || async {
        (world.get("/readyz").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_does_not_end_in_time_is_handed_off_and_runs_again() {
    let mut world = World::start();
    let gate = world.gate("long");
    let id = world
        .submit(&format!("echo begun; {}; echo second time", gate.wait()))
        .await;
    world.logged(&id, "begun").await;
    let drained = world.cli(&["drain", "--timeout", "0"]).await;
    assert_eq!(drained.code, Some(8), "{drained:?}");
    assert!(drained.stdout.contains("1 job handed back"), "{drained:?}");
    let job = world.job(&id).await;
    assert_eq!(text(&job, "status"), "queued", "{job}");
    assert_eq!(
        world.agents(),
        Vec::<String>::new(),
        "its processes are gone"
    );

    gate.open();
    world.restart();
    let job = world.ended(&id).await;
    assert_eq!(
        (text(&job, "status"), number(&job, "attempt")),
        ("succeeded", 2),
        "{job}"
    );
    let events = world.events(&id).await;
    let why = |event| text(event, "reason") == "hand_off";
    assert!(events.iter().any(why), "{events:?}");
}

#[tokio::test]
async fn a_wrong_drain_is_refused() {
    let world = World::start();
    for body in [
        json!({"timeout_seconds": -1}),
        json!({"timeout_seconds": "soon"}),
        json!({"timeout": 1}),
        json!({"timeout_seconds": 99_999_999_u64}),
    ] {
        let reply = world.post("/drain", &body).await;
        assert_eq!(reply.status, 400, "{body}: {}", reply.text);
    }
    let status = world.get("/drain").await;
    assert_eq!(text(field(&status.body, "drain"), "phase"), "serving");
}
