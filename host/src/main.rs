//! The `agenticore` binary.
fn main() {}
