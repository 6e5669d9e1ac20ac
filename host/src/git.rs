//! The git we call: addresses and names, a runner for the git CLI, the clone cache and the worktrees of jobs.

mod ref_name;
mod url;

pub use ref_name::{BaseRef, InvalidRef};
pub use url::{InvalidUrl, RepoUrl, Transport, UrlCredentials, UrlPolicy};
