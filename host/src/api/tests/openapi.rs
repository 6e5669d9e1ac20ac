//! The document of this face holds every route and no other.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::Value;

use super::client::{Client, get};
use super::fake::Fake;
use crate::api::router;

const NO_JOB: &str = "00000000-0000-4000-8000-000000000000";

async fn document(client: &Client) -> Value {
    let answer = client.get("/openapi.json").await;
    assert_eq!(answer.header("content-type"), "application/json");
    answer.json()
}

#[tokio::test]
async fn every_path_of_the_document_is_answered_and_every_route_is_in_it() {
    let fake = Fake::new();
    let client = Client::new(&fake);
    let document = document(&client).await;
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().unwrap();
    for (path, item) in paths {
        for method in [
            Method::GET,
            Method::POST,
            Method::DELETE,
            Method::PUT,
            Method::PATCH,
        ] {
            let is_described = item.get(method.as_str().to_lowercase()).is_some();
            let uri = path.replace("{id}", NO_JOB);
            let request = Request::builder().method(&method).uri(&uri);
            let mut answer = client.open(request.body(Body::empty()).unwrap()).await;
            assert_eq!(answer.status != 405, is_described, "{method} {path}");
            if answer.status == 404 {
                let body = answer.rest().await;
                assert!(body.contains("job_not_found"), "{method} {path}: {body}");
            }
        }
    }
    // What the router knows, from what it prints of itself; the fallback is at the root.
    let printed = format!("{:?}", router(fake));
    let routes: BTreeSet<&str> = printed
        .split('"')
        .filter(|text| text.len() > 1 && text.starts_with('/') && !text.contains("__private"))
        .collect();
    let described: BTreeSet<&str> = paths.keys().map(String::as_str).collect();
    assert_eq!(routes, described);
}

#[tokio::test]
async fn every_parameter_of_the_document_is_taken() {
    let client = Client::new(&Fake::new());
    let document = document(&client).await;
    for (path, item) in document["paths"].as_object().unwrap() {
        let parameters = item["get"]["parameters"].as_array();
        for parameter in parameters.into_iter().flatten() {
            if parameter["in"] != "query" {
                continue;
            }
            // An empty value counts as none, so it fits wherever the name does.
            let name = parameter["name"].as_str().unwrap();
            let uri = format!("{}?{name}=", path.replace("{id}", NO_JOB));
            let answer = client.open(get(&uri).body(Body::empty()).unwrap()).await;
            assert_ne!(answer.status, 400, "{uri}");
        }
    }
}

#[tokio::test]
async fn no_path_takes_a_parameter_that_it_does_not_know() {
    let client = Client::new(&Fake::new());
    let document = document(&client).await;
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let uri = format!("{}?nonsense=1", path.replace("{id}", NO_JOB));
            let request = Request::builder()
                .method(method.to_uppercase().as_str())
                .uri(&uri)
                .header("content-type", "application/json");
            let answer = client.send(request.body(Body::from("{}")).unwrap()).await;
            assert_eq!(answer.status, 400, "{method} {uri}: {}", answer.body);
            assert_eq!(answer.json()["code"], "invalid_query", "{method} {uri}");
            assert!(
                answer.body.contains("nonsense"),
                "{method} {uri}: {}",
                answer.body
            );
            assert!(
                item[method]["responses"]["400"].is_object(),
                "{method} {path}"
            );
        }
    }
}

#[tokio::test]
async fn each_request_says_what_its_key_must_be_allowed() {
    let document = document(&Client::new(&Fake::new())).await;
    let roles = |method: &str, path: &str| {
        let needed = &document["paths"][path][method]["security"];
        needed[0]["bearer"][0].as_str().map(str::to_owned)
    };
    for (method, path, scope) in [
        ("get", "/jobs", Some("read")),
        ("post", "/jobs", Some("submit")),
        ("delete", "/jobs/{id}", Some("submit")),
        ("post", "/drain", Some("admin")),
        ("get", "/livez", None),
        ("get", "/openapi.json", None),
    ] {
        assert_eq!(roles(method, path).as_deref(), scope, "{method} {path}");
    }
    let schemes = &document["components"]["securitySchemes"];
    for name in ["bearer", "header", "query"] {
        assert!(schemes[name]["type"].is_string(), "{schemes}");
    }
}
