//! `agenticore keys`.

use super::context::Context;
use super::exit::ExitCode;
use super::output::Rows;
use crate::config::{Config, Flags};
use crate::queue::redis::Keys;

/// List the keys in Redis that a fleet uses, with their prefix; asks no server
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    let config = Config::load(&Flags::default())?;
    let keys = Keys::new(&config.redis_prefix).all();
    let rows = || Rows {
        heading: &["KEY", "TYPE", "WHAT FOR"],
        rows: keys
            .iter()
            .map(|key| vec![key.key.clone(), key.r#type.to_owned(), key.about.to_owned()])
            .collect(),
    };
    context.output.list(&keys, |key| key.key.clone(), rows)?;
    Ok(ExitCode::Success)
}
