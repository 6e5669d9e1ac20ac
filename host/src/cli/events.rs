//! What a watcher of a job is shown of an event: log text as data, everything else as a short line beside it.

use super::text;
use crate::job::{AgentEvent, Event, EventBody, StageState};

/// The longest line made of an event.
const MOST: usize = 300;

/// What an event looks like.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum View {
    /// Text of the log, exactly as it came.
    Log(String),
    /// A line about the job, safe for a terminal.
    Note(String),
    /// Nothing to show.
    Nothing,
}

/// How an event is shown.
pub(super) fn view(event: &Event) -> View {
    let note =
        |subject: &str, words: &str| View::Note(format!("[{subject}] {}", text::line(words, MOST)));
    match &event.body {
        EventBody::Log { text, .. } => {
            let end = if text.ends_with('\n') { "" } else { "\n" };
            View::Log(format!("{text}{end}"))
        }
        EventBody::Status {
            status,
            attempt,
            pod,
            reason,
        } => {
            let mut words = status.to_string();
            if let Some(pod) = pod {
                words.push_str(&format!(" on {pod}"));
            }
            if *attempt > 1 {
                words.push_str(&format!(", attempt {attempt}"));
            }
            if let Some(reason) = reason {
                words.push_str(&format!(" ({reason})"));
            }
            note("job", &words)
        }
        EventBody::Stage {
            stage,
            state,
            detail,
        } => {
            let state = match state {
                StageState::Started => "started",
                StageState::Waiting => "waiting",
                StageState::Done => "done",
                StageState::Failed => "failed",
            };
            let detail = detail
                .as_ref()
                .map(|d| format!(": {d}"))
                .unwrap_or_default();
            note(stage.as_str(), &format!("{state}{detail}"))
        }
        EventBody::Agent(event) => agent(event),
        EventBody::Pr { state, url, detail } => {
            let parts = [Some(state), url.as_ref(), detail.as_ref()];
            let words: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
            note("pr", &words.join(" "))
        }
        EventBody::Plugin {
            plugin,
            level,
            message,
        } => note("plugin", &format!("{plugin}: {level}: {message}")),
        EventBody::Reset { oldest } => note(
            "stream",
            &format!("events before number {oldest} are no longer kept"),
        ),
        EventBody::Usage { .. } | EventBody::End { .. } => View::Nothing,
    }
}

fn agent(event: &AgentEvent) -> View {
    let (subject, words) = match event {
        AgentEvent::Exited { code, signal } => match (code, signal) {
            (_, Some(signal)) => ("agent", format!("ended by signal {signal}")),
            (Some(code), None) => ("agent", format!("exited with code {code}")),
            (None, None) => ("agent", "exited".to_owned()),
        },
        AgentEvent::Session { id } => ("session", id.clone()),
        AgentEvent::Model { model } => ("model", model.clone()),
        AgentEvent::ToolCall { name, summary, .. } => ("tool", format!("{name}: {summary}")),
        AgentEvent::ToolResult {
            is_error: true,
            summary,
            ..
        } => ("tool", format!("failed: {summary}")),
        AgentEvent::Retry {
            attempt,
            max_attempts,
            delay_ms,
            reason,
        } => (
            "retry",
            format!("{attempt} of {max_attempts} in {delay_ms} ms: {reason}"),
        ),
        AgentEvent::Denial { tool, summary } => ("denied", format!("{tool}: {summary}")),
        AgentEvent::Started { .. } | AgentEvent::ToolResult { .. } | AgentEvent::Other { .. } => {
            return View::Nothing;
        }
    };
    View::Note(format!("[{subject}] {}", text::line(&words, MOST)))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::job::{LogStream, Stage, Status};

    fn shown(body: EventBody) -> String {
        let ts = "2026-11-22T10:00:00Z".parse().unwrap();
        match view(&Event { seq: 1, ts, body }) {
            View::Log(text) => format!("log {text:?}"),
            View::Note(text) => text,
            View::Nothing => "nothing".into(),
        }
    }

    #[test]
    fn events_read_as_lines() {
        let log = |text: &str| EventBody::Log {
            stream: LogStream::Agent,
            text: text.into(),
        };
        let shown: Vec<String> = [
            EventBody::Status {
                status: Status::Running,
                attempt: 2,
                pod: Some("agenticore-1".into()),
                reason: Some("reclaimed".into()),
            },
            EventBody::Stage {
                stage: Stage::PreHook,
                state: StageState::Started,
                detail: None,
            },
            EventBody::Stage {
                stage: Stage::Clone,
                state: StageState::Waiting,
                detail: Some("for the lock\nof \u{1b}c".into()),
            },
            log("one\n"),
            log("\u{1b}[1mtwo"),
            EventBody::Agent(AgentEvent::ToolCall {
                id: "1".into(),
                name: "Bash".into(),
                summary: "ls -l".into(),
            }),
            EventBody::Agent(AgentEvent::Exited {
                code: None,
                signal: Some(9),
            }),
            EventBody::Pr {
                state: "opened".into(),
                url: Some("https://example.org/1".into()),
                detail: None,
            },
            EventBody::Plugin {
                plugin: "shell".into(),
                level: "warn".into(),
                message: "hm".into(),
            },
            EventBody::Reset { oldest: 7 },
        ]
        .into_iter()
        .map(shown)
        .collect();
        insta::assert_snapshot!(shown.join("\n"), @r#"
        [job] running on agenticore-1, attempt 2 (reclaimed)
        [pre_hook] started
        [clone] waiting: for the lock of \u{1b}c
        log "one\n"
        log "\u{1b}[1mtwo\n"
        [tool] Bash: ls -l
        [agent] ended by signal 9
        [pr] opened https://example.org/1
        [plugin] shell: warn: hm
        [stream] events before number 7 are no longer kept
        "#);
    }
}
