//! What one process says, as its plugin understands it.

use tokio_util::sync::CancellationToken;

use super::{OUTPUT_BYTES, budget};
use crate::job::{AgentEvent, Run, Usage};
use crate::plugin::types::{Budget, Fact, Line, OutputStream};
use crate::plugin::{AgentRun, PluginError};
use crate::process::{HeadTail, Stream};

/// Bytes of standard error that the plugin sees at the end.
const STDERR_BYTES: usize = 8 * 1024;
/// Denials kept on the record.
const MAX_DENIALS: usize = 100;

/// What has been read of one process.
pub(super) struct Reading {
    /// The plugin's instance, or why it is gone.
    pub(super) reader: Result<AgentRun, PluginError>,
    pub(super) stdout: HeadTail,
    pub(super) stderr: HeadTail,
    /// The job's numbers with those of this process.
    pub(super) run: Run,
    /// The job's numbers before this process.
    before: Numbers,
    pub(super) budget: Budget,
    over_budget: CancellationToken,
}

#[derive(Clone, Copy)]
struct Numbers {
    usage: Usage,
    cost_usd: f64,
    turns: u32,
}

pub(super) enum Learnt {
    Text(String),
    Event(AgentEvent),
    Numbers,
}

impl Reading {
    pub(super) fn new(
        reader: AgentRun,
        run: Run,
        budget: Budget,
        over_budget: CancellationToken,
    ) -> Self {
        Self {
            reader: Ok(reader),
            stdout: HeadTail::new(OUTPUT_BYTES / 2, OUTPUT_BYTES / 2),
            stderr: HeadTail::tail(STDERR_BYTES),
            before: Numbers {
                usage: run.usage,
                cost_usd: run.cost_usd,
                turns: run.turns,
            },
            run,
            budget,
            over_budget,
        }
    }

    /// For the facts of the conclusion, which come when the reader is used up.
    pub(super) fn after(reading: &Self) -> Self {
        Self {
            reader: Err(PluginError::new(
                crate::plugin::Code::Ended,
                "the run has been judged",
            )),
            stdout: HeadTail::tail(0),
            stderr: HeadTail::tail(0),
            run: reading.run.clone(),
            before: reading.before,
            budget: reading.budget,
            over_budget: reading.over_budget.clone(),
        }
    }

    pub(super) fn keep(&mut self, lines: &[Line]) {
        for line in lines {
            match line.stream {
                OutputStream::Stdout => self.stdout.push_line(&line.text),
                OutputStream::Stderr => self.stderr.push_line(&line.text),
            }
        }
    }

    /// The facts in the lines; none once the plugin has failed.
    pub(super) async fn observe(&mut self, lines: &[Line]) -> Option<Vec<Fact>> {
        match self.reader.as_mut().ok()?.observe(lines).await {
            Ok(facts) => Some(facts),
            Err(error) => {
                tracing::warn!(%error, "the plugin cannot read the agent's output any more");
                self.reader = Err(error);
                None
            }
        }
    }

    /// Puts a fact in its place on the record; what is left of it is told.
    pub(super) fn learn(&mut self, fact: Fact) -> Learnt {
        let run = &mut self.run;
        let event = match fact {
            Fact::Text(text) => return Learnt::Text(text),
            Fact::Usage(usage) => {
                run.usage = self.before.usage
                    + Usage {
                        input_tokens: usage.input_tokens,
                        output_tokens: usage.output_tokens,
                        cache_read_tokens: usage.cache_read_tokens,
                        cache_write_tokens: usage.cache_write_tokens,
                    };
                return self.counted();
            }
            Fact::CostUsd(cost) => {
                if cost.is_finite() && cost >= 0.0 {
                    run.cost_usd = self.before.cost_usd + cost;
                }
                return self.counted();
            }
            Fact::Turns(turns) => {
                run.turns = self.before.turns.saturating_add(turns);
                return self.counted();
            }
            Fact::Session(id) => {
                run.session_id = id.parse().ok().or_else(|| run.session_id.clone());
                AgentEvent::Session { id }
            }
            Fact::Model(model) => {
                run.model = Some(model.clone());
                AgentEvent::Model { model }
            }
            Fact::ToolCall(call) => {
                run.tool_calls += 1;
                AgentEvent::ToolCall {
                    id: call.id,
                    name: call.name,
                    summary: call.summary,
                }
            }
            Fact::ToolResult(r) => AgentEvent::ToolResult {
                id: r.id,
                is_error: r.is_error,
                summary: r.summary,
            },
            Fact::Retry(retry) => {
                run.retries += 1;
                AgentEvent::Retry {
                    attempt: retry.attempt,
                    max_attempts: retry.max_attempts,
                    delay_ms: retry.delay_ms,
                    reason: retry.reason,
                }
            }
            Fact::Denial(denial) => {
                if run.denials.len() < MAX_DENIALS {
                    run.denials
                        .push(format!("{}: {}", denial.tool, denial.summary));
                }
                AgentEvent::Denial {
                    tool: denial.tool,
                    summary: denial.summary,
                }
            }
            Fact::Other(other) => {
                let value = serde_json::from_str(&other.json)
                    .unwrap_or(serde_json::Value::String(other.json));
                AgentEvent::Other {
                    name: other.name,
                    value,
                }
            }
        };
        Learnt::Event(event)
    }

    fn counted(&self) -> Learnt {
        if budget::is_exceeded(&self.budget, &self.run) {
            self.over_budget.cancel();
        }
        Learnt::Numbers
    }
}

pub(super) fn for_plugin(line: crate::process::Line) -> Line {
    let stream = match line.stream {
        Stream::Stdout => OutputStream::Stdout,
        Stream::Stderr => OutputStream::Stderr,
    };
    Line {
        stream,
        text: line.text,
        truncated: line.truncated,
    }
}
