//! A request in, a plan out; an exit in, an ending out; and the plan carried out with a real shell.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

use std::process::Command;

use agenticore_plugin::{Argument, Content, Job, OutputStream, Run as _, Session, Spent};

use super::*;

fn request(task: &str, config: &str) -> Request<Value> {
    Request {
        job: Job {
            id: "job-1".to_owned(),
            attempt: 1,
            task: task.to_owned(),
            repo_url: None,
            base_ref: None,
            branch: None,
            profile: "shell".to_owned(),
        },
        layers: Vec::new(),
        config: config.parse().unwrap(),
        operator: json!({}),
        session: SessionStart::Fresh("id".to_owned()),
        spent: Spent {
            cost_usd: 0.0,
            turns: 0,
            seconds: 0,
        },
    }
}

fn exit(code: Option<i32>, signal: Option<i32>, stop_requested: bool, stderr: &str) -> Exit {
    Exit {
        code,
        signal,
        stop_requested,
        stderr_tail: stderr.to_owned(),
    }
}

fn failed(exit: &Exit) -> Failure {
    match ending(exit) {
        Ending::Failed(failure) => failure,
        other => panic!("{exit:?}: {other:?}"),
    }
}

#[test]
fn the_task_is_a_file_and_never_an_argument() {
    for task in ["echo hi", "--version", "-c 'x'", &"echo x\n".repeat(50_000)] {
        let plan = Plugin::materialize(request(task, "{}")).unwrap();
        assert_eq!(
            plan.files[0].content,
            Content::Bytes(task.as_bytes().to_vec())
        );
        let Argument::Path(at) = &plan.arguments[0] else {
            panic!("{:?}", plan.arguments)
        };
        assert_eq!(
            (
                plan.program.as_str(),
                plan.arguments.len(),
                at.path.as_str()
            ),
            ("sh", 1, "task.sh")
        );
        assert_eq!((plan.stdin, plan.time_limit), (None, None));
    }
}

#[test]
fn the_plan_runs_in_a_real_shell() {
    let plan = Plugin::materialize(request(
        "echo \"$GREETING\" >&2\ncat\nexit 3",
        r#"{"env": {"GREETING": "hello"}}"#,
    ))
    .unwrap();
    let Content::Bytes(script) = &plan.files[0].content else {
        panic!("{:?}", plan.files)
    };
    let path = std::env::temp_dir().join(format!("plugin-shell-{}.sh", std::process::id()));
    std::fs::write(&path, script).unwrap();
    let mut command = Command::new(&plan.program);
    for variable in &plan.env {
        let EnvValue::Literal(value) = &variable.value else {
            panic!("{variable:?}")
        };
        command.env(&variable.name, value);
    }
    let output = command
        .arg(&path)
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        failed(&exit(output.status.code(), None, false, &stderr)).message,
        "exit code 3: hello"
    );
}

#[test]
fn the_configuration_is_checked() {
    let plan = Plugin::materialize(request("x", r#"{"timeout": 5, "env": {"A": "b"}}"#)).unwrap();
    assert_eq!(plan.time_limit, Some(5));
    assert_eq!(
        plan.env,
        [EnvVar {
            name: "A".to_owned(),
            value: EnvValue::Literal("b".to_owned())
        }]
    );
    for (config, part) in [
        (r#"{"timeout": 0}"#, "above 0"),
        (r#"{"timeout": "1h"}"#, "plugin.config"),
        (r#"{"time": 1}"#, "`time`"),
        (r#"{"env": {"A B": "x"}}"#, "`A B`"),
        (r#"{"env": {"A": 1}}"#, "plugin.config"),
    ] {
        let error = Plugin::materialize(request("x", config)).unwrap_err();
        assert!(
            error.code == ErrorCode::InvalidConfig && error.message.contains(part),
            "{config}: {error:?}"
        );
    }
    let schema = Plugin::config_schema();
    let keys: Vec<_> = schema
        .pointer("/properties")
        .unwrap()
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    assert_eq!(keys, ["timeout", "env"]);
}

#[test]
fn there_is_no_session() {
    let mut request = request("x", "{}");
    request.session = SessionStart::Continue(session());
    assert_eq!(
        Plugin::materialize(request.clone()).unwrap_err().code,
        ErrorCode::Unsupported
    );
    request.session = SessionStart::Recover(session());
    let plan = Plugin::materialize(request).unwrap();
    assert_eq!(
        (plan.session.id, plan.session.transcript, plan.keep),
        (None, None, Vec::new())
    );
}

#[test]
fn every_line_is_text() {
    let line = |stream, text: &str| Line {
        stream,
        text: text.to_owned(),
        truncated: false,
    };
    let facts = Run.observe(vec![
        line(OutputStream::Stdout, "a"),
        line(OutputStream::Stderr, "b"),
    ]);
    assert_eq!(
        facts,
        [Fact::Text("a".to_owned()), Fact::Text("b".to_owned())]
    );
}

#[test]
fn the_exit_decides() {
    assert_eq!(
        ending(&exit(Some(0), None, false, "warning")),
        Ending::Succeeded
    );
    assert_eq!(ending(&exit(Some(0), None, true, "")), Ending::Succeeded);
    for exit in [
        exit(None, Some(15), true, ""),
        exit(Some(143), None, true, ""),
        exit(None, Some(9), true, ""),
    ] {
        assert_eq!(ending(&exit), Ending::Stopped, "{exit:?}");
    }
    assert_eq!(
        failed(&exit(Some(2), None, true, "")).message,
        "exit code 2"
    );
    assert_eq!(
        failed(&exit(None, Some(15), false, "")).message,
        "ended by signal 15"
    );
    assert_eq!(
        failed(&exit(None, Some(11), true, "")).message,
        "ended by signal 11"
    );
    let missing = failed(&exit(Some(127), None, false, "sh: nope: not found\n"));
    assert_eq!(missing.message, "exit code 127: sh: nope: not found");
    assert!(missing.remedy.contains("missing command"));
    let long = failed(&exit(Some(1), None, false, &"line\n".repeat(50)));
    assert_eq!(long.message.matches("line").count(), TAIL_LINES);
}

fn session() -> Session {
    Session {
        id: "id".to_owned(),
        transcript: None,
    }
}
