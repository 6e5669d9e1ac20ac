//! Submitting, listing, showing and cancelling.

use serde_json::Value;

use super::client::{Client, post};
use super::fake::Fake;
use crate::queue::Queue;

const A: &str = "0b6ad2a4-6d0a-4f0e-9a49-3d7f4b8f2c11";
const B: &str = "0b6ad2a4-6d0a-4f0e-9a49-3d7f4b8f2c22";
const C: &str = "c0ffee00-6d0a-4f0e-9a49-3d7f4b8f2c33";

#[tokio::test]
async fn a_submitted_job_is_queued_and_can_be_read() {
    let client = Client::new(&Fake::new());
    let answer = client.post(r#"{"task":"say hello","profile":""}"#).await;
    assert_eq!(answer.status, 200);
    let body = answer.json();
    assert_eq!(body["success"], true);
    assert_eq!(body["job"]["status"], "queued");
    assert_eq!(body["job"]["profile"], "code");
    let location = answer.header("location");
    assert_eq!(
        location,
        format!("/jobs/{}", body["job"]["id"].as_str().unwrap())
    );
    assert_eq!(client.get(location).await.json(), body);
}

#[tokio::test]
async fn a_waiting_submitter_gets_the_ended_job() {
    let fake = Fake::new();
    let client = Client::new(&fake);
    let waiting = tokio::spawn(async move { client.post(r#"{"task":"x","wait":true}"#).await });
    let lease = fake.claim().await;
    for n in 0..10 {
        fake.log(&lease, &format!("line {n}")).await;
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
    }
    fake.finish(&lease).await;
    let answer = waiting.await.unwrap();
    assert_eq!(answer.status, 200);
    let body = answer.json();
    assert_eq!(body["job"]["status"], "succeeded");
    assert_eq!(body["job"]["mode"], "sync");
    assert_eq!(body["job"]["output"], "hello");
}

#[tokio::test]
async fn a_submitter_that_goes_away_cancels_nothing() {
    let fake = Fake::new();
    let client = Client::new(&fake);
    let waiting = tokio::spawn(async move { client.post(r#"{"task":"x","wait":true}"#).await });
    let lease = fake.claim().await;
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    assert!(!lease.cancelled.is_cancelled());
    fake.finish(&lease).await;
    let job = fake.store.get(lease.id).await.unwrap();
    assert_eq!(job.status.as_str(), "succeeded");
}

#[tokio::test]
async fn a_waiting_submitter_hears_of_the_job_when_the_server_stops() {
    let fake = Fake::new();
    let client = Client::new(&fake);
    let waiting = tokio::spawn(async move { client.post(r#"{"task":"x","wait":true}"#).await });
    let _lease = fake.claim().await;
    fake.stopping.cancel();
    let answer = waiting.await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["job"]["status"], "running");
}

#[tokio::test]
async fn a_job_is_found_by_its_id_or_the_beginning_of_it() {
    let fake = Fake::new();
    for id in [A, B, C] {
        fake.queued(id).await;
    }
    let client = Client::new(&fake);
    for text in [
        C,
        "c0ffee",
        "C0FFEE00",
        "c0ffee00-6d",
        &C[..35],
        &C.to_uppercase(),
    ] {
        let answer = client.get(&format!("/jobs/{text}")).await;
        assert_eq!(answer.json()["job"]["id"], C, "{text}");
    }
    let answer = client.get("/jobs/0b6ad2a4").await;
    assert_eq!(answer.status, 409);
    let body = answer.json();
    assert_eq!(body["code"], "ambiguous_id");
    assert_eq!(body["candidates"], serde_json::json!([B, A]));
    let detail = body["detail"].as_str().unwrap();
    assert!(detail.contains(A) && detail.contains(B));
    assert_eq!(client.delete("/jobs/0b6ad2a4").await.status, 409);
    assert_eq!(client.get("/jobs/0b6ad2a4/events").await.status, 409);
    let page = client.get("/jobs/c0ffee/events?format=json").await;
    assert_eq!(page.status, 200);
}

#[tokio::test]
async fn cancelling_twice_is_as_good_as_once() {
    let fake = Fake::new();
    let lease = fake.running(A).await;
    fake.queued(B).await;
    let client = Client::new(&fake);
    for _ in 0..2 {
        let running = client.delete(&format!("/jobs/{A}")).await;
        assert_eq!(running.status, 200);
        assert_eq!(running.json()["job"]["status"], "running");
        assert!(running.json()["job"]["cancel_requested_at"].is_string());
        let waiting = client.delete(&format!("/jobs/{B}")).await;
        assert_eq!(waiting.status, 200);
        assert_eq!(waiting.json()["job"]["status"], "cancelled");
    }
    assert!(lease.cancelled.is_cancelled());
    fake.finish(&lease).await;
    let over = client.delete(&format!("/jobs/{A}")).await;
    assert_eq!(over.status, 200);
    assert_eq!(over.json()["job"]["status"], "succeeded");
    assert_eq!(client.delete(&format!("/jobs/{C}")).await.status, 404);
}

fn ids(page: &Value) -> Vec<String> {
    let jobs = page["jobs"].as_array().unwrap();
    let ids = jobs.iter().map(|j| j["id"].as_str().unwrap().to_owned());
    ids.collect()
}

#[tokio::test]
async fn pages_of_a_list_join_without_gap_or_repeat() {
    let fake = Fake::new();
    let client = Client::new(&fake);
    for n in 0..25 {
        client.post(format!(r#"{{"task":"job {n}"}}"#)).await;
    }
    let all = client.get("/jobs?limit=200").await.json();
    assert_eq!(
        (&all["count"], &all["next_cursor"]),
        (&25.into(), &Value::Null)
    );
    assert_eq!(all["jobs"][0]["task"], "job 24");
    assert_eq!(client.get("/jobs").await.json()["count"], 20);
    assert_eq!(client.get("/jobs?limit=&status=").await.json()["count"], 20);

    let mut joined = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = client
            .get(&format!("/jobs?limit=10&cursor={cursor}"))
            .await
            .json();
        joined.extend(ids(&page));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(joined, ids(&all));
}

#[tokio::test]
async fn a_list_can_be_filtered() {
    let fake = Fake::new();
    let lease = fake.running(A).await;
    fake.finish(&lease).await;
    fake.running(B).await;
    let client = Client::new(&fake);
    client
        .post(r#"{"task":"mend 100% of it","profile":"review","repo_url":"https://example.com/a.git"}"#)
        .await;
    let count =
        async |query: &str| client.get(&format!("/jobs?{query}")).await.json()["count"].clone();
    for (query, expected) in [
        ("status=queued", 1),
        ("status=succeeded,running", 2),
        ("status=succeeded&status=running", 2),
        ("status=succeeded,%20queued&status=", 2),
        ("status=failed", 0),
        ("profile=review", 1),
        ("profile=code", 2),
        ("pod=pod-0", 2),
        ("repo=https%3A%2F%2Fexample.com%2Fa.git", 1),
        ("text=100%25", 1),
        ("text=hello", 2),
        ("since=2000-01-01T00:00:00Z", 3),
        ("since=2000-01-01T00:00:00%2B02:00", 3),
        ("since=2100-01-01T00:00:00Z", 0),
        ("status=queued&profile=code", 0),
        ("api_key=ignored", 3),
    ] {
        assert_eq!(count(query).await, expected, "{query}");
    }
}

#[tokio::test]
async fn a_head_request_has_no_body() {
    let fake = Fake::new();
    fake.queued(A).await;
    let mut request = post("");
    *request.method_mut() = axum::http::Method::HEAD;
    let answer = Client::new(&fake).send(request).await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, ""));
}

#[tokio::test]
async fn a_submission_with_a_key_counts_once() {
    let client = Client::new(&Fake::new());
    let send = async |task: &str, keys: &[&str]| {
        let mut request = post(format!(r#"{{"task":"{task}"}}"#));
        for key in keys {
            let key = axum::http::HeaderValue::from_str(key).unwrap();
            request.headers_mut().append("idempotency-key", key);
        }
        client.send(request).await
    };
    let first = send("x", &["k"]).await;
    assert_eq!(first.headers.get("idempotency-replayed"), None);
    let again = send("x", &["k"]).await;
    assert_eq!(again.status, 200);
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(again.json(), first.json());
    let other = send("y", &["k"]).await;
    assert_eq!(other.status, 422);
    assert_eq!(other.json()["code"], "idempotency_key_reused");
    for bad in [&[""][..], &["a", "b"], &[&"k".repeat(256)]] {
        let answer = send("x", bad).await;
        assert_eq!(answer.status, 400);
        assert_eq!(answer.json()["code"], "invalid_request");
    }
    assert_eq!(client.get("/jobs").await.json()["count"], 1);
}

#[tokio::test]
async fn a_job_that_is_over_can_be_run_again() {
    let fake = Fake::new();
    let lease = fake.running(A).await;
    let client = Client::new(&fake);
    let again = async |key: Option<&str>| {
        let mut request = post("");
        *request.uri_mut() = format!("/jobs/{A}/retry").parse().unwrap();
        request.headers_mut().remove("content-type");
        if let Some(key) = key {
            let key = axum::http::HeaderValue::from_str(key).unwrap();
            request.headers_mut().insert("idempotency-key", key);
        }
        client.send(request).await
    };
    let early = again(None).await;
    assert_eq!(
        (early.status.as_u16(), &early.json()["code"]),
        (409, &"conflict".into())
    );
    fake.finish(&lease).await;
    let next = again(Some("k")).await;
    assert_eq!(next.status, 200);
    let job = &next.json()["job"];
    assert_eq!(job["retry_of"], A);
    assert_eq!(
        (&job["task"], &job["status"]),
        (&"say hello".into(), &"queued".into())
    );
    assert_ne!(job["id"], A);
    assert_eq!(again(Some("k")).await.json()["job"]["id"], job["id"]);
    assert_ne!(again(None).await.json()["job"]["id"], job["id"]);
}
