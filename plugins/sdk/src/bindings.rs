//! What `wit/` says, as Rust types. The only file with generated code.

#[doc(hidden)]
pub mod hook_plugin {
    wit_bindgen::generate!({
        path: "wit",
        world: "hook-plugin",
        pub_export_macro: true,
        export_macro_name: "export_component",
        additional_derives: [PartialEq],
    });
}

/// The same types as those of hooks, so that a project can have both.
#[doc(hidden)]
pub mod profile_plugin {
    wit_bindgen::generate!({
        path: "wit",
        world: "profile-plugin",
        pub_export_macro: true,
        export_macro_name: "export_component",
        additional_derives: [PartialEq],
        with: {
            "agenticore:plugin/types@1.1.0": super::hook_plugin::agenticore::plugin::types,
            "agenticore:plugin/host@1.1.0": super::hook_plugin::agenticore::plugin::host,
        },
    });
}

/// The same types again. A component may export what several of these worlds have.
#[doc(hidden)]
pub mod redact_plugin {
    wit_bindgen::generate!({
        path: "wit",
        world: "redact-plugin",
        pub_export_macro: true,
        export_macro_name: "export_component",
        additional_derives: [PartialEq],
        with: {
            "agenticore:plugin/types@1.1.0": super::hook_plugin::agenticore::plugin::types,
            "agenticore:plugin/host@1.1.0": super::hook_plugin::agenticore::plugin::host,
        },
    });
}

pub(crate) use hook_plugin::agenticore::plugin::types;
