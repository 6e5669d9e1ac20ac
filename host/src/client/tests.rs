//! The client against a server that misbehaves.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use serde_json::json;

use super::fake::{Cut, Fake, ID};
use super::*;
use crate::job::EventBody;

const HASTY: Patience = Patience {
    outage: Duration::from_secs(30),
    silence: Duration::from_secs(10),
    least: Duration::from_millis(5),
    most: Duration::from_millis(20),
};

fn client(url: &str) -> Client {
    Client::with_patience(url, None, HASTY).unwrap()
}

/// The numbers of the events, `-` for each loss, `+` for each return, and the error at the end if there is one.
async fn read(client: &Client, after: u64) -> (Vec<String>, Option<ClientError>) {
    let mut seen = Vec::new();
    let mut updates = std::pin::pin!(client.events(ID, after));
    while let Some(update) = updates.next().await {
        seen.push(match update {
            Ok(Update::Event(event)) => event.seq.to_string(),
            Ok(Update::Lost { .. }) => "-".into(),
            Ok(Update::Back) => "+".into(),
            Err(e) => return (seen, Some(e)),
        });
    }
    (seen, None)
}

#[tokio::test]
async fn a_stream_that_is_cut_goes_on_after_the_last_event() {
    let fake = Fake::start().await;
    fake.job(ID, &["a", "b", "c", "d"], Some(Status::Succeeded));
    fake.cut(&[Cut::Close(1), Cut::Break(2), Cut::Refuse(503)]);
    let (seen, error) = read(&client(&fake.url()), 0).await;
    assert_eq!(error.map(|e| e.to_string()), None);
    let asked: Vec<_> = fake.requests();
    let path = format!("GET /jobs/{ID}/events");
    assert_eq!(asked.first().unwrap(), &path);
    assert_eq!(asked.get(1).unwrap(), &format!("{path} @1"));
    let numbers: Vec<_> = seen.iter().filter(|s| !"+-".contains(s.as_str())).collect();
    assert_eq!(numbers, ["1", "2", "3", "4", "5"]);
    assert_eq!(seen.iter().filter(|s| *s == "-").count(), 3);
    assert!(seen.contains(&"+".to_owned()));
}

#[tokio::test]
async fn a_stream_survives_a_restart_of_the_server() {
    let fake = Fake::start().await;
    fake.job(ID, &["a", "b"], None);
    let client = client(&fake.url());
    let mut updates = Box::pin(client.events(ID, 0));
    for expected in [1, 2] {
        match updates.next().await {
            Some(Ok(Update::Event(event))) => assert_eq!(event.seq, expected),
            other => panic!("{other:?}"),
        }
    }
    let (address, world) = fake.stop().await;
    assert!(matches!(
        updates.next().await,
        Some(Ok(Update::Lost { .. }))
    ));
    let fake = Fake::start_at(address, Arc::clone(&world)).await;
    fake.job(ID, &["a", "b", "c"], Some(Status::Failed));
    let mut numbers = Vec::new();
    while let Some(update) = updates.next().await {
        if let Update::Event(event) = update.unwrap() {
            numbers.push(event.seq);
        }
    }
    assert_eq!(numbers, [3, 4]);
}

#[tokio::test]
async fn a_reconnect_past_the_end_ends() {
    let fake = Fake::start().await;
    fake.job(ID, &["a"], Some(Status::Succeeded));
    let (seen, error) = read(&client(&fake.url()), 2).await;
    assert!(seen.is_empty() && error.is_none());
}

#[tokio::test]
async fn an_outage_that_lasts_is_given_up() {
    let fake = Fake::start().await;
    let url = fake.url();
    fake.stop().await;
    let patience = Patience {
        outage: Duration::from_millis(50),
        ..HASTY
    };
    let client = Client::with_patience(&url, None, patience).unwrap();
    let (seen, error) = read(&client, 0).await;
    assert!(
        !seen.is_empty() && seen.iter().all(|s| s == "-"),
        "{seen:?}"
    );
    let error = error.unwrap();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("gave up"), "{error}");
}

#[tokio::test]
async fn a_silent_connection_counts_as_lost() {
    let fake = Fake::start().await;
    fake.job(ID, &["a"], None);
    let patience = Patience {
        silence: Duration::from_millis(100),
        ..HASTY
    };
    let client = Client::with_patience(&fake.url(), None, patience).unwrap();
    let mut updates = Box::pin(client.events(ID, 0));
    assert!(matches!(updates.next().await, Some(Ok(Update::Event(_)))));
    assert!(matches!(
        updates.next().await,
        Some(Ok(Update::Lost { .. }))
    ));
}

#[tokio::test]
async fn refusals_end_a_stream() {
    let fake = Fake::start().await;
    let (seen, error) = read(&client(&fake.url()), 0).await;
    assert!(seen.is_empty());
    assert_eq!(error.unwrap().status(), Some(404));
}

#[tokio::test]
async fn events_of_newer_versions_are_passed_over_and_a_reset_moves_the_cursor() {
    let fake = Fake::start().await;
    fake.job(ID, &[], Some(Status::Succeeded));
    let event = |seq: u64, kind: &str, more: Value| {
        let mut event = json!({"seq": seq, "ts": "2026-11-22T10:00:00Z", "type": kind});
        event
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        event
    };
    let end = json!({"status": "succeeded", "exit_code": 0, "attempt": 1, "cost_usd": 0.0});
    let events = vec![
        event(1, "hologram", json!({"x": 1})),
        event(4, "reset", json!({"oldest": 5})),
        event(5, "log", json!({"stream": "agent", "text": "x"})),
        event(6, "end", end),
    ];
    fake.world.events.lock().unwrap().insert(ID.into(), events);
    fake.cut(&[Cut::Close(1)]);
    let (seen, error) = read(&client(&fake.url()), 0).await;
    assert!(error.is_none(), "{error:?}");
    let numbers: Vec<_> = seen.iter().filter(|s| !"+-".contains(s.as_str())).collect();
    assert_eq!(numbers, ["4", "5", "6"]);
}

#[tokio::test]
async fn stored_events_come_page_by_page() {
    let fake = Fake::start().await;
    fake.job(ID, &["a", "b", "c"], None);
    let events: Vec<_> = client(&fake.url()).recorded(ID, 1).collect().await;
    let texts: Vec<_> = events
        .into_iter()
        .map(|e| match e.unwrap().body {
            EventBody::Log { text, .. } => text,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(texts, ["b", "c"]);
}

#[tokio::test]
async fn refusals_keep_the_words_of_the_server() {
    let fake = Fake::start().await;
    let body = RequestBody {
        task: "refuse".into(),
        ..RequestBody::default()
    };
    match client(&fake.url()).submit(&body).await {
        Err(ClientError::Refused {
            status,
            code,
            detail,
        }) => {
            assert_eq!((status, code.as_deref()), (422, Some("unknown_profile")));
            assert!(detail.contains("known profiles"), "{detail}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_key_is_shown_and_never_printed() {
    let fake = Fake::start().await;
    fake.job(ID, &[], None);
    *fake.world.key.lock().unwrap() = Some("sesame".into());
    assert_eq!(
        client(&fake.url()).get(ID).await.unwrap_err().status(),
        Some(401)
    );
    let key = SecretString::from("sesame");
    let client = Client::new(&fake.url(), Some(&key)).unwrap();
    client.get(ID).await.unwrap();
    assert!(!format!("{client:?}").contains("sesame"));
}

#[tokio::test]
async fn what_is_no_agenticore_server_is_told_so() {
    use axum::http::StatusCode;
    use axum::response::Redirect;
    use axum::routing::get;
    let router = axum::Router::new()
        .route("/a/jobs", get(async || "<html>hello</html>"))
        .route(
            "/b/jobs",
            get(async || (StatusCode::BAD_GATEWAY, "<h1>bad\n gateway</h1>")),
        )
        .route("/c/jobs", get(async || Redirect::temporary("/a/jobs")));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move { axum::serve(listener, router).await });
    let list = async |prefix: &str| {
        let client = client(&format!("{base}/{prefix}/"));
        client.list(&JobQuery::default()).await.unwrap_err()
    };
    assert!(matches!(list("a").await, ClientError::Unexpected(_)));
    let text = list("b").await.to_string();
    assert_eq!(
        text,
        "the server answered 502 Bad Gateway: <h1>bad gateway</h1>"
    );
    assert_eq!(list("c").await.status(), Some(307));
    task.abort();
}

#[test]
fn addresses_that_cannot_work_are_refused_before_anything_is_sent() {
    for bad in [
        "",
        "localhost:8200",
        "ftp://x",
        "http://u:p@x",
        "http://x/?api_key=k",
    ] {
        let error = Client::new(bad, None).unwrap_err();
        assert!(matches!(error, ClientError::Setup(_)), "{bad}: {error}");
        assert!(!error.to_string().contains("u:p"), "{error}");
    }
    Client::new("https://example.org/agenticore/", None).unwrap();
}

#[test]
fn proxies_are_not_for_this_machine() {
    let of = |url: &str| is_loopback(&Url::parse(url).unwrap());
    assert!(of("http://127.0.0.1:8200") && of("http://localhost") && of("http://[::1]:1"));
    assert!(!of("http://example.org") && !of("http://10.0.0.1"));
}
