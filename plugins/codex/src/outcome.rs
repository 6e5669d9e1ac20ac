//! Judges the end of a run: it succeeded if it exited with 0 and its turn was completed.

use crate::settings::Settings;
use crate::stream::{Reader, Turn};
use agenticore_plugin::one_line;
use agenticore_plugin::{Conclusion, Ending, Exit, Failure, FailureClass};

/// The longest message, in characters.
const LEN: usize = 2_000;
/// Hang-up, interrupt, kill, terminate.
const STOP_SIGNALS: [i32; 4] = [1, 2, 9, 15];

/// The end of a run of which `reader` has read everything.
pub(crate) fn conclude(settings: &Settings, reader: &Reader, exit: &Exit) -> Conclusion {
    let as_json = settings.output_format.as_deref() == Some("json");
    let said = reader.message.clone();
    Conclusion {
        ending: ending(reader.turn.as_ref(), exit),
        output: if as_json { None } else { said.clone() },
        message: said,
        facts: Vec::new(),
    }
}

fn ending(turn: Option<&Turn>, exit: &Exit) -> Ending {
    match turn {
        Some(Turn::Completed) if exit.code == Some(0) => Ending::Succeeded,
        _ if exit.stop_requested && ended_by_stop(exit) => Ending::Stopped,
        Some(Turn::Failed(why)) => of_turn(why),
        Some(Turn::Completed) => failed(
            FailureClass::Agent,
            format!("the agent {} after its turn was complete", exit.words()),
            "look at the end of the job's log",
        ),
        None => of_exit(exit),
    }
}

/// A turn that fails without a tool's fault fails at the model's service.
fn of_turn(why: &str) -> Ending {
    let why = if why.trim().is_empty() {
        "the model's service gave no reason"
    } else {
        why
    };
    let says = |words: &[&str]| words.iter().any(|word| why.contains(word));
    let remedy = if says(&["401", "403", "environment variable", "API key"]) {
        "check the key: the secret that `plugin.config.api_key` names, OPENAI_API_KEY if it names none"
    } else if says(&["429", "usage limit", "quota"]) {
        "the rate or usage limit is reached: wait, lower the number of parallel jobs, or raise the limit"
    } else if says(&["404", "model"]) {
        "check the model's name (`plugin.config.model`) and the service's address (`base_url`)"
    } else if says(&["500", "502", "503", "504", "high demand", "overloaded"]) {
        "the service is overloaded or down: run the job again later"
    } else if says(&["context window", "context length", "too large"]) {
        "make the task smaller, or use a model with a larger context"
    } else {
        "look at the job's log; check that the server reaches the service: `base_url`, proxies, DNS"
    };
    failed(FailureClass::Api, why.to_owned(), remedy)
}

fn of_exit(exit: &Exit) -> Ending {
    let said = tail(exit);
    let remedy = match &said {
        Some(text)
            if text.contains("unexpected argument")
                || text.contains("unknown configuration field") =>
        {
            "the installed version of the Codex CLI does not know what the profile asks for; install 0.169 or later, or correct `.codex/config.toml`"
        }
        Some(text) if text.contains("no rollout found") => {
            "the session is not on this host; run the job without a session id"
        }
        Some(text) if text.contains("config") => "correct `.codex/config.toml` in the profile",
        _ if exit.signal == Some(9) => {
            "if the host did not do it, the machine may be out of memory: run fewer jobs at once, or give the server more"
        }
        _ if ended_by_stop(exit) => "find out who sent the signal, then run the job again",
        _ => "look at the end of the job's log",
    };
    let what = said.unwrap_or_else(|| "it printed no reason".to_owned());
    failed(
        FailureClass::Agent,
        format!(
            "the agent {} before its turn was complete: {what}",
            exit.words()
        ),
        remedy,
    )
}

/// Whether a process ended by a signal that asks it to, or with the code that stands for one.
fn ended_by_stop(exit: &Exit) -> bool {
    let signal = exit.signal.or_else(|| exit.code.map(|code| code - 128));
    signal.is_some_and(|signal| STOP_SIGNALS.contains(&signal))
}

/// The last lines of standard error, without what it always says.
fn tail(exit: &Exit) -> Option<String> {
    const ALWAYS: [&str; 2] = ["Reading additional input from stdin", "WARNING: proceeding"];
    exit.last_lines(8, |line| {
        !ALWAYS.iter().any(|always| line.starts_with(always))
    })
}

fn failed(class: FailureClass, message: String, remedy: &str) -> Ending {
    Ending::Failed(Failure {
        class,
        message: one_line(&message, LEN),
        remedy: remedy.to_owned(),
    })
}
