//! A server that others can reach needs keys, and runs no script for them.

use agenticore_tests::World;
use serde_json::json;

#[tokio::test]
async fn an_open_address_without_keys_is_refused_before_anything_is_bound() {
    for host in ["0.0.0.0", "::"] {
        let (status, said) = World::builder().host(host).refused();
        assert!(!status.success());
        for word in ["AGENTICORE_API_KEYS", "--unsafe-no-auth", host] {
            assert!(said.contains(word), "{word} is missing in: {said}");
        }
    }
}

#[tokio::test]
async fn an_address_of_redis_that_makes_no_sense_is_refused() {
    let (status, said) = World::builder()
        .env("REDIS_URL", "http://:hush@127.0.0.1:1/0")
        .refused();
    assert!(!status.success());
    assert!(said.contains("REDIS_URL"), "{said}");
    assert!(!said.contains("hush"), "the password is shown: {said}");
}

#[tokio::test]
async fn a_directory_that_is_none_ends_the_start() {
    for variable in ["AGENTICORE_JOBS_DIR", "AGENTICORE_REPOS_ROOT"] {
        let builder = World::builder();
        let file = builder.path("a-file");
        std::fs::write(&file, "").unwrap();
        let value = file.display().to_string();
        let (status, said) = builder.env(variable, &value).refused();
        assert!(!status.success());
        assert!(said.contains(variable), "{variable}: {said}");
    }
}

#[tokio::test]
async fn settings_that_cannot_be_kept_end_the_start_as_wrong_usage() {
    for (variable, value, says) in [
        ("AGENTICORE_TRANSPORT", "stdio", "does not speak MCP"),
        ("AGENTICORE_DRAIN_TIMEOUT", "18446744073709551615", "604800"),
        (
            "AGENTICORE_MAX_PARALLEL_JOBS",
            "18446744073709551615",
            "10000",
        ),
        ("AGENTICORE_CONFIG", "/nosuch/config.yml", "does not exist"),
        ("AGENTICORE_GRANTS", "foo", "KIND:NAME"),
        ("AGENTICORE_PLUGIN_KEYS", "xyz", "Ed25519"),
    ] {
        let (status, said) = World::builder().env(variable, value).refused();
        assert_eq!(status.code(), Some(2), "{variable}: {said}");
        assert!(
            said.contains(variable) && said.contains(says),
            "{variable}: {said}"
        );
    }
}

#[tokio::test]
async fn a_default_profile_that_is_not_there_is_warned_of() {
    let world = World::builder()
        .env("AGENTICORE_DEFAULT_PROFILE", "nope")
        .start();
    let log = world.log();
    assert!(log.contains("AGENTICORE_DEFAULT_PROFILE"), "{log}");
    assert!(log.contains("code, codex"), "{log}");
    let refused = world.post("/jobs", &json!({"task": "x"})).await;
    assert_eq!(refused.status, 422, "{}", refused.text);
    let world = World::start();
    assert!(!world.log().contains("AGENTICORE_DEFAULT_PROFILE"));
}

#[tokio::test]
async fn an_open_address_with_keys_refuses_local_profiles_and_local_paths() {
    let world = World::builder()
        .host("0.0.0.0")
        .env("AGENTICORE_API_KEYS", "k1")
        .start();
    let shell = world
        .post("/jobs", &json!({"task": "id", "profile": "shell"}))
        .await;
    assert!(
        (400..500).contains(&shell.status),
        "{} {}",
        shell.status,
        shell.text
    );
    assert!(
        shell.text.contains("AGENTICORE_ALLOW_LOCAL_PROFILES"),
        "{}",
        shell.text
    );
    let local = world
        .post("/jobs", &json!({"task": "x", "repo_url": "file:///etc"}))
        .await;
    assert!(
        (400..500).contains(&local.status),
        "{} {}",
        local.status,
        local.text
    );
    assert!(world.jobs().await.is_empty(), "nothing is stored");

    let world = World::builder()
        .host("0.0.0.0")
        .env("AGENTICORE_API_KEYS", "k1")
        .env("AGENTICORE_ALLOW_LOCAL_PROFILES", "true")
        .start();
    let id = world.submit("echo allowed").await;
    assert_eq!(crate::text(&world.ended(&id).await, "status"), "succeeded");
}

#[tokio::test]
async fn the_unsafe_flag_is_an_explicit_way_to_listen_without_keys() {
    let world = World::builder()
        .host("0.0.0.0")
        .argument("--unsafe-no-auth")
        .start();
    assert_eq!(world.get("/health").await.status, 200);
}
