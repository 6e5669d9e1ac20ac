//! The real command lines of agents, where they are installed.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::{Model, Repo, Turn, World, skip, text};

/// The agent's real CLI `program`: the one that the variable `variable` names, or the one that `.ci/run` installs. None, with a named
/// skip of `test`, where neither works.
#[must_use]
pub fn real_cli(program: &str, variable: &str, test: &str) -> Option<PathBuf> {
    let local = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../target/agent-cli/node_modules/.bin")
        .join(program);
    let given = std::env::var_os(variable).map(PathBuf::from);
    let found = given.or_else(|| local.exists().then_some(local));
    let works = |path: &PathBuf| {
        // Nothing of this machine's own agents may get into a test.
        let mut version = Command::new(path);
        version
            .arg("--version")
            .env_remove("CLAUDE_CONFIG_DIR")
            .env_remove("CODEX_HOME");
        version.output().is_ok_and(|output| output.status.success())
    };
    match found.filter(works) {
        Some(path) => Some(path.canonicalize().unwrap_or(path)),
        None => {
            let reason = format!(
                "no real agent CLI `{program}` (set {variable}, or install it into target/agent-cli as .ci/run does)"
            );
            skip(test, &reason);
            None
        }
    }
}

/// What is posted for a job, maybe on a repository.
#[must_use]
pub fn task(profile: &str, task: &str, repo: Option<&Repo>) -> Value {
    let mut body = json!({"task": task, "profile": profile});
    if let Some(repo) = repo {
        body["repo_url"] = json!(repo.url());
    }
    body
}

/// Starts the server again, after a drain or a kill in the job's first attempt, and sees the job succeed in its second; the request in
/// which the model is asked to go on. The record comes along.
pub async fn goes_on(world: &mut World, model: &Model, id: &str, answer: &str) -> (Value, Value) {
    let before = model.requests().len();
    model.script([Turn::Text(answer.into())]);
    if world.is_up() {
        world.restart();
    } else {
        world.boot();
    }
    let job = world.succeeded(id, 2).await;
    assert!(text(&job, "output").contains(answer), "{job}");
    (model.requests()[before].clone(), job)
}

/// Runs two jobs with one session, and sees that the model is told in `conversation`, a field of its requests, what the first one was
/// about. The model's first answer is that it will remember the blue door.
pub async fn goes_on_with_a_session(
    world: &World,
    model: &Model,
    profile: &str,
    conversation: &str,
) {
    let first = task(profile, "Remember the blue door.", None);
    let first = world.submit_body(&first).await;
    let first = world.succeeded(&first, 1).await;
    let before = model.requests().len();
    let mut second = task(profile, "Which door was it?", None);
    second["session_id"] = first["session_id"].clone();
    let second = world.submit_body(&second).await;
    let second = world.succeeded(&second, 1).await;
    assert_eq!(second["session_id"], first["session_id"]);
    assert_ne!(
        second["worktree_path"], first["worktree_path"],
        "in a directory of its own"
    );
    let seen = model.requests()[before][conversation].to_string();
    for known in [
        "Remember the blue door.",
        "I will remember the blue door.",
        "Which door was it?",
    ] {
        assert!(seen.contains(known), "{known:?} is not in {seen}");
    }
}
