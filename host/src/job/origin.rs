//! Where a job came from: the submission's key, the job it repeats, and the trace it belongs to.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::{JobId, RequestBody, TraceContext};

/// The longest key of a submission, in characters.
const MAX_KEY: usize = 255;

/// What is known of a job's submission beside the request itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// Makes the submission count once, however often it is sent.
    pub idempotency: Option<Idempotency>,
    /// The job that it runs again.
    pub retry_of: Option<JobId>,
    /// The trace that the submission belongs to.
    pub trace: Option<TraceContext>,
}

/// The key of a submission and what was submitted under it, both as digests: a key may be anything, and a task can be long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Idempotency {
    /// SHA-256 of the key, hexadecimal.
    pub key: String,
    /// SHA-256 of the request, hexadecimal. Whether the submitter waits is no part of it.
    pub request: String,
}

/// A key of a submission that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the Idempotency-Key must be 1 to {MAX_KEY} printable ASCII characters, for example a UUID"
)]
pub struct InvalidKey;

impl Idempotency {
    /// The digests of a key and of the request that came with it, or that it repeats.
    ///
    /// # Errors
    /// [`InvalidKey`].
    pub fn of(key: &str, body: &RequestBody, retry_of: Option<JobId>) -> Result<Self, InvalidKey> {
        let printable = key.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if key.trim().is_empty() || key.len() > MAX_KEY || !printable {
            return Err(InvalidKey);
        }
        let body = RequestBody {
            wait: false,
            ..body.clone()
        };
        // Texts, options of texts and a truth value can always be written.
        let body = serde_json::to_vec(&(retry_of, body)).map_err(|_| InvalidKey)?;
        Ok(Self {
            key: hex(key.as_bytes()),
            request: hex(&body),
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn body(task: &str, wait: bool) -> RequestBody {
        RequestBody {
            task: task.into(),
            wait,
            ..RequestBody::default()
        }
    }

    #[test]
    fn the_digests_tell_keys_and_requests_apart_but_not_whether_somebody_waits() {
        let of = |key, task, wait| Idempotency::of(key, &body(task, wait), None).unwrap();
        assert_eq!(of("k", "x", false), of("k", "x", true));
        assert_eq!(of("k", "x", false).key, of("k", "y", false).key);
        assert_ne!(of("k", "x", false).request, of("k", "y", false).request);
        assert_ne!(of("k", "x", false).key, of("l", "x", false).key);
        let again = Idempotency::of("k", &body("x", false), Some(JobId::random())).unwrap();
        assert_ne!(again.request, of("k", "x", false).request);
    }

    #[test]
    fn a_key_is_short_and_printable() {
        for key in ["", " ", "a\tb", "ü", &"k".repeat(256)] {
            assert_eq!(
                Idempotency::of(key, &body("x", false), None),
                Err(InvalidKey)
            );
        }
    }
}
