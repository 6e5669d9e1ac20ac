//! The event stream: numbered without gaps, the same for every reader, resumable across connections and restarts.

use agenticore_tests::{Frame, World};
use reqwest::Method;
use serde_json::json;

use crate::{field, number, text};

/// Prints `lines` numbered lines, waits at the gate, prints as many again.
fn chatty(lines: u32, gate: &agenticore_tests::Gate) -> String {
    let print = |from: u32, to: u32| format!("for i in $(seq {from} {to}); do echo line $i; done");
    format!(
        "{}; {}; {}",
        print(1, lines),
        gate.wait(),
        print(lines + 1, 2 * lines)
    )
}

fn ids(frames: &[Frame]) -> Vec<u64> {
    frames
        .iter()
        .map(|frame| frame.id.expect("every frame has an id"))
        .collect()
}

#[track_caller]
fn assert_whole(ids: &[u64]) {
    let expected: Vec<u64> = (1..=ids.len() as u64).collect();
    assert_eq!(ids, expected, "ids from 1 without gap or repeat");
}

#[tokio::test]
async fn readers_that_join_late_or_reconnect_see_the_same_events() {
    let world = World::start();
    let gate = world.gate("half");
    let id = world.submit(&chatty(200, &gate)).await;

    let mut early = world.sse(&id, None).await;
    let mut first_half = Vec::new();
    while let Some(frame) = early.next().await {
        let is_middle = text(&frame.data, "text").contains("line 200");
        first_half.push(frame);
        if is_middle {
            break;
        }
    }
    assert_eq!(early.retry, Some(2000));
    let headers = early.headers();
    assert!(
        headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/event-stream")
    );
    assert!(
        headers["cache-control"]
            .to_str()
            .unwrap()
            .contains("no-cache")
    );
    assert_eq!(headers["x-accel-buffering"], "no");

    // One goes on, one joins in the middle, one comes back with what it saw last.
    let mut late = world.sse(&id, None).await;
    let seen_last = first_half.last().and_then(|frame| frame.id);
    let mut back = world.sse(&id, seen_last).await;
    gate.open();
    let (early_rest, late_all, back_rest) = tokio::join!(early.rest(), late.rest(), back.rest());
    let early_all = [first_half.clone(), early_rest].concat();
    let back_all = [first_half, back_rest].concat();
    assert_whole(&ids(&late_all));
    assert_eq!(early_all, late_all);
    assert_eq!(back_all, late_all);

    let end = late_all.last().unwrap();
    assert_eq!(
        (end.event.as_str(), text(&end.data, "status")),
        ("end", "succeeded")
    );
    assert_eq!(
        late_all.iter().filter(|frame| frame.event == "end").count(),
        1
    );
    for frame in &late_all {
        assert_eq!(frame.event, text(&frame.data, "type"));
        assert_eq!(frame.id, Some(number(&frame.data, "seq")));
        assert!(text(&frame.data, "ts").starts_with("20"));
    }
    let log: String = late_all
        .iter()
        .filter(|f| f.event == "log")
        .map(|f| text(&f.data, "text"))
        .collect::<Vec<_>>()
        .join("\n");
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| line.starts_with("line "))
        .collect();
    let expected: Vec<String> = (1..=400).map(|i| format!("line {i}")).collect();
    assert_eq!(
        lines, expected,
        "no line of the agent is lost, repeated or out of order"
    );
}

#[tokio::test]
async fn a_reader_past_the_end_is_told_not_to_come_back() {
    let world = World::start();
    let id = world.submit("echo x").await;
    world.ended(&id).await;
    let all = world.sse(&id, None).await.rest().await;
    let last = all.last().and_then(|frame| frame.id).unwrap();
    let request = world.request(Method::GET, &format!("/jobs/{id}/events"));
    let reply = world
        .send(request.header("last-event-id", last.to_string()))
        .await;
    assert_eq!((reply.status, reply.text.as_str()), (204, ""));
    let reply = world.get(&format!("/jobs/{id}/events?after={last}")).await;
    assert_eq!(reply.status, 204, "{}", reply.text);
    // The header of a reconnecting reader wins over the query it first came with.
    let request = world.request(Method::GET, &format!("/jobs/{id}/events?after=0"));
    let reply = world
        .send(request.header("last-event-id", last.to_string()))
        .await;
    assert_eq!(reply.status, 204, "{}", reply.text);
    for bad in ["abc", "-1", "1.5"] {
        let request = world.request(Method::GET, &format!("/jobs/{id}/events"));
        let reply = world.send(request.header("last-event-id", bad)).await;
        assert_eq!(reply.status, 400, "{bad}: {}", reply.text);
    }
    let missing = world
        .get("/jobs/00000000-0000-4000-8000-000000000000/events")
        .await;
    assert_eq!(missing.status, 404, "{}", missing.text);
}

#[tokio::test]
async fn the_same_events_come_as_lines_and_as_pages() {
    let world = World::start();
    let id = world
        .submit("for i in $(seq 1 50); do echo line $i; done")
        .await;
    world.ended(&id).await;
    let frames = world.sse(&id, None).await.rest().await;
    let stream: Vec<_> = frames.iter().map(|frame| frame.data.clone()).collect();

    let lines = world.get(&format!("/jobs/{id}/events?format=ndjson")).await;
    assert!(
        lines.header("content-type").contains("ndjson"),
        "{:?}",
        lines.headers
    );
    let parsed: Vec<serde_json::Value> = lines
        .text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(parsed, stream);

    assert_eq!(world.events(&id).await, stream);
    let page = world
        .get(&format!("/jobs/{id}/events?format=json&after=3"))
        .await;
    assert_eq!(number(&page.body["events"][0], "seq"), 4);
    assert_eq!(page.body["ended"], json!(true));
    assert_eq!(page.body["next"], json!(stream.len()));
    let bad = world.get(&format!("/jobs/{id}/events?format=xml")).await;
    assert!(
        (400..500).contains(&bad.status),
        "{} {}",
        bad.status,
        bad.text
    );
}

#[tokio::test]
async fn the_stages_of_a_job_come_in_their_order_and_each_ends() {
    let world = World::start();
    let id = world.submit("echo x").await;
    world.ended(&id).await;
    let order = [
        "clone",
        "materialize",
        "pre_hook",
        "agent_run",
        "post_hook",
        "pull_request",
    ];
    let mut reached = 0;
    let mut open = Vec::new();
    let events = world.events(&id).await;
    for event in events.iter().filter(|event| text(event, "type") == "stage") {
        let stage = text(event, "stage");
        let place = order.iter().position(|name| *name == stage);
        let place = place.unwrap_or_else(|| panic!("unknown stage in {event}"));
        assert!(place >= reached, "{stage} comes too late: {events:?}");
        reached = place;
        match text(event, "state") {
            "started" => open.push(stage),
            "done" => assert_eq!(open.pop(), Some(stage)),
            other => assert_eq!(other, "waiting", "{event}"),
        }
    }
    assert!(open.is_empty(), "stages that never end: {open:?}");
    assert_eq!(events.last().map(|event| text(event, "type")), Some("end"));
    assert!(reached >= 3, "the agent's stage is missing: {events:?}");
    let statuses: Vec<&str> = events
        .iter()
        .filter(|e| text(e, "type") == "status")
        .map(|e| text(e, "status"))
        .collect();
    assert_eq!(statuses.first(), Some(&"queued"));
    assert!(statuses.contains(&"running"), "{statuses:?}");
}

#[tokio::test]
async fn a_stopping_server_ends_streams_without_an_end_and_the_next_goes_on() {
    let mut world = World::start();
    let gate = world.gate("after");
    let script = format!("echo began; {}; echo over", gate.wait());
    let id = world.submit(&script).await;
    world.logged(&id, "began").await;
    let mut reader = world.sse(&id, None).await;
    let mut seen = Vec::new();
    while let Some(frame) = reader.next().await {
        let began = text(&frame.data, "text").contains("began");
        seen.push(frame);
        if began {
            break;
        }
    }
    world.sigterm();
    seen.extend(reader.rest().await);
    assert!(
        seen.iter().all(|frame| frame.event != "end"),
        "the job is not over: {seen:?}"
    );
    world.stopped();

    world.boot();
    gate.open();
    let mut again = world.sse(&id, seen.last().and_then(|frame| frame.id)).await;
    seen.extend(again.rest().await);
    assert_whole(&ids(&seen));
    let end = seen.last().unwrap();
    assert_eq!(
        (end.event.as_str(), text(&end.data, "status")),
        ("end", "succeeded"),
        "{}",
        end.data
    );
    assert_eq!(number(&end.data, "attempt"), 2);
    let reasons: Vec<&str> = seen
        .iter()
        .map(|frame| text(&frame.data, "reason"))
        .collect();
    assert!(reasons.contains(&"hand_off"), "{seen:?}");
    assert_eq!(field(&world.job(&id).await, "attempt"), &json!(2));
}

#[tokio::test]
async fn a_command_that_follows_outlives_a_restart_of_the_server() {
    // The port must be the same for a client to find the server again.
    let free = std::net::TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut world = World::builder().port(free).start();
    let gate = world.gate("after");
    let script = format!("echo began; {}; echo over", gate.wait());
    let mut run = world
        .cli_start(&["run", &script, "--profile", "shell", "--wait"])
        .await;
    run.saw("began").await;
    world.kill9();
    world.boot();
    gate.open();
    run.saw("over").await;
    let end = run.end().await;
    assert_eq!(end.code, Some(0), "{}", end.stderr);
}
