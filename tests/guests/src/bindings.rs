//! What `wit/` says, as Rust types.
#![expect(unsafe_code, reason = "generated")]

wit_bindgen::generate!({
    path: "../../wit",
    world: "full-plugin",
});

export!(Plugin with_types_in self);

use crate::Plugin;
