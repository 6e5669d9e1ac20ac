//! Supervised child processes: started with a marker in their environment, read without ever filling memory, and gone with
//! all they started when they end.
//!
//! This module knows processes, not agents: what to start comes from a launch plan, when to stop comes from the pipeline.
//!
//! - [`Spawn::start`] starts one child in a process group of its own and gives back a [`Child`] and its [`Output`].
//! - A child's tree is found by descent, by process group and by the marker `AGENTICORE_JOB`, so tools that moved to their own
//!   session, forked twice or lost their parent are found too.
//! - [`init`] makes the server the adoptive parent of orphans and reaps them; [`sweep_stale`] ends what a server that was killed
//!   left behind.
//! - [`start_watchdog`] starts a child that ends what this server started, should the server be killed.
//!
//! What is not covered: a process that leaves the group *and* empties its environment *and* loses its parent can be told from
//! another job's only when no other child runs. It is killed as soon as that is so.

mod capture;
mod child;
mod error;
mod head_tail;
mod init;
mod lookup;
mod marker;
pub mod memory;
mod output;
mod pump;
mod registry;
mod splitter;
mod table;
mod tree;
mod watchdog;

pub use capture::Captured;
pub use child::{Child, Ended, Exit, Signal, Spawn, Stopper};
pub use error::{InitError, SpawnError};
pub use head_tail::HeadTail;
pub use init::{Reaper, init};
pub use marker::{Instance, JOB_VARIABLE, JobMarker};
pub use output::{Line, LineLimits, Output, Stream};
pub use tree::{KillReport, leftovers, sweep_stale};
pub use watchdog::{Watchdog, start as start_watchdog, watch};

#[cfg(test)]
mod tests;
