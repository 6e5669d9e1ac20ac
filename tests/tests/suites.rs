//! The end-to-end suites, one module a promise: each test runs the real binary and looks at what a user sees.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod budget;
mod claude_cli;
mod codex_cli;
mod compose;
mod corpus;
mod crash;
mod disk_full;
mod drain;
mod events;
mod failures;
mod fleet;
mod fleet_agent;
mod fleet_redis;
mod hook_plugins;
mod housekeeping;
mod http_surface;
mod image;
mod init;
mod lease_model;
mod limits;
mod manifests;
mod monitoring;
mod observe;
mod openapi;
mod plugin_author;
mod plugin_bundles;
mod plugin_tools;
mod plugin_trust;
mod pull_request;
mod repos;
mod run_shell;
mod scaling;
mod sessions;
mod shared_fs;
mod unsafe_bind;

use agenticore_tests::{field, number, text};
