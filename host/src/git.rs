//! The git we call: addresses and names, a runner for the git CLI, the clone cache and the worktrees of jobs.
//!
//! - [`RepoUrl`] and [`BaseRef`] are parsed at the edge; what they hold can never become an option of git.
//! - [`Git`] runs the CLI with a configuration of our own and keeps credentials in memory.
//! - [`RepoCache`] keeps one clone for each repository under a [`CloneLock`], and gives each job a [`Worktree`].
//!
//! Agents run plain git in their worktrees. They could write to the clone's configuration, so the host trusts none of it.
//! Opening pull requests is not done here.

mod cache;
mod classify;
mod clone;
mod command;
mod credentials;
mod error;
mod evict;
mod files;
mod guard;
mod inspect;
mod lfs;
mod lock;
mod redact;
mod ref_name;
mod url;
mod worktree;

pub use cache::{Checkout, RepoCache, Watch};
pub use command::{Git, GitOptions, Identity};
pub use credentials::{Credential, Credentials, HostToken, NoCredentials};
pub use error::GitError;
pub use evict::{CacheBounds, JobFolder};
pub(crate) use lock::Waiting;
pub use lock::{CloneLock, FlockLock, LockError, LockGuard, OnWait};
pub use ref_name::{BaseRef, InvalidRef};
pub use url::{InvalidUrl, RepoUrl, Transport, UrlCredentials, UrlPolicy};
pub use worktree::Worktree;

#[cfg(test)]
mod tests;
