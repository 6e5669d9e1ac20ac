//! Tests over the shipped policies and over real components; `support` has the guest that misbehaves.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod applying;
mod calls;
mod hostile;
mod loading;
mod output;
mod policies;
mod sandbox;
mod shipped;
mod support;
mod table;
mod versions;
