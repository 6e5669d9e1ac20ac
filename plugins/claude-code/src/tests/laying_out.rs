//! The files of the config directory.

use serde_json::json;

use super::*;
use agenticore_plugin::FileMode;

#[test]
fn what_is_below_the_folder_lands_at_the_top_the_childs_over_the_parents() {
    let plan = plan(&request(&[
        (
            "{}",
            &[
                (".claude/CLAUDE.md", "a"),
                (".claude/agents/x.md", "a"),
                ("README.md", "a"),
                (".claude/run.sh", "a"),
            ],
        ),
        (
            "{}",
            &[
                (".claude/CLAUDE.md", "b"),
                (".claude/skills/s/SKILL.md", "b"),
                ("notes/.claude/x", "b"),
            ],
        ),
    ]));
    let paths: Vec<_> = plan.files.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(
        paths,
        ["CLAUDE.md", "agents/x.md", "run.sh", "skills/s/SKILL.md"]
    );
    assert_eq!(written(&plan, "CLAUDE.md").unwrap(), "1:.claude/CLAUDE.md");
    assert_eq!(
        written(&plan, "agents/x.md").unwrap(),
        "0:.claude/agents/x.md"
    );
    let modes: Vec<_> = plan
        .files
        .iter()
        .filter(|entry| entry.mode == FileMode::Executable)
        .map(|e| &e.path)
        .collect();
    assert_eq!(modes, ["run.sh"]);
}

#[test]
fn settings_add_up_along_the_chain() {
    let hook = |command: &str| json!({"matcher": "Bash", "hooks": [{"type": "command", "command": command}]});
    let parent = json!({"permissions": {"deny": ["A"], "allow": ["B"]}, "hooks": {"Stop": [hook("p")]}, "model": "x", "env": {"K": "1"}});
    let child = json!({"permissions": {"deny": ["C", "A"]}, "hooks": {"Stop": [hook("c")]}, "model": "y", "env": {"L": "2"}});
    let plan = plan(&request(&[
        ("{}", &[(".claude/settings.json", &parent.to_string())]),
        ("{}", &[(".claude/settings.json", &child.to_string())]),
    ]));
    assert_eq!(
        written_json(&plan, "settings.json"),
        json!({
            "permissions": {"deny": ["A", "C"], "allow": ["B"]},
            "hooks": {"Stop": [hook("p"), hook("c")]},
            "model": "y",
            "env": {"K": "1", "L": "2"},
        })
    );
    assert_eq!(
        options(&plan, "--disallowedTools"),
        ["A", "C"],
        "deny rules hold even if the file is ignored"
    );
}

#[test]
fn servers_are_merged_and_their_file_is_named() {
    let plan = plan(&request(&[
        (
            "{}",
            &[(
                ".mcp.json",
                r#"{"mcpServers": {"a": {"command": "x"}, "b": {"command": "x"}}}"#,
            )],
        ),
        (
            "{}",
            &[(
                ".claude/.mcp.json",
                r#"{"mcpServers": {"b": {"command": "y"}}}"#,
            )],
        ),
    ]));
    assert_eq!(option(&plan, "--mcp-config").unwrap(), "{config}/.mcp.json");
    let servers = written_json(&plan, ".mcp.json");
    assert_eq!(
        servers,
        json!({"mcpServers": {"a": {"command": "x"}, "b": {"command": "y"}}})
    );
    let without = super::plan(&request(&[("{}", &[])]));
    assert_eq!(option(&without, "--mcp-config"), None);
}

#[test]
fn a_server_by_url_needs_a_transport_and_gets_one() {
    let request = request(&[(
        "{}",
        &[(
            ".mcp.json",
            r#"{"mcpServers": {"a": {"url": "http://x"}, "b": {"url": "u", "type": "sse"}}}"#,
        )],
    )]);
    let servers = written_json(&plan(&request), ".mcp.json");
    assert_eq!(servers.pointer("/mcpServers/a/type").unwrap(), "http");
    assert_eq!(servers.pointer("/mcpServers/b/type").unwrap(), "sse");
    assert!(notes(&request).contains("`a` has a `url`"));
}

#[test]
fn what_the_agent_would_trip_over_is_refused_with_its_place() {
    for (path, text, parts) in [
        (".claude/settings.json", "{", &["line 1"][..]),
        (".claude/settings.json", "", &["EOF"]),
        (".claude/settings.json", "// x\n{}", &["line 1"]),
        (".claude/settings.json", "[]", &["one JSON object"]),
        (
            ".claude/settings.json",
            r#"{"permissions": {"deny": ["A"]}, "permissions": {}}"#,
            &["`permissions` stands twice"],
        ),
        (
            ".claude/settings.json",
            r#"{"permissions": []}"#,
            &["`permissions`", "a list"],
        ),
        (
            ".claude/settings.json",
            r#"{"permissions": {"deny": "Bash"}}"#,
            &["`permissions.deny`", "a list of texts"],
        ),
        (
            ".claude/settings.json",
            r#"{"permissions": {"deny": [1]}}"#,
            &["`permissions.deny`"],
        ),
        (".claude/settings.json", r#"{"hooks": []}"#, &["`hooks`"]),
        (
            ".claude/settings.json",
            r#"{"hooks": {"Stop": {"command": "x"}}}"#,
            &["`hooks.Stop`"],
        ),
        (
            ".claude/settings.json",
            r#"{"hooks": {"Stop": [{"command": "x"}]}}"#,
            &["`hooks.Stop`", "a list `hooks`"],
        ),
        (".mcp.json", "{}", &["`mcpServers`"]),
        (".mcp.json", r#"{"mcpServers": []}"#, &["`mcpServers`"]),
        (
            ".mcp.json",
            r#"{"mcpServers": {"a": "x"}}"#,
            &["`mcpServers.a`"],
        ),
        (".claude/projects/x.jsonl", "", &["`projects`"]),
        (".claude/Projects", "", &["`Projects`"]),
        (".claude/.stop-requested", "", &["`.stop-requested`"]),
    ] {
        let error = error(&request(&[("{}", &[]), ("{}", &[(path, text)])]));
        for part in [&["profile `layer1`", path], parts].concat() {
            assert!(
                error.contains(part),
                "{path} with {text} gives: {error}\nwithout: {part}"
            );
        }
    }
}

#[test]
fn an_event_that_not_every_version_knows_is_pointed_out() {
    let known = r#"{"hooks": {"PreToolUse": [{"matcher": "*", "hooks": []}]}}"#;
    assert_eq!(
        notes(&request(&[("{}", &[(".claude/settings.json", known)])])),
        ""
    );
    let unknown = known.replace("PreToolUse", "PostToolBatch");
    let notes = notes(&request(&[("{}", &[(".claude/settings.json", &unknown)])]));
    assert!(
        notes.contains("`PostToolBatch`") && notes.contains("ignores the whole file"),
        "{notes}"
    );
}
