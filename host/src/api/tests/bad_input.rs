//! Whatever is wrong with a request, the answer says so with a 4xx, and nothing is written.

use axum::body::Body;
use axum::http::Request;

use super::client::{Client, get, post};
use super::fake::Fake;
use crate::queue::{Filter, Queue};

const ID: &str = "0b6ad2a4-6d0a-4f0e-9a49-3d7f4b8f2c11";

async fn refused(fake: &Fake, request: Request<Body>, status: u16, code: &str, says: &str) {
    let what = format!("{} {}", request.method(), request.uri());
    let answer = Client::new(fake).send(request).await;
    assert_eq!(answer.status, status, "{what}: {}", answer.body);
    assert_eq!(
        answer.header("content-type"),
        "application/problem+json",
        "{what}"
    );
    let body = answer.json();
    assert_eq!(body["code"], code, "{what}: {body}");
    assert_eq!(body["status"], status, "{what}: {body}");
    assert_eq!(body["success"], false, "{what}: {body}");
    assert_eq!(body["error"], body["detail"], "{what}: {body}");
    assert!(
        body["detail"].as_str().unwrap().contains(says),
        "{what}: {body}"
    );
}

#[tokio::test]
async fn bad_bodies() {
    let fake = Fake::new();
    let long = format!(r#"{{"task":"{}"}}"#, "x".repeat(600 * 1024));
    for (body, status, code, says) in [
        ("", 400, "invalid_json", "EOF"),
        ("{", 400, "invalid_json", "EOF"),
        ("task=x", 400, "invalid_json", "line 1 column 2"),
        (
            "{\"task\":\"\u{1}\"}",
            400,
            "invalid_json",
            "control character",
        ),
        ("null", 400, "invalid_request", "must be a JSON object"),
        ("7", 400, "invalid_request", "must be a JSON object"),
        ("[]", 400, "invalid_request", "JSON object"),
        (r#"["say hello"]"#, 400, "invalid_request", "JSON object"),
        ("{}", 400, "invalid_request", "task is empty"),
        (r#"{"task":" "}"#, 400, "invalid_request", "task is empty"),
        (r#"{"task":7}"#, 400, "invalid_request", "expected a string"),
        (
            r#"{"task":"a","task":"b"}"#,
            400,
            "invalid_request",
            "duplicate field",
        ),
        (
            r#"{"task":"x","wait":"yes"}"#,
            400,
            "invalid_request",
            "expected a boolean",
        ),
        (
            r#"{"task":"x","repo":"y"}"#,
            400,
            "invalid_request",
            "expected one of `task`, `repo_url`",
        ),
        (r#"{"task":"x\u0000"}"#, 400, "invalid_request", "NUL"),
        (long.as_str(), 400, "invalid_request", "614400 bytes"),
        (
            r#"{"task":"x","profile":"../x"}"#,
            400,
            "invalid_request",
            "profile name",
        ),
        (
            r#"{"task":"x","session_id":"--resume"}"#,
            400,
            "invalid_request",
            "session id",
        ),
        (
            r#"{"task":"x","base_ref":"dev"}"#,
            400,
            "invalid_request",
            "needs a repo_url",
        ),
        (
            r#"{"task":"x","profile":"nope"}"#,
            422,
            "unknown_profile",
            "code, review",
        ),
        (
            r#"{"task":"x","profile":"broken"}"#,
            422,
            "broken_profile",
            "line 2",
        ),
        (
            r#"{"task":"x","profile":"shell"}"#,
            403,
            "local_only_profile",
            "ALLOW_LOCAL_PROFILES",
        ),
    ] {
        refused(&fake, post(body.to_owned()), status, code, says).await;
    }
    let all = Filter {
        limit: 1,
        ..Filter::default()
    };
    assert!(fake.store.list(&all).await.unwrap().jobs.is_empty());
}

#[tokio::test]
async fn the_body_must_say_that_it_is_json() {
    let fake = Fake::new();
    let task = || Body::from(r#"{"task":"x"}"#);
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonp",
        "",
    ] {
        let request = Request::post("/jobs")
            .header("content-type", kind)
            .body(task());
        refused(
            &fake,
            request.unwrap(),
            415,
            "unsupported_media_type",
            "application/json",
        )
        .await;
    }
    let request = Request::post("/jobs").body(task()).unwrap();
    refused(
        &fake,
        request,
        415,
        "unsupported_media_type",
        "application/json",
    )
    .await;
    for kind in [
        "application/json; charset=utf-8",
        "Application/JSON",
        "application/x+json",
    ] {
        let request = Request::post("/jobs")
            .header("content-type", kind)
            .body(task());
        assert_eq!(
            Client::new(&fake).send(request.unwrap()).await.status,
            200,
            "{kind}"
        );
    }
}

#[tokio::test]
async fn a_body_that_is_packed_is_refused_and_not_taken_for_broken_json() {
    let fake = Fake::new();
    let packed = |encoding: &str| {
        let request = Request::post("/jobs")
            .header("content-type", "application/json")
            .header("content-encoding", encoding);
        request.body(Body::from(r#"{"task":"x"}"#)).unwrap()
    };
    for encoding in ["gzip", "br", "gzip, identity"] {
        let says = "leave the header Content-Encoding out";
        refused(&fake, packed(encoding), 415, "unsupported_media_type", says).await;
    }
    assert_eq!(
        Client::new(&fake).send(packed("identity")).await.status,
        200
    );
}

#[tokio::test]
async fn a_body_of_more_than_a_mebibyte_is_not_read() {
    let fake = Fake::new();
    let declared = post(vec![b' '; 1024 * 1024 + 1]);
    refused(&fake, declared, 413, "payload_too_large", "into a file").await;
    let chunks = (0..20).map(|_| Ok::<_, std::io::Error>(vec![b' '; 64 * 1024]));
    let undeclared = post(Body::from_stream(futures::stream::iter(chunks)));
    refused(&fake, undeclared, 413, "payload_too_large", "1048576").await;
    let fits = format!(r#"{{"task":"x"}}{}"#, " ".repeat(1024 * 1024 - 12));
    assert_eq!(Client::new(&fake).post(fits).await.status, 200);
}

#[tokio::test]
async fn bad_addresses() {
    let fake = Fake::new();
    fake.queued(ID).await;
    let events = |query: &str| format!("/jobs/{ID}/events?{query}");
    for (uri, status, code, says) in [
        (
            "/jobs?limit=abc".to_owned(),
            400,
            "invalid_query",
            "1 to 200",
        ),
        ("/jobs?limit=0".into(), 400, "invalid_query", "1 to 200"),
        ("/jobs?limit=201".into(), 400, "invalid_query", "1 to 200"),
        ("/jobs?limit=-1".into(), 400, "invalid_query", "1 to 200"),
        (
            "/jobs?limit=99999999999999999999".into(),
            400,
            "invalid_query",
            "1 to 200",
        ),
        (
            "/jobs?limit=1&limit=2".into(),
            400,
            "invalid_query",
            "given twice",
        ),
        (
            "/jobs?status=done".into(),
            400,
            "invalid_query",
            "queued, running",
        ),
        (
            "/jobs?status=queued,x".into(),
            400,
            "invalid_query",
            "unknown status",
        ),
        (
            "/jobs?stauts=failed".into(),
            400,
            "invalid_query",
            "limit, status, profile",
        ),
        (
            "/jobs?since=yesterday".into(),
            400,
            "invalid_query",
            "2026-11-22T10:00:00Z",
        ),
        (
            "/jobs?cursor=xyz".into(),
            400,
            "invalid_cursor",
            "next_cursor",
        ),
        ("/jobs/x".into(), 400, "invalid_id", "UUID"),
        ("/jobs/0b6ad".into(), 400, "invalid_id", "first 6"),
        (
            "/jobs/0b6ad2a46d0a4f0e9a493d7f4b8f2c11".into(),
            400,
            "invalid_id",
            "UUID",
        ),
        (
            "/jobs/..%2f..%2fetc%2fpasswd".into(),
            400,
            "invalid_id",
            "UUID",
        ),
        ("/jobs/%00%00%00%00%00%00".into(), 400, "invalid_id", "UUID"),
        (
            "/jobs/%ff%ff%ff%ff%ff%ff".into(),
            400,
            "invalid_id",
            "UTF-8",
        ),
        (
            format!("/jobs/{}", "a".repeat(5000)),
            400,
            "invalid_id",
            "UUID",
        ),
        ("/jobs/abcdef".into(), 404, "job_not_found", "abcdef"),
        (
            format!("/jobs/{}", ID.replace('0', "1")),
            404,
            "job_not_found",
            "no job 1b6ad",
        ),
        (
            format!("/jobs/{}/events", ID.replace('0', "1")),
            404,
            "job_not_found",
            "no job 1b6ad",
        ),
        (events("after=x"), 400, "invalid_cursor", "seq"),
        (events("after=-1"), 400, "invalid_cursor", "seq"),
        (events("after=%2B1"), 400, "invalid_cursor", "seq"),
        (
            events("after=18446744073709551616"),
            400,
            "invalid_cursor",
            "seq",
        ),
        (events("format=xml"), 400, "invalid_query", "ndjson"),
        (
            events("format=ndjson&follow=maybe"),
            400,
            "invalid_query",
            "true or false",
        ),
        (
            events("follow=false"),
            400,
            "invalid_query",
            "format=ndjson",
        ),
        (events("wait=1"), 400, "invalid_query", "format=json"),
        (
            events("format=json&wait=31"),
            400,
            "invalid_query",
            "0 to 30",
        ),
        (events("from=1"), 400, "invalid_query", "format, after"),
        (
            "/queue?limit=abc&of=x".into(),
            400,
            "invalid_query",
            "unknown parameters \"limit\", \"of\"; this path takes none",
        ),
        (
            "/events?after=abc".into(),
            400,
            "invalid_cursor",
            "id of a frame",
        ),
        (
            "/events?after=12-x".into(),
            400,
            "invalid_cursor",
            "id of a frame",
        ),
        ("/".into(), 404, "not_found", "nothing at /"),
        ("/jobs/".into(), 404, "not_found", "nothing"),
        ("/jobs/../x".into(), 404, "not_found", "nothing"),
        (
            format!("/jobs/{ID}/nope?api_key=k3y"),
            404,
            "not_found",
            "nope",
        ),
    ] {
        refused(
            &fake,
            get(&uri).body(Body::empty()).unwrap(),
            status,
            code,
            says,
        )
        .await;
    }
    let request = get(&events("after=1")).header("last-event-id", "one");
    let request = request.body(Body::empty()).unwrap();
    refused(&fake, request, 400, "invalid_cursor", "\"one\"").await;
}

#[tokio::test]
async fn a_wrong_method_names_the_right_ones() {
    let client = Client::new(&Fake::new());
    for (method, uri, allow) in [
        ("PUT", "/jobs", "POST,GET,HEAD"),
        ("DELETE", "/jobs", "POST,GET,HEAD"),
        ("POST", "/jobs/abcdef", "GET,HEAD,DELETE"),
        ("POST", "/health", "GET,HEAD"),
        ("OPTIONS", "/jobs", "POST,GET,HEAD"),
    ] {
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .body(Body::empty());
        let answer = client.send(request.unwrap()).await;
        assert_eq!(answer.status, 405, "{method} {uri}");
        assert_eq!(answer.header("allow"), allow, "{method} {uri}");
        assert_eq!(answer.json()["code"], "method_not_allowed");
    }
}

#[tokio::test]
async fn failures_of_the_server_are_told_apart() {
    use std::io::ErrorKind as Kind;
    let fake = Fake::new();
    for (kind, status, code, says) in [
        (Kind::StorageFull, 507, "storage_full", "free space"),
        (Kind::QuotaExceeded, 507, "storage_full", "free space"),
        (
            Kind::PermissionDenied,
            500,
            "storage_failed",
            "cannot write",
        ),
    ] {
        fake.store.fail(kind);
        refused(&fake, post(r#"{"task":"x"}"#), status, code, says).await;
    }
    fake.stopping.cancel();
    refused(&fake, post(r#"{"task":"x"}"#), 503, "stopping", "try again").await;
    let answer = Client::new(&fake).post(r#"{"task":"x"}"#).await;
    assert_eq!(answer.header("retry-after"), "5");
}

#[tokio::test]
async fn a_panic_is_an_answer() {
    let fake = Fake::new();
    fake.panic();
    let profiles = get("/profiles").body(Body::empty()).unwrap();
    refused(&fake, profiles, 500, "internal", "log says more").await;
    refused(
        &fake,
        post(r#"{"task":"x"}"#),
        500,
        "internal",
        "log says more",
    )
    .await;
}

#[tokio::test]
async fn a_problem_has_the_members_of_both_worlds() {
    let answer = Client::new(&Fake::new()).get("/jobs?limit=abc").await;
    insta::assert_snapshot!(answer.body, @r#"{"type":"urn:agenticore:problem:invalid_query","title":"Bad Request","status":400,"detail":"limit is \"abc\": it must be a number from 1 to 200","code":"invalid_query","success":false,"error":"limit is \"abc\": it must be a number from 1 to 200"}"#);
}
