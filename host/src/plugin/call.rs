//! One guest in one store, and the calls into it.
//!
//! A store is made for a call (or a run), and dropped with it, however it ends. One deadline spans everything a call does,
//! waits in the host included: epochs only make the guest yield, the deadline then drops it.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use wasmtime::component::ResourceTableError;
use wasmtime::{Engine, Store, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::engine::Ticker;
use super::error::{Code, PluginError};
use super::limits::{Limits, millis};
use super::state::{State, Stop, result_bytes};
use super::{imports, metrics, text};

/// Bytes of guest text in an error.
const DETAIL_BYTES: usize = 4 * 1024;

/// What a call used, for the job's record.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CallReport {
    /// Wall time.
    pub elapsed: Duration,
    /// The most bytes that all memories of the store had at one time.
    pub peak_memory: u64,
    /// Calls into the host.
    pub host_calls: u64,
    /// The last lines the plugin logged, sanitized.
    pub log_tail: Vec<String>,
    /// Imports it called that are refused.
    pub denials: Vec<String>,
}

/// A store with its limits on.
pub(super) struct Guest {
    store: Store<State>,
    /// What metrics call the plugin.
    label: String,
}

impl Guest {
    pub(super) fn new(
        engine: &Engine,
        label: String,
        job_id: &str,
        limits: &Limits,
        log_debug: bool,
    ) -> Self {
        let mut store = Store::new(engine, State::new(job_id, limits, log_debug));
        store.set_hostcall_fuel(result_bytes(limits));
        State::arm(&mut store);
        Self { store, label }
    }

    /// Runs `call` until it ends or the deadline has passed. After an error the guest must not be used again, which is
    /// why it is consumed and given back only after success.
    pub(super) async fn call<R>(
        mut self,
        ticker: &Ticker,
        name: &str,
        limit: &'static str,
        deadline: Duration,
        call: impl AsyncFnOnce(&mut Store<State>) -> wasmtime::Result<R>,
    ) -> Result<(Self, R, CallReport), PluginError> {
        self.store.data_mut().begin_call();
        let _running = ticker.running();
        let begun = Instant::now();
        let ended = tokio::time::timeout(deadline, call(&mut self.store)).await;
        let elapsed = begun.elapsed();
        match ended {
            Ok(Ok(result)) => {
                let report = self.report(elapsed);
                metrics::called(&self.label, name, &report, None);
                Ok((self, result, report))
            }
            Ok(Err(error)) => {
                Err(self.failed(name, elapsed, explain(name, &error, self.store.data())))
            }
            Err(_) => {
                let (used, allowed) = (millis(elapsed), millis(deadline));
                let message = format!("`{name}` did not end in time");
                let error = PluginError::limit(Code::Time, limit, used, allowed, message);
                Err(self.failed(name, elapsed, error))
            }
        }
    }

    fn report(&self, elapsed: Duration) -> CallReport {
        let state = self.store.data();
        CallReport {
            elapsed,
            peak_memory: state.usage.peak_memory,
            host_calls: state.usage.host_calls,
            log_tail: state.log_tail(),
            denials: state.denials.clone(),
        }
    }

    fn failed(&self, name: &str, elapsed: Duration, mut error: PluginError) -> PluginError {
        let state = self.store.data();
        error.detail = tail(&format!("{}{}", state.stdout.text(), state.stderr.text()));
        let report = self.report(elapsed);
        metrics::called(&self.label, name, &report, Some(&error));
        error.report = Some(report);
        tracing::debug!(target: "agenticore::plugin", call = name, code = error.code.as_str(), "plugin call failed");
        error
    }
}

/// The last bytes of a text, sanitized.
fn tail(text: &str) -> String {
    text::block(text::tail(text, DETAIL_BYTES).trim_end(), DETAIL_BYTES)
}

fn explain(name: &str, error: &wasmtime::Error, state: &State) -> PluginError {
    match &state.stop {
        Some(Stop::Limit {
            code,
            name: limit,
            used,
            allowed,
        }) => {
            let message = format!("`{name}` was ended at a limit");
            return PluginError::limit(*code, limit, *used, *allowed, message);
        }
        Some(Stop::Refused(import)) => {
            let code = if imports::is_network(import) {
                Code::Network
            } else {
                Code::Import
            };
            return PluginError::new(
                code,
                format!("`{name}` called `{}`", text::line(import, 200)),
            );
        }
        None => {}
    }
    explain_trap(name, error, state)
}

fn explain_trap(name: &str, error: &wasmtime::Error, state: &State) -> PluginError {
    if let Some(Trap::StackOverflow) = error.downcast_ref::<Trap>() {
        let allowed = state.limits.stack.0;
        let message = format!("`{name}` used up its stack");
        return PluginError::limit(Code::Stack, "stack", allowed, allowed, message);
    }
    if let Some(I32Exit(status)) = error.downcast_ref::<I32Exit>() {
        let message = format!("`{name}` exited with status {status} instead of returning");
        return PluginError::new(Code::Trap, message);
    }
    if let Some(error) = explain_engine_limit(name, error, state) {
        return error;
    }
    let mut cause = text::line(&error.root_cause().to_string(), 500);
    if let Some(Trap::MemoryOutOfBounds) = error.downcast_ref::<Trap>() {
        cause.push_str(", which is also how a stack that the guest keeps in its memory overflows");
    }
    PluginError::new(Code::Trap, format!("`{name}` failed: {cause}"))
}

/// Limits that the engine keeps by itself. It has no types for them, so its words decide; the hostile suite notices
/// when an update changes them.
fn explain_engine_limit(name: &str, error: &wasmtime::Error, state: &State) -> Option<PluginError> {
    let limits = &state.limits;
    let cause = error.root_cause().to_string();
    let full = matches!(error.downcast_ref(), Some(ResourceTableError::Full));
    let limit = |code, key: &str, allowed: u64, what: &str| {
        let message = format!("`{name}` {what}");
        // The engine says that the limit was passed and not by how much.
        Some(PluginError::limit(
            code,
            key,
            allowed.saturating_add(1),
            allowed,
            message,
        ))
    };
    if full || cause.contains("handle limit exceeded") || cause.contains("no free keys") {
        return limit(
            Code::Handles,
            "handles",
            limits.handles.into(),
            "holds too many handles",
        );
    }
    if cause.contains("fuel allocated for hostcalls") {
        // A result is taken out of the guest when none of its frames is left.
        if error.downcast_ref::<WasmBacktrace>().is_none() {
            let allowed = limits.output_bytes.0;
            return limit(
                Code::Output,
                "output_bytes",
                allowed,
                "returned too many bytes",
            );
        }
        let allowed = limits.call_bytes.0;
        return limit(
            Code::Bytes,
            "call_bytes",
            allowed,
            "passed too many bytes at once",
        );
    }
    if cause.contains("requested len") && cause.contains("exceeds limit") {
        let allowed = limits.call_bytes.0;
        return limit(
            Code::Bytes,
            "call_bytes",
            allowed,
            "asked for too many random bytes",
        );
    }
    if cause.contains("resource limit exceeded") {
        let what = "consists of too many instances, memories or tables";
        return limit(Code::Instances, "instances", limits.instances.into(), what);
    }
    None
}
