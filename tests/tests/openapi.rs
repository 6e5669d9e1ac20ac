//! The document at `/openapi.json` is valid OpenAPI, and what a live server answers fits its schemas.

use std::process::Command;

use agenticore_tests::{Repo, World, output_of, tool};
use reqwest::Method;
use serde_json::{Value, json};

/// What a whole answer in JSON is called; lines are none.
const JSON: [&str; 2] = ["application/json", "application/problem+json"];

#[tokio::test]
async fn the_page_of_events_has_every_parameter_of_their_path() {
    let page = include_str!("../../docs/events.md");
    let document = World::start().get("/openapi.json").await.body;
    let parameters = &document["paths"]["/jobs/{id}/events"]["get"]["parameters"];
    for parameter in parameters.as_array().unwrap() {
        let name = parameter["name"].as_str().unwrap();
        let is_there = match parameter["in"].as_str().unwrap() {
            "query" => page.contains(&format!("{name}=")),
            "header" => page.contains(name),
            _ => true,
        };
        assert!(is_there, "{name} is missing");
    }
}

/// What the document says of an answer does not fit it.
fn misfits(document: &Value, path: &str, status: u16, reply: &Value) -> Vec<String> {
    let responses = &document["paths"][path]["get"]["responses"];
    let described = responses
        .get(status.to_string())
        .unwrap_or(&responses["default"]);
    let content = described["content"].as_object();
    let (_, content) = content
        .and_then(|all| all.iter().find(|(kind, _)| JSON.contains(&kind.as_str())))
        .unwrap_or_else(|| panic!("{path} answers no JSON with {status}: {described}"));
    let mut schema = content["schema"].clone();
    schema["components"] = document["components"].clone();
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let errors = validator.iter_errors(reply);
    errors
        .map(|e| format!("{path} {}: {e}", e.instance_path()))
        .collect()
}

#[test]
fn what_is_answered_is_what_the_schema_says() {
    let schema = json!({"type": "object", "properties": {"count": {"type": "integer"}}});
    let content = json!({"application/json": {"schema": schema}});
    let document = json!({"paths": {"/x": {"get": {"responses": {"200": {"content": content}}}}}});
    assert!(misfits(&document, "/x", 200, &json!({"count": 1})).is_empty());
    assert_eq!(
        misfits(&document, "/x", 200, &json!({"count": "1"})).len(),
        1
    );
}

#[tokio::test]
async fn the_answers_of_a_live_server_fit_the_document() {
    let world = World::start();
    let repo = Repo::create(world.path("origin"));
    let cloned = json!({"task": "true", "profile": "shell", "repo_url": repo.url()});
    let cloned = world.submit_body(&cloned).await;
    world.ended(&cloned).await;
    let failed = world.submit("echo said; exit 3").await;
    world.ended(&failed).await;
    let document = world.get("/openapi.json").await.body;
    let mut asked = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let answers_json = item["get"]["responses"]["200"]["content"]
            .as_object()
            .is_some_and(|all| all.contains_key("application/json"));
        if !answers_json {
            continue;
        }
        let uris = [
            &cloned,
            &failed,
            &"00000000-0000-4000-8000-000000000000".to_owned(),
        ]
        .map(|id| path.replace("{id}", id));
        for uri in uris {
            let uri = if path.ends_with("/events") {
                format!("{uri}?format=json")
            } else {
                uri
            };
            let reply = world.get(&uri).await;
            let problems = misfits(&document, path, reply.status, &reply.body);
            assert!(problems.is_empty(), "{uri}: {problems:#?}\n{}", reply.text);
            asked += 1;
        }
    }
    assert!(asked > 20, "only {asked} answers were looked at");
    let refused = world.get("/jobs?limit=none").await;
    let problems = misfits(&document, "/jobs", refused.status, &refused.body);
    assert!(problems.is_empty(), "{problems:#?}");
}

#[tokio::test]
async fn the_document_is_valid_and_needs_no_key() {
    let test = "the_document_is_valid_and_needs_no_key";
    let world = World::builder().env("AGENTICORE_API_KEYS", "k").start();
    let bare = world.bare_request(Method::GET, "/openapi.json");
    let reply = world.send(bare).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.body["info"]["version"], env!("CARGO_PKG_VERSION"));
    let Some(validator) = tool(test, "openapi-spec-validator") else {
        return;
    };
    let file = world.path("openapi.json");
    let validate = |document: &Value| {
        std::fs::write(&file, document.to_string()).unwrap();
        output_of(
            Command::new(&validator)
                .args(["--schema", "3.1"])
                .arg(&file),
        )
    };
    validate(&reply.body).unwrap();
    // The tool must see a fault, or the above says nothing.
    let mut broken = reply.body.clone();
    broken["paths"]["/jobs"]["get"]["responses"]["200"] = json!({"content": {}});
    let said = validate(&broken).expect_err("a response without a description");
    assert!(said.contains("description"), "{said}");
}
