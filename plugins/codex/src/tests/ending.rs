//! The table of exits, as they were measured.

use super::*;
use crate::outcome::conclude;
use crate::settings::Settings;
use crate::stream::Reader;
use agenticore_plugin::{Conclusion, Ending, Exit, FailureClass};

const COMPLETED: &str = r#"{"type":"turn.completed","usage":{}}"#;

fn exit(code: i32) -> Exit {
    Exit {
        code: Some(code),
        signal: None,
        stop_requested: false,
        stderr_tail: String::new(),
    }
}

fn conclusion(config: &str, lines: &[&str], exit: &Exit) -> Conclusion {
    let mut reader = Reader::default();
    reader.read(&lines.iter().map(|line| stdout(line)).collect::<Vec<_>>());
    conclude(&Settings::read(config).unwrap(), &reader, exit)
}

fn ending(lines: &[&str], exit: &Exit) -> Ending {
    conclusion("{}", lines, exit).ending
}

fn check_failure(ending: Ending, class: FailureClass, words: &[&str]) {
    let Ending::Failed(failure) = ending else {
        panic!("{ending:?}")
    };
    let text = format!("{} / {}", failure.message, failure.remedy);
    assert!(
        failure.class == class && words.iter().all(|word| text.contains(word)),
        "{failure:?}"
    );
    assert!(!failure.message.is_empty() && !failure.remedy.is_empty());
}

#[test]
fn success_takes_a_completed_turn_and_code_0() {
    assert_eq!(ending(&[COMPLETED], &exit(0)), Ending::Succeeded);
    // Done before it noticed that it was to stop.
    assert_eq!(
        ending(
            &[COMPLETED],
            &Exit {
                stop_requested: true,
                ..exit(0)
            }
        ),
        Ending::Succeeded
    );
    check_failure(
        ending(&[], &exit(0)),
        FailureClass::Agent,
        &["before its turn was complete"],
    );
    check_failure(
        ending(&[COMPLETED], &exit(1)),
        FailureClass::Agent,
        &["exit code 1 after"],
    );
}

#[test]
fn the_service_fails_in_many_ways() {
    for (message, remedy) in [
        (
            "unexpected status 401 Unauthorized: no, url: http://h/v1/responses",
            "check the key",
        ),
        (
            "Missing environment variable: `CODEX_API_KEY`.",
            "check the key",
        ),
        (
            "exceeded retry limit, last status: 429 Too Many Requests",
            "limit is reached",
        ),
        ("The model `x` does not exist", "check the model's name"),
        (
            "We’re currently experiencing high demand, which may cause temporary errors.",
            "down",
        ),
        (
            "stream disconnected before completion: builder error",
            "proxies",
        ),
        ("", "gave no reason"),
    ] {
        let line =
            serde_json::json!({"type": "turn.failed", "error": {"message": message}}).to_string();
        check_failure(
            ending(&[&line], &exit(1)),
            FailureClass::Api,
            &[message, remedy],
        );
    }
}

#[test]
fn a_stop_that_was_asked_for_is_no_failure() {
    let stopped = |exit: Exit| {
        ending(
            &[],
            &Exit {
                stop_requested: true,
                ..exit
            },
        )
    };
    assert_eq!(stopped(exit(143)), Ending::Stopped);
    assert_eq!(
        stopped(Exit {
            code: None,
            signal: Some(9),
            ..exit(0)
        }),
        Ending::Stopped
    );
    check_failure(stopped(exit(2)), FailureClass::Agent, &["exit code 2"]);
    check_failure(
        ending(&[], &exit(143)),
        FailureClass::Agent,
        &["who sent the signal"],
    );
    check_failure(
        ending(
            &[],
            &Exit {
                code: None,
                signal: Some(9),
                ..exit(0)
            },
        ),
        FailureClass::Agent,
        &["out of memory"],
    );
}

#[test]
fn complaints_of_the_command_line_come_from_standard_error() {
    for (code, said, words) in [
        (
            2,
            "error: unexpected argument '--x' found\n\nUsage: codex exec",
            ["unexpected argument", "0.169 or later"],
        ),
        (
            1,
            "Error: thread/resume failed: no rollout found for thread id x",
            ["no rollout", "without a session id"],
        ),
        (
            1,
            "Error loading config.toml: invalid type",
            ["invalid type", "correct `.codex/config.toml`"],
        ),
    ] {
        let stderr_tail = format!(
            "Reading additional input from stdin...\nWARNING: proceeding, even though\n{said}\n"
        );
        let end = ending(
            &[],
            &Exit {
                stderr_tail,
                ..exit(code)
            },
        );
        check_failure(end.clone(), FailureClass::Agent, &words);
        let Ending::Failed(failure) = end else {
            panic!("{end:?}")
        };
        assert!(!failure.message.contains("WARNING"), "{failure:?}");
    }
}

#[test]
fn the_output_is_what_the_profile_asks_for() {
    let said =
        r#"{"type":"item.completed","item":{"id":"i","type":"agent_message","text":"Done."}}"#;
    let text = conclusion("{}", &[said, COMPLETED], &exit(0));
    assert_eq!(
        (text.output.as_deref(), text.message.as_deref()),
        (Some("Done."), Some("Done."))
    );
    let json = conclusion(r#"{"output_format": "json"}"#, &[said, COMPLETED], &exit(0));
    assert_eq!(
        (json.output, json.message.as_deref()),
        (None, Some("Done."))
    );
}
