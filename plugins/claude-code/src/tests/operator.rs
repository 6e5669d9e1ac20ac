//! The environment, and what the operator decides.

use super::*;
use agenticore_plugin::StopPlan;

#[test]
fn the_environment_has_places_secrets_by_name_and_what_the_operator_set() {
    let mut request = request(&[(
        r#"{"claude": {"env": {"A": "profile", "B": "profile"}, "secrets": ["SLACK_TOKEN"]}}"#,
        &[],
    )]);
    request.operator = r#"{"env": {"B": "operator", "no name": "x", "CLAUDE_CONFIG_DIR": "/x"}}"#
        .parse()
        .unwrap();
    let plan = plan(&request);
    let Some(EnvValue::Path(config)) = variable(&plan, "CLAUDE_CONFIG_DIR") else {
        panic!("{:?}", plan.env)
    };
    assert_eq!((config.place, config.path.as_str()), (Place::ConfigDir, ""));
    assert_eq!(
        variable(&plan, "ANTHROPIC_API_KEY"),
        Some(EnvValue::OptionalSecret("ANTHROPIC_API_KEY".to_owned()))
    );
    assert_eq!(
        variable(&plan, "SLACK_TOKEN"),
        Some(EnvValue::Secret("SLACK_TOKEN".to_owned()))
    );
    assert_eq!(
        variable(&plan, "ANTHROPIC_BASE_URL"),
        Some(EnvValue::Inherit("ANTHROPIC_BASE_URL".to_owned()))
    );
    assert_eq!(variable(&plan, "DISABLE_AUTOUPDATER"), literal("1"));
    assert_eq!(
        (variable(&plan, "A"), variable(&plan, "B")),
        (literal("profile"), literal("operator"))
    );
    let names: Vec<_> = plan.env.iter().map(|variable| &variable.name).collect();
    assert!(
        names.is_sorted_by(|a, b| a < b),
        "each name once: {names:?}"
    );
    assert!(!names.iter().any(|name| name.contains(' ')));
}

#[test]
fn telemetry_is_handed_on() {
    let mut request = request(&[("{}", &[])]);
    assert_eq!(
        variable(&plan(&request), "CLAUDE_CODE_ENABLE_TELEMETRY"),
        None
    );
    request.operator = r#"{"otel": {"enabled": true, "endpoint": "http://c:4317", "protocol": "grpc", "log_prompts": true}}"#.parse().unwrap();
    let plan = plan(&request);
    for (name, value) in [
        ("CLAUDE_CODE_ENABLE_TELEMETRY", "1"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_LOG_USER_PROMPTS", "1"),
        ("OTEL_LOG_TOOL_DETAILS", "0"),
    ] {
        assert_eq!(variable(&plan, name), literal(value), "{name}");
    }
}

#[test]
fn the_operator_chooses_the_binary_the_time_and_the_config_directory() {
    let mut request = request(&[(
        "{}",
        &[
            (".claude/settings.json", "{}"),
            (".mcp.json", r#"{"mcpServers": {}}"#),
        ],
    )]);
    request.operator =
        r#"{"binary": "/opt/claude", "timeout": 90, "config_dir": "/home/me/.claude"}"#
            .parse()
            .unwrap();
    let plan = plan(&request);
    assert_eq!(
        (plan.program.as_str(), plan.time_limit),
        ("/opt/claude", Some(90))
    );
    assert_eq!(
        variable(&plan, "CLAUDE_CONFIG_DIR"),
        literal("/home/me/.claude")
    );
    assert_eq!(
        option(&plan, "--settings").unwrap(),
        "{config}/settings.json"
    );
    assert_eq!(option(&plan, "--mcp-config").unwrap(), "{config}/.mcp.json");
    assert_eq!(
        (plan.session.transcript, plan.stop),
        (None, StopPlan::Terminate)
    );
    assert!(notes(&request).contains("/home/me/.claude"));
    request.operator = "3".parse().unwrap();
    assert!(error(&request).contains("operator's settings"));
}

#[test]
fn a_setting_of_the_operator_that_nothing_reads_is_told() {
    let mut request = request(&[("{}", &[])]);
    request.operator = r#"{"binry": "/opt/claude", "uid": 10001, "otel": {}}"#
        .parse()
        .unwrap();
    let notes = notes(&request);
    assert!(
        notes.contains("`agents.claude-code.binry`") && !notes.contains("uid"),
        "{notes}"
    );
}

#[test]
fn root_keeps_its_permission_checks_and_may_use_every_tool() {
    let files: &[(&str, &str)] = &[
        (
            ".claude/settings.json",
            r#"{"permissions": {"defaultMode": "bypassPermissions", "deny": ["Bash(rm *)"]}}"#,
        ),
        (".mcp.json", r#"{"mcpServers": {"docs": {"command": "x"}}}"#),
    ];
    let mut request = request(&[("{}", files)]);
    request.operator = r#"{"uid": 0}"#.parse().unwrap();
    let root = plan(&request);
    assert_eq!(option(&root, "--permission-mode").unwrap(), "acceptEdits");
    let allowed = options(&root, "--allowedTools");
    assert!(
        ["Bash", "Edit", "mcp__docs"]
            .iter()
            .all(|tool| allowed.contains(&(*tool).to_owned())),
        "{allowed:?}"
    );
    assert_eq!(options(&root, "--disallowedTools"), ["Bash(rm *)"]);
    assert_eq!(
        written_json(&root, "settings.json")
            .pointer("/permissions/defaultMode")
            .unwrap(),
        "acceptEdits"
    );
    assert!(notes(&request).contains("IS_SANDBOX=1"));

    request.operator = r#"{"uid": 10001}"#.parse().unwrap();
    let user = plan(&request);
    assert_eq!(
        option(&user, "--permission-mode").unwrap(),
        "bypassPermissions"
    );
    assert!(options(&user, "--allowedTools").is_empty() && notes(&request).is_empty());
    assert_eq!(
        written_json(&user, "settings.json")
            .pointer("/permissions/defaultMode")
            .unwrap(),
        "bypassPermissions"
    );
}
