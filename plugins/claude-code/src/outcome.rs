//! Judges the end of a run.
//!
//! The exit code alone says little: an API error leaves 1 with a `success` line, an interrupt may leave 0 with no line at all, a
//! stopping hook leaves 0 with one. A run succeeded if it exited with 0 and its result is no error and reason for its end is that it
//! was complete.

use crate::settings::Settings;
use crate::stream::{ResultBody, RunResult};
use agenticore_plugin::one_line;
use agenticore_plugin::{Conclusion, Ending, Exit, Failure, FailureClass};

/// The longest message, in characters.
const LEN: usize = 2_000;
const SIGINT: i32 = 2;
const SIGKILL: i32 = 9;
/// Hang-up, interrupt, kill, terminate.
const STOP_SIGNALS: [i32; 4] = [1, SIGINT, SIGKILL, 15];

/// The end of a run whose last `result` line is `result`.
pub(crate) fn conclude(settings: &Settings, result: Option<&RunResult>, exit: &Exit) -> Conclusion {
    let ending = match result {
        Some(result) => of_result(&result.body, exit),
        None => of_exit(exit),
    };
    Conclusion {
        ending,
        output: result.and_then(|result| output(settings, result)),
        message: result.and_then(|result| result.body.result.clone()),
        facts: Vec::new(),
    }
}

/// What the profile wants to be stored; none stands for everything the agent printed.
fn output(settings: &Settings, result: &RunResult) -> Option<String> {
    match settings.output_format.as_str() {
        "json" => Some(result.line.clone()),
        "text" => Some(result.body.result.clone().unwrap_or_default()),
        _ => None,
    }
}

fn of_result(body: &ResultBody, exit: &Exit) -> Ending {
    let reason = body.terminal_reason.as_deref().unwrap_or_default();
    if exit.code == Some(0) && !body.is_error && reason == "completed" {
        return of_complete(body);
    }
    let stopped = reason == "hook_stopped" || reason.starts_with("aborted");
    if exit.stop_requested && (stopped || ended_by_stop(exit)) {
        return Ending::Stopped;
    }
    match body.subtype.as_str() {
        "error_max_turns" => failed(
            FailureClass::Budget,
            details(body)
                .unwrap_or_else(|| format!("the agent used up its turns after {}", body.num_turns)),
            "raise `claude.max_turns` in the profile, or make the task smaller",
        ),
        "error_max_budget_usd" => failed(
            FailureClass::Budget,
            details(body).unwrap_or_else(|| {
                format!(
                    "the agent used up its budget: {:.2} dollars",
                    body.total_cost_usd
                )
            }),
            "raise `claude.max_budget_usd` in the profile, or make the task smaller",
        ),
        "success" if body.is_error => of_api(body),
        _ if body.api_error_status.is_some() => of_api(body),
        _ if reason == "hook_stopped" => failed(
            FailureClass::Agent,
            "a hook stopped the agent before it was done".to_owned(),
            "look for hooks in the profile's settings that answer `\"continue\": false`",
        ),
        _ if reason.starts_with("aborted") => failed(
            FailureClass::Agent,
            "the agent was interrupted in the middle of its work".to_owned(),
            "run the job again",
        ),
        _ => of_other(body, reason, exit),
    }
}

/// A task that looks like a command is answered by the command line itself, and counts as success there.
fn of_complete(body: &ResultBody) -> Ending {
    let text = body.result.as_deref().unwrap_or_default();
    if body.num_turns == 0 && text.starts_with("Unknown") && text.contains("command") {
        let remedy = "say in words what is to be done; a task is not a command";
        return failed(
            FailureClass::Agent,
            format!("the agent took the task for a command: {text}"),
            remedy,
        );
    }
    Ending::Succeeded
}

fn of_other(body: &ResultBody, reason: &str, exit: &Exit) -> Ending {
    let what = details(body)
        .or_else(|| tail(exit))
        .unwrap_or_else(|| match reason {
            "" => "the agent gave no reason".to_owned(),
            reason => format!("the agent ended early: {reason}"),
        });
    if body.is_error || exit.code == Some(0) {
        let remedy = remedy_for(&format!("{what} {}", exit.stderr_tail));
        return failed(FailureClass::Agent, what, remedy);
    }
    failed(
        FailureClass::Agent,
        format!("the agent {} after its result: {what}", exit.words()),
        remedy_for(&exit.stderr_tail),
    )
}

fn of_api(body: &ResultBody) -> Ending {
    let text =
        details(body).unwrap_or_else(|| "the model's service refused the request".to_owned());
    let remedy = match body.api_error_status.or_else(|| status_in(&text)) {
        Some(401 | 403) => {
            "check the key: ANTHROPIC_API_KEY, ANTHROPIC_AUTH_TOKEN or CLAUDE_CODE_OAUTH_TOKEN on the server"
        }
        Some(429) => {
            "the rate or usage limit is reached: wait, lower the number of parallel jobs, or raise the limit"
        }
        Some(404) => "check the model's name (`claude.model`) and ANTHROPIC_BASE_URL",
        Some(400..=499) => {
            "the request was refused: a task, file or prompt may be too large or not allowed"
        }
        Some(500..) => {
            "the service is overloaded or down: run the job again later, or set `claude.fallback_model`"
        }
        _ if is_login(&text) => {
            "give the server a key: ANTHROPIC_API_KEY, ANTHROPIC_AUTH_TOKEN or CLAUDE_CODE_OAUTH_TOKEN"
        }
        _ => "check that the server reaches the service: ANTHROPIC_BASE_URL, proxies, DNS",
    };
    failed(FailureClass::Api, text, remedy)
}

/// Older versions of the agent have the status in the text alone: `API Error: 529 {...}`.
fn status_in(text: &str) -> Option<u16> {
    let (_, after) = text.split_once("API Error: ")?;
    after.get(..3)?.parse().ok()
}

fn is_login(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["/login", "logged in", "api key", "authentication"]
        .iter()
        .any(|words| text.contains(words))
}

fn of_exit(exit: &Exit) -> Ending {
    if exit.stop_requested && ended_by_stop(exit) {
        return Ending::Stopped;
    }
    match (exit.code, exit.signal) {
        (Some(0), _) => failed(
            FailureClass::Agent,
            "the agent ended without a result, as it does when it is interrupted".to_owned(),
            "run the job again",
        ),
        (_, Some(SIGKILL)) => failed(
            FailureClass::Agent,
            "the agent was killed (signal 9)".to_owned(),
            "if the host did not do it, the machine may be out of memory: run fewer jobs at once, or give the server more",
        ),
        (Some(129 | 130 | 137 | 143), _) | (None, Some(_)) => failed(
            FailureClass::Agent,
            format!(
                "the agent {} without a result, and the host had not asked it to",
                exit.words()
            ),
            "find out who sent the signal, then run the job again",
        ),
        _ if tail(exit).is_some_and(|text| is_login(&text)) => failed(
            FailureClass::Api,
            tail(exit).unwrap_or_default(),
            "give the server a key: ANTHROPIC_API_KEY, ANTHROPIC_AUTH_TOKEN or CLAUDE_CODE_OAUTH_TOKEN",
        ),
        _ => {
            let what = tail(exit).unwrap_or_else(|| "it printed no reason".to_owned());
            failed(
                FailureClass::Agent,
                format!("the agent {} without a result: {what}", exit.words()),
                remedy_for(&exit.stderr_tail),
            )
        }
    }
}

/// Whether a process that was asked to stop ended because of that: by a signal, or with the code that stands for one, or with 0 and
/// no result, which is how it answers an interrupt.
fn ended_by_stop(exit: &Exit) -> bool {
    match (exit.code, exit.signal) {
        (_, Some(signal)) => STOP_SIGNALS.contains(&signal),
        (Some(0), None) => true,
        (Some(code), None) => STOP_SIGNALS.contains(&(code - 128)),
        (None, None) => false,
    }
}

/// What to do about complaints of the command line itself.
fn remedy_for(complaint: &str) -> &'static str {
    const KNOWN: [(&str, &str); 6] = [
        (
            "unknown option",
            "the installed version of Claude Code lacks an option that is needed; install 2.1.100 or later",
        ),
        (
            "root/sudo",
            "run the server as another user than root, or set IS_SANDBOX=1 for its agents in a container of its own",
        ),
        (
            "No conversation found",
            "the session is not on this host or belongs to another directory; run the job without a session id",
        ),
        (
            "already in use",
            "the session id is taken; continue that session instead of starting a new one",
        ),
        ("not a valid UUID", "a session id is a UUID"),
        (
            "Invalid MCP configuration",
            "correct the `.mcp.json` of the profile",
        ),
    ];
    let known = KNOWN.iter().find(|(words, _)| complaint.contains(words));
    known.map_or("look at the end of the job's log", |(_, remedy)| remedy)
}

/// What a result says of its failure.
fn details(body: &ResultBody) -> Option<String> {
    let errors = body.errors.iter().map(|error| {
        error
            .as_str()
            .map_or_else(|| error.to_string(), str::to_owned)
    });
    let texts: Vec<String> = errors
        .chain(body.result.clone())
        .filter(|text| !text.trim().is_empty())
        .collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

/// The last lines of standard error.
fn tail(exit: &Exit) -> Option<String> {
    exit.last_lines(5, |_| true)
}

fn failed(class: FailureClass, message: String, remedy: &str) -> Ending {
    Ending::Failed(Failure {
        class,
        message: one_line(&message, LEN),
        remedy: remedy.to_owned(),
    })
}
