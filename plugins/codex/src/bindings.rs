//! What `wit/` says, as Rust types. The only file with generated code.
#![cfg_attr(target_family = "wasm", expect(unsafe_code, reason = "generated"))]

#[cfg(target_family = "wasm")]
use crate::Plugin;

wit_bindgen::generate!({
    path: "../../wit",
    world: "profile-plugin",
    additional_derives: [PartialEq],
});

pub(crate) use agenticore::plugin::host;
pub(crate) use agenticore::plugin::types;
pub(crate) use exports::agenticore::plugin::agent::{Guest as AgentGuest, GuestRun, RunStart};
#[cfg(test)]
pub(crate) use exports::agenticore::plugin::profile::Spent;
pub(crate) use exports::agenticore::plugin::profile::{
    Description, Guest as ProfileGuest, MaterializeRequest,
};

// The names that a component exports are none that a native linker takes; tests do without them.
#[cfg(target_family = "wasm")]
export!(Plugin);
