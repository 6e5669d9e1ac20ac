//! Versions of the contract: what was published stays as it is, and every published version is served.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;

use super::support::{context, guest, host, job, layers, request, run_result};
use crate::plugin::types::{Ending, Exit, Fact, Line, OutputStream, Passage, PassageKind};
use crate::plugin::{Code, PreJob, RunRequest};

fn repository(below: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(below)
}

/// The text without comments and blank lines: words about an item may get better, the item may not change.
fn items(file: PathBuf) -> Vec<String> {
    let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("//"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn nothing_of_version_1_0_has_changed() {
    let frozen = repository("tests/fixtures/plugin-1.0/wit");
    let mut files = 0;
    for entry in fs::read_dir(&frozen).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let (then, now) = (
            items(frozen.join(&name)),
            items(repository("wit").join(&name)),
        );
        if name == "world.wit" {
            // The version moves on, and new worlds come after the old ones.
            assert_eq!(then[0], "package agenticore:plugin@1.0.0;");
            assert_eq!(now[1..then.len()], then[1..], "a world of 1.0 changed");
        } else {
            assert_eq!(
                now, then,
                "{name}: an interface of 1.0 changed; new functions go into a new interface"
            );
        }
        files += 1;
    }
    assert_eq!(files, 6, "the fixture is whole");
}

fn old_bytes() -> Arc<[u8]> {
    let file = repository("tests/fixtures/plugin-1.0/guest.wasm");
    fs::read(file).unwrap().into()
}

#[tokio::test]
async fn a_plugin_of_version_1_0_and_one_of_1_1_are_served_by_the_same_host() {
    let host = host();
    let (old, new) = (host.load(old_bytes()).await.unwrap(), guest().await);
    assert_eq!((old.api(), new.api()), ("1.0.0", "1.1.0"));
    assert!(!old.exports().redact && new.exports().redact);

    let context = context();
    let (plan, report) = host
        .materialize(&old, &context, &request(json!({})))
        .await
        .unwrap();
    assert_eq!(plan.tree.files()[0].path, "task.sh");
    assert_eq!(report.log_tail, ["info: a plan of version 1.0"]);
    host.materialize(&new, &context, &request(json!({})))
        .await
        .unwrap();

    let (verdict, _) = host
        .pre_job(&old, &context, &job(), &json!({}), &plan)
        .await
        .unwrap();
    let PreJob::Patched(patched) = verdict else {
        panic!("not patched: {verdict:?}")
    };
    assert_eq!(patched.time_limit.unwrap().as_secs(), 30);
    let (review, _) = host
        .post_job(&old, &context, &job(), &json!({}), &run_result())
        .await
        .unwrap();
    assert_eq!(review.annotations[0].value, "succeeded");

    let start = RunRequest {
        job: job(),
        config: json!({}),
        layers: layers(),
        session: None,
    };
    let mut run = host.start_run(&old, &context, &start).await.unwrap();
    let line = Line {
        stream: OutputStream::Stdout,
        text: "seen".to_owned(),
        truncated: false,
    };
    assert_eq!(
        run.observe(&[line]).await.unwrap(),
        [Fact::Text("seen".to_owned())]
    );
    let exit = Exit {
        code: Some(0),
        signal: None,
        stop_requested: false,
        stderr_tail: String::new(),
    };
    let (conclusion, _) = run.conclude(&exit).await.unwrap();
    assert!(matches!(conclusion.ending, Ending::Succeeded));
}

fn passages() -> [Passage; 2] {
    let passage = |kind, text: &str| Passage {
        kind,
        text: text.to_owned(),
    };
    [
        passage(PassageKind::Output, "the key is hunter2, hunter2"),
        passage(PassageKind::PullRequestTitle, "nothing here"),
    ]
}

#[tokio::test]
async fn passages_are_cleaned_and_wrong_answers_refused() {
    let (plugin, context, host) = (guest().await, context(), host());
    let redact = async |config| {
        host.redact(&plugin, &context, &job(), &config, &passages())
            .await
    };
    let (answers, _) = redact(json!({"secret": "hunter2"})).await.unwrap();
    assert_eq!(
        answers,
        [Some("the key is (gone), (gone)".to_owned()), None]
    );
    let error = redact(json!({"redact": "short"})).await.unwrap_err();
    assert_eq!(error.code, Code::Answer, "{error}");
    let error = redact(json!({"do": "panic"})).await.unwrap_err();
    assert_eq!(error.code, Code::Trap, "{error}");

    let old = host.load(old_bytes()).await.unwrap();
    let error = host
        .redact(&old, &context, &job(), &json!({}), &passages())
        .await
        .unwrap_err();
    assert_eq!(error.code, Code::Export, "{error}");
}
