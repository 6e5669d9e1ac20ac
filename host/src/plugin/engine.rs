//! The one engine of the process: what guests are compiled with, and the clock that interrupts them.
//!
//! Absent on purpose: threads, shared memory, garbage collection, 64-bit memories, component-model async,
//! wasmtime's own cache on disk, and every feature that could make two hosts compute different results.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use wasmtime::{Config, Engine, OptLevel};

use super::error::{Code, PluginError};
use super::limits::{Limits, as_usize};

/// How often a running guest hands its thread back to the runtime, where its deadline is looked at.
const TICK: Duration = Duration::from_millis(10);

pub(super) fn engine(limits: &Limits) -> Result<Engine, PluginError> {
    let stack = as_usize(limits.stack);
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .concurrency_support(false)
        .wasm_memory64(false)
        .wasm_relaxed_simd(false)
        .cranelift_nan_canonicalization(true)
        .cranelift_opt_level(OptLevel::Speed)
        .epoch_interruption(true)
        .max_wasm_stack(stack)
        // Host functions run on the same stack, above the guest's part.
        .async_stack_size(stack.saturating_add(1 << 20));
    Engine::new(&config).map_err(|error| {
        PluginError::new(
            Code::Host,
            format!("the WebAssembly engine did not start: {error:#}"),
        )
    })
}

/// Advances the engine's epoch while guests run; sleeps while none does, so an idle server does not wake up.
#[derive(Debug)]
pub(super) struct Ticker(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<TickerState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct TickerState {
    running: usize,
    closed: bool,
}

impl Ticker {
    pub(super) fn start(engine: &Engine) -> Result<Self, PluginError> {
        let shared = Arc::new(Shared::default());
        let (theirs, engine) = (Arc::clone(&shared), engine.weak());
        thread::Builder::new()
            .name("plugin-ticker".to_owned())
            .spawn(move || {
                while theirs.wait_for_work() {
                    thread::sleep(TICK);
                    let Some(engine) = engine.upgrade() else {
                        return;
                    };
                    engine.increment_epoch();
                }
            })
            .map_err(|error| {
                PluginError::new(
                    Code::Host,
                    format!("the ticker thread did not start: {error}"),
                )
            })?;
        Ok(Self(shared))
    }

    /// Ticks until the guard is dropped.
    pub(super) fn running(&self) -> Running {
        self.0.change(|state| state.running += 1);
        Running(Arc::clone(&self.0))
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.0.change(|state| state.closed = true);
    }
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut TickerState)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    /// Waits until a guest runs; false once the host is gone.
    fn wait_for_work(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = |state: &mut TickerState| state.running == 0 && !state.closed;
        !self
            .changed
            .wait_while(state, idle)
            .unwrap_or_else(PoisonError::into_inner)
            .closed
    }
}

/// Keeps the ticker going.
#[derive(Debug)]
pub(super) struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.change(|state| state.running -= 1);
    }
}
