//! What makes components of plugins in each language, where a machine has it; `.ci/run` installs all of it.

use std::ffi::OsString;
use std::path::PathBuf;

use agenticore::scaffold::Language;

use crate::workspace;

/// The search path of this process, with the toolchain of a language in it.
///
/// # Errors
/// Which program is missing.
pub fn path_with_toolchain(language: Language) -> Result<OsString, String> {
    let (program, place) = match language {
        Language::Rust => ("cargo", None),
        Language::Python => ("componentize-py", Some("python/bin")),
        Language::Javascript => ("componentize-qjs", Some("node/node_modules/.bin")),
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = place.map(|place| target().join("guest-tools").join(place));
    let folders = || own.clone().into_iter().chain(std::env::split_paths(&path));
    if !folders().any(|folder| folder.join(program).is_file()) {
        return Err(format!(
            "{program} is missing; `cargo xtask plugins` says how to install it"
        ));
    }
    std::env::join_paths(folders()).map_err(|error| error.to_string())
}

/// Where projects in Rust share what they compile.
#[must_use]
pub fn shared_target() -> PathBuf {
    target().join("newcomer")
}

fn target() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    workspace().join(target)
}
