//! `cargo xtask chaos`: trouble for a fleet of real servers over a real Redis, and the proof that nothing was lost.

use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use agenticore_tests::chaos::{self, Plan};
use anyhow::{Context, Result, bail};

const USAGE: &str =
    "usage: chaos [--seed S] [--minutes M] [--pods N] [--jobs J] [--slots P] [--lease SECONDS]";

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(3),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every promise was kept.
fn run() -> Result<bool> {
    let plan = plan(std::env::args().skip(1))?;
    eprintln!("{plan:#?}");
    let runtime = tokio::runtime::Runtime::new()?;
    let report = runtime.block_on(chaos::run(plan.clone()))?;
    println!("{:#}", report.json(&plan));
    Ok(report.violations.is_empty())
}

fn plan(mut words: impl Iterator<Item = String>) -> Result<Plan> {
    let mut plan = Plan {
        seed: fastrand::u64(..),
        time: Duration::from_secs(180),
        pods: 4,
        jobs: 2_000,
        slots: 3,
        lease: 4,
        patience: Duration::from_secs(900),
    };
    while let Some(word) = words.next() {
        let value = words
            .next()
            .with_context(|| format!("{word} needs a value\n{USAGE}"))?;
        match word.as_str() {
            "--seed" => plan.seed = number(&word, &value)?,
            "--minutes" => {
                plan.time = Duration::from_secs_f64(number::<f64>(&word, &value)? * 60.0)
            }
            "--pods" => plan.pods = number(&word, &value)?,
            "--jobs" => plan.jobs = number(&word, &value)?,
            "--slots" => plan.slots = number(&word, &value)?,
            "--lease" => plan.lease = number(&word, &value)?,
            other => bail!("unknown argument `{other}`\n{USAGE}"),
        }
    }
    if plan.pods < 2 || plan.jobs == 0 {
        bail!("a fleet has at least two pods and a job");
    }
    Ok(plan)
}

fn number<T: FromStr>(word: &str, value: &str) -> Result<T> {
    match value.parse() {
        Ok(number) => Ok(number),
        Err(_) => bail!("{word} {value}: not a number\n{USAGE}"),
    }
}
