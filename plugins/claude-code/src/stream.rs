//! Reads what the agent prints: one JSON object a line, of which only the kinds that say something to people become facts.
//!
//! Lines of unknown types are passed over, because later versions print more of them. Cost, tokens and turns are taken from the
//! `result` line alone: what an `assistant` line has is the count at its start.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::summary;
use agenticore_plugin::{
    Denial, Fact, Line, NamedJson, OutputStream, Retry, ToolCall, ToolResult, Usage,
};

/// What the lines up to now have said.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    session: Option<String>,
    model: Option<String>,
    result: Option<RunResult>,
}

/// The `result` line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RunResult {
    /// The line as it was.
    pub(crate) line: String,
    pub(crate) body: ResultBody,
}

/// What a `result` line says. Everything is optional: failed runs leave things out.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct ResultBody {
    pub(crate) subtype: String,
    pub(crate) is_error: bool,
    pub(crate) api_error_status: Option<u16>,
    pub(crate) result: Option<String>,
    pub(crate) terminal_reason: Option<String>,
    pub(crate) errors: Vec<Value>,
    pub(crate) num_turns: u32,
    pub(crate) total_cost_usd: f64,
    usage: TotalUsage,
    #[serde(rename = "modelUsage")]
    model_usage: Map<String, Value>,
    permission_denials: Vec<Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
struct TotalUsage {
    input_tokens: u64,
    output_tokens: u64,
    cache_read_input_tokens: u64,
    cache_creation_input_tokens: u64,
}

impl Reader {
    /// The facts that these lines bring.
    pub(crate) fn read(&mut self, lines: &[Line]) -> Vec<Fact> {
        let mut facts = Vec::new();
        for line in lines {
            self.read_line(line, &mut facts);
        }
        facts
    }

    /// The last `result` line. It need not be the last line of all.
    pub(crate) fn result(&self) -> Option<&RunResult> {
        self.result.as_ref()
    }

    fn read_line(&mut self, line: &Line, facts: &mut Vec<Fact>) {
        if line.text.trim().is_empty() {
            return;
        }
        let object = match line.stream {
            OutputStream::Stdout => serde_json::from_str::<Map<String, Value>>(&line.text).ok(),
            OutputStream::Stderr => None,
        };
        match object {
            Some(object) => self.read_object(&line.text, object, facts),
            None if line.truncated
                && line.stream == OutputStream::Stdout
                && line.text.starts_with('{') =>
            {
                self.read_truncated(&line.text, facts);
            }
            None => facts.push(Fact::Text(line.text.clone())),
        }
    }

    fn read_object(&mut self, line: &str, object: Map<String, Value>, facts: &mut Vec<Fact>) {
        match text(&object, "type") {
            "system" => self.read_system(&object, facts),
            "assistant" => self.read_assistant(&object, facts),
            "user" => read_tool_results(&object, facts),
            "result" => self.read_result(line, object, facts),
            _ => {}
        }
    }

    fn read_system(&mut self, object: &Map<String, Value>, facts: &mut Vec<Fact>) {
        match text(object, "subtype") {
            "init" => {
                let session = text(object, "session_id");
                if !session.is_empty() && self.session.as_deref() != Some(session) {
                    self.session = Some(session.to_owned());
                    facts.push(Fact::Session(session.to_owned()));
                }
                self.read_model(text(object, "model"), facts);
                read_failed_servers(object, facts);
            }
            "api_retry" => facts.push(Fact::Retry(retry(object))),
            "model_fallback" => {
                let json = Value::Object(object.clone()).to_string();
                facts.push(Fact::Other(NamedJson {
                    name: "model-fallback".to_owned(),
                    json,
                }));
            }
            _ => {}
        }
    }

    fn read_assistant(&mut self, object: &Map<String, Value>, facts: &mut Vec<Fact>) {
        let Some(message) = object.get("message").and_then(Value::as_object) else {
            return;
        };
        // A subagent may use another model; the job's is that of the agent itself.
        if object.get("parent_tool_use_id").is_none_or(Value::is_null) {
            self.read_model(text(message, "model"), facts);
        }
        for block in blocks(message) {
            match text(block, "type") {
                "text" if !text(block, "text").is_empty() => {
                    facts.push(Fact::Text(text(block, "text").to_owned()))
                }
                "tool_use" => {
                    let name = text(block, "name").to_owned();
                    let summary = summary::input(&name, block.get("input").unwrap_or(&Value::Null));
                    facts.push(Fact::ToolCall(ToolCall {
                        id: text(block, "id").to_owned(),
                        name,
                        summary,
                    }));
                }
                _ => {}
            }
        }
    }

    fn read_model(&mut self, model: &str, facts: &mut Vec<Fact>) {
        // Names in angle brackets stand for messages that no model wrote.
        if !model.is_empty() && !model.starts_with('<') && self.model.as_deref() != Some(model) {
            self.model = Some(model.to_owned());
            facts.push(Fact::Model(model.to_owned()));
        }
    }

    fn read_result(&mut self, line: &str, object: Map<String, Value>, facts: &mut Vec<Fact>) {
        let body = ResultBody::read(object);
        facts.push(Fact::Usage(body.usage()));
        facts.push(Fact::CostUsd(body.total_cost_usd));
        facts.push(Fact::Turns(body.num_turns));
        for denial in body.permission_denials.iter().filter_map(Value::as_object) {
            let tool = text(denial, "tool_name").to_owned();
            let summary = summary::input(&tool, denial.get("tool_input").unwrap_or(&Value::Null));
            facts.push(Fact::Denial(Denial { tool, summary }));
        }
        self.result = Some(RunResult {
            line: line.to_owned(),
            body,
        });
    }

    /// The middle of the line is missing, so it is no JSON any more. A result is worth more than that: its short fields stand at its
    /// beginning and its end, and a quoted key before a colon cannot be part of a text.
    fn read_truncated(&mut self, line: &str, facts: &mut Vec<Fact>) {
        if !line.starts_with(r#"{"type":"result""#) {
            let text = format!(
                "(a line of {} bytes or more, too long to be read)",
                line.len()
            );
            facts.push(Fact::Text(text));
            return;
        }
        let keys = [
            "subtype",
            "is_error",
            "api_error_status",
            "terminal_reason",
            "num_turns",
            "total_cost_usd",
        ];
        let found = keys.iter().filter_map(|key| {
            let (_, after) = line.rsplit_once(&format!("\"{key}\":"))?;
            let end = after.find([',', '}']).unwrap_or(after.len());
            Some((
                (*key).to_owned(),
                serde_json::from_str(after.get(..end)?).ok()?,
            ))
        });
        let object: Map<String, Value> = found.collect();
        self.read_result(line, object, facts);
    }
}

impl ResultBody {
    /// One field of an unexpected type must not cost the others.
    fn read(object: Map<String, Value>) -> Self {
        let whole = serde_json::from_value(Value::Object(object.clone()));
        whole.unwrap_or_else(|_| {
            let good = object.into_iter().filter(|(key, value)| {
                let alone = Map::from_iter([(key.clone(), value.clone())]);
                serde_json::from_value::<Self>(Value::Object(alone)).is_ok()
            });
            serde_json::from_value(Value::Object(good.collect())).unwrap_or_default()
        })
    }

    /// Tokens over all models where they are listed, which has those of subagents, too.
    fn usage(&self) -> Usage {
        let models = || self.model_usage.values().filter_map(Value::as_object);
        let sum = |key: &str| {
            models()
                .filter_map(|usage| usage.get(key).and_then(Value::as_u64))
                .sum()
        };
        if models().next().is_some() {
            return Usage {
                input_tokens: sum("inputTokens"),
                output_tokens: sum("outputTokens"),
                cache_read_tokens: sum("cacheReadInputTokens"),
                cache_write_tokens: sum("cacheCreationInputTokens"),
            };
        }
        Usage {
            input_tokens: self.usage.input_tokens,
            output_tokens: self.usage.output_tokens,
            cache_read_tokens: self.usage.cache_read_input_tokens,
            cache_write_tokens: self.usage.cache_creation_input_tokens,
        }
    }
}

fn read_tool_results(object: &Map<String, Value>, facts: &mut Vec<Fact>) {
    let Some(message) = object.get("message").and_then(Value::as_object) else {
        return;
    };
    for block in blocks(message).filter(|block| text(block, "type") == "tool_result") {
        facts.push(Fact::ToolResult(ToolResult {
            id: text(block, "tool_use_id").to_owned(),
            is_error: block
                .get("is_error")
                .and_then(Value::as_bool)
                .unwrap_or(false),
            summary: summary::content(block.get("content").unwrap_or(&Value::Null)),
        }));
    }
}

/// The run goes on without a server that cannot be reached, which nobody would notice.
fn read_failed_servers(object: &Map<String, Value>, facts: &mut Vec<Fact>) {
    let servers = object.get("mcp_servers").and_then(Value::as_array);
    for server in servers.into_iter().flatten().filter_map(Value::as_object) {
        if text(server, "status") == "failed" {
            facts.push(Fact::Text(format!(
                "the MCP server `{}` could not be reached",
                text(server, "name")
            )));
        }
    }
}

fn retry(object: &Map<String, Value>) -> Retry {
    let number = |key: &str| object.get(key).and_then(Value::as_f64).unwrap_or_default();
    let short = |key: &str| u32::try_from(number(key) as u64).unwrap_or(u32::MAX);
    let status = object
        .get("error_status")
        .filter(|status| !status.is_null())
        .map(ToString::to_string);
    let error = match object.get("error") {
        Some(Value::String(text)) => text.clone(),
        Some(other) if !other.is_null() => other.to_string(),
        _ => String::new(),
    };
    let reason: Vec<String> = status
        .into_iter()
        .chain([error])
        .filter(|part| !part.is_empty())
        .collect();
    Retry {
        attempt: short("attempt"),
        max_attempts: short("max_retries"),
        delay_ms: number("retry_delay_ms") as u64,
        reason: reason.join(" "),
    }
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn blocks(message: &Map<String, Value>) -> impl Iterator<Item = &Map<String, Value>> {
    message
        .get("content")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object)
}
