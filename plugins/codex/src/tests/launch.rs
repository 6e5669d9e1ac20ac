//! From a request to a plan.

use toml::Value;

use super::*;
use crate::settings;
use agenticore_plugin::{ErrorCode, Location, Place, StopPlan};

#[test]
fn a_profile_that_says_nothing_starts_a_careful_agent() {
    let plan = plan(&request("{}", &[&[]]));
    assert_eq!(plan.program, "codex");
    assert_eq!(
        words(&plan),
        [
            "exec",
            "--json",
            "--strict-config",
            "--skip-git-repo-check",
            "-"
        ]
    );
    assert_eq!(
        plan.stdin.as_deref(),
        Some(&b"Fix the\n\tbug --version"[..])
    );
    assert_eq!(plan.time_limit, Some(3600));
    assert_eq!(plan.stop, StopPlan::Terminate);
    assert_eq!(plan.keep, ["sessions"]);
    let home = Location {
        prefix: String::new(),
        place: Place::ConfigDir,
        path: String::new(),
    };
    assert_eq!(variable(&plan, "CODEX_HOME"), Some(EnvValue::Path(home)));
    let key = EnvValue::OptionalSecret("OPENAI_API_KEY".to_owned());
    assert_eq!(variable(&plan, "CODEX_API_KEY"), Some(key));
    let config = config(&plan);
    for (key, value) in [
        ("approval_policy", "never"),
        ("sandbox_mode", "workspace-write"),
        ("web_search", "disabled"),
    ] {
        assert_eq!(
            config.get(key).and_then(Value::as_str),
            Some(value),
            "{key}"
        );
    }
    assert_eq!(config.get("project_doc_max_bytes"), Some(&0.into()));
    assert_eq!(
        config.get("developer_instructions").and_then(Value::as_str),
        Some(
            "Agenticore job job-1, repository https://example.com/r.git, branch agenticore/fix, base main, task: Fix the bug --version"
        )
    );
}

#[test]
fn every_key_of_the_configuration_has_its_place() {
    let text = r#"{"model": "m-1", "effort": "high", "sandbox": "danger-full-access", "timeout": 7, "output_format": "json",
        "no_session_persistence": true, "trust_repository": true, "web_search": true, "append_prompt": "Be brief.",
        "base_url": "http://127.0.0.1:9/v1", "api_key": "MY_KEY", "env": {"A": "b"}, "secrets": ["S"]}"#;
    let mut request = request(text, &[&[]]);
    request.operator = r#"{"binary": "/opt/codex", "timeout": 9, "base_url": "http://x", "env": {"A": "c", "1": ""}}"#.parse().unwrap();
    let plan = plan(&request);
    let config = config(&plan);
    let text = |key: &str| config.get(key).and_then(Value::as_str).map(str::to_owned);
    assert_eq!(text("model").as_deref(), Some("m-1"));
    assert_eq!(text("model_reasoning_effort").as_deref(), Some("high"));
    assert_eq!(text("sandbox_mode").as_deref(), Some("danger-full-access"));
    assert_eq!(text("web_search").as_deref(), Some("live"));
    assert!(
        text("developer_instructions")
            .unwrap()
            .ends_with("\n\nBe brief.")
    );
    assert_eq!(config.get("project_doc_max_bytes"), None);
    let provider = config
        .get("model_providers")
        .and_then(|all| all.get("configured"))
        .unwrap();
    assert_eq!(
        provider.get("base_url").and_then(Value::as_str),
        Some("http://127.0.0.1:9/v1")
    );
    assert_eq!(
        provider.get("env_key").and_then(Value::as_str),
        Some("CODEX_API_KEY")
    );
    assert!(words(&plan).contains(&"--ephemeral") && words(&plan).contains(&"--trust"));
    assert_eq!(
        (plan.program.as_str(), plan.time_limit),
        ("/opt/codex", Some(7))
    );
    assert!(plan.keep.is_empty() && plan.session.transcript.is_none());
    assert_eq!(
        variable(&plan, "A"),
        Some(EnvValue::Literal("c".to_owned()))
    );
    assert_eq!(variable(&plan, "S"), Some(EnvValue::Secret("S".to_owned())));
    assert_eq!(
        variable(&plan, "CODEX_API_KEY"),
        Some(EnvValue::OptionalSecret("MY_KEY".to_owned()))
    );
}

#[test]
fn the_schema_and_the_reader_know_the_same_keys() {
    let schema = settings::schema();
    let keys: Vec<&String> = schema
        .pointer("/properties")
        .unwrap()
        .as_object()
        .unwrap()
        .keys()
        .collect();
    assert_eq!(keys.len(), 13);
    for key in keys {
        let json = format!(r#"{{"{key}": 3.5}}"#);
        let message = settings::Settings::read(&json).unwrap_err().message;
        assert!(!message.contains("unknown field"), "{key}: {message}");
    }
    for json in [
        r#"{"modle": "x"}"#,
        r#"{"sandbox": "none"}"#,
        r#"{"effort": "huge"}"#,
        r#"{"output_format": "xml"}"#,
        r#"{"timeout": 0}"#,
        r#"{"env": {"A=B": ""}}"#,
        r#"{"secrets": ["x y"]}"#,
        r#"{"api_key": ""}"#,
    ] {
        let error = plan::make(&request(json, &[])).unwrap_err();
        assert_eq!(
            error.code,
            ErrorCode::InvalidConfig,
            "{json}: {}",
            error.message
        );
    }
    assert!(error(&request(r#"{"env": {"CODEX_HOME": "/x"}}"#, &[])).contains("CODEX_HOME"));
}

#[test]
fn files_are_laid_over_each_other_and_settings_are_merged_table_by_table() {
    let parent: &[(&str, &str)] = &[
        (".codex/AGENTS.md", "parent"),
        (
            ".codex/config.toml",
            "sandbox_mode = \"read-only\"\nmodel = \"p\"\n[tui]\na = 1\nb = 1\n",
        ),
        (".codex/skills/x/run.sh", ""),
        (
            ".mcp.json",
            r#"{"mcpServers": {"one": {"command": "a", "args": ["b"], "env": {"K": "v"}}, "two": {"command": "old"}}}"#,
        ),
        ("README.md", "for people"),
    ];
    let child: &[(&str, &str)] = &[
        (".codex/AGENTS.md", "child"),
        (
            ".codex/config.toml",
            "model = \"c\"\ndeveloper_instructions = \"Mind the gap.\"\n[tui]\nb = 2\n",
        ),
        (
            ".mcp.json",
            r#"{"mcpServers": {"two": {"type": "http", "url": "http://h", "headers": {"X": "y"}}}}"#,
        ),
    ];
    let plan = plan(&request(r#"{"append_prompt": "Bye."}"#, &[parent, child]));
    let paths: Vec<&str> = plan.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["AGENTS.md", "config.toml", "skills/x/run.sh"]);
    let source = |path: &str| match &plan
        .files
        .iter()
        .find(|file| file.path == path)
        .unwrap()
        .content
    {
        Content::Copy(source) => source.layer,
        Content::Bytes(_) => panic!("{path} is copied"),
    };
    assert_eq!((source("AGENTS.md"), source("skills/x/run.sh")), (1, 0));
    let config = config(&plan);
    let at = |path: &str| {
        let found = path
            .split('.')
            .try_fold(Value::Table(config.clone()), |at, key| at.get(key).cloned());
        found.unwrap_or_else(|| panic!("{path} in {config}"))
    };
    assert_eq!(
        (at("model"), at("sandbox_mode")),
        ("c".into(), "read-only".into())
    );
    assert_eq!((at("tui.a"), at("tui.b")), (1.into(), 2.into()));
    assert_eq!(at("mcp_servers.one.env.K"), "v".into());
    assert_eq!(at("mcp_servers.two.url"), "http://h".into());
    assert_eq!(at("mcp_servers.two.http_headers.X"), "y".into());
    let told = at("developer_instructions");
    assert!(
        told.as_str().unwrap().ends_with("Mind the gap.\n\nBye."),
        "{told}"
    );
}

#[test]
fn wrong_files_are_named() {
    for (path, text, says) in [
        (".codex/config.toml", "a = ", "config.toml"),
        (".codex/config.toml", "a = 1\na = 2", "duplicate"),
        (".mcp.json", "{}", "mcpServers"),
        (
            ".mcp.json",
            r#"{"mcpServers": {"x": {}}}"#,
            "either `command` or `url`",
        ),
        (
            ".mcp.json",
            r#"{"mcpServers": {"x": {"type": "sse", "url": "http://h"}}}"#,
            "sse",
        ),
        (".codex/sessions/x.jsonl", "", "for the agent itself"),
    ] {
        let message = error(&request("{}", &[&[(path, text)]]));
        assert!(
            message.contains(says) && message.contains("layer0"),
            "{path}: {message}"
        );
    }
}

#[test]
fn a_session_goes_on_by_its_id() {
    let mut request = request("{}", &[&[]]);
    request.session = SessionStart::Recover(session());
    let recovered = plan(&request);
    assert_eq!(
        words(&recovered),
        [
            "exec",
            "resume",
            "--json",
            "--strict-config",
            "--skip-git-repo-check",
            ID,
            "-"
        ]
    );
    let told = String::from_utf8(recovered.stdin.clone().unwrap()).unwrap();
    assert!(
        told.contains("may have run in part") && told.contains("git status"),
        "{told}"
    );
    assert_eq!(recovered.session.id.as_deref(), Some(ID));
    let pattern = recovered.session.transcript.unwrap().pattern;
    assert_eq!(pattern, format!("sessions/*/*/*/rollout-*{ID}.jsonl"));

    request.session = SessionStart::Continue(session());
    let continued = plan(&request);
    assert_eq!(
        continued.stdin.as_deref(),
        Some(&b"Fix the\n\tbug --version"[..])
    );

    request.session = SessionStart::Fresh("whatever".to_owned());
    let fresh = plan(&request);
    assert_eq!(
        (
            fresh.session.id,
            fresh.session.transcript.unwrap().pattern.as_str()
        ),
        (None, "sessions/*/*/*/rollout-**.jsonl")
    );

    for id in ["--trust", "x", "01a21cdb-9dd3-7af0-a580-1b1e04d9640ä"] {
        request.session = SessionStart::Continue(Session {
            id: id.to_owned(),
            transcript: None,
        });
        assert_eq!(
            plan::make(&request).unwrap_err().code,
            ErrorCode::Unsupported,
            "{id}"
        );
    }
}
