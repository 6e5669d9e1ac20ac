#![expect(clippy::unwrap_used, reason = "tests")]

use crate::bindings::types::{Content, Ending, ErrorCode, Exit, Job, SessionStart};
use crate::bindings::{MaterializeRequest, Spent};
use crate::plan;

fn request(task: &str, config: &str) -> MaterializeRequest {
    let job = Job {
        id: "id".into(),
        attempt: 1,
        task: task.into(),
        repo_url: None,
        base_ref: None,
        branch: None,
        profile: "shell".into(),
    };
    MaterializeRequest {
        job,
        layers: Vec::new(),
        config: config.into(),
        operator: "{}".into(),
        session: SessionStart::Fresh("s".into()),
        spent: Spent { cost_usd: 0.0, turns: 0, seconds: 0 },
    }
}

fn exit(code: Option<i32>, signal: Option<i32>, stop_requested: bool) -> Exit {
    Exit { code, signal, stop_requested, stderr_tail: "warn\nsh: nope: not found\n\n".into() }
}

#[test]
fn the_task_is_a_file_and_never_an_argument() {
    let task = "--version; echo $0 'x'\n# ü";
    let plan = plan::make(&request(task, r#"{"timeout": 5, "env": {"A": "b"}}"#)).unwrap();
    assert_eq!(plan.files.first().unwrap().content, Content::Bytes(format!("{task}\n").into_bytes()));
    assert!(!format!("{:?}", plan.arguments).contains("version"));
    assert_eq!((plan.program.as_str(), plan.time_limit, plan.env.len()), ("sh", Some(5), 1));
}

#[test]
fn wrong_configuration_names_the_key() {
    let error = plan::make(&request("x", r#"{"tiemout": 5}"#)).unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidConfig);
    assert!(error.message.contains("tiemout"));
}

#[test]
fn the_exit_code_is_the_verdict() {
    assert_eq!(plan::conclude(&exit(Some(0), None, false), 1).ending, Ending::Succeeded);
    assert_eq!(plan::conclude(&exit(None, Some(15), true), 1).ending, Ending::Stopped);
    let Ending::Failed(failure) = plan::conclude(&exit(Some(3), None, false), 1).ending else { unreachable!() };
    assert!(failure.message.contains("exit code 3") && failure.message.contains("nope"));
    let Ending::Failed(failure) = plan::conclude(&exit(None, Some(9), false), 0).ending else { unreachable!() };
    assert!(failure.message.contains("signal 9") && failure.remedy.contains("printed nothing"));
}

#[test]
fn the_schema_is_json() {
    serde_json::from_str::<serde_json::Value>(plan::SCHEMA).unwrap();
}
