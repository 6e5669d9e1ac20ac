//! `agenticore plugin approvals`, `approve`, `revoke`, `disable` and `enable`: the operator's word about plugins.
//!
//! They write to the directory that all pods read, so they need the settings of a pod and no server.

use serde_json::json;

use super::context::Context;
use super::exit::{ExitCode, UsageError};
use super::output::{Format, Rows};
use super::text;
use crate::config::{Config, Flags};
use crate::trust::{Approval, Standing, Target, Trust};

/// List the versions of plugins that are known, where each stands, and what is switched off
#[derive(Debug, clap::Args)]
pub(super) struct Approvals {
    /// Only versions that wait for approval
    #[arg(long)]
    waiting: bool,
}

/// Let jobs use a version of a plugin that asks for more than an approved one
///
/// Review it first: `agenticore plugin approvals` says what it asks for, `agenticore plugin check FILE` what it is.
#[derive(Debug, clap::Args)]
pub(super) struct Approve {
    /// The digest, at least its first 8 digits, or the name of a plugin whose waiting versions are meant
    plugin: String,
}

/// Take an approval back: no new job may use the version, and waiting ones fail
#[derive(Debug, clap::Args)]
pub(super) struct Revoke {
    /// The digest, at least its first 8 digits, or the name of a plugin whose every version is meant
    plugin: String,
}

/// Switch a plugin off on every pod within seconds
///
/// New jobs that need it are refused and waiting ones fail with the code plugin.disabled. A job whose agent runs already goes on to its
/// end, with a warning on its record; cancel it if it must not.
#[derive(Debug, clap::Args)]
pub(super) struct Disable {
    /// The name or the digest
    plugin: String,
    /// Why, for those whose jobs are refused
    #[arg(long, default_value = "")]
    reason: String,
}

/// Switch a plugin on again
#[derive(Debug, clap::Args)]
pub(super) struct Enable {
    /// The name or the digest that was switched off
    plugin: String,
}

fn trust() -> anyhow::Result<Trust> {
    Ok(Trust::new(&Config::load(&Flags::default())?))
}

fn target(trust: &Trust, text: &str) -> anyhow::Result<Target> {
    let target = trust.decisions()?.target(text);
    target.map_err(|error| UsageError(error.to_string()).into())
}

pub(super) fn approvals(args: &Approvals, context: &Context) -> anyhow::Result<ExitCode> {
    let decisions = trust()?.decisions()?;
    let shown: Vec<&Approval> = decisions
        .approvals
        .values()
        .filter(|a| !args.waiting || a.standing == Standing::Waiting)
        .collect();
    let output = &context.output;
    if matches!(output.format, Format::Json | Format::Jsonl) {
        output.json(&json!({
            "approvals": shown,
            "disabled": decisions.disabled.values().collect::<Vec<_>>(),
        }))?;
        return Ok(ExitCode::Success);
    }
    output.list(&shown, |a| a.digest.to_string(), || rows(&shown))?;
    for disabled in decisions.disabled.values() {
        let reason = text::line(&disabled.reason, 200);
        output.note(&format!("switched off: {} {reason}", disabled.what));
    }
    Ok(ExitCode::Success)
}

fn rows(shown: &[&Approval]) -> Rows {
    let row = |approval: &&Approval| {
        let asks: Vec<String> = approval.requests.iter().map(|g| g.to_string()).collect();
        vec![
            approval.standing.as_str().to_owned(),
            text::line(&approval.name, 64),
            approval.digest.short(),
            text::line(&asks.join(" "), 200),
            text::line(&approval.why, 200),
        ]
    };
    Rows {
        heading: &["STANDING", "PLUGIN", "DIGEST", "ASKS FOR", "WHY"],
        rows: shown.iter().map(row).collect(),
    }
}

pub(super) fn approve(args: &Approve, context: &Context) -> anyhow::Result<ExitCode> {
    let trust = trust()?;
    let decided = trust.approve(&target(&trust, &args.plugin)?)?;
    tell(context, &decided)
}

pub(super) fn revoke(args: &Revoke, context: &Context) -> anyhow::Result<ExitCode> {
    let trust = trust()?;
    let decided = trust.revoke(&target(&trust, &args.plugin)?)?;
    tell(context, &decided)
}

fn tell(context: &Context, decided: &[Approval]) -> anyhow::Result<ExitCode> {
    let output = &context.output;
    if output.format != Format::Table {
        output.json(&decided)?;
        return Ok(ExitCode::Success);
    }
    for approval in decided {
        let line = format!(
            "{} {} {}\n",
            approval.standing.as_str(),
            approval.digest,
            text::line(&approval.name, 64)
        );
        output.data(&line)?;
    }
    Ok(ExitCode::Success)
}

pub(super) fn disable(args: &Disable, context: &Context) -> anyhow::Result<ExitCode> {
    let trust = trust()?;
    let disabled = trust.disable(&target(&trust, &args.plugin)?, &args.reason)?;
    if context.output.format != Format::Table {
        context.output.json(&disabled)?;
        return Ok(ExitCode::Success);
    }
    context
        .output
        .data(&format!("{} is switched off\n", disabled.what))?;
    Ok(ExitCode::Success)
}

pub(super) fn enable(args: &Enable, context: &Context) -> anyhow::Result<ExitCode> {
    let trust = trust()?;
    let target = target(&trust, &args.plugin)?;
    if !trust.enable(&target)? {
        let text =
            format!("{target} was not switched off; `agenticore plugin approvals` lists what is");
        return Err(UsageError(text).into());
    }
    context
        .output
        .data(&format!("{target} is switched on again\n"))?;
    Ok(ExitCode::Success)
}
