//! Lines in, facts out.

use serde_json::{Value, json};

use super::*;
use crate::stream::Reader;
use agenticore_plugin::{Denial, Fact, Line, OutputStream, Retry, ToolCall, ToolResult, Usage};

fn line(text: impl ToString) -> Line {
    Line {
        stream: OutputStream::Stdout,
        text: text.to_string(),
        truncated: false,
    }
}

fn facts(lines: &[Value]) -> Vec<Fact> {
    Reader::default().read(&lines.iter().map(line).collect::<Vec<_>>())
}

#[test]
fn a_run_is_told_in_facts() {
    let facts = facts(&[
        json!({"type": "system", "subtype": "init", "session_id": ID, "model": "claude-sonnet-5", "mcp_servers": [
            {"name": "good", "status": "connected"}, {"name": "bad", "status": "failed"}]}),
        json!({"type": "assistant", "parent_tool_use_id": null, "message": {"model": "claude-sonnet-5", "usage": {"output_tokens": 1},
            "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "I look."}]}}),
        json!({"type": "assistant", "message": {"model": "claude-sonnet-5", "content": [
            {"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "ls\n-l", "description": "d"}}]}}),
        json!({"type": "user", "message": {"content": [{"type": "tool_result", "tool_use_id": "t1", "content": "a\nb"}]}}),
        json!({"type": "user", "message": {"content": [{"type": "tool_result", "tool_use_id": "t2", "is_error": true,
            "content": [{"type": "text", "text": "no"}, {"type": "image"}]}]}}),
    ]);
    assert_eq!(
        facts,
        [
            Fact::Session(ID.to_owned()),
            Fact::Model("claude-sonnet-5".to_owned()),
            Fact::Text("the MCP server `bad` could not be reached".to_owned()),
            Fact::Text("I look.".to_owned()),
            Fact::ToolCall(ToolCall {
                id: "t1".to_owned(),
                name: "Bash".to_owned(),
                summary: "ls -l".to_owned()
            }),
            Fact::ToolResult(ToolResult {
                id: "t1".to_owned(),
                is_error: false,
                summary: "a b".to_owned()
            }),
            Fact::ToolResult(ToolResult {
                id: "t2".to_owned(),
                is_error: true,
                summary: "no [image]".to_owned()
            }),
        ]
    );
}

#[test]
fn totals_come_from_the_result_line_alone() {
    let result = json!({"type": "result", "subtype": "success", "num_turns": 3, "total_cost_usd": 0.25, "usage": {"input_tokens": 1},
        "modelUsage": {
            "a": {"inputTokens": 10, "outputTokens": 20, "cacheReadInputTokens": 30, "cacheCreationInputTokens": 40},
            "b": {"inputTokens": 1, "outputTokens": 2}},
        "permission_denials": [{"tool_name": "Bash", "tool_use_id": "t", "tool_input": {"command": "rm -rf /"}}]});
    let usage = Usage {
        input_tokens: 11,
        output_tokens: 22,
        cache_read_tokens: 30,
        cache_write_tokens: 40,
    };
    let expected = [
        Fact::Usage(usage),
        Fact::CostUsd(0.25),
        Fact::Turns(3),
        Fact::Denial(Denial {
            tool: "Bash".to_owned(),
            summary: "rm -rf /".to_owned(),
        }),
    ];
    assert_eq!(facts(std::slice::from_ref(&result)), expected);
    // It need not be the last line.
    let mut reader = Reader::default();
    reader.read(&[
        line(&result),
        line(json!({"type": "system", "subtype": "task_notification"})),
    ]);
    assert_eq!(reader.result().unwrap().body.num_turns, 3);
    let plain = facts(&[
        json!({"type": "result", "usage": {"input_tokens": 5, "output_tokens": 6, "cache_read_input_tokens": 7}}),
    ]);
    let usage = Usage {
        input_tokens: 5,
        output_tokens: 6,
        cache_read_tokens: 7,
        cache_write_tokens: 0,
    };
    assert_eq!(plain[0], Fact::Usage(usage));
}

#[test]
fn retries_and_fallbacks_are_facts() {
    let facts = facts(&[
        json!({"type": "system", "subtype": "api_retry", "attempt": 2, "max_retries": 10, "retry_delay_ms": 1034.7,
            "error_status": 529, "error": "overloaded"}),
        json!({"type": "system", "subtype": "api_retry", "attempt": 1, "max_retries": 2, "retry_delay_ms": 500, "error_status": null}),
        json!({"type": "system", "subtype": "model_fallback", "to": "haiku"}),
    ]);
    let retry = Retry {
        attempt: 2,
        max_attempts: 10,
        delay_ms: 1034,
        reason: "529 overloaded".to_owned(),
    };
    assert_eq!(facts[0], Fact::Retry(retry));
    assert_eq!(
        facts[1],
        Fact::Retry(Retry {
            attempt: 1,
            max_attempts: 2,
            delay_ms: 500,
            reason: String::new()
        })
    );
    assert!(
        matches!(&facts[2], Fact::Other(other) if other.name == "model-fallback" && other.json.contains("haiku"))
    );
}

#[test]
fn what_is_unknown_is_passed_over_and_what_is_no_json_is_text() {
    let quiet = [
        json!({"type": "stream_event"}),
        json!({"type": "from_the_future", "message": 3}),
        json!({"no": "type"}),
        json!({"type": 3}),
        json!({"type": "system", "subtype": "hook_started"}),
        json!({"type": "assistant", "message": "no object"}),
        json!({"type": "assistant", "message": {"content": "no list"}}),
        json!({"type": "user", "message": {"content": [{"type": "text", "text": "prompt"}, 3]}}),
    ];
    assert_eq!(facts(&quiet), []);
    let mut reader = Reader::default();
    let stderr = Line {
        stream: OutputStream::Stderr,
        text: r#"{"type":"result"}"#.to_owned(),
        truncated: false,
    };
    let texts = reader.read(&[
        line("plain"),
        line("  "),
        line("[1]"),
        line("{broken"),
        stderr,
    ]);
    let text = |text: &str| Fact::Text(text.to_owned());
    assert_eq!(
        texts,
        [
            text("plain"),
            text("[1]"),
            text("{broken"),
            text(r#"{"type":"result"}"#)
        ]
    );
    assert!(
        reader.result().is_none(),
        "standard error says nothing about the result"
    );
}

#[test]
fn the_session_and_the_model_are_told_once_and_again_when_they_change() {
    let init = json!({"type": "system", "subtype": "init", "session_id": "a", "model": "m"});
    let says = |model: &str, parent: Value| json!({"type": "assistant", "parent_tool_use_id": parent, "message": {"model": model, "content": []}});
    let facts = facts(&[
        init.clone(),
        init,
        says("m", Value::Null),
        says("<synthetic>", Value::Null),
        says("sub", json!("t1")),
        says("n", Value::Null),
    ]);
    let expected = [
        Fact::Session("a".to_owned()),
        Fact::Model("m".to_owned()),
        Fact::Model("n".to_owned()),
    ];
    assert_eq!(facts, expected);
}

#[test]
fn summaries_are_one_short_line() {
    let call = |name: &str, input: Value| {
        let block = json!({"type": "tool_use", "id": "t", "name": name, "input": input});
        match facts(&[json!({"type": "assistant", "message": {"content": [block]}})]).remove(0) {
            Fact::ToolCall(call) => call.summary,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        call("Write", json!({"file_path": "/a", "content": "long"})),
        "/a"
    );
    assert_eq!(call("Grep", json!({"pattern": "x", "path": "/a"})), "x");
    assert_eq!(call("mcp__n__t", json!({"query": 1})), r#"{"query":1}"#);
    assert_eq!(call("New", json!({"odd": [1]})), r#"{"odd":[1]}"#);
    let long = call("Bash", json!({"command": "ä\u{1b}[31m ".repeat(500_000)}));
    assert!(
        long.chars().count() == 201 && long.ends_with('…') && !long.contains(char::is_control),
        "{long}"
    );
}

#[test]
fn a_result_that_was_cut_in_the_middle_still_counts() {
    let head = r#"{"type":"result","subtype":"success","is_error":false,"num_turns":4,"result":"he said \"is_error\":true "#;
    let tail = r#" end","total_cost_usd":0.5,"terminal_reason":"completed","uuid":"x"}"#;
    let mut reader = Reader::default();
    let cut = Line {
        stream: OutputStream::Stdout,
        text: format!("{head}...[cut]...{tail}"),
        truncated: true,
    };
    let facts = reader.read(&[cut]);
    assert!(
        facts.contains(&Fact::CostUsd(0.5)) && facts.contains(&Fact::Turns(4)),
        "{facts:?}"
    );
    let body = &reader.result().unwrap().body;
    assert_eq!(
        (body.is_error, body.terminal_reason.as_deref()),
        (false, Some("completed"))
    );
    let other = Line {
        stream: OutputStream::Stdout,
        text: format!("{{\"type\":\"user\"{}", "x".repeat(100)),
        truncated: true,
    };
    assert!(matches!(&reader.read(&[other])[..], [Fact::Text(text)] if text.contains("too long")));
}

#[test]
fn a_field_of_another_type_does_not_cost_the_others() {
    let mut reader = Reader::default();
    reader.read(&[line(
        json!({"type": "result", "is_error": false, "num_turns": 2, "api_error_status": "odd",
        "permission_denials": null, "terminal_reason": "completed", "subtype": "success"}),
    )]);
    let body = &reader.result().unwrap().body;
    assert_eq!(
        (body.num_turns, body.terminal_reason.as_deref()),
        (2, Some("completed"))
    );
}
