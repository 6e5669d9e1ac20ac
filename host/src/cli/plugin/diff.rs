//! `agenticore plugin diff`: what a new version changes, before anybody installs it.

use std::path::PathBuf;

use super::super::context::Context;
use super::super::exit::ExitCode;
use super::super::output::Format;
use super::page::Page;
use super::{failed, refused, unusable, workbench};
use crate::workbench::compare::{self, Comparison};
use crate::workbench::{Failed, case, component};

/// Say what differs between two components
///
/// What they ask for, what they import, their description and interfaces, and what they answer to sample jobs.
///
/// Exit codes: 0 nothing differs but the bytes; 1 something does, or one cannot be loaded; 2 the command or a file makes no sense.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The component that is used now: a file, or the name of a bundled plugin
    before: PathBuf,
    /// The component that is to take its place
    after: PathBuf,
    /// Ask both for the answers to the cases of this folder (see `plugin test`)
    #[arg(long, value_name = "FOLDER")]
    cases: Option<PathBuf>,
}

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let before = component(&args.before).map_err(|e| unusable(&e))?;
    let after = component(&args.after).map_err(|e| unusable(&e))?;
    let samples = match &args.cases {
        Some(folder) => case::find(folder).map_err(|e| unusable(&e))?,
        None => Vec::new(),
    };
    let samples: Vec<PathBuf> = samples.iter().map(|case| case.join("case.yml")).collect();
    let bench = workbench()?;
    let found = match compare::compare(&bench, before, after, &samples).await {
        Ok(found) => found,
        Err(Failed::Plugin(error)) => return refused(context, &error),
        Err(problem) => return Err(failed(problem)),
    };
    let output = &context.output;
    match output.format {
        Format::Json | Format::Jsonl => output.json(&found)?,
        Format::Id => {}
        Format::Table => output.data(&page(&found))?,
    }
    Ok(if found.is_same() {
        ExitCode::Success
    } else {
        ExitCode::Failed
    })
}

fn page(found: &Comparison) -> String {
    let mut page = Page::default();
    let [before, after] = &found.sha256;
    page.fact("A", &format!("{before}, {} bytes", found.size[0]));
    page.fact("B", &format!("{after}, {} bytes", found.size[1]));
    for (name, values) in [
        ("B asks", &found.more_grants),
        ("no longer", &found.fewer_grants),
        ("B imports", &found.more_imports),
        ("no longer", &found.fewer_imports),
    ] {
        page.facts(name, values);
    }
    for (name, diff) in [
        ("description", &found.description),
        ("interfaces", &found.wit),
    ] {
        if !diff.is_empty() {
            page.block(&format!("\n{name}:\n{diff}"));
        }
    }
    for answer in &found.answers {
        page.block(&format!("\nanswer to {}:\n{}", answer.sample, answer.diff));
    }
    if found.is_same() {
        let samples = found.samples;
        page.fact("same", &format!("grants, imports, description and interfaces, and the answers to {samples} sample jobs"));
    }
    page.text()
}
