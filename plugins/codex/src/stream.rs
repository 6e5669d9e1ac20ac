//! Reads what `codex exec --json` prints: one JSON object a line.
//!
//! A run is one turn: `thread.started`, `turn.started`, then items that start and complete, then `turn.completed` or
//! `turn.failed`. Lines and items of unknown types are passed over, because later versions print more of them. Tokens are counted
//! over the whole thread, so those of an interrupted attempt are in the count of the one that goes on.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Map, Value};

use agenticore_plugin::one_line;
use agenticore_plugin::{
    Denial, Fact, Line, NamedJson, OutputStream, Retry, ToolCall, ToolResult, Usage,
};

/// The longest line for people, in characters.
const LEN: usize = 200;

/// What the lines up to now have said.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// The model of the settings; the output does not name it.
    model: Option<String>,
    begun: BTreeSet<String>,
    /// What the agent said last.
    pub(crate) message: Option<String>,
    /// How the turn ended, if it did.
    pub(crate) turn: Option<Turn>,
}

/// The end of the turn.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Turn {
    Completed,
    /// Why it failed, in the agent's words.
    Failed(String),
}

/// Tokens; the input's count has those of the cache in it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Tokens {
    input_tokens: u64,
    cached_input_tokens: u64,
    cache_write_input_tokens: u64,
    output_tokens: u64,
}

impl Reader {
    pub(crate) fn new(model: Option<String>) -> Self {
        Self {
            model,
            ..Self::default()
        }
    }

    /// The facts that these lines bring.
    pub(crate) fn read(&mut self, lines: &[Line]) -> Vec<Fact> {
        let mut facts = Vec::new();
        for line in lines.iter().filter(|line| !line.text.trim().is_empty()) {
            let object = match line.stream {
                OutputStream::Stdout => serde_json::from_str::<Map<String, Value>>(&line.text).ok(),
                OutputStream::Stderr => None,
            };
            match object {
                Some(object) => self.read_object(&object, &mut facts),
                None if line.truncated => facts.push(Fact::Text(format!(
                    "(a line of {} bytes or more, too long to be read)",
                    line.text.len()
                ))),
                None => facts.push(Fact::Text(line.text.clone())),
            }
        }
        facts
    }

    fn read_object(&mut self, object: &Map<String, Value>, facts: &mut Vec<Fact>) {
        let message = |value: &Map<String, Value>| text(value, "message").to_owned();
        match text(object, "type") {
            "thread.started" => {
                facts.push(Fact::Session(text(object, "thread_id").to_owned()));
                facts.extend(self.model.clone().map(Fact::Model));
            }
            "item.started" => self.begin(object, facts),
            "item.completed" => self.complete(object, facts),
            "turn.completed" => {
                let tokens = object.get("usage").cloned().unwrap_or_default();
                facts.push(Fact::Usage(usage(
                    &serde_json::from_value(tokens).unwrap_or_default(),
                )));
                facts.push(Fact::Turns(1));
                self.turn = Some(Turn::Completed);
            }
            "turn.failed" => {
                let error = object.get("error").and_then(Value::as_object);
                self.turn = Some(Turn::Failed(error.map(message).unwrap_or_default()));
            }
            "error" => facts.push(trouble(&message(object))),
            _ => {}
        }
    }

    fn begin(&mut self, object: &Map<String, Value>, facts: &mut Vec<Fact>) {
        let Some(item) = object.get("item").and_then(Value::as_object) else {
            return;
        };
        if let Some((name, summary)) = tool(item) {
            let id = text(item, "id").to_owned();
            if self.begun.insert(id.clone()) {
                facts.push(Fact::ToolCall(ToolCall { id, name, summary }));
            }
        }
    }

    fn complete(&mut self, object: &Map<String, Value>, facts: &mut Vec<Fact>) {
        // Some tools only say that they are done.
        self.begin(object, facts);
        let Some(item) = object.get("item").and_then(Value::as_object) else {
            return;
        };
        match text(item, "type") {
            "agent_message" => {
                let said = text(item, "text").to_owned();
                self.message = Some(said.clone());
                facts.push(Fact::Text(said));
            }
            "error" => facts.push(Fact::Text(text(item, "message").to_owned())),
            "todo_list" => facts.push(Fact::Other(NamedJson {
                name: "todo-list".to_owned(),
                json: item.get("items").unwrap_or(&Value::Null).to_string(),
            })),
            _ => {
                if let Some((name, summary)) = tool(item) {
                    finish(item, name, summary, facts);
                }
            }
        }
    }
}

/// The end of a tool.
fn finish(item: &Map<String, Value>, name: String, summary: String, facts: &mut Vec<Fact>) {
    let status = text(item, "status");
    if status == "declined" {
        facts.push(Fact::Denial(Denial {
            tool: name,
            summary,
        }));
    }
    let code = item
        .get("exit_code")
        .and_then(Value::as_i64)
        .unwrap_or_default();
    let error = item.get("error").filter(|error| !error.is_null());
    let shown = match error {
        Some(error) => error
            .get("message")
            .and_then(Value::as_str)
            .map_or_else(|| error.to_string(), str::to_owned),
        None => match item.get("result").filter(|result| !result.is_null()) {
            Some(result) => result.to_string(),
            None => text(item, "aggregated_output").to_owned(),
        },
    };
    facts.push(Fact::ToolResult(ToolResult {
        id: text(item, "id").to_owned(),
        is_error: error.is_some() || code != 0 || matches!(status, "failed" | "declined"),
        summary: one_line(&shown, LEN),
    }));
}

/// The name of a tool and one line about what it was given; none for items that are no tool.
fn tool(item: &Map<String, Value>) -> Option<(String, String)> {
    let (name, summary) = match text(item, "type") {
        "command_execution" => ("shell".to_owned(), text(item, "command").to_owned()),
        "file_change" => {
            let changes = item.get("changes").and_then(Value::as_array);
            let change = |change: &Value| {
                let field = |key| {
                    change
                        .get(key)
                        .and_then(Value::as_str)
                        .unwrap_or_default()
                        .to_owned()
                };
                format!("{} {}", field("kind"), field("path"))
            };
            let all: Vec<String> = changes.into_iter().flatten().map(change).collect();
            ("edit".to_owned(), all.join(", "))
        }
        "mcp_tool_call" => (
            format!("{}.{}", text(item, "server"), text(item, "tool")),
            item.get("arguments")
                .filter(|arguments| !arguments.is_null())
                .map(ToString::to_string)
                .unwrap_or_default(),
        ),
        "web_search" => ("web_search".to_owned(), text(item, "query").to_owned()),
        _ => return None,
    };
    Some((name, one_line(&summary, LEN)))
}

fn usage(tokens: &Tokens) -> Usage {
    let cached = tokens
        .cached_input_tokens
        .saturating_add(tokens.cache_write_input_tokens);
    Usage {
        input_tokens: tokens.input_tokens.saturating_sub(cached),
        output_tokens: tokens.output_tokens,
        cache_read_tokens: tokens.cached_input_tokens,
        cache_write_tokens: tokens.cache_write_input_tokens,
    }
}

/// `Reconnecting... 2/5 (WHY)` is a request that is tried again; anything else is for people to read.
fn trouble(message: &str) -> Fact {
    let Some(rest) = message.strip_prefix("Reconnecting... ") else {
        return Fact::Text(message.to_owned());
    };
    let (count, reason) = rest.split_once(" (").unwrap_or((rest, ""));
    let (attempt, max) = count.split_once('/').unwrap_or((count, ""));
    Fact::Retry(Retry {
        // While it waits for a network to come back it does not count.
        attempt: attempt.parse().unwrap_or(1),
        max_attempts: max.parse().unwrap_or(0),
        delay_ms: 0,
        reason: one_line(reason.strip_suffix(')').unwrap_or(reason), LEN),
    })
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}
