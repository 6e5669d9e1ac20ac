//! See `agenticore::profile::fuzz_document`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| agenticore::profile::fuzz_document(bytes));
