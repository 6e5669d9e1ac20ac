//! `agenticore import`.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::json;

use super::context::Context;
use super::exit::ExitCode;
use super::output::Format;
use crate::config::{Config, Flags};
use crate::queue::import::{Import, tell_fleet};
use crate::queue::redis::Settings;

/// Bring the jobs of another server in, from a file that `agenticore export` wrote
///
/// Run it where the server or a pod runs, with its settings. A fleet may go on meanwhile; a server without one must be stopped. Jobs
/// that are there already are left as they are; jobs that waited or ran when they were exported run here.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file; `-` is standard input
    file: PathBuf,
}

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let config = Config::load(&Flags::default())?;
    let fleet = Settings::of(&config);
    let import = Import::into(&config.jobs_dir, fleet.is_some())?;
    let reader: Box<dyn BufRead> = match args.file.as_os_str() == "-" {
        true => Box::new(std::io::stdin().lock()),
        false => {
            let open = || format!("cannot open {}", args.file.display());
            Box::new(BufReader::new(File::open(&args.file).with_context(open)?))
        }
    };
    let (mut brought, mut known) = (0_usize, 0_usize);
    for (number, line) in reader.lines().enumerate() {
        let place = || format!("line {} of the export", number + 1);
        let line = line.with_context(place)?;
        let job = serde_json::from_str(&line).with_context(place)?;
        match import.job(job).with_context(place)? {
            true => brought += 1,
            false => known += 1,
        }
    }
    if let Some(settings) = fleet {
        tell_fleet(settings).await?;
    }
    match context.output.format {
        Format::Json | Format::Jsonl => context
            .output
            .json(&json!({"imported": brought, "already_there": known}))?,
        Format::Table | Format::Id => context.output.note(&format!(
            "{brought} jobs imported, {known} were there already"
        )),
    }
    Ok(ExitCode::Success)
}
