//! What stands under `claude:`.

use super::*;
use agenticore_plugin::ErrorCode;

#[test]
fn the_nearest_layer_wins_even_with_a_default() {
    let chain: &[(&str, &[(&str, &str)])] = &[
        (
            r#"{"claude": {"model": "opus", "max_turns": 5, "effort": "low", "permission_mode": "plan"}}"#,
            &[],
        ),
        (
            r#"{"claude": {"model": "sonnet", "max_turns": 80, "effort": null}}"#,
            &[],
        ),
        (r#"{"description": "nothing to say"}"#, &[]),
    ];
    let plan = plan(&request(chain));
    assert_eq!(option(&plan, "--model").unwrap(), "sonnet");
    assert_eq!(option(&plan, "--max-turns").unwrap(), "80");
    assert_eq!(option(&plan, "--permission-mode").unwrap(), "plan");
    assert_eq!(
        option(&plan, "--effort").unwrap(),
        "low",
        "a key without a value is not set"
    );
}

#[test]
fn lists_of_tools_and_variables_add_up() {
    let chain: &[(&str, &[(&str, &str)])] = &[
        (
            r#"{"claude": {"allowed_tools": ["A", "B"], "disallowed_tools": ["X"], "env": {"P": "1", "Q": "1"}}}"#,
            &[],
        ),
        (
            r#"{"claude": {"allowed_tools": ["B", "C"], "disallowed_tools": ["Y"], "env": {"Q": "2"}}}"#,
            &[],
        ),
    ];
    let plan = plan(&request(chain));
    assert_eq!(options(&plan, "--allowedTools"), ["A", "B", "C"]);
    assert_eq!(options(&plan, "--disallowedTools"), ["X", "Y"]);
    assert_eq!(
        (variable(&plan, "P"), variable(&plan, "Q")),
        (literal("1"), literal("2"))
    );
}

#[test]
fn the_plugins_own_config_is_the_nearest_layer() {
    let mut request = request(&[(r#"{"claude": {"model": "opus"}}"#, &[])]);
    request.config = r#"{"model": "haiku"}"#.parse().unwrap();
    assert_eq!(option(&plan(&request), "--model").unwrap(), "haiku");
    request.config = r#"{"modle": "haiku"}"#.parse().unwrap();
    assert!(error(&request).contains("plugin.config: unknown key `modle`"));
}

#[test]
fn errors_name_the_layer_the_key_and_what_it_should_be() {
    for (keys, parts) in [
        (
            r#"{"modle": "x"}"#,
            &["unknown key `claude.modle`", "model, max_turns"][..],
        ),
        (r#"{"modle": null}"#, &["unknown key `claude.modle`"]),
        (
            r#"{"model": 3}"#,
            &["`claude.model`", "a text", "the number 3"],
        ),
        (r#"{"model": " "}"#, &["`claude.model`"]),
        (r#"{"model": "a\nb"}"#, &["`claude.model`", "one line"]),
        (r#"{"max_turns": 0}"#, &["`claude.max_turns`", "above 0"]),
        (
            r#"{"max_turns": "80"}"#,
            &["`claude.max_turns`", "the text `80`"],
        ),
        (r#"{"max_turns": 99999999999}"#, &["`claude.max_turns`"]),
        (
            r#"{"permission_mode": "bypass"}"#,
            &["acceptEdits", "bypassPermissions"],
        ),
        (
            r#"{"no_session_persistence": "no"}"#,
            &["`true` or `false`"],
        ),
        (r#"{"output_format": "xml"}"#, &["json, text, stream-json"]),
        (r#"{"worktree": 1}"#, &["`claude.worktree`"]),
        (
            r#"{"effort": "extreme"}"#,
            &["low, medium, high, xhigh, max"],
        ),
        (r#"{"timeout": -1}"#, &["`claude.timeout`"]),
        (r#"{"max_budget_usd": 0}"#, &["`claude.max_budget_usd`"]),
        (r#"{"allowed_tools": "Bash"}"#, &["a list of tools"]),
        (r#"{"allowed_tools": [1]}"#, &["a list of tools"]),
        (r#"{"disallowed_tools": [""]}"#, &["a list of tools"]),
        (
            r#"{"setting_sources": ["home"]}"#,
            &["user, project, local"],
        ),
        (
            r#"{"trust_repository": "yes"}"#,
            &["`claude.trust_repository`"],
        ),
        (r#"{"env": {"1X": "a"}}"#, &["`claude.env`"]),
        (r#"{"env": {"X": ["a"]}}"#, &["`claude.env`"]),
        (
            r#"{"env": {"CLAUDE_CONFIG_DIR": "/x"}}"#,
            &["CLAUDE_CONFIG_DIR", "set by the plugin"],
        ),
        (r#"{"secrets": ["a b"]}"#, &["`claude.secrets`"]),
        ("3", &["`claude` must be a mapping"]),
    ] {
        let request = request(&[("{}", &[]), (&format!("{{\"claude\": {keys}}}"), &[])]);
        let error = plan::make(&request).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidProfile);
        for part in parts {
            assert!(
                error.message.contains(part),
                "{keys} gives: {}\nwithout: {part}",
                error.message
            );
        }
        assert!(
            error.message.contains("profile `layer1`") || keys.contains("CONFIG_DIR"),
            "{}",
            error.message
        );
    }
}

#[test]
fn legacy_variables_are_expanded_once() {
    let mut request = request(&[(
        r#"{"append_prompt": "{{TASK}}|{{ JOB_ID }}|{{PROFILE}}|{{REPO_URL}}|{{BASE_REF}}|{{BRANCH}}|{{OTHER}}|{{|{{TASK"}"#,
        &[],
    )]);
    request.job.task = "{{JOB_ID}}".to_owned();
    let system = option(&plan(&request), "--append-system-prompt").unwrap();
    let (line, prompt) = system.split_once("\n\n").unwrap();
    assert!(!line.contains('\n'));
    assert_eq!(
        prompt,
        "{{JOB_ID}}|job-1|layer0|https://example.com/r.git|main|agenticore/fix|{{OTHER}}|{{|{{TASK"
    );
}

#[test]
fn a_long_system_prompt_goes_into_a_file() {
    let mut request = request(&[(r#"{"append_prompt": "{{TASK}}"}"#, &[])]);
    request.job.task = "x".repeat(200_000);
    let plan = plan(&request);
    assert_eq!(option(&plan, "--append-system-prompt"), None);
    assert_eq!(
        option(&plan, "--append-system-prompt-file").unwrap(),
        "{config}/append-system-prompt.md"
    );
    assert!(written(&plan, "append-system-prompt.md").unwrap().len() > 200_000);
}
