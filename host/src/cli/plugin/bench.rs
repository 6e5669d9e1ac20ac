//! `agenticore plugin bench`: what a call costs.

use super::super::context::Context;
use super::super::exit::{ExitCode, UsageError};
use super::super::output::{Format, Rows};
use super::{failed, refused, unusable};
use crate::config::{Config, Flags};
use crate::workbench::bench::{self, Measured};
use crate::workbench::{Failed, Workbench, component};

/// Measure what a call of a plugin costs
///
/// Loading with and without compiled code, and calls in fresh instances, beside the same work without a plugin in the same run.
/// Ratios can be compared between machines, times cannot. Takes the options of `plugin run`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    call: super::run::Call,
    /// How many calls to measure
    #[arg(long, value_name = "N", default_value_t = 300)]
    calls: usize,
}

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    if !(1..=100_000).contains(&args.calls) {
        return Err(UsageError("--calls takes 1 to 100000".into()).into());
    }
    let named = component(&args.call.file).map_err(|e| unusable(&e))?;
    let (sample, document) = args.call.sample()?;
    let config = Config::load(&Flags::default())?;
    let bench = Workbench::new(config.clone())?;
    let measured = async {
        let trial = bench.prepare(&named, sample, &document).await?;
        bench::measure(&bench, &config, &named, &trial, args.calls).await
    };
    match measured.await {
        Ok(measured) => tell(context, &measured),
        Err(Failed::Plugin(error)) => refused(context, &error),
        Err(problem) => Err(failed(problem)),
    }
}

fn tell(context: &Context, measured: &Measured) -> anyhow::Result<ExitCode> {
    let output = &context.output;
    match output.format {
        Format::Json | Format::Jsonl => output.json(measured)?,
        Format::Id => {}
        Format::Table => output.table(&rows(measured))?,
    }
    Ok(ExitCode::Success)
}

fn rows(measured: &Measured) -> Rows {
    let row = |row: &bench::Row| {
        vec![
            row.what.to_owned(),
            time(row.p50_us),
            row.p99_us.map(time).unwrap_or_default(),
            row.ratio.map(|r| format!("{r:.2}x")).unwrap_or_default(),
            row.beside.unwrap_or_default().to_owned(),
        ]
    };
    Rows {
        heading: &["WHAT", "P50", "P99", "RATIO", "BESIDE"],
        rows: measured.rows.iter().map(row).collect(),
    }
}

fn time(us: f64) -> String {
    if us >= 10_000.0 {
        format!("{:.1} ms", us / 1000.0)
    } else {
        format!("{us:.0} us")
    }
}
