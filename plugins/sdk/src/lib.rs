//! Write plugins for Agenticore in Rust. A hook is a dozen lines:
//!
//! ```
//! use agenticore_plugin::{Hooks, Job, PlanView, Verdict};
//!
//! #[derive(serde::Deserialize)]
//! struct Config {
//!     forbidden: String,
//! }
//!
//! struct MyHook;
//!
//! impl Hooks for MyHook {
//!     type Config = Config;
//!
//!     fn pre_job(job: &Job, config: Config, _plan: &PlanView) -> Verdict {
//!         if job.task.contains(&config.forbidden) {
//!             return Verdict::Reject(format!("the task says {:?}", config.forbidden));
//!         }
//!         Verdict::Proceed
//!     }
//! }
//!
//! agenticore_plugin::export_hooks!(MyHook);
//! ```
//!
//! The crate is a `cdylib`, built for `wasm32-wasip2`; tests run natively, because a hook is only functions. The contract itself is in
//! `wit/`, which every item here comes from: [`Hooks`], [`Redact`] and [`Profile`] take the configuration out of its JSON, and have defaults for
//! what a plugin does not care for.

mod agent;
mod bindings;
mod hooks;
mod log;
mod profile;
mod redact;

pub use agent::{
    Environment, OperatorSettings, WHATEVER_IS_GRANTED, is_variable, one_line, one_of, schema,
    with_profile_keys,
};
pub use bindings::hook_plugin::agenticore::plugin::types::{
    Argument, Budget, Conclusion, Content, Denial, Ending, EnvValue, EnvVar, Error, ErrorCode,
    Exit, Fact, Failure, FailureClass, FileEntry, FileMode, Job, LaunchPlan, Layer, LayerFile,
    Line, Location, NamedJson, OutputStream, Place, Retry, Session, SessionPlan, SessionStart,
    Source, StopPlan, ToolCall, ToolResult, Transcript, Usage,
};
pub use hooks::{
    Annotation, Hooks, PlanPatch, PlanView, PullRequestText, PullRequestVerdict, Review, RunResult,
    Verdict,
};
pub use log::{debug, error, info, warn};
pub use profile::{About, NoConfig, Plain, Profile, Request, Run, RunStart, Spent};
pub use redact::{Passage, PassageKind, Redact};

#[doc(hidden)]
pub use {
    bindings::hook_plugin, bindings::profile_plugin, bindings::redact_plugin, hooks::HookComponent,
    profile::ProfileComponent, redact::RedactComponent,
};

/// Makes a component of a type that implements [`Hooks`]. Natively, for tests, it does nothing.
#[macro_export]
macro_rules! export_hooks {
    ($plugin:ty) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            type Component = $crate::HookComponent<$plugin>;
    $crate::hook_plugin::export_component!(Component with_types_in $crate::hook_plugin);
        };
    };
}

/// Makes a component of a type that implements [`Profile`]. Natively, for tests, it does nothing.
#[macro_export]
macro_rules! export_profile {
    ($plugin:ty) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            type Component = $crate::ProfileComponent<$plugin>;
            $crate::profile_plugin::export_component!(Component with_types_in $crate::profile_plugin);
        };
    };
}

/// Makes a component of a type that implements [`Redact`]; beside [`export_hooks`] it exports both. Natively, for tests, it does nothing.
#[macro_export]
macro_rules! export_redact {
    ($plugin:ty) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            type Component = $crate::RedactComponent<$plugin>;
    $crate::redact_plugin::export_component!(Component with_types_in $crate::redact_plugin);
        };
    };
}
