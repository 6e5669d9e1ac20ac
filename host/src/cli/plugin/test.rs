//! `agenticore plugin test`: a folder of cases.

use std::path::PathBuf;

use serde_json::json;

use super::super::context::Context;
use super::super::exit::{ExitCode, UsageError};
use super::super::output::Format;
use super::super::text;
use super::{unusable, workbench};
use crate::workbench::case::{self, CaseReport, Ended};

/// Run the cases of a plugin and compare what it answers with what is expected
///
/// A case is a folder with a `case.yml` (a sample job, a configuration, a profile) and a folder `expected`: the launch plan and its
/// files, a hook's verdict, or the refusal. --update writes down what is answered now; look at the change before you commit it.
///
/// Exit codes: 0 every case passed or was updated; 1 one did not; 2 a case makes no sense, or there is none.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder of cases
    folder: PathBuf,
    /// The component; default: what a case names, or `plugin.wasm` in the folder or beside it
    #[arg(long, value_name = "FILE")]
    component: Option<PathBuf>,
    /// Only the cases with this text in their names
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Write down what is answered as what is expected
    #[arg(long)]
    update: bool,
}

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let bench = workbench()?;
    let mut cases = case::find(&args.folder).map_err(|e| unusable(&e))?;
    if let Some(only) = &args.only {
        cases.retain(|path| path.to_string_lossy().contains(only));
        if cases.is_empty() {
            return Err(UsageError(format!("no case has {only:?} in its name")).into());
        }
    }
    let mut reports = Vec::new();
    for path in &cases {
        let named = args.component.as_deref();
        let report = case::run(&bench, &args.folder, path, named, args.update)
            .await
            .map_err(|e| unusable(&e))?;
        if context.output.format == Format::Table {
            context.output.data(&lines(&report))?;
        }
        reports.push(report);
    }
    summary(context, &reports)
}

/// One line for a case that is fine, and what differs for one that is not.
fn lines(report: &CaseReport) -> String {
    let name = text::line(&report.name, 200);
    let mut lines = match report.ended {
        Ended::Passed => format!("passed   {name}\n"),
        Ended::Updated => format!("updated  {name}\n"),
        Ended::Failed => format!("FAILED   {name}\n"),
    };
    for difference in &report.differences {
        lines.push_str(&text::lines(difference.diff.trim_end()));
        lines.push('\n');
    }
    if report.ended == Ended::Failed {
        for line in &report.log {
            lines.push_str(&format!("log      {}\n", text::line(line, 1000)));
        }
    }
    lines
}

fn summary(context: &Context, reports: &[CaseReport]) -> anyhow::Result<ExitCode> {
    let count = |ended| {
        reports
            .iter()
            .filter(|report| report.ended == ended)
            .count()
    };
    let (passed, failed, updated) = (
        count(Ended::Passed),
        count(Ended::Failed),
        count(Ended::Updated),
    );
    let output = &context.output;
    match output.format {
        Format::Json | Format::Jsonl => output.json(&json!({
            "ok": failed == 0, "passed": passed, "failed": failed, "updated": updated, "cases": reports,
        }))?,
        Format::Id => {
            for report in reports
                .iter()
                .filter(|report| report.ended == Ended::Failed)
            {
                output.data(&format!("{}\n", report.name))?;
            }
        }
        Format::Table => {
            let all = format!("{passed} passed, {failed} failed, {updated} updated\n");
            output.data(&all)?;
        }
    }
    if failed > 0 {
        output.note("accept what is answered now with --update, or correct the plugin");
    }
    Ok(if failed == 0 {
        ExitCode::Success
    } else {
        ExitCode::Failed
    })
}
