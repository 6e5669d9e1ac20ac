//! Tells from git's words whose fault a failure is. `LC_ALL=C` keeps the words the same everywhere.

use super::error::GitError;
use super::url::RepoUrl;
use crate::process::Exit;

const DENIED: [&str; 10] = [
    "could not read Username",
    "could not read Password",
    "Authentication failed",
    "Permission denied",
    "Permission to ",
    "returned error: 401",
    "returned error: 403",
    "Host key verification failed",
    "terminal prompts disabled",
    "Access denied",
];

const NOT_FOUND: [&str; 5] = [
    "returned error: 404",
    "not found",
    "does not appear to be a git repository",
    "does not exist",
    "No such file or directory",
];

const UNREACHABLE: [&str; 21] = [
    "Could not resolve host",
    "Could not resolve proxy",
    "Failed to connect",
    "Couldn't connect",
    "Could not connect",
    "Connection refused",
    "Connection timed out",
    "Connection reset",
    "Connection closed",
    "Operation timed out",
    "timed out after",
    "Network is unreachable",
    "No route to host",
    "SSL ",
    "certificate",
    "early EOF",
    "remote end hung up",
    "unexpected disconnect",
    "Operation too slow",
    "Empty reply",
    "returned error: 5",
];

/// The failure of a command; `remote` if it talked to one.
pub(super) fn classify(
    what: String,
    remote: Option<&RepoUrl>,
    exit: Exit,
    stderr: String,
) -> GitError {
    let says = |signs: &[&str]| signs.iter().any(|sign| stderr.contains(sign));
    match remote {
        // A file that cannot be written here is no business of the remote.
        Some(url) if says(&DENIED) && !stderr.contains("cannot create") => GitError::Denied {
            url: url.clone(),
            detail: stderr,
        },
        Some(url) if says(&UNREACHABLE) && !says(&NOT_FOUND) => GitError::Unreachable {
            url: url.clone(),
            detail: stderr,
        },
        Some(url) if says(&NOT_FOUND) => GitError::NotFound { url: url.clone() },
        _ => GitError::Failed { what, exit, stderr },
    }
}
