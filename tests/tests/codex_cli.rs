//! A second agent, the real `codex` CLI against a scripted model service: nothing of the host knows it, and all that holds for the
//! first one holds for it.
//!
//! The service answers while a test waits for the server to stop, so these tests have threads of their own.

use std::path::{Path, PathBuf};

use agenticore_tests::{
    Builder, Model, Repo, Turn, World, goes_on, goes_on_with_a_session, real_cli, task, this_test,
};
use serde_json::{Value, json};

use crate::{field, number, text};

/// The real CLI, or none with a named skip.
fn cli(test: &str) -> Option<PathBuf> {
    real_cli("codex", "AGENTICORE_TEST_CODEX", test)
}

/// A world whose agents are the real CLI and talk to `model` alone.
fn builder(cli: &Path, model: &Model) -> Builder {
    let config = json!({"agents": {"codex": {"base_url": format!("{}/v1", model.url())}}});
    World::builder()
        .agent("codex", cli, &config)
        .env("OPENAI_API_KEY", "test-key")
        .profile(
            "second",
            "extends: codex\nauto_pr: false\nplugin:\n  config:\n    model: scripted-1\n",
        )
}

fn shell(command: &str) -> Turn {
    Turn::Tool("exec_command", json!({"cmd": command}))
}

/// What the model saw of the conversation in a request.
fn seen(request: &Value) -> String {
    field(request, "input").to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_agent_edits_a_file_and_commits_it_in_a_worktree() {
    let Some(cli) = cli(this_test!()) else {
        return;
    };
    let commit = "echo hello > hello.txt && git add -A && git -c user.name=A -c user.email=a@localhost commit -qm hello \
        && git ls-tree -r --name-only HEAD";
    let model = Model::start([shell(commit), Turn::Text("All done.".into())]).await;
    let world = builder(&cli, &model).start();
    let repo = Repo::create(world.path("remote"));
    let id = world
        .submit_body(&task(
            "second",
            "Write hello.txt and commit it.",
            Some(&repo),
        ))
        .await;
    let job = world.ended(&id).await;
    let events = world.events(&id).await;
    assert_eq!(text(&job, "status"), "succeeded", "{job}\n{events:#?}");
    assert_eq!(text(&job, "output"), "All done.");
    assert_eq!(text(&job, "session_id").len(), 36, "{job}");
    assert_eq!(text(&job, "model"), "scripted-1", "{job}");
    let usage = field(&job, "usage");
    assert_eq!(
        (
            number(usage, "input_tokens"),
            number(usage, "output_tokens"),
            number(usage, "cache_read_tokens")
        ),
        (180, 40, 20),
        "{job}"
    );
    assert_eq!(
        (number(&job, "num_turns"), number(&job, "tool_calls")),
        (1, 1),
        "{job}"
    );
    let kinds: Vec<&str> = events.iter().map(|event| text(event, "kind")).collect();
    for kind in ["started", "session", "tool_call", "tool_result", "exited"] {
        assert!(kinds.contains(&kind), "{kind} is missing in {kinds:?}");
    }
    let requests = model.requests();
    let last = seen(requests.last().unwrap());
    assert!(
        last.contains("README.md\\nhello.txt"),
        "the commit holds the work alone: {last}"
    );
    assert!(
        seen(&requests[0]).contains(&format!("Agenticore job {id}")),
        "the agent is told which job it does"
    );
    // Its home is the job's, and the key is nowhere in it.
    let home = text(&job, "job_config_dir").to_owned();
    let below = Path::new(&home).strip_prefix(world.path("")).unwrap();
    let files = world.files(below.to_str().unwrap());
    assert!(files.contains(&"config.toml".to_owned()), "{files:?}");
    for file in files {
        let bytes = std::fs::read(Path::new(&home).join(&file)).unwrap_or_default();
        let found = bytes.windows(8).any(|window| window == b"test-key");
        assert!(!found, "the key is in {file}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_agent_that_is_drained_in_a_tool_goes_on_with_its_session() {
    let Some(cli) = cli(this_test!()) else {
        return;
    };
    let model = Model::start([shell("echo known-result"), shell("sleep 3142")]).await;
    let mut world = builder(&cli, &model).start();
    let id = world
        .submit_body(&task("second", "Run a long command.", None))
        .await;
    world.runs("sleep 3142").await;
    world.drain_at_once().await;
    let session = text(&world.job(&id).await, "session_id").to_owned();
    keeps_its_session(&mut world, &model, &id, &session).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_agent_goes_on_with_its_session_after_a_kill_of_the_host() {
    let Some(cli) = cli(this_test!()) else {
        return;
    };
    let model = Model::start([shell("echo known-result"), Turn::Silence]).await;
    let mut world = builder(&cli, &model).start();
    let id = world
        .submit_body(&task("second", "Run a long command.", None))
        .await;
    model.asked(2).await;
    let session = world.session(&id).await;
    world.kill9();
    keeps_its_session(&mut world, &model, &id, &session).await;
}

/// Starts a server, which goes on with the job's session where an earlier one left it.
async fn keeps_its_session(world: &mut World, model: &Model, id: &str, session: &str) {
    let (resumed, job) = goes_on(world, model, id, "Went on.").await;
    assert_eq!(
        (text(&job, "session_id"), text(&job, "output")),
        (session, "Went on.")
    );
    let resumed = seen(&resumed);
    for words in [
        "Run a long command.",
        "known-result",
        "may have run in part",
    ] {
        assert!(resumed.contains(words), "{words:?} is not in {resumed}");
    }
    // The tokens of the first attempt are in the count of the thread.
    assert!(number(field(&job, "usage"), "output_tokens") >= 40, "{job}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_job_goes_on_with_the_session_of_a_second_agent() {
    let Some(cli) = cli(this_test!()) else {
        return;
    };
    let model = Model::start([Turn::Text("I will remember the blue door.".into())]).await;
    let world = builder(&cli, &model).start();
    goes_on_with_a_session(&world, &model, "second", "input").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_repository_brings_for_a_second_agent_runs_only_where_the_profile_trusts_it() {
    let Some(cli) = cli(this_test!()) else {
        return;
    };
    let model = Model::start([]).await;
    let trusting = "extends: second\nauto_pr: false\nplugin:\n  config:\n    trust_repository: true\n  grants:\n    \
        program: [codex]\n    permissions: [bypass, repository]\n    settings: [endpoints]\n    env: ['*']\n    secrets: [OPENAI_API_KEY]\n";
    let world = builder(&cli, &model).profile("trusting", trusting).start();
    for (profile, runs) in [("second", false), ("trusting", true)] {
        let trace = world.path(&format!("{profile}-trace"));
        let repo = Repo::create(world.path(profile));
        let server = format!(
            "[mcp_servers.evil]\ncommand = 'sh'\nargs = ['-c', 'touch {}']\n",
            trace.display()
        );
        repo.commit("main", ".codex/config.toml", &server);
        repo.commit("main", "AGENTS.md", "The word of the repository.");
        let mut body = task("second", "Look around.", Some(&repo));
        body["profile"] = json!(profile);
        let before = model.requests().len();
        let id = world.submit_body(&body).await;
        let job = world.ended(&id).await;
        assert_eq!(text(&job, "status"), "succeeded", "{job}");
        assert_eq!(
            trace.exists(),
            runs,
            "{profile}: a server of the repository"
        );
        let told = seen(&model.requests()[before]).contains("The word of the repository.");
        assert_eq!(told, runs, "{profile}: instructions of the repository");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_agent_without_a_key_fails_at_its_service_and_says_what_to_do() {
    let Some(cli) = cli(this_test!()) else {
        return;
    };
    let model = Model::start([]).await;
    // An empty key is none.
    let world = builder(&cli, &model).env("OPENAI_API_KEY", "").start();
    let id = world.submit_body(&task("second", "x", None)).await;
    let job = world.ended(&id).await;
    let failure = field(&job, "failure");
    assert_eq!(
        (text(&job, "status"), text(failure, "class")),
        ("failed", "api"),
        "{job}"
    );
    assert!(text(failure, "remedy").contains("OPENAI_API_KEY"), "{job}");
    assert_eq!(model.requests().len(), 0);
}
