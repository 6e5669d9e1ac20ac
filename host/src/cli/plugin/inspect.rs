//! `agenticore plugin inspect`: what a component is made of.

use std::path::PathBuf;

use super::super::context::Context;
use super::super::exit::ExitCode;
use super::super::output::Format;
use super::page::Page;
use super::{refused, unusable, workbench};
use crate::workbench::anatomy::{self, Anatomy, Part};
use crate::workbench::component;

/// Show the interfaces, sections and makers of a component, without running it
///
/// Prints its imports and exports as WIT, and the sizes of its sections. With --wit the WIT alone, for a file.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The component, such as `plugin.wasm`, or the name of a bundled plugin
    file: PathBuf,
    /// Print the WIT alone
    #[arg(long)]
    wit: bool,
}

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let component = component(&args.file).map_err(|e| unusable(&e))?;
    let bench = workbench()?;
    let found = match bench.bytes(&component).await {
        Ok(bytes) => anatomy::of(bytes, bench.plugins().host()).await,
        Err(error) => Err(error),
    };
    let found = match found {
        Ok(found) => found,
        Err(error) => return refused(context, &error),
    };
    let output = &context.output;
    match output.format {
        _ if args.wit => output.data(&found.wit)?,
        Format::Json | Format::Jsonl => output.json(&found)?,
        Format::Id => output.data(&format!("{}\n", found.sha256))?,
        Format::Table => output.data(&page(&found))?,
    }
    Ok(ExitCode::Success)
}

fn page(anatomy: &Anatomy) -> String {
    let mut page = Page::default();
    page.fact("sha256", &anatomy.sha256.to_string());
    page.fact("size", &format!("{} bytes", anatomy.size));
    for (field, values) in &anatomy.producers {
        page.facts(field, values);
    }
    page.gap();
    for part in &anatomy.parts {
        page.block(&part_line(part));
        for (name, section) in &part.sections {
            let indent = "  ".repeat(part.depth + 1);
            page.block(&format!(
                "{indent}{name:<40} {:>6} x {:>10} bytes",
                section.count, section.bytes
            ));
        }
    }
    page.gap();
    page.block(&anatomy.wit);
    page.text()
}

fn part_line(part: &Part) -> String {
    let indent = "  ".repeat(part.depth);
    let bytes: u64 = part.sections.values().map(|section| section.bytes).sum();
    match part.functions {
        0 => format!("{indent}{}, {bytes} bytes of its own", part.kind),
        functions => format!(
            "{indent}{}, {bytes} bytes of its own, {functions} functions",
            part.kind
        ),
    }
}
