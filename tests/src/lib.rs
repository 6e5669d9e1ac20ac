//! What the end-to-end suites stand on: a [`World`] that runs the real binary in a home of its own.
//!
//! A test does what a user does (HTTP requests, commands, signals) and looks at what a user sees (answers, streams, exit codes,
//! files). Nothing here reaches into the server. Tests wait for conditions with [`until`], never for a time to pass.
//!
//! - [`World`], [`Builder`]: the server, its home, restarts and kills.
//! - [`Reply`], [`Sse`]: REST and the event stream. [`Cli`]: the command line.
//! - [`Gate`]: holds a job in the middle of its run. [`Repo`]: a git repository on disk.
//! - [`Manifests`]: Kubernetes objects, and [`tool`]: the programs that look at them.
//! - [`GitHub`]: a small GitHub for pull requests.
//! - [`Fleet`]: several servers over one folder and one [`Redis`]; [`chaos`] troubles them, and [`checker`] says whether they
//!   kept their promises.
//! - [`ScriptedAgent`]: a program in the agent's place. [`Model`]: a scripted model service for the real agent CLIs, which
//!   [`real_cli`] finds.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper of tests fails by panicking"
)]

mod agent;
mod binary;
pub mod chaos;
pub mod checker;
mod cli;
mod collector;
mod docker;
mod events;
mod fleet;
mod gate;
mod github;
mod hand_off;
mod http;
mod image;
pub mod ledger;
pub mod lfs;
mod manifests;
mod model;
mod processes;
mod proxy;
mod real_cli;
mod redis;
mod repo;
pub mod sentinel;
mod server;
mod skip;
mod toolchain;
mod tools;
mod world;

pub use agent::ScriptedAgent;
pub use binary::path as binary;
pub use cli::{Cli, Running};
pub use collector::{CollectedSpan, Collector};
pub use docker::Docker;
pub use events::{Frame, Sse};
pub use fleet::Fleet;
pub use gate::Gate;
pub use github::{GitHub, Trouble};
pub use http::{Reply, raw};
pub use image::Image;
pub use manifests::{Manifests, at, container, names, pod_template, strings};
pub use model::{Model, Turn};
pub use processes::{is_alive, peak_memory, resident_memory};
pub use proxy::Proxy;
pub use real_cli::{goes_on, goes_on_with_a_session, real_cli, task};
pub use redis::{Redis, free_port};
pub use repo::Repo;
pub use skip::{missing, skip, test_of};
pub use toolchain::{path_with_toolchain, shared_target};
pub use tools::{find_tool, output_of, server_binary, shared, tool, workspace};
pub use world::{Builder, World};

use std::future::Future;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a condition may take to become true before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The pause between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(20);

/// Asks again and again until `probe` gives a value.
///
/// # Panics
/// When [`PATIENCE`] runs out; the message names `what` was waited for.
pub async fn until<T, F>(what: &str, mut probe: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(
            Instant::now() < deadline,
            "gave up after {} s: {what}",
            PATIENCE.as_secs()
        );
        tokio::time::sleep(PAUSE).await;
    }
}

/// As [`until`], on a thread that may wait; none: [`PATIENCE`] ran out.
pub(crate) fn poll<T>(mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match probe() {
            None if Instant::now() < deadline => std::thread::sleep(PAUSE),
            found => return found,
        }
    }
}

/// A field of a record or event; null where it is missing.
#[must_use]
pub fn field<'a>(value: &'a Value, name: &str) -> &'a Value {
    value.get(name).unwrap_or(&Value::Null)
}

/// A field as text; empty where it is missing or no text.
#[must_use]
pub fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    field(value, name).as_str().unwrap_or_default()
}

/// A field as a number; 0 where it is missing or no number.
#[must_use]
pub fn number(value: &Value, name: &str) -> u64 {
    field(value, name).as_u64().unwrap_or_default()
}
