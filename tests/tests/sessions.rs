//! A session outlives its job: a later job goes on with it, and only with one that exists and is at rest.

use agenticore_tests::{ScriptedAgent, World};
use serde_json::json;

use crate::text;

/// Records its session as the agent does, and says what it finds on record.
const REMEMBERS: &str = r#"
folder="$CLAUDE_CONFIG_DIR/projects/-work"
case "$session" in */*) file=$session ;; *) mkdir -p "$folder"; file=$folder/$session.jsonl ;; esac
echo "on record: $(cat "$file" 2>/dev/null)"
printf '{"type":"user","text":"%s"}\n' "$(cat)" >> "$file"
"#;

#[tokio::test]
async fn a_later_job_goes_on_with_the_session_of_an_earlier_one() {
    let builder = World::builder().profile("talk", "extends: code\nauto_pr: false\n");
    let agent = ScriptedAgent::write(&builder.path(""), REMEMBERS);
    let world = builder
        .env("AGENTICORE_CLAUDE_BINARY", &agent.program())
        .start();
    let first = world
        .submit_body(&json!({"task": "remember the blue door", "profile": "talk"}))
        .await;
    let first = world.ended(&first).await;
    assert_eq!(text(&first, "status"), "succeeded", "{first}");
    let session = text(&first, "session_id").to_owned();

    let mut last = text(&first, "id").to_owned();
    for (task, known) in [
        ("which door was it", vec!["blue door"]),
        ("and before that", vec!["blue door", "which door was it"]),
    ] {
        let body = json!({"task": task, "profile": "talk", "session_id": session});
        let id = world.submit_body(&body).await;
        assert_ne!(id, last, "a job of its own");
        let job = world.ended(&id).await;
        assert_eq!(text(&job, "status"), "succeeded", "{job}");
        for words in known {
            world.logged(&id, words).await;
        }
        let call = agent.calls().pop().unwrap_or_default();
        let own = format!(
            "--resume={}/projects/-work/{session}.jsonl",
            text(&job, "job_config_dir")
        );
        assert!(call.contains(&own), "by its own copy: {call}");
        assert!(!call.contains("--session-id"), "{call}");
        last = id;
    }
    let listed = world
        .get(&format!("/jobs?session_id={session}&limit=1"))
        .await;
    assert_eq!(text(&listed.body["jobs"][0], "id"), last);
}

#[tokio::test]
async fn a_session_must_exist_and_be_at_rest() {
    let builder = World::builder().profile("talk", "extends: code\nauto_pr: false\n");
    let gate = builder.path("gates/go");
    let agent = ScriptedAgent::write(
        &builder.path(""),
        &format!("until [ -e '{}' ]; do sleep 0.05; done", gate.display()),
    );
    let world = builder
        .env("AGENTICORE_CLAUDE_BINARY", &agent.program())
        .start();
    let with = |session: &str| json!({"task": "x", "profile": "talk", "session_id": session});
    let unknown = world
        .post("/jobs", &with("3f2b8a4e-7c1d-4e90-9c55-0d8e6f1a2b3c"))
        .await;
    assert_eq!(unknown.status, 422, "{}", unknown.text);
    assert_eq!(text(&unknown.body, "code"), "unknown_session");

    let id = world
        .submit_body(&json!({"task": "wait", "profile": "talk"}))
        .await;
    let session = agenticore_tests::until("the session is on the record", || async {
        let job = world.job(&id).await;
        Some(text(&job, "session_id").to_owned()).filter(|s| !s.is_empty())
    })
    .await;
    let busy = world.post("/jobs", &with(&session)).await;
    assert_eq!(busy.status, 409, "{}", busy.text);
    assert!(text(&busy.body, "error").contains(&id), "{}", busy.text);
    std::fs::write(&gate, "").unwrap();
    assert_eq!(text(&world.ended(&id).await, "status"), "succeeded");
    // It left no record of its session, so there is nothing to go on with.
    let lost = world.submit_body(&with(&session)).await;
    let lost = world.ended(&lost).await;
    assert_eq!(text(&lost, "status"), "failed", "{lost}");
    assert!(text(&lost, "error").contains("session"), "{lost}");
}
