//! The table of exits: each row as it was measured.

use serde_json::{Value, json};

use crate::outcome::conclude;
use crate::settings::Settings;
use crate::stream::Reader;
use agenticore_plugin::{Conclusion, Ending, Exit, FailureClass, Line, OutputStream};

fn code(code: i32) -> Exit {
    Exit {
        code: Some(code),
        signal: None,
        stop_requested: false,
        stderr_tail: String::new(),
    }
}

fn signal(signal: i32) -> Exit {
    Exit {
        code: None,
        signal: Some(signal),
        stop_requested: false,
        stderr_tail: String::new(),
    }
}

fn asked(exit: Exit) -> Exit {
    Exit {
        stop_requested: true,
        ..exit
    }
}

fn said(exit: Exit, stderr: &str) -> Exit {
    Exit {
        stderr_tail: stderr.to_owned(),
        ..exit
    }
}

fn result(reason: &str, more: Value) -> Option<Value> {
    let mut line = json!({"type": "result", "subtype": "success", "is_error": false, "terminal_reason": reason, "result": "text"});
    line.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    Some(line)
}

fn end(format: &str, line: Option<Value>, exit: &Exit) -> Conclusion {
    let mut reader = Reader::default();
    let lines = line.map(|line| Line {
        stream: OutputStream::Stdout,
        text: line.to_string(),
        truncated: false,
    });
    reader.read(&lines.into_iter().collect::<Vec<_>>());
    let settings = Settings {
        output_format: format.to_owned(),
        ..Settings::default()
    };
    conclude(&settings, reader.result(), exit)
}

fn ending(line: Option<Value>, exit: &Exit) -> Ending {
    end("json", line, exit).ending
}

/// Expects a failure of that class whose message and remedy hold these words.
fn check_failure(line: Option<Value>, exit: &Exit, class: FailureClass, words: &[&str]) {
    match ending(line.clone(), exit) {
        Ending::Failed(failure) => {
            let text = format!("{} / {}", failure.message, failure.remedy);
            assert!(
                failure.class == class && words.iter().all(|word| text.contains(word)),
                "{line:?} {exit:?}: {failure:?}"
            );
            assert!(!failure.message.is_empty() && !failure.remedy.is_empty());
        }
        other => panic!("{line:?} {exit:?}: {other:?}"),
    }
}

#[test]
fn ok() {
    assert_eq!(
        ending(result("completed", json!({})), &code(0)),
        Ending::Succeeded
    );
    // Done before it noticed that it was to stop.
    assert_eq!(
        ending(result("completed", json!({})), &asked(code(0))),
        Ending::Succeeded
    );
    // Denied tools are facts, not failures.
    let denied = json!({"permission_denials": [{"tool_name": "Bash", "tool_input": {}}]});
    assert_eq!(
        ending(result("completed", denied), &code(0)),
        Ending::Succeeded
    );
}

#[test]
fn success_takes_all_four_signs() {
    for (line, exit) in [
        (result("completed", json!({})), code(1)),
        (None, code(0)),
        (result("completed", json!({"is_error": true})), code(0)),
        (result("hook_stopped", json!({})), code(0)),
        (result("from_the_future", json!({})), code(0)),
        (result("", json!({"terminal_reason": null})), code(0)),
        (result("completed", json!({})), signal(9)),
    ] {
        assert!(
            matches!(ending(line.clone(), &exit), Ending::Failed(_)),
            "{line:?} {exit:?}"
        );
    }
}

#[test]
fn api_failures_have_a_success_line() {
    for (status, remedy) in [
        (json!(401), "check the key"),
        (json!(403), "check the key"),
        (json!(429), "limit"),
        (json!(404), "model"),
        (json!(400), "refused"),
        (json!(500), "overloaded or down"),
        (json!(529), "fallback_model"),
        (Value::Null, "ANTHROPIC_BASE_URL"),
    ] {
        let line = result(
            "api_error",
            json!({"is_error": true, "api_error_status": status, "result": "API Error: because"}),
        );
        check_failure(
            line,
            &code(1),
            FailureClass::Api,
            &["API Error: because", remedy],
        );
    }
    let login = result(
        "api_error",
        json!({"is_error": true, "result": "Not logged in · Please run /login"}),
    );
    check_failure(
        login,
        &code(1),
        FailureClass::Api,
        &["give the server a key"],
    );
    // A failing service is no reason to call a job stopped.
    let line = result(
        "api_error",
        json!({"is_error": true, "api_error_status": 500}),
    );
    check_failure(line, &asked(code(1)), FailureClass::Api, &["down"]);
}

#[test]
fn budgets() {
    let turns = json!({"subtype": "error_max_turns", "is_error": true, "num_turns": 3, "result": null,
        "errors": ["Reached maximum number of turns (2)"]});
    check_failure(
        result("max_turns", turns.clone()),
        &code(1),
        FailureClass::Budget,
        &["(2)", "max_turns"],
    );
    check_failure(
        result("max_turns", turns),
        &asked(code(1)),
        FailureClass::Budget,
        &["max_turns"],
    );
    let dollars = json!({"subtype": "error_max_budget_usd", "is_error": true, "result": null, "total_cost_usd": 1.5});
    check_failure(
        result("max_budget", dollars),
        &code(1),
        FailureClass::Budget,
        &["1.50 dollars", "max_budget_usd"],
    );
}

#[test]
fn complaints_of_the_command_line_come_from_standard_error() {
    for (text, remedy) in [
        ("error: unknown option '--x'", "2.1.100 or later"),
        (
            "Error: Session ID x is already in use.",
            "continue that session",
        ),
        (
            "No conversation found with session ID: x",
            "not on this host",
        ),
        (
            "--dangerously-skip-permissions cannot be used with root/sudo privileges",
            "IS_SANDBOX=1",
        ),
        ("something new", "end of the job's log"),
    ] {
        check_failure(
            None,
            &said(code(1), &format!("warning\n\n{text}\n")),
            FailureClass::Agent,
            &[text, remedy, "exit code 1"],
        );
        let line = json!({"subtype": "error_during_execution", "is_error": true, "result": null});
        check_failure(
            result("", line),
            &said(code(1), text),
            FailureClass::Agent,
            &[text, remedy],
        );
    }
    check_failure(
        None,
        &said(code(1), "Invalid API key · Please run /login"),
        FailureClass::Api,
        &["give the server a key"],
    );
    check_failure(None, &code(1), FailureClass::Agent, &["printed no reason"]);
    // It would fail in the same way again, so it was not stopped.
    check_failure(
        None,
        &asked(said(code(1), "unknown option")),
        FailureClass::Agent,
        &["2.1.100"],
    );
}

#[test]
fn a_task_that_was_taken_for_a_command() {
    let line = result(
        "completed",
        json!({"num_turns": 0, "result": "Unknown command: /nosuch"}),
    );
    check_failure(
        line,
        &code(0),
        FailureClass::Agent,
        &["/nosuch", "in words"],
    );
}

#[test]
fn a_stop_by_signal() {
    for exit in [
        code(143),
        signal(15),
        code(129),
        signal(9),
        code(137),
        code(0),
        signal(2),
        code(130),
    ] {
        assert_eq!(
            ending(None, &asked(exit.clone())),
            Ending::Stopped,
            "{exit:?}"
        );
        assert!(matches!(ending(None, &exit), Ending::Failed(_)), "{exit:?}");
    }
    // A crash while a stop was under way is a crash.
    check_failure(
        None,
        &asked(signal(11)),
        FailureClass::Agent,
        &["signal 11"],
    );
    // After the result, while it waited for its background tasks.
    assert_eq!(
        ending(result("completed", json!({})), &asked(code(143))),
        Ending::Stopped
    );
}

#[test]
fn signals_nobody_asked_for() {
    check_failure(
        None,
        &code(143),
        FailureClass::Agent,
        &["exit code 143", "had not asked"],
    );
    check_failure(None, &code(129), FailureClass::Agent, &["exit code 129"]);
    check_failure(None, &signal(15), FailureClass::Agent, &["signal 15"]);
    check_failure(None, &signal(9), FailureClass::Agent, &["out of memory"]);
    check_failure(None, &code(0), FailureClass::Agent, &["without a result"]);
}

#[test]
fn an_interrupt_in_the_middle_of_work() {
    for reason in ["aborted_tools", "aborted_streaming"] {
        let line = || {
            result(
                reason,
                json!({"subtype": "error_during_execution", "is_error": true}),
            )
        };
        for exit in [code(0), code(1)] {
            assert_eq!(ending(line(), &asked(exit.clone())), Ending::Stopped);
            check_failure(line(), &exit, FailureClass::Agent, &["interrupted"]);
        }
    }
}

#[test]
fn a_hook_that_stops() {
    let line = || result("hook_stopped", json!({"result": ""}));
    assert_eq!(ending(line(), &asked(code(0))), Ending::Stopped);
    check_failure(
        line(),
        &code(0),
        FailureClass::Agent,
        &["a hook stopped", "continue"],
    );
}

#[test]
fn the_output_is_what_the_profile_asks_for() {
    let line = result("completed", json!({"result": "Done."}));
    let text = line.clone().unwrap().to_string();
    assert_eq!(end("json", line.clone(), &code(0)).output, Some(text));
    assert_eq!(
        end("text", line.clone(), &code(0)).output.as_deref(),
        Some("Done.")
    );
    assert_eq!(end("stream-json", line, &code(0)).output, None);
    assert_eq!(end("json", None, &code(1)).output, None);
}
