//! What the host keeps for one guest: its WASI context, what it used, and why it was stopped.
//!
//! Nothing in here outlives the store. The limits are counted over all memories and tables together, because the engine's
//! own count is per memory and per table.

use wasmtime::component::ResourceTable;
use wasmtime::{CallHook, ResourceLimiter, Store, StoreContextMut};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::capture::Capture;
use super::error::Code;
use super::limits::{Limits, as_usize};
use super::text;
use super::virtual_time::{Randomness, VirtualClock};

/// Log lines kept for the job's record.
const LOG_LINES: usize = 100;
/// Bytes of one kept log line.
const LOG_LINE_BYTES: usize = 1024;
/// What a result may hold beside the bytes of files: paths, arguments, facts.
const RESULT_OVERHEAD: u64 = 4 << 20;

/// Why the host stopped a guest. It travels as the trap, and stays in the state because a guest's unwinding may bury it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Stop {
    /// A limit was met.
    #[error("the plugin reached the limit {name}")]
    Limit {
        code: Code,
        name: &'static str,
        used: u64,
        allowed: u64,
    },
    /// It called an import that is refused.
    #[error("the plugin called `{0}`, which is refused")]
    Refused(String),
}

pub(super) struct State {
    wasi: WasiCtx,
    table: ResourceTable,
    pub(super) limits: Limits,
    pub(super) stop: Option<Stop>,
    pub(super) usage: Usage,
    pub(super) log: Vec<String>,
    pub(super) denials: Vec<String>,
    pub(super) stdout: Capture,
    pub(super) stderr: Capture,
    job_id: String,
    log_debug: bool,
}

/// What the current call and the store used.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    memory: u64,
    pub(super) peak_memory: u64,
    last_growth: u64,
    table_entries: u64,
    pub(super) host_calls: u64,
    log_bytes: u64,
}

impl State {
    pub(super) fn new(job_id: &str, limits: &Limits, log_debug: bool) -> Self {
        let (stdout, stderr) = (Capture::default(), Capture::default());
        let (clock, random) = (VirtualClock::new(job_id), Randomness::new(job_id));
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.handles as usize);
        let wasi = WasiCtx::builder()
            .stdout(stdout.clone())
            .stderr(stderr.clone())
            .wall_clock(clock.clone())
            .monotonic_clock(clock)
            .secure_random(random.secure)
            .insecure_random(random.insecure)
            .insecure_random_seed(random.seed)
            .max_random_size(limits.call_bytes.0)
            .build();
        Self {
            wasi,
            table,
            limits: limits.clone(),
            stop: None,
            usage: Usage::default(),
            log: Vec::new(),
            denials: Vec::new(),
            stdout,
            stderr,
            job_id: job_id.to_owned(),
            log_debug,
        }
    }

    /// Puts the limits of this state on its store.
    pub(super) fn arm(store: &mut Store<Self>) {
        store.limiter(|state| state);
        store.set_max_component_handles(store.data().limits.handles as usize);
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        store.call_hook(Self::crossing);
    }

    /// Forgets what the last call used up of its limits per call.
    pub(super) fn begin_call(&mut self) {
        self.usage.host_calls = 0;
        self.usage.log_bytes = 0;
        self.log.clear();
        self.denials.clear();
    }

    /// Runs whenever the guest calls the host or returns from there, also for the engine's own helpers.
    ///
    /// A result may be as large as the files of a plan, what is passed to an import is far smaller: the engine reads
    /// this value each time it begins to take values out of the guest.
    fn crossing(mut store: StoreContextMut<'_, Self>, moment: CallHook) -> wasmtime::Result<()> {
        let limits = &store.data().limits;
        let returning = matches!(moment, CallHook::ReturningFromWasm);
        let bytes = if returning {
            result_bytes(limits)
        } else {
            as_usize(limits.call_bytes)
        };
        let (used, allowed) = (store.data().usage.host_calls, u64::from(limits.host_calls));
        store.set_hostcall_fuel(bytes);
        if used > allowed && !returning {
            return store
                .data_mut()
                .limit(Code::HostCalls, "host_calls", used, allowed);
        }
        Ok(())
    }

    pub(super) fn limit<T>(
        &mut self,
        code: Code,
        name: &'static str,
        used: u64,
        allowed: u64,
    ) -> wasmtime::Result<T> {
        let stop = Stop::Limit {
            code,
            name,
            used,
            allowed,
        };
        Err(self.stop.get_or_insert(stop).clone().into())
    }

    /// Ends the call because it used a refused import.
    pub(super) fn refuse(&mut self, import: &str) -> wasmtime::Result<()> {
        if self.denials.len() < LOG_LINES {
            self.denials.push(import.to_owned());
        }
        Err(self
            .stop
            .get_or_insert_with(|| Stop::Refused(import.to_owned()))
            .clone()
            .into())
    }

    /// Takes one line of the guest's log.
    pub(super) fn write_log(&mut self, level: &str, message: &str) -> wasmtime::Result<()> {
        self.usage.host_calls += 1;
        self.usage.log_bytes += message.len() as u64 + 1;
        let allowed = self.limits.log_bytes.0;
        if self.usage.log_bytes > allowed {
            return self.limit(Code::Log, "log_bytes", self.usage.log_bytes, allowed);
        }
        if level == "debug" && !self.log_debug {
            return Ok(());
        }
        let line = format!("{level}: {}", text::line(message, LOG_LINE_BYTES));
        tracing::debug!(target: "agenticore::plugin", for_job = self.job_id, line, "plugin log");
        if self.log.len() >= 2 * LOG_LINES {
            self.log.drain(..LOG_LINES);
        }
        self.log.push(line);
        Ok(())
    }

    /// The last lines of the log.
    pub(super) fn log_tail(&self) -> Vec<String> {
        let start = self.log.len().saturating_sub(LOG_LINES);
        self.log.get(start..).unwrap_or_default().to_vec()
    }
}

impl WasiView for State {
    /// Every function of WASI passes here, so this is where calls into the host are counted; `crossing` stops them.
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.usage.host_calls += 1;
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl ResourceLimiter for State {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let growth = desired.saturating_sub(current) as u64;
        let (used, allowed) = (
            self.usage.memory.saturating_add(growth),
            self.limits.memory.0,
        );
        if used > allowed {
            return self.limit(Code::Memory, "memory", used, allowed);
        }
        self.usage.memory = used;
        self.usage.last_growth = growth;
        self.usage.peak_memory = self.usage.peak_memory.max(used);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.usage.memory = self.usage.memory.saturating_sub(self.usage.last_growth);
        self.usage.last_growth = 0;
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let growth = desired.saturating_sub(current) as u64;
        let used = self.usage.table_entries.saturating_add(growth);
        let allowed = u64::from(self.limits.table_entries);
        if used > allowed {
            return self.limit(Code::Tables, "table_entries", used, allowed);
        }
        self.usage.table_entries = used;
        Ok(true)
    }

    fn instances(&self) -> usize {
        self.limits.instances as usize
    }

    fn tables(&self) -> usize {
        2 * self.limits.instances as usize
    }

    fn memories(&self) -> usize {
        self.limits.instances as usize
    }
}

/// Bytes of the host that one call may take out of a guest.
pub(super) fn result_bytes(limits: &Limits) -> usize {
    as_usize(limits.output_bytes).saturating_add(usize::try_from(RESULT_OVERHEAD).unwrap_or(0))
}
