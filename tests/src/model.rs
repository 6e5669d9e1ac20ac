//! A scripted model service on loopback, for tests with real agent CLIs: no account, no internet, no cost.
//!
//! It answers the Messages API (`POST /v1/messages`) and the Responses API (`POST /v1/responses`) as the CLIs use them, streamed as
//! server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::sync::watch;

/// One answer.
#[derive(Debug, Clone)]
pub enum Turn {
    /// A text, which ends the conversation.
    Text(String),
    /// A call of a tool, with its input. `{{cwd}}` stands for the agent's working directory.
    Tool(&'static str, Value),
    /// No answer, for as long as the client waits.
    Silence,
}

/// A running service.
#[derive(Debug)]
pub struct Model {
    port: u16,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    turns: Mutex<VecDeque<Turn>>,
    requests: watch::Sender<Vec<Value>>,
}

impl Model {
    /// Starts a service that gives these answers in order, then the text `done`.
    ///
    /// # Panics
    /// When no port can be bound.
    pub async fn start(turns: impl IntoIterator<Item = Turn>) -> Self {
        let shared = Arc::new(Shared {
            turns: Mutex::new(turns.into_iter().collect()),
            requests: watch::Sender::new(Vec::new()),
        });
        let router = Router::new()
            .route("/", get(|| async {}))
            .route("/v1/messages", post(messages))
            .route(
                "/v1/messages/count_tokens",
                post(|| async { Json(json!({"input_tokens": 10})) }),
            )
            .route("/v1/responses", post(responses))
            .with_state(Arc::clone(&shared));
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
            .await
            .expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let task = tokio::spawn(async move {
            axum::serve(listener, router)
                .await
                .expect("the service runs");
        });
        Self { port, shared, task }
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Puts other answers in the place of those that are left.
    ///
    /// # Panics
    /// When another thread panicked while it held them.
    pub fn script(&self, turns: impl IntoIterator<Item = Turn>) {
        *self.shared.turns.lock().unwrap() = turns.into_iter().collect();
    }

    /// The conversations' requests so far; small side requests are left out.
    #[must_use]
    pub fn requests(&self) -> Vec<Value> {
        self.shared.requests.borrow().clone()
    }

    /// Waits until there were `count` requests.
    ///
    /// # Panics
    /// When they do not come.
    pub async fn asked(&self, count: usize) {
        let mut requests = self.shared.requests.subscribe();
        tokio::time::timeout(
            crate::PATIENCE,
            requests.wait_for(|seen| seen.len() >= count),
        )
        .await
        .unwrap_or_else(|_| panic!("the agent asks the model {count} times"))
        .expect("the service runs");
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn messages(State(shared): State<Arc<Shared>>, Json(request): Json<Value>) -> Response {
    let has_tools = request
        .get("tools")
        .and_then(Value::as_array)
        .is_some_and(|t| !t.is_empty());
    let turn = if has_tools {
        shared.next(&request)
    } else {
        Turn::Text("side".into())
    };
    let (block, stop) = match turn {
        Turn::Text(text) => (json!({"type": "text", "text": text}), "end_turn"),
        Turn::Tool(name, input) => {
            let id = format!("toolu_{}", shared.requests.borrow().len());
            let input = fill(input, &working_directory(&request));
            (
                json!({"type": "tool_use", "id": id, "name": name, "input": input}),
                "tool_use",
            )
        }
        Turn::Silence => std::future::pending().await,
    };
    let message = json!({
        "id": "msg_scripted", "type": "message", "role": "assistant", "model": request.get("model"),
        "content": [block], "stop_reason": stop, "stop_sequence": null,
        "usage": {"input_tokens": 100, "output_tokens": 20},
    });
    if request.get("stream") == Some(&Value::Bool(true)) {
        events(streamed(message, &block, stop))
    } else {
        Json(message).into_response()
    }
}

/// The Responses API, which is only ever asked for a stream.
async fn responses(State(shared): State<Arc<Shared>>, Json(request): Json<Value>) -> Response {
    let turn = shared.next(&request);
    let number = shared.requests.borrow().len();
    let item = match turn {
        Turn::Text(text) => json!({
            "type": "message", "role": "assistant", "id": format!("msg_{number}"),
            "content": [{"type": "output_text", "text": text}],
        }),
        Turn::Tool(name, input) => json!({
            "type": "function_call", "id": format!("fc_{number}"), "call_id": format!("call_{number}"),
            "name": name, "arguments": input.to_string(),
        }),
        Turn::Silence => std::future::pending().await,
    };
    let id = format!("resp_{number}");
    let usage = json!({
        "input_tokens": 100, "input_tokens_details": {"cached_tokens": 10},
        "output_tokens": 20, "output_tokens_details": {"reasoning_tokens": 5}, "total_tokens": 120,
    });
    events(vec![
        json!({"type": "response.created", "response": {"id": id}}),
        json!({"type": "response.output_item.done", "output_index": 0, "item": item}),
        json!({"type": "response.completed", "response": {"id": id, "usage": usage}}),
    ])
}

impl Shared {
    /// Notes a request and gives its answer.
    fn next(&self, request: &Value) -> Turn {
        let turn = self.turns.lock().unwrap().pop_front();
        self.requests.send_modify(|seen| seen.push(request.clone()));
        turn.unwrap_or_else(|| Turn::Text("done".into()))
    }
}

/// Server-sent events, each named after its type.
fn events(all: Vec<Value>) -> Response {
    let events = all.into_iter().map(|data| {
        let name = data
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        Ok::<_, Infallible>(Event::default().event(name).data(data.to_string()))
    });
    Sse::new(futures::stream::iter(events.collect::<Vec<_>>())).into_response()
}

/// The message as its stream of events.
fn streamed(mut message: Value, block: &Value, stop: &str) -> Vec<Value> {
    let usage = message.get("usage").cloned();
    let fields = message.as_object_mut().expect("an object");
    fields.insert("content".into(), json!([]));
    fields.insert("stop_reason".into(), Value::Null);
    let (start, delta) = match block.get("text") {
        Some(text) => (
            json!({"type": "text", "text": ""}),
            json!({"type": "text_delta", "text": text}),
        ),
        None => {
            let mut start = block.clone();
            let input = start
                .as_object_mut()
                .expect("an object")
                .insert("input".into(), json!({}));
            let text = input.expect("an input").to_string();
            (
                start,
                json!({"type": "input_json_delta", "partial_json": text}),
            )
        }
    };
    vec![
        json!({"type": "message_start", "message": message}),
        json!({"type": "content_block_start", "index": 0, "content_block": start}),
        json!({"type": "content_block_delta", "index": 0, "delta": delta}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": null}, "usage": usage}),
        json!({"type": "message_stop"}),
    ]
}

/// The directory that the agent states in its prompt.
fn working_directory(request: &Value) -> String {
    let text = request.to_string();
    let found = text.split_once("orking directory: ").map(|(_, rest)| rest);
    let word = found.and_then(|rest| rest.split(['\\', '"', ' ', '<']).next());
    word.unwrap_or("/nonexistent").to_owned()
}

fn fill(input: Value, cwd: &str) -> Value {
    serde_json::from_str(&input.to_string().replace("{{cwd}}", cwd)).expect("a plain path")
}
