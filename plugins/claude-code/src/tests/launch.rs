//! The command line, the environment, the session and the way to stop.

use super::*;
use agenticore_plugin::{ErrorCode, StopPlan};

#[test]
fn a_default_profile_makes_the_documented_command_line() {
    let plan = plan(&request(&[("{}", &[])]));
    assert_eq!(plan.program, "claude");
    let mut arguments = arguments(&plan);
    let settings = arguments
        .iter()
        .position(|argument| argument.starts_with("--settings="))
        .unwrap();
    let hook: serde_json::Value =
        serde_json::from_str(&arguments.remove(settings)["--settings=".len()..]).unwrap();
    assert_eq!(
        arguments,
        [
            "-p",
            "--output-format=stream-json",
            "--verbose",
            "--model=sonnet",
            "--max-turns=80",
            "--permission-mode=bypassPermissions",
            "--setting-sources=user",
            "--strict-mcp-config",
            "--session-id=0198c0de-0000-7000-8000-000000000001",
            "--append-system-prompt=Agenticore job job-1, repository https://example.com/r.git, branch agenticore/fix, base main, \
             task: Fix the bug --version",
        ]
    );
    let command = hook
        .pointer("/hooks/PostToolUse/0/hooks/0/command")
        .unwrap()
        .as_str()
        .unwrap();
    assert!(
        command.contains("\"$CLAUDE_CONFIG_DIR/.stop-requested\"")
            && command.contains(r#""continue":false"#),
        "{command}"
    );
    assert_eq!(plan.stdin.unwrap(), b"Fix the\n\tbug --version");
    assert_eq!(
        (plan.time_limit, plan.keep),
        (Some(3600), vec!["projects".to_owned()])
    );
}

#[test]
fn every_setting_has_its_argument_and_no_value_stands_alone() {
    let keys = r#"{"claude": {"model": "-opus", "max_turns": 7, "permission_mode": "dontAsk", "effort": "xhigh", "timeout": 60,
        "max_budget_usd": 2.5, "fallback_model": "--haiku", "allowed_tools": ["Read", "Bash(git log, x)"],
        "disallowed_tools": ["-x"], "no_session_persistence": true, "worktree": true, "append_prompt": "--evil"}}"#;
    let plan = plan(&request(&[(keys, &[])]));
    for (name, value) in [
        ("--model", "-opus"),
        ("--max-turns", "7"),
        ("--permission-mode", "dontAsk"),
        ("--effort", "xhigh"),
        ("--max-budget-usd", "2.5"),
        ("--fallback-model", "--haiku"),
        ("--disallowedTools", "-x"),
    ] {
        assert_eq!(option(&plan, name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(
        options(&plan, "--allowedTools"),
        ["Read", "Bash(git log, x)"]
    );
    assert!(arguments(&plan).contains(&"--no-session-persistence".to_owned()));
    let alone: Vec<_> = arguments(&plan)
        .into_iter()
        .filter(|argument| !argument.contains('='))
        .collect();
    assert_eq!(
        alone,
        [
            "-p",
            "--verbose",
            "--strict-mcp-config",
            "--no-session-persistence"
        ]
    );
    assert_eq!(plan.time_limit, Some(60));
}

#[test]
fn an_attempt_gets_what_is_left_of_the_budgets() {
    let mut request = request(&[(
        r#"{"claude": {"max_turns": 10, "max_budget_usd": 1.5, "timeout": 100}}"#,
        &[],
    )]);
    request.spent = agenticore_plugin::Spent {
        cost_usd: 0.5,
        turns: 4,
        seconds: 30,
    };
    let left = plan(&request);
    assert_eq!(option(&left, "--max-turns").unwrap(), "6");
    assert_eq!(option(&left, "--max-budget-usd").unwrap(), "1");
    assert_eq!(left.time_limit, Some(100));
    // Used up: the agent itself must come to that end, with the error that says so.
    request.spent = agenticore_plugin::Spent {
        cost_usd: 9.0,
        turns: 40,
        seconds: 300,
    };
    let none = plan(&request);
    assert_eq!(
        (
            option(&none, "--max-turns").unwrap(),
            option(&none, "--max-budget-usd").unwrap()
        ),
        ("1".into(), "0.01".into())
    );
    assert_eq!(
        (none.budget.turns, none.budget.cost_usd),
        (Some(10), Some(1.5))
    );
}

#[test]
fn sessions_start_go_on_and_recover() {
    let mut request = request(&[("{}", &[])]);
    let fresh = plan(&request);
    let transcript = fresh.session.transcript.unwrap();
    assert_eq!(transcript.pattern, format!("projects/*/{ID}.jsonl"));
    assert_eq!(transcript.marker, r#""type":"user""#);
    assert_eq!(fresh.session.id.as_deref(), Some(ID));

    request.session = SessionStart::Continue(session(ID));
    let go_on = plan(&request);
    assert_eq!(
        (
            option(&go_on, "--resume").as_deref(),
            option(&go_on, "--session-id")
        ),
        (Some(ID), None)
    );
    let path = format!("projects/-other-job/{ID}.jsonl");
    request.session = SessionStart::Continue(Session {
        transcript: Some(path.clone()),
        ..session(ID)
    });
    let by_file = plan(&request).arguments.into_iter().any(|argument| {
        matches!(argument, Argument::Path(at) if at.prefix == "--resume=" && at.path == path)
    });
    assert!(by_file, "another job's session is found by its file");
    assert_eq!(go_on.stdin.unwrap(), b"Fix the\n\tbug --version");

    request.session = SessionStart::Recover(session(ID));
    let recover = plan(&request);
    assert_eq!(option(&recover, "--resume").as_deref(), Some(ID));
    let prompt = String::from_utf8(recover.stdin.unwrap()).unwrap();
    for words in [
        "host restarted",
        "may have run in part",
        "git status",
        "Fix the bug --version",
    ] {
        assert!(prompt.contains(words), "{prompt}");
    }
    request.job.repo_url = None;
    let prompt = String::from_utf8(plan(&request).stdin.unwrap()).unwrap();
    assert!(!prompt.contains("git status"), "{prompt}");
}

#[test]
fn a_session_is_a_uuid_and_nothing_else() {
    for id in [
        "",
        "--version",
        "../x.jsonl",
        "/tmp/x.jsonl",
        "0198c0de",
        &format!("{ID} "),
        &ID.replace('0', "g"),
    ] {
        let mut request = request(&[("{}", &[])]);
        request.session = SessionStart::Continue(session(id));
        let error = plan::make(&request).unwrap_err();
        assert_eq!(error.code, ErrorCode::Unsupported, "{id:?}");
        assert!(error.message.contains("UUID"), "{}", error.message);
    }
}

#[test]
fn a_prompt_is_never_a_command() {
    for (task, prompt) in [
        ("/help", " /help"),
        ("/", " /"),
        ("say /help", "say /help"),
        ("-p --version", "-p --version"),
    ] {
        let mut request = request(&[("{}", &[])]);
        request.job.task = task.to_owned();
        assert_eq!(
            String::from_utf8(plan(&request).stdin.unwrap()).unwrap(),
            prompt
        );
    }
}

#[test]
fn a_long_task_reaches_the_prompt_whole_and_the_system_prompt_in_one_short_line() {
    let mut request = request(&[("{}", &[])]);
    request.job.task = "word\u{1b}\n".repeat(100_000);
    let plan = plan(&request);
    let system = option(&plan, "--append-system-prompt").unwrap();
    assert!(
        system.chars().count() < 500 && !system.contains(char::is_control),
        "{system}"
    );
    assert_eq!(plan.stdin.unwrap().len(), 600_000);
}

#[test]
fn the_gentle_stop_is_left_out_where_it_is_of_no_use() {
    let with = plan(&request(&[("{}", &[])]));
    let StopPlan::CreateFile(file) = &with.stop else {
        panic!("{:?}", with.stop)
    };
    assert_eq!(
        (file.place, file.path.as_str()),
        (Place::ConfigDir, ".stop-requested")
    );
    assert!(
        !with
            .keep
            .iter()
            .any(|path| file.path.starts_with(path.as_str())),
        "it must not outlive the attempt"
    );

    let unrecorded = request(&[(r#"{"claude": {"no_session_persistence": true}}"#, &[])]);
    let mut unwanted = request(&[("{}", &[])]);
    unwanted.operator = json!({"gentle_stop": false});
    for request in [unrecorded, unwanted] {
        let plan = plan(&request);
        assert_eq!(plan.stop, StopPlan::Terminate);
        assert_eq!(option(&plan, "--settings"), None);
    }
}

#[test]
fn an_unrecorded_session_cannot_be_resumed() {
    let plan = plan(&request(&[(
        r#"{"claude": {"no_session_persistence": true}}"#,
        &[],
    )]));
    assert_eq!((plan.session.transcript, plan.keep), (None, Vec::new()));
}

#[test]
fn a_repository_is_only_trusted_where_the_profile_says_so() {
    let trusting = plan(&request(&[(
        r#"{"claude": {"trust_repository": true}}"#,
        &[],
    )]));
    assert_eq!(
        option(&trusting, "--setting-sources").unwrap(),
        "user,project,local"
    );
    assert!(!arguments(&trusting).contains(&"--strict-mcp-config".to_owned()));
    let chosen = plan(&request(&[(
        r#"{"claude": {"setting_sources": ["user", "project"]}}"#,
        &[],
    )]));
    assert_eq!(
        option(&chosen, "--setting-sources").unwrap(),
        "user,project"
    );
    assert!(arguments(&chosen).contains(&"--strict-mcp-config".to_owned()));
}

#[test]
fn the_same_request_gives_the_same_plan() {
    let request = request(&[(
        r#"{"claude": {"env": {"Z": 1, "A": 2}}}"#,
        &[(".claude/b", "x"), (".claude/a", "x")],
    )]);
    assert_eq!(plan(&request), plan(&request));
}
