//! The generated types of the contract; no other file of the host runs `bindgen!`.
//!
//! The world `full-plugin` is used for its types alone: a component may export any subset of it, so the host looks each
//! interface up by itself (see `load.rs`) and never asks for the world as a whole.

#[expect(missing_docs, reason = "generated; wit/ documents every item")]
mod generated {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "full-plugin",
        imports: { default: trappable },
        exports: { default: async },
        additional_derives: [PartialEq, serde::Serialize, serde::Deserialize],
        require_store_data_send: true,
    });
}

pub(crate) use generated::agenticore::plugin::host;
pub(crate) use generated::exports::agenticore::plugin::{agent, hooks, profile, redact};

/// The values that cross the boundary, as `wit/` documents them.
pub mod types {
    pub use super::generated::agenticore::plugin::types::*;
    pub use super::generated::exports::agenticore::plugin::agent::RunStart;
    pub use super::generated::exports::agenticore::plugin::hooks::{
        Annotation, PlanPatch, PlanView, PullRequestText, PullRequestVerdict, Review, RunResult,
        Verdict,
    };
    pub use super::generated::exports::agenticore::plugin::profile::{
        Description, MaterializeRequest, Spent,
    };
    pub use super::generated::exports::agenticore::plugin::redact::{Passage, PassageKind};
}
