//! Who is let in.

use axum::body::Body;
use axum::http::{Request, request};

use super::client::{Answer, Client, get};
use super::fake::Fake;

async fn send(client: &Client, request: request::Builder) -> Answer {
    client.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn a_key_is_taken_in_three_spellings() {
    let client = Client::new(&Fake::with(&[("AGENTICORE_API_KEYS", "one,two+2")]));
    let header = |name, value: &str| get("/jobs").header(name, value.to_owned());
    for good in [
        header("x-api-key", "one"),
        header("x-api-key", "two+2"),
        header("authorization", "Bearer one"),
        header("authorization", "bearer  one"),
        header("authorization", "Basic eDp5").header("x-api-key", "one"),
        get("/jobs?api_key=one"),
        get("/jobs?limit=3&api_key=two%2B2"),
    ] {
        assert_eq!(send(&client, good).await.status, 200);
    }
    for bad in [
        get("/jobs"),
        header("x-api-key", ""),
        header("x-api-key", "on"),
        header("x-api-key", "one,two+2"),
        header("x-api-key", "ONE"),
        header("authorization", "one"),
        header("authorization", "Basic one"),
        get("/jobs?api_key="),
        get("/jobs?api_key=three"),
        get("/jobs?API_KEY=one"),
        get("/nowhere"),
        get("/health/"),
        Request::post("/jobs"),
        Request::delete("/jobs/abcdef"),
    ] {
        let answer = send(&client, bad).await;
        assert_eq!(answer.status, 401, "{}", answer.body);
        assert_eq!(answer.json()["error"], "Invalid or missing API key");
        assert_eq!(
            answer.header("www-authenticate"),
            r#"Bearer realm="agenticore""#
        );
    }
}

#[tokio::test]
async fn probes_need_no_key() {
    let client = Client::new(&Fake::with(&[("AGENTICORE_API_KEYS", "one")]));
    for path in [
        "/health",
        "/livez",
        "/readyz",
        "/healthz",
        "/readyz?verbose",
    ] {
        assert_eq!(client.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_server_for_this_machine_answers_to_its_names_only() {
    let client = Client::new(&Fake::new());
    let asks = |host: &'static str| send(&client, get("/jobs").header("host", host));
    for good in [
        "localhost",
        "LOCALHOST:8200",
        "127.0.0.1:1",
        "[::1]:8200",
        "[::1]",
        "127.0.0.2",
    ] {
        assert_eq!(asks(good).await.status, 200, "{good}");
    }
    for bad in [
        "evil.example",
        "evil.example:8200",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "localhost@evil.example",
        "evil.example@localhost",
        "10.0.0.1",
        "0.0.0.0",
        "",
    ] {
        let answer = asks(bad).await;
        assert_eq!(answer.status, 403, "{bad}");
        assert_eq!(answer.json()["code"], "forbidden_host");
    }
    // HTTP/2 names the host in the address.
    assert_eq!(client.get("http://evil.example/jobs").await.status, 403);
    assert_eq!(client.get("http://localhost:8200/jobs").await.status, 200);
}

#[tokio::test]
async fn a_server_with_keys_or_a_public_address_answers_to_any_name() {
    for env in [
        &[("AGENTICORE_API_KEYS", "one")][..],
        &[
            ("AGENTICORE_HOST", "0.0.0.0"),
            ("AGENTICORE_UNSAFE_NO_AUTH", "true"),
        ],
    ] {
        let client = Client::new(&Fake::with(env));
        let request = get("/jobs").header("host", "agenticore.example");
        let answer = send(&client, request.header("x-api-key", "one")).await;
        assert_eq!(answer.status, 200);
    }
}

#[tokio::test]
async fn a_page_of_another_origin_changes_nothing() {
    let fake = Fake::new();
    let client = Client::new(&fake);
    let asks = |origin: &'static str| {
        let request = Request::post("/jobs")
            .header("host", "localhost:8200")
            .header("content-type", "application/json")
            .header("origin", origin);
        client.send(request.body(Body::from(r#"{"task":"x"}"#)).unwrap())
    };
    for bad in [
        "https://evil.example",
        "null",
        "http://localhost:3000",
        "http://localhost",
        "localhost:8200",
        "",
    ] {
        let answer = asks(bad).await;
        assert_eq!(answer.status, 403, "{bad}");
        assert_eq!(answer.json()["code"], "forbidden_origin");
    }
    assert_eq!(client.get("/jobs").await.json()["count"], 0);
    assert_eq!(asks("http://localhost:8200").await.status, 200);

    let lease = fake.claim().await;
    let path = format!("/jobs/{}", lease.id);
    let cancel = Request::delete(&path).header("host", "localhost:8200");
    let answer = send(&client, cancel.header("origin", "https://evil.example")).await;
    assert_eq!(answer.status, 403);
    assert!(!lease.cancelled.is_cancelled());
    // Reading is left to the browser, which keeps the answer from the page: no CORS header allows it.
    let read = get("/jobs").header("origin", "https://evil.example");
    let answer = send(&client, read).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), "");
}

#[tokio::test]
async fn a_key_does_what_its_scope_allows_and_no_more() {
    let client = Client::new(&Fake::with(&[
        ("AGENTICORE_API_KEYS", "all"),
        ("AGENTICORE_SUBMIT_KEYS", "some"),
        // A key that stands twice has the larger scope.
        ("AGENTICORE_READ_KEYS", "few,all"),
    ]));
    let job = "/jobs/00000000-0000-4000-8000-000000000000";
    let retry = format!("{job}/retry");
    for (method, path, allowed) in [
        ("GET", "/jobs", "few some all"),
        ("GET", job, "few some all"),
        ("GET", "/drain", "few some all"),
        ("GET", "/metrics", "few some all"),
        ("POST", "/jobs", "some all"),
        ("DELETE", job, "some all"),
        ("POST", &retry, "some all"),
        ("POST", "/drain", "all"),
        ("DELETE", "/drain", "all"),
        ("POST", "/nowhere", "all"),
        ("POST", "/jobsX", "all"),
    ] {
        for key in ["few", "some", "all"] {
            let request = Request::builder().method(method).uri(path);
            let answer = send(&client, request.header("x-api-key", key)).await;
            let is_allowed = allowed.split(' ').any(|one| one == key);
            assert_eq!(answer.status != 403, is_allowed, "{method} {path} {key}");
            if !is_allowed {
                assert_eq!(answer.json()["code"], "insufficient_scope");
                assert!(answer.header("www-authenticate").contains("scope"));
            }
        }
    }
}

#[tokio::test]
async fn a_key_that_asks_too_often_is_told_when_to_come_back() {
    let client = Client::new(&Fake::with(&[
        ("AGENTICORE_API_KEYS", "one,two"),
        ("AGENTICORE_RATE_LIMIT", "3"),
    ]));
    let asks = async |path: &str, key: &'static str| {
        send(&client, get(path).header("x-api-key", key)).await
    };
    for _ in 0..3 {
        assert_eq!(asks("/jobs", "one").await.status, 200);
    }
    let refused = asks("/jobs", "one").await;
    assert_eq!(refused.status, 429, "{}", refused.body);
    assert_eq!(refused.json()["code"], "rate_limited");
    // Three a minute: the next one is free within 20 seconds.
    let seconds: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=20).contains(&seconds), "{seconds}");
    assert_eq!(asks("/jobs", "two").await.status, 200, "each for itself");
    assert_eq!(asks("/jobs", "three").await.status, 401);
    for path in ["/livez", "/readyz", "/metrics", "/drain", "/openapi.json"] {
        assert_eq!(asks(path, "one").await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn without_keys_everybody_shares_one_limit() {
    let client = Client::new(&Fake::with(&[("AGENTICORE_RATE_LIMIT", "1")]));
    assert_eq!(client.get("/jobs").await.status, 200);
    assert_eq!(client.get("/queue").await.status, 429);
}
