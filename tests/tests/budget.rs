//! Budgets hold over all attempts of a job, whoever counts: the agent, or the host when the agent does not stop.

use std::os::unix::fs::PermissionsExt;

use agenticore_tests::{Builder, World, until};
use serde_json::json;

use crate::{field, text};

/// A world whose agent says what it spent and then goes on for ever.
fn spendthrift(dollars: f64, budget: f64) -> Builder {
    let builder = World::builder();
    let program = builder.path("spendthrift");
    let script = format!(
        r#"#!/bin/sh
echo '{{"type":"system","subtype":"init","session_id":"s","model":"m","tools":[],"mcp_servers":[]}}'
echo '{{"type":"result","subtype":"success","is_error":false,"num_turns":1,"result":"x","total_cost_usd":{dollars},"usage":{{}},"terminal_reason":"completed"}}'
exec sleep 1000
"#
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let keys = format!("max_budget_usd: {budget}\n  no_session_persistence: true");
    builder
        .env("AGENTICORE_CLAUDE_BINARY", &program.display().to_string())
        .profile(
            "thrifty",
            &format!("extends: code\nauto_pr: false\nclaude:\n  {keys}\n"),
        )
}

#[tokio::test]
async fn an_agent_that_goes_on_beyond_its_budget_is_stopped() {
    let world = spendthrift(1.5, 1.0).start();
    let id = world
        .submit_body(&json!({"task": "spend", "profile": "thrifty"}))
        .await;
    let job = world.ended(&id).await;
    assert_eq!(text(&job, "status"), "failed", "{job}");
    let failure = field(&job, "failure");
    assert_eq!(text(failure, "class"), "budget", "{job}");
    assert!(
        text(failure, "message").contains("1.5000 of 1 dollars"),
        "{job}"
    );
    assert!(!text(failure, "remedy").is_empty());
    assert_eq!(field(&job, "cost_usd"), &json!(1.5));
}

#[tokio::test]
async fn an_attempt_with_nothing_left_does_not_start() {
    let mut world = spendthrift(0.5, 0.5).start();
    let id = world
        .submit_body(&json!({"task": "spend", "profile": "thrifty"}))
        .await;
    world
        .event(&id, "the agent's cost", |event| {
            text(event, "kind") == "model"
        })
        .await;
    // Whether the line with the cost was read is seen once the run is over: it is on the record then.
    assert_eq!(world.cli(&["drain", "--timeout", "0"]).await.code, Some(8));
    let job = world.job(&id).await;
    assert_eq!(field(&job, "cost_usd"), &json!(0.5), "{job}");
    world.restart();
    let job = world.ended(&id).await;
    assert_eq!(text(field(&job, "failure"), "class"), "budget", "{job}");
    let events = world.events(&id).await;
    let starts = events
        .iter()
        .filter(|event| text(event, "kind") == "started");
    assert_eq!(starts.count(), 1, "the second attempt starts no agent");
}

#[tokio::test]
async fn the_time_limit_counts_all_attempts() {
    let mut world = World::builder()
        .profile("brief", "extends: shell\ntimeout: 8\n")
        .start();
    let body = json!({"task": "for n in 1 2 3 4; do sleep 1; echo second $n; done; exec sleep 3143", "profile": "brief"});
    let id = world.submit_body(&body).await;
    // The first attempt has to have used up a good part of the time: what the second one may take is the rest.
    world.logged(&id, "second 4").await;
    assert_eq!(world.cli(&["drain", "--timeout", "0"]).await.code, Some(8));
    let used = field(&world.job(&id).await, "agent_seconds")
        .as_f64()
        .unwrap();
    assert!(used >= 4.0, "{used}");
    world.restart();
    let job = until("the job ends", || async {
        let job = world.job(&id).await;
        (text(&job, "status") == "failed").then_some(job)
    })
    .await;
    let failure = field(&job, "failure");
    assert_eq!(text(failure, "class"), "time_limit", "{job}");
    assert!(text(failure, "message").contains("8 s"), "{job}");
    // Were the time counted anew, the sum would be 12 or more.
    let all = field(&job, "agent_seconds").as_f64().unwrap();
    assert!(
        (8.0..used + 7.5).contains(&all),
        "{used} s, then {all} s in all: {job}"
    );
}
