//! `agenticore fsck`.

use super::context::Context;
use super::exit::{ExitCode, UsageError};
use super::output::Rows;
use crate::config::{Config, Flags};
use crate::queue::redis::{Finding, Inspector, Settings};

/// Look for what disagrees between Redis, the jobs directory and the shared volume
///
/// Run it where a pod runs, with a pod's settings; it may run while the fleet works. Exit codes: 0 nothing disagrees, or all of it was
/// repaired; 1 something does.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Put right what disagrees
    #[arg(long)]
    repair: bool,
}

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let config = Config::load(&Flags::default())?;
    let Some(settings) = Settings::of(&config) else {
        return Err(UsageError(
            "there is no REDIS_URL: without a fleet the server looks after its jobs directory itself when it starts".into(),
        )
        .into());
    };
    let inspector = Inspector::new(settings, config.shared_root.as_deref())?;
    let findings = inspector.look().await?;
    context.output.list(
        &findings,
        |finding| finding.subject.clone(),
        || rows(&findings),
    )?;
    if findings.is_empty() {
        context.output.note("nothing disagrees");
        return Ok(ExitCode::Success);
    }
    if !args.repair {
        context.output.note(&format!(
            "{}; `agenticore fsck --repair` puts right what disagrees",
            match findings.len() {
                1 => "1 finding".to_owned(),
                count => format!("{count} findings"),
            }
        ));
        return Ok(ExitCode::Failed);
    }
    inspector.repair(&findings).await?;
    let left = inspector.look().await?;
    context.output.note(&format!(
        "{} repaired, {} left",
        findings.len().saturating_sub(left.len()),
        left.len()
    ));
    Ok(if left.is_empty() {
        ExitCode::Success
    } else {
        ExitCode::Failed
    })
}

fn rows(findings: &[Finding]) -> Rows {
    Rows {
        heading: &["SUBJECT", "WHAT DISAGREES"],
        rows: findings
            .iter()
            .map(|finding| vec![finding.subject.clone(), finding.about.to_owned()])
            .collect(),
    }
}
