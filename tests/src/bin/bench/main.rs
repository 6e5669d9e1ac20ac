//! (frame follows)
fn main() {}
