//! See `agenticore::plugin::fuzz::settings`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| agenticore::plugin::fuzz::settings(bytes));
