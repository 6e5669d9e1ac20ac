//! The plugin's log, whose tail is kept on the job's record. Natively, in tests, lines go to standard error.

#[cfg(target_family = "wasm")]
use crate::bindings::hook_plugin::agenticore::plugin::host::{self, Level};

/// For the plugin's author; dropped unless the operator asks for it.
pub fn debug(message: &str) {
    #[cfg(target_family = "wasm")]
    host::log(Level::Debug, message);
    #[cfg(not(target_family = "wasm"))]
    eprintln!("debug: {message}");
}

/// Worth knowing.
pub fn info(message: &str) {
    #[cfg(target_family = "wasm")]
    host::log(Level::Info, message);
    #[cfg(not(target_family = "wasm"))]
    eprintln!("info: {message}");
}

/// Something is odd; the call goes on.
pub fn warn(message: &str) {
    #[cfg(target_family = "wasm")]
    host::log(Level::Warn, message);
    #[cfg(not(target_family = "wasm"))]
    eprintln!("warn: {message}");
}

/// Something failed.
pub fn error(message: &str) {
    #[cfg(target_family = "wasm")]
    host::log(Level::Error, message);
    #[cfg(not(target_family = "wasm"))]
    eprintln!("error: {message}");
}
