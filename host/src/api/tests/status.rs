//! Probes and profiles.

use super::client::Client;
use super::fake::Fake;

#[tokio::test]
async fn health_names_the_service() {
    let body = Client::new(&Fake::new()).get("/health").await.json();
    assert_eq!(body["status"], "ok");
    assert_eq!(body["service"], "agenticore");
    assert_eq!(body["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(body["pod"], "pod-0");
}

#[tokio::test]
async fn a_server_that_is_not_ready_says_what_fails() {
    let fake = Fake::new();
    let client = Client::new(&fake);
    for path in ["/readyz", "/healthz"] {
        let answer = client.get(path).await;
        assert_eq!(answer.status, 200);
        assert_eq!(
            answer.body,
            r#"{"success":true,"status":"ok","ready":true}"#
        );
    }
    fake.set_unready();
    for path in ["/readyz", "/healthz"] {
        let answer = client.get(path).await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.json()["error"], "not ready: store");
        let verbose = client.get(&format!("{path}?verbose")).await.json();
        assert_eq!(verbose["checks"][0]["ok"], true);
        assert_eq!(verbose["checks"][1]["name"], "store");
    }
    assert_eq!(client.get("/livez").await.status, 200);
    assert_eq!(client.get("/health").await.status, 200);
}

#[tokio::test]
async fn profiles_are_listed_with_their_errors() {
    let answer = Client::new(&Fake::new()).get("/profiles").await;
    insta::assert_snapshot!(answer.body, @r#"{"success":true,"count":2,"profiles":[{"name":"code"},{"name":"broken","error":"profile.yml: line 2"}]}"#);
}

#[tokio::test]
async fn plugins_are_listed() {
    let answer = Client::new(&Fake::new()).get("/plugins").await;
    insta::assert_snapshot!(answer.body, @r#"{"success":true,"count":1,"plugins":[{"name":"shell","uses":[]}]}"#);
}
