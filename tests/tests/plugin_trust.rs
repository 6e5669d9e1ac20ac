//! The operator's word about plugins, as a fleet sees it: approvals, switches, pinned bytes, and the explanation of a job.

use std::fs;
use std::path::{Path, PathBuf};

use agenticore_tests::{Builder, World, until};
use serde_json::{Value, json};

use crate::{field, text};

/// A plugin of the tests, whose `describe` says what its name says; each has a digest of its own.
fn guest(describes: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/dist/test-guests.wasm");
    let mut bytes = fs::read(path).expect("the guests are built: run `cargo xtask plugins`");
    let marker = b"DESCRIBE-DOES:normal............";
    let mut windows = bytes.windows(marker.len());
    let at = windows
        .position(|window| window == marker)
        .expect("the marker of the guest");
    let mut text = format!("DESCRIBE-DOES:{describes}").into_bytes();
    text.resize(marker.len(), b'.');
    bytes.splice(at..at + marker.len(), text);
    bytes
}

const PROFILE: &str =
    "plugin:\n  component: guest.wasm\n  grants: {program: [sh]}\nauto_pr: false\n";

fn with_guest(builder: Builder, describes: &str) -> Builder {
    let builder = builder.profile("guest", PROFILE);
    fs::write(component(&builder.path("home")), guest(describes)).unwrap();
    builder
}

fn component(home: &Path) -> PathBuf {
    home.join(".agenticore/profiles/guest/guest.wasm")
}

fn body(task: &str) -> Value {
    json!({"task": task, "profile": "guest"})
}

#[tokio::test]
async fn a_version_that_asks_for_more_waits_until_the_command_in_the_answer_was_run() {
    let world = with_guest(World::builder(), "no-requests").start();
    let first = world.submit_body(&body("first")).await;
    let first = world.ended(&first).await;
    assert_eq!(text(&first, "status"), "succeeded", "{first}");

    fs::write(component(&world.path("home")), guest("normal")).unwrap();
    let refused = world.post("/jobs", &body("second")).await;
    assert_eq!(refused.status, 403, "{refused:?}");
    let problem = &refused.body;
    assert_eq!(text(problem, "code"), "plugin_refused");
    let detail = text(problem, "detail");
    assert!(detail.contains("plugin.approval"), "{detail}");
    let command = detail
        .split('`')
        .find(|part| part.starts_with("agenticore "));
    let command = command.unwrap_or_else(|| panic!("no command in {detail}"));
    let listed = world.cli(&["plugin", "approvals", "--waiting"]).await;
    assert!(listed.stdout.contains("waiting"), "{listed:?}");

    let words: Vec<&str> = command.split(' ').skip(1).collect();
    let approved = world.cli(&words).await;
    assert_eq!(approved.code, Some(0), "{approved:?}");
    // The server reads decisions again within seconds.
    let accepted = until("the version is approved", || async {
        let answer = world.post("/jobs", &body("third")).await;
        (answer.status < 300).then_some(answer.body)
    })
    .await;
    let job = world.ended(text(field(&accepted, "job"), "id")).await;
    assert_eq!(text(&job, "status"), "succeeded", "{job}");
}

#[tokio::test]
async fn a_switch_reaches_every_pod_and_the_jobs_that_wait() {
    let shared = tempfile::tempdir().unwrap();
    let profiles = shared.path().join("profiles/guest");
    fs::create_dir_all(&profiles).unwrap();
    fs::write(
        profiles.join("profile.yml"),
        format!("name: guest\n{PROFILE}"),
    )
    .unwrap();
    fs::write(profiles.join("guest.wasm"), guest("normal")).unwrap();
    let pod = |name: &str| {
        let builder = World::builder();
        let jobs = builder.path("jobs").display().to_string();
        builder
            .env(
                "AGENTICORE_SHARED_FS_ROOT",
                &shared.path().display().to_string(),
            )
            .env("AGENTICORE_JOBS_DIR", &jobs)
            .env("AGENTICORE_POD_NAME", name)
            .env("AGENTICORE_MAX_PARALLEL_JOBS", "1")
            .start()
    };
    let (one, two) = (pod("pod-1"), pod("pod-2"));
    let gate = two.gate("first");
    let first = two.submit(&format!("echo begun; {}", gate.wait())).await;
    two.logged(&first, "begun").await;
    let waiting = two.submit_body(&body("waits")).await;

    let off = one
        .cli(&[
            "plugin",
            "disable",
            "test-guests",
            "--reason",
            "it is on fire",
        ])
        .await;
    assert_eq!(off.code, Some(0), "{off:?}");
    assert!(!off.stderr.contains("warning"), "{off:?}");
    // One that is mistyped is switched off as well, because it may yet come; but not without a word.
    let typo = one.cli(&["plugin", "disable", "test-guest"]).await;
    assert_eq!(typo.code, Some(0), "{typo:?}");
    for word in [
        "no plugin that is known here",
        "test-guests",
        "policy",
        "plugin enable test-guest",
    ] {
        assert!(typo.stderr.contains(word), "{word} is missing: {typo:?}");
    }
    let refused = until("the other pod refuses it", || async {
        let answer = two.post("/jobs", &body("late")).await;
        (answer.status == 403).then_some(answer.body)
    })
    .await;
    let detail = text(&refused, "detail");
    assert!(detail.contains("plugin.disabled"), "{detail}");
    assert!(detail.contains("it is on fire"), "{detail}");
    gate.open();
    let failed = two.ended(&waiting).await;
    let failure = field(&failed, "failure");
    assert_eq!(text(failure, "code"), "plugin.disabled", "{failed}");
    assert!(
        text(failure, "remedy").contains("agenticore plugin enable test-guests"),
        "{failure}"
    );
    // Others are none the wiser.
    let other = two.submit("echo fine").await;
    assert_eq!(text(&two.ended(&other).await, "status"), "succeeded");

    let on = one.cli(&["plugin", "enable", "test-guests"]).await;
    assert_eq!(on.code, Some(0), "{on:?}");
    let accepted = until("it is on again", || async {
        let answer = two.post("/jobs", &body("again")).await;
        (answer.status < 300).then_some(answer.body)
    })
    .await;
    let job = two.ended(text(field(&accepted, "job"), "id")).await;
    assert_eq!(text(&job, "status"), "succeeded", "{job}");
}

#[tokio::test]
async fn a_job_that_waits_over_a_restart_runs_the_bytes_it_was_admitted_with() {
    let builder = World::builder().env("AGENTICORE_MAX_PARALLEL_JOBS", "1");
    let mut world = with_guest(builder, "normal").start();
    let gate = world.gate("first");
    let first = world.submit(&format!("echo begun; {}", gate.wait())).await;
    world.logged(&first, "begun").await;
    let waiting = world.submit_body(&body("waits")).await;
    let admitted = world.job(&waiting).await;
    let digest = text(&field(&admitted, "admitted")[0], "digest").to_owned();
    assert_eq!(digest.len(), 64, "{admitted}");

    fs::write(component(&world.path("home")), guest("replaced")).unwrap();
    world.kill9();
    gate.open();
    world.boot();
    let job = world.ended(&waiting).await;
    assert_eq!(text(&job, "status"), "succeeded", "{job}");
    assert_eq!(text(field(&job, "plugin"), "digest"), digest, "{job}");
    let new = world.submit_body(&body("new")).await;
    let new = world.ended(&new).await;
    assert_ne!(text(field(&new, "plugin"), "digest"), digest, "{new}");
}

#[tokio::test]
async fn a_job_is_explained_with_what_was_done_and_what_was_refused() {
    let hook = r#"hooks: [{component: guest.wasm, on: [pre-job, post-job], config: {verdict: patch, pull-request: keep}}]"#;
    let greedy = "plugin:\n  component: guest.wasm\n  grants: {program: [sh]}\n  config: {env: {LD_PRELOAD: x}}\nauto_pr: false\n";
    let world = World::builder()
        .profile("explained", &format!("extends: shell\n{hook}\n"))
        .profile("guest", greedy);
    for profile in ["explained", "guest"] {
        let folder = world.path("home/.agenticore/profiles").join(profile);
        fs::write(folder.join("guest.wasm"), guest("normal")).unwrap();
    }
    let world = world.start();
    let id = world
        .submit_body(&json!({"task": "echo hi", "profile": "explained"}))
        .await;
    let job = world.ended(&id).await;
    assert_eq!(text(&job, "status"), "succeeded", "{job}");
    let page = world.cli(&["job", "explain", &id]).await;
    assert_eq!(page.code, Some(0), "{page:?}");
    for part in [
        "plugin shell",
        "hook test-guests",
        "program:",
        "by plugin",
        "hook/added.txt",
        "by hook",
        "pre-job by",
        "decided     patched",
        "post-job by",
        "memory=",
    ] {
        assert!(page.stdout.contains(part), "{part} in:\n{}", page.stdout);
    }
    let refused = world.submit_body(&body("greedy")).await;
    let refused = world.ended(&refused).await;
    let denial = &field(field(&refused, "plugin"), "denials")[0];
    assert_eq!(text(denial, "code"), "plugin.grant", "{refused}");
    let page = world
        .cli(&["job", "explain", text(&refused, "id"), "--json"])
        .await;
    let document: Value = serde_json::from_str(&page.stdout).unwrap();
    let denial = document.pointer("/plugin/denials/0/remedy").unwrap();
    assert!(denial.as_str().unwrap().contains("env"), "{denial}");
}

#[tokio::test]
async fn a_redacting_plugin_cleans_the_record_and_withholds_where_it_fails() {
    let hook = |config: &str| {
        format!(
            "extends: shell\nhooks: [{{component: guest.wasm, on: [redact], config: {config}}}]\n"
        )
    };
    let builder = World::builder()
        .profile("clean", &hook("{secret: hunter2}"))
        .profile("broken", &hook("{do: panic}"));
    for profile in ["clean", "broken"] {
        let folder = builder.path("home/.agenticore/profiles").join(profile);
        fs::write(folder.join("guest.wasm"), guest("normal")).unwrap();
    }
    let world = builder.start();
    let task = "echo the password is hunter2; exit 3";
    let run = async |profile: &str| {
        let id = world
            .submit_body(&json!({"task": task, "profile": profile}))
            .await;
        world.ended(&id).await
    };
    let job = run("clean").await;
    assert!(
        text(&job, "output").contains("the password is (gone)"),
        "{job}"
    );
    assert!(!text(&job, "error").contains("hunter2"), "{job}");
    let job = run("broken").await;
    assert!(text(&job, "output").starts_with("(withheld:"), "{job}");
    assert!(!text(&job, "error").contains("hunter2"), "{job}");
    assert_eq!(text(&job, "status"), "failed", "the result is the agent's");
    assert_eq!(text(&field(&job, "hooks")[0], "at"), "redact", "{job}");
    let events = world.events(text(&job, "id")).await;
    let told = events
        .iter()
        .filter(|event| text(event, "type") == "plugin");
    let told: Vec<&str> = told.map(|event| text(event, "message")).collect();
    assert!(
        told.iter()
            .any(|message| message.contains("is withheld because it is required")),
        "{told:?}"
    );
}
