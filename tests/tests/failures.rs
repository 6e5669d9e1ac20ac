//! Why a job failed: the classes are told apart on the record, and each says what happened and what the user can do next.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use agenticore_tests::{Repo, World};
use serde_json::{Value, json};

use crate::{field, text};

/// An agent that fails in the way its task says, in the output format of the real one.
const AGENT: &str = r#"#!/bin/sh
task=$(cat)
result() { echo '{"type":"result","num_turns":1,"total_cost_usd":0.1,"usage":{},'"$1"'}'; }
case "$task" in
  agent) echo 'cannot go on' >&2; exit 3 ;;
  api) result '"subtype":"success","is_error":true,"api_error_status":529,"result":"Overloaded"'; exit 1 ;;
  budget) result '"subtype":"error_max_turns","is_error":true,"errors":[],"terminal_reason":"max_turns"'; exit 1 ;;
  time_limit) exec sleep 1000 ;;
  *) result '"subtype":"success","is_error":false,"result":"fine","terminal_reason":"completed"' ;;
esac
"#;

fn world() -> World {
    let builder = World::builder();
    let agent = builder.path("agent");
    fs::write(&agent, AGENT).unwrap();
    fs::set_permissions(&agent, fs::Permissions::from_mode(0o755)).unwrap();
    let guest = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../plugins/dist/test-guests.wasm");
    let hooked = builder.path("home/.agenticore/profiles/hook");
    fs::create_dir_all(&hooked).unwrap();
    fs::copy(guest, hooked.join("guest.wasm")).unwrap();
    builder
        .env("AGENTICORE_CLAUDE_BINARY", &agent.display().to_string())
        .profile("plain", "extends: code\nauto_pr: false\n")
        .profile("time_limit", "extends: plain\ntimeout: 1\n")
        .profile("plugin", "plugin: {component: shell}\nauto_pr: false\n")
        .profile(
            "hook",
            "extends: plain\nhooks:\n- component: guest.wasm\n  on: [pre-job]\n  config: {verdict: reject}\n",
        )
        .start()
}

#[tokio::test]
async fn every_class_says_what_happened_and_what_to_do() {
    let world = world();
    let repo = Repo::create(world.path("gone"));
    let gone = repo.url();
    fs::remove_dir_all(repo.path()).unwrap();
    for (class, profile, repo, says) in [
        ("agent", "plain", None, "cannot go on"),
        ("api", "plain", None, "Overloaded"),
        ("budget", "plain", None, "turns"),
        ("time_limit", "time_limit", None, "time limit of 1 s"),
        ("plugin", "plugin", None, "program:sh"),
        ("hook", "hook", None, "rejected"),
        ("clone", "plain", Some(gone.as_str()), ""),
    ] {
        let mut body = json!({"task": class, "profile": profile});
        if let Some(repo) = repo {
            body["repo_url"] = json!(repo);
        }
        let id = world.submit_body(&body).await;
        let job = world.ended(&id).await;
        check(&job, class, says);
        let end = world
            .event(&id, "its end", |event| text(event, "type") == "end")
            .await;
        assert_eq!(
            field(&end, "failure"),
            field(&job, "failure"),
            "the stream says the same"
        );
        let shown = world.cli(&["wait", &id]).await;
        assert_eq!(shown.code, Some(1), "{shown:?}");
        let remedy = text(field(&job, "failure"), "remedy");
        assert!(
            shown.stderr.contains(remedy),
            "the command says what to do: {shown:?}"
        );
    }
    let fine = world
        .submit_body(&json!({"task": "x", "profile": "plain"}))
        .await;
    let fine = world.ended(&fine).await;
    assert_eq!(text(&fine, "status"), "succeeded", "{fine}");
    assert_eq!(field(&fine, "failure"), &Value::Null);
}

#[tokio::test]
async fn a_profile_that_broke_while_the_job_waited_fails_it() {
    let world = World::builder()
        .env("AGENTICORE_MAX_PARALLEL_JOBS", "1")
        .profile("short-lived", "extends: shell\n")
        .start();
    let gate = world.gate("first");
    let first = world.submit(&format!("echo begun; {}", gate.wait())).await;
    world.logged(&first, "begun").await;
    let body = json!({"task": "echo x", "profile": "short-lived"});
    let id = world.submit_body(&body).await;
    let file = world.path("home/.agenticore/profiles/short-lived/profile.yml");
    fs::write(file, "name: short-lived\nextends: [\n").unwrap();
    gate.open();
    check(&world.ended(&id).await, "profile", "short-lived");
}

fn check(job: &Value, class: &str, says: &str) {
    assert_eq!(text(job, "status"), "failed", "{job}");
    let failure = field(job, "failure");
    assert_eq!(text(failure, "class"), class, "{job}");
    let message = text(failure, "message");
    assert!(
        message.contains(says) && !message.is_empty(),
        "{class}: {message}"
    );
    assert!(
        !text(failure, "remedy").is_empty(),
        "{class} has no next step"
    );
    assert!(text(job, "error").contains(message), "`error` says it, too");
}
