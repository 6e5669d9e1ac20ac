//! The stream of one job: the same events to every reader, once each, whenever it comes and however slowly it reads.

use std::time::Duration;

use futures::stream;
use serde_json::{Value, json};

use super::client::{Client, Stream, within};
use super::fake::Fake;
use crate::api::events::sse;
use crate::job::JobId;

const A: &str = "0b6ad2a4-6d0a-4f0e-9a49-3d7f4b8f2c11";

fn path(id: JobId) -> String {
    format!("/jobs/{id}/events")
}

async fn ended(fake: &Fake) -> JobId {
    let lease = fake.running(A).await;
    fake.log(&lease, "hello\nworld").await;
    fake.finish(&lease).await;
    lease.id
}

#[tokio::test]
async fn the_transcript_of_a_stream() {
    let fake = Fake::new();
    let id = ended(&fake).await;
    let mut stream = Client::new(&fake).stream(&path(id)).await;
    assert_eq!(stream.status, 200);
    let header = |name| stream.headers.get(name).unwrap().to_str().unwrap();
    assert_eq!(header("content-type"), "text/event-stream");
    assert_eq!(header("cache-control"), "no-cache, no-transform");
    assert_eq!(header("x-accel-buffering"), "no");
    let text = stream.rest().await;
    assert!(text.ends_with("}\n\n"));
    insta::assert_snapshot!(text, @r#"
    retry: 2000

    id: 1
    event: status
    data: {"seq":1,"ts":"2023-11-14T22:13:21Z","type":"status","status":"queued","attempt":0}

    id: 2
    event: status
    data: {"seq":2,"ts":"2023-11-14T22:13:23Z","type":"status","status":"running","attempt":1,"pod":"pod-0"}

    id: 3
    event: log
    data: {"seq":3,"ts":"2023-11-14T22:13:24Z","type":"log","stream":"agent","text":"hello\nworld"}

    id: 4
    event: end
    data: {"seq":4,"ts":"2023-11-14T22:13:26Z","type":"end","status":"succeeded","exit_code":0,"attempt":1,"cost_usd":0.0}
    "#);
}

#[tokio::test]
async fn readers_that_come_at_any_time_see_the_same_events() {
    const LINES: u64 = 200;
    let fake = Fake::new();
    let client = Client::new(&fake);
    let lease = fake.running(A).await;
    let id = lease.id;
    let read = |mut stream: Stream| async move {
        stream.rest().await;
        stream
    };
    let early = tokio::spawn(read(client.stream(&path(id)).await));
    let mut late = Vec::new();
    // A reader that reads nothing until the job is over.
    let mut slow = client.stream(&path(id)).await;
    // A reader whose connection breaks again and again.
    let restless = tokio::spawn(restless(client.clone(), id));
    for n in 0..LINES {
        fake.log(&lease, &format!("line {n}")).await;
        if n % 20 == 0 {
            late.push(tokio::spawn(read(client.stream(&path(id)).await)));
        }
        if n % 3 == 0 {
            tokio::task::yield_now().await;
        }
    }
    fake.finish(&lease).await;
    // Two changes of status, the lines, the end.
    let expected: Vec<u64> = (1..=LINES + 3).collect();
    assert_eq!(early.await.unwrap().ids(), expected);
    for reader in late {
        assert_eq!(reader.await.unwrap().ids(), expected);
    }
    slow.rest().await;
    assert_eq!(slow.ids(), expected);
    assert_eq!(
        within("the restless reader", restless).await.unwrap(),
        expected
    );
}

async fn restless(client: Client, id: JobId) -> Vec<u64> {
    let mut ids: Vec<u64> = Vec::new();
    loop {
        let last = ids.last().copied().unwrap_or(0);
        let mut stream = client.resume(&path(id), &last.to_string()).await;
        if stream.status == 204 {
            return ids;
        }
        // The retry line and up to three events.
        for _ in 0..4 {
            if stream.chunk().await.is_none() {
                break;
            }
        }
        ids.extend(stream.ids());
    }
}

#[tokio::test]
async fn a_reader_resumes_after_its_last_event() {
    let fake = Fake::new();
    let id = ended(&fake).await;
    let client = Client::new(&fake);
    let mut by_query = client.stream(&format!("{}?after=2", path(id))).await;
    by_query.rest().await;
    assert_eq!(by_query.ids(), [3, 4]);
    let mut by_header = client.resume(&format!("{}?after=1", path(id)), "3").await;
    by_header.rest().await;
    assert_eq!(by_header.ids(), [4]);
}

#[tokio::test]
async fn a_reader_that_has_the_end_is_told_to_stop() {
    let fake = Fake::new();
    let id = ended(&fake).await;
    let client = Client::new(&fake);
    for last in ["4", "5", "18446744073709551615"] {
        let mut stream = client.resume(&path(id), last).await;
        assert_eq!(stream.status, 204);
        assert_eq!(stream.rest().await, "");
        let lines = client
            .get(&format!("{}?format=ndjson&after={last}", path(id)))
            .await;
        assert_eq!(lines.status, 204);
        let page = client
            .get(&format!("{}?format=json&after={last}", path(id)))
            .await;
        let nothing = json!({"success": true, "events": [], "next": 4, "ended": true});
        assert_eq!(page.json(), nothing);
    }
}

/// The data of the only event of `name` in a transcript.
fn data(text: &str, name: &str) -> Value {
    let frames = text.split("\n\n");
    let mut found = frames.filter(|f| f.contains(&format!("event: {name}\n")));
    let frame = found
        .next()
        .unwrap_or_else(|| panic!("no {name} in {text}"));
    assert!(found.next().is_none(), "{text}");
    let line = frame
        .lines()
        .find_map(|l| l.strip_prefix("data: "))
        .unwrap();
    serde_json::from_str(line).unwrap()
}

#[tokio::test]
async fn a_cursor_from_the_future_is_reset() {
    let fake = Fake::new();
    let lease = fake.running(A).await;
    let client = Client::new(&fake);
    for cursor in ["3", "900", "18446744073709551615"] {
        let mut stream = client.resume(&path(lease.id), cursor).await;
        let reset = data(stream.until("event: reset").await, "reset");
        assert_eq!((&reset["seq"], &reset["oldest"]), (&2.into(), &1.into()));
        assert_eq!(reset["job"]["status"], "running");
        let uri = format!("{}?format=json&after={cursor}", path(lease.id));
        let page = client.get(&uri).await.json();
        assert_eq!(page["events"][0]["type"], "reset");
        assert_eq!((&page["next"], &page["ended"]), (&2.into(), &false.into()));
    }
    let mut stream = client.resume(&path(lease.id), "3").await;
    stream.until("event: reset").await;
    fake.log(&lease, "goes on").await;
    stream.until("goes on").await;
    assert_eq!(stream.ids(), [2, 3]);
}

#[tokio::test]
async fn a_cursor_whose_events_are_gone_is_reset() {
    let fake = Fake::new();
    let id = ended(&fake).await;
    fake.store.trim(id, 2);
    let mut stream = Client::new(&fake).resume(&path(id), "1").await;
    let reset = data(stream.rest().await, "reset");
    assert_eq!((&reset["seq"], &reset["oldest"]), (&2.into(), &3.into()));
    assert_eq!(reset["job"]["status"], "succeeded");
    assert_eq!(stream.ids(), [2, 3, 4]);
    let mut stream = Client::new(&fake).resume(&path(id), "2").await;
    stream.rest().await;
    assert_eq!(stream.ids(), [3, 4]);
}

#[tokio::test]
async fn a_server_that_stops_closes_streams_without_an_end() {
    let fake = Fake::new();
    let lease = fake.running(A).await;
    let client = Client::new(&fake);
    let mut events = client.stream(&path(lease.id)).await;
    let mut lines = client
        .stream(&format!("{}?format=ndjson", path(lease.id)))
        .await;
    let poll = format!("{}?format=json&after=2&wait=30", path(lease.id));
    let poller = tokio::spawn(async move { client.get(&poll).await });
    events.until("running").await;
    lines.until("running").await;
    fake.stopping.cancel();
    let all = async {
        assert!(!events.rest().await.contains("event: end"));
        assert!(!lines.rest().await.contains("\"end\""));
        poller.await.unwrap().json()
    };
    let page = tokio::time::timeout(Duration::from_secs(1), all)
        .await
        .unwrap();
    assert_eq!((&page["next"], &page["ended"]), (&2.into(), &false.into()));
}

/// Over a socket: every event is sent when it comes, and an open stream does not hold up the server's stop.
#[tokio::test]
async fn an_open_stream_does_not_hold_up_the_stop() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let fake = Fake::new();
    let lease = fake.running(A).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stopping = fake.stopping.clone();
    let serve = axum::serve(listener, crate::api::router(fake.clone()))
        .with_graceful_shutdown(async move { stopping.cancelled().await });
    let server = tokio::spawn(async move { serve.await });

    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let path = path(lease.id);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut text = Vec::new();
    for needle in ["running", "first", "second"] {
        fake.log(&lease, needle).await;
        let read = async {
            while !String::from_utf8_lossy(&text).contains(needle) {
                assert_ne!(socket.read_buf(&mut text).await.unwrap(), 0);
            }
        };
        within("the socket", read).await;
    }
    fake.stopping.cancel();
    let stopped = tokio::time::timeout(Duration::from_secs(1), server).await;
    stopped.unwrap().unwrap().unwrap();
    socket.read_to_end(&mut text).await.unwrap();
    assert!(!String::from_utf8_lossy(&text).contains("event: end"));
}

#[tokio::test]
async fn a_store_that_lets_go_of_a_job_ends_its_stream() {
    let fake = Fake::new();
    let lease = fake.running(A).await;
    let mut stream = Client::new(&fake).stream(&path(lease.id)).await;
    stream.until("running").await;
    fake.store.forget(lease.id);
    assert!(!stream.rest().await.contains("event: end"));
}

#[tokio::test]
async fn a_failing_store_closes_the_stream_and_the_reader_resumes() {
    let fake = Fake::new();
    let lease = fake.running(A).await;
    let client = Client::new(&fake);
    let mut stream = client.stream(&path(lease.id)).await;
    stream.until("running").await;
    fake.log(&lease, "unread").await;
    fake.store.fail(std::io::ErrorKind::Other);
    stream.rest().await;
    assert_eq!(stream.ids(), [1, 2]);
    let mut again = client.resume(&path(lease.id), "2").await;
    again.until("unread").await;
    assert_eq!(again.ids(), [3]);
}

#[tokio::test]
async fn a_silent_stream_shows_that_it_is_alive() {
    let response = sse(stream::pending(), Duration::from_millis(5));
    let mut frames = response.into_body().into_data_stream();
    let mut text = String::new();
    while !text.ends_with(": keep-alive\n\n: keep-alive\n\n") {
        let frame = futures::StreamExt::next(&mut frames)
            .await
            .unwrap()
            .unwrap();
        text.push_str(std::str::from_utf8(&frame).unwrap());
    }
    assert!(text.starts_with("retry: 2000\n\n"));
}

#[tokio::test]
async fn lines_are_the_same_events() {
    let fake = Fake::new();
    let lease = fake.running(A).await;
    let client = Client::new(&fake);
    let mut following = client
        .stream(&format!("{}?format=ndjson", path(lease.id)))
        .await;
    assert_eq!(following.headers["content-type"], "application/x-ndjson");
    let stored = client
        .get(&format!("{}?format=ndjson&follow=false", path(lease.id)))
        .await;
    assert_eq!(seqs(&stored.body), [1, 2]);
    fake.log(&lease, "hello\nworld").await;
    fake.finish(&lease).await;
    let text = following.rest().await;
    assert_eq!(seqs(text), [1, 2, 3, 4]);
    assert!(text.ends_with('\n'));
    let rest = client
        .get(&format!(
            "{}?format=ndjson&follow=false&after=3",
            path(lease.id)
        ))
        .await;
    assert_eq!(seqs(&rest.body), [4]);
}

fn seqs(lines: &str) -> Vec<u64> {
    let events = lines
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap());
    events.map(|e| e["seq"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn a_poller_reads_page_after_page() {
    let fake = Fake::new();
    let id = ended(&fake).await;
    let client = Client::new(&fake);
    let mut next = 0;
    let mut names = Vec::new();
    loop {
        let page = client
            .get(&format!("{}?format=json&after={next}", path(id)))
            .await
            .json();
        let events = page["events"].as_array().unwrap();
        names.extend(
            events
                .iter()
                .map(|e| e["type"].as_str().unwrap().to_owned()),
        );
        next = page["next"].as_u64().unwrap();
        if page["ended"] == true {
            break;
        }
    }
    assert_eq!(
        (next, names.join(" ").as_str()),
        (4, "status status log end")
    );
}

#[tokio::test]
async fn a_poller_can_wait_for_the_next_event() {
    let fake = Fake::new();
    let lease = fake.running(A).await;
    let client = Client::new(&fake);
    let at_the_tip = format!("{}?format=json&after=2", path(lease.id));
    let now = client.get(&at_the_tip).await.json();
    assert_eq!(
        now,
        json!({"success": true, "events": [], "next": 2, "ended": false})
    );
    let in_vain = client.get(&format!("{at_the_tip}&wait=1")).await.json();
    assert_eq!(in_vain, now);
    let waiting = tokio::spawn({
        let (client, uri) = (client.clone(), format!("{at_the_tip}&wait=30"));
        async move { client.get(&uri).await }
    });
    tokio::task::yield_now().await;
    fake.log(&lease, "here it is").await;
    let page = waiting.await.unwrap().json();
    assert_eq!(page["events"][0]["text"], "here it is");
    assert_eq!(page["next"], 3);
}
