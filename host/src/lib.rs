//! Agenticore runs coding agents as jobs.
//!
//! The life of a job, step by step, and the module that owns each step:
//!
//! 1. **submit** and **queue**: a request becomes a job ([`job`]) and is stored ([`queue`]).
//! 2. **claim**: a pod with a free slot takes it ([`worker`]).
//! 3. **clone**, **materialize**, **pre hook**, **agent run**, **post hook**, **pull request**, **finish**: the steps of
//!    `pipeline`, which lean on [`git`], [`profile`], [`plugin`] and [`process`].
//! 4. People watch and steer it through [`api`] and [`cli`], which is a [`client`] of the former.

pub mod job;

pub mod queue;

pub mod drain;
pub mod pod;
pub mod worker;

mod housekeeping;
mod pipeline;
mod template;

pub mod github;

pub mod git;
pub mod plugin;
pub mod plugins;
pub mod process;
pub mod profile;
pub mod trust;
pub mod workbench;

pub mod bundled;
pub mod scaffold;
pub mod shared_fs;

pub mod api;
pub mod cli;
pub mod client;
pub mod server;
pub mod service;

pub mod config;
pub mod telemetry;

#[cfg(test)]
mod testing;
