//! See `agenticore::plugin::fuzz::component`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| agenticore::plugin::fuzz::component(bytes));
