//! Lines as version 0.169 printed them, and the facts in them.

use super::*;
use crate::stream::{Reader, Turn};
use agenticore_plugin::{Fact, Usage};

fn read(lines: &[&str]) -> (Vec<Fact>, Reader) {
    let mut reader = Reader::new(Some("m-1".to_owned()));
    let lines: Vec<Line> = lines.iter().map(|line| stdout(line)).collect();
    let facts = reader.read(&lines);
    (facts, reader)
}

#[test]
fn a_whole_run() {
    let (facts, reader) = read(&[
        r#"{"type":"thread.started","thread_id":"01a21cdb-9dd3-7af0-a580-1b1e04d9640a"}"#,
        r#"{"type":"turn.started"}"#,
        r#"{"type":"item.started","item":{"id":"item_1","type":"command_execution","command":"/bin/bash -lc 'id -u'","aggregated_output":"","exit_code":null,"status":"in_progress"}}"#,
        r#"{"type":"item.completed","item":{"id":"item_1","type":"command_execution","command":"/bin/bash -lc 'id -u'","aggregated_output":"0\n","exit_code":0,"status":"completed"}}"#,
        r#"{"type":"item.completed","item":{"id":"item_2","type":"agent_message","text":"All done"}}"#,
        r#"{"type":"turn.completed","usage":{"input_tokens":200,"cached_input_tokens":20,"cache_write_input_tokens":5,"output_tokens":40,"reasoning_output_tokens":10}}"#,
    ]);
    let kinds: Vec<String> = facts.iter().map(|fact| format!("{fact:?}")).collect();
    let starts = [
        "Session",
        "Model(\"m-1\")",
        "ToolCall",
        "ToolResult",
        "Text(\"All done\")",
        "Usage",
        "Turns(1)",
    ];
    assert_eq!(kinds.len(), starts.len(), "{kinds:?}");
    for (fact, start) in kinds.iter().zip(starts) {
        assert!(
            fact.trim_start_matches("Fact::").starts_with(start),
            "{fact} should be {start}"
        );
    }
    let tokens = Usage {
        input_tokens: 175,
        output_tokens: 40,
        cache_read_tokens: 20,
        cache_write_tokens: 5,
    };
    assert!(facts.contains(&Fact::Usage(tokens)), "{facts:?}");
    assert_eq!(
        (reader.turn, reader.message.as_deref()),
        (Some(Turn::Completed), Some("All done"))
    );
}

#[test]
fn tools_of_each_kind_have_a_name_and_a_summary() {
    for (item, name, summary, is_error) in [
        (
            r#""type":"file_change","changes":[{"path":"a.rs","kind":"add"},{"path":"b","kind":"update"}],"status":"completed""#,
            "edit",
            "add a.rs, update b",
            false,
        ),
        (
            r#""type":"mcp_tool_call","server":"s","tool":"t","arguments":{"a":1},"result":null,"error":{"message":"no"},"status":"failed""#,
            "s.t",
            "{\"a\":1}",
            true,
        ),
        (
            r#""type":"web_search","query":"rust""#,
            "web_search",
            "rust",
            false,
        ),
        (
            r#""type":"command_execution","command":"false","aggregated_output":"","exit_code":1,"status":"failed""#,
            "shell",
            "false",
            true,
        ),
    ] {
        // The start of some kinds is never told.
        let (facts, _) = read(&[&format!(
            r#"{{"type":"item.completed","item":{{"id":"i",{item}}}}}"#
        )]);
        let [Fact::ToolCall(call), Fact::ToolResult(result)] = facts.as_slice() else {
            panic!("{item}: {facts:?}")
        };
        assert_eq!(
            (call.name.as_str(), call.summary.as_str(), result.is_error),
            (name, summary, is_error),
            "{item}"
        );
        assert_eq!((call.id.as_str(), result.id.as_str()), ("i", "i"));
    }
}

#[test]
fn a_declined_command_is_a_denial() {
    let (facts, _) = read(&[
        r#"{"type":"item.started","item":{"id":"i","type":"command_execution","command":"rm x","status":"in_progress"}}"#,
        r#"{"type":"item.completed","item":{"id":"i","type":"command_execution","command":"rm x","exit_code":null,"status":"declined"}}"#,
    ]);
    let [
        Fact::ToolCall(_),
        Fact::Denial(denial),
        Fact::ToolResult(result),
    ] = facts.as_slice()
    else {
        panic!("{facts:?}")
    };
    assert_eq!((denial.summary.as_str(), result.is_error), ("rm x", true));
}

#[test]
fn retries_and_failures_are_told_apart() {
    let (facts, reader) = read(&[
        r#"{"type":"error","message":"Reconnecting... 2/5 (unexpected status 401 Unauthorized: no)"}"#,
        r#"{"type":"error","message":"Reconnecting... waiting for network (Connection failed)"}"#,
        r#"{"type":"error","message":"unexpected status 401"}"#,
        r#"{"type":"turn.failed","error":{"message":"unexpected status 401"}}"#,
    ]);
    let [Fact::Retry(first), Fact::Retry(second), Fact::Text(text)] = facts.as_slice() else {
        panic!("{facts:?}")
    };
    assert_eq!(
        (first.attempt, first.max_attempts, first.reason.as_str()),
        (2, 5, "unexpected status 401 Unauthorized: no")
    );
    assert_eq!(
        (second.attempt, second.max_attempts, second.reason.as_str()),
        (1, 0, "Connection failed")
    );
    assert_eq!(text, "unexpected status 401");
    assert_eq!(
        reader.turn,
        Some(Turn::Failed("unexpected status 401".to_owned()))
    );
}

#[test]
fn what_is_new_or_broken_stops_nothing() {
    let mut cut = stdout(r#"{"type":"item.completed","item":{"#);
    cut.truncated = true;
    let mut reader = Reader::default();
    let noise = Line {
        stream: OutputStream::Stderr,
        ..stdout(r#"{"type":"turn.completed"}"#)
    };
    let facts = reader.read(&[
        stdout(r#"{"type":"hologram.started"}"#),
        stdout(r#"{"type":"item.completed","item":{"id":"x","type":"dream"}}"#),
        stdout(r#"{"type":"item.completed"}"#),
        stdout(r#"{"type":"turn.completed","usage":"many"}"#),
        stdout("  "),
        stdout("plain"),
        cut,
        noise,
    ]);
    let texts: Vec<&Fact> = facts
        .iter()
        .filter(|fact| matches!(fact, Fact::Text(_)))
        .collect();
    assert_eq!(texts.len(), 3, "{facts:?}");
    assert_eq!(reader.turn, Some(Turn::Completed));
}
