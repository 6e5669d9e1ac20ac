//! Pull requests: from the agent's commit to GitHub, at most once, with the token nowhere to be found.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use agenticore_tests::{Builder, GitHub, Repo, Trouble, World, lfs, tool};
use base64::Engine as _;
use serde_json::{Value, json};

use crate::{field, number, text};

const TOKEN: &str = "ghp_canary0123456789abcdefABCDEF";
pub(crate) const COMMIT: &str = "echo work > work.txt && git add -A && git -c user.name=A -c user.email=a@localhost commit -qm work";

/// A GitHub, and the settings of a server that works for it.
pub(crate) async fn github() -> (GitHub, Builder) {
    let builder = World::builder();
    let repo = Repo::create(builder.path("github"));
    let github = GitHub::start(repo, TOKEN).await;
    let builder = builder
        .env("AGENTICORE_GITHUB_API_URL", &github.api())
        .env("GITHUB_TOKEN", TOKEN)
        .profile("pr", "extends: shell\nauto_pr: true\n");
    (github, builder)
}

pub(crate) fn job(github: &GitHub, profile: &str, script: &str) -> Value {
    json!({"task": script, "profile": profile, "repo_url": github.repo_url()})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_becomes_a_pull_request() {
    let (github, builder) = github().await;
    let world = builder
        .profile(
            "full",
            "extends: pr\npull_request:\n  title: \"[{{ profile }}] {{ task | length }}\"\n  draft: true\n  labels: [bot, forbidden-not]\n  \
             reviewers: [ann]\n  team_reviewers: [core]\n",
        )
        .start();
    let id = world
        .submit_body(&job(&github, "full", &format!("{COMMIT}; echo all done")))
        .await;
    let record = world.ended(&id).await;
    assert_eq!(text(&record, "status"), "succeeded", "{record}");
    let pulls = github.pulls();
    let [pull] = pulls.as_slice() else {
        panic!("{pulls:?}\n{record}");
    };
    assert_eq!(text(&record, "pr_url"), text(pull, "html_url"));
    assert_eq!(text(field(&record, "pull_request"), "state"), "opened");
    assert!(text(pull, "title").starts_with("[full] "), "{pull}");
    assert_eq!(text(field(pull, "head"), "ref"), text(&record, "branch"));
    assert_eq!(text(field(pull, "base"), "ref"), "main");
    assert_eq!(field(pull, "draft"), &json!(true));
    for words in ["all done", id.as_str(), "files changed | 1"] {
        assert!(text(pull, "body").contains(words), "{words}: {pull}");
    }
    let (labels, reviewers) = github.wishes();
    assert_eq!(labels, ["bot", "forbidden-not"]);
    assert_eq!(reviewers, ["ann", "core"]);
    let branch = text(&record, "branch");
    let pushed = github.repo().git(&["show", &format!("{branch}:work.txt")]);
    assert_eq!(pushed, "work\n");
    let events = world.events(&id).await;
    let told = events.iter().find(|event| text(event, "type") == "pr");
    assert_eq!(told.map(|event| text(event, "state")), Some("opened"));
    let shown = world.cli(&["wait", &id]).await;
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(shown.stderr.contains(text(pull, "html_url")), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_in_lfs_are_fetched_and_pushed_where_the_profile_says_so() {
    if tool("files in LFS", "git-lfs").is_none() {
        return;
    }
    let (github, builder) = github().await;
    let world = builder
        .profile("with", "extends: pr\nrepository: {lfs: true}\n")
        .start();
    let repo = github.repo();
    lfs::store(repo.path(), b"big\n");
    repo.commit(
        "main",
        ".gitattributes",
        "*.bin filter=lfs diff=lfs merge=lfs -text\n",
    );
    repo.commit("main", "big.bin", &lfs::pointer(b"big\n"));
    // As GitHub does, it takes no branch whose files it lacks.
    let hook = repo.path().join("hooks/pre-receive");
    let lacks = "#!/bin/sh\nwhile read old new ref; do\n\
        id=$(git show $new:new.bin | sed -n 's/^oid sha256://p'); [ -z \"$id\" ] && continue\n\
        find lfs/objects -name $id | grep -q . || { echo GH008 >&2; exit 1; }\ndone\n";
    fs::write(&hook, lacks).unwrap();
    fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let script = "cat big.bin; git status --porcelain; echo new > new.bin; \
        git add -A; git -c user.name=A -c user.email=a@localhost commit -qm new; echo more > more.bin";
    let ended = async |profile: &str, script: &str| {
        let id = world.submit_body(&job(&github, profile, script)).await;
        world.ended(&id).await
    };
    let without = ended("pr", "cat big.bin").await;
    assert_eq!(
        text(&without, "output"),
        lfs::pointer(b"big\n"),
        "{without}"
    );
    let with = ended("with", script).await;
    assert_eq!(text(&with, "output"), "big\n", "{with}");
    let state = text(field(&with, "pull_request"), "state");
    assert_eq!(state, "opened", "{with}");
    for (file, bytes) in [("new.bin", b"new\n".as_slice()), ("more.bin", b"more\n")] {
        let shown = repo.git(&["show", &format!("{}:{file}", text(&with, "branch"))]);
        assert_eq!(shown, lfs::pointer(bytes), "{file}");
        assert_eq!(
            lfs::stored(repo.path(), &shown).as_deref(),
            Some(bytes),
            "{file}"
        );
    }
    the_token_is_in_no_file(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn uncommitted_work_is_treated_as_the_profile_says() {
    let (github, builder) = github().await;
    let world = builder
        .profile("leave", "extends: pr\nrepository: {uncommitted: leave}\n")
        .profile("fail", "extends: pr\nrepository: {uncommitted: fail}\n")
        .start();
    let loose = "echo loose > loose.txt";
    for (profile, state) in [("pr", "opened"), ("leave", "skipped"), ("fail", "failed")] {
        let id = world.submit_body(&job(&github, profile, loose)).await;
        let record = world.ended(&id).await;
        assert_eq!(
            text(&record, "status"),
            "succeeded",
            "the result stands: {record}"
        );
        let done = field(&record, "pull_request");
        assert_eq!(text(done, "state"), state, "{profile}: {record}");
        if state == "failed" {
            let failure = field(done, "failure");
            assert_eq!(text(failure, "class"), "pull_request");
            assert!(!text(failure, "remedy").is_empty());
            let shown = world.cli(&["wait", &id]).await;
            assert_eq!(shown.code, Some(0), "{shown:?}");
            assert!(shown.stderr.contains(text(failure, "message")), "{shown:?}");
        }
        let path = text(&record, "worktree_path");
        assert!(
            Path::new(path).join("loose.txt").exists(),
            "the work is kept"
        );
    }
    let [pull] = github.pulls().try_into().expect("one pull request");
    let branch = text(field(&pull, "head"), "ref").to_owned();
    assert_eq!(
        github.repo().git(&["show", &format!("{branch}:loose.txt")]),
        "loose\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_to_open_is_no_failure() {
    let (github, builder) = github().await;
    let world = builder.start();
    let local = Repo::create(world.path("local"));
    let id = world.submit_body(&job(&github, "pr", "true")).await;
    let none = world.ended(&id).await;
    assert_eq!(
        text(field(&none, "pull_request"), "reason"),
        "the job made no commits"
    );
    let body = json!({"task": COMMIT, "profile": "pr", "repo_url": local.url()});
    let id = world.submit_body(&body).await;
    let elsewhere = world.ended(&id).await;
    assert_eq!(
        text(field(&elsewhere, "pull_request"), "state"),
        "skipped",
        "{elsewhere}"
    );
    assert_eq!(text(&elsewhere, "status"), "succeeded");
    let id = world.submit_body(&job(&github, "pr", "exit 1")).await;
    let failed = world.ended(&id).await;
    assert_eq!(
        field(&failed, "pull_request"),
        &Value::Null,
        "only after a success"
    );
    assert_eq!(github.pulls(), Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_on_github_is_waited_out_or_told() {
    let (github, builder) = github().await;
    let world = builder.start();
    github.trouble([Trouble::Status(502)]);
    let id = world.submit_body(&job(&github, "pr", COMMIT)).await;
    let record = world.ended(&id).await;
    assert_eq!(
        text(field(&record, "pull_request"), "state"),
        "opened",
        "{record}"
    );
    for (status, says) in [
        (403, "refuses the token"),
        (422, "does not accept"),
        (404, "does not find"),
    ] {
        github.trouble([Trouble::Status(status)]);
        let id = world.submit_body(&job(&github, "pr", COMMIT)).await;
        let record = world.ended(&id).await;
        assert_eq!(text(&record, "status"), "succeeded", "{record}");
        let failure = field(field(&record, "pull_request"), "failure");
        assert_eq!(text(failure, "class"), "pull_request", "{record}");
        assert!(text(failure, "message").contains(says), "{failure}");
        assert!(!text(failure, "remedy").is_empty());
    }
    assert_eq!(github.pulls().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_branch_is_not_overwritten() {
    let (github, builder) = github().await;
    let world = builder.start();
    let gate = world.gate("pushed");
    let id = world
        .submit_body(&job(
            &github,
            "pr",
            &format!("{COMMIT}; echo begun; {}", gate.wait()),
        ))
        .await;
    world.logged(&id, "begun").await;
    let branch = text(&world.job(&id).await, "branch").to_owned();
    let theirs = github.repo().commit(&branch, "theirs.txt", "theirs\n");
    gate.open();
    let record = world.ended(&id).await;
    let failure = field(field(&record, "pull_request"), "failure");
    assert_eq!(text(failure, "class"), "pull_request", "{record}");
    assert_eq!(github.repo().git(&["rev-parse", &branch]).trim(), theirs);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_while_it_opens_leaves_one_pull_request() {
    for trouble in [Trouble::Silence, Trouble::SilenceAfter] {
        let (github, builder) = github().await;
        let mut world = builder.start();
        github.trouble([trouble]);
        let ledger = world.path("ledger");
        let script = format!("echo ran >> '{}'; {COMMIT}", ledger.display());
        let id = world.submit_body(&job(&github, "pr", &script)).await;
        github.asked_to_open(1).await;
        world.kill9();
        world.boot();
        let record = world.ended(&id).await;
        assert_eq!(
            (text(&record, "status"), number(&record, "attempt")),
            ("succeeded", 2),
            "{trouble:?}: {record}"
        );
        let state = if trouble == Trouble::Silence {
            "opened"
        } else {
            "existing"
        };
        assert_eq!(text(field(&record, "pull_request"), "state"), state);
        assert_eq!(github.pulls().len(), 1, "{trouble:?}");
        assert_eq!(
            text(&github.pulls()[0], "html_url"),
            text(&record, "pr_url")
        );
        assert_eq!(
            fs::read_to_string(ledger).unwrap(),
            "ran\n",
            "the agent ran once"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_nowhere_but_on_the_wire() {
    let (github, builder) = github().await;
    let world = builder.start();
    let stop = Arc::new(AtomicBool::new(false));
    let watcher = std::thread::spawn({
        let stop = stop.clone();
        move || {
            let mut seen = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                seen.extend(
                    command_lines()
                        .into_iter()
                        .filter(|line| line.contains(TOKEN)),
                );
            }
            seen
        }
    });
    let look =
        "env; cat /proc/self/environ | tr '\\0' '\\n'; git config --list --show-origin; cat .git";
    let ok = world
        .submit_body(&job(&github, "pr", &format!("{look}; {COMMIT}")))
        .await;
    let ok = world.ended(&ok).await;
    assert_eq!(text(field(&ok, "pull_request"), "state"), "opened", "{ok}");
    // Errors are where tokens like to turn up.
    github.trouble([Trouble::Status(401)]);
    let refused = world.submit_body(&job(&github, "pr", COMMIT)).await;
    let refused = world.ended(&refused).await;
    let missing = format!("{}-missing", github.repo_url());
    let missing = json!({"task": "true", "profile": "pr", "repo_url": missing});
    let missing = world.submit_body(&missing).await;
    world.ended(&missing).await;
    let inside = github
        .repo_url()
        .replace("http://", &format!("http://x:{TOKEN}@"));
    let inside = json!({"task": "true", "profile": "pr", "repo_url": inside});
    let answer = world.post("/jobs", &inside).await;

    stop.store(true, Ordering::Relaxed);
    let argv = watcher.join().unwrap();
    assert!(argv.is_empty(), "in the arguments of a process: {argv:?}");
    let mut texts = vec![
        ok.to_string(),
        refused.to_string(),
        answer.text,
        world.log(),
    ];
    for id in [text(&ok, "id"), text(&refused, "id"), &missing] {
        texts.push(json!(world.events(id).await).to_string());
        texts.push(world.cli(&["job", id]).await.stdout);
    }
    for needle in &forms_of_the_token() {
        for text in &texts {
            assert!(!text.contains(needle.as_str()), "{needle} in {text}");
        }
    }
    the_token_is_in_no_file(&world);
}

/// The token, and as it goes over the wire.
fn forms_of_the_token() -> [String; 3] {
    let encoded = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    [
        TOKEN.to_owned(),
        encoded(TOKEN),
        encoded(&format!("x-access-token:{TOKEN}")),
    ]
}

fn the_token_is_in_no_file(world: &World) {
    let needles = forms_of_the_token();
    for below in ["home", "repos", "tmp"] {
        for file in world.files(below) {
            let bytes = fs::read(world.path(&format!("{below}/{file}"))).unwrap_or_default();
            for needle in &needles {
                let found = bytes
                    .windows(needle.len())
                    .any(|window| window == needle.as_bytes());
                assert!(!found, "{needle} in the file {below}/{file}");
            }
        }
    }
}

/// Puts the test guest into a profile that calls it as a hook with this configuration.
fn hooked(builder: Builder, name: &str, config: &Value) -> Builder {
    let folder = builder.path("home/.agenticore/profiles").join(name);
    fs::create_dir_all(&folder).unwrap();
    let guest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/dist/test-guests.wasm");
    fs::copy(guest, folder.join("guest.wasm")).unwrap();
    let hook =
        json!([{"component": "guest.wasm", "on": ["pre-job", "post-job"], "config": config}]);
    builder.profile(name, &format!("extends: pr\nhooks: {hook}\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_change_the_words_or_say_no() {
    let (github, builder) = github().await;
    let builder = hooked(builder, "title", &json!({"pull-request": "title"}));
    let world = hooked(builder, "veto", &json!({"pull-request": "veto"})).start();
    let id = world.submit_body(&job(&github, "title", COMMIT)).await;
    let record = world.ended(&id).await;
    assert_eq!(
        text(field(&record, "pull_request"), "state"),
        "opened",
        "{record}"
    );
    let pulls = github.pulls();
    assert_eq!(text(&pulls[0], "title"), "a better title");
    assert!(
        text(&pulls[0], "body").contains(&id),
        "the body is the profile's"
    );

    let id = world.submit_body(&job(&github, "veto", COMMIT)).await;
    let record = world.ended(&id).await;
    assert_eq!(text(&record, "status"), "succeeded", "{record}");
    let done = field(&record, "pull_request");
    assert_eq!(text(done, "state"), "skipped");
    assert!(text(done, "reason").contains("not on a Friday"), "{done}");
    assert_eq!(github.pulls().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_stage_a_job_ends_once_with_one_pull_request() {
    let (github, builder) = github().await;
    let mut world = hooked(builder, "staged", &json!({"pull-request": "keep"})).start();
    let stages = [
        "clone",
        "materialize",
        "pre_hook",
        "agent_run",
        "post_hook",
        "pull_request",
    ];
    for (round, stage) in stages.into_iter().enumerate() {
        let gate = world.gate(stage);
        let held = stage == "agent_run";
        let wait = if held { gate.wait() } else { "true".to_owned() };
        if stage == "pull_request" {
            github.trouble([Trouble::SilenceAfter]);
        }
        let ledger = world.path(&format!("gates/{stage}.runs"));
        // Run again, it finds its commit made.
        let script = format!(
            "echo ran >> '{}'; {wait}; {COMMIT} || true",
            ledger.display()
        );
        let id = world.submit_body(&job(&github, "staged", &script)).await;
        world
            .event(&id, stage, |event| text(event, "stage") == stage)
            .await;
        if stage == "pull_request" {
            github.asked_to_open(6).await;
        }
        world.kill9();
        gate.open();
        world.boot();

        let record = world.ended(&id).await;
        assert_eq!(text(&record, "status"), "succeeded", "{stage}: {record}");
        let events = world.events(&id).await;
        let ends = events.iter().filter(|event| text(event, "type") == "end");
        assert_eq!(ends.count(), 1, "{stage}: {events:?}");
        let pulls = github.pulls();
        assert_eq!(pulls.len(), round + 1, "{stage}: {record}");
        let pull = pulls.last().unwrap();
        assert_eq!(text(&record, "pr_url"), text(pull, "html_url"), "{stage}");
        let branch = text(&record, "branch");
        let work = github.repo().git(&["show", &format!("{branch}:work.txt")]);
        assert_eq!(work, "work\n", "{stage}: the work is kept");
        let runs = fs::read_to_string(&ledger).unwrap().lines().count();
        let most = if matches!(stage, "post_hook" | "pull_request") {
            1
        } else {
            2
        };
        assert!(runs <= most, "{stage}: the agent ran {runs} times");
    }
}

/// The command lines of every process of the machine.
fn command_lines() -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "))
        .collect()
}
