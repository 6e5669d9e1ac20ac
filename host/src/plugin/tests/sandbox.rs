//! What a guest can see and reach: nothing but its arguments, the same on every host.

use std::sync::Arc;

use serde_json::json;

use super::support::{
    JOB, context, guest, guest_bytes, host, materialize, options, request, serves_the_next_job,
};
use crate::plugin::{CallContext, Code, PluginHost};

async fn look(host: &Arc<PluginHost>, job: &str) -> String {
    let plugin = host.load(guest_bytes()).await.unwrap();
    let context = CallContext {
        job_id: job.to_owned(),
        ..context()
    };
    let (plan, _) = host
        .materialize(&plugin, &context, &request(json!({"plan": "look"})))
        .await
        .unwrap();
    String::from_utf8(plan.tree.get("seen.txt").unwrap().bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn there_is_nothing_to_see() {
    let seen = look(&host(), JOB).await;
    for line in [
        "env 0",
        "args 0",
        "cwd false",
        "preopens 0",
        "calls 1",
        "read / false",
        "write / false",
        "read /etc/passwd false",
        "read /proc/self/environ false",
        "write ../x false",
        "stdin Ok(0)",
    ] {
        assert!(
            seen.lines().any(|seen| seen == line),
            "`{line}` is not in\n{seen}"
        );
    }
}

#[tokio::test]
async fn clock_and_random_numbers_follow_the_job_on_every_host() {
    let other_host = PluginHost::new(options()).unwrap();
    let seen = look(&host(), JOB).await;
    assert_eq!(seen, look(&host(), JOB).await);
    assert_eq!(seen, look(&other_host, JOB).await);
    let wall: u128 = seen
        .lines()
        .next()
        .unwrap()
        .trim_start_matches("wall ")
        .parse()
        .unwrap();
    assert_eq!(
        wall / 1_000_000_000,
        1_767_225_600,
        "the time in the job's id"
    );
    let random = |seen: &str| {
        seen.lines()
            .find(|line| line.starts_with("random"))
            .unwrap()
            .to_owned()
    };
    assert_ne!(random(&seen), random(&look(&host(), "another job").await));
}

#[tokio::test]
async fn the_network_is_a_refusing_stub() {
    for act in ["connect", "resolve", "bind"] {
        let error = materialize(&context(), json!({"do": act}))
            .await
            .unwrap_err();
        assert_eq!(error.code, Code::Network, "{act}: {error}");
        let denials = &error.report.as_ref().unwrap().denials;
        assert!(
            denials
                .iter()
                .any(|denial| denial.starts_with("wasi:sockets/")),
            "{act}: {denials:?}"
        );
        serves_the_next_job().await;
    }
    let refused: Vec<_> = guest()
        .await
        .imports()
        .iter()
        .filter(|import| import.refused)
        .cloned()
        .collect();
    assert!(
        !refused.is_empty()
            && refused
                .iter()
                .all(|import| import.name.starts_with("wasi:sockets/")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn no_state_crosses_calls() {
    for _ in 0..3 {
        assert!(look(&host(), JOB).await.contains("calls 1"));
    }
}

#[tokio::test]
async fn the_same_request_gives_the_same_tree() {
    let host_2 = PluginHost::new(options()).unwrap();
    let plugin_2 = host_2.load(guest_bytes()).await.unwrap();
    let config = json!({"plan": "copy-all"});
    let (one, _) = materialize(&context(), config.clone()).await.unwrap();
    let (two, _) = host_2
        .materialize(&plugin_2, &context(), &request(config))
        .await
        .unwrap();
    assert_eq!(one.tree.digest(), two.tree.digest());
}
