//! Why a request to a server failed, and how an answer becomes an error.

use std::error::Error;

use reqwest::Response;
use serde::Deserialize;
use url::Url;

/// The longest text taken from an answer that is no problem document.
const MAX_FOREIGN: usize = 200;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The client itself cannot be set up: address, key or certificates.
    #[error("{0}")]
    Setup(String),
    /// No answer came.
    #[error("cannot reach the server at {server}: {problem}")]
    Unreachable {
        /// The server.
        server: Url,
        /// What went wrong.
        problem: String,
    },
    /// The server refused, with its own words.
    #[error("{detail}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The server's code for it, from the closed list of the REST face.
        code: Option<String>,
        /// What the server said.
        detail: String,
    },
    /// The answer is not one of an Agenticore server.
    #[error("the answer is not what an agenticore server sends ({0}): is the address right?")]
    Unexpected(String),
}

impl ClientError {
    /// The HTTP status of a refusal.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether the same request may succeed later: the server was not reached, is stopping, overloaded or failing.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => matches!(status, 408 | 429 | 500..=599),
            Self::Setup(_) | Self::Unexpected(_) => false,
        }
    }
}

/// The members of a problem document (RFC 9457) that we read, and the older `error`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Problem {
    code: Option<String>,
    detail: Option<String>,
    error: Option<String>,
    title: Option<String>,
}

/// Reads the answer to a request that did not succeed.
pub(super) async fn refusal(response: Response) -> ClientError {
    let status = response.status();
    let bytes = response.bytes().await.unwrap_or_default();
    let problem: Problem = serde_json::from_slice(&bytes).unwrap_or_default();
    let foreign = || {
        let text: String = String::from_utf8_lossy(&bytes)
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .chars()
            .take(MAX_FOREIGN)
            .collect();
        format!("the server answered {status}: {text}")
    };
    let detail = problem
        .detail
        .or(problem.error)
        .or(problem.title)
        .unwrap_or_else(foreign);
    ClientError::Refused {
        status: status.as_u16(),
        code: problem.code,
        detail,
    }
}

/// An error with everything that caused it, in one line: the outermost of this library says little.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
