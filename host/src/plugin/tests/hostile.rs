//! Guests that do not come to an answer: each ends at the limit that is meant for it, and the next job is served.

use std::time::Duration;

use bytesize::ByteSize;
use serde_json::{Value, json};

use super::support::{
    context, describing, guest, guest_bytes, host, job, lowered, materialize, options, request,
    run_result, serves_the_next_job,
};
use crate::plugin::{Code, LimitsPatch, PluginError, PluginHost};

fn quick() -> LimitsPatch {
    LimitsPatch {
        time: Some(Duration::from_millis(300)),
        ..LimitsPatch::default()
    }
}

/// The error of a call that must fail with that code, at that limit.
async fn fails(config: Value, patch: LimitsPatch, code: Code, limit: Option<&str>) -> PluginError {
    let error = materialize(&lowered(patch), config.clone())
        .await
        .unwrap_err();
    assert_eq!(error.code, code, "{config}: {error} {}", error.detail);
    let met = error.limit.as_ref();
    assert_eq!(met.map(|limit| limit.name.as_str()), limit, "{config}");
    assert!(
        met.is_none_or(
            |limit| limit.used > limit.allowed || matches!(code, Code::Stack | Code::Time)
        ),
        "{config}: {met:?}"
    );
    assert!(error.report.is_some(), "{config}");
    assert!(!error.remedy.is_empty(), "{config}");
    serves_the_next_job().await;
    error
}

async fn act(name: &str, patch: LimitsPatch, code: Code, limit: Option<&str>) -> PluginError {
    fails(json!({"do": name}), patch, code, limit).await
}

#[tokio::test]
async fn loops_and_sleeps_end_at_the_deadline() {
    for name in ["loop", "sleep", "sleep-forever"] {
        act(name, quick(), Code::Time, Some("time")).await;
    }
}

#[tokio::test]
async fn a_loop_in_realloc_ends_at_the_deadline() {
    let plugin = guest().await;
    let mut request = request(json!({}));
    // The guest's allocator never comes back from this size, and the host allocates the task in the guest.
    request.job.task = "x".repeat(424_242);
    let error = host()
        .materialize(&plugin, &lowered(quick()), &request)
        .await
        .unwrap_err();
    assert_eq!(error.code, Code::Time, "{error}");
    serves_the_next_job().await;
}

#[tokio::test]
async fn memory_is_summed_and_bounded() {
    for name in ["memory", "memory-at-once"] {
        let patch = LimitsPatch {
            memory: Some(ByteSize::mib(16)),
            ..LimitsPatch::default()
        };
        let error = act(name, patch, Code::Memory, Some("memory")).await;
        assert!(
            error.report.as_ref().unwrap().peak_memory <= 16 << 20,
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_trap_after_the_answer_is_no_answer() {
    // The guest's allocator traps when it frees this size, which it does after the host has taken the answer.
    let config = json!({"plan": "size", "number": 242_424});
    fails(config, LimitsPatch::default(), Code::Trap, None).await;
}

#[tokio::test]
async fn recursion_ends_at_the_stack() {
    act(
        "recurse",
        LimitsPatch::default(),
        Code::Stack,
        Some("stack"),
    )
    .await;
}

#[tokio::test]
async fn a_panic_brings_its_message_sanitized_and_cut() {
    let error = act("panic", LimitsPatch::default(), Code::Trap, None).await;
    assert!(error.detail.contains("told to panic"), "{}", error.detail);
    assert!(!error.detail.contains('\u{1b}'), "{}", error.detail);

    let config = json!({"do": "panic", "size": 10 << 20});
    let error = fails(config, LimitsPatch::default(), Code::Trap, None).await;
    assert!(error.detail.len() < 8 << 10, "{}", error.detail.len());
}

#[tokio::test]
async fn exiting_is_no_answer() {
    let error = act("exit", LimitsPatch::default(), Code::Trap, None).await;
    assert!(error.message.contains("exited"), "{error}");
}

#[tokio::test]
async fn handles_are_bounded_of_the_host_and_of_the_guest() {
    let more_calls = LimitsPatch::default;
    act("handles", more_calls(), Code::Handles, Some("handles")).await;
    act("own-handles", more_calls(), Code::Handles, Some("handles")).await;
}

#[tokio::test]
async fn calls_into_the_host_are_bounded_in_number_and_size() {
    act(
        "host-calls",
        LimitsPatch::default(),
        Code::HostCalls,
        Some("host_calls"),
    )
    .await;
    act(
        "random-huge",
        LimitsPatch::default(),
        Code::Bytes,
        Some("call_bytes"),
    )
    .await;
    act(
        "log-huge",
        LimitsPatch::default(),
        Code::Bytes,
        Some("call_bytes"),
    )
    .await;
}

#[tokio::test]
async fn a_flood_of_log_lines_ends_the_call() {
    let error = act(
        "log-flood",
        LimitsPatch::default(),
        Code::Log,
        Some("log_bytes"),
    )
    .await;
    assert_eq!(error.report.as_ref().unwrap().log_tail.len(), 100);
}

#[tokio::test]
async fn a_flood_of_output_is_dropped_in_the_middle() {
    let (_, report) = materialize(&context(), json!({"do": "stdio-flood"}))
        .await
        .unwrap();
    assert!(report.host_calls > 400);
    serves_the_next_job().await;
}

#[tokio::test]
async fn forged_log_lines_are_shown_as_one_line() {
    let (_, report) = materialize(&context(), json!({"do": "log-forged"}))
        .await
        .unwrap();
    assert_eq!(
        report.log_tail,
        ["warn: one\\nerror: forged\\r\\u{1b}[2J\\u{202e}two"]
    );
    let (_, report) = materialize(&context(), json!({"do": "log-debug"}))
        .await
        .unwrap();
    assert_eq!(report.log_tail, [""; 0]);
}

#[tokio::test]
async fn answers_are_bounded() {
    fails(
        json!({"error": "huge"}),
        LimitsPatch::default(),
        Code::Output,
        Some("output_bytes"),
    )
    .await;
    let error = fails(
        json!({"error": "long"}),
        LimitsPatch::default(),
        Code::Internal,
        None,
    )
    .await;
    assert!(error.message.len() < 8 << 10);
}

#[tokio::test]
async fn a_refusal_keeps_its_kind_and_loses_its_escapes() {
    for (kind, code) in [
        ("config", Code::Config),
        ("profile", Code::ProfileInvalid),
        ("unsupported", Code::Unsupported),
        ("internal", Code::Internal),
    ] {
        let error = fails(json!({"error": kind}), LimitsPatch::default(), code, None).await;
        assert!(!error.message.contains('\u{1b}'));
    }
}

#[tokio::test]
async fn hooks_are_bounded_too() {
    let plugin = guest().await;
    let hook_time = Some(Duration::from_millis(300));
    let context = lowered(LimitsPatch {
        hook_time,
        ..LimitsPatch::default()
    });
    let (plan, _) = materialize(&context, json!({})).await.unwrap();
    let config = json!({"do": "loop"});
    let error = host()
        .pre_job(&plugin, &context, &job(), &config, &plan)
        .await
        .unwrap_err();
    assert_eq!(error.code, Code::Time);
    assert_eq!(error.limit.as_ref().unwrap().name, "hook_time");
    let run = run_result();
    let error = host()
        .post_job(&plugin, &context, &job(), &json!({"do": "panic"}), &run)
        .await
        .unwrap_err();
    assert_eq!(error.code, Code::Trap);
    serves_the_next_job().await;
}

/// A host of its own, with a short time for `describe`.
fn impatient() -> std::sync::Arc<PluginHost> {
    let mut options = options();
    options.limits.describe_time = Duration::from_millis(1_500);
    PluginHost::new(options).unwrap()
}

#[tokio::test]
async fn describe_is_under_the_same_limits() {
    for (what, code) in [
        ("loop", Code::Time),
        ("sleep", Code::Time),
        ("memory", Code::Memory),
        ("recurse", Code::Stack),
        ("panic", Code::Trap),
        ("exit", Code::Trap),
        ("handles", Code::Handles),
        ("log-flood", Code::Log),
        ("connect", Code::Network),
        ("bad-name", Code::Describe),
        ("bad-version", Code::Describe),
        ("bad-glob", Code::Describe),
        ("bad-request", Code::Describe),
        ("bad-schema", Code::Describe),
        ("huge-schema", Code::Describe),
        ("many-reads", Code::Describe),
    ] {
        let needs_time = matches!(code, Code::Time);
        let host = if needs_time { impatient() } else { host() };
        let error = host.load(describing(what)).await.unwrap_err();
        assert_eq!(error.code, code, "{what}: {error}");
    }
    // Checking a file is under the same limits as loading it.
    for (what, code) in [("loop", Code::Time), ("memory", Code::Memory)] {
        let report = impatient().check(describing(what)).await;
        assert_eq!(
            (report.ok, report.error.unwrap().code),
            (false, code),
            "{what}"
        );
    }
    serves_the_next_job().await;
}

#[tokio::test]
async fn many_callers_share_one_load_and_a_sleeper_does_not_block_others() {
    let mut options = options();
    options.max_calls_per_plugin = 1;
    let host = PluginHost::new(options).unwrap();
    let (first, second) = tokio::join!(host.load(guest_bytes()), host.load(guest_bytes()));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert!(std::sync::Arc::ptr_eq(&first, &second));

    let other = host.load(describing("other")).await.unwrap();
    let asleep = request(json!({"do": "sleep"}));
    let context = context();
    let sleeping = host.materialize(&first, &context, &asleep);
    tokio::pin!(sleeping);
    let awake = request(json!({}));
    tokio::select! {
        _ = &mut sleeping => panic!("the sleeper came back"),
        plan = host.materialize(&other, &context, &awake) => drop(plan.unwrap()),
    }
}

/// Runs in a process of its own: other tests would be seen in its memory.
#[tokio::test]
async fn memory_is_back_to_baseline_after_bombs() {
    const ALONE: &str = "AGENTICORE_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let name = "plugin::tests::hostile::memory_is_back_to_baseline_after_bombs";
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(ALONE, "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{text}"
        );
        return;
    }
    let resident = || {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm
            .split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
            * 4096
    };
    let round = async || {
        for name in ["memory", "handles", "recurse", "log-flood"] {
            drop(
                materialize(&context(), json!({"do": name}))
                    .await
                    .unwrap_err(),
            );
        }
        drop(
            materialize(&lowered(quick()), json!({"do": "loop"}))
                .await
                .unwrap_err(),
        );
    };
    round().await;
    let baseline = resident();
    for _ in 0..10 {
        round().await;
    }
    let grown = resident().saturating_sub(baseline);
    assert!(grown < 16 << 20, "{grown} bytes more than before");
}

#[tokio::test]
async fn a_cancelled_call_leaves_nothing_behind() {
    let plugin = guest().await;
    for _ in 0..20 {
        let (host, context, request) = (host(), context(), request(json!({"do": "loop"})));
        let call = host.materialize(&plugin, &context, &request);
        assert!(
            tokio::time::timeout(Duration::from_millis(20), call)
                .await
                .is_err()
        );
    }
    serves_the_next_job().await;
}
