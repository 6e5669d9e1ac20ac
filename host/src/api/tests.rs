//! The whole router over an in-memory queue: what clients send, and what they see.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod bad_input;
mod client;
mod fake;
mod guard;
mod jobs;
mod memory;
mod openapi;
mod status;
mod streams;
