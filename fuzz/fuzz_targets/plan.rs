//! See `agenticore::plugin::fuzz::plan`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    agenticore::plugin::fuzz::plan(bytes);
});
