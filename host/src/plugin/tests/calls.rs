//! Runs of agents and hooks, from the outside.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::support::{
    context, guest, host, job, layers, lowered, materialize, run_result, serves_the_next_job,
};
use crate::plugin::types::{
    Exit, Fact, Line, OutputStream, PullRequestText, PullRequestVerdict, RunResult,
};
use crate::plugin::{
    AgentRun, CallContext, Code, Grant, Grants, LimitsPatch, Origin, Places, PluginError, PreJob,
    ResolvedEnv, RunRequest, StopFile,
};

fn line(text: &str) -> Line {
    Line {
        stream: OutputStream::Stdout,
        text: text.to_owned(),
        truncated: false,
    }
}

fn exit() -> Exit {
    Exit {
        code: Some(0),
        signal: None,
        stop_requested: false,
        stderr_tail: String::new(),
    }
}

async fn start(config: Value, context: &CallContext) -> Result<AgentRun, PluginError> {
    let request = RunRequest {
        job: job(),
        config,
        layers: layers(),
        session: None,
    };
    host().start_run(&guest().await, context, &request).await
}

#[tokio::test]
async fn a_run_keeps_its_state_and_shares_it_with_no_other() {
    let context = context();
    let mut one = start(json!({}), &context).await.unwrap();
    let mut two = start(json!({}), &context).await.unwrap();
    assert_eq!(
        one.observe(&[line("a"), line("b")]).await.unwrap().last(),
        Some(&Fact::Turns(2))
    );
    assert_eq!(
        two.observe(&[line("c")]).await.unwrap().last(),
        Some(&Fact::Turns(1))
    );
    assert_eq!(
        one.observe(&[line("d")]).await.unwrap().last(),
        Some(&Fact::Turns(3))
    );
    let (conclusion, _) = one.conclude(&exit()).await.unwrap();
    assert_eq!(conclusion.output.as_deref(), Some("3 lines, 1 calls"));
}

#[tokio::test]
async fn a_run_is_over_after_its_first_error() {
    let quick = lowered(LimitsPatch {
        time: Some(Duration::from_millis(300)),
        ..LimitsPatch::default()
    });
    for (act, code) in [
        ("do:loop", Code::Time),
        ("do:panic", Code::Trap),
        ("do:memory", Code::Memory),
        ("do:connect", Code::Network),
    ] {
        let context = if code == Code::Time {
            quick.clone()
        } else {
            context()
        };
        let mut run = start(json!({}), &context).await.unwrap();
        run.observe(&[line("fine")]).await.unwrap();
        assert_eq!(
            run.observe(&[line(act)]).await.unwrap_err().code,
            code,
            "{act}"
        );
        let again = run.observe(&[line("fine")]).await.unwrap_err();
        assert_eq!(again.code, Code::Ended, "{act}");
        assert!(again.message.contains(code.as_str()), "{again}");
        assert_eq!(run.conclude(&exit()).await.unwrap_err().code, Code::Ended);
        serves_the_next_job().await;
    }
}

#[tokio::test]
async fn a_run_whose_call_was_cancelled_is_over() {
    let mut run = start(json!({}), &context()).await.unwrap();
    let lines = [line("do:loop")];
    let cancelled = tokio::time::timeout(Duration::from_millis(50), run.observe(&lines)).await;
    assert!(cancelled.is_err());
    assert_eq!(
        run.observe(&[line("fine")]).await.unwrap_err().code,
        Code::Ended
    );
}

#[tokio::test]
async fn limits_per_call_start_anew_with_each_call() {
    let context = lowered(LimitsPatch {
        log_bytes: Some(bytesize::ByteSize::b(100)),
        ..LimitsPatch::default()
    });
    let mut run = start(json!({}), &context).await.unwrap();
    for _ in 0..10 {
        run.observe(&[line("do:log-forged")]).await.unwrap();
    }
}

#[tokio::test]
async fn a_bad_start_or_conclusion_is_an_error() {
    assert_eq!(
        start(json!({"start": "panic"}), &context())
            .await
            .unwrap_err()
            .code,
        Code::Trap
    );
    let run = start(json!({"conclude": "panic"}), &context())
        .await
        .unwrap();
    assert_eq!(run.conclude(&exit()).await.unwrap_err().code, Code::Trap);
    serves_the_next_job().await;
}

async fn pre_job(config: Value, context: &CallContext) -> Result<PreJob, PluginError> {
    let (plan, _) = materialize(&super::support::context(), json!({}))
        .await
        .unwrap();
    let answer = host()
        .pre_job(&guest().await, context, &job(), &config, &plan)
        .await;
    answer.map(|(verdict, _)| verdict)
}

#[tokio::test]
async fn a_hook_proceeds_rejects_and_patches() {
    let verdict = pre_job(json!({}), &context()).await.unwrap();
    assert!(matches!(verdict, PreJob::Proceed));
    let PreJob::Reject(reason) = pre_job(json!({"verdict": "reject"}), &context())
        .await
        .unwrap()
    else {
        panic!("not rejected")
    };
    assert_eq!(reason, "no\\u{1b}[2J");
    let PreJob::Patched(plan) = pre_job(json!({"verdict": "patch"}), &context())
        .await
        .unwrap()
    else {
        panic!("not patched")
    };
    let added = plan.tree.get("hook/added.txt").unwrap();
    assert_eq!(
        (&*added.bytes, &added.origin),
        (b"a/b.txt,task.sh".as_slice(), &Origin::Hook)
    );
    assert!(plan.env.iter().any(|var| var.name == "FROM_HOOK"));
    assert_eq!(plan.time_limit, Some(Duration::from_secs(60)));
    assert_eq!(plan.tree.files().len(), 3);
}

#[tokio::test]
async fn a_hook_cannot_lengthen_overwrite_or_grant_itself_things() {
    let PreJob::Patched(plan) = pre_job(json!({"verdict": "longer"}), &context())
        .await
        .unwrap()
    else {
        panic!("not patched")
    };
    assert_eq!(plan.time_limit, Some(Duration::from_secs(600)));
    for (verdict, code) in [
        ("overwrite", Code::Path),
        ("twin", Code::Path),
        ("kept", Code::Plan),
        ("copy", Code::Plan),
    ] {
        let error = pre_job(json!({"verdict": verdict}), &context())
            .await
            .unwrap_err();
        assert_eq!(error.code, code, "{verdict}: {error}");
    }
    let nothing = CallContext {
        grants: Grants::default(),
        ..context()
    };
    let error = pre_job(json!({"verdict": "env"}), &nothing)
        .await
        .unwrap_err();
    assert_eq!(error.grant.as_deref(), Some("env:LD_PRELOAD"));
    assert!(error.remedy.contains("hooks: - "), "{}", error.remedy);
    let grant: Grant = "env:LD_PRELOAD".parse().unwrap();
    let granted = CallContext {
        grants: [grant].into_iter().collect(),
        ..context()
    };
    pre_job(json!({"verdict": "env"}), &granted).await.unwrap();
}

#[tokio::test]
async fn a_review_is_bounded_and_sanitized() {
    let run = RunResult {
        changed_files: vec!["a".to_owned()],
        ..run_result()
    };
    let (review, _) = host()
        .post_job(&guest().await, &context(), &job(), &json!({}), &run)
        .await
        .unwrap();
    assert_eq!(review.annotations.len(), 100);
    assert_eq!(review.annotations[0].key, "k\\u{202e}");
    let words = PullRequestText {
        title: Some("title\\nforged".to_owned()),
        body: Some("line\nline\\u{1b}[2J".to_owned()),
    };
    assert_eq!(review.pull_request, PullRequestVerdict::Amend(words));
}

#[tokio::test]
async fn places_become_paths_and_secrets_stay_names() {
    let config = json!({"env": {"A": "secret:TOKEN", "B": "optional:MAYBE", "C": "inherit:TERM"}, "stop-file": "stop/now"});
    let (plan, _) = materialize(&context(), config).await.unwrap();
    let places = Places {
        config_dir: PathBuf::from("/c"),
        work_dir: PathBuf::from("/w"),
        temp_dir: PathBuf::from("/t"),
    };
    let resolved = plan.resolve(&places);
    assert_eq!(resolved.arguments, ["/c/task.sh"]);
    let stop_file = resolved.stop_file.as_ref().map(StopFile::path);
    assert_eq!(stop_file, Some(PathBuf::from("/c/stop/now")));
    let expected = [
        ("CONFIG".to_owned(), ResolvedEnv::Value("x=/c".into())),
        ("A".to_owned(), ResolvedEnv::Secret("TOKEN".to_owned())),
        (
            "B".to_owned(),
            ResolvedEnv::OptionalSecret("MAYBE".to_owned()),
        ),
        ("C".to_owned(), ResolvedEnv::Inherit("TERM".to_owned())),
    ];
    assert_eq!(resolved.env, expected);
    let view = plan.view();
    assert_eq!(view.arguments, ["{config-dir}/task.sh"]);
    assert_eq!(view.env, ["CONFIG", "A", "B", "C"]);
}
